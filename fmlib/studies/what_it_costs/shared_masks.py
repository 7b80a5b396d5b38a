"""Masks that many images share: Adam, as everywhere in the book, compared with sequential convex steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmlib.core.config import ImageSpec, MaskSpec, spec_dict
from fmlib.core.device import keep_freed_memory
from fmlib.core.masks import clipped_exp_square, learn_masks
from fmlib.core.spectra import apply_mask, l1_share
from fmlib.explain.shared_mask import BATCH
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.studies.shared.pretrained import published_network
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.shared.sequential import STEPS, sequential_mask
from fmlib.studies.shared.setup import validation_images
from fmlib.studies.what_it_costs.benchmark import provenance
from fmlib.studies.what_it_costs.solvers import Problem

#: Images that go through the network together.
CHUNK = 64
#: The passes that sequential steps take are given to Adam too, with a learning rate that is better for so few.
SHORT_LR = 0.02
SEEDS = (0, 1)


def adam_mask(problem: Problem, spec: MaskSpec, seed: int) -> Tensor:
    """One mask (H, W // 2 + 1) for all images of a problem, by `learn_masks`."""
    index = torch.zeros_like(problem.targets)
    options: dict[str, Any] = {"seed": seed, "centre": problem.centre, "progress": False}
    return learn_masks(problem.model, problem.images, problem.targets, index, spec, **options).half[0]


def sequential(problem: Problem, spec: MaskSpec, seed: int) -> Tensor:
    """One mask (H, W // 2 + 1) for all images of a problem, by `shared.sequential.sequential_mask`."""
    return sequential_mask(
        problem.model, problem.images, problem.targets, spec, centre=float(problem.centre), seed=seed
    )


def _losses(problem: Problem, images: Tensor) -> Tensor:
    """The cross-entropy of each image, (N,)."""
    with torch.no_grad():
        parts = zip(images.split(CHUNK), problem.targets.split(CHUNK), strict=True)
        return torch.cat([cross_entropy(problem.model(x), y, reduction="none") for x, y in parts])


def mask_score(problem: Problem, half: Tensor, spec: MaskSpec) -> dict[str, float]:
    """Excess J - 1 of a shared mask, its L1 share and non-zero share, and the accuracy with it minus without it."""
    filtered = apply_mask(problem.images, half, problem.centre)
    change = _losses(problem, filtered) - _losses(problem, problem.images)
    share = float(l1_share(half[None], problem.images.shape[-1])[0])
    correct = [_correct(problem.model, images, problem.targets) for images in (filtered, problem.images)]
    return {
        "excess": float(clipped_exp_square(change, spec.clip).mean()) - 1 + spec.penalty * share,
        "l1_share": share,
        "nonzero_share": float((half > 0).float().mean()),
        "accuracy_change": correct[0] - correct[1],
    }


def _correct(model: nn.Module, images: Tensor, targets: Tensor) -> float:
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in images.split(CHUNK)])
    return float((predicted == targets).float().mean())


def _problem(regime: str, root: Path | None, device: torch.device) -> Problem:
    """All validation images at profile laptop with their labels, and the published network N or A."""
    setup = PROFILES["laptop"]
    assert isinstance(setup.data, ImageSpec)
    labels = Results.open(PUBLISHED / "laptop").arrays("pairs")["labels"]
    images = validation_images(setup.data, root, lambda found: np.arange(len(found))).to(device)
    model = published_network(regime).to(device)
    return Problem(model, images, torch.from_numpy(labels).to(device), setup.network.mean)


def _by_class(problem: Problem) -> list[Problem]:
    members = [torch.nonzero(problem.targets == label).flatten() for label in problem.targets.unique()]
    return [replace(problem, images=problem.images[part], targets=problem.targets[part]) for part in members]


def solvers(spec: MaskSpec, images: int) -> dict[str, tuple[Callable[[Problem, int], Tensor], int]]:
    """Name -> a solver, and the passes that it takes for a mask of that many images."""
    passes = STEPS * min(BATCH, images)
    epochs = max(round(passes / images), 1)
    short = replace(spec, lr=SHORT_LR, epochs=epochs)
    return {
        "adam": (lambda problem, seed: adam_mask(problem, spec, seed), spec.epochs * images),
        "adam-short": (lambda problem, seed: adam_mask(problem, short, seed), epochs * images),
        "sequential": (lambda problem, seed: sequential(problem, spec, seed), passes),
    }


def measure(device: torch.device, root: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Dataset masks of N and A and class masks of N at profile laptop, by each of `solvers` and from each of `SEEDS`.

    Returns:
        One JSON object: "rows", with device, versions, date and threads. A row has, for a case and a solver, means over
        masks and seeds of passes, seconds and `mask_score`, and the range over seeds of each mean over masks.
    """
    keep_freed_memory()
    spec, rows = PROFILES["laptop"].mask, []
    standard, adversarial = (_problem(regime, root, device) for regime in "NA")
    cases = {"dataset-64-N": [standard], "dataset-64-A": [adversarial], "class-64-N": _by_class(standard)}
    for case, problems in cases.items():
        runs: dict[str, list[dict[str, float]]] = {}
        for seed in SEEDS:  # solvers in turn, so that other load on the machine affects all of them
            for name in solvers(spec, 1):
                runs.setdefault(name, []).append(_run(name, problems, spec, seed))
                say(f"{case}, seed {seed}: {name} {runs[name][-1]}")
        rows += [_row(case, name, len(problems), found) for name, found in runs.items()]
    return provenance(device) | {"threads": torch.get_num_threads(), "mask": spec_dict(spec), "rows": rows}


def _run(name: str, problems: list[Problem], spec: MaskSpec, seed: int) -> dict[str, float]:
    """Means over the masks of a case, from one seed."""
    found = []
    for problem in problems:
        solve, passes = solvers(spec, len(problem.images))[name]
        start = time.perf_counter()
        half = solve(problem, seed).cpu()  # waits for the device
        seconds = time.perf_counter() - start
        score = mask_score(problem, half.to(problem.images.device), spec)
        found.append({"passes": passes, "seconds": seconds} | score)
    return {key: fmean(one[key] for one in found) for key in found[0]}


def _row(case: str, solver: str, masks: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    values = {key: [run[key] for run in runs] for key in runs[0]}
    means = {key: fmean(value) for key, value in values.items()}
    ranges = {f"{key}_range": [min(value), max(value)] for key, value in values.items() if key != "passes"}
    return {"case": case, "solver": solver, "masks": masks, "seeds": len(runs)} | means | ranges
