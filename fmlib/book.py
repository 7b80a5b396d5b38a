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

from fmlib import chapters, experiments, laboratory, provenance, reference
from fmlib.config import FmlibError, require
from fmlib.results import PUBLISHED, Results
from fmlib.status import ROOT, freshness, records
from fmlib.store import write_bytes

BOOK = ROOT / "book"
BUILD = ROOT / "_build"

#: The chapter on the others: it is executed last, and shows no results.
STATUS = "status"

#: The published profile that the README quotes, and the claims that it shows.
SHOWN = "laptop"
HEADLINES = (
    "T1.N.gap", "F4.A.low_shift", "F4.S.low_shift", "F5.nonzero_share", "F5.unrecognisable", "C.own_vs_random",
    "T2.masked_adversarial", "T2.complement", "T2.attack_enrichment", "C.adaptive.as_A", "F7.lowest_bands", "T3.test",
    "T3.shuffled_train", "S.network_correlation", "S.seed_correlation", "J.attack.N_low", "J.attack.N_small",
    "J.attack.place",
)  # fmt: skip
#: And those besides that only the paper's own scale can judge.
OWN_SCALE = ("T1.N.standard", "T1.N.masked", "V.low_shift", "V.N1.correlation")


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
        f"{path.name}: renew its Colab cell by 'fmlib book --publish'",
    )
    watch = nbformat.v4.new_code_cell(f"from fmlib import provenance\n\nprovenance.watch({folder!r})")
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
    environment = provenance.told(done.cells.pop(0), provenance.ENVIRONMENT)
    done = cleaned(done)
    opened = [set(provenance.told(cell, provenance.FILES) or ()) for cell in done.cells]
    if path.stem != STATUS:
        provenance.check(path.name, done, opened)
        provenance.sign(path.stem, done, results)
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
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in chapters.verdicts(results).items())
    lines = [
        f"Of {len(results.claims())} claims at profile *{results.profile}*: {verdicts}. The ledger has them all;",
        "some of them:",
        *_headlines([results.claim(identity) for identity in HEADLINES]),
    ]
    for other in experiments.published_apart():
        chosen = [row for row in other.claims() if row["id"] in (*HEADLINES, *OWN_SCALE)]
        lines += ["", f"At profile *{other.profile}*, what needs no GPU:", *_headlines(chosen)]
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"


def _headlines(claims: list[dict[str, Any]]) -> list[str]:
    """The lines of a table of claims."""
    lines = ["", "| claim | paper | here (interval) | n | verdict |", "|---|---|---|---|---|"]
    for row in claims:
        read = chapters.readable(row)
        here = f"{read['value']} {row['unit']} ({read['interval']})"
        lines.append(f"| {row['statement']} | {read['published']} | {here} | {read['n']} | {read['verdict']} |")
    return lines


def publish() -> None:
    """Judge the published results anew, execute every chapter on them and keep the outputs in `book/`.

    Renew the README's table, the library's reference and the laboratory's files as well.
    """
    results = Results.open(PUBLISHED / SHOWN)
    for found in (results, *experiments.published_apart()):
        experiments.judge(found)
    (BOOK / "reference.md").write_text(reference.page())
    page = ROOT / "README.md"
    page.write_text(readme(page.read_text(), results))
    for name, content in laboratory.files(results).items():
        write_bytes(laboratory.FOLDER / name, content)
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
    for folder in (PUBLISHED / "bench", *(other.folder for other in experiments.published_apart())):
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
