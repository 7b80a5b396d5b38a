"""Frozen specs of everything a result depends on, their fingerprints, and the three profiles.

A spec is checked when it is made: an impossible value raises `FmlibError`, which the command line turns into one
line and exit code 2.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar


class FmlibError(Exception):
    """A mistake the user can mend: the message says what is wrong and how to mend it."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it, as the command line does: one line."""
        return [f"fmlib: {self}"]


def require(condition: bool, message: str) -> None:
    """Raise `FmlibError(message)` unless `condition` holds."""
    if not condition:
        raise FmlibError(message)


def fingerprint(value: Any) -> str:
    """Sixteen hex digits of the SHA-256 of `value` as canonical JSON (dataclasses become dictionaries)."""
    text = json.dumps(value, sort_keys=True, default=asdict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PlantedSpec:
    """Images made in code whose informative frequencies are known.

    Every class is one tone in 1/f noise; every image also carries the same distractor tones.
    """

    size: int = 32  # side of the image, pixels
    classes: int = 5  # number of classes, one tone each
    distractors: int = 4  # tones that every image has, whatever its class
    amplitude: float = 0.10  # of a tone, pixel units
    noise: float = 0.10  # standard deviation of the 1/f noise, pixel units
    train: int = 1500  # training images
    validation: int = 500  # validation images
    source: str = "planted"

    def __post_init__(self) -> None:
        require(self.size >= 16 and self.size % 2 == 0, f"planted size must be even and at least 16, not {self.size}")
        require(2 <= self.classes <= 8, f"planted data has 2 to 8 classes, not {self.classes}")
        require(min(self.train, self.validation) >= self.classes, "every class needs at least one image")


@dataclass(frozen=True)
class PhotoSpec:
    """Photographs from disk, decoded once: resized (short side to `size`) and centre-cropped."""

    source: str = "imagenette"  # "imagenette", or "folder" for any train/ and val/ tree of class folders
    selection: str = "paper-text"  # named choice of five Imagenette classes, or "all"
    size: int = 128  # side of the decoded image, pixels
    channels: int = 1  # 1 gray, 3 RGB

    def __post_init__(self) -> None:
        require(self.source in ("imagenette", "folder"), f"unknown data source {self.source!r}: imagenette or folder")
        require(self.channels in (1, 3), f"channels must be 1 (gray) or 3 (RGB), not {self.channels}")
        require(self.size >= 16 and self.size % 2 == 0, f"image size must be even and at least 16, not {self.size}")


@dataclass(frozen=True)
class NetworkSpec:
    """A classifier of [0,1] pixels; its normalisation is inside."""

    architecture: str = "vgg11_bn"  # a key of models.ARCHITECTURES
    channels: int = 1  # of the input image
    classes: int = 5  # number of logits
    mean: float = 0.449  # subtracted from every pixel
    std: float = 0.226  # then divided by

    def __post_init__(self) -> None:
        require(self.std > 0, "the normalisation's std must be positive")
        require(self.classes >= 2, f"a classifier needs at least 2 classes, not {self.classes}")


@dataclass(frozen=True)
class AttackSpec:
    """An l-infinity attack by projected gradient steps, in pixel units ([0,1])."""

    epsilon: float = 0.06 * 0.226  # radius; the paper's .06 is in normalised units
    step: float = 0.06 * 0.226 / 8  # length of a step
    steps: int = 10  # number of steps, from a random start

    def __post_init__(self) -> None:
        require(0 < self.epsilon < 1, f"epsilon is in pixel units, between 0 and 1, not {self.epsilon}")
        require(self.step > 0 and self.steps >= 1, "an attack needs a positive step and at least one step")

    @property
    def restarts(self) -> int:
        """How often PGD starts on an image that withstands."""
        return 1

    @property
    def queries(self) -> int:
        """How often Square may ask for the logits of an image."""
        return 5000


@dataclass(frozen=True)
class EvaluationSpec(AttackSpec):
    """How hard a network's robustness is tried; the steps are those of a standard AutoAttack."""

    steps: int = 100
    restarts: int = 10
    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.restarts >= 1 and self.queries >= 1, "an attack needs at least one start and one query")


