"""A playground page of any network: agreement with torch in a real browser, its use, and what it refuses."""

import base64
import functools
import json
import shutil
import threading
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
import torch
from browsing import Silent
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

from fmlib import cli
from fmlib.core.config import MinimalMaskSpec, NetworkSpec
from fmlib.core.data import sample_image
from fmlib.core.errors import FmlibError
from fmlib.core.minimal_masks import minimal_masks
from fmlib.core.models import build
from fmlib.publishing.playground import graph
from fmlib.publishing.playground.binary import FOLDER, LEARNING, PHOTOGRAPHS, File
from fmlib.publishing.playground.page import Request, write
from fmlib.studies.shared.pretrained import MEAN, STD, efficientnet_lite0

# ---------------------------------------------------------------------------------------------- networks


class Convolutions(nn.Module):
    """Convolutions with strides, groups, asymmetric kernels and paddings, some with batch norm, before a pooled end."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.multiplied = nn.Conv2d(8, 16, 3, 2, groups=8)
        self.grouped = nn.Conv2d(16, 6, (1, 3), (1, 2), (0, 1), groups=2)
        self.strided = nn.Conv2d(6, 7, 1, 2)
        self.point = nn.Conv2d(7, 9, 1, bias=False)
        self.same = nn.Conv2d(9, 5, (3, 2), padding="same")
        self.end = nn.Linear(5, 4)

    def forward(self, x):
        x = self.multiplied(functional.pad(self.depthwise(self.stem(x)), (0, 1, 1, 2)))
        x = self.same(self.point(self.strided(self.grouped(x))))
        return self.end(x.mean((2, 3)))


class Excitations(nn.Module):
    """An inverted bottleneck with squeeze and excitation, and all smooth activations."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 3, 1), nn.SiLU(), nn.Conv2d(3, 8, 1))
        self.excite = nn.Sequential(nn.Linear(8, 8), nn.Hardsigmoid())
        self.project = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Hardswish(), nn.Dropout2d(0.2))
        self.end = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 5), nn.Identity())

    def forward(self, x):
        x = self.expand((x - 0.4) / 0.3)
        x = torch.sigmoid(self.squeeze(x)) * x
        x = x * self.excite(x.mean((2, 3))).view(-1, 8, 1, 1)
        x = x + self.project(x)
        return self.end(functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Pools(nn.Module):
    """Every kind of pooling, arithmetic with constants, operations that overwrite, and features of whole planes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.end = nn.Sequential(nn.Flatten(), nn.Linear(12 * 25, 10), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))

    def forward(self, x):
        x = self.stem(1 - 2 * x)
        y = functional.max_pool2d(x + 0.1, 3, 2, 1, ceil_mode=True)
        functional.relu_(x)
        x = self.norm(functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True))
        x = functional.hardtanh(x - y, -1, 1.5) + functional.relu6(y).clamp(min=0.1)
        x = functional.max_pool2d(x, 2) - functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        x = torch.cat([x, functional.adaptive_avg_pool2d(functional.adaptive_avg_pool2d(x, 2), 5)], 1)
        return self.end(x)


def resnet():
    """torchvision's basic blocks, with residual sums."""
    return build(NetworkSpec("tiny_resnet", channels=3, classes=7), 0)


def random(make):
    """A network in eval mode with random weights and statistics."""
    torch.manual_seed(0)
    model = make()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return model.eval()


#: Name -> network, channels and side; the sides have factors beyond 2.
NETWORKS = {
    "convolutions": (lambda: random(Convolutions), 3, 24),
    "excitations": (lambda: random(Excitations), 1, 14),
    "pools": (lambda: random(Pools), 3, 18),
    "resnet": (lambda: random(resnet), 3, 32),
    "decomposed": (lambda: random(Convolutions), 3, 24),
    "efficientnet": (lambda: efficientnet_lite0(64), 3, 64),
}


def traced(name, model, images):
    """The network's graph; "decomposed" is exported as core operations first."""
    if name == "decomposed":
        model = torch.export.export(model, (images,)).run_decompositions().module()
    return graph.nodes(graph.trace(model, images), images)


def pictures(channels, side):
    """Both photographs, uint8 (2, C, side, side)."""
    return torch.stack([sample_image(name, side, channels) for name in PHOTOGRAPHS])


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, (make, _, _) in NETWORKS.items()}


def packed(models):
    """All networks in one file of the page."""
    file, datasets = File(), []
    for name, (_, channels, side) in NETWORKS.items():
        nodes = traced(name, models[name], torch.zeros(1, channels, side, side))
        scale, shift = nodes[0]["scale"], nodes[0]["shift"]
        entry = {"model": {"title": name, "nodes": file.add_network(name, nodes, exact=True)}}
        normalised = {"mean": (-shift / scale).tolist(), "std": (1 / scale).tolist()}
        datasets.append({"name": name, "size": side, "networks": entry, "masks": [], "pictures": []} | normalised)
    return file.packed(datasets)


