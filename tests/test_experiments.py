"""Recipes end to end on planted frequencies: what they find, and that a killed run ends as an unbroken one does."""

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

from fmlib import claims, experiments
from fmlib.config import PROFILES, AttackSpec, FmlibError, ImageMaskSpec, MaskSpec, PlantedSpec, TrainSpec, profile
from fmlib.experiments import RECIPES, recipes
from fmlib.lab import Lab
from fmlib.store import Store

CPU = torch.device("cpu")


def small(epochs=2, mask_epochs=4):
    """A profile of seconds: 16 px, few images, all regimes."""
    return replace(
        PROFILES["quick"],
        data=PlantedSpec(size=16, distractors=2, train=200, validation=100),
        train=TrainSpec(epochs=epochs, batch=50, lr=5e-3, crop=(1.0, 1.0), flip=False, attack=AttackSpec(0.15, 0.1, 2)),
        mask=MaskSpec(lr=0.05, batch=50, epochs=mask_epochs),
        single_mask=MaskSpec(lr=0.02, epochs=1),
        image_mask=ImageMaskSpec(lr=0.05, epochs=40, patience=10),
        images=0,
        planted_repetitions=1,
    )


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_keys_depend_on_what_matters_only():
    lab = Lab(profile("quick"), 0, CPU)
    again = Lab(profile("quick"), 0, torch.device("meta"), progress=False)
    assert lab.mask("N").key == again.mask("N").key
    others = [Lab(profile("quick"), 1, CPU).mask("N"), lab.mask("A"), lab.mask("N", 1), lab.mask("N", variant="order")]
    others += [lab.mask("N", variant="half"), lab.mask("N", variant="single")]
    assert len({job.key for job in (lab.mask("N"), *others)}) == 7


def test_jobs_share_what_they_need():
    tree = RECIPES["dataset-masks"].tree(Lab(profile("quick"), 0, CPU))
    keys = [job.key for job in tree]
    assert len(set(keys)) == len(keys)
    for job in tree:  # needs first
        assert all(keys.index(item.key) < keys.index(job.key) for item in job.inputs)


def test_publishing_is_complete_and_repeatable(tmp_path):
    lab, store = Lab(small(), 0, CPU, progress=False), Store(tmp_path / "store", CPU)
    experiments.run(experiments.recipes([]), lab, store)
    first = experiments.publish(experiments.recipes([]), lab, store, tmp_path / "first")
    experiments.publish(experiments.recipes([]), lab, store, tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")
    assert len(first.claims()) == len({row["id"] for row in first.claims()})
    assert all(row["low"] <= row["value"] <= row["high"] for row in first.claims())
    masks = first.arrays("dataset_masks")
    assert masks["A"].shape == (2, 16, 16)
    assert 0 <= masks["A"].min() <= masks["A"].max() <= 1


def test_a_recipe_apart_is_published_by_itself(tmp_path):
    """N of one architecture, N and A of the other: no other is trained, and the claims are those these suffice for."""
    lab, store, chosen = Lab(small(), 0, CPU, progress=False), Store(tmp_path / "store", CPU), recipes(["without-gpu"])
    experiments.run(chosen, lab, store)
    assert len(list((tmp_path / "store" / "network").iterdir())) == 3
    found = experiments.publish(chosen, lab, store, tmp_path / experiments.home(chosen, "quick"))
    assert found.folder.name == "quick-without-gpu"
    assert list(found.manifest["recipes"]) == ["without-gpu"]
    assert {row["id"] for row in found.claims()} == set(claims.APART["without-gpu"])
    assert found.arrays("dataset_masks")["N"].shape == (1, 16, 16)
    assert list(found.arrays("dataset_masks")) == ["N"]
    assert set(found.table("image_masks")["kind"]) == {"N.x"}
    assert set(found.arrays("second_architecture")) == {
        f"{what}.{regime}" for what in ("mask", "standard", "masked", "attacked") for regime in "NA"
    }


def test_recipes_apart_share_a_folder_that_keeps_what_was_not_chosen(tmp_path):
    lab, store = Lab(small(), 0, CPU, progress=False), Store(tmp_path / "store", CPU)
    (second,), both = recipes(["without-gpu-more"]), recipes(["without-gpu", "without-gpu-more"])
    folder = tmp_path / experiments.home([second], "quick")
    experiments.run(both, lab, store)
    with pytest.raises(FmlibError, match=r"no second_architecture.npz: its recipe was not published"):
        experiments.publish([second], lab, store, folder)
    assert not list(tmp_path.glob("quick-*"))  # nothing half-written
    whole = experiments.publish(both, lab, store, folder)
    assert list(whole.manifest["recipes"]) == ["without-gpu", "without-gpu-more"]
    assert [row["id"] for row in whole.claims()] == [
        claim.id for claim in claims.CLAIMS if any(claim.id in those for those in claims.APART.values())
    ]
    before = files(folder)
    experiments.publish([second], lab, store, folder)
    assert files(folder) == before
    (folder / "claims.json").write_text("[]")
    experiments.judge(whole)
    assert files(folder) == before


def test_recipes_apart_are_not_among_all():
    assert not {recipe.name for recipe in recipes(["all"])} & set(claims.APART)
    assert recipes([]) == recipes(["all"])
    assert experiments.home(recipes([]), "quick") == "quick"


@pytest.mark.slow
def test_planted_tones_are_found_and_distractors_dropped(tmp_path):
    lab, store = Lab(profile("quick"), 0, CPU, progress=False), Store(tmp_path, CPU)
    rows = pd.read_csv(io.BytesIO(RECIPES["planted"].export(lab, store)["planted.csv"]))
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
from test_experiments import CPU, small
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
