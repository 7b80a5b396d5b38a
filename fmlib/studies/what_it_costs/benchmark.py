"""The cost of masks: batched learning against a serial reference in the same run, scaling, training, and total cost.

The serial reference learns as the authors do: one image at a time, with the same mathematics and the same stop rule.
All cases use synthetic images, so that no download is needed, and networks trained on them for a few epochs.
"""

from __future__ import annotations

import copy
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
from fmlib.core.config import ImageMaskSpec, MaskSpec, NetworkSpec, SyntheticSpec, TrainSpec, spec_dict
from fmlib.core.data import Dataset
from fmlib.core.device import frozen
from fmlib.core.errors import FmlibError, require
from fmlib.core.evaluation import predictions
from fmlib.core.masks import Masks, clipped_exp_square, learn_masks
from fmlib.core.models import build
from fmlib.core.spectra import apply_mask, binarize, filter_spectrum, l1_share
from fmlib.core.synthetic import make_synthetic
from fmlib.core.training import train
from fmlib.pipeline.experiment import Experiment
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.setup import Setup

#: Mean and standard deviation of the pixels of synthetic images.
MEAN, STD = 0.5, 0.14

SEED = 0

#: What scaling is measured over: sides in pixels, batch sizes, and numbers of images (the last ten times the first).
RESOLUTIONS = (32, 64, 128, 224)
BATCHES = (1, 4, 16, 64)
COUNTS = (16, 40, 80, 160)


@dataclass(frozen=True)
class Case:
    """One problem size."""

    size: int  # side of the images, pixels
    architecture: str
    images: int  # number of masks
    spec: ImageMaskSpec
    cpu: bool = True  # whether it is measured on a CPU by default


CASES = {
    "quick-32": Case(32, "tiny_vgg", 64, ImageMaskSpec(epochs=400)),
    "laptop-64": Case(64, "small_vgg", 64, ImageMaskSpec(epochs=400)),
    "paper-128": Case(128, "vgg11_bn", 64, ImageMaskSpec(epochs=400), cpu=False),
}


