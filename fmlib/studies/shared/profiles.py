"""Profiles: the scales at which every experiment can be computed, from seconds to the paper's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fmlib.core.config import (
    AttackSpec,
    EvaluationSpec,
    FrequencyMapSpec,
    ImageMaskSpec,
    ImageSpec,
    JacobianTrainSpec,
    MaskSpec,
    MinimalMaskSpec,
    NetworkSpec,
    SyntheticSpec,
    TrainSpec,
)
from fmlib.core.errors import require

#: Suffix of a regularised network's name -> the statistic added to its training loss, and the sign and factor of its
#: weight. JaFR's "+" is meant to favour low frequencies and "-" high ones; "++" and "--" have ten times the weight.
#: Fourier sensitivity's suffixes name the band that is not penalised. "_small" penalises the Jacobian's norm alone.
BIASES = {
    "++": ("jafr", 10),
    "--": ("jafr", -10),
    "+": ("jafr", 1),
    "-": ("jafr", -1),
    "_low": ("sensitivity-low", 1),
    "_high": ("sensitivity-high", 1),
    "_small": ("jacobian_norm", 1),
}


@dataclass(frozen=True)
class Profile:
    """One scale of computation: the data, the networks and the schedules that all experiments share."""

    name: str
    data: SyntheticSpec | ImageSpec
    network: NetworkSpec
    train: TrainSpec
    mask: MaskSpec
    single_mask: MaskSpec  # the authors' schedule for dataset masks, batch size 1, for comparison
    image_mask: ImageMaskSpec | MinimalMaskSpec
    second_network: NetworkSpec  # another architecture, for comparison
    n_image_masks: int  # validation images considered for image masks, equally many per class; 0 means all
    chunk_size: int  # of these images are fitted in one task
    minimal_mask: MinimalMaskSpec = field(default_factory=MinimalMaskSpec)  # in place of `image_mask`, for comparison
    update_rank: int = 0  # of what training adds to large linear layers, as networks keep it (see `compact`); 0: all
    regimes: tuple[str, ...] = ("N", "A", "S", "T", "R")
    second_networks: tuple[tuple[str, int], ...] = (("N", 0), ("A", 0))  # regime and repetition, of `second_network`
    repetitions: int = 2  # networks and dataset masks per regime, with seeds seed, seed + 1, ...
    variants: tuple[str, ...] = ("order", "single", "half")  # other fits of N's dataset mask, see `Setup.mask`
    partial: str = ""  # what a profile of fewer networks or image masks has, in words
    synthetic_repetitions: int = 5  # data sets of known frequencies
    n_heat_maps: int = 200  # validation images per heat map
    jafr: float = 0.001  # absolute weight of JaFR's statistic in the training loss; the authors' value
    sensitivity: float = 0.5  # weight of the Fourier-sensitivity statistic
    jacobian_norm: float = 0.03  # weight of the squared Jacobian norm; shrinks it as much as `sensitivity` does
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)  # the attacks on regularised networks
    n_robust: int = 200  # validation images under these attacks
    n_corrupted: int = 400  # validation images under each corruption
    regularised: tuple[str, ...] = ("N", "N+", "N-", "N_low", "N_small")  # networks compared seed by seed
    bias_repetitions: int = 2  # of each of these
    regularised_once: tuple[str, ...] = ("N++", "N--", "N_high", "F", "F+", "F-", "A", "A+")  # and one of each of these
    #: Removing every frequency costs about log 5 = 1.6 with five classes; a minimal-distance attack leaves
    #: log 5 - log 2 = 0.9 to gain. The authors' penalty of 0.5, for ten classes and three channels, would keep only two
    #: frequencies; 0.01 keeps about ninety, a few times as many as image masks do.
    frequency_map: FrequencyMapSpec = field(default_factory=lambda: FrequencyMapSpec(penalty=0.01))
    n_unique: int = 200  # eligible images whose minimal masks are found from several starts
    n_restarts: int = 8  # random starts of each, besides M = 1
    n_gap: int = 60  # eligible images whose true minimum over all subsets of 16 bands is found
    n_maps: int = 200  # validation images considered for frequency maps, and as many others for those of classes

    @property
    def title(self) -> str:
        """What pages call the profile: the networks' input size, such as "64-px networks"."""
        return f"{self.data.size}-px networks"

    def only(self, networks: Sequence[str] = (), image_masks: int = 0) -> Profile:
        """The profile with fewer networks or fewer image masks.

        Args:
            networks: regimes, N among them; one network of each and one fit of its dataset mask (default: all).
            image_masks: validation images considered for image masks (default: as many as the profile considers).

        Raises:
            FmlibError: a regime is unknown, N is missing, or `image_masks` is negative.
        """
        known = ", ".join(self.regimes)
        for name in networks:
            require(name in self.regimes, f"unknown network {name!r}: choose from {known}")
        require(not networks or "N" in networks, "N must be among the networks, because all others are compared with N")
        require(image_masks >= 0, f"the number of images for image masks must be at least 0, not {image_masks}")
        fewer, parts = self, []
        if networks:
            chosen = tuple(name for name in self.regimes if name in networks)
            fewer = replace(fewer, regimes=chosen, repetitions=1, variants=(), second_networks=())
            parts.append(f"{', '.join(chosen)} of one seed, with one fit of each dataset mask")
        if image_masks:
            fewer = replace(fewer, n_image_masks=image_masks)
            parts.append(f"image masks of the first {image_masks:,} images")
        return replace(fewer, partial="; ".join(parts))

    def training(self, regime: str) -> TrainSpec:
        """The training spec of a regime.

        Args:
            regime: such as "N", optionally with a suffix of `BIASES`, such as "N+".
        """
        weights = {"jafr": self.jafr, "jacobian_norm": self.jacobian_norm}
        for suffix, (statistic, factor) in BIASES.items():
            if regime.endswith(suffix):
                weight = factor * weights.get(statistic, self.sensitivity)
                fields = vars(self.train) | {"regime": regime.removesuffix(suffix)}
                return JacobianTrainSpec(**fields, statistic=statistic, weight=weight)
        return replace(self.train, regime=regime)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="quick",
            data=SyntheticSpec(),
            network=NetworkSpec("tiny_vgg", mean=0.5, std=0.14),
            train=TrainSpec(
                epochs=6,
                batch=64,
                lr=5e-3,
                crop=(1.0, 1.0),
                flip=False,
                attack=AttackSpec(epsilon=0.04, step=0.02, steps=3),
            ),
            mask=MaskSpec(lr=0.02, batch=50, epochs=30, beta2=0.99),
            single_mask=MaskSpec(lr=0.004, epochs=6),
            image_mask=ImageMaskSpec(lr=0.05, epochs=300, patience=30),
            second_network=NetworkSpec("tiny_resnet", mean=0.5, std=0.14),
            n_image_masks=200,
            chunk_size=100,
            synthetic_repetitions=2,
            n_heat_maps=50,
            evaluation=EvaluationSpec(epsilon=0.04, step=0.02, steps=4, restarts=2, queries=30),
            n_robust=40,
            n_corrupted=40,
            jafr=0.05,
            regularised_once=("N_high", "F", "F+"),
            bias_repetitions=1,
            frequency_map=FrequencyMapSpec(penalty=0.01, lr=0.03, epochs=100, min_epochs=60),
            n_maps=30,
            n_unique=12,
            n_restarts=2,
            n_gap=4,
        ),
        Profile(
            name="laptop",
            data=ImageSpec(size=64),
            network=NetworkSpec("small_vgg"),
            train=TrainSpec(epochs=16, lr=5e-3, crop=(0.35, 1.0)),
            mask=MaskSpec(lr=0.01, batch=32, epochs=60, beta2=0.99),
            single_mask=MaskSpec(epochs=30),
            image_mask=ImageMaskSpec(epochs=6000),
            second_network=NetworkSpec("small_resnet"),
            n_image_masks=1000,
            chunk_size=50,
            repetitions=3,
            evaluation=EvaluationSpec(steps=20, restarts=5, queries=500),
            bias_repetitions=3,
            frequency_map=FrequencyMapSpec(penalty=0.01, epochs=1000),
        ),
        Profile(
            name="paper",
            data=ImageSpec(size=128),
            network=NetworkSpec("vgg11_bn"),
            train=TrainSpec(),
            mask=MaskSpec(lr=0.01, batch=32, epochs=60, beta2=0.99),
            single_mask=MaskSpec(),
            image_mask=ImageMaskSpec(),
            second_network=NetworkSpec("resnet18"),
            second_networks=(("N", 0), ("A", 0), ("S", 0), ("N", 1)),
            n_image_masks=0,
            chunk_size=100,
            update_rank=512,
        ),
    )
}


def profile(name: str) -> Profile:
    """The profile named `name`; raises `FmlibError` for an unknown one."""
    require(name in PROFILES, f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
