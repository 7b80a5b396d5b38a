"""The book: execute chapters with papermill, build the HTML, and tell when a chapter is out of date."""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

import nbformat
import papermill
import yaml
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from fmlib.core.errors import FmlibError, require
from fmlib.pipeline import processes
from fmlib.pipeline.disk.files import write_bytes
from fmlib.pipeline.experiment import evaluate_claims
from fmlib.pipeline.formatting import readable
from fmlib.pipeline.results import PUBLISHED, Results, benchmark, benchmarks
from fmlib.publishing import api_reference, kernels, provenance
from fmlib.publishing.notebook import verdict_words, verdicts
from fmlib.publishing.playground.binary import FOLDER
from fmlib.publishing.playground.book import files
from fmlib.publishing.status import ROOT, freshness, records
from fmlib.studies import registry
from fmlib.studies.dataset_masks.analysis import accuracies
from fmlib.studies.dataset_masks.figures import figure_home
from fmlib.studies.freqbench import analysis as freqbench

BOOK = ROOT / "book"

BUILD = ROOT / "_build"

#: The chapter about the other chapters: it is executed last and declares no files.
STATUS = "status"

#: The published profile that the book and the README show.
SHOWN = "laptop"

#: The chapters for which Colab is asked for a GPU: readers compute at scale or on their own networks there.
NEED_GPU = ("own_network", "paper_scale")

#: The claims that the README shows.
HEADLINES = (
    "T1.N.gap", "F4.A.low_shift", "F4.S.low_shift", "F5.nonzero_share", "C.own_vs_random", "T2.masked_adversarial",
    "T2.attack_enrichment", "F7.lowest_bands", "T3.test", "J.attack.N_small",
)  # fmt: skip


def notebooks() -> list[Path]:
    """The paths of the book's notebooks, in order of name."""
    return sorted(BOOK.glob("*.ipynb"))


def pages() -> list[str]:
    """The names of the pages in the order of the table of contents, without the sub-pages of the reference."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def tagged(notebook: NotebookNode, tag: str) -> list[int]:
    """Indices of the cells that carry a tag."""
    return [index for index, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])]


def repository() -> dict[str, str]:
    """The repository's public address as `url`, and its `branch`, from the book's settings; stated nowhere else."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]


def colab_source() -> str:
    """The source of every chapter's first cell, which installs the package on Colab and does nothing elsewhere."""
    public = repository()
    return (
        "import sys\n\n"
        'if "google.colab" in sys.modules:  # install the package beside Colab\'s own torch and numpy\n'
        f'    %pip install --quiet "fmlib @ git+{public["url"]}@{public["branch"]}"\n'
        "    from fmlib.publishing.notebook import greet\n\n"
        "    greet()"
    )


def execute(path: Path, results: Results, place: Path) -> NotebookNode:
    """Execute a chapter on `results` with papermill.

    Figures and tables get their source lines. The metadata's `fmlib` records how and with what it was executed.

    Args:
        path: the notebook, which stays as it is.
        place: the working directory of its kernel.

    Returns:
        The notebook with new outputs, without papermill's traces.

    Raises:
        FmlibError: the chapter has no cell tagged `parameters`, fails, or reads other files than it declares.
    """
    folder = str(results.folder.resolve())
    notebook = nbformat.read(path, as_version=4)
    require(len(tagged(notebook, "parameters")) == 1, f"{path.name} needs exactly one cell tagged 'parameters'")
    require(
        notebook.cells[tagged(notebook, "colab")[0]].source == colab_source(),
        f"{path.name}: its Colab cell is outdated: run 'fmlib book publish'",
    )
    recorder = nbformat.v4.new_code_cell(f"from fmlib.publishing import provenance\n\nprovenance.record({folder!r})")
    notebook.cells.insert(0, recorder)
    start = time.perf_counter()
    try:
        output = papermill.execute_notebook(
            notebook,
            None,
            {"profile": results.profile, "folder": folder},
            kernel_name="python3",
            progress_bar=False,
            cwd=str(place),
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
            **kernels.options(),
        )
    except PapermillExecutionError as error:
        raise FmlibError(f"{path.name} fails: {error.ename}: {error.evalue}") from error
    seconds = round(time.perf_counter() - start)
    environment = provenance.read_record(output.cells.pop(0), provenance.ENVIRONMENT)
    output = cleaned(output)
    opened = [set(provenance.read_record(cell, provenance.FILES) or ()) for cell in output.cells]
    if path.stem != STATUS:
        provenance.check(path.name, output, opened)
        provenance.annotate(path.stem, output, results)
    record = {"freshness": freshness(path), "profile": results.profile, "seconds": seconds, "with": environment}
    output.metadata["fmlib"] = record
    return output


