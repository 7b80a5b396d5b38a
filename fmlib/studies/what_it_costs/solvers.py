"""Solvers of image masks compared on the same images: passes, seconds, and how good their masks are.

`authors` is the serial reference: one image at a time, with the authors' schedule and stop rule. `adam` is
`learn_masks` with the same schedule, many images in a batch. `slp-T` is `minimal_masks` in T steps.

The images of a case are divided into chunks. Every solver in turn solves a chunk before the next begins, so that other
load on the machine affects all of them, and speeds are compared chunk by chunk.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from fmlib.core.config import ImageMaskSpec, ImageSpec, MinimalMaskSpec, fingerprint, spec_dict
from fmlib.core.device import frozen, full_precision, keep_freed_memory
from fmlib.core.errors import require
from fmlib.core.evaluation import predictions
from fmlib.core.intervals import ratio_of_means
from fmlib.core.masks import Masks, learn_masks
from fmlib.core.minimal_masks import knapsack_step, minimal_masks
from fmlib.core.spectra import column_weights, filter_spectrum
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.pipeline.store import write_bytes
from fmlib.studies.shared.pretrained import MEAN as IMAGENET_MEAN
from fmlib.studies.shared.pretrained import efficientnet_lite0, photographs, published_network
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.setup import validation_images
from fmlib.studies.shared.tasks import by_turns
from fmlib.studies.what_it_costs.benchmark import SEED, mask_quality, provenance, serial_mask

#: The solver that the others are compared with.
REFERENCE = "authors"
#: Steps of the minimal masks that are compared.
STEPS = (40, 60, 120)
SLP = tuple(f"slp-{steps}" for steps in STEPS)
SOLVERS = (REFERENCE, "adam", *SLP)

#: Steps of minimal masks over which a step is timed, and how often each part is timed.
PROFILED_STEPS, REPEATS = 20, 7


@dataclass
class Problem:
    """A frozen network, images (N, C, H, W), the classes that it predicts for them (N,), and the masks' gray level."""

    model: nn.Module
    images: Tensor
    targets: Tensor
    centre: float

    def part(self, chosen: slice) -> Problem:
        """The same network with some of the images."""
        return replace(self, images=self.images[chosen], targets=self.targets[chosen])


@dataclass(frozen=True)
class Case:
    """A network and images on which solvers are compared."""

    load: Callable[[int, Path | None, torch.device], Problem]  # number of images, folder of the data, device
    images: int
    chunk: int  # images that are solved together and timed as one
    spec: ImageMaskSpec  # the authors' schedule; the minimal masks take its penalty and clip
    solvers: tuple[str, ...] = SOLVERS
    profiled: bool = False  # whether a step of the minimal masks is timed part by part


def laptop_problem(regime: str, count: int, root: Path | None, device: torch.device) -> Problem:
    """The first `count` images with an image mask at profile laptop, and its published network N or A."""
    published, setup = Results.open(PUBLISHED / "laptop"), PROFILES["laptop"]
    pairs = published.arrays("pairs")
    order = by_turns(pairs["labels"])
    first = order[pairs["eligible"][order]][:count]
    assert isinstance(setup.data, ImageSpec)

    def chosen(labels: np.ndarray) -> np.ndarray:
        require(np.array_equal(labels, pairs["labels"]), "these are not the images of the published results")
        return first

    images = validation_images(setup.data, root, chosen).to(device)
    model = published_network(regime).to(device)
    return Problem(model, images, predictions(model, images), setup.network.mean)


def imagenet_problem(count: int, root: Path | None, device: torch.device) -> Problem:
    """`count` validation images of Imagenette at 160 px, equally many per class, and EfficientNet-Lite0."""
    model = efficientnet_lite0(160).to(device)
    images = photographs(count, 160, root).to(device)
    return Problem(model, images, predictions(model, images), IMAGENET_MEAN)


