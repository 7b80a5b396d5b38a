"""A rehearsal of Colab: a machine with Colab's Python, torch, numpy and pandas runs every chapter, first cell and all.

The machine is a virtual environment that sees the packages of `ci/colab.txt`, and a stand-in for `google.colab`. The
repository's public address leads git to a copy of the working tree. `make colab` prepares and runs all this.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from nbformat import NotebookNode
from packaging.utils import canonicalize_name
from PIL import Image

from ci import supply_chain
from fmlib.publishing import build

CHAPTERS = build.notebooks()
COLAB = build.ROOT / ".venv-colab"

#: Name -> version of what Colab has, as far as chapters need it; the rest is left to pip.
PINNED = supply_chain.pinned(build.ROOT / "ci" / "colab.txt")


def copy_repository(folder: Path) -> None:
    """A git repository of the working tree, ignored files left out, committed on `main`."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=build.ROOT, capture_output=True, check=True
    )
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

    def versions(self) -> dict[str, str]:
        """Name -> version of what is installed."""
        code = (
            "import json\nfrom importlib import metadata\n"
            "print(json.dumps({one.name: one.version for one in metadata.distributions()}))"
        )
        found = json.loads(self.run("python", "-c", code).stdout)
        return {canonicalize_name(name): version for name, version in found.items()}

    def execute(self, chapter: Path | NotebookNode, **parameters: str) -> NotebookNode:
        """The chapter, all its cells run in order, as by Runtime > Run all."""
        return papermill.execute_notebook(
            chapter, None, parameters, kernel_name="colab", progress_bar=False, cwd=self.work
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine as Colab gives it, before the first cell."""
    place = tmp_path_factory.mktemp("colab")
    subprocess.run([COLAB / "bin" / "python", "-m", "venv", place / "venv"], check=True)
    made = Machine(place / "venv" / "bin" / "python", next(place.glob("venv/lib/*/site-packages")), place / "content")
    made.work.mkdir()
    (base,) = COLAB.glob("lib/*/site-packages")
    (made.packages / "google" / "colab").mkdir(parents=True)
    (made.packages / "google" / "colab" / "__init__.py").touch()
    (made.packages / "colab.pth").write_text(f"{base}\nimport google.colab\n")
    kernel = place / "jupyter" / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [str(made.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Colab", "language": "python"}))

    copy_repository(place / "repository")
    address = yaml.safe_load((build.ROOT / "_config.yml").read_text())["repository"]["url"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "FMLIB_DATA", "MPLBACKEND"):
            patch.delenv(name, raising=False)
        patch.setenv("JUPYTER_PATH", str(place / "jupyter"))
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("GIT_CONFIG_COUNT", "1")
        patch.setenv("GIT_CONFIG_KEY_0", f"url.{place / 'repository'}.insteadOf")
        patch.setenv("GIT_CONFIG_VALUE_0", address)
        yield made


@pytest.fixture(scope="module")
def before(machine):
    """What the machine came with."""
    return machine.versions()


@pytest.fixture(scope="module")
def first(machine, before):
    """The first chapter, which installs the package and computes everything at `quick`; one more cell times it."""
    chapter = nbformat.read(CHAPTERS[0], nbformat.NO_CONVERT)
    chapter.cells.append(nbformat.v4.new_code_cell("import time\ntime.process_time()"))  # of all cores, pip aside
    return machine.execute(chapter, profile="quick")


def said(notebook: NotebookNode) -> str:
    """What the cells after the first printed."""
    outputs = [output for cell in notebook.cells[1:] for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_the_machine_has_the_versions_of_colab(before):
    assert {name: before.get(name) for name in PINNED} == PINNED
    assert "fmlib" not in before


def test_the_first_cell_says_what_there_is(first):
    greeting = "".join(output.text for output in first.cells[0].outputs)
    assert greeting.count("No GPU is selected") == 1
    assert all(f"{name} {PINNED[name]}" in greeting for name in ("torch", "numpy", "pandas"))
    assert "GPU" not in said(first)


@pytest.mark.usefixtures("first")
def test_only_what_is_missing_is_installed(machine, before):
    after = machine.versions()
    assert {name: after[name] for name in before} == before
    assert {"fmlib", "torchattacks", "scikit-dimension"} <= set(after) - set(before)
    place = machine.run("python", "-c", "import fmlib; print(fmlib.__file__)").stdout.strip()
    assert place == str(machine.packages / "fmlib" / "__init__.py")


def test_the_first_chapter_computes_what_it_shows(first, record_property):
    record_property("processor_seconds", float(first.cells[-1].outputs[0].data["text/plain"]))
    assert "computing network N (quick" in said(first)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("path", CHAPTERS[1:], ids=lambda path: path.stem)
def test_every_other_chapter_runs(machine, path):
    assert "computing" not in said(machine.execute(path, profile="quick"))


@pytest.mark.usefixtures("first")
def test_published_results_open_at_once(machine):
    notebook = machine.execute(CHAPTERS[0])
    assert said(notebook) == ""


@pytest.mark.usefixtures("first")
def test_commands_work_but_do_not_write_into_the_package(machine):
    assert "synthetic       computed" in machine.run("fmlib", "status", "synthetic").stdout
    refused = machine.run("fmlib", "publish")
    assert refused.returncode == 2
    assert "checkout" in refused.stderr


#: A reader's pictures, in the place of the README's three dots.
PICTURES = """
from pathlib import Path
import numpy as np, torch
from PIL import Image
pixels = [np.asarray(Image.open(path).convert("RGB").resize((64, 64))) for path in sorted(Path("pictures").iterdir())]
images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
"""


@pytest.mark.usefixtures("first")
def test_the_readme_works_on_a_folder_of_pictures(machine):
    """Outside the repository, with a network without weights: those of the README are downloaded."""
    (block,) = re.findall(r"```python\n(.*?)```", (build.ROOT / "README.md").read_text(), re.DOTALL)
    assert block.count("images = ...") == block.count('weights="DEFAULT"') == 1
    code = block.replace("images = ...", PICTURES).replace('weights="DEFAULT"', "weights=None")
    (machine.work / "pictures").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(machine.work / "pictures" / f"{number}.png")
    done = machine.run("python", "-c", f"{code}\nprint(*found.filtered.shape, len(found.share), len(found.kept))")
    assert done.stdout.split() == ["3", "3", "64", "64", "3", "3"], done.stderr
    assert (machine.work / "masks.png").read_bytes().startswith(b"\x89PNG")
