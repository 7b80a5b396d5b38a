"""The book: executing chapters with papermill, building the HTML, and knowing when a chapter is stale."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from fmlib.core.errors import FmlibError, require
from fmlib.pipeline.experiment import evaluate_claims
from fmlib.pipeline.formatting import readable
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.pipeline.store import write_bytes
from fmlib.publishing import api_reference, playground, provenance
from fmlib.publishing.notebook import verdicts
from fmlib.publishing.status import ROOT, freshness, records
from fmlib.studies import registry

BOOK = ROOT / "book"

BUILD = ROOT / "_build"

#: The chapter on the others: it is executed last, and shows no results.
STATUS = "status"

#: The published profile that the book and the README show.
SHOWN = "laptop"

#: The claims that the README shows.
HEADLINES = (
    "T1.N.gap", "F4.A.low_shift", "F4.S.low_shift", "F5.nonzero_share", "C.own_vs_random", "T2.masked_adversarial",
    "T2.attack_enrichment", "F7.lowest_bands", "T3.test", "J.attack.N_small",
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
        "    from fmlib.publishing.notebook import greet\n\n"
        "    greet()"
    )


def execute(path: Path, results: Results, place: Path) -> NotebookNode:
    """The chapter with fresh outputs: run by papermill on `results` in the folder `place`, and cleaned of its traces.

    Figures and tables are signed, and the metadata's `fmlib` records how and with what the chapter was executed.
    Raises `FmlibError` if the chapter has no cell tagged `parameters`, fails, or opens other files than it declares.
    """
    folder = str(results.folder.resolve())
    notebook = nbformat.read(path, as_version=4)
    require(len(tagged(notebook, "parameters")) == 1, f"{path.name} needs exactly one cell tagged 'parameters'")
    require(
        notebook.cells[tagged(notebook, "colab")[0]].source == colab_source(),
        f"{path.name}: renew its Colab cell by 'fmlib book publish'",
    )
    watch = nbformat.v4.new_code_cell(f"from fmlib.publishing import provenance\n\nprovenance.record({folder!r})")
    notebook.cells.insert(0, watch)
    start = time.perf_counter()
    try:
        done = papermill.execute_notebook(
            notebook,
            None,
            {"profile": results.profile, "folder": folder},
            kernel_name="python3",
            progress_bar=False,
            cwd=str(place),
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except PapermillExecutionError as error:
        raise FmlibError(f"{path.name} fails: {error.ename}: {error.evalue}") from error
    seconds = round(time.perf_counter() - start)
    environment = provenance.read_record(done.cells.pop(0), provenance.ENVIRONMENT)
    done = cleaned(done)
    opened = [set(provenance.read_record(cell, provenance.FILES) or ()) for cell in done.cells]
    if path.stem != STATUS:
        provenance.check(path.name, done, opened)
        provenance.annotate(path.stem, done, results)
    record = {"freshness": freshness(path), "profile": results.profile, "seconds": seconds, "with": environment}
    done.metadata["fmlib"] = record
    return done


def executed(results: Results, place: Path) -> Iterator[tuple[Path, NotebookNode]]:
    """Every chapter and its fresh outputs, two at a time (each takes most of a gigabyte); the status page last.

    place: where the caller writes each chapter before it asks for the next.
    """
    paths = [path for path in notebooks() if path.stem != STATUS]
    with ThreadPoolExecutor(2) as pool:
        yield from zip(paths, pool.map(lambda path: execute(path, results, place), paths), strict=True)
    last = BOOK / f"{STATUS}.ipynb"
    yield last, execute(last, results, place)


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


def stale() -> list[str]:
    """Names of the chapters whose committed outputs are older than what they show."""
    found = records(BOOK)
    return [path.name for path in notebooks() if found.get(path, {}).get("freshness") != freshness(path)]


def readme(text: str, results: Results) -> str:
    """The README with its table of results made anew from the published claims."""
    begin, end = "<!-- results -->", "<!-- /results -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    counts = {source: verdicts(results, source) for source in ("paper", "control")}
    read = {
        source: ", ".join(f"{n} {verdict}" for verdict, n in found.items()) or "none"
        for source, found in counts.items()
    }
    lines = [
        f"Of {sum(counts['paper'].values())} published claims at 64 px: {read['paper']}. Of our",
        f"{sum(counts['control'].values())} controls: {read['control']}. Ten of them:",
        *_headlines([results.claim(identity) for identity in HEADLINES]),
    ]
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"


def _headlines(claims: list[dict[str, Any]]) -> list[str]:
    """The lines of a table of claims."""
    lines = ["", "| claim | paper | here (interval) | n | verdict |", "|---|---|---|---|---|"]
    for row in claims:
        read = readable(row)
        lines.append(
            f"| {row['statement']} | {read['published']} | {read['measured']} | {read['n']} | {read['verdict']} |"
        )
    return lines


def publish() -> None:
    """Judge the published results anew, execute every chapter on them and keep the outputs in `book/`.

    Renew the README's table, the library's reference and the laboratory's files as well.
    """
    results = Results.open(PUBLISHED / SHOWN)
    for found in registry.published():
        evaluate_claims(found, registry.all_claims())
    (BOOK / "reference.md").write_text(api_reference.page())
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(), results))
    for name, content in playground.files(results).items():
        write_bytes(playground.FOLDER / name, content)
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[tagged(notebook, "colab")[0]].source = colab_source()
        nbformat.write(notebook, path)
    for path, notebook in executed(results, BOOK):
        nbformat.write(notebook, path)
        print(f"executed {path.name}")


def build(results: Results) -> Path:
    """Execute every chapter on `results` and build the HTML, warnings as errors, under `_build/<profile>/`.

    Returns the path of the first page. Touches no tracked file.
    """
    place = BUILD / results.profile
    shutil.rmtree(place, ignore_errors=True)
    lay_out(place, results)
    for path, notebook in executed(results, place / "book"):
        nbformat.write(notebook, place / "book" / path.name)
    render(place)
    return place / "_build" / "html" / "index.html"


def lay_out(place: Path, results: Results) -> None:
    """Copy the committed book, its settings and the files of `results` that it leads to, as `render` wants them."""
    shutil.copytree(BOOK, place / "book", ignore=shutil.ignore_patterns("_toc.yml", ".*"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, place / name)
    data = place / "data" / "results"
    shutil.copytree(results.folder, data / results.profile)
    others = [other.folder for other in registry.published() if other.profile != results.profile]
    for folder in (PUBLISHED / "bench", *others):
        shutil.copytree(folder, data / folder.name)


def render(place: Path, builder: str = "html") -> None:
    """Build `place/book` into `place/_build/<builder>`; a warning is an error. "singlehtml" makes one page of all."""
    command = str(Path(sys.executable).with_name("jupyter-book"))
    words = [command, "build", "-W", "--keep-going", "--all", str(place / "book"), "--builder", builder]
    words += ["--config", str(place / "_config.yml"), "--toc", str(place / "_toc.yml"), "--path-output", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        raise FmlibError(f"the book does not build: {'; '.join(lines[:5]) or done.stderr.strip()[-500:]}")