_LAPTOP = PROFILES["laptop"].image_mask
assert isinstance(_LAPTOP, ImageMaskSpec)

CASES = {
    "laptop-64-N": Case(partial(laptop_problem, "N"), 96, 48, _LAPTOP, profiled=True),
    "laptop-64-A": Case(partial(laptop_problem, "A"), 96, 48, _LAPTOP),
    "imagenet-160": Case(imagenet_problem, 64, 16, ImageMaskSpec(epochs=1600), SLP, profiled=True),
    # One image takes the reference half a minute: the solvers are compared with it on the first images only.
    "imagenet-160-authors": Case(imagenet_problem, 8, 4, ImageMaskSpec(epochs=1600)),
}


def solve(solver: str, problem: Problem, spec: ImageMaskSpec) -> Masks:
    """The masks of a problem's images by one of `SOLVERS`, in at most `spec.epochs` steps."""
    model, images, targets, centre = problem.model, problem.images, problem.targets, problem.centre
    if solver == REFERENCE:
        each = [serial_mask(model, images[n : n + 1], targets[n : n + 1], spec, centre) for n in range(len(images))]
        half, converged, epochs = (
            torch.cat([getattr(one, name) for one in each]) for name in ("half", "converged", "epochs")
        )
        return Masks(half, images.shape[-1], converged, epochs, {})
    if solver == "adam":
        index = torch.arange(len(images), device=images.device)
        return learn_masks(model, images, targets, index, spec, seed=SEED, centre=centre, progress=False)
    steps = min(int(solver.removeprefix("slp-")), spec.epochs)
    minimal = MinimalMaskSpec(penalty=spec.penalty, clip=spec.clip, steps=steps)
    return minimal_masks(model, images, targets, minimal, centre=centre, progress=False)


def _timed(solver: str, problem: Problem, spec: ImageMaskSpec) -> dict[str, Any]:
    """What one solver takes for the images of a chunk, and the quality of its masks, one value per image."""
    start = time.perf_counter()
    masks = solve(solver, problem, spec)
    half, passes = masks.half.cpu(), masks.epochs.tolist()  # waits for the device
    seconds = time.perf_counter() - start
    quality = mask_quality(problem.model, problem.images, problem.targets, half, spec, problem.centre)
    return {"seconds": seconds, "passes": passes} | {name: values.tolist() for name, values in quality.items()}


class Log:
    """Finished chunks and profiles in a JSON file, from which a killed run goes on.

    Args:
        path: the file; it is started anew if `key` is not that of the run that wrote it.
        key: a fingerprint of all that the measurements depend on.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.entries: dict[str, Any] = {}
        if path.exists():
            stored = json.loads(path.read_text())
            self.entries = stored["entries"] if stored["key"] == key else {}

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The entry `name`, computed and written if it is missing."""
        if name not in self.entries:
            self.entries[name] = compute()
            write_bytes(self.path, json.dumps({"key": self.key, "entries": self.entries}).encode())
        return self.entries[name]


def _log_key(device: torch.device) -> str:
    """A fingerprint of the device, the versions and the code, but not of the date."""
    folder = Path(__file__).parents[2]
    sources = [*sorted((folder / "core").glob("*.py")), Path(__file__), Path(__file__).with_name("benchmark.py")]
    described = {name: value for name, value in provenance(device).items() if name != "date"}
    return fingerprint([described, [path.read_text() for path in sources]])


