"""Provenance: every figure and table declares its files correctly, and its source line agrees with the results."""

import copy
import re

import nbformat
import pytest
import yaml

from fmlib.core.errors import FmlibError
from fmlib.pipeline import results as results_module
from fmlib.pipeline.results import PUBLISHED, Results, benchmark
from fmlib.publishing import build, provenance, status
from fmlib.publishing.ledger import FINDINGS

CHAPTERS = [path for path in build.notebooks() if path.stem != build.STATUS]


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def results():
    return Results.open(PUBLISHED / build.SHOWN)


def lines(notebook):
    """Declared files and source lines of the cells that declare any."""
    declared = []
    for cell in notebook.cells:
        if "made_from" in cell.metadata:
            outputs = [output.get("data", {}).get("text/html", "") for output in cell.outputs]
            caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
            sources = re.findall(r'<details class="source">.*</details>', "\n".join([caption, *outputs]))
            declared.append((cell.metadata["made_from"], sources))
    return declared


def disagreeing(path, notebook, results):
    """The lines of a chapter that disagree with the results."""
    return [
        sources for files, sources in lines(notebook) if sources != [provenance.source_line(path.stem, files, results)]
    ]


def test_every_figure_and_table_declares_its_files(path):
    for cell in read(path).cells:
        assert bool(cell.metadata.get("made_from")) == provenance.shows(cell), cell.source


def test_committed_lines_agree_with_the_published_results(path, results):
    notebook = read(path)
    assert notebook.metadata["fmlib"]["profile"] == results.profile
    assert disagreeing(path, notebook, results) == [], "run 'fmlib book publish'"


def annotated(path, results):
    notebook = read(path)
    provenance.annotate(path.stem, notebook, results)
    return notebook


@pytest.fixture
def plain(tmp_path):
    """The path of a chapter with a figure and a table, without source lines."""
    place = tmp_path / "demonstration.ipynb"
    cells = [
        cell("figure", png(), made_from=["masks.csv"], mystnb={"figure": {"caption": "Masks.", "name": "figure-x"}}),
        cell("table", table(), made_from=["claims.json", "bench/cpu.json"]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), place)
    return place


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda manifest: manifest.update(key="0123456789abcdef"), 2),
        (lambda manifest: manifest.update(seed=7), 2),
        (lambda manifest: manifest["files"].update({"masks.csv": "0" * 64}), 1),
        (lambda manifest: manifest["files"].update({"claims.json": "0" * 64}), 1),
        (lambda manifest: manifest["files"].update({"masks.csv": "0" * 64, "claims.json": "0" * 64}), 2),
        (lambda manifest: manifest["experiments"]["dataset-masks"].update(device="cuda"), 2),
        (lambda manifest: manifest["experiments"]["dataset-masks"].update(torch="9.9"), 2),
        (lambda manifest: manifest["experiments"]["dataset-masks"].update(fmlib="9.9"), 2),
        (lambda manifest: manifest["experiments"]["tables"].update(torch="9.9"), 1),
        (lambda manifest: None, 0),
    ],
)
def test_a_line_disagrees_with_a_changed_manifest(plain, results, change, count):
    notebook = annotated(plain, results)
    changed = Results(results.folder, copy.deepcopy(results.manifest))
    change(changed.manifest)
    assert len(disagreeing(plain, notebook, changed)) == count


def test_annotating_twice_is_annotating_once(plain, results):
    once = annotated(plain, results)
    figure = once.cells[0]
    again = nbformat.v4.new_notebook(cells=[copy.deepcopy(figure)])
    provenance.annotate("demonstration", again, results)
    assert again.cells[0] == figure
    assert figure.metadata["mystnb"]["figure"]["caption"].startswith("Masks.\n\n<details class=")


