"""The book: committed chapters are fresh and clean, every chapter executes, and a missing number breaks the build."""

import hashlib
import json
import shutil

import nbformat
import pytest
import torch
import yaml
from test_experiments import small

from fmlib import book, experiments
from fmlib.config import FmlibError
from fmlib.lab import Lab
from fmlib.results import PUBLISHED, Results
from fmlib.store import Store

CHAPTERS = book.notebooks()


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_no_chapter_is_stale():
    assert book.stale() == [], "run 'fmlib book --publish'"


def test_an_edit_makes_a_chapter_stale(tmp_path):
    copy = tmp_path / CHAPTERS[0].name
    shutil.copy(CHAPTERS[0], copy)
    before = book.freshness(copy)
    edited = nbformat.read(copy, as_version=4)
    edited.cells[-1].source += " More."
    nbformat.write(edited, copy)
    assert book.freshness(copy) != before


def test_cells_keep_the_house_rules(notebook):
    assert len(book.tagged(notebook, "parameters")) == 1
    assert book.tagged(notebook, "colab") == [0]
    assert notebook.cells[0].source == book.colab_source()
    assert not book.tagged(notebook, "injected-parameters")
    assert "papermill" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 15
            assert all(output.output_type not in ("error", "stream") for output in cell.outputs)


def test_every_figure_has_alternative_text(notebook):
    for cell in notebook.cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40
            assert cell.metadata["mystnb"]["figure"]["caption"]


def test_outputs_hold_no_paths(notebook):
    text = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert str(book.ROOT) not in text
    assert "object at 0x" not in text


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place = tmp_path_factory.mktemp("results")
    lab = Lab(small(), 0, torch.device("cpu"), progress=False)
    store = Store(place / "store", lab.device)
    experiments.run(experiments.recipes([]), lab, store)
    return experiments.publish(experiments.recipes([]), lab, store, place / "quick")


@pytest.fixture(scope="module")
def pages(results, tmp_path_factory):
    """The folder of the built pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(book, "BUILD", tmp_path_factory.mktemp("build"))
        return book.build(results).parent


@pytest.mark.slow
def test_every_chapter_executes_and_the_book_builds(pages):
    assert {f"{path.stem}.html" for path in CHAPTERS} <= {path.name for path in pages.glob("*.html")}
    assert "T1.N.gap" in (pages / "dataset_masks.html").read_text()


@pytest.mark.slow
def test_deleting_one_row_breaks_the_build(results, tmp_path, monkeypatch):
    folder = tmp_path / "quick"
    shutil.copytree(results.folder, folder)
    rows = [row for row in results.claims() if row["id"] != "N.robust"]
    content = json.dumps(rows).encode()
    (folder / "claims.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["claims.json"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(book, "BUILD", tmp_path / "build")
    with pytest.raises(FmlibError, match=r"N\.robust"):
        book.build(Results.open(folder))


@pytest.mark.slow
def test_every_chapter_can_be_launched_on_colab(pages):
    settings = yaml.safe_load((book.ROOT / "_config.yml").read_text())
    repository, colab = settings["repository"], settings["launch_buttons"]["colab_url"]
    project = repository["url"].removeprefix("https://github.com/")
    for path in CHAPTERS:
        address = f"{colab}/github/{project}/blob/{repository['branch']}/book/{path.name}"
        assert f'href="{address}"' in (pages / f"{path.stem}.html").read_text()
        assert f"git+{repository['url']}@{repository['branch']}" in path.read_text()


@pytest.mark.slow
def test_every_row_of_the_ledger_leads_to_its_figure(results, pages):
    ledger = (pages / "ledger.html").read_text()
    for row in results.claims():
        assert f'href="{row["chapter"]}.html#{row["anchor"]}"' in ledger
        assert f'id="{row["anchor"]}"' in (pages / f"{row['chapter']}.html").read_text(), row["id"]


def test_the_readme_quotes_the_published_rows():
    page = (book.ROOT / "README.md").read_text()
    assert page == book.readme(page, Results.open(PUBLISHED / book.SHOWN)), "run 'fmlib book --publish'"
    changed = Results.open(PUBLISHED / book.SHOWN)
    changed.claims = lambda: [row | {"value": row["value"] + 1} for row in Results.claims(changed)]
    assert page != book.readme(page, changed)


def test_a_chapter_that_fails_is_named(tmp_path):
    path = tmp_path / "broken.ipynb"
    shutil.copy(CHAPTERS[0], path)
    with pytest.raises(FmlibError, match=r"broken\.ipynb fails: FmlibError: no results in"):
        book.execute(path, {"folder": str(tmp_path / "nowhere")})


def test_a_chapter_without_parameters_is_refused(tmp_path):
    notebook = nbformat.read(CHAPTERS[0], as_version=4)
    del notebook.cells[book.tagged(notebook, "parameters")[0]]
    nbformat.write(notebook, tmp_path / "bare.ipynb")
    with pytest.raises(FmlibError, match="'parameters'"):
        book.execute(tmp_path / "bare.ipynb", {})
