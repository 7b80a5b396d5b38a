"""Anybody's model as a classifier of pixels in [0, 1], which is what the library computes with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from fmlib.core.attacks import perturb
from fmlib.core.checks import check_classifier
from fmlib.core.config import AttackSpec
from fmlib.core.data import Split
from fmlib.core.device import frozen
from fmlib.core.errors import FmlibError, require
from fmlib.core.heat_maps import errors
from fmlib.core.jacobian import input_gradients

#: Means and standard deviations by which torchvision's and timm's models are normalised, RGB.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The largest standard deviation that can be one of pixels in [0, 1]; some models are normalised with 1.
LARGEST_STD = 2
#: The attack by default: two gray levels of 256.
ATTACK = AttackSpec(epsilon=2 / 255, step=0.5 / 255, steps=10)
#: Root mean square of the noise of heat maps by default, in each pixel.
NOISE = 0.07
#: Images that are attacked or differentiated together.
BATCH = 16


class Classifier(nn.Module):
    """A model with its normalisation inside: pixels (B, C, H, W) in [0, 1] -> logits (B, classes).

    It may be given to every function of the library: masks, attacks, heat maps, Jacobian spectra.

    Args:
        model: a module or a function. It returns logits, or a tuple that starts with them, or a dictionary or an object
            with `logits`, as HuggingFace's models do. Any floating-point type.
        mean, std: by which the model's inputs are normalised, in units of pixels in [0, 1]: one number, or one per
            channel. Without them the model is given the images as they are.
        value_range: the values of black and white in the images.
        centre: the gray level about which masks filter, in units of pixels in [0, 1]. Give it if the model normalises
            its inputs itself (default: the level that the model sees as 0, which is `mean` if that is given).

    Raises:
        FmlibError: the model cannot be called, or a value does not make sense.

    Example:
        >>> classifier = fmlib.Classifier(lambda images: network(images), value_range=(0, 255))
        >>> classifier(images).shape  # pixels in [0, 1]
        torch.Size([16, 2])
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], Any],
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        centre: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        require(callable(model), f"the model must be a module or a function, not {type(model).__name__}")
        require((mean is None) == (std is None), "give mean and std together, or neither")
        self.model = model
        self.value_range = _range(value_range)
        self.mean, self.std = _per_channel("mean", mean), _per_channel("std", std)
        if self.mean is not None and self.std is not None:
            inside = bool(((self.mean >= 0) & (self.mean <= 1)).all())
            require(inside, f"mean must be in units of pixels in [0, 1], not {mean}: divide values up to 255 by 255")
            require(bool((self.std > 0).all()), f"std must be positive, not {std}")
            small = bool((self.std <= LARGEST_STD).all())
            require(small, f"std must be in units of pixels in [0, 1], not {std}: divide values up to 255 by 255")
            lengths = {len(self.mean), len(self.std)} - {1}
            require(len(lengths) < 2, f"mean has {len(self.mean)} channels and std has {len(self.std)}")
        level = _per_channel("centre", centre)
        if level is None:
            low, high = self.value_range
            level = torch.full((1, 1, 1), min(max(-low / (high - low), 0.0), 1.0)) if self.mean is None else self.mean
        inside = bool(((level >= 0) & (level <= 1)).all())
        require(inside, f"centre must be in units of pixels in [0, 1], not {centre}: divide values up to 255 by 255")
        self.centre = level  # (C, 1, 1) or (1, 1, 1)
        if not isinstance(model, nn.Module):  # other libraries ask the first parameter for the device
            self.anchor = nn.Parameter(torch.zeros(0), requires_grad=False)

    def pixels(self, images: Tensor, labels: Tensor | int | None = None) -> tuple[Tensor, Tensor]:
        """Checked pixels in [0, 1] (N, C, H, W) and labels (N,) of images in the declared range.

        Args:
            images: (N, C, H, W), floats, or integers of type uint8.
            labels: class numbers (N,), or one for all; by default the model's own predictions.

        Raises:
            FmlibError: as `check_classifier`, or the values are not in the declared range.
        """
        require(isinstance(images, Tensor), f"images must be a torch tensor, not {type(images).__name__}")
        if not isinstance(self.model, nn.Module):
            self.anchor.data = self.anchor.data.to(images.device)
        low, high = self.value_range
        if images.dtype == torch.uint8:
            require((low, high) == (0, 255), "images of type uint8 have the value_range (0, 255): declare it")
            images = images.float()
        if images.is_floating_point() and images.numel():
            self._check_range(images)
            images = ((images.detach().clone() - low) / (high - low)).clamp(0, 1)
            images = images if images.dtype == torch.float64 else images.float()
        for name, value in (("mean", self.mean), ("std", self.std), ("centre", self.centre)):
            given = 1 if value is None or images.ndim != 4 else len(value)
            fits = given in (1, *images.shape[1:2])
            require(fits, f"{name} has {given} channels but the images have shape {tuple(images.shape)}")
        if labels is None:
            check_classifier(self, images, torch.zeros(max(len(images), 1), dtype=torch.int64, device=images.device))
            return images, self.predict(images)
        labels = _targets(labels, images)
        check_classifier(self, images, labels)
        return images, labels

    def predict(self, pixels: Tensor, batch_size: int = 64) -> Tensor:
        """The class of each image that the model predicts in eval mode: pixels (N, C, H, W) in [0, 1] -> (N,)."""
        with frozen(self), torch.no_grad():
            return torch.cat([self(part).argmax(1) for part in pixels.split(batch_size)])

    def attack(
        self,
        images: Tensor,
        labels: Tensor | int | None = None,
        spec: AttackSpec = ATTACK,
        *,
        family: str = "PGD",
        seed: int = 0,
    ) -> Tensor:
        """Adversarial images, untargeted.

        Args:
            images, labels: see `pixels`.
            spec: radius, step length and number of steps, in units of pixels in [0, 1].
            family: a key of `core.attacks.FAMILIES`.
            seed: of the attack's random numbers.

        Returns:
            Pixels in [0, 1], (N, C, H, W).

        Raises:
            FmlibError: as `pixels`, or the family is unknown.

        Example:
            >>> attacked = fmlib.Classifier(network).attack(images)
            >>> bool((attacked - images).abs().max() <= 2.01 / 255)
            True
        """
        pixels, labels = self.pixels(images, labels)
        parts = enumerate(zip(pixels.split(BATCH), labels.split(BATCH), strict=True))
        attacked = [
            perturb(self, *part, spec, seed=seed, purpose=f"report {number}", family=family) for number, part in parts
        ]
        return torch.cat(attacked)

    def jacobian_spectrum(
        self, images: Tensor, labels: Tensor | int | None = None, *, frequencies: Tensor | None = None
    ) -> Tensor:
        """Amplitude of the Fourier transform of each image's input gradient, averaged over channels.

        Args:
            images, labels: see `pixels`; the gradient is that of the cross-entropy with respect to the pixels.
            frequencies: (F, 2), pairs (i, j) in cycles per image, if only these are wanted (default: the full plane).

        Returns:
            (N, H, W) with DC at (0, 0), or (N, F) for chosen frequencies.

        Raises:
            FmlibError: as `pixels`, or a frequency lies outside the plane.
        """
        pixels, labels = self.pixels(images, labels)
        if frequencies is not None:
            frequencies = _frequencies(frequencies, pixels)
        parts = zip(pixels.split(BATCH), labels.split(BATCH), strict=True)
        amplitude = torch.fft.fft2(torch.cat([input_gradients(self, *part) for part in parts])).abs().mean(1)
        return amplitude if frequencies is None else amplitude[:, frequencies[:, 0], frequencies[:, 1]]

    def heat_map(
        self,
        images: Tensor,
        labels: Tensor | int | None = None,
        *,
        frequencies: Tensor | None = None,
        noise: float = NOISE,
        seed: int = 0,
    ) -> Tensor:
        """Whether noise of a single frequency changes the prediction, see `core.heat_maps.errors`.

        Args:
            images, labels: see `pixels`.
            frequencies: (F, 2), pairs (i, j) in cycles per image. Each takes one forward pass per image, so the half
                plane, which is the default, takes H * (W // 2 + 1) of them.
            noise: its root mean square in each pixel, in units of pixels in [0, 1].
            seed: of the signs of the noise.

        Returns:
            (N, H, W // 2 + 1) bool, or (N, F) for chosen frequencies, on the CPU: whether the label is lost.

        Raises:
            FmlibError: as `pixels`, a frequency lies outside the plane, or the noise is not positive.
        """
        pixels, labels = self.pixels(images, labels)
        if frequencies is not None:
            frequencies = _frequencies(frequencies, pixels)
        norm = noise * math.sqrt(math.prod(pixels.shape[-2:]))
        return errors(self, _Pixels(pixels, labels), norm, seed=seed, frequencies=frequencies)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, classes) of pixels (B, C, H, W) in [0, 1]."""
        if self.mean is None:
            low, high = self.value_range
            inputs = pixels.clone() if (low, high) == (0, 1) else low + (high - low) * pixels  # models may overwrite it
        else:
            assert self.std is not None
            inputs = (pixels - self.mean.to(pixels)) / self.std.to(pixels)
        kind = self.dtype
        logits = _logits(self.model(inputs if kind is None else inputs.to(kind)))
        if isinstance(logits, Tensor) and logits.is_floating_point():
            return logits.to(pixels.dtype)
        return logits

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating-point type of the model's weights, if it has any."""
        weights = self.model.parameters() if isinstance(self.model, nn.Module) else iter(())
        return next((weight.dtype for weight in weights if weight.is_floating_point()), None)

    def fingerprint(self) -> str:
        """SHA-256 of the model's weights and buffers by name; of nothing for a function."""
        digest = hashlib.sha256()
        state = self.model.state_dict() if isinstance(self.model, nn.Module) else {}
        for name, value in sorted(state.items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _check_range(self, images: Tensor) -> None:
        """Raise `FmlibError` unless finite images lie in the declared range and use more than a 250th of it."""
        low, high = self.value_range
        least, most = (float(value) for value in images.detach().aminmax())
        require(math.isfinite(least + most), "the images have NaN or infinite pixels: repair or remove them")
        slack = 1e-3 * (high - low)
        advice = "declare another value_range, or give pixels and let mean and std normalise them"
        require(
            low - slack <= least and most <= high + slack,
            f"the images have values from {least:.3g} to {most:.3g}, outside the range {low:g} to {high:g}: {advice}",
        )
        require(
            most - low > 0.004 * (high - low),
            f"the images are black: their values in the range {low:g} to {high:g} reach {most:.3g} only. "
            "Were they divided by 255 twice?",
        )


class _Pixels(Split):
    """Images that are floats already."""

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at `index`, (B, C, H, W)."""
        return self.images[index]


def _frequencies(value: Any, pixels: Tensor) -> Tensor:
    """Checked pairs (i, j), (F, 2) on the CPU, with i from 0 to H - 1 and j from 0 to W - 1."""
    found = torch.as_tensor(value)
    pairs = found.ndim == 2 and len(found) > 0 and found.shape[1] == 2 and not found.is_floating_point()
    require(
        pairs, f"frequencies must be whole numbers of shape (F, 2), not {found.dtype} of shape {tuple(found.shape)}"
    )
    size = torch.tensor(pixels.shape[-2:], device="cpu")
    found = found.cpu().long()
    inside = bool(((found >= -(size // 2)) & (found < size)).all())
    require(inside, f"frequencies must lie in the plane of images of {size[0]} x {size[1]} pixels")
    return found % size


def _range(value: Any) -> tuple[float, float]:
    """A checked value_range."""
    try:
        low, high = (float(bound) for bound in value)
    except (TypeError, ValueError) as error:
        raise FmlibError(f"value_range must be two numbers, (black, white), not {value!r}") from error
    require(-math.inf < low < high < math.inf, f"value_range must be (black, white) with black < white, not {value!r}")
    return low, high


def _targets(labels: Any, images: Tensor) -> Tensor:
    """Labels (N,), from a tensor or from one number for all images; their values are left to `check_classifier`."""
    if isinstance(labels, Integral) and not isinstance(labels, bool):
        number = int(labels)
        require(0 <= number < 2**31, f"labels must be class numbers from 0, not {number}")
        labels = torch.tensor(number, device=images.device)
    if not isinstance(labels, Tensor):
        raise FmlibError(f"labels must be a torch tensor or one number, not {type(labels).__name__}")
    if labels.ndim == 0:
        labels = labels.expand(len(images))
    fits = labels.shape[:1] == images.shape[:1]
    require(fits, f"there are {len(images)} images, but the labels have shape {tuple(labels.shape)}")
    return labels.detach().clone()


def _per_channel(name: str, value: float | Sequence[float] | None) -> Tensor | None:
    """A number or one per channel as (C, 1, 1)."""
    if value is None:
        return None
    try:
        found = torch.as_tensor(value, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError) as error:
        raise FmlibError(f"{name} must be one number or one per channel, not {value!r}") from error
    require(len(found) > 0 and bool(torch.isfinite(found).all()), f"{name} must be finite numbers, not {value!r}")
    return found[:, None, None]


def _logits(output: Any) -> Any:
    """The logits among a model's outputs; other outputs are returned as they are, for the check to name."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if hasattr(output, "logits"):
        return output.logits
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return output
