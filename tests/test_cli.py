"""The command line: each bad input gives one clear line and exit code 2, and leaves nothing half-written."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from fmlib.cli import main
from fmlib.core import data
from fmlib.core.data import SELECTIONS
from fmlib.core.device import BFLOAT16
from fmlib.core.errors import FmlibError
from fmlib.pipeline import results
from fmlib.pipeline.results import Results
from fmlib.publishing import build
from fmlib.studies.shared.profiles import PROFILES


@pytest.fixture
def fmlib(tmp_path, capsys):
    """Run `fmlib WORDS` with a store in a temporary folder; returns exit code, output and error lines."""

    def call(*words):
        code = main([*words, "--store", str(tmp_path / "store"), "--device", "cpu", "--quiet"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.strip().splitlines()

    return call


def refused(result, *parts):
    code, _, errors = result
    assert code == 2
    assert len(errors) == 1
    assert all(part in errors[0] for part in ("fmlib: ", *parts)), errors


def photographs(root, images=2, names=("n01440764", "n02102040")):
    """A tiny tree in Imagenette's layout."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for name in names:
            folder = root / "imagenette2-160" / split / name
            folder.mkdir(parents=True)
            for number in range(images):
                Image.fromarray(pixels).save(folder / f"{number}.JPEG")
    return root


def test_unknown_profile(fmlib):
    refused(fmlib("run", "--profile", "huge"), "'huge'", "quick, laptop, paper")


def test_unknown_recipe(fmlib, tmp_path):
    refused(fmlib("run", "networks", "netwroks"), "'netwroks'", "dataset-masks")
    assert not (tmp_path / "store").exists()


def test_no_workers(fmlib):
    refused(fmlib("run", "harmonics", "--workers", "0"), "at least one worker")


def test_a_lone_recipe_beside_others(fmlib):
    refused(fmlib("run", "without-gpu", "networks"), "without-gpu cannot be had beside other experiments")
    refused(fmlib("publish", "all", "without-gpu"), "without-gpu cannot be had beside other experiments")


@pytest.mark.parametrize("words", [(), ("--bfloat16",)], ids=["full", "reduced"])
def test_precision_on_the_cpu_is_as_asked(fmlib, words):
    try:
        assert fmlib("run", "harmonics", *words)[0] == 0
        assert ("cpu" in BFLOAT16) == bool(words)
    finally:
        BFLOAT16.discard("cpu")


def test_unknown_device(fmlib, capsys):
    assert main(["run", "--device", "quantum"]) == 2
    assert "quantum" in capsys.readouterr().err


def test_photographs_without_a_folder(fmlib, monkeypatch):
    monkeypatch.delenv("FMLIB_DATA", raising=False)
    refused(fmlib("run", "networks", "--profile", "laptop"), "--data-root")


def test_missing_data_folder(fmlib, tmp_path):
    refused(fmlib("data", "--profile", "laptop", "--data-root", str(tmp_path / "nowhere")), "nowhere", "does not exist")


def test_folder_without_imagenette(fmlib, tmp_path):
    refused(fmlib("data", "--profile", "laptop", "--data-root", str(tmp_path)), "imagenette2-160")


def test_partial_classes(fmlib, tmp_path):
    root = photographs(tmp_path / "data")
    refused(fmlib("data", "--profile", "laptop", "--data-root", str(root)), "n02979186", "extract")


def test_partial_images(fmlib, tmp_path):
    root = photographs(tmp_path / "data", names=SELECTIONS["paper-text"][0])
    refused(fmlib("run", "networks", "--profile", "laptop", "--data-root", str(root)), "10 images", "4710")
    assert not (tmp_path / "store").exists()


def test_truncated_photograph(fmlib, tmp_path, monkeypatch):
    names = SELECTIONS["paper-text"][0]
    root = photographs(tmp_path / "data", names=names)
    monkeypatch.setitem(SELECTIONS, "paper-text", (names, 10, 10))
    broken = root / "imagenette2-160" / "train" / names[0] / "1.JPEG"
    broken.write_bytes(broken.read_bytes()[:400])
    refused(fmlib("run", "networks", "--profile", "laptop", "--data-root", str(root)), str(broken), "replace")
    assert not list((tmp_path / "store").rglob("spec.json"))


def test_status_knows_what_is_missing_and_its_cost(fmlib):
    code, out, errors = fmlib("status", "planted")
    assert code == 0
    assert not errors
    assert "0 of " in out
    assert "missing  network N (quick tiny_vgg, seed 0)" in out
    assert "left" in out


def test_status_without_photographs_says_so_and_goes_on(fmlib, monkeypatch):
    monkeypatch.delenv("FMLIB_DATA", raising=False)
    code, out, _ = fmlib("status", "--profile", "laptop")
    assert code == 0
    assert "networks        cannot be planned: this profile needs photographs" in out
    assert "missing  network N (quick tiny_vgg, seed 0)" in out  # the planted test needs none


def test_a_download_that_fails(fmlib, tmp_path, monkeypatch):
    def offline(*args, **options):
        raise OSError("no route")

    monkeypatch.setattr(data, "Imagenette", offline)
    root = str(tmp_path / "photographs")
    refused(fmlib("data", "--profile", "laptop", "--data-root", root, "--download"), "no route", "try again")


def test_publishing_before_computing(fmlib):
    refused(fmlib("publish"), "missing", "fmlib run")


def test_an_installed_package_writes_nothing_into_itself(fmlib, monkeypatch):
    monkeypatch.setattr(results, "INSTALLED", results.PUBLISHED)
    for command in ("publish", "bench", "book"):
        refused(fmlib(command), "checkout", "clone")


def test_the_book_says_which_package_it_lacks(fmlib, monkeypatch):
    monkeypatch.delattr("fmlib.book")
    monkeypatch.delitem(sys.modules, "fmlib.book")
    monkeypatch.setitem(sys.modules, "papermill", None)
    refused(fmlib("book"), "papermill", "[book]")


def test_data_of_planted_profile(fmlib):
    code, out, _ = fmlib("data")
    assert code == 0
    assert "nothing to fetch" in out


def test_results_cut_short(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    digest = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps({"profile": "quick", "files": {"a.csv": digest}}))
    with pytest.raises(FmlibError, match=r"a\.csv does not match its checksum"):
        Results.open(tmp_path).table("a")
    (tmp_path / "manifest.json").write_text('{"profile": "qui')
    with pytest.raises(FmlibError, match="damaged"):
        Results.open(tmp_path)
    with pytest.raises(FmlibError, match="no results"):
        Results.open(tmp_path / "elsewhere")


def test_every_profile_is_complete():
    assert set(PROFILES) == {"quick", "laptop", "paper"}
    assert PROFILES["paper"].network.architecture == "vgg11_bn"


def test_colab_cell_reads_the_address_from_the_settings():
    assert "github.com" in build.colab_source()
    assert "torch" not in build.colab_source().split("git+")[1]
