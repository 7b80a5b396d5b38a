"""The page "Status of this book": how each chapter was executed, and what each experiment published, from which source.

It is the one page whose outputs hold times: the seconds that each chapter took.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from fmlib.pipeline.claims import Claim
from fmlib.pipeline.results import PUBLISHED, TRUST, Results, benchmark, benchmarks

ROOT = Path(__file__).resolve().parents[2]

#: The files, besides a chapter's own cells and its results, on which its outputs depend. `**` follows no links, so that
#: fmlib/published is left out; results enter by their manifests.
SOURCES = (
    "fmlib/**/*.py",
    "fmlib/**/*.toml",
    "fmlib/publishing/*.css",
    "fmlib/publishing/*.mjs",
    "ci/constraints.txt",
    "data/results/bench/*.json",
    "data/results/freqbench/*.json",
)


def sources() -> list[Path]:
    """The files that `SOURCES` names, and the manifests of all published results."""
    files = [file for pattern in SOURCES for file in sorted(ROOT.glob(pattern)) if file.stem not in TRUST]
    return files + sorted(PUBLISHED.glob("*/manifest.json"))


def freshness(path: Path) -> str:
    """The hash of all that a chapter's outputs depend on: its cells, the library, constraints, results."""
    parts = ["".join(cell["source"]).encode() for cell in json.loads(path.read_text())["cells"]]
    parts += [file.read_bytes() for file in sources()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def records(folder: Path) -> dict[Path, dict[str, Any]]:
    """Executed notebooks in `folder`, in order of name -> what was recorded when each was executed."""
    every = {path: json.loads(path.read_text())["metadata"].get("fmlib") for path in sorted(folder.glob("*.ipynb"))}
    return {path: record for path, record in every.items() if record}


def _table(rows: list[dict[str, Any]], classes: str = "") -> str:
    with pd.option_context("display.max_colwidth", None):
        return pd.DataFrame(rows).to_html(index=False, escape=False, border=0, classes=classes)


def title(path: Path) -> str:
    """The title of a chapter: its first heading."""
    cells = json.loads(path.read_text())["cells"]
    return next(line.removeprefix("# ").strip() for cell in cells for line in cell["source"] if line.startswith("# "))


def chapters_table(folder: Path | None = None) -> HTML:
    """The other chapters: how and with what each was executed, and whether its outputs are up to date.

    Args:
        folder: where the chapters lie (default: the working directory).

    Returns:
        A table; outside a checkout of the project one sentence instead.
    """
    found = records(folder or Path.cwd()) if (ROOT / "book").is_dir() else {}
    if not found:
        return HTML("<p>There is no table of chapters here: it needs a checkout of the project.</p>")
    rows = []
    for path, record in found.items():
        if path.stem == "status":
            continue
        rows.append(
            {
                "chapter": f'<a href="{path.stem}.html">{title(path)}</a>',
                "outputs": "up to date" if record["freshness"] == freshness(path) else "outdated",
                "profile": record["profile"],
                "executed in (s)": record["seconds"],
                "with": ", ".join(f"{name} {record['with'][name]}" for name in sorted(record["with"])),
            }
        )
    return HTML(_table(rows, "claims"))


def link(results: Results, name: str) -> tuple[str, Path, str]:
    """A file of `results`, or `<folder>/<file>` of others: its address in the built pages, its path, its SHA-256."""
    if "/" in name:
        path = PUBLISHED / name
        return name, path, hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{results.profile}/{name}", results.folder / name, results.manifest["files"][name]


def anchor(experiment: str, place: Results, shown: Results) -> str:
    """The anchor of an experiment's section on the page.

    Args:
        place: the results that hold its files.
        shown: the results that the book shows.
    """
    elsewhere = place.profile != shown.profile and experiment != "claims"
    return f"experiment-{experiment}" + (f"-{place.profile}" if elsewhere else "")


def computed_on(record: dict[str, Any]) -> str:
    """Device, precision of the networks and versions, from a manifest's record of an experiment or from a benchmark."""
    device = f"{record['device']}, {record['precision']}" if "precision" in record else record["device"]
    return f"{device}, torch {record['torch']}, fmlib {record['fmlib']}"


def claims_computed_on(results: Results) -> str:
    """Devices and versions of all experiments, since claims are evaluated from the files of all."""
    return "; ".join(sorted({computed_on(record) for record in results.manifest["experiments"].values()}))


def _files(results: Results, names: list[str]) -> str:
    rows = []
    for name in names:
        address, path, checksum = link(results, name)
        size = f"{path.stat().st_size / 1e3:,.1f}"
        rows.append({"file": f'<a href="{address}">{name}</a>', "kB": size, "SHA-256": f"<code>{checksum[:16]}</code>"})
    return _table(rows)


def _section(place: str, name: str, about: str, files: str, functions: list[Callable[..., Any]]) -> str:
    source = "\n\n".join(inspect.getsource(function) for function in functions)
    return (
        f'<section id="{place}"><h3>{name}</h3><p>{about}</p><details><summary>Files and source of {name}</summary>'
        f"{files}{highlight(source, PythonLexer(), HtmlFormatter())}</details></section>"
    )


def scale(results: Results) -> str:
    """The option that computes at the scale of results, as HTML."""
    return f"<code>--profile {results.profile}</code>"


def _experiment(name: str, results: Results, shown: Results) -> str:
    """The section of one experiment of `results`."""
    from fmlib.studies import registry

    record, experiment = results.manifest["experiments"][name], registry.all_experiments()[name]
    about = f"{experiment.about[0].upper()}{experiment.about[1:]}, {scale(results)}. {computed_on(record)}; "
    about += f"{len(record['tasks'])} tasks"
    about += f"; {record['images']:,} images." if "images" in record else "."
    about += f" Partial: {record['partial']}." if "partial" in record else ""
    about += f" Cannot be computed again: {', '.join(record['archived'])}." if "archived" in record else ""
    prefix = "" if results is shown else f"{results.folder.name}/"
    files = _files(shown, [f"{prefix}{file}" for file in record["files"]])
    title = name if results is shown else f"{name}, {scale(results)}"
    return _section(anchor(name, results, shown), title, about, files, [experiment.tasks, experiment.export])


def experiments(results: Results) -> HTML:
    """A section for every experiment, for the claims and for the benchmark, at `#experiment-<name>`.

    Each says what it is about, on what it was computed and from how many tasks, and lists its files with sizes and
    checksums and the source of the functions that plan and export them.

    Args:
        results: those that the book shows; sections of other published profiles end in `-<profile>`.
    """
    from fmlib.studies import registry
    from fmlib.studies.what_it_costs import solvers
    from fmlib.studies.what_it_costs.benchmark import measure

    others = [other for other in registry.published() if other.profile != results.profile]
    sections = [
        _experiment(name, place, results) for place in (results, *others) for name in place.manifest["experiments"]
    ]
    about = f"Every claim, evaluated from the files above. {claims_computed_on(results)}."
    files = _files(results, ["claims.json", *(f"{other.folder.name}/claims.json" for other in others)])
    sections.append(_section("experiment-claims", "claims", about, files, [Claim.evaluate]))
    measured = "; ".join(f"{computed_on(one)}, {one['date']}" for one in map(benchmark, benchmarks()))
    about = f"How long masks take to learn: fmlib bench. {measured}."
    files = _files(results, [f"bench/{device}.json" for device in benchmarks()])
    sections.append(_section("experiment-bench", "bench", about, files, [measure, solvers.measure]))
    return HTML("".join(sections))
