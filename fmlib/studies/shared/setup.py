"""The tasks of one profile at one seed: which artifact is made from which, and how.

Only here and in `experiments` does computing meet the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fmlib.core.config import ImageSpec, JacobianTrainSpec, SyntheticSpec, spec_dict
from fmlib.core.data import Dataset, Split, folders, load_images, source_fingerprint
from fmlib.core.evaluation import correctness
from fmlib.core.masks import learn_masks
from fmlib.core.models import build
from fmlib.core.spectra import apply_mask
from fmlib.core.synthetic import make_synthetic
from fmlib.core.training import train
from fmlib.pipeline.store import Artifact, Task
from fmlib.studies.shared.profiles import PROFILES, Profile


def load_dataset(spec: ImageSpec | SyntheticSpec, root: Path | None = None, seed: int = 0) -> Dataset:
    """The data set of a spec, decoded or made."""
    if isinstance(spec, SyntheticSpec):
        return make_synthetic(spec, seed)
    return load_images(spec, root)


@dataclass(frozen=True)
class Setup:
    """One profile at one seed on one device; its methods describe artifacts, the store makes them."""

    profile: Profile
    seed: int
    device: torch.device
    root: Path | None = None  # of the photographs
    progress: bool = True

    @property
    def title(self) -> str:
        """The profile and its network's architecture, for people."""
        return f"{self.profile.name} {self.profile.network.architecture}"

    @cached_property
    def dataset(self) -> Task:
        """The images and labels, uint8."""
        spec: dict[str, Any] = spec_dict(self.profile.data) | {
            "files": source_fingerprint(self.profile.data, self.root)
        }
        if isinstance(self.profile.data, SyntheticSpec):
            spec["seed"] = self.seed

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            made = load_dataset(self.profile.data, self.root, self.seed)
            arrays = {
                f"{name}_{part}": getattr(split, part).numpy()
                for name, split in (("train", made.train), ("validation", made.validation))
                for part in ("images", "labels")
            }
            return Artifact(arrays, facts={"classes": made.classes})

        return Task("dataset", f"data ({self.profile.name}, seed {self.seed})", spec, compute)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many images each split has."""
        spec = self.profile.data
        if isinstance(spec, SyntheticSpec):
            return {"train": spec.train, "validation": spec.validation}
        return {split: len(tree.samples) for split, tree in folders(spec, self.root).items()}

    @property
    def half_size(self) -> tuple[int, int]:
        """Rows and columns of a half mask."""
        return self.profile.data.size, self.profile.data.size // 2 + 1

    def open_dataset(self, artifact: Artifact) -> Dataset:
        """The stored data set, on the device."""

        def split(name: str) -> Split:
            arrays = artifact.arrays
            images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
            return Split(torch.from_numpy(images), torch.from_numpy(labels)).to(self.device)

        return Dataset(split("train"), split("validation"), artifact.facts["classes"])

    def open_network(self, artifact: Artifact) -> nn.Module:
        """The stored network, on the device, in eval mode."""
        model = build(self.profile.network, 0)
        model.load_state_dict(artifact.weights)
        return model.to(self.device).eval()

    def filtered(self, mask: Artifact) -> Callable[[Tensor], Tensor]:
        """Pixels -> pixels filtered by a stored dataset mask."""
        half = torch.from_numpy(mask.arrays["half"]).to(self.device)
        return lambda pixels: apply_mask(pixels, half, self.profile.network.mean)

    def network(self, regime: str, repetition: int = 0) -> Task:
        """A trained network, of a regime as profile.training knows."""
        spec, seed = self.profile.training(regime), self.seed + repetition

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            data = self.open_dataset(inputs[0])
            model = build(self.profile.network, seed).to(self.device)
            history = train(
                model, data.train, data.validation, spec, seed=seed, checkpoint=checkpoint, progress=self.progress
            )
            arrays = {name: np.array([row[name] for row in history]) for name in history[0]}
            return Artifact(arrays, weights=model.state_dict())

        described = {"network": spec_dict(self.profile.network), "training": spec_dict(spec), "seed": seed}
        cost = {"A": 1 + spec.attack.steps, "F": 2}.get(spec.regime, 1) + isinstance(spec, JacobianTrainSpec)
        name = f"network {regime} ({self.title}, seed {seed})"
        return Task(
            "network", name, described, compute, (self.dataset,), cost=cost * spec.epochs * self.counts["train"]
        )

    def mask(self, regime: str, repetition: int = 0, variant: str = "plain") -> Task:
        """The dataset mask of a network, fitted on the validation images.

        Variants: "order" draws the images in another order, "single" takes one image a step as the authors do,
        "half" fits on the even-numbered images only.
        """
        seed = self.seed + repetition + (1000 if variant == "order" else 0)
        spec = self.profile.single_mask if variant == "single" else self.profile.mask

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            images = self.open_dataset(inputs[0]).validation
            chosen = slice(None, None, 2 if variant == "half" else 1)
            pixels, labels = images.pixels(chosen), images.labels[chosen]
            learned = learn_masks(
                self.open_network(inputs[1]),
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
        """Per validation image: right unmasked, right behind the dataset mask, right under the attack."""
        attack = self.profile.train.attack

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            images = self.open_dataset(inputs[0]).validation
            model = self.open_network(inputs[1])
            return Artifact(
                {
                    "standard": correctness(model, images).numpy(),
                    "masked": correctness(model, images, self.filtered(inputs[2])).numpy(),
                    "attacked": correctness(model, images, attack=attack, seed=self.seed + repetition).numpy(),
                }
            )

        described = {"attack": spec_dict(attack), "seed": self.seed + repetition}
        inputs = (self.dataset, self.network(regime, repetition), self.mask(regime, repetition))
        name = f"accuracy of {regime} ({self.title}, seed {self.seed + repetition})"
        return Task("evaluation", name, described, compute, inputs, cost=(attack.steps + 1) * self.counts["validation"])

    def held_out(self) -> Task:
        """Whether N is right on the odd images: unmasked, behind the mask fitted on all, and on the even half."""

        def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
            images = self.open_dataset(inputs[0]).validation
            odd = Split(images.images[1::2], images.labels[1::2])
            model = self.open_network(inputs[1])
            found = {"standard": correctness(model, odd).numpy()}
            for name, mask in (("all", inputs[2]), ("half", inputs[3])):
                found[name] = correctness(model, odd, self.filtered(mask)).numpy()
            return Artifact(found)

        inputs = (self.dataset, self.network("N"), self.mask("N"), self.mask("N", variant="half"))
        return Task("held_out", f"held-out half ({self.profile.name})", {}, compute, inputs)

    def synthetic(self, repetition: int) -> Setup:
        """The laboratory of the planted-frequency test: profile quick's data and network, its own seed."""
        return replace(self, profile=PROFILES["quick"], seed=self.seed + repetition)

    @property
    def plain_and_adversarial(self) -> tuple[str, ...]:
        """The regimes N and A, or what the profile trains of them."""
        return tuple(regime for regime in "NA" if regime in self.profile.regimes)

    @property
    def second(self) -> Setup:
        """The same laboratory with the profile's second architecture."""
        return replace(self, profile=replace(self.profile, network=self.profile.second_network))
