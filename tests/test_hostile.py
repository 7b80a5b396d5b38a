"""What users give and what was stored may be hostile: no code runs from data, and each refusal is one line."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fmlib.core.config import ImageSpec
from fmlib.core.data import load_images, source_fingerprint
from fmlib.core.errors import FmlibError
from fmlib.explain import loading

ROOT = Path(__file__).parents[1]

#: Calls that may run code from data.
PATTERNS = [
    r"\bpickle\b(?!s|d)",
    r"\bmarshal\b|\bshelve\b|\bjoblib\b|\bdill\b|\bcloudpickle\b",
    r"allow_pickle\s*=\s*True",
    r"(?<![\w.])eval\(",
    r"(?<![\w.])exec\(",
    r"torch\.load\((?![^\n]*weights_only=True)",
    r"yaml\.load\(|yaml\.unsafe_load",
    r"shell\s*=\s*True|os\.system\(|os\.popen\(",
    r"torch\.(export|jit|hub)\.load\(",
    r"np\.load\((?![^\n]*allow_pickle=False)",
]
#: Lines that match and are harmless, by a part of them -> why.
EXCEPTIONS = {
    "torch.export.load(_checked(": "of an archive that programs.py has checked",
    "import pickle  # of a plan, between processes of one run": "for Ray, which pickles all that it sends",
    "_Job(pickle.dumps(plan)": "by the process that starts a run on a cluster",
    "with_inputs(pickle.loads(job.plan)())": "by a node of that cluster, from the process that started the run",
    "it is sent to each worker and so must pickle": "a docstring: between our own processes",
    "without cached tasks, which do not pickle": "a comment: between our own processes",
}


@cache
def lines() -> list[tuple[str, str]]:
    """File and text of every line of code in the library, the campaign, the chapters and the playground."""
    names = ("fmlib/**/*.py", "ci/*.py", "book/*.ipynb", "book/_static/playground/*.mjs")
    paths = [path for name in names for path in sorted(ROOT.glob(name))]
    return [(str(path.relative_to(ROOT)), line) for path in paths for line in path.read_text().splitlines()]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_code_runs_from_data(pattern):
    found = [(name, line.strip()[:200]) for name, line in lines() if re.search(pattern, line)]
    assert [one for one in found if not any(part in one[1] for part in EXCEPTIONS)] == []


def test_every_exception_is_still_needed():
    texts = "\n".join(line for _, line in lines())
    assert [part for part in EXCEPTIONS if part not in texts] == []


# ------------------------------------------------------------------------------------------------------- pictures


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG of any size, whose pixels may be missing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def encoded(form: str) -> bytes:
    """A small picture in a format."""
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((40, 30)).convert("RGB").save(buffer, form)
    return buffer.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n"

PICTURES = {
    "a bomb": (png(60_000, 60_000), "decompression bomb"),
    "a bomb that is narrow": (png(200_000, 16, bytes(25_001 * 16)), "50 times"),
    "a column": (png(1, 80_000, bytes(2 * 80_000)), "50 times"),
    "no pixels": (png(40, 30), "cannot read"),
    "no size": (png(0, 0), "cannot read"),
    "a script for printers": (EPS, "cannot identify"),
    "an icon": (encoded("ICO"), "cannot identify"),
    "a page": (encoded("PDF"), "cannot identify"),
    "text": (b"<html>404</html>", "cannot identify"),
    "nothing": (b"", "cannot identify"),
    "a cut JPEG": (encoded("JPEG")[:-150], "truncated"),
    "a cut WEBP": (encoded("WEBP")[:-40], "cannot read"),
    "a cut TIFF": (encoded("TIFF")[:-400], "cannot read"),
    "a cut GIF": (encoded("GIF")[:60], "cannot read"),
}


@pytest.mark.parametrize("case", PICTURES)
@pytest.mark.parametrize("name", ["0.png", "0.jpg"])
def test_hostile_pictures_are_one_line(tmp_path, case, name):
    content, message = PICTURES[case]
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / name).write_bytes(content)
    path = tmp_path / "train" / "cat" / name
    for read in (
        lambda: loading.load_image(path, 16, 3),
        lambda: load_images(ImageSpec(source="folder", selection="all", size=16), tmp_path),
    ):
        with pytest.raises(FmlibError, match=message) as caught:
            read()
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_picture_under_another_name_is_still_a_picture(tmp_path, form):
    (tmp_path / "picture.png").write_bytes(encoded(form))
    assert loading.load_image(tmp_path / "picture.png", 16, 3).shape == (3, 16, 16)


# ---------------------------------------------------------------------------------------------------------- links


@pytest.fixture
def tree(tmp_path):
    """Two classes of pictures for training and validation, and one picture elsewhere."""
    for place in ("train/cat", "train/dog", "val/cat", "val/dog", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").write_bytes(encoded("PNG"))
    return tmp_path


FOLDER = ImageSpec(source="folder", selection="all", size=16)


@pytest.mark.parametrize("target", ["..", ".", "../dog", "../../elsewhere"])
def test_links_to_folders_within_a_class_are_refused(tree, target):
    """A link to a folder above makes a loop: the same pictures would be found again and again."""
    (tree / "train" / "cat" / "loop").symlink_to(target)
    for read in (load_images, source_fingerprint):
        with pytest.raises(FmlibError, match="cat has a link to a folder, loop: remove it"):
            read(FOLDER, tree)


def test_a_class_may_be_a_link(tree):
    (tree / "train" / "fox").symlink_to("../elsewhere")
    (tree / "val" / "fox").symlink_to("../elsewhere")
    assert load_images(FOLDER, tree).classes == ["cat", "dog", "fox"]


def test_a_class_that_links_to_its_own_tree_is_refused(tree):
    for split in ("train", "val"):
        (tree / split / "all").symlink_to(".")
    with pytest.raises(FmlibError, match="has a link to a folder, all"):
        load_images(FOLDER, tree)


def test_loops_are_not_followed_in_a_folder_of_pictures(tree):
    (tree / "train" / "loop").symlink_to("..")
    (tree / "self.png").symlink_to("self.png")
    (tree / "gone.png").symlink_to("nowhere.png")
    assert len(loading.find_images(tree, 100)) == 5


def test_a_picture_among_a_hundred_thousand_files_is_found(tmp_path, monkeypatch):
    for number in range(100_000):
        os.mknod(tmp_path / f"{number}.txt")
    Image.new("L", (8, 8)).save(tmp_path / "picture.png")
    assert loading.find_images(tmp_path, 10) == [tmp_path / "picture.png"]
    monkeypatch.setattr(loading, "MOST_FILES", 99_999)
    with pytest.raises(FmlibError, match="has more than 99999 files: give a smaller folder"):
        loading.find_images(tmp_path, 10)


# ---------------------------------------------------------------------------------------------------------- models


def make() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))


WEIGHTS = {
    "of another shape": lambda state: {"0.weight": state["0.weight"][:, :1].contiguous()},
    "of fewer layers": lambda state: {"0.weight": None, "0.bias": None},
    "of another model": lambda state: {"layer.weight": torch.zeros(3)},
    "transposed": lambda state: {"2.weight": state["2.weight"].T.contiguous()},
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_foreign_weights_are_one_line(tmp_path, monkeypatch, case):
    monkeypatch.setattr(loading, "_named", lambda *_, **__: loading.Loaded(make()))
    state = make().state_dict()
    changed = {name: tensor for name, tensor in (state | WEIGHTS[case](state)).items() if tensor is not None}
    save_file(changed, tmp_path / "weights.safetensors")
    with pytest.raises(FmlibError, match="do not fit the model") as caught:
        loading.load_model("module:make", tmp_path / "weights.safetensors")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        b"PK\x03\x04" + bytes(40),
        b"{}",
    ],
)
def test_files_that_are_no_weights_are_one_line(tmp_path, monkeypatch, content):
    monkeypatch.setattr(loading, "_named", lambda *_, **__: loading.Loaded(make()))
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(FmlibError, match="is not a safetensors file") as caught:
        loading.load_model("module:make", tmp_path / "weights.safetensors")
    assert "\n" not in str(caught.value)


def test_a_program_for_other_images_is_one_line(tmp_path, capsys):
    from fmlib.cli import main

    program = torch.export.export(make().eval(), (torch.rand(2, 3, 16, 16),))
    torch.export.save(program, tmp_path / "model.pt2")
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(encoded("PNG"))
    words = ["--images", str(tmp_path / "pictures"), "--out", str(tmp_path / "report"), "--size", "24"]
    assert main(["explain", "--model", str(tmp_path / "model.pt2"), *words, "--device", "cpu", "--quiet"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "report").exists()
