"""A rehearsal of Colab: a machine with torch, numpy and pandas of its own runs every chapter, first cell and all.

The machine is a virtual environment that sees what Colab has through links to the packages of this one, and a stand-in
for `google.colab`. The repository's public address leads git to a copy of the working tree.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import nbformat
import papermill
import pytest
import torch
import yaml
from filelock import FileLock
from IPython.core.interactiveshell import InteractiveShell
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fmlib.core.errors import FmlibError
from fmlib.publishing import build, notebook

CHAPTERS = build.notebooks()

#: What Colab has, as far as chapters need it; torchattacks, umap-learn and safetensors are left to pip.
COLAB = (
    "torch", "torchvision", "numpy", "pandas", "matplotlib", "scikit-learn", "scipy", "pillow", "tqdm", "numba",
    "requests", "ipykernel",
)  # fmt: skip

#: A chapter computes at `quick` within this many seconds on Colab's two cores.
PROMISED = 120


# -------------------------------------------------------------------------------------------- what is said


@pytest.mark.parametrize(
    ("device", "says", "advises"),
    [("cpu", "CPU; Python", True), ("cuda", "GPU Tesla T4; Python", False)],
)
def test_the_greeting_names_the_gpu_or_says_how_to_get_one(device, says, advises, monkeypatch, capsys):
    monkeypatch.setattr(notebook, "pick_device", lambda: torch.device(device))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    notebook.greet()
    greeting = capsys.readouterr().out
    assert greeting.startswith(says)
    assert ("No GPU is selected" in greeting) == ("Runtime > Change runtime type > T4 GPU" in greeting) == advises


def test_a_profile_that_lacks_photographs_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv("FMLIB_DATA", raising=False)
    monkeypatch.setattr(notebook, "PUBLISHED", tmp_path)
    monkeypatch.chdir(tmp_path)
    for profile in ("laptop", "paper"):
        with pytest.raises(FmlibError, match=rf"'{profile}'.*\"quick\".*fmlib data --profile {profile}.*FMLIB_DATA"):
            notebook.load(profile)
    with pytest.raises(FmlibError, match="'huge'"):
        notebook.load("huge")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_an_error_in_one_line(capsys):
    InteractiveShell().run_cell("from fmlib.publishing import notebook\nnotebook.load('huge')")
    (line,) = capsys.readouterr().out.strip().splitlines()
    assert line.startswith("fmlib: unknown profile 'huge'")


# -------------------------------------------------------------------------------------------- the rehearsal


def needed(names: Iterable[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions of these names, and all that they require."""
    found: dict[str, metadata.Distribution] = {}
    waiting, seen = list(names), set()
    while waiting:
        if (line := waiting.pop()) in seen:
            continue
        seen.add(line)
        wanted = Requirement(line)
        one = found[canonicalize_name(wanted.name)] = metadata.distribution(wanted.name)
        for further in one.requires or []:
            marker = Requirement(further).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted.extras or {""}):
                waiting.append(further)
    return found


def link(distributions: Iterable[metadata.Distribution], folder: Path) -> None:
    """Show the distributions' modules and metadata in `folder`, by links to where they lie."""
    folder.mkdir()
    for one in distributions:
        for name in {file.parts[0] for file in one.files or []} - {"..", "__pycache__"}:
            if not (folder / name).exists():
                (folder / name).symlink_to(Path(str(one.locate_file(name))))


