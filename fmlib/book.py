"""The book: executing chapters with papermill, building the HTML, and knowing when a chapter is stale."""

from __future__ import annotations

import copy
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import yaml
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from fmlib import chapters
from fmlib.config import FmlibError, require
from fmlib.results import PUBLISHED, Results

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
BUILD = ROOT / "_build"

#: What a chapter shows depends on these files besides its own source and the results it reads.
SOURCES = ("fmlib/*.py", "ci/constraints.txt", "data/results/bench/*.json")

#: The published profile that the README quotes, and the claims that it shows.
SHOWN = "laptop"
HEADLINES = (
    "T1.N.gap", "F4.A.low_shift", "F4.S.low_shift", "F5.nonzero_share", "F5.unrecognisable", "C.own_vs_random",
    "T2.masked_adversarial", "T2.complement", "T2.attack_enrichment", "F7.lowest_bands", "T3.test", "T3.shuffled_train",
    "S.network_correlation", "S.seed_correlation",
)  # fmt: skip


def notebooks() -> list[Path]:
    """The notebooks of the book, in order of name."""
    return sorted(BOOK.glob("*.ipynb"))


def tagged(notebook: NotebookNode, tag: str) -> list[int]:
    """Numbers of the cells that carry a tag."""
    return [n for n, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])]


def colab_source() -> str:
    """Source of every chapter's first cell: it does nothing outside Colab, where it installs the package."""
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    return (
        "import sys\n\n"
        'if "google.colab" in sys.modules:  # install the package beside Colab\'s own torch and numpy\n'
        f'    %pip install --quiet "fmlib @ git+{repository["url"]}@{repository["branch"]}"\n'
        "    from fmlib.chapters import greet\n\n"
        "    greet()"
    )


def execute(path: Path, parameters: dict[str, str]) -> NotebookNode:
    """The chapter with fresh outputs: run by papermill with `parameters`, and cleaned of papermill's traces.

    Raises `FmlibError` if the chapter has no cell tagged `parameters`, or fails.
    """
    notebook = nbformat.read(path, as_version=4)
    require(len(tagged(notebook, "parameters")) == 1, f"{path.name} needs exactly one cell tagged 'parameters'")
    require(
        notebook.cells[tagged(notebook, "colab")[0]].source == colab_source(),
        f"{path.name}: renew its Colab cell by 'fmlib book --publish'",
    )
    try:
        done = papermill.execute_notebook(
            notebook,
            None,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(path.parent),
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        raise FmlibError(f"{path.name} fails: {error.ename}: {error.evalue}") from error
    return cleaned(done)


def executed(parameters: dict[str, str]) -> Iterator[tuple[Path, NotebookNode]]:
    """Every chapter and its fresh outputs, two at a time (each takes most of a gigabyte)."""
    with ThreadPoolExecutor(2) as pool:
        yield from zip(notebooks(), pool.map(lambda path: execute(path, parameters), notebooks()), strict=True)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """The notebook without injected parameters, timestamps and papermill's metadata."""
    notebook = copy.deepcopy(notebook)
    injected = tagged(notebook, "injected-parameters")
    notebook.cells = [cell for number, cell in enumerate(notebook.cells) if number not in injected]
    notebook.metadata.pop("papermill", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = None
    return notebook


def freshness(path: Path) -> str:
    """Hash of all that a chapter's outputs depend on: its cells, the library, constraints, results."""
    notebook = nbformat.read(path, as_version=4)
    parts = [cell.source.encode() for cell in notebook.cells]
    files = [file for pattern in SOURCES for file in sorted(ROOT.glob(pattern))]
    files += sorted(PUBLISHED.glob("*/manifest.json"))
    parts += [file.read_bytes() for file in files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def stale() -> list[str]:
    """Names of the chapters whose committed outputs are older than what they show."""
    return [
        path.name for path in notebooks() if nbformat.read(path, as_version=4).metadata.get("fmlib") != freshness(path)
    ]


def readme(text: str, results: Results) -> str:
    """The README with its table of results made anew from the published claims."""
    begin, end = "<!-- results -->", "<!-- /results -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in chapters.verdicts(results).items())
    lines = [
        f"Of {len(results.claims())} claims at profile *{results.profile}*: {verdicts}. The ledger has them all;",
        "some of them:",
        "",
        "| claim | paper | here (interval) | n | verdict |",
        "|---|---|---|---|---|",
    ]
    for identity in HEADLINES:
        row = results.claim(identity)
        read = chapters.readable(row)
        here = f"{read['value']} {row['unit']} ({read['interval']})"
        lines.append(f"| {row['statement']} | {read['published']} | {here} | {read['n']} | {read['verdict']} |")
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"


def publish() -> None:
    """Execute every chapter on the published results and keep the outputs in `book/`; renew the README's table."""
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(), Results.open(PUBLISHED / SHOWN)))
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[tagged(notebook, "colab")[0]].source = colab_source()
        nbformat.write(notebook, path)
    for path, notebook in executed({}):
        notebook.metadata["fmlib"] = freshness(path)
        nbformat.write(notebook, path)
        print(f"executed {path.name}")


def build(results: Results) -> Path:
    """Execute every chapter on `results` and build the HTML, warnings as errors, under `_build/<profile>/`.

    Returns the path of the first page. Touches no tracked file.
    """
    place = BUILD / results.profile
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(BOOK, place / "book", ignore=shutil.ignore_patterns("*.ipynb", "_toc.yml", ".*"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, place / name)
    parameters = {"profile": results.profile, "folder": str(results.folder.resolve())}
    for path, notebook in executed(parameters):
        nbformat.write(notebook, place / "book" / path.name)
    render(place)
    return place / "_build" / "html" / "index.html"


def render(place: Path) -> None:
    """Build the HTML of `place/book` into `place/_build/html`; a warning is an error."""
    command = str(Path(sys.executable).with_name("jupyter-book"))
    words = [command, "build", "-W", "--keep-going", "--all", str(place / "book")]
    words += ["--config", str(place / "_config.yml"), "--toc", str(place / "_toc.yml"), "--path-output", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        raise FmlibError(f"the book does not build: {'; '.join(lines[:5]) or done.stderr.strip()[-500:]}")