def test_a_line_names_everything(results):
    line = provenance.source_line("dataset_masks", ["masks.csv", "stability.csv", "second_architecture.npz"], results)
    experiment = results.manifest["experiments"]["architectures"]
    for part in ("chapter dataset_masks", "--profile laptop", "seed 0", results.manifest["key"], experiment["torch"]):
        assert part in line
    assert line.count("status.html#experiment-dataset-masks") == line.count("status.html#experiment-architectures") == 1
    assert 'href="laptop/stability.csv"' in line
    other = Results.open(PUBLISHED / "paper")
    name = f"{other.folder.name}/masks.csv"
    line = provenance.source_line("dataset_masks", ["masks.csv", name], results)
    for part in ("--profile laptop", results.manifest["key"], f"--profile {other.profile}", other.manifest["key"]):
        assert part in line
    assert "status.html#experiment-dataset-masks-paper" in line
    assert f'<a href="{name}">{name}</a> <code>{other.manifest["files"]["masks.csv"][:8]}</code>' in line
    line = provenance.source_line("ledger", [f"{other.folder.name}/claims.json"], results)
    assert "status.html#experiment-claims" in line
    assert other.manifest["key"] in line
    bench = provenance.source_line("what_it_costs", ["bench/cpu.json"], results)
    assert 'href="bench/cpu.json"' in bench
    assert "status.html#experiment-bench" in bench
    assert results.manifest["key"] not in bench  # it is made from no results


def test_reading_a_results_file_is_observed(results, monkeypatch):
    opened = []
    monkeypatch.setattr(results_module, "observers", [opened.append])
    results.table("masks")
    results.claims()
    Results.open(PUBLISHED / "paper").arrays("dataset_masks")
    benchmark("cpu")
    names = [path.relative_to(PUBLISHED).as_posix() for path in opened]
    assert names == ["laptop/masks.csv", "laptop/claims.json", "paper/dataset_masks.npz", "bench/cpu.json"]


def cell(source, *outputs, **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def shown(kind, content):
    return nbformat.v4.new_output("display_data", {kind: content})


def png():
    return shown("image/png", "iVBORw0KGgo=")


def table():
    return shown("text/html", "<table></table>")


def findings():
    return shown("text/html", f"{FINDINGS}></div>")


@pytest.mark.parametrize(
    ("cells", "error"),
    [
        ([("load", [], None, {"a.csv"}), ("draw", [png()], ["a.csv"], set())], None),
        ([("draw", [png()], ["a.csv"], {"a.csv"})], None),
        ([("find", [findings()], ["claims.json"], {"claims.json"})], None),
        ([("find", [findings()], None, {"claims.json"})], "every figure and table"),
        ([("draw", [png()], ["a.csv", "b.csv"], {"a.csv"})], "names b.csv, which the chapter does not open"),
        ([("draw", [png()], ["a.csv"], set()), ("load", [], None, {"a.csv"})], "names a.csv, which"),
        ([("load", [], None, {"a.csv", "b.csv"}), ("draw", [png()], ["a.csv"], set())], "opens b.csv, which made_from"),
        ([("draw", [png()], ["a.csv"], {"a.csv", "b.csv"})], "cell 'draw': opens b.csv"),
        (
            [("one", [png()], ["a.csv"], {"a.csv", "b.csv"}), ("two", [table()], ["b.csv"], set())],
            "cell 'one': opens b.csv",
        ),
        ([("draw", [png()], None, set())], "every figure and table"),
        ([("show", [table()], [], set())], "every figure and table"),
        ([("load", [], ["a.csv"], {"a.csv"})], "every figure and table"),
    ],
)
def test_what_is_declared_must_be_what_is_opened(cells, error):
    made = [
        cell(source, *outputs, **({} if files is None else {"made_from": files})) for source, outputs, files, _ in cells
    ]
    opened = [one[-1] for one in cells]
    if error is None:
        provenance.check("chapter", nbformat.v4.new_notebook(cells=made), opened)
    else:
        with pytest.raises(FmlibError, match=error):
            provenance.check("chapter", nbformat.v4.new_notebook(cells=made), opened)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (lambda cell: cell.metadata.made_from.append("masks.csv"), "names masks.csv, which the chapter does not open"),
        (lambda cell: cell.update(source=f"results.table('masks')\n{cell.source}"), "opens masks.csv, which"),
        (lambda cell: cell.metadata.pop("made_from"), "every figure and table"),
    ],
)
def test_execution_notices_a_false_declaration(tmp_path, results, edit, error):
    notebook = read(build.BOOK / "discussion.ipynb")
    edit(next(cell for cell in notebook.cells if "made_from" in cell.metadata))
    nbformat.write(notebook, tmp_path / "discussion.ipynb")
    with pytest.raises(FmlibError, match=error):
        build.execute(tmp_path / "discussion.ipynb", results, tmp_path)


