"""Provenance: the files that each figure and table is made from, checked and shown.

A cell that shows a figure or a table declares its files: `metadata["made_from"] = ["masks.csv", ...]`. While a chapter
is executed, every results file that a cell reads is recorded, and the declaration must agree with the record.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.getipython import get_ipython
from IPython.display import display
from nbformat import NotebookNode

from fmlib import __version__
from fmlib.core.errors import require
from fmlib.pipeline import results as results_module
from fmlib.pipeline.results import PUBLISHED, Results, benchmark
from fmlib.publishing import status
from fmlib.publishing.ledger import FINDINGS

#: The kinds of output in which `record` keeps what the kernel runs on, and which files a cell read.
ENVIRONMENT, FILES = "application/vnd.fmlib.environment+json", "application/vnd.fmlib.files+json"


def record(folder: str) -> None:
    """Record what this kernel runs on, and after every cell which results files the cell read.

    Args:
        folder: that of the chapter's results, absolute; its files are recorded by name, other published ones as
            `<folder>/<name>`.
    """
    versions = {"Python": platform.python_version(), "fmlib": __version__}
    versions |= {name: version(name) for name in ("jupyter-book", "matplotlib", "numpy", "torch")}
    display({ENVIRONMENT: versions}, raw=True)
    opened: set[str] = set()

    def note(path: Path) -> None:
        for place in (Path(folder), PUBLISHED):
            if path.is_relative_to(place):
                opened.add(path.relative_to(place).as_posix())
                return

    def write(_: object) -> None:
        display({FILES: sorted(opened)}, raw=True)
        opened.clear()

    shell = get_ipython()
    assert shell is not None
    results_module.observers.append(note)
    shell.events.register("post_run_cell", write)


def read_record(cell: NotebookNode, kind: str) -> Any:
    """The record of one kind in a cell's outputs, which is removed there; None if there is none."""
    outputs = [output for output in cell.get("outputs", []) if kind in output.get("data", {})]
    for output in outputs:
        cell.outputs.remove(output)
    return outputs[0].data[kind] if outputs else None


def shows(cell: NotebookNode) -> bool:
    """Whether a cell shows a figure, a table or findings."""
    bundles = [output.get("data", {}) for output in cell.get("outputs", [])]
    pages = [data.get("text/html", "") for data in bundles]
    marks = ("<table", "<img", FINDINGS)
    return any("image/png" in data for data in bundles) or any(mark in page for page in pages for mark in marks)


def check(chapter: str, notebook: NotebookNode, opened: list[set[str]]) -> None:
    """Check that what the cells declare agrees with what they read.

    A figure or table declares every file that its own cell reads, and no file that was not read by then. Any other file
    that a chapter reads is declared by some cell.

    Args:
        opened: names of files, one set per cell.

    Raises:
        FmlibError: a declaration and the record disagree.
    """
    declared = {name for cell in notebook.cells for name in cell.metadata.get("made_from", [])}
    known: set[str] = set()
    for cell, files in zip(notebook.cells, opened, strict=True):
        own, known = set(cell.metadata.get("made_from", [])), known | files
        place = f"{chapter}, cell {cell.source.splitlines()[0]!r}" if cell.source else chapter
        unread = ", ".join(sorted(own - known))
        require(not unread, f"{place}: made_from names {unread}, which the chapter does not open")
        require(bool(own) == shows(cell), f"{place}: every figure and table, and no other cell, has a made_from")
        missing = ", ".join(sorted(files - (own or declared)))
        require(not missing, f"{place}: opens {missing}, which made_from does not name")


def source_line(chapter: str, files: list[str], results: Results) -> str:
    """The collapsed line under a figure or table, as HTML on one line.

    It names the chapter, the results, and for each file its experiment and what that was computed on. It leads to the
    source of the experiment on the status page, and to the file.
    """
    manifest, parts = results.manifest, [f"chapter {chapter}"]
    if any("/" not in name for name in files):
        parts += [status.scale(results), f"seed {manifest['seed']}", _key(results)]
    experiments: dict[str, list[str]] = {}
    for name in files:
        experiments.setdefault(_experiment(name, results), []).append(name)
    for experiment, names in experiments.items():
        parts.append(f"experiment {experiment}")
        for name in names:
            address, _, checksum = status.link(results, name)
            parts.append(f'data <a href="{address}">{name}</a> <code>{checksum[:8]}</code>')
    return f'<details class="source"><summary>Source</summary><p>{" · ".join(parts)}</p></details>'


def _key(results: Results) -> str:
    """The key of results, as HTML."""
    return f"results <code>{results.manifest['key']}</code>"


def _experiment(name: str, results: Results) -> str:
    """The experiment of a file, linked to its section of the status page, and what it was computed on."""
    if name.startswith("bench/"):
        measured = benchmark(name.removeprefix("bench/").removesuffix(".json"))
        cases = ", ".join(dict.fromkeys(row["case"] for row in measured["rows"]))
        how = f"{cases}, seed {measured['seed']}, {status.computed_on(measured)}, {measured['date']}"
        return f'<a href="status.html#experiment-bench">bench</a> ({how})'
    folder, _, file = name.rpartition("/")
    place = Results.open(PUBLISHED / folder) if folder else results
    records = place.manifest["experiments"]
    if file == "claims.json":
        experiment, how = "claims", status.claims_computed_on(place)
    else:
        experiment = next(experiment for experiment, entry in records.items() if file in entry["files"])
        how = status.computed_on(records[experiment])
    anchor = status.anchor(experiment, place, results)
    if place is not results:
        how = f"{status.scale(place)}, seed {place.manifest['seed']}, {_key(place)}, {how}"
    return f'<a href="status.html#{anchor}">{experiment}</a> ({how})'


def annotate(chapter: str, notebook: NotebookNode, results: Results) -> None:
    """Put the source line under every figure (below its caption) and every table (as a further output).

    Myst-nb draws every output of a captioned cell as one more figure, but a caption may go on with a legend.
    """
    for cell in notebook.cells:
        if "made_from" not in cell.metadata:
            continue
        line = source_line(chapter, cell.metadata["made_from"], results)
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            figure["caption"] = f"{plain_caption(figure['caption'])}\n\n{line}"
        else:
            cell.outputs.append(nbformat.v4.new_output("display_data", {"text/html": line}))


def plain_caption(caption: str) -> str:
    """A caption without its source line."""
    return caption.partition("\n\n")[0]
