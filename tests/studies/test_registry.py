"""The registry: every experiment and claim of the studies, what is published of them, and how a study is added."""

import functools
import importlib
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import CPU, files, small

from fmlib import studies
from fmlib.core.errors import FmlibError
from fmlib.pipeline.claims import ABSENT, VERDICTS
from fmlib.pipeline.experiment import publish, results_key
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.pipeline.store import Store
from fmlib.studies import registry
from fmlib.studies.shared.profiles import profile
from fmlib.studies.shared.setup import Setup

BOOK = Path(__file__).parents[2] / "book"
CLAIMS = registry.all_claims()
FOLDERS = sorted(path.parent for path in PUBLISHED.glob("*/manifest.json"))


def test_every_study_is_listed_once():
    folders = {path.name for path in Path(registry.__file__).parent.iterdir() if (path / "__init__.py").exists()}
    assert folders - {"shared"} == set(registry.STUDIES)
    assert len(registry.STUDIES) == len(set(registry.STUDIES))


def test_experiments_are_chosen_by_name():
    every = registry.experiments()
    assert registry.experiments(["all"]) == registry.experiments(["tables", "all"]) == every
    assert len({experiment.name for experiment in every}) == len(every)
    chosen = registry.experiments(["tables", "harmonics"])
    assert [experiment.name for experiment in chosen] == ["harmonics", "tables"]  # in the order of the studies
    with pytest.raises(FmlibError, match=r"unknown experiment 'maskz': choose from harmonics, .* or all"):
        registry.experiments(["maskz"])


@pytest.mark.parametrize("experiment", registry.experiments(), ids=lambda experiment: experiment.name)
def test_tasks_of_an_experiment_share_their_inputs(experiment):
    keys = []
    for task in experiment.tree(Setup(profile("quick"), 0, CPU)):
        assert task.key not in keys
        assert {one.key for one in task.inputs} <= set(keys)  # inputs first
        keys.append(task.key)


def test_one_network_alone_is_computed_published_and_evaluated(store, tmp_path):
    """As on a machine that has time for one network of profile paper: no other is trained, claims about them wait."""
    setup = Setup(small().only(["N"], 60), 0, CPU, progress=False)
    names = ["networks", "dataset-masks", "image-masks", "necessity", "minimal-image-masks", "tables", "minimal-tables"]
    chosen = registry.needing_only(setup, names)
    others = ["separability", "minimal-separability", "own-network"]
    assert [one.name for one in registry.needing_only(setup)] == names + others
    registry.run(chosen, setup, store, workers=1)
    assert len(list((store.root / "network").glob("*/spec.json"))) == 1
    results = publish(chosen, setup, store, tmp_path / "quick", CLAIMS)
    assert all(record["partial"] == setup.profile.partial for record in results.manifest["experiments"].values())
    assert set(results.arrays("evaluation")) == {"standard.N", "masked.N", "attacked.N"}
    assert set(results.table("minimal_image_masks")["image"]) <= set(range(100))
    assert results.claim("T1.N.standard")["n"] == 100
    for claim in ("T1.A.standard", "F4.S.low_shift", "F7.lowest_bands"):
        assert results.claim(claim)["verdict"] == ABSENT


def test_experiments_that_need_other_networks_are_refused_by_name():
    setup = Setup(small().only(["N"]), 0, CPU)
    with pytest.raises(FmlibError, match=r"uniqueness needs network A .*: leave out --networks"):
        registry.needing_only(setup, ["uniqueness"])
    with pytest.raises(FmlibError, match="harmonics needs none of the networks"):
        registry.needing_only(setup, ["harmonics"])


def test_claim_ids_are_unique_and_complete():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    wanted = {f"T1.{regime}.{what}" for regime in "NASTR" for what in ("standard", "masked", "gap")}
    wanted |= {"A.robust", "N.robust", "F4.A.low_shift", "P.planted.precision", "P.planted.recall"}
    assert wanted <= set(ids)


def test_a_name_defined_twice_is_an_error(monkeypatch):
    monkeypatch.setattr(registry, "STUDIES", ["class_separability", "class_separability"])
    with pytest.raises(FmlibError, match=r"two studies define the claim .*T3.test"):
        registry.all_claims()
    with pytest.raises(FmlibError, match="two studies define the experiment minimal-separability, separability"):
        registry.all_experiments()