def serial_mask(model: nn.Module, image: Tensor, target: Tensor, spec: ImageMaskSpec, centre: float) -> Masks:
    """Serial reference: learn the mask of one image (1, C, H, W) with target (1,), without a history.

    The arguments are those of `learn_masks`.
    """
    size, spectrum = image.shape[-2:], torch.fft.rfft2(image - centre)
    mask = torch.ones(1, size[0], size[1] // 2 + 1, device=image.device, requires_grad=True)
    optimizer = torch.optim.Adam([mask], lr=spec.lr, betas=(0.9, spec.beta2))
    with frozen(model):
        with torch.no_grad():
            reference = cross_entropy(model(image), target)
        stable_steps, share, invariance, steps = 0, 1.0, math.inf, 0
        while steps < spec.epochs and stable_steps < spec.patience:
            filtered = centre + filter_spectrum(spectrum, mask, size)
            logits = model(filtered)
            cost = clipped_exp_square(cross_entropy(logits, target) - reference, spec.clip)
            optimizer.zero_grad()
            (cost + spec.penalty * l1_share(mask, size[1]).sum()).backward()
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            new_share, new_invariance = float(l1_share(mask.detach(), size[1])), float(cost.detach())
            share_stable = abs(new_share - share) <= spec.share_tol
            loss_stable = steps == 0 or abs(new_invariance - invariance) <= spec.loss_tol
            kept = bool(logits.argmax(1) == target)
            stable_steps = stable_steps + 1 if share_stable and loss_stable and kept else 0
            share, invariance, steps = new_share, new_invariance, steps + 1
    return Masks(mask.detach(), size[1], torch.tensor([stable_steps >= spec.patience]), torch.tensor([steps]), {})


def mask_quality(
    model: nn.Module, images: Tensor, targets: Tensor, half: Tensor, spec: MaskSpec, centre: float
) -> dict[str, Tensor]:
    """How good masks are, whatever solver they come from.

    Evaluated on the CPU in double precision, one image at a time: the numbers do not depend on a batch, and an excess
    of 1e-4 over an objective of 1 is not lost in rounding.

    Args:
        model: maps pixels to logits; left as it was.
        images: pixels, (N, C, H, W).
        targets: the label of each image, (N,).
        half: masks, (N, H, W // 2 + 1).
        spec: `penalty` and `clip` of the objective J = g(d) + penalty * mean(M).
        centre: gray level about which the masks filter.

    Returns:
        Name -> (N,): "excess" (J - 1), "l1_share" (mean of M), "nonzero_share" (share of the full plane that is at
        least 1e-8) and "kept" (whether the filtered image is predicted as its target).
    """
    precise = copy.deepcopy(model).to("cpu", torch.float64)
    pixels, labels, masks = images.detach().cpu().double(), targets.cpu(), half.detach().cpu().double()
    filtered = apply_mask(pixels, masks, centre)
    with frozen(precise), torch.no_grad():
        before, after = (torch.cat([precise(one[None]) for one in group]) for group in (pixels, filtered))
    change = cross_entropy(after, labels, reduction="none") - cross_entropy(before, labels, reduction="none")
    share = l1_share(masks, images.shape[-1])
    return {
        "excess": clipped_exp_square(change, spec.clip) - 1 + spec.penalty * share,
        "l1_share": share,
        "nonzero_share": l1_share(binarize(masks), images.shape[-1]),
        "kept": after.argmax(1) == labels,
    }


def excess_gap(excess: Tensor, reference: Tensor) -> Tensor:
    """The difference of two excesses of each image, relative to the second: (N,)."""
    return (excess - reference).abs() / reference


@dataclass
class _Problem:
    """A network, images, and the classes that the network predicts for them."""

    model: nn.Module
    data: Dataset
    images: Tensor
    targets: Tensor

    def learn_batched(
        self, spec: ImageMaskSpec, batch_size: int | None = None, count: int | None = None
    ) -> tuple[Tensor, int, float]:
        """Masks of the first `count` images, (count, H, Wh), `batch_size` at a time; mask steps taken; seconds."""
        images, targets = self.images[:count], self.targets[:count]
        index, start = torch.arange(len(images), device=images.device), time.perf_counter()
        learned = learn_masks(
            self.model, images, targets, index, spec, seed=SEED, centre=MEAN, batch_size=batch_size, progress=False
        )
        steps = int(learned.epochs.sum())  # waits for the device
        return learned.half, steps, time.perf_counter() - start


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


def _matrix_rate(device: torch.device) -> float:
    """Operations per second of a large matrix product, in the precision in which networks are trained."""
    side = 8192 if device.type == "cuda" else 1536
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    first, second = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        float((first @ second)[0, 0])  # waits for the device
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def operations(case: Case) -> float:
    """Floating-point operations of one mask step of one image, forward and backward to the input."""
    image = torch.zeros(1, 1, case.size, case.size, requires_grad=True)
    with frozen(build(NetworkSpec(case.architecture), 0)) as model, FlopCounterMode(display=False) as counter:
        model(image).sum().backward()
    return float(counter.get_total_flops())


def _peak_memory(device: torch.device) -> float:
    """Peak memory so far, MiB: of the device on CUDA, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _row(name: str, case: Case, device: torch.device, ceiling: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Rates of batched and serial learning on one case, and the quality of their masks."""
    problem = _problem(case.size, case.architecture, case.images, device)
    spec, batched = case.spec, []
    problem.learn_batched(replace(spec, epochs=5))  # warms up
    for _ in range(3):
        half, steps, seconds = problem.learn_batched(spec)
        batched.append(steps / seconds)
    say(f"{name}: batched {median(batched):.0f} mask steps/s")
    peak = _peak_memory(device)
    serial, serial_half = _serial_rates(problem, spec)
    say(f"{name}: serial {median(serial):.0f} mask steps/s")
    quality = {
        kind: mask_quality(problem.model, problem.images, problem.targets, masks, spec, MEAN)
        for kind, masks in (("serial", serial_half), ("batched", half))
    }
    rate = median(batched)
    return {
        "case": name,
        "images": case.images,
        "serial_steps_per_s": median(serial),
        "serial_range": [min(serial), max(serial)],
        "batched_steps_per_s": rate,
        "batched_range": [min(batched), max(batched)],
        "ratio": rate / median(serial),
        "excess_gap": float(excess_gap(quality["batched"]["excess"], quality["serial"]["excess"]).max()),
        "quality": {
            kind: {name: float(values.double().mean()) for name, values in measured.items()}
            for kind, measured in quality.items()
        },
        "serial_seconds": steps / median(serial),
        "batched_seconds": steps / rate,
        "peak_mib": peak,
        "ceiling_share": operations(case) * rate / ceiling,
    }


def _serial_rates(problem: _Problem, spec: ImageMaskSpec) -> tuple[list[float], Tensor]:
    """Mask steps per second of the serial reference on each image, and its masks (N, H, Wh)."""
    rates, masks = [], []
    for image, target in zip(problem.images, problem.targets, strict=True):
        start = time.perf_counter()
        learned = serial_mask(problem.model, image[None], target[None], spec, MEAN)
        rates.append(int(learned.epochs) / (time.perf_counter() - start))
        masks.append(learned.half)
    return rates, torch.cat(masks)


def _scaling(device: torch.device) -> dict[str, list[dict[str, float]]]:
    """Seconds and mask steps per second by number of images, batch size and resolution (small_vgg)."""
    spec = ImageMaskSpec(epochs=30)
    problem = _problem(64, "small_vgg", max(COUNTS), device)

    def measured(problem: _Problem, batch_size: int | None, count: int) -> dict[str, float]:
        runs = [problem.learn_batched(spec, batch_size, count)[1:] for _ in range(3)]
        seconds = median(run for _, run in runs)
        return {"seconds": seconds, "steps_per_s": runs[0][0] / seconds}

    return {
        "images": [{"images": n} | measured(problem, None, n) for n in COUNTS],
        "batch": [{"batch": n} | measured(problem, n, 64) for n in BATCHES],
        "resolution": [
            {"size": size} | measured(_problem(size, "small_vgg", 16, device), None, 16) for size in RESOLUTIONS
        ],
    }


def _training_rates(device: torch.device) -> list[dict[str, Any]]:
    """Training images per second in each regime (small_vgg at 64 px)."""
    problem, rows = _problem(64, "small_vgg", 10, device), []
    for regime in REGIMES:
        start = time.perf_counter()
        train(problem.model, problem.data.train, problem.data.validation, _training(regime), seed=SEED, progress=False)
        seconds = time.perf_counter() - start
        rows.append({"regime": regime, "images_per_s": _training(regime).epochs * len(problem.data.train) / seconds})
    return rows


def experiment_costs(root: Path | None, experiments: Sequence[Experiment]) -> dict[str, dict[str, float]]:
    """For each profile, the images that each experiment sends forward and backward through the network.

    A task that several experiments share is counted once, in the first. Profiles without their images are left out.
    """
    costs: dict[str, dict[str, float]] = {}
    for name, profile in PROFILES.items():
        setup, counted, rows = Setup(profile, 0, torch.device("cpu"), root), set(), {}
        try:
            for experiment in experiments:
                tasks = {task.key: task.cost for task in experiment.tree(setup) if task.key not in counted}
                rows[experiment.name] = sum(tasks.values())
                counted |= set(tasks)
        except FmlibError:
            continue
        costs[name] = rows
    return costs


def provenance(device: torch.device) -> dict[str, Any]:
    """Device, versions, seed and date of a measurement."""
    kind = device.type
    return {
        "device": torch.cuda.get_device_name(device)
        if kind == "cuda"
        else f"{kind}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "fmlib": __version__,
        "seed": SEED,
        "date": time.strftime("%Y-%m-%d"),
    }


def measure(
    cases: list[str],
    device: torch.device,
    root: Path | None,
    experiments: Sequence[Experiment],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure batched and serial mask learning, scaling and training on a device.

    Args:
        cases: names of `CASES`; none is all that the device can run.
        device: where networks run.
        root: folder of the image data sets, if they are available.
        experiments: whose cost is counted for each profile.
        say: called with each line of progress.

    Returns:
        All measurements as one JSON object; rates are per second, memory is in MiB.

    Raises:
        FmlibError: a case is unknown.
    """
    for name in cases:
        require(name in CASES, f"unknown case {name!r}: choose from {', '.join(CASES)}")
    chosen = cases or [name for name, case in CASES.items() if case.cpu or device.type == "cuda"]
    ceiling = _matrix_rate(device)
    return provenance(device) | {
        "ceiling_flops": ceiling,
        "rows": [_row(name, CASES[name], device, ceiling, say) for name in chosen],
        "cases": {name: spec_dict(case) | {"operations": operations(case)} for name, case in CASES.items()},
        "scaling": _scaling(device),
        "training": _training_rates(device),
        "cost": experiment_costs(root, experiments),
    }
