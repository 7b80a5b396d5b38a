"""The page "Status of this book": how each chapter was executed, and what each experiment made, from which source.

It is the one page whose outputs hold times: seconds that chapters took.
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
from fmlib.pipeline.results import PUBLISHED, Results, benchmark, benchmarks
from fmlib.studies import registry
from fmlib.studies.what_it_costs.benchmark import measure

ROOT = Path(__file__).resolve().parents[2]

#: What a chapter shows depends on these files besides its own source and the results it reads.
SOURCES = ("fmlib/**/*.py", "fmlib/**/*.toml", "ci/constraints.txt", "data/results/bench/*.json")


def freshness(path: Path) -> str:
    """Hash of all that a chapter's outputs depend on: its cells, the library, constraints, results."""
    parts = ["".join(cell["source"]).encode() for cell in json.loads(path.read_text())["cells"]]
    files = [file for pattern in SOURCES for file in sorted(ROOT.glob(pattern))]
    files += sorted(PUBLISHED.glob("*/manifest.json"))
    parts += [file.read_bytes() for file in files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def records(folder: Path) -> dict[Path, dict[str, Any]]:
    """The executed notebooks in `folder`, in order of name -> what was recorded when each was executed."""
    found = {path: json.loads(path.read_text())["metadata"].get("fmlib") for path in sorted(folder.glob("*.ipynb"))}
    return {path: record for path, record in found.items() if record}


def _table(rows: list[dict[str, Any]], classes: str = "") -> str:
    with pd.option_context("display.max_colwidth", None):
        return pd.DataFrame(rows).to_html(index=False, escape=False, border=0, classes=classes)


def _title(path: Path) -> str:
    cells = json.loads(path.read_text())["cells"]
    return next(line.removeprefix("# ").strip() for cell in cells for line in cell["source"] if line.startswith("# "))


def chapters_table(folder: Path | None = None) -> HTML:
    """The other chapters in `folder`, by default the working one: how and with what executed, and whether still fresh.

    Outside a checkout of the project, one sentence instead.
    """
    found = records(folder or Path.cwd()) if (ROOT / "book").is_dir() else {}
    if not found:
        return HTML("<p>There is no table of chapters here: it is made from a checkout of the project.</p>")
    rows = []
    for path, record in found.items():
        if path.stem == "status":
            continue
        rows.append(
            {
                "chapter": f'<a href="{path.stem}.html">{_title(path)}</a>',
                "outputs": "fresh" if record["freshness"] == freshness(path) else "stale",
                "profile": record["profile"],
                "executed in (s)": record["seconds"],
                "with": ", ".join(f"{name} {record['with'][name]}" for name in sorted(record["with"])),
            }
        )
    return HTML(_table(rows, "claims"))


def link(results: Results, name: str) -> tuple[str, Path, str]:
    """A file of `results`, or `<folder>/<file>` of others: its address in the built pages, its place, its SHA-256."""
    if "/" in name:
        path = PUBLISHED / name
        return name, path, hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{results.profile}/{name}", results.folder / name, results.manifest["files"][name]


def computed_on(record: dict[str, Any]) -> str:
    """Device and versions of an experiment's record in the manifest, or of a benchmark."""
    return f"{record['device']}, torch {record['torch']}, fmlib {record['fmlib']}"


def claims_computed_on(results: Results) -> str:
    """Devices and versions of all experiments, from whose files the claims are made."""
    return "; ".join(sorted({computed_on(record) for record in results.manifest["experiments"].values()}))


def _files(results: Results, names: list[str]) -> str:
    rows = []
    for name in names:
        address, path, checksum = link(results, name)
        size = f"{path.stat().st_size / 1e3:,.1f}"
        rows.append({"file": f'<a href="{address}">{name}</a>', "kB": size, "SHA-256": f"<code>{checksum[:16]}</code>"})
    return _table(rows)


def _section(name: str, about: str, results: Results, files: list[str], functions: list[Callable[..., Any]]) -> str:
    source = "\n\n".join(inspect.getsource(function) for function in functions)
    return (
        f'<section id="experiment-{name}"><h3>{name}</h3><p>{about}</p>{_files(results, files)}'
        f"<details><summary>Source of {name}</summary>{highlight(source, PythonLexer(), HtmlFormatter())}</details>"
        "</section>"
    )


def experiments(results: Results) -> HTML:
    """A section per experiment, for the claims and for the benchmark, at `#experiment-<name>`.

    Each says what it is about, on what it was computed and from how many tasks, and lists its files with sizes and
    checksums and the source of the functions that plan and export them.
    """
    sections, known = [], registry.all_experiments()
    others = [other for other in registry.published() if other.profile != results.profile]
    for one in (results, *others):
        prefix = "" if one is results else f"{one.folder.name}/"
        for name, record in one.manifest["experiments"].items():
            experiment = known[name]
            about = (
                f"{experiment.about[0].upper()}{experiment.about[1:]}, profile {one.profile}. {computed_on(record)}; "
            )
            about += f"{len(record['tasks'])} tasks." + (
                f" Partial: {record['partial']}." if "partial" in record else ""
            )
            files = [f"{prefix}{file}" for file in record["files"]]
            functions: list[Callable[..., Any]] = [experiment.tasks, experiment.export]
            sections.append(
                _section(name if one is results else f"{name}-{one.profile}", about, results, files, functions)
            )
    about = f"Every claim, evaluated from the files above. {claims_computed_on(results)}."
    files = ["claims.json", *(f"{other.folder.name}/claims.json" for other in others)]
    sections.append(_section("claims", about, results, files, [Claim.evaluate]))
    measured = "; ".join(f"{computed_on(found)}, {found['date']}" for found in map(benchmark, benchmarks()))
    files = [f"bench/{device}.json" for device in benchmarks()]
    sections.append(_section("bench", f"What masks cost: fmlib bench. {measured}.", results, files, [measure]))
    return HTML("".join(sections))