@dataclass(frozen=True)
class TrainSpec:
    """How a network is trained: Adam under a one-cycle rate; the best validation epoch is kept."""

    regime: str = "N"  # a key of training.REGIMES: N plain, A adversarial, F by FGSM, S scale, T translate, R rotate
    epochs: int = 50
    batch: int = 128
    lr: float = 1e-3  # the one-cycle maximum
    warmup: float = 0.1  # share of the steps before the maximum
    crop: tuple[float, float] = (0.08, 1.0)  # area range of the random resized crop; (1, 1) switches it off
    flip: bool = True  # random horizontal flips
    attack: AttackSpec = field(default_factory=AttackSpec)  # used by regime A, and to measure robust accuracy

    def __post_init__(self) -> None:
        require(self.epochs >= 1 and self.batch >= 1 and self.lr > 0, "epochs, batch and lr must be positive")
        require(0 <= self.warmup < 1, f"warmup is a share of the steps, from 0 to below 1, not {self.warmup}")
        require(0 < self.crop[0] <= self.crop[1] <= 1, f"crop is an area range within (0, 1], not {self.crop}")


@dataclass(frozen=True)
class JacobianTrainSpec(TrainSpec):
    """How a network is trained with a statistic of its Jacobian's spectrum in the loss, on top of `regime`."""

    statistic: str = "jafr"  # a key of jacobian.PENALTIES
    weight: float = 1e-3  # lambda; of "jafr", above 0 it favours low frequencies and below 0 high ones
    images: int = 32  # of each batch, whose Jacobian is taken: the second derivative is what costs

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < abs(self.weight) < math.inf, f"the statistic's weight must be finite and not 0, not {self.weight}")
        require(self.images >= 1, "the Jacobian needs at least one image of each batch")


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
    "_small": ("size", 1),
}


@dataclass(frozen=True)
class MaskSpec:
    """How a mask is learned: penalty, optimiser and stop rule (see masks.learn_masks)."""

    penalty: float = 0.2  # lambda: weight of the mean of M
    lr: float = 1e-3  # Adam's rate; the maximum of the cycle if `one_cycle`
    one_cycle: bool = True  # anneal the rate over `epochs`; otherwise it is constant
    batch: int = 1  # images per mask and step
    epochs: int = 100  # at most; an epoch shows every image of a mask once
    patience: int = 7  # stop after this many still epochs in a row
    still: float = 1e-5  # an epoch is still if the L1 share changed by less
    keep: float = 0.99  # ... and at least this share of the unmasked accuracy is kept
    memory: float = 0.999  # Adam's beta_2: decay of its mean of squared gradients
    guard: float = 2.0  # |d| above which exp(d^2) goes on along its tangent

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and self.lr > 0, "a mask needs penalty >= 0 and lr > 0")
        require(self.batch >= 1 and self.epochs >= 1 and self.patience >= 1, "batch, epochs, patience must be >= 1")
        require(0 < self.guard <= 9, f"guard must lie in (0, 9]: exp(d^2) overflows float32 beyond, not {self.guard}")

    @property
    def calm(self) -> float:
        """An epoch is still only if the invariance cost changed by no more than this."""
        return math.inf


@dataclass(frozen=True)
class ImageMaskSpec(MaskSpec):
    """How a mask of one image is learned, by default as the authors do; an epoch is one step."""

    penalty: float = 0.07
    lr: float = 0.008  # where the authors' one-cycle plan of four million steps stays
    one_cycle: bool = False
    epochs: int = 20_000
    patience: int = 300
    calm: float = 1e-6


@dataclass(frozen=True)
class FrequencyMapSpec:
    """How a frequency map is learned (see frequency_maps), by default as its authors do at 32 px.

    An epoch of the map of one image is one step.
    """

    penalty: float = 0.5  # lambda: weight of the sum of M over the full plane and the channels; theirs at 224 px is 0.1
    lr: float = 0.01  # Adam's rate
    batch: int = 1  # images per map and step
    epochs: int = 5000  # at most
    least: int = 500  # a map may stop after this many epochs
    window: int = 20  # ... once the loss is the mean of this many last losses, its own among them
    calm: float = 1e-5  # ... up to this difference
    memory: float = 0.999  # Adam's beta_2: decay of its mean of squared gradients

    one_cycle: ClassVar[bool] = False  # the rate is constant
    patience: ClassVar[int] = 1  # one calm epoch is enough

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and self.lr > 0, "a map needs penalty >= 0 and lr > 0")
        require(self.batch >= 1 and self.epochs >= 1, "batch and epochs must be >= 1")
        require(2 <= self.window < self.least, f"window must lie from 2 to below least, not at {self.window}")
        require(self.calm >= 0, f"calm is a difference of losses, not {self.calm}")