@pytest.fixture(scope="module")
def modules(models, tmp_path_factory):
    """The address of the page's modules and of the file of networks."""
    folder = tmp_path_factory.mktemp("modules")
    for path in FOLDER.glob("*.mjs"):
        shutil.copy(path, folder)
    (folder / "own.bin").write_bytes(packed(models))
    handler = functools.partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ASK = """async (requests) => {
  const { Client } = await import("/client.mjs");
  const client = new Client("/worker.mjs", (message) => { throw new Error(message); });
  await client.ask("open", { binary: await (await fetch("/own.bin")).arrayBuffer() });
  const answers = [];
  for (const { kind, pixels, ...rest } of requests) {
    const found = await client.ask(kind, { ...rest, pixels: Float64Array.from(pixels, (value) => value / 255) });
    for (const name in found) if (ArrayBuffer.isView(found[name])) found[name] = [...found[name]];
    answers.push(found);
  }
  return answers;
}"""


def ask(browser, modules, requests):
    """The worker's answers to requests about the networks."""
    page = browser.new_page()
    page.goto(f"{modules}/link.mjs")
    answers = page.evaluate(ASK, requests)
    page.close()
    return answers


@pytest.fixture(scope="module")
def answers(browser, modules):
    """Network -> logits and gradients of both photographs, each for class 1."""
    requests = [
        {"kind": "gradient", "name": name, "regime": "model", "label": 1, "pixels": picture.flatten().tolist()}
        for name, (_, channels, side) in NETWORKS.items()
        for picture in pictures(channels, side)
    ]
    found = ask(browser, modules, requests)
    return {name: found[2 * number : 2 * number + 2] for number, name in enumerate(NETWORKS)}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_gradients_are_those_of_torch(models, answers, name):
    _, channels, side = NETWORKS[name]
    model = models[name].double()
    pixels = (pictures(channels, side).double() / 255).requires_grad_()
    logits = model(pixels)
    losses = cross_entropy(logits, torch.tensor([1, 1]), reduction="sum")
    (gradients,) = torch.autograd.grad(losses, pixels)
    for part, there in (("logits", logits.detach()), ("gradient", gradients.flatten(1))):
        here = torch.tensor([answer[part] for answer in answers[name]], dtype=torch.float64)
        assert (here - there).abs().max() < 1e-3 * there.abs().max()
        assert there.abs().max() > 0


def test_masks_of_colour_pictures_are_those_of_the_library(browser, modules, models):
    model, image = models["efficientnet"].double(), pictures(3, 64)[1:]
    spec = MinimalMaskSpec(steps=3)
    options = {name: getattr(spec, name) for name in LEARNING}
    asked = {"kind": "learn", "name": "efficientnet", "regime": "model", "pixels": image.flatten().tolist()}
    (here,) = ask(browser, modules, [asked | {"options": options}])
    pixels = image.double() / 255
    there = minimal_masks(model, pixels, model(pixels).argmax(1), spec, centre=MEAN, progress=False)
    assert np.abs(np.array(here["half"]) - there.half.flatten().numpy()).mean() < 1e-5


def test_scales_and_shifts_are_folded_where_one_layer_alone_reads_them(models):
    kinds = {name: [node["kind"] for node in traced(name, models[name].float(), torch.zeros(1, channels, side, side))]
             for name, (_, channels, side) in NETWORKS.items()}  # fmt: skip
    assert "affine" not in kinds["efficientnet"] + kinds["resnet"] + kinds["convolutions"]
    assert kinds["decomposed"] == kinds["convolutions"]
    assert kinds["efficientnet"].count("convolution") == 49
    assert "affine" in kinds["pools"]  # a batch norm after a pooling


# ---------------------------------------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A page of a small network of colour pictures with 12 classes, written by the command; and its model."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(1)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 12)),
    ).eval()
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 24, 24),)), folder / "small.pt2")
    (folder / "names.txt").write_text("\n".join(["<b>&", *(f"kind {n}" for n in range(2, 13))]))
    options = ["--mean", "0.5,0.4,0.3", "--std", "0.1", "--classes", str(folder / "names.txt")]
    words = ["playground", str(folder / "small.pt2"), "--out", str(folder / "page"), *options]
    assert cli.main(words) == 0
    assert cli.main(words) == 0  # in place of the former page
    return folder, model


def opened(visit, exported, **options):
    found = visit((exported[0] / "page" / "index.html").as_uri(), **options)
    found.page.wait_for_selector("#playground:not([hidden])")
    found.page.wait_for_function("document.getElementById('playground').dataset.answered > 0")
    return found


