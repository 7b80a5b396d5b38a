"""Frozen specs of everything that a result depends on, and their fingerprints.

A spec is checked when it is created: an impossible value raises `FmlibError`.
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

    A renamed field keeps its first name there (`metadata["key"]`), and a renamed value its first value
    (`metadata["values"]`), so that stored results keep their fingerprints.
    """
    described = {}
    for entry in fields(spec):
        value = getattr(spec, entry.name)
        value = entry.metadata.get("values", {}).get(value, value) if isinstance(value, str) else value
        described[entry.metadata.get("key", entry.name)] = spec_dict(value) if is_dataclass(value) else value
    return described


def fingerprint(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of `value` as canonical JSON, with specs as `spec_dict` gives them."""
    text = json.dumps(value, sort_keys=True, default=spec_dict)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SyntheticSpec:
    """Synthetic images whose informative frequencies are known.

    Every class has one tone in 1/f noise. The distractor tones are the same for all classes.

    Example:
        >>> spec = fmlib.SyntheticSpec(size=16, classes=3)
    """

    size: int = 32  # side of the image, pixels
    classes: int = 5  # number of classes, one tone each
    distractors: int = 4  # tones that do not depend on the class
    amplitude: float = 0.10  # of a tone, pixel units
    noise: float = 0.10  # standard deviation of the 1/f noise, pixel units
    train: int = 1500  # training images
    validation: int = 500  # validation images
    source: str = "planted"  # the name in stored results

    def __post_init__(self) -> None:
        require(self.size >= 16 and self.size % 2 == 0, f"size must be even and at least 16, not {self.size}")
        require(2 <= self.classes <= 8, f"synthetic data have 2 to 8 classes, not {self.classes}")
        require(min(self.train, self.validation) >= self.classes, "train and validation need an image per class")


@dataclass(frozen=True)
class ImageSpec:
    """Images from disk, decoded once: resized (short side to `size`) and centre-cropped."""

    source: str = "imagenette"  # "imagenette", or "folder" for any tree of class folders in train/ and val/
    selection: str = "paper-text"  # a key of data.SELECTIONS (five Imagenette classes), or "all"
    size: int = 128  # side of the decoded image, pixels
    channels: int = 1  # 1 gray, 3 RGB

    def __post_init__(self) -> None:
        require(self.source in ("imagenette", "folder"), f"source must be imagenette or folder, not {self.source!r}")
        require(self.channels in (1, 3), f"channels must be 1 (gray) or 3 (RGB), not {self.channels}")
        require(self.size >= 16 and self.size % 2 == 0, f"size must be even, at least 16, not {self.size}")


@dataclass(frozen=True)
class NetworkSpec:
    """A classifier of pixels in [0, 1], its normalisation included.

    Example:
        >>> spec = fmlib.NetworkSpec("resnet18", channels=3, classes=10)
    """

    architecture: str = "vgg11_bn"  # a key of models.ARCHITECTURES
    channels: int = 1  # of the input image
    classes: int = 5  # number of logits
    mean: float = 0.449  # subtracted from every pixel
    std: float = 0.226  # by which the result is divided

    def __post_init__(self) -> None:
        require(self.std > 0, f"std must be positive, not {self.std}")
        require(self.classes >= 2, f"a classifier needs at least 2 classes, not {self.classes}")


@dataclass(frozen=True)
class AttackSpec:
    """An l-infinity attack by projected gradient descent (PGD), in pixel units ([0, 1]).

    Example:
        >>> fmlib.AttackSpec(epsilon=0.03, step=0.01)
        AttackSpec(epsilon=0.03, step=0.01, steps=10)
    """

    epsilon: float = 0.06 * 0.226  # radius; the paper's 0.06 is in normalised units
    step: float = 0.06 * 0.226 / 8  # length of a step
    steps: int = 10  # number of steps, from a random start

    def __post_init__(self) -> None:
        require(0 < self.epsilon < 1, f"epsilon must be between 0 and 1, in pixel units, not {self.epsilon}")
        require(self.step > 0 and self.steps >= 1, "step must be positive and steps at least 1")

    @property
    def restarts(self) -> int:
        """The largest number of PGD starts per image."""
        return 1

    @property
    def queries(self) -> int:
        """The largest number of Square's queries per image."""
        return 5000


@dataclass(frozen=True)
class EvaluationSpec(AttackSpec):
    """The attacks by which robustness is evaluated; by default with the steps and queries of standard AutoAttack."""

    steps: int = 100
    restarts: int = 10
    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.restarts >= 1 and self.queries >= 1, "restarts and queries must be at least 1")


@dataclass(frozen=True)
class TrainSpec:
    """How a network is trained: Adam with a one-cycle learning rate, on images augmented as the regime says.

    Example:
        >>> spec = fmlib.TrainSpec("A", epochs=20, attack=fmlib.AttackSpec(epsilon=0.03, step=0.01))
    """

    regime: str = "N"  # a key of augment.REGIMES; see augment.NETWORK_NAMES
    epochs: int = 50
    batch: int = 128
    lr: float = 1e-3  # maximum of the one-cycle learning rate
    warmup: float = 0.1  # share of the steps before the maximum
    crop: tuple[float, float] = (0.08, 1.0)  # area range of the random resized crop; (1, 1) for none
    flip: bool = True  # random horizontal flips
    attack: AttackSpec = field(default_factory=AttackSpec)  # of adversarial training, and to measure robust accuracy

    def __post_init__(self) -> None:
        require(self.epochs >= 1 and self.batch >= 1 and self.lr > 0, "epochs, batch and lr must be positive")
        require(0 <= self.warmup < 1, f"warmup must be a share in [0, 1), not {self.warmup}")
        require(0 < self.crop[0] <= self.crop[1] <= 1, f"crop must be an area range in (0, 1], not {self.crop}")


