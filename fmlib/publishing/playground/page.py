"""A playground page of any network: a folder that opens in a browser, offline, by a double click."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmlib.core.config import AttackSpec, MinimalMaskSpec
from fmlib.core.data import sample_image
from fmlib.core.errors import FmlibError, require
from fmlib.explain.classifier import Classifier
from fmlib.explain.command import SIZE, channels, numbers
from fmlib.explain.loading import find_images, load_image, load_model, load_names, name_of
from fmlib.pipeline.disk.programs import load_program
from fmlib.pipeline.store import write_bytes
from fmlib.publishing.playground import graph
from fmlib.publishing.playground.binary import FOLDER, LEARNING, PHOTOGRAPHS, File, scripts

PAGE = "index.html"
#: The folder of the page's scripts and styles, as in the book.
ASSETS = Path("_static", "playground")
#: The page's styles: those of the book's page, and what the book's theme provides there.
STYLES = {"playground.css": FOLDER / "playground.css", "exported.css": Path(__file__).parent / "exported.css"}
#: Pictures of a folder that the page offers, at most.
PICTURES = 12
#: Values that a page can hold: more fit into no string of a browser.
MOST_VALUES = 60_000_000

#: Steps of learning between two updates of the page, each of which takes another forward pass.
SHOWN_EVERY = 2

FRAME = """<!doctype html>
<html lang="en" data-exported>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Playground of {title}</title>
{styles}
</head>
<body>
<main>
<h1>Playground of {title}</h1>
<p>Which frequencies does the network need to classify a picture? Remove frequencies from the spectrum and watch the
predictions change, or let <em>Learn the mask</em> find a small set of frequencies that is enough. The network runs in
this browser: nothing is sent to a server.</p>
{panel}
<h2>What runs here</h2>
<p>{about}</p>
<p>One mask filters all channels, about the level that the network sees as zero. The label that a mask preserves, and
that an attack changes, is the network's own prediction. Learning minimises a function of the change in loss plus a
multiple of the mask's L1 share; each step takes one forward and one backward pass.</p>
{credits}
</main>
</body>
</html>
"""


@dataclass
class Request:
    """The words of the command; see `fmlib playground --help`."""

    model: str
    out: Path
    weights: Path | None = None
    side: int | None = None
    mean: str | None = None
    std: str | None = None
    classes: Path | None = None
    images: Path | None = None


@dataclass
class _Network:
    """A network for the page: its graph, and the side and the number of channels of its pictures."""

    nodes: list[dict[str, Any]]
    side: int
    channels: int

    @property
    def classes(self) -> int:
        return self.nodes[-1]["form"][0]


def write(request: Request, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write a playground page of a network.

    Args:
        request: the network, what its pixels are normalised with, pictures, and where to write.
        say: called with each line of progress.

    Returns:
        The path of the page.

    Raises:
        FmlibError: something cannot be read or written, the network has an operation that the page lacks, or its input
            or output has another shape than pictures and logits.
    """
    out, names = request.out, load_names(request.classes)
    _require_free(out)
    network = _network(request)
    fits = names is None or len(names) == network.classes
    require(fits, f"{request.classes} has {len(names or ())} names, but the model has {network.classes} classes")
    say(f"{request.model}: {len(network.nodes) - 1} layers, {network.classes} classes, {network.side} pixels")
    size = sum(value.numel() for node in network.nodes for value in node.values() if isinstance(value, Tensor))
    require(size <= MOST_VALUES, f"the model has {size:,} weights: the page can hold {MOST_VALUES:,}")
    file = File()
    dataset = _dataset(file, request, network, names)
    files = {Path(PAGE): _page(request, dataset, size).encode()}
    files |= {ASSETS / name: content for name, content in scripts(file.packed([dataset])).items()}
    files |= {ASSETS / name: path.read_bytes() for name, path in STYLES.items()}
    try:
        for name, content in reversed(files.items()):  # the page last
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(out / name, content)
    except OSError as error:
        raise FmlibError(f"cannot write to {out}: {error.strerror or error}") from error
    return out / PAGE


def _require_free(out: Path) -> None:
    """Raise `FmlibError` unless a page may be written to `out`: it is absent, empty, or holds such a page."""
    require(out.is_dir() or not out.exists(), f"{out} is a file: choose a folder for --out")
    holds_page = (out / PAGE).is_file() and b'<html lang="en" data-exported>' in (out / PAGE).read_bytes()
    free = not out.exists() or holds_page or not any(out.iterdir())
    require(free, f"{out} holds other files than a playground page: choose another folder for --out")


