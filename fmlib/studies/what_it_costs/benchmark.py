"""What masks cost: the engine against a serial reference in the same run, its scaling, training, and the whole bill.

The serial reference does what the authors do: one image at a time, the same mathematics and the same stop rule. All
cases use planted images, so that nothing needs to be fetched, and networks trained for a few epochs on them.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from fmlib import __version__
from fmlib.core.augment import REGIMES
from fmlib.core.config import ImageMaskSpec, NetworkSpec, SyntheticSpec, TrainSpec, spec_dict
from fmlib.core.data import Dataset
from fmlib.core.device import frozen
from fmlib.core.errors import FmlibError, require
from fmlib.core.evaluation import predictions
from fmlib.core.masks import Masks, clipped_exp_square, learn_masks
from fmlib.core.models import build
from fmlib.core.spectra import filter_spectrum, l1_share
from fmlib.core.synthetic import make_synthetic
from fmlib.core.training import train
from fmlib.pipeline.experiment import Experiment
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.setup import Setup

#: Data and network are planted; the mean and spread of planted pixels are these.
MEAN, STD = 0.5, 0.14

SEED = 0

RESOLUTIONS = (32, 64, 128, 224)

BATCHES = (1, 4, 16, 64)

COUNTS = (16, 40, 80, 160)  # images, ten times from the first to the last


@dataclass(frozen=True)
class Case:
    """One size of problem: image side, network, images and schedule."""

    size: int
    architecture: str
    images: int
    spec: ImageMaskSpec
    cpu: bool = True  # whether it is measured on a CPU unless asked for


CASES = {
    "quick-32": Case(32, "tiny_vgg", 64, ImageMaskSpec(epochs=400)),
    "laptop-64": Case(64, "small_vgg", 64, ImageMaskSpec(epochs=400)),
    "paper-128": Case(128, "vgg11_bn", 64, ImageMaskSpec(epochs=400), cpu=False),
}


def serial_mask(model: nn.Module, image: Tensor, target: Tensor, spec: ImageMaskSpec, centre: float) -> Masks:
    """The reference: the mask of one image (1, C, H, W) with target (1,), without a history; see masks.learn_masks."""
    size, spectrum = image.shape[-2:], torch.fft.rfft2(image - centre)
    mask = torch.ones(1, size[0], size[1] // 2 + 1, device=image.device, requires_grad=True)
    optimizer = torch.optim.Adam([mask], lr=spec.lr, betas=(0.9, spec.beta2))
    with frozen(model):
        with torch.no_grad():
            reference = cross_entropy(model(image), target)
        still, share, invariance, steps = 0, 1.0, math.inf, 0
        while steps < spec.epochs and still < spec.patience:
            filtered = centre + filter_spectrum(spectrum, mask, size)
            logits = model(filtered)
            cost = clipped_exp_square(cross_entropy(logits, target) - reference, spec.clip)
            optimizer.zero_grad()
            (cost + spec.penalty * l1_share(mask, size[1]).sum()).backward()
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            now, here = float(l1_share(mask.detach(), size[1])), float(cost.detach())
            loss_tol = steps == 0 or abs(here - invariance) <= spec.loss_tol
            kept = bool(logits.argmax(1) == target)
            still = still + 1 if abs(now - share) <= spec.share_tol and loss_tol and kept else 0
            share, invariance, steps = now, here, steps + 1
    return Masks(mask.detach(), size[1], torch.tensor([still >= spec.patience]), torch.tensor([steps]), {})


def final_objective(
    model: nn.Module, images: Tensor, targets: Tensor, half: Tensor, spec: ImageMaskSpec, centre: float
) -> Tensor:
    """g(d) + penalty * mean(M) of finished masks (N, H, Wh), in single precision: (N,)."""
    with frozen(model), torch.no_grad():
        before = cross_entropy(model(images), targets, reduction="none")
        filtered = centre + filter_spectrum(torch.fft.rfft2(images - centre), half, images.shape[-2:])
        after = cross_entropy(model(filtered), targets, reduction="none")
    return clipped_exp_square(after - before, spec.clip) + spec.penalty * l1_share(half, images.shape[-1])


@dataclass
class _Problem:
    """A case made ready: network, images and the classes that the network gives them."""

    model: nn.Module
    data: Dataset
    images: Tensor
    targets: Tensor

    def engine(
        self, spec: ImageMaskSpec, batch_size: int | None = None, count: int | None = None
    ) -> tuple[Tensor, int, float]:
        """Masks of the first `count` images, `together` in work: (count, H, Wh); mask steps taken; seconds."""
        images, targets = self.images[:count], self.targets[:count]
        index, start = torch.arange(len(images), device=images.device), time.perf_counter()
        learned = learn_masks(
            self.model, images, targets, index, spec, seed=SEED, centre=MEAN, batch_size=batch_size, progress=False
        )
        return learned.half, int(learned.epochs.sum()), time.perf_counter() - start  # the host has the epochs


def _problem(size: int, architecture: str, count: int, device: torch.device) -> _Problem:
    spec = SyntheticSpec(size=size, train=600, validation=max(count, 10))
    data = make_synthetic(spec, SEED)
    data.train, data.validation = data.train.to(device), data.validation.to(device)
    model = build(NetworkSpec(architecture, mean=MEAN, std=STD), SEED).to(device)
    train(model, data.train, data.validation, _training("N"), seed=SEED, progress=False)
    images = data.validation.pixels(slice(count))
    return _Problem(model, data, images, predictions(model, images))


def _training(regime: str) -> TrainSpec:
    return TrainSpec(regime=regime, epochs=2, batch=100, lr=5e-3)


def _ceiling(device: torch.device) -> float:
    """Operations per second of a large matrix product, in the precision in which networks are trained."""
    side = 8192 if device.type == "cuda" else 1536
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    first, second = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    took = []
    for _ in range(6):
        start = time.perf_counter()
        float((first @ second)[0, 0])  # waits for the device
        took.append(time.perf_counter() - start)
    return 2 * side**3 / min(took)


def operations(case: Case) -> float:
    """Floating-point operations of a case's network in one mask step of one image, forward and to its input."""
    image = torch.zeros(1, 1, case.size, case.size, requires_grad=True)
    with frozen(build(NetworkSpec(case.architecture), 0)) as model, FlopCounterMode(display=False) as counter:
        model(image).sum().backward()
    return float(counter.get_total_flops())


