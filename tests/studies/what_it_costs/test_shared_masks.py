"""Masks that many images share: the convex step against its optimality conditions, masks against Adam's, and rows."""

import json
from dataclasses import replace

import pytest
import torch

from fmlib.cli import main
from fmlib.core.config import MaskSpec
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.what_it_costs import shared_masks
from fmlib.studies.what_it_costs.solvers import Problem

SPEC = MaskSpec(penalty=0.2, lr=0.02, batch=16, epochs=30, beta2=0.99)


@pytest.fixture
def problem(trained, synthetic):
    split = synthetic.validation
    return Problem(trained, split.pixels(slice(40)), split.labels[:40], 0.5)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(shared_masks, "BATCH", 16)
    monkeypatch.setattr(shared_masks, "STEPS", 40)


def test_the_next_mask_meets_the_optimality_conditions(monkeypatch):
    monkeypatch.setattr(shared_masks, "ITERATIONS", 500)
    rng = torch.Generator().manual_seed(0)
    slopes, offsets = 0.3 * torch.randn(30, 12, generator=rng), 0.1 * torch.randn(30, generator=rng)
    mask, reach, weights = torch.rand(12, generator=rng), torch.full((12,), 0.3), torch.full((12,), 1 / 12)
    found = shared_masks._next_mask(slopes, offsets, mask, reach, weights, SPEC)
    low, high = (mask - reach).clamp_min(0), (mask + reach).clamp_max(1)
    assert bool(((found >= low - 1e-6) & (found <= high + 1e-6)).all())
    change = offsets + slopes @ found
    assert change.abs().max() < SPEC.clip
    grad = (2 * change * torch.exp(change**2)) @ slopes / 30 + SPEC.penalty * weights
    inside = (found > low + 1e-5) & (found < high - 1e-5)
    assert inside.any()
    assert grad[inside].abs().max() < 1e-3
    assert (grad[found <= low + 1e-5] > -1e-3).all()
    assert (grad[found >= high - 1e-5] < 1e-3).all()


def test_a_shared_mask_is_as_good_as_that_of_adam(problem, few_steps):
    masks = {
        "ones": torch.ones(16, 9),
        "adam": shared_masks.adam_mask(problem, SPEC, 0),
        "sequential": shared_masks.sequential_mask(problem, SPEC, 0),
    }
    excess = {name: shared_masks.mask_score(problem, half, SPEC)["excess"] for name, half in masks.items()}
    assert excess["ones"] == pytest.approx(SPEC.penalty, abs=1e-6)
    assert excess["sequential"] < 1.1 * excess["adam"]
    assert excess["sequential"] < 0.8 * excess["ones"]


def test_a_shared_mask_depends_on_the_seed_alone(problem, few_steps):
    first, again, other = (shared_masks.sequential_mask(problem, SPEC, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_case_and_solver_has_its_row(problem, few_steps, monkeypatch):
    monkeypatch.setattr(shared_masks, "STEPS", 5)
    monkeypatch.setattr(shared_masks, "_problem", lambda regime, root, device: problem)
    profile = replace(PROFILES["laptop"], mask=replace(SPEC, epochs=2))
    monkeypatch.setitem(shared_masks.PROFILES, "laptop", profile)
    measured = shared_masks.measure(torch.device("cpu"), None, lambda line: None)
    found = {(row["case"], row["solver"]): row for row in measured["rows"]}
    assert len(found) == len(measured["rows"]) == 9
    assert found["dataset-64-N", "adam"]["passes"] == 80
    assert found["dataset-64-N", "sequential"]["passes"] == 80
    assert found["dataset-64-N", "adam-short"]["passes"] == 80
    classes = len(problem.targets.unique())
    assert found["class-64-N", "adam"]["masks"] == classes
    row = found["class-64-N", "sequential"]
    assert row["excess_range"][0] <= row["excess"] <= row["excess_range"][1]
    assert json.dumps(measured)


def test_two_comparisons_at_once_are_refused(capsys):
    assert main(["bench", "--solvers", "--shared-masks"]) == 2
    assert "give one of them" in capsys.readouterr().err
