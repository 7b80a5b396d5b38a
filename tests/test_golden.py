"""What the layout of the code must not change: the key of every task, and every published number."""

import json
from itertools import chain
from pathlib import Path

import pytest
import torch

from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.studies import registry
from fmlib.studies.shared import setup
from fmlib.studies.shared.profiles import profile

GOLDEN = Path(__file__).parent / "golden"
KEYS = json.loads((GOLDEN / "task_keys.json").read_text())
#: Claims about people, whose numbers are those of a control now.
MOVED = {
    "F5.unrecognisable": "C.other_network.masked",
    "F5.complement_recognisable": "C.other_network.complement",
}


@pytest.mark.parametrize("name", ["quick", "laptop", "paper"])
def test_every_task_keeps_its_key(name, monkeypatch):
    original = setup.source_fingerprint
    monkeypatch.setattr(
        setup,
        "source_fingerprint",
        lambda spec, root: KEYS["files"] if root is None and spec.source != "planted" else original(spec, root),
    )
    if name != "quick":
        monkeypatch.setattr(setup.Setup, "counts", KEYS["counts"])
    made = setup.Setup(profile(name), 0, torch.device("cpu"))
    found = {task.key for experiment in registry.experiments() for task in experiment.tree(made)}
    assert found >= set(chain.from_iterable(KEYS[name].values()))


@pytest.mark.parametrize("name", ["laptop", "paper"])
def test_every_published_number_stays(name):
    """As first published; `T3.few` alone has lost its printed value, which was of many more masks a class."""
    expected = json.loads((GOLDEN / f"claims_{name}.json").read_text())
    found = {row["id"]: row for row in Results.open(PUBLISHED / name).claims()}
    columns = ("published", "value", "low", "high", "n", "unit")
    for identity, numbers in expected.items():
        row = found[MOVED.get(identity, identity)]
        assert {column: row[column] for column in columns} == {column: numbers[column] for column in columns}, identity
