"""Fourier masks of anybody's model: the few frequencies of an image that preserve the model's loss.

`FourierMask` prepares the model and the images, checks them, and learns the masks with `core`. Its `classifier` checks
images in the same way for attacks, Jacobian spectra and heat maps.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from fmlib.core.config import FrequencyMapSpec, ImageMaskSpec, MaskSpec, MinimalMaskSpec
from fmlib.core.device import frozen
from fmlib.core.errors import FmlibError, require
from fmlib.core.frequency_maps import FrequencyMaps
from fmlib.core.masks import Masks, learn_masks
from fmlib.core.minimal_masks import minimal_masks
from fmlib.core.spectra import apply_mask
from fmlib.explain.classifier import Classifier
from fmlib.explain.explanation import Explanation
from fmlib.explain.shared_mask import RADIUS, shared_masks

#: Solver -> the default weight of the mean of M in its objective, and its default number of steps.
SOLVERS = {"slp": (0.07, 60), "adam": (0.07, 20_000), "frequency-map": (10.0, 1000)}
Spec = MinimalMaskSpec | ImageMaskSpec | FrequencyMapSpec | MaskSpec
#: The fewest steps that leave anything but a nearly full mask.
MIN_STEPS = 10
#: Bytes that the intermediate results of a batch may take, and its largest number of images.
MEMORY, LARGEST_BATCH = 2**30, 64
#: Adam's schedule for a mask that several images share: its largest rate, images per step, and steps.
SHARED_LR, SHARED_BATCH, SHARED_STEPS = 0.05, 16, 240


class Estimate(NamedTuple):
    """What learning masks is expected to take on this machine."""

    seconds: float
    memory: float  # of intermediate results, MiB
    passes: int  # forward and backward passes, of one image each


class FourierMask:
    """Learns which frequencies of images a classifier needs (Karantzas et al., 2022).

    A mask M in [0, 1] on the Fourier plane of an image minimises exp(d^2) + penalty * mean(M), where d is the change of
    the model's cross-entropy when the image is filtered by M about the gray level that the model sees as 0.

    Args:
        model: a module or a function that returns logits, see `Classifier`; or a `Classifier`.
        mean, std, value_range, centre: how the model's inputs are normalised, see `Classifier`.
        solver: "slp", sequential convex steps (`minimal_masks`, and `shared_masks` for masks that images share);
            "adam", the authors' schedule (`learn_masks`); or "frequency-map", the maps of Basile et al. (2023), which
            minimise the cross-entropy itself and have one plane per channel (`FrequencyMaps`).
        penalty: weight of the mean of M in the objective (default: 0.07, and 10 for frequency maps). Since it is the
            mean, the same value suits all sizes and numbers of channels.
        steps: forward and backward passes per image, 60 by default; with "adam" at most that many, 20,000 by default,
            and with "frequency-map" 1,000.
        per_channel: whether each channel has a mask of its own, instead of one for all ("slp" only).
        batch_size: images that are solved together (default: as many as fit into 1 GiB, at most 64).
        seed: of a random start ("slp") or of the order of the images (shared masks).
        max_seconds: bound on the time of a call. The steps are reduced to what this machine does in that time, as
            measured on a first batch.
        progress: whether to show a progress bar, in steps.

    Raises:
        FmlibError: a value does not make sense.

    Example:
        >>> explain = fmlib.FourierMask(network, mean=0.5, std=0.14, steps=20)
        >>> explain.attribute(images[:4]).shape
        torch.Size([4, 1, 16, 16])
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Any],
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        centre: float | Sequence[float] | None = None,
        solver: str = "slp",
        penalty: float | None = None,
        steps: int | None = None,
        per_channel: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
        max_seconds: float | None = None,
        progress: bool = False,
    ) -> None:
        require(solver in SOLVERS, f"unknown solver {solver!r}: choose one of {', '.join(SOLVERS)}")
        for name, number, least in (("steps", steps, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
            whole = isinstance(number, Integral) and not isinstance(number, bool) and number >= least
            require(number is None or whole, f"{name} must be a whole number of at least {least}, not {number!r}")
        for name, value in (("penalty", penalty), ("max_seconds", max_seconds)):
            positive = isinstance(value, Real) and 0 < value < math.inf
            require(positive or value is None, f"{name} must be positive, not {value!r}")
        require(solver == "slp" or not per_channel, 'masks per channel need solver="slp"')
        if isinstance(model, Classifier):
            untouched = mean is std is centre is None and tuple(value_range) == (0, 1)
            require(untouched, "a Classifier has its own mean, std, value_range and centre: give them to it alone")
            self.classifier = model
        else:
            self.classifier = Classifier(model, mean=mean, std=std, value_range=value_range, centre=centre)
        weight, most = SOLVERS[solver]
        self.penalty, self.steps = weight if penalty is None else penalty, most if steps is None else steps
        self.solver, self.per_channel, self.batch_size, self.seed = solver, per_channel, batch_size, seed
        self.max_seconds, self.progress = max_seconds, progress

    def attribute(self, images: Any, target: Tensor | int | None = None) -> Any:
        """Masks in the shape of the images, as attribution libraries expect them.

        Args:
            images: (N, C, H, W), in the declared range; or a tuple of them alone, as Captum's metrics give it.
            target: the labels whose loss is kept, (N,) or one for all (default: the model's own predictions).

        Returns:
            M over the full Fourier plane with DC at (0, 0), in [0, 1]: (N, C, H, W), equal for all channels unless
            `per_channel`. For a tuple, a tuple.
        """
        if isinstance(images, tuple):
            require(len(images) == 1, f"give one tensor of images, not {len(images)}")
            return (self.attribute(images[0], target),)
        full = self._fit(images, target, "none").masks.full()
        return (full if full.ndim == 4 else full[:, None].expand(-1, images.shape[1], -1, -1)).clone()

    def fit(self, images: Tensor, target: Tensor | int | None = None, *, shared: str = "none") -> Explanation:
        """Learn masks, and apply them.

        Args:
            images: (N, C, H, W), in the declared range.
            target: the labels whose loss is kept, (N,) or one for all (default: the model's own predictions).
            shared: "none", one mask per image; "class", one per class among the labels; or "all", one for all images.

        Returns:
            The masks, and what the model does with them applied.

        Raises:
            FmlibError: the model or the images fail the check (`Classifier.pixels`), or `max_seconds` is too short.
        """
        return self._fit(images, target, shared)

    def _fit(self, images: Tensor, target: Tensor | int | None, shared: str) -> Explanation:
        choices = ("none", "class", "all")
        require(shared in choices, f"unknown value {shared!r} of shared: choose one of {', '.join(choices)}")
        single = shared == "none" or not (self.per_channel or self.solver == "frequency-map")
        require(single, "shared masks have no channels")
        pixels, labels = self.classifier.pixels(images, target)
        index = torch.arange(len(pixels), device=pixels.device)
        if shared != "none":
            index = torch.zeros_like(labels) if shared == "all" else labels.unique(return_inverse=True)[1]
        spec = self._spec(pixels, labels, shared)
        masks = self._learn(pixels, labels, index, spec)
        unconverged = int((~masks.converged).sum())
        if unconverged and shared == "none":
            warnings.warn(
                f"{unconverged} of {len(masks.half)} masks did not converge: they lose the label or change the loss. "
                "Increase steps, or keep to labels that the model predicts",
                stacklevel=3,
            )
        return Explanation.of(self.classifier, pixels, labels, index, masks, spec, self.seed)

    def estimate(self, images: Tensor, target: Tensor | int | None = None) -> Estimate:
        """What `fit` is expected to take, measured by a few passes of some of the images."""
        pixels, labels = self.classifier.pixels(images, target)
        return self._estimate(pixels, labels, self._image_spec(pixels))

    def _image_spec(self, pixels: Tensor) -> Spec:
        """The spec of one mask per image."""
        if self.solver == "slp":
            return MinimalMaskSpec(penalty=self.penalty, steps=self.steps, per_channel=self.per_channel)
        if self.solver == "adam":
            return ImageMaskSpec(penalty=self.penalty, epochs=self.steps)
        entries = pixels[0].numel()  # over whose sum the penalty of a frequency map is
        return FrequencyMapSpec(penalty=self.penalty / entries, epochs=self.steps)

    def _learn(self, pixels: Tensor, labels: Tensor, index: Tensor, spec: Spec) -> Masks:
        centre = self.classifier.centre.to(pixels)
        options: dict[str, Any] = {"centre": centre, "progress": self.progress}
        if isinstance(spec, MinimalMaskSpec):
            options["batch_size"] = self.batch_size or self._batch_size(pixels, labels)
            if len(index.unique()) == len(pixels):
                return minimal_masks(self.classifier, pixels, labels, spec, seed=self.seed, **options)
            return shared_masks(self.classifier, pixels, labels, index, spec, seed=self.seed or 0, **options)
        options |= {"batch_size": self.batch_size, "seed": self.seed or 0}
        if isinstance(spec, FrequencyMapSpec):
            options["objective"] = FrequencyMaps
        return learn_masks(self.classifier, pixels, labels, index, spec, **options)

    def _spec(self, pixels: Tensor, labels: Tensor, shared: str) -> Spec:
        """The spec of this call, with as many steps as fit into `max_seconds`."""
        spec = self._image_spec(pixels)
        if shared != "none" and isinstance(spec, MinimalMaskSpec):
            spec = replace(spec, radius=RADIUS)
        elif shared != "none":
            largest = len(pixels) if shared == "all" else int(labels.unique(return_counts=True)[1].max())
            epochs = max(SHARED_STEPS // math.ceil(largest / SHARED_BATCH), 1)
            spec = MaskSpec(penalty=self.penalty, lr=SHARED_LR, batch=SHARED_BATCH, epochs=epochs)
        if self.max_seconds is None:
            return spec
        needed = self._estimate(pixels, labels, spec)
        share = self.max_seconds / needed.seconds
        name = "steps" if isinstance(spec, MinimalMaskSpec) else "epochs"
        wanted = getattr(spec, name)
        possible = min(int(share * wanted), wanted)
        if possible < min(MIN_STEPS, wanted):
            raise FmlibError(
                f"{self.max_seconds:g} s are too short: {wanted} {name} of {len(pixels)} images take about "
                f"{needed.seconds:.0f} s. Give fewer images or more time"
            )
        return replace(spec, **{name: possible})

    def _batch_size(self, pixels: Tensor, labels: Tensor) -> int:
        """As many images as fit into the memory that a batch may take."""
        return min(max(int(MEMORY / self._bytes_per_image(pixels, labels)), 1), LARGEST_BATCH)

    def _bytes_per_image(self, pixels: Tensor, labels: Tensor) -> float:
        """What the gradient of one more image stores, bytes."""
        one, two = (self._stored(pixels[:1].expand(count, -1, -1, -1), labels[:1].expand(count)) for count in (1, 2))
        return max(two - one, 1)

    def _stored(self, pixels: Tensor, labels: Tensor) -> int:
        """Bytes that autograd stores for the loss of filtered images."""
        storages: dict[int, int] = {}  # address -> bytes; a tensor stored by several operations counts once

        def record(stored: Tensor) -> Tensor:
            storages[stored.untyped_storage().data_ptr()] = stored.untyped_storage().nbytes()
            return stored

        with saved_tensors_hooks(record, lambda stored: stored):
            self._pass(pixels, labels)
        return sum(storages.values())

    def _pass(self, pixels: Tensor, labels: Tensor) -> None:
        """One forward and backward pass of the loss under masks of ones."""
        size = pixels.shape[-2:]
        with frozen(self.classifier), torch.enable_grad():
            mask = torch.ones(len(pixels), size[0], size[1] // 2 + 1, dtype=pixels.dtype, device=pixels.device)
            filtered = apply_mask(pixels, mask.requires_grad_(), self.classifier.centre.to(pixels))
            losses = cross_entropy(self.classifier(filtered), labels, reduction="sum")
            (grad,) = torch.autograd.grad(losses, mask)
            float(grad.sum())  # waits for the device

    def _estimate(self, pixels: Tensor, labels: Tensor, spec: Spec) -> Estimate:
        size = min(self.batch_size or self._batch_size(pixels, labels), len(pixels))
        measured = []
        for _ in range(3):
            start = time.perf_counter()
            self._pass(pixels[:size], labels[:size])
            measured.append(time.perf_counter() - start)
        passes = len(pixels) * (spec.steps if isinstance(spec, MinimalMaskSpec) else spec.epochs)
        memory = size * self._bytes_per_image(pixels, labels) / 2**20
        return Estimate(sorted(measured)[1] / size * passes, memory, passes)