@functools.cache
def anchors(chapter):
    """What a link into a chapter can lead to: its figures, and its headings as Sphinx names them."""
    path = BOOK / f"{chapter}.ipynb"
    if not path.exists():
        texts, names = [(BOOK / f"{chapter}.md").read_text()], set()
    else:
        cells = nbformat.read(path, as_version=4).cells
        names = {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells}
        texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    for text in texts:
        names |= set(re.findall(r"^\(([^)]+)\)=$", text, re.MULTILINE))
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
            names.add(re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-"))
    return names


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_is_measured_and_leads_to_a_place_in_its_chapter(claim):
    assert claim.chapter in registry.STUDIES
    page, _, anchor = claim.figure.rpartition("#")
    assert anchor in anchors(page.removesuffix(".html") or claim.chapter)
    if claim.measure is None:
        assert claim.requires == "people"
    else:
        assert claim.measure.__module__ in (f"fmlib.studies.{claim.chapter}.analysis", "fmlib.pipeline.claims")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_says_what_it_counts_and_from_where_it_comes(claim):
    assert claim.statement.endswith((".", "?"))
    assert claim.unit
    assert claim.n.partition(" of ")[0].endswith("s")  # a plural: "images", "pairs of networks"
    assert claim.source == "control" or claim.reference


def test_something_is_published():
    assert {"laptop", "paper"} <= {folder.name for folder in FOLDERS}
    assert [results.folder for results in registry.published()] == FOLDERS
    assert all(results.profile == results.folder.name for results in registry.published())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_published_file_is_whole_and_listed(folder):
    results = Results.open(folder)
    for name in results.manifest["files"]:
        results.content(name)
    on_disk = {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert on_disk == set(results.manifest["files"])
    exported = [name for record in results.manifest["experiments"].values() for name in record["files"]]
    assert sorted([*exported, "claims.json"]) == sorted(on_disk)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_published_manifest_says_how_each_experiment_was_computed(folder):
    manifest = Results.open(folder).manifest
    assert manifest["key"] == results_key(manifest["experiments"])
    assert manifest["experiments"].keys() <= registry.all_experiments().keys()
    for record in manifest["experiments"].values():
        assert {"device", "torch", "fmlib", "precision", "seeds", "files", "tasks"} <= record.keys()
        assert record["precision"] in ("float32", "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_claims_follow_from_published_files(folder, monkeypatch):
    """And a claim names the experiments whose files it reads, all of them and no others."""
    results, opened = Results.open(folder), []
    rows = results.claims()
    owners = {file: name for name, record in results.manifest["experiments"].items() for file in record["files"]}
    monkeypatch.setattr("fmlib.pipeline.results.observers", [opened.append])
    for claim, row in zip(CLAIMS, rows, strict=True):
        opened.clear()
        assert claim.evaluate(results) == row
        read = {owners[path.name] for path in opened}
        assert read == set(claim.experiments) if row["value"] is not None else read <= set(claim.experiments)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_published_claims_are_those_of_the_studies(folder):
    rows = Results.open(folder).claims()
    assert [row["id"] for row in rows] == [claim.id for claim in CLAIMS]
    for row, claim in zip(rows, CLAIMS, strict=True):
        assert row["verdict"] in VERDICTS
        assert row["rule"] == (claim.rule.words(claim.unit) if claim.rule else "")
        for name in ("statement", "unit", "published", "chapter", "figure"):
            assert row[name] == getattr(claim, name)


CASES = [
    (folder, name) for folder in FOLDERS for name in json.loads((folder / "manifest.json").read_text())["experiments"]
]


@pytest.mark.parametrize(("folder", "name"), CASES, ids=lambda value: getattr(value, "name", value))
def test_one_published_experiment_alone_can_be_evaluated(folder, name):
    """What it does not hold reads "not computed"; nothing that it measures changes."""
    whole = Results.open(folder)
    record = whole.manifest["experiments"][name]
    listed = {file: whole.manifest["files"][file] for file in record["files"]}
    alone = Results(folder, whole.manifest | {"files": listed, "experiments": {name: record}})
    for claim, row in zip(CLAIMS, whole.claims(), strict=True):
        if not claim.id.startswith("T3.few"):  # which trains classifiers for a minute
            partial = claim.evaluate(alone)
            same = all(partial[column] == row[column] for column in ("value", "low", "high", "n", "verdict"))
            assert same or (partial["verdict"], partial["value"]) == (ABSENT, None)


EXPERIMENT = """
import numpy as np
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Task, arrays_to_bytes

def tasks(setup):
    def compute(inputs, checkpoint):
        return Artifact({"correct": np.arange(100) < 90})
    return [Task("toy", "toy numbers", {"seed": setup.seed}, compute)]

def export(setup, store):
    return {"toy.npz": arrays_to_bytes(store.get(tasks(setup)[0]).arrays)}

EXPERIMENTS = [Experiment("toy", "numbers of a toy", tasks, export, images=lambda setup: 100)]
"""

ANALYSIS = """
from fmlib.core.intervals import Measured

def wrong(results):
    correct = results.arrays("toy")["correct"]
    share = 100 - 100 * float(correct.mean())
    return Measured(share, share, share, correct.size)
"""

TOML = """
[[claim]]
id = "toy.accuracy"
source = "control"
statement = "The toy is correct on most images."
unit = "%"
n = "images"
figure = "figure-toy"
requires = "any data"
timing = "before"
rule = { above = 50 }
measure = { function = "rate", arguments = { file = "toy", array = "correct" } }

[[claim]]
id = "toy.error"
source = "control"
statement = "The toy is never wrong."
unit = "%"
n = "images"
figure = "figure-toy"
requires = "any data"
timing = "before"
rule = { at_most = 0 }
measure = { function = "wrong" }
"""


@pytest.fixture
def toy_study(tmp_path, monkeypatch):
    """A study in a folder of its own; nothing but the registry's list names it."""
    folder = tmp_path / "studies" / "toy_study"
    folder.mkdir(parents=True)
    for name, text in {"__init__": "", "experiment": EXPERIMENT, "analysis": ANALYSIS}.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "claims.toml").write_text(TOML)
    monkeypatch.setattr(studies, "__path__", [*studies.__path__, str(folder.parent)])
    monkeypatch.setattr(registry, "STUDIES", [*registry.STUDIES, "toy_study"])
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.startswith("fmlib.studies.toy_study")]:
        del sys.modules[name]


@pytest.mark.usefixtures("toy_study")
def test_a_study_is_added_by_its_folder_and_its_name(tmp_path):
    chosen, claims = registry.experiments(["toy"]), registry.all_claims()
    assert registry.experiments()[-1].name == "toy"
    assert [claim.id for claim in claims[: len(CLAIMS)]] == [claim.id for claim in CLAIMS]
    setup, store = Setup(small(), 3, CPU, progress=False), Store(tmp_path / "store", CPU)
    registry.run(chosen, setup, store, workers=1)
    results = publish(chosen, setup, store, tmp_path / "quick", claims)
    assert set(files(tmp_path / "quick")) == {"toy.npz", "claims.json", "manifest.json"}
    record = results.manifest["experiments"]["toy"]
    assert (record["images"], record["seeds"], record["files"]) == (100, [3], ["toy.npz"])
    accuracy, error = results.claim("toy.accuracy"), results.claim("toy.error")
    assert (accuracy["value"], accuracy["verdict"]) == (90, "reproduced")
    assert (error["value"], error["verdict"]) == (10, "not reproduced")
    assert {accuracy["chapter"], error["chapter"]} == {"toy_study"}
    others = {row["verdict"] for row in results.claims() if row["chapter"] != "toy_study"}
    assert others <= {"not computed", "not tested"}


@pytest.mark.usefixtures("toy_study")
@pytest.mark.parametrize("name", ["experiment.py", "claims.toml"])
def test_a_study_may_lack_experiments_or_claims(tmp_path, name):
    (tmp_path / "studies" / "toy_study" / name).unlink()
    assert ("toy" in registry.all_experiments()) == (name != "experiment.py")
    assert ("toy.error" in [claim.id for claim in registry.all_claims()]) == (name != "claims.toml")
