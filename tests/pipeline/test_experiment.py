"""Experiments end to end on planted frequencies: what they find, and that a killed run ends as an unbroken one does."""

import io
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from fmlib.core.config import AttackSpec, ImageMaskSpec, MaskSpec, SyntheticSpec, TrainSpec
from fmlib.core.errors import FmlibError
from fmlib.pipeline import experiment
from fmlib.pipeline.store import Store
from fmlib.studies import registry
from fmlib.studies.registry import EXPERIMENTS, experiments
from fmlib.studies.shared.profiles import PROFILES, profile
from fmlib.studies.shared.setup import Setup

CPU = torch.device("cpu")


def small(epochs=2, mask_epochs=4):
    """A profile of seconds: 16 px, few images, all regimes."""
    return replace(
        PROFILES["quick"],
        data=SyntheticSpec(size=16, distractors=2, train=200, validation=100),
        train=TrainSpec(epochs=epochs, batch=50, lr=5e-3, crop=(1.0, 1.0), flip=False, attack=AttackSpec(0.15, 0.1, 2)),
        mask=MaskSpec(lr=0.05, batch=50, epochs=mask_epochs),
        single_mask=MaskSpec(lr=0.02, epochs=1),
        image_mask=ImageMaskSpec(lr=0.05, epochs=40, patience=10),
        images=0,
        synthetic_repetitions=1,
    )


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_keys_depend_on_what_matters_only():
    setup = Setup(profile("quick"), 0, CPU)
    again = Setup(profile("quick"), 0, torch.device("meta"), progress=False)
    assert setup.mask("N").key == again.mask("N").key
    others = [
        Setup(profile("quick"), 1, CPU).mask("N"),
        setup.mask("A"),
        setup.mask("N", 1),
        setup.mask("N", variant="order"),
    ]
    others += [setup.mask("N", variant="half"), setup.mask("N", variant="single")]
    assert len({task.key for task in (setup.mask("N"), *others)}) == 7


def test_jobs_share_what_they_need():
    tree = EXPERIMENTS["dataset-masks"].tree(Setup(profile("quick"), 0, CPU))
    keys = [task.key for task in tree]
    assert len(set(keys)) == len(keys)
    for task in tree:  # needs first
        assert all(keys.index(item.key) < keys.index(task.key) for item in task.inputs)


def test_publishing_is_complete_and_repeatable(tmp_path):
    setup, store = Setup(small(), 0, CPU, progress=False), Store(tmp_path / "store", CPU)
    experiment.run(registry.experiments([]), setup, store)
    first = experiment.publish(registry.experiments([]), setup, store, tmp_path / "first")
    experiment.publish(registry.experiments([]), setup, store, tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")
    assert len(first.claims()) == len({row["id"] for row in first.claims()})
    assert all(row["low"] <= row["value"] <= row["high"] for row in first.claims())
    masks = first.arrays("dataset_masks")
    assert masks["A"].shape == (2, 16, 16)
    assert 0 <= masks["A"].min() <= masks["A"].max() <= 1


def test_a_recipe_apart_is_published_by_itself(tmp_path):
    """N of one architecture, N and A of the other: no other is trained, and the claims are those these suffice for."""
    setup, store, chosen = (
        Setup(small(), 0, CPU, progress=False),
        Store(tmp_path / "store", CPU),
        experiments(["without-gpu"]),
    )
    experiment.run(chosen, setup, store)
    assert len(list((tmp_path / "store" / "network").iterdir())) == 3
    found = experiment.publish(chosen, setup, store, tmp_path / experiment.home(chosen, "quick"))
    assert found.folder.name == "quick-without-gpu"
    assert list(found.manifest["experiments"]) == ["without-gpu"]
    assert {row["id"] for row in found.claims()} == set(registry.APART["without-gpu"])
    assert found.arrays("dataset_masks")["N"].shape == (1, 16, 16)
    assert list(found.arrays("dataset_masks")) == ["N"]
    assert set(found.table("image_masks")["kind"]) == {"N.x"}
    assert set(found.arrays("second_architecture")) == {
        f"{what}.{regime}" for what in ("mask", "standard", "masked", "attacked") for regime in "NA"
    }


def test_recipes_apart_share_a_folder_that_keeps_what_was_not_chosen(tmp_path):
    setup, store = Setup(small(), 0, CPU, progress=False), Store(tmp_path / "store", CPU)
    (second,), both = experiments(["without-gpu-more"]), experiments(["without-gpu", "without-gpu-more"])
    folder = tmp_path / experiment.home([second], "quick")
    experiment.run(both, setup, store)
    with pytest.raises(FmlibError, match=r"no second_architecture.npz: its experiment was not published"):
        experiment.publish([second], setup, store, folder)
    assert not list(tmp_path.glob("quick-*"))  # nothing half-written
    whole = experiment.publish(both, setup, store, folder)
    assert list(whole.manifest["experiments"]) == ["without-gpu", "without-gpu-more"]
    assert [row["id"] for row in whole.claims()] == [
        claim.id for claim in registry.CLAIMS if any(claim.id in those for those in registry.APART.values())
    ]
    before = files(folder)
    experiment.publish([second], setup, store, folder)
    assert files(folder) == before
    (folder / "claims.json").write_text("[]")
    experiment.evaluate_claims(whole)
    assert files(folder) == before


def test_recipes_apart_are_not_among_all():
    assert not {experiment.name for experiment in experiments(["all"])} & set(registry.APART)
    assert experiments([]) == experiments(["all"])
    assert experiment.home(experiments([]), "quick") == "quick"


@pytest.mark.slow
def test_planted_tones_are_found_and_distractors_dropped(tmp_path):
    setup, store = Setup(profile("quick"), 0, CPU, progress=False), Store(tmp_path, CPU)
    rows = pd.read_csv(io.BytesIO(EXPERIMENTS["planted"].export(setup, store)["synthetic.csv"]))
    assert (rows["precision"] >= 0.99).all()
    assert (rows["recall"] >= 0.8).all()
    assert (rows["distractors_kept"] == 0).all()
    assert ((rows["standard"] - rows["masked"]).abs() <= 0.01).all()
    assert (rows["standard"] > 0.9).all()


KILLED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fmlib.lab import Lab
from fmlib.store import SavedState, Store
from conftest import CPU, small
torch.set_num_threads(1)
SavedState.due = lambda self: True  # save at every epoch, so that the kill finds a saved state
lab = Lab(small(epochs=12, mask_epochs=40), 0, CPU, progress=False)
Store(Path(sys.argv[2]), CPU, say=lambda line: print(line, flush=True)).get(lab.mask("N"))
"""


@pytest.mark.slow
def test_killed_run_resumes_to_identical_artifacts(tmp_path):
    def start(store):
        words = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(store)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    assert start(tmp_path / "whole").wait() == 0
    for kind in ("network", "mask"):
        process = start(tmp_path / "killed")
        deadline = time.monotonic() + 120
        while not list((tmp_path / "killed" / kind).glob("*.part")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = start(tmp_path / "killed")
    out, _ = last.communicate()
    assert last.returncode == 0
    assert "resuming" in out
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
