"""Where figures and tables come from: the files that a chapter opened, and the line under each that says who made it.

A cell that shows a figure or a table declares its files: `metadata["made_from"] = ["masks.csv", ...]`. While the
chapter is executed every file that it opens is noted, and what is declared must agree with that.
"""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

import nbformat
import torch
from IPython.core.getipython import get_ipython
from IPython.display import display
from nbformat import NotebookNode

from fmlib import __version__
from fmlib.core.errors import require
from fmlib.pipeline.results import PUBLISHED, Results, benchmark
from fmlib.publishing import status

#: The kinds of output by which `watch` tells what the kernel runs on, and which files a cell opened.
ENVIRONMENT, FILES = "application/vnd.fmlib.environment+json", "application/vnd.fmlib.files+json"

#: How an output begins that names a number for prose.
GLUED = "application/papermill.record/"


def record(folder: str) -> None:
    """Tell what this kernel runs on; from now on let every cell end with an output that names the results it opened.

    folder: of the chapter's results, absolute; all that is published is watched as well.
    """
    versions = {"Python": platform.python_version(), "fmlib": __version__, "torch": torch.__version__}
    versions |= {name: version(name) for name in ("jupyter-book", "matplotlib", "numpy")}
    display({ENVIRONMENT: versions}, raw=True)
    places = [os.path.join(place, "") for place in (folder, PUBLISHED)]
    opened: set[str] = set()

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and os.path.basename(arguments[0]) != "manifest.json":
            opened.update([arguments[0].removeprefix(place) for place in places if arguments[0].startswith(place)][:1])

    def tell(_: object) -> None:
        display({FILES: sorted(opened)}, raw=True)
        opened.clear()

    shell = get_ipython()
    assert shell is not None
    sys.addaudithook(hear)
    shell.events.register("post_run_cell", tell)


def read_record(cell: NotebookNode, kind: str) -> Any:
    """What `watch` told of a cell by an output of this kind, which is taken away; None if it told nothing."""
    found = [output for output in cell.get("outputs", []) if kind in output.get("data", {})]
    for output in found:
        cell.outputs.remove(output)
    return found[0].data[kind] if found else None


def shows(cell: NotebookNode) -> bool:
    """Whether a cell shows a figure or a table."""
    bundles = [output.get("data", {}) for output in cell.get("outputs", [])]
    return any("image/png" in data or "<table" in data.get("text/html", "") for data in bundles)


def glues(cell: NotebookNode) -> bool:
    """Whether a cell names numbers for prose."""
    return any(kind.startswith(GLUED) for output in cell.get("outputs", []) for kind in output.get("data", {}))


def check(chapter: str, notebook: NotebookNode, opened: list[set[str]]) -> None:
    """Raise `FmlibError` unless what the cells declare agrees with what they opened (names of files, a set a cell).

    A figure or table declares what its own cell opens, and nothing that was not opened by then. Whatever else a chapter
    opens is declared by some cell, unless it is opened where numbers are named for prose.
    """
    declared = {name for cell in notebook.cells for name in cell.metadata.get("made_from", [])}
    known: set[str] = set()
    for cell, files in zip(notebook.cells, opened, strict=True):
        own, known = set(cell.metadata.get("made_from", [])), known | files
        place = f"{chapter}, cell {cell.source.splitlines()[0]!r}" if cell.source else chapter
        never = ", ".join(sorted(own - known))
        require(not never, f"{place}: made_from names {never}, which the chapter does not open")
        require(bool(own) == shows(cell), f"{place}: every figure and table, and no other cell, has a made_from")
        silent = ", ".join(sorted(files - (own or (files if glues(cell) else declared))))
        require(not silent, f"{place}: opens {silent}, which made_from does not name")


def source_line(chapter: str, files: list[str], results: Results) -> str:
    """The line under a figure or table, HTML: chapter, results, and for each file its experiment and circumstances.

    It leads to the experiment's source on the status page and to the file itself.
    """
    manifest, parts = results.manifest, [f"made by: chapter {chapter}"]
    if any("/" not in name for name in files):
        parts += [f"profile {results.profile}", f"seed {manifest['seed']}", _key(results)]
    makers: dict[str, list[str]] = {}
    for name in files:
        makers.setdefault(_maker(name, results), []).append(name)
    for maker, names in makers.items():
        parts.append(f"experiment {maker}")
        for name in names:
            address, _, checksum = status.link(results, name)
            parts.append(f'data <a href="{address}">{name}</a> <code>{checksum[:8]}</code>')
    return f'<p class="made-by">{" · ".join(parts)}</p>'


def _key(results: Results) -> str:
    return f"results <code>{results.manifest['key']}</code>"


def _maker(name: str, results: Results) -> str:
    """The experiment of a file, linked, and how it was made."""
    if name.startswith("bench/"):
        found = benchmark(name.removeprefix("bench/").removesuffix(".json"))
        cases = ", ".join(row["case"] for row in found["rows"])
        experiment, how = "bench", f"{cases}, seed {found['seed']}, {status.computed_on(found)}, {found['date']}"
    else:
        folder, _, file = name.rpartition("/")
        place = Results.open(PUBLISHED / folder) if folder else results
        experiments = place.manifest["experiments"]
        if file == "claims.json":
            experiment, how = "claims", status.claims_computed_on(place)
        else:
            experiment = next(experiment for experiment, record in experiments.items() if file in record["files"])
            how = status.computed_on(experiments[experiment])
        if folder:
            how = f"profile {place.profile}, seed {place.manifest['seed']}, {_key(place)}, {how}"
    return f'<a href="status.html#experiment-{experiment}">{experiment}</a> ({how})'


def annotate(chapter: str, notebook: NotebookNode, results: Results) -> None:
    """Put the made-by line under every figure (below its caption) and every table (a further output).

    Myst-nb draws every output of a captioned cell as one more figure; its captions may go on with a legend.
    """
    for cell in notebook.cells:
        if "made_from" in cell.metadata:
            line, figure = (
                source_line(chapter, cell.metadata["made_from"], results),
                cell.metadata.get("mystnb", {}).get("figure"),
            )
            if figure:
                figure["caption"] = f"{plain_caption(figure['caption'])}\n\n{line}"
            else:
                cell.outputs.append(nbformat.v4.new_output("display_data", {"text/html": line}))


def plain_caption(caption: str) -> str:
    """A caption without its made-by line."""
    return caption.partition("\n\n")[0]
