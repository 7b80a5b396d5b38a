"""What a rebuilding must not change: the key of every task, and every published number."""

import json
from pathlib import Path

import pytest
import torch

from fmlib import experiments, lab, results
from fmlib.config import profile
from fmlib.lab import Lab

GOLDEN = Path(__file__).parent / "golden"
KEYS = json.loads((GOLDEN / "task_keys.json").read_text())


@pytest.mark.parametrize("name", ["quick", "laptop", "paper"])
def test_every_task_keeps_its_key(name, monkeypatch):
    usual = lab.source_fingerprint
    monkeypatch.setattr(
        lab, "source_fingerprint", lambda spec, root: usual(spec, root) if spec.source == "planted" else KEYS["files"]
    )
    if name != "quick":
        monkeypatch.setattr(Lab, "counts", KEYS["counts"])
    made = Lab(profile(name), 0, torch.device("cpu"))
    for recipe, keys in KEYS[name].items():
        tree = [job.key for job in experiments.RECIPES[recipe].tree(made)]
        assert set(tree) <= set(keys) if (name, recipe) == ("paper", "architectures") else tree == keys


@pytest.mark.parametrize(("name", "folder"), [("laptop", "laptop"), ("paper", "paper-without-gpu")])
def test_every_published_number_stays(name, folder):
    expected = json.loads((GOLDEN / f"claims_{name}.json").read_text())
    found = {row["id"]: row for row in results.Results.open(results.PUBLISHED / folder).claims()}
    assert list(found) == list(expected)
    for identity, numbers in expected.items():
        assert {column: found[identity][column] for column in numbers} == numbers