def _chunk(case: Case, problem: Problem, name: str, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Solver -> `_timed`, one after the other on the same images."""
    found = {}
    for solver in case.solvers:
        found[solver] = _timed(solver, problem, case.spec)
        seconds = found[solver]["seconds"] / len(problem.images)
        say(f"{name}: {solver} {seconds:.3g} s per image, excess {fmean(found[solver]['excess']):.2e}")
    return found


def row(case: str, solver: str, chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """One solver on the images of all chunks.

    Means over images of passes, excess, L1 share, non-zero share and kept predictions, with the range of passes and the
    quartiles of the excess over images; and the median over chunks of seconds per image, with its range over chunks.
    """
    joined = {name: [value for chunk in chunks for value in chunk[name]] for name in chunks[0] if name != "seconds"}
    seconds = [chunk["seconds"] / len(chunk["excess"]) for chunk in chunks]
    return {
        "case": case,
        "solver": solver,
        "images": len(joined["excess"]),
        "chunks": len(chunks),
        "seconds": median(seconds),
        "seconds_range": [min(seconds), max(seconds)],
        **{name: fmean(values) for name, values in joined.items()},
        "passes_range": [min(joined["passes"]), max(joined["passes"])],
        "excess_quartiles": np.quantile(joined["excess"], (0.25, 0.5, 0.75)).tolist(),
    }


def ratio(case: str, solver: str, chunks: list[dict[str, Any]], reference: list[dict[str, Any]]) -> dict[str, Any]:
    """One solver against the reference on the same images.

    How many times as fast it is: the median over chunks, with its range over chunks. The ratio of the mean excesses,
    with its 95% bootstrap interval over images, and the share of images on which its excess is the lower one.
    """
    speed = [one["seconds"] / other["seconds"] for one, other in zip(reference, chunks, strict=True)]
    ours, theirs = (np.array([value for chunk in part for value in chunk["excess"]]) for part in (chunks, reference))
    excess = ratio_of_means(ours, theirs)
    return {
        "case": case,
        "solver": solver,
        "images": len(ours),
        "chunks": len(speed),
        "speed": median(speed),
        "speed_range": [min(speed), max(speed)],
        "excess": excess.value,
        "excess_interval": [excess.low, excess.high],
        "lower": float((ours < theirs).mean()),
    }


def _seconds(function: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _parts(problem: Problem, spec: ImageMaskSpec) -> dict[str, Callable[[], Any]]:
    """The parts of a step of `minimal_masks`, each as a function that does it once on all images of the problem.

    network: forward, and backward to the pixels. fft: mask to filtered image, and backward to the mask. knapsack: the
    step of the mask.
    """
    model, images, size = problem.model, problem.images, problem.images.shape[-2:]
    spectrum, pixels = torch.fft.rfft2(images - problem.centre), images.contiguous(memory_format=torch.channels_last)
    half = torch.ones(len(images), size[0], size[1] // 2 + 1, device=images.device)
    weights = (column_weights(size[1], images.device) / math.prod(size)).expand(half.shape[1:]).flatten()
    mask, column = 0.5 * half.flatten(1), torch.full_like(half[:, 0, :1], 0.1)

    def network() -> Tensor:
        leaf = pixels.detach().requires_grad_()
        return torch.autograd.grad(cross_entropy(model(leaf), problem.targets, reduction="sum"), leaf)[0]

    def fft() -> Tensor:
        leaf = half.detach().requires_grad_()
        return torch.autograd.grad(problem.centre + filter_spectrum(spectrum, leaf, size), leaf, images)[0]

    grad = fft().flatten(1)
    return {
        "network": network,
        "fft": fft,
        "knapsack": lambda: knapsack_step(mask, grad, column, weights, column, spec.penalty),
    }


def _convolution_share(network: Callable[[], Any], device: torch.device) -> float:
    """The share of the network's time, forward and backward, that its convolutions take."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as recorded:
        for _ in range(REPEATS):
            network()
    attribute = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, attribute) for event in recorded.key_averages()}
    return sum(spent for key, spent in times.items() if "conv" in key.lower()) / sum(times.values())