def _network(request: Request) -> _Network:
    """The graph of the network that the user names, with its normalisation."""
    mean, std = numbers("--mean", request.mean), numbers("--std", request.std)
    if request.model.endswith(".pt2"):
        require(request.weights is None, "a .pt2 program has its weights inside: leave out --weights")
        program = load_program(Path(request.model))
        batch, planes, side, dtype = _declared(program, request)
        classifier = Classifier(program.module(), mean=mean, std=std)
    else:
        loaded = load_model(request.model, request.weights)
        require(isinstance(loaded.model, nn.Module), f"{request.model} is no torch.nn.Module: export it as a .pt2 file")
        classifier = Classifier(loaded.model.cpu().eval(), mean=mean or loaded.mean, std=std or loaded.std)
        batch, planes, side = 1, channels(classifier), request.side or loaded.size or SIZE
        dtype = torch.float32
    require(planes in (1, 3), f"pictures have 1 or 3 channels, but the model takes {planes}")
    require(8 <= side <= 512 and side % 2 == 0, f"the side of the pictures must be even, from 8 to 512, not {side}")
    images = torch.zeros(batch, planes, side, side, dtype=dtype)
    return _Network(graph.nodes(graph.trace(classifier, images), images), side, planes)


def _declared(program: torch.export.ExportedProgram, request: Request) -> tuple[int, int, int, torch.dtype]:
    """Batch, channels, side and type of the images that an exported program takes."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    values = [node.meta["val"] for node in inputs]
    require(len(values) == 1, f"{request.model} takes {len(values)} inputs: the page gives it pictures alone")
    shape = tuple(values[0].shape) if isinstance(values[0], Tensor) else ()
    shown = f"({', '.join(map(str, shape))})"
    fits = len(shape) == 4 and values[0].is_floating_point()
    require(fits, f"{request.model} takes the shape {shown}: the page gives it pictures (N, C, side, side)")
    batch, planes, *sides = (size if isinstance(size, int) else None for size in shape)
    fixed = {side for side in sides if side is not None}
    agree = len(fixed) <= 1 and (request.side is None or fixed <= {request.side})
    asked = "" if request.side is None else f", and --side {request.side} asks for others"
    require(agree, f"{request.model} takes pictures of {sides[0]} x {sides[1]} pixels{asked}: the page's are square")
    side = request.side or next(iter(fixed), SIZE)
    return 2 if batch is None else batch, 3 if planes is None else planes, side, values[0].dtype


def _dataset(file: File, request: Request, network: _Network, names: list[str] | None) -> dict[str, Any]:
    """The page's only data set: the network and its pictures."""
    scale, shift = network.nodes[0]["scale"], network.nodes[0]["shift"]
    require(bool(scale.all()), "the model multiplies a channel of the picture by 0")
    attack, spec = AttackSpec(), MinimalMaskSpec()
    nodes = file.add_network("model", network.nodes, exact=True)
    return {
        "name": "own",
        "title": "Pictures",
        "size": network.side,
        "mean": (0 - shift / scale).tolist(),
        "std": (1 / scale).tolist(),
        "classes": [name_of(names, label) for label in range(network.classes)],
        "attack": {"epsilon": attack.epsilon, "step": attack.step, "steps": attack.steps},
        "learning": {setting: getattr(spec, setting) for setting in LEARNING} | {"every": SHOWN_EVERY},
        "networks": {"model": {"title": _title(request), "nodes": nodes}},
        "masks": [],
        "pictures": [
            {"name": str(number), "title": title, "pixels": file.add(f"picture.{number}", pixels)}
            for number, (title, pixels) in enumerate(_pictures(request, network))
        ],
    }


def _pictures(request: Request, network: _Network) -> list[tuple[str, Tensor]]:
    """Titles and pixels, uint8 (C, side, side), of the pictures that the page offers."""
    side, planes = network.side, network.channels
    if request.images is None:
        return [(title, sample_image(name, side, planes)) for name, title in PHOTOGRAPHS.items()]
    files = find_images(request.images, PICTURES)
    return [
        (path.stem.encode(errors="replace").decode(), (255 * load_image(path, side, planes)).round().to(torch.uint8))
        for path in files
    ]


def _title(request: Request) -> str:
    """The name of the network on the page."""
    return Path(request.model).stem if request.model.endswith(".pt2") else request.model.rpartition(":")[2]


def _page(request: Request, dataset: dict[str, Any], size: int) -> str:
    """The HTML of the page."""
    mean, std = (", ".join(f"{value:.4g}" for value in dataset[name]) for name in ("mean", "std"))
    planes = "3 channels" if len(dataset["mean"]) == 3 else "1 channel"
    about = (
        f"{_title(request)}, with {size:,} weights in single precision and {len(dataset['classes'])} classes. Its "
        f"pictures have {dataset['size']} x {dataset['size']} pixels and {planes}, normalised with mean {mean} and "
        f"standard deviation {std}. Other pictures are cropped to their middle square and resized."
    )
    credits = (
        "" if request.images else f"<p>Photographs, from scikit-learn: {escape('; '.join(PHOTOGRAPHS.values()))}.</p>"
    )
    styles = "\n".join(f'<link rel="stylesheet" href="{(ASSETS / name).as_posix()}">' for name in STYLES)
    parts = {"title": escape(_title(request)), "about": escape(about), "credits": credits, "styles": styles}
    return FRAME.format(panel=(FOLDER / "panel.html").read_text(), **parts)
