"""Masks that many images share: sequential convex steps against Adam, and the rows of their comparison."""

import json
from dataclasses import replace

import pytest
import torch

from fmlib.cli import main
from fmlib.core.config import MaskSpec
from fmlib.explain import shared_mask
from fmlib.studies.shared.profiles import PROFILES
from fmlib.studies.what_it_costs import analysis, shared_masks
from fmlib.studies.what_it_costs.solvers import Problem

SPEC = MaskSpec(penalty=0.2, lr=0.02, batch=16, epochs=30, beta2=0.99)


@pytest.fixture
def problem(trained, synthetic):
    split = synthetic.validation
    return Problem(trained, split.pixels(slice(40)), split.labels[:40], 0.5)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(shared_masks, "BATCH", 16)
    monkeypatch.setattr(shared_mask, "BATCH", 16)
    monkeypatch.setattr(shared_masks, "STEPS", 40)


def test_a_shared_mask_is_as_good_as_that_of_adam(problem, few_steps):
    masks = {
        "ones": torch.ones(16, 9),
        "adam": shared_masks.adam_mask(problem, SPEC, 0),
        "sequential": shared_masks.sequential(problem, SPEC, 0),
    }
    excess = {name: shared_masks.mask_score(problem, half, SPEC)["excess"] for name, half in masks.items()}
    assert excess["ones"] == pytest.approx(SPEC.penalty, abs=1e-6)
    assert excess["sequential"] < 1.1 * excess["adam"]
    assert excess["sequential"] < 0.8 * excess["ones"]


def test_a_shared_mask_depends_on_the_seed_alone(problem, few_steps):
    first, again, other = (shared_masks.sequential(problem, SPEC, seed) for seed in (0, 0, 1))
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


def test_table_and_numbers_compare_the_solvers_of_each_case():
    base = {"masks": 1, "seeds": 2, "l1_share": 0.5, "nonzero_share": 0.25, "accuracy_change": -0.01}
    base |= {"seconds_range": [1.0, 3.0], "excess_range": [0.1, 0.3]}
    rows = [
        base | {"case": case, "solver": solver, "passes": 1000.0 * place, "seconds": 2.0 * place, "excess": 0.2 / place}
        for case in analysis.SHARED_CASES
        for place, solver in enumerate(analysis.SHARED_SOLVERS, 1)
    ]
    measured = {"device": "cpu", "date": "today", "rows": rows}
    table = analysis.shared_masks_table(measured)
    assert table.shape == (9, 6)
    first = table.loc[("dataset mask of N", "Adam")]
    assert first["excess" + analysis.PER_MILLE] == "200 (100 to 300)"
    assert first["accuracy (points)"] == "\N{MINUS SIGN}1.0"
    numbers = analysis.shared_masks_numbers(measured)
    assert numbers["fewer.class-64-N"] == numbers["time.class-64-N"] == "300%"
    assert numbers["excess.class-64-N"] == "0.33"
    assert numbers["short.class-64-N"] == "0.67"


def test_two_comparisons_at_once_are_refused(capsys):
    assert main(["bench", "--solvers", "--shared-masks"]) == 2
    assert "give one of them" in capsys.readouterr().err