def test_parameters_are_those_of_the_published_profile():
    cells = [read(path).cells for path in build.notebooks()]
    sources = {cell.source for some in cells for cell in some if "parameters" in cell.metadata.get("tags", [])}
    assert len(sources) == 1
    assert sources.pop().startswith(f'profile = "{build.SHOWN}"')


def test_the_reader_builds_pages_with_the_published_files():
    settings = yaml.safe_load((build.ROOT / "_config.yml").read_text())["sphinx"]["config"]
    assert [(build.BOOK / extra).resolve() for extra in settings["html_extra_path"]] == [PUBLISHED]


def test_the_status_page_agrees_with_the_chapters():
    outputs = [output for cell in read(build.BOOK / "status.ipynb").cells for output in cell.get("outputs", [])]
    page = "".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert status.chapters_table(build.BOOK).data in page, "run 'fmlib book publish'"
    assert status.experiments(Results.open(PUBLISHED / build.SHOWN)).data in page, "run 'fmlib book publish'"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder of two executed chapters, one of them up to date, and the status page."""
    record = {"profile": "laptop", "seconds": 12, "with": {"Python": "3.12.1", "torch": "2.9"}}
    for stem in ("first", "second", "status"):
        place = tmp_path / f"{stem}.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"Text.\n# The {stem}\n\nMore.")])
        nbformat.write(notebook, place)
        notebook.metadata["fmlib"] = record | {"freshness": status.freshness(place) if stem == "first" else "0" * 16}
        nbformat.write(notebook, place)
    return tmp_path


def test_the_table_of_chapters_shows_what_was_recorded(checkout):
    page = status.chapters_table(checkout).data
    rows = [re.findall("<td>(.*)</td>", row) for row in page.split("<tr>")[1:]]
    assert rows == [
        ['<a href="first.html">The first</a>', "up to date", "laptop", "12", "Python 3.12.1, torch 2.9"],
        ['<a href="second.html">The second</a>', "outdated", "laptop", "12", "Python 3.12.1, torch 2.9"],
    ]


def test_outside_a_checkout_the_status_page_says_so(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(status, "ROOT", tmp_path / "site-packages")
    assert "needs a checkout" in status.chapters_table(checkout).data
    monkeypatch.undo()
    (tmp_path / "empty").mkdir()
    assert "needs a checkout" in status.chapters_table(tmp_path / "empty").data


def section(page, name):
    """The section of an experiment on the status page."""
    return page.split(f'<section id="experiment-{name}">')[1].split("</section>")[0]


def test_every_experiment_has_its_section(results):
    page = status.experiments(results).data
    for name, experiment in results.manifest["experiments"].items():
        text = section(page, name)
        assert f"{len(experiment['tasks'])} tasks" in text
        assert f"{experiment['device']}, {experiment['precision']}, torch {experiment['torch']}" in text
        for file in experiment["files"]:
            assert f'<a href="laptop/{file}">{file}</a>' in text
            assert results.manifest["files"][file][:16] in text
            assert f"<td>{len(results.content(file)) / 1e3:,.1f}</td>" in text
        assert "def" in text.split("<summary>")[1]
    assert benchmark("cpu")["date"] in section(page, "bench")


def test_experiments_of_other_profiles_have_sections_of_their_own(results):
    page, other = status.experiments(results).data, Results.open(PUBLISHED / "paper")
    for name, experiment in other.manifest["experiments"].items():
        text = section(page, f"{name}-paper")
        assert "--profile paper" in text
        assert experiment.get("partial", "") in text
        for file in experiment["files"]:
            assert f'href="paper/{file}"' in text
    assert 'href="paper/claims.json"' in section(page, "claims")