@dataclass(frozen=True)
class Profile:
    """One budget: the data, the networks and the schedules that every recipe uses."""

    name: str
    data: PlantedSpec | PhotoSpec
    network: NetworkSpec
    train: TrainSpec
    mask: MaskSpec
    single_mask: MaskSpec  # the authors' way, one image a step, to compare with
    image_mask: ImageMaskSpec
    second_network: NetworkSpec  # another architecture, to compare with
    images: int  # validation images considered for image masks, the same number of each class; 0 is all
    chunk: int  # of these images are done in one job
    regimes: tuple[str, ...] = ("N", "A", "S", "T", "R")
    repetitions: int = 2  # networks and masks are made this many times, from seeds seed, seed + 1, ...
    planted_repetitions: int = 5  # and the planted-frequency test this many times
    heat_images: int = 200  # validation images under every frequency of a heat map
    jafr: float = 0.001  # weight of JaFR's statistic in the loss of biased networks, of either sign; the authors'
    sensitivity: float = 0.5  # weight of the Fourier-sensitivity share in theirs
    size: float = 0.03  # weight of the squared length of the Jacobian in theirs: as small as the share makes it
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)  # how hard biased networks are tried
    tried: int = 200  # validation images under these attacks
    corrupted: int = 400  # validation images under each corruption
    repeated: tuple[str, ...] = ("N", "N+", "N-", "N_low", "N_small")  # networks compared for their bias, seed by seed
    bias_repetitions: int = 2  # how many of each of these
    biased: tuple[str, ...] = ("N++", "N--", "N_high", "F", "F+", "F-", "A", "A+")  # and one of each of these
    #: To drop every frequency costs about log 5 = 1.6 with five classes, of which an attack of least distance leaves
    #: log 5 - log 2 = 0.9 to be gained. The authors' penalty of 0.5, set for ten classes and three channels, would let
    #: two frequencies stay; 0.01 lets ninety, a few times what image masks keep.
    frequency_map: FrequencyMapSpec = field(default_factory=lambda: FrequencyMapSpec(penalty=0.01))
    mapped: int = 200  # validation images considered for frequency maps, and as many others for those of classes

    def training(self, regime: str) -> TrainSpec:
        """The training spec of one regime, such as "N", or with one of `BIASES` at its end, such as "N+"."""
        for ending, (statistic, times) in BIASES.items():
            if regime.endswith(ending):
                weight = times * {"jafr": self.jafr, "size": self.size}.get(statistic, self.sensitivity)
                own = vars(self.train) | {"regime": regime.removesuffix(ending)}
                return JacobianTrainSpec(**own, statistic=statistic, weight=weight)
        return replace(self.train, regime=regime)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="quick",
            data=PlantedSpec(),
            network=NetworkSpec("tiny_vgg", mean=0.5, std=0.14),
            train=TrainSpec(
                epochs=6,
                batch=64,
                lr=5e-3,
                crop=(1.0, 1.0),
                flip=False,
                attack=AttackSpec(epsilon=0.04, step=0.02, steps=3),
            ),
            mask=MaskSpec(lr=0.02, batch=50, epochs=30, memory=0.99),
            single_mask=MaskSpec(lr=0.004, epochs=6),
            image_mask=ImageMaskSpec(lr=0.05, epochs=300, patience=30),
            second_network=NetworkSpec("tiny_resnet", mean=0.5, std=0.14),
            images=200,
            chunk=100,
            planted_repetitions=2,
            heat_images=50,
            evaluation=EvaluationSpec(epsilon=0.04, step=0.02, steps=4, restarts=2, queries=30),
            tried=40,
            corrupted=40,
            jafr=0.05,
            biased=("N_high", "F", "F+"),
            bias_repetitions=1,
            frequency_map=FrequencyMapSpec(penalty=0.01, lr=0.03, epochs=100, least=60),
            mapped=30,
        ),
        Profile(
            name="laptop",
            data=PhotoSpec(size=64),
            network=NetworkSpec("small_vgg"),
            train=TrainSpec(epochs=16, lr=5e-3, crop=(0.35, 1.0)),
            mask=MaskSpec(lr=0.01, batch=32, epochs=60, memory=0.99),
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
            data=PhotoSpec(size=128),
            network=NetworkSpec("vgg11_bn"),
            train=TrainSpec(),
            mask=MaskSpec(lr=0.01, batch=32, epochs=60, memory=0.99),
            single_mask=MaskSpec(),
            image_mask=ImageMaskSpec(),
            second_network=NetworkSpec("resnet18"),
            images=0,
            chunk=2000,  # all: the last masks of a job, of 20,000 steps, run almost alone
        ),
    )
}


def profile(name: str) -> Profile:
    """The profile of that name; raises `FmlibError` for an unknown one."""
    require(name in PROFILES, f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    return PROFILES[name]
