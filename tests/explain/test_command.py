"""`fmlib explain` and `fmlib compare`: models, pictures and names by their words, and one line for each error."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fmlib import FmlibError
from fmlib.cli import main
from fmlib.core.errors import FmlibError as SameError
from fmlib.explain import command, loading

FACTORY = """
import torch
from torch import nn

def make(channels=3):
    torch.manual_seed(0)
    parts = [nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)]
    return nn.Sequential(*parts)

def gray():
    return make(1)

def five():
    return make(5)

def probabilities():
    return nn.Sequential(make(), nn.Softmax(1))

def broken():
    raise KeyError("weights")

class Holder:
    inside = make

number = 3
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working folder with a module of factories, pictures and class names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "toy_factories", raising=False)
    (tmp_path / "toy_factories.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    for number, (name, mode) in enumerate([("a.png", "RGB"), ("b.jpg", "L"), ("c <d>.PNG", "RGBA"), ("e.gif", "P")]):
        folder = tmp_path / "pictures" / ("below" if number == 3 else "")
        folder.mkdir(parents=True, exist_ok=True)
        size = (24 + number, 20, {"RGB": 3, "RGBA": 4}.get(mode, 1))
        pixels = rng.integers(0, 255, size, dtype=np.uint8).squeeze()
        image = Image.fromarray(pixels)
        (image.convert("P") if mode == "P" else image).save(folder / name)
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    (tmp_path / "names.txt").write_text("one\ntwo <b>\n\nthree\nfour\n")
    return tmp_path


@pytest.fixture
def explain(work, capsys):
    """Run `fmlib explain` at toy size with further words; returns exit code, output and error lines."""

    def call(*words):
        basic = ["--model", "toy_factories:make", "--images", "pictures", "--out", "report", "--size", "16"]
        code = main(["explain", *basic, "--steps", "10", "--device", "cpu", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.strip().splitlines()

    return call


def refused(result, *parts):
    code, _, errors = result
    assert code == 2
    assert len(errors) == 1
    assert all(part in errors[0] for part in ("fmlib: ", *parts)), errors


def test_a_report_from_the_command_line(explain, work):
    words = ["--classes", "names.txt", "--mean", "0.4,0.5,0.6", "--std", "0.2", "--quiet"]
    code, out, errors = explain(*words)
    assert (code, errors) == (0, [])
    assert out.splitlines()[-1] == "written to report/card.html"
    assert out.startswith("4 images take about ")
    assert "masks of 4 images" in out
    assert "attack" in out
    table = (work / "report" / "table.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["a.png", "b.jpg", "below/e.gif", "c <d>.PNG"]
    assert "c &lt;d&gt;.PNG" in (work / "report" / "card.html").read_text()
    assert explain(*words)[0] == 0  # in place of the former report


def test_two_reports_side_by_side(explain, work, capsys):
    assert explain("--out", "first")[0] == 0
    assert explain("--out", "second", "--model", "toy_factories:gray", "--count", "2", "--centre", "0.5")[0] == 0
    assert main(["compare", "first", "second/card.html", "--out", "both.html"]) == 0
    assert "written to both.html" in capsys.readouterr().out
    page = (work / "both.html").read_text()
    assert "toy_factories:gray" in page
    assert "2 images, 16 x 16" in page
    for words, part in (
        (["first", "--out", "both.html"], "compare 2 to 12"),
        (["first", "pictures", "--out", "both.html"], "there is no report in pictures"),
        (["first", "second", "--out", "both.txt"], "an HTML file"),
        (["first", "second"], "--out"),
    ):
        code = main(["compare", *words])
        refused((code, "", capsys.readouterr().err.strip().splitlines()), part)


def test_bounded_time(explain):
    assert explain("--max-seconds", "60")[0] == 0
    refused(explain("--max-seconds", "0.00001"), "too short", "more time")


def test_a_terminal_shows_bars(explain, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert any("minimal masks" in line for line in explain()[2])
    assert explain("--quiet")[2] == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--model", "resnet18"], ["unknown model 'resnet18'", "torchvision:NAME"]),
        (["--model", "torchvision:resnet1"], ["torchvision has no model 'resnet1'"]),
        (["--model", "nowhere.module:make"], ["cannot make the model", "nowhere"]),
        (["--model", "toy_factories:nothing"], ["cannot make the model", "nothing"]),
        (["--model", "toy_factories:number"], ["toy_factories:number cannot be called"]),
        (["--model", "toy_factories:broken"], ["cannot make the model", "weights"]),
        (["--model", "toy_factories:probabilities"], ["returns probabilities"]),
        (["--model", "toy_factories:five"], ["takes 5", "FourierMask"]),
        (["--model", "missing.pt2"], ["there is no file missing.pt2"]),
        (["--model", "names.txt.pt2", "--weights", "w.safetensors"], ["leave out --weights"]),
        (["--weights", "missing.safetensors"], ["there is no file missing.safetensors"]),
        (["--weights", "names.txt"], ["names.txt is not a safetensors file"]),
        (["--images", "nowhere"], ["there is no folder nowhere"]),
        (["--images", "names.txt"], ["there is no folder names.txt"]),
        (["--classes", "nowhere.txt"], ["cannot read the class names"]),
        (["--mean", "a,b"], ["--mean must be numbers separated by commas"]),
        (["--mean", "0.5"], ["mean and std together"]),
        (["--mean", "120", "--std", "60"], ["divide values up to 255 by 255"]),
        (["--mean", "0.1,0.2", "--std", "1"], ["1 or 3 channels, not 2"]),
        (["--centre", "127"], ["centre must be in units of pixels"]),
        (["--size", "4"], ["--size must be 8 to 4096"]),
        (["--size", "99999"], ["--size must be 8 to 4096"]),
        (["--count", "1"], ["--count must be at least 2"]),
        (["--steps", "0"], ["steps must be a whole number of at least 1"]),
        (["--max-seconds", "-1"], ["--max-seconds must be positive"]),
        (["--device", "quantum"], ["quantum", "auto, cpu"]),
        (["--out", "pictures"], ["holds other files", "--out"]),
        (["--out", "names.txt"], ["names.txt is a file"]),
        (["--huge"], ["--huge", "'fmlib explain --help'"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_each_error_is_one_line_before_any_work(words, parts, explain, work, monkeypatch):
    monkeypatch.setattr(command, "measure", lambda *_, **__: pytest.fail("the work has begun"))
    before = sorted(path.name for path in work.rglob("*"))
    refused(explain(*words), *parts)
    assert [name for name in sorted(path.name for path in work.rglob("*")) if "pyc" not in name] in (
        before,
        sorted([*before, "__pycache__"]),
    )


def test_wrong_folders_and_names(explain, work):
    (work / "names.txt").write_text("one\ntwo\n")
    refused(explain("--classes", "names.txt"), "has 2 names, but the model has 4 classes")
    (work / "names.txt").write_text("\n \n")
    refused(explain("--classes", "names.txt"), "has no class names")
    (work / "names.txt").write_bytes(b"\xff\xfe\xfa")
    refused(explain("--classes", "names.txt"), "cannot read the class names")
    (work / "empty").mkdir()
    refused(explain("--images", "empty"), "has no pictures")
    (work / "empty" / "one.png").write_bytes((work / "pictures" / "a.png").read_bytes())
    refused(explain("--images", "empty"), "a single picture")
    (work / "empty" / "two.png").write_bytes((work / "pictures" / "a.png").read_bytes()[:200])
    refused(explain("--images", "empty"), "cannot read the picture", "two.png")
    assert not (work / "report").exists()


# ---------------------------------------------------------------------------------------------------------- loading


def test_weights_from_a_file(work):
    made = loading.load_model("toy_factories:make").model
    state = {name: value + 1 for name, value in made.state_dict().items()}
    save_file(state, "weights.safetensors")
    loaded = loading.load_model("toy_factories:make", work / "weights.safetensors").model
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    with pytest.raises(FmlibError, match="do not fit the model") as caught:
        loading.load_model("toy_factories:gray", work / "weights.safetensors")
    assert "\n" not in str(caught.value)
    assert FmlibError is SameError


def test_pickles_are_not_read(work):
    torch.save(nn.Linear(2, 2).state_dict(), "weights.pt")
    with pytest.raises(FmlibError, match="not a safetensors file"):
        loading.load_model("toy_factories:make", work / "weights.pt")
    torch.save(nn.Linear(2, 2), "model.pt2")
    with pytest.raises(FmlibError, match=r"not a program of torch\.export\.save"):
        loading.load_model("model.pt2")


def test_exported_programs(explain, work):
    model = loading.load_model("toy_factories:make").model.eval()
    batch = torch.export.Dim("batch", min=1, max=512)
    program = torch.export.export(model, (torch.rand(2, 3, 16, 16),), dynamic_shapes=({0: batch},))
    torch.export.save(program, "model.pt2")
    loaded = loading.load_model("model.pt2").model
    images = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(loaded(images), model(images))
    assert explain("--model", "model.pt2")[0] == 0


def test_published_models_have_their_normalisation(work):
    made = loading.load_model("toy_factories:make").model
    assert (loading.load_model("toy_factories:make").mean, made.training) == (None, True)
    from torchvision.models import get_model

    save_file(get_model("squeezenet1_1", num_classes=1000).state_dict(), "squeezenet.safetensors")
    loaded = loading.load_model("torchvision:squeezenet1_1", work / "squeezenet.safetensors")
    assert loaded.mean == (0.485, 0.456, 0.406)
    assert loaded.std == (0.229, 0.224, 0.225)
    assert loaded.size == 224


def test_timm_is_asked_for(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FmlibError, match="pip install timm"):
        loading.load_model("timm:resnet18")


def test_pictures_are_spread_over_the_folder(work):
    found = loading.find_images(work / "pictures", 2)
    assert [path.name for path in found] == ["a.png", "e.gif"]
    assert len(loading.find_images(work / "pictures", 99)) == 4
    for channels in (1, 3):
        for path in loading.find_images(work / "pictures", 4):
            image = loading.load_image(path, 16, channels)
            assert image.shape == (channels, 16, 16)
            assert 0 <= float(image.min()) <= float(image.max()) <= 1


def test_names_of_classes():
    assert loading.load_names(None) is None
    assert [loading.name_of(names, 1) for names in (None, ["a"], ["a", "b"])] == ["class 1", "class 1", "b"]