def table(page):
    """Class -> its numbers, unmasked and masked."""
    rows = [row.split("\t") for row in page.inner_text("#answers tbody").splitlines()]
    return {name: [float(value) for value in values] for name, *values in rows}


def test_the_page_opens_from_disk_and_agrees_with_torch(exported, visit):
    found = opened(visit, exported)
    shown = table(found.page)
    image = sample_image("china", 24, 3)[None] / 255
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), 0.1
    probabilities = 100 * exported[1]((image - mean) / std).softmax(1)[0]
    names = (exported[0] / "names.txt").read_text().splitlines()
    assert len(shown) == 10
    assert [shown[name][0] for name in shown] == pytest.approx(
        [float(probabilities[names.index(name)]) for name in shown], abs=0.06
    )
    assert "10 most probable of 12 classes" in found.page.inner_text("#answers caption")
    assert found.page.is_hidden("#dataset-masks")
    assert found.errors == found.outside == []


def test_masks_are_removed_learned_and_attacked_on_the_page(exported, visit):
    found = opened(visit, exported)
    page = found.page
    before = table(page)
    page.click("#none")
    page.wait_for_function("document.getElementById('share').textContent.startsWith('0.0%')")
    page.click("#learn")
    page.wait_for_function("document.getElementById('playground-status').textContent.startsWith('Done')")
    assert page.inner_text("#playground-status").endswith("prediction kept.")
    assert float(page.inner_text("#share").split("%")[0]) < 50
    page.click("#attack")
    page.wait_for_function("document.getElementById('playground-status').textContent.startsWith('Attacked small')")
    assert table(page) != before
    assert found.errors == found.outside == []


