"""The book: committed chapters are up to date, every chapter executes, and a missing number breaks the build."""

import hashlib
import json
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import nbformat
import pybtex.database
import pytest
import yaml

import fmlib
from fmlib.cli import main
from fmlib.core.errors import FmlibError
from fmlib.pipeline.results import PUBLISHED, Results, manifest_text
from fmlib.publishing import build, provenance, status
from fmlib.studies.freqbench.analysis import FURTHER

CHAPTERS = build.notebooks()


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def test_no_chapter_is_out_of_date():
    assert build.stale() == [], "run 'fmlib book publish'"


def test_an_edit_makes_a_chapter_out_of_date(tmp_path):
    copy = tmp_path / CHAPTERS[0].name
    shutil.copy(CHAPTERS[0], copy)
    before = status.freshness(copy)
    edited = nbformat.read(copy, as_version=4)
    edited.cells[-1].source += " More."
    nbformat.write(edited, copy)
    assert status.freshness(copy) != before


def test_an_edit_anywhere_in_the_library_makes_chapters_out_of_date(tmp_path, monkeypatch):
    for name in ("fmlib/core/masks.py", "fmlib/studies/dataset_masks/claims.toml", "data/results/laptop/manifest.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "fmlib" / "published").symlink_to(tmp_path / "data" / "results")
    monkeypatch.setattr(status, "ROOT", tmp_path)
    monkeypatch.setattr(status, "PUBLISHED", tmp_path / "data" / "results")
    before = status.freshness(CHAPTERS[0])
    for path in status.sources():
        path.write_text("2")
        after = status.freshness(CHAPTERS[0])
        assert after != before, path
        before = after
    (tmp_path / "data" / "results" / "laptop" / "module.py").write_text("3")  # found through the link, if followed
    assert status.freshness(CHAPTERS[0]) == before


def test_chapters_depend_on_every_module_claim_and_manifest():
    sources = set(status.sources())
    library = build.ROOT / "fmlib"
    assert sources >= {library / "core" / "masks.py", library / "studies" / "dataset_masks" / "claims.toml"}
    assert {PUBLISHED / profile / "manifest.json" for profile in ("laptop", "paper")} <= sources
    assert not [path for path in sources if "published" in path.parts]


def test_cells_keep_the_house_rules(notebook):
    assert len(build.tagged(notebook, "parameters")) == 1
    assert build.tagged(notebook, "colab") == [0]
    assert notebook.cells[0].source == build.colab_source()
    assert not build.tagged(notebook, "injected-parameters")
    assert "papermill" not in notebook.metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 15
            assert all(output.output_type not in ("error", "stream") for output in cell.outputs)


def test_colab_is_asked_for_a_gpu_where_one_pays():
    asked = {path.stem for path in CHAPTERS if nbformat.read(path, as_version=4).metadata.get("accelerator") == "GPU"}
    assert asked == set(build.NEED_GPU)


def test_every_figure_has_alternative_text(notebook):
    for cell in notebook.cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 40


def test_every_caption_begins_with_a_finding_and_goes_on_with_what_is_shown(notebook):
    for cell in notebook.cells:
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            caption = provenance.plain_caption(figure["caption"])
            assert re.fullmatch(r"[A-Z].{30,}\. [A-Z].{20,}\.", caption), figure["name"]
            assert not re.search(r"\bSee\b", caption), figure["name"]


def test_outputs_hold_no_paths(notebook):
    text = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert str(build.ROOT) not in text
    assert "object at 0x" not in text


#: A method of a reader's own, for FreqBench.
MINE = """
import torch

TITLE, SOURCE, BUDGET = "energy of mine", "nowhere", 0

def explain(model, images, target, budget):
    return torch.fft.fft2(images).abs().sum(1)
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder in which `fmlib freqbench` has left what it measured of a reader's own method."""
    place = tmp_path_factory.mktemp("freqbench")
    (place / "mine.py").write_text(MINE)
    words = ["--method", f"{place / 'mine.py'}:explain", "--task", "plain", "--images", "4", "--quiet"]
    assert main(["freqbench", *words, "--out", str(place / "out"), "--store", str(place / "store")]) == 0
    return place / "out"


#: What `make book` runs.
BOOK_BUILD = ["book", "build", "--profile", "quick"]


@pytest.fixture(scope="module")
def place(measured, tmp_path_factory):
    """The folder in which `make book` has computed and built the book, with what was measured of a reader's method."""
    place = tmp_path_factory.mktemp("build")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "BUILD", place)
        patch.setenv(FURTHER, str(measured))
        assert main([*BOOK_BUILD, "--store", str(place / "store"), "--quiet"]) == 0
    return place