def executed(results: Results, place: Path) -> Iterator[tuple[Path, NotebookNode]]:
    """Every chapter's path and its newly executed notebook, the status page last.

    Two chapters run at a time; each takes most of a gigabyte.

    Args:
        place: the folder to which the caller writes each chapter before it asks for the next.
    """
    paths = [path for path in notebooks() if path.stem != STATUS]
    # papermill works in `place` and goes back: of two at a time, one would go back to `place`
    with chdir(place), ThreadPoolExecutor(2) as pool:
        yield from zip(paths, pool.map(lambda path: execute(path, results, place), paths), strict=True)
    last = BOOK / f"{STATUS}.ipynb"
    yield last, execute(last, results, place)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """A copy of the notebook without injected parameters, timestamps and papermill's metadata."""
    notebook = copy.deepcopy(notebook)
    injected = tagged(notebook, "injected-parameters")
    notebook.cells = [cell for index, cell in enumerate(notebook.cells) if index not in injected]
    notebook.metadata.pop("papermill", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for index, cell in enumerate(notebook.cells):
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        cell.id = f"cell-{index}"
        if cell.cell_type == "code":
            cell.execution_count = None
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = None
    return notebook


def stale() -> list[str]:
    """Names of the chapters whose committed outputs are out of date."""
    recorded = records(BOOK)
    return [path.name for path in notebooks() if recorded.get(path, {}).get("freshness") != freshness(path)]


def readme(text: str, results: Results) -> str:
    """The README with its table of results renewed from the published claims."""
    begin, end = "<!-- results -->", "<!-- /results -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    counts = {source: sum(verdicts(results, source).values()) for source in ("paper", "control")}
    lines = [
        f"Of {counts['paper']} published claims on 64-px networks, {verdict_words(results, 'paper')}. "
        f"Of our {counts['control']} controls, {verdict_words(results, 'control')}. Ten of these claims:",
        "",
        "| claim | paper | here (interval) | n | verdict |",
        "|---|---|---|---|---|",
    ]
    for identity in HEADLINES:
        row = results.claim(identity)
        cells = readable(row)
        columns = [row["statement"], *(cells[name] for name in ("published", "measured", "n", "verdict"))]
        lines.append(f"| {' | '.join(columns)} |")
    return f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}"


def picture(results: Results) -> bytes:
    """The README's picture as a PNG: the home page's figure."""
    masks, image = results.arrays("dataset_masks"), results.arrays("scheme")["image"]
    return figure_home(masks, image, accuracies(results))._repr_png_()


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook, completely or not at all."""
    write_bytes(path, f"{nbformat.writes(notebook).rstrip()}\n".encode())


def require_undamaged() -> None:
    """Raise `FmlibError` if a published result or benchmark is missing or damaged."""
    for results in registry.published():
        results.verify()
    for name in benchmarks():
        benchmark(name)
    freqbench.require_undamaged(registry.PUBLISHED / "freqbench")


def publish() -> None:
    """Evaluate the claims of all published results again, execute every chapter and keep its outputs in `book/`.

    The README's table and picture, the library's reference and the playground's files are renewed as well.
    """
    for published in registry.published():
        published.verify(skip=["claims.json"])
        evaluate_claims(published, registry.all_claims())
    results = Results.open(PUBLISHED / SHOWN)
    shutil.rmtree(BOOK / "reference", ignore_errors=True)
    for name, text in api_reference.pages().items():
        write_bytes(BOOK / name, text.encode())
    page = ROOT / "README.md"
    write_bytes(page, readme(page.read_text(), results).encode())
    write_bytes(BOOK / "_static" / "masks.png", picture(results))
    for name, content in files(results).items():
        write_bytes(FOLDER / name, content)
    for path in notebooks():
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[tagged(notebook, "colab")[0]].source = colab_source()
        if path.stem in NEED_GPU:
            notebook.metadata |= {"accelerator": "GPU", "colab": {"gpuType": "T4"}}
        write(notebook, path)
    for path, notebook in executed(results, BOOK):
        write(notebook, path)
        print(f"executed {path.name}")


def build(results: Results) -> Path:
    """Execute every chapter on `results` and build the HTML under `_build/<profile>/`, with warnings as errors.

    No tracked file changes.

    Returns:
        The path of the first page.

    Raises:
        FmlibError: a chapter fails, or the pages do not build.
    """
    place = BUILD / results.profile
    shutil.rmtree(place, ignore_errors=True)
    lay_out(place, results)
    for path, notebook in executed(results, place / "book"):
        nbformat.write(notebook, place / "book" / path.name)
    render(place)
    return place / "_build" / "html" / "index.html"


def lay_out(place: Path, results: Results) -> None:
    """Copy what `render` needs to `place`: the committed book, its settings, and the results that it links to.

    The files of the playground are made anew if they differ from the published results.
    """
    shutil.copytree(BOOK, place / "book", ignore=shutil.ignore_patterns("_toc.yml", ".*"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, place / name)
    renew_playground(place / FOLDER.relative_to(ROOT))
    data = place / "data" / "results"
    shutil.copytree(results.folder, data / results.profile)
    others = [other.folder for other in registry.published() if other.profile != results.profile]
    for folder in (PUBLISHED / "bench", PUBLISHED / "freqbench", *others):
        shutil.copytree(folder, data / folder.name)


def renew_playground(folder: Path) -> None:
    """Write those files of the playground in `folder` that differ from the published results, and say so.

    Its preview stays: it depends on the fonts of the machine that drew it.
    """
    for name, content in files(Results.open(PUBLISHED / SHOWN)).items():
        path = folder / name
        if name != "preview.png" and not (path.exists() and path.read_bytes() == content):
            print(f"the playground's {name} is damaged or outdated: written again")
            write_bytes(path, content)


def render(place: Path, builder: str = "html") -> None:
    """Build `place/book` into `place/_build/<builder>`, with warnings as errors.

    Args:
        place: a folder filled by `lay_out`.
        builder: "html", or "singlehtml" for one page.

    Raises:
        FmlibError: the book does not build.
    """
    arguments = ["build", "-W", "--keep-going", "--all", str(place / "book"), "--builder", builder]
    arguments += ["--config", str(place / "_config.yml"), "--toc", str(place / "_toc.yml"), "--path-output", str(place)]
    said = place / "jupyter-book.log"
    process = processes.context().Process(target=_jupyter_book, args=(arguments, said))
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    if process.exitcode:
        text = said.read_text()
        lines = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line]
        raise FmlibError(f"the book does not build: {'; '.join(lines[:5]) or text.strip()[-500:]}")


def _jupyter_book(arguments: list[str], said: Path) -> None:
    """Call `jupyter-book` in this process, which writes to the file `said` what it says."""
    processes.end_with_parent()
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    from jupyter_book.cli.main import main

    main(arguments)
