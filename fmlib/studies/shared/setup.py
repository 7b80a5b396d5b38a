"""Tasks that every study shares: the data set, the networks, their dataset masks and their accuracies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fmlib.core.config import ImageSpec, JacobianTrainSpec, SyntheticSpec, spec_dict
from fmlib.core.data import Dataset, Split, decode, folders, load_images, source_fingerprint
from fmlib.core.errors import FmlibError
from fmlib.core.evaluation import correctness
from fmlib.core.masks import learn_masks
from fmlib.core.models import build
from fmlib.core.spectra import apply_mask
from fmlib.core.synthetic import make_synthetic
from fmlib.core.training import train
from fmlib.pipeline.store import Artifact, Task
from fmlib.studies.shared.compact import compressed, difference, expanded
from fmlib.studies.shared.profiles import PROFILES, Profile


def load_dataset(spec: ImageSpec | SyntheticSpec, root: Path | None = None, seed: int = 0) -> Dataset:
    """The data set that a spec describes, uint8.

    Args:
        root: folder of the images; synthetic data need none.
        seed: of synthetic data.

    Raises:
        FmlibError: the images cannot be found or read.
    """
    if isinstance(spec, SyntheticSpec):
        return make_synthetic(spec, seed)
    return load_images(spec, root)


def validation_images(spec: ImageSpec, root: Path | None, chosen: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Some validation images as pixels (N, C, H, W).

    Args:
        root: folder of the image data sets.
        chosen: maps the labels of all validation images to the indices of those that are wanted.
    """
    samples = folders(spec, root)["validation"].samples
    wanted = chosen(np.array([label for _, label in samples]))
    return torch.stack([decode(samples[index][0], spec.size, spec.channels) for index in wanted]).float() / 255


def download(root: Path) -> None:
    """Download Imagenette (160 px) into `root` with torchvision, which verifies the archive.

    Raises `FmlibError` if the download fails or the archive is damaged.
    """
    if not (root / "imagenette2-160").is_dir():
        from torchvision.datasets import Imagenette

        try:
            root.mkdir(parents=True, exist_ok=True)
            Imagenette(str(root), split="train", size="160px", download=True)
        except (OSError, RuntimeError) as error:
            raise FmlibError(
                f"cannot download Imagenette into {root} ({error}): check the connection and try again"
            ) from error