def test_an_uploaded_picture_keeps_its_colours(exported, visit, tmp_path):
    page = opened(visit, exported).page
    Image.new("RGB", (50, 40), (255, 0, 128)).save(tmp_path / "pink.png")
    page.set_input_files("#upload", tmp_path / "pink.png")
    page.wait_for_function("document.getElementById('original-says').textContent === 'Your picture'")
    pixel = "[...document.getElementById('original').getContext('2d').getImageData(5, 5, 1, 1).data]"
    assert page.evaluate(pixel) == [255, 0, 128, 255]


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_is_accessible_and_fits(exported, visit, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(visit, exported, width=width, scheme=scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = axe.run(page, options={"resultTypes": ["violations"]})
    assert [(rule["id"], rule["nodes"][0]["html"][:120]) for rule in found.response["violations"]] == []


def test_pictures_of_a_folder_are_offered(exported, tmp_path):
    for name in ("b", "a"):
        Image.new("L", (30, 24), 9).save(tmp_path / f"{name}.png")
    write(Request(str(exported[0] / "small.pt2"), tmp_path / "page", images=tmp_path))
    script = (tmp_path / "page" / "_static" / "playground" / "networks.cjs").read_text()
    content = base64.b64decode(json.loads(script[script.index("=", 40) + 2 : -2]))
    length = int.from_bytes(content[16:20], "little")
    (dataset,) = json.loads(content[20 : 20 + length])["datasets"]
    assert [picture["title"] for picture in dataset["pictures"]] == ["a", "b"]
    assert "scikit-learn" not in (tmp_path / "page" / "index.html").read_text()


# ---------------------------------------------------------------------------------------------- what is refused


class Whole(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(2, 3, 3, 3))

    def forward(self, *inputs):
        return self.function(self.weight, *inputs)


def pooled(function):
    """A classifier that applies a function before the mean."""
    return Whole(lambda weight, x: functional.conv2d(function(x), weight).mean((2, 3)))


def viewed(x):
    """A value that is overwritten through a view of it."""
    x = 2 * x
    x.view(1, 3, 16, 16).relu_()
    return x


SQUARE = (1, 3, 16, 16)

#: Name -> module, shapes of its inputs, and what is said.
REFUSED = {
    "unknown": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()),
        [SQUARE],
        r"operation gelu \(the page does not have it\); it has convolutions",
    ),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=2), [SQUARE], r"conv2d \(dilation \(2, 2\)\)"),
    "transposed": (nn.ConvTranspose2d(3, 4, 3), [SQUARE], "operation conv_transpose2d"),
    "training": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), [SQUARE], "batch norm in training mode"),
    "dropout": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)), [SQUARE], "dropout in training mode"),
    "reflected": (pooled(lambda x: functional.pad(x, (1, 1, 1, 1), "reflect")), [SQUARE], "not add zeros"),
    "late pad": (pooled(lambda x: functional.max_pool2d(functional.pad(x, (1, 1, 1, 1)), 2)), [SQUARE], "after a pad"),
    "constant": (pooled(lambda x: x * torch.rand(16, 16)), [SQUARE], "varies within a channel"),
    "attention": (pooled(lambda x: x * x.mean((2, 3), keepdim=True).softmax(1)), [SQUARE], "operation softmax"),
    "spatial": (pooled(lambda x: x * functional.conv2d(x, torch.ones(1, 3, 1, 1))), [SQUARE], "operation mul .*shapes"),
    "view": (pooled(viewed), [SQUARE], "also uses a view"),
    "zero": (pooled(lambda x: 0 * x), [SQUARE], "multiplies a channel of the picture by 0"),
    "maps": (nn.Conv2d(3, 4, 3), [SQUARE], r"returns the shape \(1, 4, 14, 14\): the page needs logits"),
    "one class": (nn.Sequential(nn.Flatten(), nn.Linear(768, 1)), [SQUARE], r"returns the shape \(1, 1\)"),
    "two inputs": (Whole(lambda weight, x, y: (x + y).mean((2, 3))), [SQUARE, SQUARE], "takes 2 inputs"),
    "vectors": (nn.Linear(8, 3), [(1, 8)], r"takes the shape \(1, 8\): the page gives it pictures"),
    "two channels": (nn.Conv2d(2, 4, 3), [(1, 2, 16, 16)], "1 or 3 channels, but the model takes 2"),
    "not square": (nn.Conv2d(3, 4, 3), [(1, 3, 16, 24)], "pictures of 16 x 24 pixels: the page's are square"),
    "odd": (nn.Conv2d(3, 4, 3), [(1, 3, 17, 17)], "must be even, from 8 to 512, not 17"),
    "blind": (Whole(lambda weight, x: weight.mean((2, 3))), [SQUARE], "returns the shape|do not depend"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_page_lacks_is_refused_by_name(name, tmp_path):
    model, shapes, message = REFUSED[name]
    torch.export.save(torch.export.export(model, tuple(torch.zeros(shape) for shape in shapes)), tmp_path / "m.pt2")
    with pytest.raises(FmlibError, match=message) as found:
        write(Request(str(tmp_path / "m.pt2"), tmp_path / "page"))
    assert "\n" not in str(found.value)
    assert not (tmp_path / "page").exists()


#: Words of the command after the network and --out -> what is said.
WRONG = [
    (["--side", "32"], "pictures of 24 x 24 pixels, and --side 32 asks for others"),
    (["--mean", "0.5"], "give mean and std together"),
    (["--mean", "120", "--std", "50"], "divide values up to 255 by 255"),
    (["--mean", "x", "--std", "1"], "--mean must be numbers"),
    (["--classes", "two.txt"], "two.txt has 2 names, but the model has 12 classes"),
    (["--images", "nowhere"], "there is no folder nowhere"),
    (["--weights", "w.safetensors"], "leave out --weights"),
    (["--out", "two.txt"], "two.txt is a file"),
    (["--out", "."], "holds other files than a playground page"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_words_are_refused_in_one_line(exported, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.txt").write_text("one\ntwo\n")
    assert cli.main(["playground", str(exported[0] / "small.pt2"), "--out", "page", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["two.txt"]


def test_an_unsupported_operation_of_a_module_is_located():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.GELU()))
    with pytest.raises(FmlibError, match=r"operation gelu at 1\.1 \("):
        graph.nodes(graph.trace(model, torch.zeros(SQUARE)), torch.zeros(SQUARE))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("none.pt2", "there is no file none.pt2"),
        ("wrong.pt2", "wrong.pt2 is not a program of torch.export.save"),
        ("torchvision:none", "torchvision has no model"),
        ("builtins:dict", "is no torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_refused(model, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.pt2").write_text("no archive")
    with pytest.raises(FmlibError, match=message):
        write(Request(model, tmp_path / "page"))


def test_a_program_of_any_batch_and_side_is_fixed(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    free = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    program = torch.export.export(model, (torch.zeros(3, 1, 20, 20),), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "free.pt2")
    said = []
    write(Request(str(tmp_path / "free.pt2"), tmp_path / "page", side=22), said.append)
    assert said == [f"{tmp_path / 'free.pt2'}: 2 layers, 4 classes, 22 pixels"]


def test_a_model_that_normalises_itself_needs_no_mean(tmp_path):
    """EfficientNet-Lite0 from its factory, whose first operations subtract and divide."""
    images = torch.zeros(1, 3, 64, 64)
    start = graph.nodes(graph.trace(efficientnet_lite0(64), images), images)[0]
    np.testing.assert_allclose(start["scale"], 1 / STD, rtol=1e-6)
    np.testing.assert_allclose(-start["shift"] / start["scale"], MEAN, rtol=1e-6)