@dataclass(frozen=True)
class JacobianTrainSpec(TrainSpec):
    """How a network is trained with Jacobian regularisation, in addition to `regime`."""

    #: What is added to the loss: a key of jacobian.PENALTIES.
    statistic: str = field(default="jafr", metadata={"values": {"jacobian_norm": "size"}})
    weight: float = 1e-3  # lambda; with "jafr", positive weights favour low frequencies and negative ones high
    images: int = 32  # images of each batch whose Jacobian is computed: the second derivative is expensive

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < abs(self.weight) < math.inf, f"weight must be finite and not 0, not {self.weight}")
        require(self.images >= 1, f"images must be at least 1, not {self.images}")


@dataclass(frozen=True)
class MaskSpec:
    """How a mask is learned: penalty, optimiser and stop rule (see masks.learn_masks).

    Example:
        >>> spec = fmlib.MaskSpec(penalty=0.1, batch=32)
    """

    penalty: float = 0.2  # lambda: weight of the mean of M
    lr: float = 1e-3  # Adam's learning rate; its maximum if `one_cycle`
    one_cycle: bool = True  # a one-cycle learning rate over `epochs`; otherwise it is constant
    batch: int = 1  # images per mask and step
    epochs: int = 100  # at most; one epoch shows each image of a mask once
    patience: int = 7  # stop after this many consecutive stable epochs
    share_tol: float = field(default=1e-5, metadata={"key": "still"})  # a stable epoch's largest change in L1 share
    min_accuracy_ratio: float = field(default=0.99, metadata={"key": "keep"})  # its least ratio to unmasked accuracy
    beta2: float = field(default=0.999, metadata={"key": "memory"})  # Adam's beta_2
    clip: float = field(default=2.0, metadata={"key": "guard"})  # |d| beyond which exp(d^2) continues as its tangent

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and self.lr > 0, "penalty must be >= 0 and lr > 0")
        require(self.batch >= 1 and self.epochs >= 1 and self.patience >= 1, "batch, epochs and patience must be >= 1")
        require(0 < self.clip <= 9, f"clip must be in (0, 9], beyond which exp(d^2) overflows, not {self.clip}")

    @property
    def loss_tol(self) -> float:
        """The largest change in the invariance cost of a stable epoch."""
        return math.inf


@dataclass(frozen=True)
class ImageMaskSpec(MaskSpec):
    """How a mask of one image is learned, by default as the authors do; one epoch is one step.

    Example:
        >>> spec = fmlib.ImageMaskSpec(epochs=1000)
    """

    penalty: float = 0.07
    lr: float = 0.008  # the authors' one-cycle schedule of four million steps stays near this value
    one_cycle: bool = False
    epochs: int = 20_000
    patience: int = 300
    loss_tol: float = field(default=1e-6, metadata={"key": "calm"})


@dataclass(frozen=True)
class MinimalMaskSpec:
    """How minimal masks of images are found (see minimal_masks).

    Example:
        >>> spec = fmlib.MinimalMaskSpec(steps=120)
    """

    penalty: float = 0.07  # lambda: weight of the L1 share in the objective by which iterates are compared
    steps: int = 60  # forward and backward passes per image
    radius: float = 0.5  # largest change of an entry in the first step; it decreases to 1% of this
    clip: float = 2.0  # |d| beyond which exp(d^2) continues as its tangent
    per_channel: bool = False  # one plane per channel of the image, instead of one for all channels

    def __post_init__(self) -> None:
        require(self.penalty > 0 and self.steps >= 1, "penalty must be > 0 and steps >= 1")
        require(0 < self.radius <= 1, f"radius must be in (0, 1], not {self.radius}")
        require(0 < self.clip <= 9, f"clip must be in (0, 9], beyond which exp(d^2) overflows, not {self.clip}")


@dataclass(frozen=True)
class FrequencyMapSpec:
    """How a frequency map is learned (see frequency_maps), by default as at 32 px; of one image, an epoch is one step.

    Example:
        >>> spec = fmlib.FrequencyMapSpec(penalty=0.01)
    """

    penalty: float = 0.5  # lambda: weight of the sum of M over the full plane and channels; 0.1 at 224 px
    lr: float = 0.01  # Adam's learning rate
    batch: int = 1  # images per map and step
    epochs: int = 5000  # at most
    min_epochs: int = field(default=500, metadata={"key": "least"})  # a map may stop after this many epochs
    window: int = 20  # ... once the loss equals the mean of the last `window` losses, itself included,
    loss_tol: float = field(default=1e-5, metadata={"key": "calm"})  # ... within this tolerance
    beta2: float = field(default=0.999, metadata={"key": "memory"})  # Adam's beta_2

    one_cycle: ClassVar[bool] = False  # the learning rate is constant
    patience: ClassVar[int] = 1  # a map stops after one stable epoch

    def __post_init__(self) -> None:
        require(self.penalty >= 0 and self.lr > 0, "penalty must be >= 0 and lr > 0")
        require(self.batch >= 1 and self.epochs >= 1, "batch and epochs must be >= 1")
        require(2 <= self.window < self.min_epochs, f"window must be >= 2 and < min_epochs, not {self.window}")
        require(self.loss_tol >= 0, f"loss_tol must be >= 0, not {self.loss_tol}")