def copy_repository(folder: Path) -> None:
    """A git repository of the working tree, ignored files left out, committed on `main`."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=build.ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("the working tree is no git repository")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (build.ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(build.ROOT / name, folder / name, follow_symlinks=False)
    author = ["-c", "user.name=Rehearsal", "-c", "user.email=", "-c", "commit.gpgsign=false"]
    for words in (["init", "-b", "main"], ["add", "--all"], [*author, "commit", "-m", "The working tree"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


@dataclass
class Machine:
    """The stand-in for Colab: its interpreter, where pip installs, and the folder where notebooks work."""

    python: Path
    packages: Path
    work: Path

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess:
        """A program of its own with some words."""
        command = [str(self.python.with_name(program)), *words]
        return subprocess.run(command, cwd=self.work, capture_output=True, text=True, check=False)

    def versions(self) -> dict[str, list[str]]:
        """Version and place of what pip must leave alone."""
        code = (
            "import importlib, json, sys\n"
            "found = {name: importlib.import_module(name) for name in sys.argv[1:]}\n"
            "print(json.dumps({name: [module.__version__, module.__file__] for name, module in found.items()}))"
        )
        return json.loads(self.run("python", "-c", code, "torch", "torchvision", "numpy", "pandas").stdout)

    def added(self) -> set[str]:
        """Names of what pip has installed."""
        found = {canonicalize_name(one.name) for one in metadata.distributions(path=[str(self.packages)])}
        return found - {"pip", "setuptools"}  # which a virtual environment begins with

    def execute(self, chapter: Path | NotebookNode, **parameters: str) -> NotebookNode:
        """The chapter, all its cells run in order, as by Runtime > Run all."""
        return papermill.execute_notebook(
            chapter, None, parameters, kernel_name="colab", progress_bar=False, cwd=self.work
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine as Colab gives it, before the first cell."""
    if sys.platform != "linux" or shutil.which("git") is None:
        pytest.skip("Colab is Linux and has git")
    place = tmp_path_factory.mktemp("colab")
    venv.create(place / "venv", with_pip=True)
    made = Machine(place / "venv" / "bin" / "python", next(place.glob("venv/lib/*/site-packages")), place / "content")
    made.work.mkdir()
    options = ("--quiet", "--no-deps", "--retries", "0", "--dest", str(place))
    if made.run("pip", "download", *options, "setuptools").returncode:
        pytest.skip("no package index can be reached")

    link(needed(COLAB).values(), place / "base")
    (made.packages / "google" / "colab").mkdir(parents=True)
    (made.packages / "google" / "colab" / "__init__.py").touch()
    (made.packages / "colab.pth").write_text(f"{place / 'base'}\nimport google.colab\n")
    kernel = place / "jupyter" / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [str(made.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Colab", "language": "python"}))

    copy_repository(place / "repository")
    address = yaml.safe_load((build.ROOT / "_config.yml").read_text())["repository"]["url"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH", raising=False)
        patch.delenv("FMLIB_DATA", raising=False)
        patch.setenv("JUPYTER_PATH", str(place / "jupyter"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("OMP_NUM_THREADS", "1")  # as every test: two threads hinder each other on busy cores
        patch.setenv("GIT_CONFIG_COUNT", "1")
        patch.setenv("GIT_CONFIG_KEY_0", f"url.{place / 'repository'}.insteadOf")
        patch.setenv("GIT_CONFIG_VALUE_0", address)
        yield made


@pytest.fixture(scope="module")
def before(machine):
    """The versions that the machine came with."""
    assert not machine.added()
    return machine.versions()


@pytest.fixture(scope="module")
def first(machine, before, shared):
    """The first chapter, which installs the package and computes everything at `quick`; one more cell times it.

    The results are left to the tests of the book.
    """
    chapter = nbformat.read(CHAPTERS[0], nbformat.NO_CONVERT)
    chapter.cells.append(nbformat.v4.new_code_cell("import time\ntime.process_time()"))  # of all cores, pip aside
    with FileLock(shared / "quick.lock"):
        done = machine.execute(chapter, profile="quick")
        shutil.copytree(machine.work / ".fmlib" / "results" / "quick", shared / "quick")
    return done


def said(notebook: NotebookNode) -> str:
    """What the cells after the first printed."""
    outputs = [output for cell in notebook.cells[1:] for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def seconds(notebook: NotebookNode) -> float:
    """How long the cells after the first took."""
    return sum(cell.metadata.papermill.duration or 0 for cell in notebook.cells[1:])


@pytest.mark.slow
def test_the_first_cell_says_what_there_is(first, before):
    greeting = "".join(output.text for output in first.cells[0].outputs)
    assert greeting.count("No GPU is selected") == 1
    assert all(f"{name} {before[name][0]}" in greeting for name in ("torch", "numpy", "pandas"))
    assert "GPU" not in said(first)


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_only_what_is_missing_is_installed(machine, before):
    assert machine.versions() == before
    assert {"fmlib", "torchattacks", "umap-learn", "safetensors"} <= machine.added()
    assert not machine.added() & set(needed(COLAB))
    place = machine.run("python", "-c", "import fmlib; print(fmlib.__file__)").stdout.strip()
    assert place == str(machine.packages / "fmlib" / "__init__.py")


@pytest.mark.slow
def test_a_chapter_computes_in_time(first, record_property):
    """Two cores' work in that time; three times as much where others run beside it, as processors then slow down."""
    used = float(first.cells[-1].outputs[0].data["text/plain"])
    record_property("seconds", seconds(first))
    record_property("processor_seconds", used)
    assert "computing network N (quick" in said(first)
    shared = os.getloadavg()[1] > 0.75 * (os.cpu_count() or 1)
    assert used < 2 * PROMISED * (3 if shared else 1)


@pytest.mark.slow
@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("path", CHAPTERS[1:], ids=lambda path: path.stem)
def test_every_other_chapter_runs(machine, path):
    assert "computing" not in said(machine.execute(path, profile="quick"))


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_published_results_open_at_once(machine):
    notebook = machine.execute(CHAPTERS[0])
    assert said(notebook) == ""


@pytest.mark.slow
@pytest.mark.usefixtures("first")
def test_commands_work_but_do_not_write_into_the_package(machine):
    assert "synthetic       computed" in machine.run("fmlib", "status", "synthetic").stdout
    refused = machine.run("fmlib", "publish")
    assert refused.returncode == 2
    assert "checkout" in refused.stderr