@pytest.fixture(scope="module")
def results(place):
    return Results.open(place / "results" / "quick")


@pytest.fixture(scope="module")
def pages(place):
    """The folder of the built pages."""
    return place / "quick" / "_build" / "html"


def test_make_book_is_the_command_that_is_tested():
    command = ["make", "--dry-run", "--no-print-directory", "book"]
    said = subprocess.run(command, cwd=build.ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == f".venv/bin/fmlib {' '.join(BOOK_BUILD)}"


@pytest.mark.slow
def test_every_chapter_executes_and_the_book_builds(pages, request):
    assert Path.cwd() == request.config.invocation_params.dir  # building leaves the working folder as it was
    assert {f"{path.stem}.html" for path in CHAPTERS} <= {path.name for path in pages.glob("*.html")}
    assert "T1.N.gap" in (pages / "dataset_masks.html").read_text()


@pytest.mark.slow
def test_a_method_of_ones_own_is_in_the_leaderboard_of_the_built_book(pages):
    (row,) = re.findall(r"<tr>(?:(?!</tr>).)*energy of mine.*?</tr>", (pages / "freqbench.html").read_text(), re.DOTALL)
    assert "own method" in row
    assert "energy of mine" not in (build.BOOK / "freqbench.ipynb").read_text()


def links(page):
    """Addresses to which source lines and the status page link, without those of other sites."""
    parts = re.findall(
        r'<details class="source">.*?</details>|<section id="experiment-.*?</section>|<table .*?</table>',
        page,
        re.DOTALL,
    )
    return [address for part in parts for address in re.findall('href="([^"]*)"', part) if "://" not in address]


@pytest.mark.slow
def test_source_lines_link_to_files_and_experiments(pages, results):
    """They stand under each figure and table; what they link to is among the pages, and is what was published."""
    for path in CHAPTERS:
        page = (pages / f"{path.stem}.html").read_text()
        declaring = [cell for cell in nbformat.read(path, as_version=4).cells if "made_from" in cell.metadata]
        assert page.count('<details class="source">') == len(declaring), path.stem
        for address in links(page):
            name, _, anchor = address.partition("#")
            assert (pages / name).is_file(), address
            assert not anchor or f'id="{anchor}"' in (pages / name).read_text(), address
    for name, checksum in results.manifest["files"].items():
        assert hashlib.sha256((pages / results.profile / name).read_bytes()).hexdigest() == checksum
    assert f'href="{results.profile}/masks.csv"' in (pages / "dataset_masks.html").read_text()


@pytest.mark.slow
def test_a_source_line_stands_below_its_caption(pages):
    page = (pages / "dataset_masks.html").read_text()
    figure = page.split('id="figure-masks"')[1].split("</figure>")[0]
    assert figure.index("The dataset masks (top)") < figure.index("<summary>Source</summary><p>chapter dataset_masks")
    assert page.count('id="figure-masks"') == 1


@pytest.mark.slow
def test_the_status_page_lists_the_built_chapters(pages, results):
    page = (pages / "status.html").read_text()
    for path in CHAPTERS:
        row = page.split(f'<td><a href="{path.stem}.html">')
        assert len(row) == (1 if path.stem == build.STATUS else 2)
        if path.stem != build.STATUS:
            record = status.records(pages.parent.parent / "book")[pages.parent.parent / "book" / path.name]
            cells = re.findall("<td>(.*?)</td>", row[1].split("</tr>")[0])
            assert cells[:3] == ["up to date", results.profile, str(record["seconds"])]
            assert f"torch {version('torch')}" in cells[3]


@pytest.mark.slow
def test_deleting_one_row_breaks_the_build(results, tmp_path, monkeypatch):
    folder = tmp_path / "quick"
    shutil.copytree(results.folder, folder)
    rows = [row for row in results.claims() if row["id"] != "F4.A.low_shift"]
    content = json.dumps(rows).encode()
    (folder / "claims.json").write_bytes(content)
    manifest = Results.open(folder).manifest
    manifest["files"]["claims.json"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(manifest_text(manifest))
    monkeypatch.setattr(build, "BUILD", tmp_path / "build")
    monkeypatch.setattr(build, "notebooks", lambda: [build.BOOK / "intro.ipynb"])  # which quotes it; the others stay
    with pytest.raises(FmlibError, match=r"F4\.A\.low_shift"):
        build.build(Results.open(folder))


@pytest.mark.slow
def test_every_chapter_can_be_launched_on_colab(pages):
    settings = yaml.safe_load((build.ROOT / "_config.yml").read_text())
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
        page, _, anchor = row["figure"].rpartition("#")
        page = page or f"{row['chapter']}.html"
        assert f'href="{page}#{anchor}"' in ledger
        assert f'id="{anchor}"' in (pages / page).read_text(), row["id"]


def test_the_readme_quotes_the_published_rows():
    page = (build.ROOT / "README.md").read_text()
    assert page == build.readme(page, Results.open(PUBLISHED / build.SHOWN)), "run 'fmlib book publish'"
    changed = Results.open(PUBLISHED / build.SHOWN)
    changed.claims = lambda: [row | {"value": 1 + (row["value"] or 0)} for row in Results.claims(changed)]
    assert page != build.readme(page, changed)


def test_the_home_page_cites_what_the_citation_file_and_the_bibliography_do():
    home = nbformat.read(build.BOOK / "intro.ipynb", as_version=4)
    (block,) = re.findall(r"```bibtex\n(.*?)```", "".join(cell.source for cell in home.cells), re.DOTALL)
    quoted = pybtex.database.parse_string(block, "bibtex").entries
    known = pybtex.database.parse_file(build.BOOK / "references.bib").entries
    cited = yaml.safe_load((build.ROOT / "CITATION.cff").read_text())
    (paper,) = cited["references"]

    assert quoted["karantzas2022"] == known["karantzas2022"]
    fields = quoted["karantzas2022"].fields
    assert re.sub("[{}]", "", fields["title"]) == paper["title"]
    assert (fields["year"], fields["doi"], fields["journal"]) == (str(paper["year"]), paper["doi"], paper["journal"])
    fields = quoted["fouriermasks2026"].fields
    assert (fields["title"], fields["version"]) == (cited["title"], cited["version"])
    assert fields["version"] == fmlib.__version__
    assert fields["year"] == str(cited["date-released"].year)


def test_a_chapter_that_fails_is_named(tmp_path):
    path = tmp_path / "broken.ipynb"
    shutil.copy(CHAPTERS[0], path)
    nowhere = Results(tmp_path / "nowhere", {"profile": "quick"})
    with pytest.raises(FmlibError, match=r"broken\.ipynb fails: FmlibError: no results in"):
        build.execute(path, nowhere, tmp_path)


def test_a_chapter_without_parameters_is_refused(tmp_path):
    notebook = nbformat.read(CHAPTERS[0], as_version=4)
    del notebook.cells[build.tagged(notebook, "parameters")[0]]
    nbformat.write(notebook, tmp_path / "bare.ipynb")
    with pytest.raises(FmlibError, match="'parameters'"):
        build.execute(tmp_path / "bare.ipynb", Results.open(PUBLISHED / build.SHOWN), tmp_path)


def test_colab_cell_reads_the_address_from_the_settings():
    assert "github.com" in build.colab_source()
    assert "torch" not in build.colab_source().split("git+")[1]