def _fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold, in place, each batch norm that follows a convolution in a sequence into it: the same function in eval mode.

    With VGG11 at 128 px on two cores a forward and backward pass then takes three quarters of the time.
    """
    for sequence in [module for module in network.eval().modules() if isinstance(module, nn.Sequential)]:
        for place, (layer, norm) in enumerate(itertools.pairwise(list(sequence))):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[place], sequence[place + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return network.to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Setup:
    """One profile at one seed on one device. Its methods describe tasks; a `Store` computes their artifacts.

    Args:
        root: folder of the images, for profiles that need one.
        progress: whether computations draw progress bars.
    """

    profile: Profile
    seed: int
    device: torch.device
    root: Path | None = None
    progress: bool = True

    @property
    def title(self) -> str:
        """The profile and the architecture of its network, such as "laptop small_vgg"."""
        return f"{self.profile.name} {self.profile.network.architecture}"

    def fingerprint(self, spec: ImageSpec | SyntheticSpec) -> str:
        """The hash of the files that a data set is read from, or of the spec of one that is generated."""
        return source_fingerprint(spec, self.root)

    @cached_property
    def dataset(self) -> Task:
        """The images and labels of both splits, uint8 and int64."""
        spec: dict[str, Any] = spec_dict(self.profile.data) | {"files": self.fingerprint(self.profile.data)}
        if isinstance(self.profile.data, SyntheticSpec):
            spec["seed"] = self.seed

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            data = load_dataset(self.profile.data, self.root, self.seed)
            arrays = {
                f"{name}_{part}": getattr(split, part).numpy()
                for name, split in (("train", data.train), ("validation", data.validation))
                for part in ("images", "labels")
            }
            return Artifact(arrays, facts={"classes": data.classes})

        return Task("dataset", f"data ({self.profile.name}, seed {self.seed})", spec, compute)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of images per split: "train" and "validation"."""
        spec = self.profile.data
        if isinstance(spec, SyntheticSpec):
            return {"train": spec.train, "validation": spec.validation}
        return {split: len(tree.samples) for split, tree in folders(spec, self.root).items()}

    @property
    def half_size(self) -> tuple[int, int]:
        """Rows and columns of a half mask: (H, W // 2 + 1)."""
        return self.profile.data.size, self.profile.data.size // 2 + 1

    def open_dataset(self, artifact: Artifact) -> Dataset:
        """The stored data set, on the device."""

        def split(name: str) -> Split:
            arrays = artifact.arrays
            images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
            return Split(torch.from_numpy(images), torch.from_numpy(labels)).to(self.device)

        return Dataset(split("train"), split("validation"), artifact.facts["classes"])

    def open_network(self, artifact: Artifact) -> nn.Module:
        """The stored network, on the device, in eval mode, its batch norm folded where it follows a convolution."""
        model = build(self.profile.network, 0)
        model.load_state_dict(expanded(artifact.weights, self.profile.network))
        return _fold_batch_norm(model).to(self.device)

    def filtered(self, mask: Artifact) -> Callable[[Tensor], Tensor]:
        """A function that applies a stored dataset mask to pixels (B, C, H, W)."""
        half = torch.from_numpy(mask.arrays["half"]).to(self.device)
        return lambda pixels: apply_mask(pixels, half, self.profile.network.mean)

    def network(self, regime: str, repetition: int = 0) -> Task:
        """A trained network: its weights, and one array per column of the training history, (epochs,).

        With `Profile.update_rank`, the weights are those that `compact` stores, and the fact "rounding" tells what that
        changed on the validation images.

        Args:
            regime: as `Profile.training` takes it.
            repetition: added to the seed.
        """
        spec, seed, rank = self.profile.training(regime), self.seed + repetition, self.profile.update_rank

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            (dataset,) = inputs
            data = self.open_dataset(dataset)
            model = build(self.profile.network, seed).to(self.device)
            history = train(
                model, data.train, data.validation, spec, seed=seed, checkpoint=checkpoint, progress=self.progress
            )
            arrays = {name: np.array([row[name] for row in history]) for name in history[0]}
            if not rank:
                return Artifact(arrays, weights=model.state_dict())
            rounded = Artifact(arrays, weights=compressed(model.state_dict(), self.profile.network, seed, rank))
            pixels = data.validation.pixels()
            return replace(rounded, facts={"rounding": difference(model, self.open_network(rounded), pixels)})

        described = {"network": spec_dict(self.profile.network), "training": spec_dict(spec), "seed": seed}
        if rank:
            described["update_rank"] = rank
        cost = {"A": 1 + spec.attack.steps, "F": 2}.get(spec.regime, 1) + isinstance(spec, JacobianTrainSpec)
        name = f"network {regime} ({self.title}, seed {seed})"
        return Task(
            "network", name, described, compute, (self.dataset,), cost=cost * spec.epochs * self.counts["train"]
        )

    def mask(self, regime: str, repetition: int = 0, variant: str = "plain") -> Task:
        """The dataset mask of a network, fitted on the validation images: `half` (H, W // 2 + 1) and its history.

        Args:
            variant: "plain"; "order", the images in another order; "single", batch size 1 as the authors do;
                "half", the even-numbered images only.
        """
        seed = self.seed + repetition + (1000 if variant == "order" else 0)
        spec = self.profile.single_mask if variant == "single" else self.profile.mask

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            dataset, network = inputs
            images = self.open_dataset(dataset).validation
            chosen = slice(None, None, 2 if variant == "half" else 1)
            pixels, labels = images.pixels(chosen), images.labels[chosen]
            learned = learn_masks(
                self.open_network(network),
                pixels,
                labels,
                torch.zeros_like(labels),
                spec,
                seed=seed,
                centre=self.profile.network.mean,
                checkpoint=checkpoint,
                progress=self.progress,
            )
            arrays = {name: rows[:, 0].cpu().numpy() for name, rows in learned.history.items()}
            return Artifact(
                arrays | {"half": learned.half[0].cpu().numpy()},
                facts={"converged": bool(learned.converged[0]), "epochs": int(learned.epochs[0])},
            )

        described = {"mask": spec_dict(spec), "seed": seed, "half": variant == "half"}
        name = f"mask of {regime} ({self.title}, seed {self.seed + repetition}, {variant})"
        inputs = (self.dataset, self.network(regime, repetition))
        cost = spec.epochs * self.counts["validation"] / (2 if variant == "half" else 1)
        return Task("mask", name, described, compute, inputs, cost=cost)

    def evaluation(self, regime: str, repetition: int = 0) -> Task:
        """Correctness per validation image, three arrays (N,) bool.

        `standard`: unmasked; `masked`: with the network's dataset mask applied; `attacked`: under the training attack.
        """
        attack = self.profile.train.attack

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            dataset, network, mask = inputs
            images = self.open_dataset(dataset).validation
            model = self.open_network(network)
            return Artifact(
                {
                    "standard": correctness(model, images).numpy(),
                    "masked": correctness(model, images, self.filtered(mask)).numpy(),
                    "attacked": correctness(model, images, attack=attack, seed=self.seed + repetition).numpy(),
                }
            )

        described = {"attack": spec_dict(attack), "seed": self.seed + repetition}
        inputs = (self.dataset, self.network(regime, repetition), self.mask(regime, repetition))
        name = f"accuracy of {regime} ({self.title}, seed {self.seed + repetition})"
        return Task("evaluation", name, described, compute, inputs, cost=(attack.steps + 1) * self.counts["validation"])

    def held_out(self) -> Task:
        """Correctness of N on the odd-numbered validation images, three arrays (N // 2,) bool.

        `standard`: unmasked; `all`: with the mask fitted on all images; `half`: with that fitted on the even ones.
        """

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            dataset, network, mask, half_mask = inputs
            images = self.open_dataset(dataset).validation
            odd = Split(images.images[1::2], images.labels[1::2])
            model = self.open_network(network)
            correct = {"standard": correctness(model, odd).numpy()}
            for name, fitted in (("all", mask), ("half", half_mask)):
                correct[name] = correctness(model, odd, self.filtered(fitted)).numpy()
            return Artifact(correct)

        inputs = (self.dataset, self.network("N"), self.mask("N"), self.mask("N", variant="half"))
        return Task("held_out", f"held-out half ({self.profile.name})", {}, compute, inputs)

    def synthetic(self, repetition: int) -> Setup:
        """The setup of the synthetic-data test: the data and network of profile quick, one seed per repetition."""
        return replace(self, profile=PROFILES["quick"], seed=self.seed + repetition)

    @property
    def standard_and_adversarial(self) -> tuple[str, ...]:
        """The regimes N and A, as far as the profile trains them."""
        return tuple(regime for regime in "NA" if regime in self.profile.regimes)

    @property
    def second(self) -> Setup:
        """The same setup with the profile's second architecture."""
        return replace(self, profile=replace(self.profile, network=self.profile.second_network, update_rank=0))

    @property
    def minimal(self) -> Setup:
        """The same setup with minimal masks in place of image masks by the authors' schedule."""
        return replace(self, profile=replace(self.profile, image_mask=self.profile.minimal_mask))