def _peak(device: torch.device) -> float:
    """Most memory taken so far, MiB: of the device on CUDA, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _row(name: str, case: Case, device: torch.device, ceiling: float, say: Callable[[str], None]) -> dict[str, Any]:
    problem = _problem(case.size, case.architecture, case.images, device)
    spec, runs = case.spec, []
    problem.engine(replace(spec, epochs=5))  # warms up
    for _ in range(3):
        half, steps, seconds = problem.engine(spec)
        runs.append(steps / seconds)
    say(f"{name}: engine {median(runs):.0f} mask steps/s")
    peak, paces, alone = _peak(device), [], []
    for image, target in zip(problem.images, problem.targets, strict=True):
        start = time.perf_counter()
        found = serial_mask(problem.model, image[None], target[None], spec, MEAN)
        paces.append(int(found.epochs) / (time.perf_counter() - start))
        alone.append(found.half)
    say(f"{name}: serial {median(paces):.0f} mask steps/s")
    objectives = [
        final_objective(problem.model, problem.images, problem.targets, masks, spec, MEAN)
        for masks in (half, torch.cat(alone))
    ]
    pace = median(runs)
    return {
        "case": name,
        "images": case.images,
        "serial_steps_per_s": median(paces),
        "serial_spread": [min(paces), max(paces)],
        "engine_steps_per_s": pace,
        "engine_spread": [min(runs), max(runs)],
        "ratio": pace / median(paces),
        "objective_gap": float(((objectives[0] - objectives[1]).abs() / objectives[1]).max()),
        "serial_seconds": steps / median(paces),
        "engine_seconds": steps / pace,
        "peak_mib": peak,
        "ceiling_share": operations(case) * pace / ceiling,
    }


def _scaling(device: torch.device) -> dict[str, list[dict[str, float]]]:
    """Seconds and mask steps a second over images, over masks at once, and over resolution (the laptop's network)."""
    spec = ImageMaskSpec(epochs=30)
    problem = _problem(64, "small_vgg", max(COUNTS), device)

    def measured(problem: _Problem, batch_size: int | None, count: int) -> dict[str, float]:
        runs = [problem.engine(spec, batch_size, count)[1:] for _ in range(3)]
        seconds = median(took for _, took in runs)
        return {"seconds": seconds, "steps_per_s": runs[0][0] / seconds}

    return {
        "images": [{"images": n} | measured(problem, None, n) for n in COUNTS],
        "batch": [{"batch": n} | measured(problem, n, 64) for n in BATCHES],
        "resolution": [
            {"size": size} | measured(_problem(size, "small_vgg", 16, device), None, 16) for size in RESOLUTIONS
        ],
    }


def _training_rates(device: torch.device) -> list[dict[str, Any]]:
    """Training images a second in each regime, the laptop's network at 64 px."""
    problem, rows = _problem(64, "small_vgg", 10, device), []
    for regime in REGIMES:
        start = time.perf_counter()
        train(problem.model, problem.data.train, problem.data.validation, _training(regime), seed=SEED, progress=False)
        seconds = time.perf_counter() - start
        rows.append({"regime": regime, "images_per_s": _training(regime).epochs * len(problem.data.train) / seconds})
    return rows


def bill(root: Path | None, experiments: Sequence[Experiment]) -> dict[str, dict[str, float]]:
    """Of each profile, the images sent forward and backward by each experiment, what experiments share counted once.

    Profiles whose photographs are not there are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for name, profile in PROFILES.items():
        setup, seen, rows = Setup(profile, 0, torch.device("cpu"), root), set(), {}
        try:
            for experiment in experiments:
                tasks = {task.key: task.cost for task in experiment.tree(setup) if task.key not in seen}
                rows[experiment.name] = sum(tasks.values())
                seen |= set(tasks)
        except FmlibError:
            continue
        found[name] = rows
    return found


def measure(
    cases: list[str],
    device: torch.device,
    root: Path | None,
    experiments: Sequence[Experiment],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All measurements as one JSON object.

    Args:
        cases: names of CASES (default: all that the device can run).
        root: of the photographs, where they are there.
        experiments: whose cost is summed up for each profile.
        say: called with a line of progress.

    Raises:
        FmlibError: a case is unknown.
    """
    for name in cases:
        require(name in CASES, f"unknown case {name!r}: choose from {', '.join(CASES)}")
    chosen = cases or [name for name, case in CASES.items() if case.cpu or device.type == "cuda"]
    ceiling = _ceiling(device)
    return {
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "fmlib": __version__,
        "seed": SEED,
        "date": time.strftime("%Y-%m-%d"),
        "ceiling_flops": ceiling,
        "rows": [_row(name, CASES[name], device, ceiling, say) for name in chosen],
        "cases": {name: spec_dict(case) | {"operations": operations(case)} for name, case in CASES.items()},
        "scaling": _scaling(device),
        "training": _training_rates(device),
        "bill": bill(root, experiments),
    }
