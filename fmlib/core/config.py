"""Frozen specs of everything that a result depends on, and their fingerprints.

A spec is checked when it is made: an impossible value raises `FmlibError`, which the command line turns into one
line and exit code 2.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from fmlib.core.errors import require


def spec_dict(spec: Any) -> dict[str, Any]:
    """A spec as a dictionary, as it enters fingerprints and stored records.

    A renamed field keeps its first name there (`metadata["key"]`), and a renamed value its first one
    (`metadata["values"]`), so that no stored result is orphaned.
    """
    described = {}
    for entry in fields(spec):
        value = getattr(spec, entry.name)
        value = entry.metadata.get("values", {}).get(value, value) if isinstance(value, str) else value
        described[entry.metadata.get("key", entry.name)] = spec_dict(value) if is_dataclass(value) else value
    return described


def fingerprint(value: Any) -> str:
    """Sixteen hex digits of the SHA-256 of `value` as canonical JSON; specs become dictionaries by `spec_dict`."""
    text = json.dumps(value, sort_keys=True, default=spec_dict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SyntheticSpec:
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
class ImageSpec:
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

    #: A key of jacobian.PENALTIES.
    statistic: str = field(default="jafr", metadata={"values": {"jacobian_norm": "size"}})
    weight: float = 1e-3  # lambda; of "jafr", above 0 it favours low frequencies and below 0 high ones
    images: int = 32  # of each batch, whose Jacobian is taken: the second derivative is what costs

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < abs(self.weight) < math.inf, f"the statistic's weight must be finite and not 0, not {self.weight}")
        require(self.images >= 1, "the Jacobian needs at least one image of each batch")


@dataclass(frozen=True)
class MaskSpec:
    """How a mask is learned: penalty, optimiser and stop rule (see masks.learn_masks)."""

    penalty: float = 0.2  # lambda: weight of the mean of M
    lr: float = 1e-3  # Adam's rate; the maximum of the cycle if `one_cycle`
    one_cycle: bool = True  # anneal the rate over `epochs`; otherwise it is constant
    batch: int = 1  # images per mask and step
    epochs: int = 100  # at most; an epoch shows every image of a mask once
    patience: int = 7  # stop after this many consecutive stable epochs
    share_tol: float = field(default=1e-5, metadata={"key": "still"})  # an epoch is stable if the L1 share changed less
    min_accuracy_ratio: float = field(default=0.99, metadata={"key": "keep"})  # ... at this share of unmasked accuracy
    beta2: float = field(default=0.999, metadata={"key": "memory"})  # Adam's beta_2
    clip: float = field(default=2.0, metadata={"key": "guard"})  # |d| beyond which exp(d^2) continues as its tangent

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and self.lr > 0, "a mask needs penalty >= 0 and lr > 0")
        require(self.batch >= 1 and self.epochs >= 1 and self.patience >= 1, "batch, epochs, patience must be >= 1")
        require(0 < self.clip <= 9, f"clip must lie in (0, 9]: exp(d^2) overflows float32 beyond, not {self.clip}")

    @property
    def loss_tol(self) -> float:
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
    loss_tol: float = field(default=1e-6, metadata={"key": "calm"})


@dataclass(frozen=True)
class FrequencyMapSpec:
    """How a frequency map is learned (see frequency_maps), by default as its authors do at 32 px.

    An epoch of the map of one image is one step.
    """

    penalty: float = 0.5  # lambda: weight of the sum of M over the full plane and the channels; theirs at 224 px is 0.1
    lr: float = 0.01  # Adam's rate
    batch: int = 1  # images per map and step
    epochs: int = 5000  # at most
    min_epochs: int = field(default=500, metadata={"key": "least"})  # a map may stop after this many epochs
    window: int = 20  # ... once the loss is the mean of this many last losses, its own among them
    loss_tol: float = field(default=1e-5, metadata={"key": "calm"})  # ... up to this difference
    beta2: float = field(default=0.999, metadata={"key": "memory"})  # Adam's beta_2

    one_cycle: ClassVar[bool] = False  # the rate is constant
    patience: ClassVar[int] = 1  # one calm epoch is enough

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and self.lr > 0, "a map needs penalty >= 0 and lr > 0")
        require(self.batch >= 1 and self.epochs >= 1, "batch and epochs must be >= 1")
        require(2 <= self.window < self.min_epochs, f"window must lie from 2 to below min_epochs, not at {self.window}")
        require(self.loss_tol >= 0, f"loss_tol is a difference of losses, not {self.loss_tol}")
