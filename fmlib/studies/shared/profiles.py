"""TODO"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fmlib.core.config import (
    AttackSpec,
    EvaluationSpec,
    FrequencyMapSpec,
    ImageMaskSpec,
    ImageSpec,
    JacobianTrainSpec,
    MaskSpec,
    NetworkSpec,
    SyntheticSpec,
    TrainSpec,
)
from fmlib.core.errors import require

#: How the name of a network with a statistic in its loss ends -> the statistic, and its weight over the profile's.
#: JaFR's "+" is meant to favour low frequencies and "-" high ones, "++" and "--" ten times as much; Fourier
#: sensitivity's endings say which band it leaves alone; "_small" asks for a small Jacobian at any frequency.
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
    """One budget: the data, the networks and the schedules that every experiment uses."""

    name: str
    data: SyntheticSpec | ImageSpec
    network: NetworkSpec
    train: TrainSpec
    mask: MaskSpec
    single_mask: MaskSpec  # the authors' way, one image a step, to compare with
    image_mask: ImageMaskSpec
    second_network: NetworkSpec  # another architecture, to compare with
    images: int  # validation images considered for image masks, the same number of each class; 0 is all
    chunk: int  # of these images are done in one task
    regimes: tuple[str, ...] = ("N", "A", "S", "T", "R")
    second_networks: tuple[tuple[str, int], ...] = (("N", 0), ("A", 0))  # regime and repetition, of `second_network`
    repetitions: int = 2  # networks and masks are made this many times, from seeds seed, seed + 1, ...
    synthetic_repetitions: int = 5  # and the planted-frequency test this many times
    n_heat_maps: int = 200  # validation images under every frequency of a heat map
    jafr: float = 0.001  # weight of JaFR's statistic in the loss of biased networks, of either sign; the authors'
    sensitivity: float = 0.5  # weight of the Fourier-sensitivity share in theirs
    jacobian_norm: float = (
        0.03  # weight of the squared length of the Jacobian in theirs: as small as the share makes it
    )
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)  # how hard biased networks are tried
    n_robust: int = 200  # validation images under these attacks
    n_corrupted: int = 400  # validation images under each corruption
    regularised: tuple[str, ...] = (
        "N",
        "N+",
        "N-",
        "N_low",
        "N_small",
    )  # networks compared for their bias, seed by seed
    bias_repetitions: int = 2  # how many of each of these
    regularised_once: tuple[str, ...] = ("N++", "N--", "N_high", "F", "F+", "F-", "A", "A+")  # and one of each of these
    #: To drop every frequency costs about log 5 = 1.6 with five classes, of which an attack of least distance leaves
    #: log 5 - log 2 = 0.9 to be gained. The authors' penalty of 0.5, set for ten classes and three channels, would let
    #: two frequencies stay; 0.01 lets ninety, a few times what image masks keep.
    frequency_map: FrequencyMapSpec = field(default_factory=lambda: FrequencyMapSpec(penalty=0.01))
    n_maps: int = 200  # validation images considered for frequency maps, and as many others for those of classes

    def training(self, regime: str) -> TrainSpec:
        """The training spec of one regime, such as "N", or with one of `BIASES` at its end, such as "N+"."""
        for ending, (statistic, times) in BIASES.items():
            if regime.endswith(ending):
                weight = times * {"jafr": self.jafr, "jacobian_norm": self.jacobian_norm}.get(
                    statistic, self.sensitivity
                )
                own = vars(self.train) | {"regime": regime.removesuffix(ending)}
                return JacobianTrainSpec(**own, statistic=statistic, weight=weight)
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
            images=200,
            chunk=100,
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
            images=1000,
            chunk=50,
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
            images=0,
            chunk=2000,  # all: the last masks of a task, of 20,000 steps, run almost alone
        ),
    )
}


def profile(name: str) -> Profile:
    """The profile of that name; raises `FmlibError` for an unknown one."""
    require(name in PROFILES, f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
