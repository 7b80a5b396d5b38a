"""Fixtures that several test files share: one thread, a tiny trained network, linear models, checkpoints in memory."""

from __future__ import annotations

import copy
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn

from fmlib.core.config import (
    AttackSpec,
    FrequencyMapSpec,
    ImageMaskSpec,
    MaskSpec,
    NetworkSpec,
    SyntheticSpec,
    TrainSpec,
)
from fmlib.core.data import Split
from fmlib.core.device import BFLOAT16
from fmlib.core.models import build
from fmlib.core.synthetic import make_synthetic
from fmlib.core.training import train
from fmlib.pipeline.plotting import Picture
from fmlib.pipeline.store import Artifact, Store
from fmlib.studies.shared.profiles import PROFILES, Profile
from fmlib.studies.shared.setup import Setup

pytest_plugins = ["browsing"]

settings.register_profile("fmlib", deadline=None, max_examples=25)
settings.load_profile("fmlib")
torch.set_num_threads(1)

#: Files that take long come first, so that processes which share the tests end at about the same time.
FIRST = [
    "test_build.py",
    "test_browser.py",
    "test_playground.py",
    "test_own_playground.py",
    "test_pdf.py",
    "test_scheduler.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files as `FIRST` says."""

    def rank(item: pytest.Item) -> int:
        name = item.path.name
        return FIRST.index(name) if name in FIRST else len(FIRST)

    items.sort(key=rank)


class Interrupted(Exception):
    """What a test raises where a real run would be killed."""


class MemoryCheckpoint:
    """A checkpoint that is always due, keeps its state as bytes, and may interrupt the run after some saves."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.content: bytes | None = None
        self.saves, self.interrupt_after = 0, interrupt_after

    def load(self) -> dict[str, Any] | None:
        return None if self.content is None else torch.load(io.BytesIO(self.content), weights_only=True)

    def due(self) -> bool:
        return True

    def save(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.content, self.saves = buffer.getvalue(), self.saves + 1
        if self.saves == self.interrupt_after:
            raise Interrupted


class Linear(nn.Module):
    """Logits linear in the pixels: `weight` (classes, C * H * W) @ x + `bias` (classes,)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias.clone())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def _snapshot(model: nn.Module) -> dict[str, Any]:
    """All that `frozen` promises to leave alone, for comparison."""
    return {
        "modes": [module.training for module in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "state": {name: value.tolist() for name, value in model.state_dict().items()},
    }


class FakeResults:
    """Published results of the profile "quick" that hold the given files: name without suffix -> table or arrays."""

    profile = "quick"

    def __init__(self, **files: Any) -> None:
        self.files = files

    def table(self, name: str) -> Any:
        return self.files[name].copy()

    def arrays(self, name: str) -> Any:
        return self.files[name]


@pytest.fixture(scope="session")
def linear():
    """The class `Linear`."""
    return Linear


@pytest.fixture(scope="session")
def memory_checkpoint():
    """The class `MemoryCheckpoint`; it raises `memory_checkpoint.Interrupted`."""
    MemoryCheckpoint.Interrupted = Interrupted
    return MemoryCheckpoint


@pytest.fixture(scope="session")
def snapshot():
    """The function that records the state of a model."""
    return _snapshot


@pytest.fixture(scope="session")
def synthetic_spec() -> SyntheticSpec:
    return SyntheticSpec(size=16, classes=3, distractors=2, train=384, validation=96)


@pytest.fixture(scope="session")
def synthetic(synthetic_spec):
    return make_synthetic(synthetic_spec)


@pytest.fixture(scope="session")
def tiny_network() -> NetworkSpec:
    return NetworkSpec("tiny_vgg", classes=3, mean=0.5, std=0.14)


@pytest.fixture(scope="session")
def quick_training() -> TrainSpec:
    return TrainSpec(epochs=4, batch=32, lr=1e-2, crop=(1.0, 1.0), flip=False)


@pytest.fixture(scope="session")
def _trained(synthetic, tiny_network, quick_training):
    model = build(tiny_network, seed=0)
    history = train(model, synthetic.train, synthetic.validation, quick_training, seed=0, progress=False)
    return model, history


@pytest.fixture
def trained(_trained):
    """A small network trained on synthetic data (a copy for each test)."""
    return copy.deepcopy(_trained[0])


@pytest.fixture(scope="session")
def trained_history(_trained):
    """The rows its training returned."""
    return _trained[1]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A store that the tests of a file share."""
    return Store(tmp_path_factory.mktemp("store"), torch.device("cpu"))


@pytest.fixture
def bfloat16_on_cpu():
    """Networks run in bfloat16 on the CPU, until the end of the test."""
    BFLOAT16.add("cpu")
    yield
    BFLOAT16.discard("cpu")


@pytest.fixture
def random_split():
    """A factory of splits of random bytes: count, classes, side, channels."""

    def make(count: int = 8, classes: int = 3, size: int = 16, channels: int = 1) -> Split:
        rng = torch.Generator().manual_seed(count + size)
        images = torch.randint(0, 256, (count, channels, size, size), generator=rng, dtype=torch.uint8)
        return Split(images, torch.arange(count) % classes)

    return make


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all processes of a test run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def common(shared) -> Store:
    """A store that all processes of a test run share: what one of them computes, the others read."""
    return Store(shared / "store", CPU)


def small(epochs: int = 2, mask_epochs: int = 4) -> Profile:
    """A profile of seconds: 16 px, few images, all regimes."""
    return replace(
        PROFILES["quick"],
        data=SyntheticSpec(size=16, distractors=2, train=200, validation=100),
        train=TrainSpec(epochs=epochs, batch=50, lr=5e-3, crop=(1.0, 1.0), flip=False, attack=AttackSpec(0.15, 0.1, 2)),
        mask=MaskSpec(lr=0.05, batch=50, epochs=mask_epochs),
        single_mask=MaskSpec(lr=0.02, epochs=1),
        image_mask=ImageMaskSpec(lr=0.05, epochs=40, patience=10),
        n_image_masks=0,
        synthetic_repetitions=1,
    )


def files(root: Path) -> dict[str, bytes]:
    """Relative path -> content of every file below `root`."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def drawn(picture: Picture) -> Picture:
    """The picture, after drawing it as a notebook does."""
    assert isinstance(picture, Picture)
    assert picture._repr_png_().startswith(b"\x89PNG\r\n\x1a\n")
    return picture


def shown(axes: Any) -> np.ndarray:
    """The plane that an axes shows."""
    return np.asarray(axes.get_images()[0].get_array())


def legend(drawing: Any) -> list[str]:
    """The texts in the legend of an axes, or of a whole picture."""
    box = drawing.legends[0] if isinstance(drawing, Picture) else drawing.get_legend()
    return [text.get_text() for text in box.get_texts()]


def dc_centred(plane: np.ndarray) -> np.ndarray:
    """A square plane (H, H) with DC in the middle, by index arithmetic."""
    side = len(plane)
    order = (np.arange(side) - side // 2) % side
    return plane[order[:, None], order[None, :]]


def symmetric_mask(seed: int, side: int) -> np.ndarray:
    """A random full mask (side, side) with M(-f) = M(f)."""
    plane = np.random.default_rng(seed).random((side, side)).astype(np.float32)
    opposite = -np.arange(side) % side
    return (plane + plane[opposite[:, None], opposite[None, :]]) / 2


def map_artifact(count: int, seed: int, image: np.ndarray | None = None, kept: np.ndarray | None = None) -> Artifact:
    """Distinct random frequency maps of 16 px, as the task that learns them stores them."""
    half = np.random.default_rng(seed).random((count, 1, 16, 9)).astype(np.float32)
    arrays = {"image": np.arange(count) if image is None else image, "half": half, "target": np.arange(count) % 5}
    arrays["kept"] = np.ones(count, bool) if kept is None else kept
    arrays |= {name: np.ones(count) for name in ("converged", "steps", "loss", "l1_share")}
    return Artifact(arrays)


@pytest.fixture
def map_sets() -> dict[str, Artifact]:
    """Maps of 20 images for each network and kind; N's PGD maps are of images 23 to 4, and every second one is kept."""
    names = [f"{network} {kind}" for network in "NA" for kind in ("essential", "PGD", "DeepFool", "FAB")]
    sets = {name: map_artifact(20, seed) for seed, name in enumerate(names)}
    sets["N PGD"] = map_artifact(20, 50, image=np.arange(4, 24)[::-1].copy(), kept=np.arange(20) % 2 == 0)
    return sets


@pytest.fixture(scope="session")
def map_setup() -> Setup:
    """A setup whose frequency maps take seconds."""
    spec = FrequencyMapSpec(penalty=0.01, lr=0.1, epochs=24, min_epochs=21)
    return Setup(replace(small(), n_maps=30, frequency_map=spec), 0, CPU, progress=False)