def step_profile(problem: Problem, spec: ImageMaskSpec) -> dict[str, Any]:
    """Seconds of one step of `minimal_masks` on all images of a problem, and of its parts (see `_parts`).

    Medians over `REPEATS` repetitions, in which the whole and its parts are timed in turn. "convolutions" is what the
    profiler attributes to them of "network"; "rest" is what the parts leave of "total".
    """
    device, lengths = problem.images.device, (1, 1 + PROFILED_STEPS)

    def run(steps: int) -> Masks:
        return solve(f"slp-{steps}", problem, spec)

    with frozen(problem.model), torch.enable_grad(), full_precision():
        parts = _parts(problem, spec)
        times: dict[str, list[float]] = {name: [] for name in ("total", *parts)}
        run(2)
        for _ in range(REPEATS):
            short, long = (_seconds(partial(run, steps), device) for steps in lengths)
            times["total"].append((long - short) / PROFILED_STEPS)
            for name, function in parts.items():
                times[name].append(_seconds(function, device))
        share = _convolution_share(parts["network"], device)
    found = {name: median(values) for name, values in times.items()}
    return {
        "images": len(problem.images),
        "size": problem.images.shape[-1],
        "repeats": REPEATS,
        **found,
        "total_range": [min(times["total"]), max(times["total"])],
        "convolutions": share * found["network"],
        "rest": found["total"] - sum(found[name] for name in parts),
        "outside_network": 1 - found["network"] / found["total"],
        "outside_convolutions": 1 - share * found["network"] / found["total"],
    }


def measure(
    cases: list[str],
    device: torch.device,
    root: Path | None,
    log_path: Path,
    say: Callable[[str], None],
    images: int | None = None,
) -> dict[str, Any]:
    """Compare the solvers.

    Args:
        cases: names of `CASES`; none is all.
        device: where networks run.
        root: folder of the image data sets.
        log_path: where finished chunks are kept until the whole is done.
        say: called with each line of progress.
        images: of each case, at most (default: all of them).

    Returns:
        One JSON object: "rows" (see `row`), "ratios" (see `ratio`) and "profile" (see `step_profile`), with device,
        versions, seed, date and threads.

    Raises:
        FmlibError: a case is unknown, or its images or weights are missing.
    """
    for name in cases:
        require(name in CASES, f"unknown case {name!r}: choose from {', '.join(CASES)}")
    require(images is None or images >= 1, f"--images must be at least 1, not {images}")
    keep_freed_memory()
    log = Log(log_path, _log_key(device))
    rows, ratios, profiles, specs = [], [], [], {}
    for name in cases or CASES:
        case = CASES[name]
        problem = case.load(min(images or case.images, case.images), root, device)
        found = _measured(name, case, problem, log, say)
        by_solver = {solver: [chunk[solver] for chunk in found] for solver in case.solvers}
        rows += [row(name, solver, chunks) for solver, chunks in by_solver.items()]
        reference = by_solver.pop(REFERENCE, None)
        if reference:
            ratios += [ratio(name, solver, chunks, reference) for solver, chunks in by_solver.items()]
        if case.profiled:
            few = problem.part(slice(case.chunk))
            key = f"{name} profile {len(few.images)}"
            profiles.append({"case": name} | log.get(key, partial(step_profile, few, case.spec)))
        specs[name] = {"schedule": spec_dict(case.spec), "chunk": case.chunk}
    log_path.unlink(missing_ok=True)
    about = provenance(device) | {"threads": torch.get_num_threads(), "cases": specs}
    return about | {"rows": rows, "ratios": ratios, "profile": profiles}


def _measured(
    name: str, case: Case, problem: Problem, log: Log, say: Callable[[str], None]
) -> list[dict[str, dict[str, Any]]]:
    """`_chunk` of every chunk of a case, from the log where it is there."""
    for solver in case.solvers:  # warms up
        solve(solver, problem.part(slice(case.chunk)), replace(case.spec, epochs=2))
    found = []
    for first in range(0, len(problem.images), case.chunk):
        part = problem.part(slice(first, first + case.chunk))
        label = f"{name}, images {first + 1} to {first + len(part.images)}"
        found.append(log.get(label, partial(_chunk, case, part, label, say)))
    return found
