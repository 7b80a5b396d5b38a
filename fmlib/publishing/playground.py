"""The files of the book's playground page: networks, masks and pictures in one binary file, and scripts for disk use.

The file begins with the eight bytes of `MAGIC`, the length of the header (4 bytes, little endian) and the header, JSON
padded with blanks to a multiple of eight bytes. The arrays follow; the header lists their types, shapes and offsets.
The page has two data sets, photographs and synthetic tones, each with networks N and A, masks and pictures. Weights
are rounded to 16 bits, with one scale per output channel; `rounded` returns the same network for torch.
"""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_weights
from torch import Tensor, nn

from fmlib.core.config import MinimalMaskSpec
from fmlib.core.data import sample_image
from fmlib.core.errors import FmlibError
from fmlib.core.models import Normalized, build
from fmlib.core.spectra import half_plane
from fmlib.pipeline.results import Results
from fmlib.studies.dataset_masks.figures import figure_scheme
from fmlib.studies.shared.profiles import Profile, profile

MAGIC = b"FMPLAY01"

#: The page's modules and files.
FOLDER = Path(__file__).resolve().parents[2] / "book" / "_static" / "playground"

#: The photographs that ship with scikit-learn: name -> title with credit.
PHOTOGRAPHS = {
    "china": "Temple, by Daniel B\N{LATIN SMALL LETTER U WITH DIAERESIS}chele (CC BY 2.0)",
    "flower": "Flower, by vultilion (CC BY 2.0)",
}

#: Regime -> full name of its networks.
NAMES = {
    "N": "standard (N)",
    "A": "adversarially trained (A)",
    "S": "scale (S)",
    "T": "translation (T)",
    "R": "rotation (R)",
}

#: Settings of `MinimalMaskSpec` that the page's solver reads.
LEARNING = ("penalty", "steps", "radius", "clip")


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight as int16 of the same shape and one scale per output channel, (out,), whose product approximates it."""
    scale = weight.flatten(1).abs().amax(1).clamp_min(1e-30) / 32767
    return (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int16), scale


def rounded(model: nn.Module) -> nn.Module:
    """A copy of the network with its weights rounded as on the playground page."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            whole, scale = quantized(layer.weight.data)
            layer.weight.data = whole * scale.view(-1, *[1] * (whole.ndim - 1))
    return model


def network(results: Results, file: str, settings: Profile) -> Normalized:
    """A published network in eval mode: its weights from `file`, its architecture from the profile `settings`."""
    model = build(settings.network, 0)
    model.load_state_dict(load_weights(results.content(file)))
    return model.eval()


class _File:
    """The arrays that follow the header, and their entries in it."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.arrays: dict[str, dict[str, Any]] = {}

    def add(self, name: str, values: Tensor) -> str:
        """Append an array, little endian, at a multiple of eight bytes; returns its name."""
        array = values.detach().contiguous().numpy()
        self.arrays[name] = {"type": array.dtype.name, "shape": list(array.shape), "offset": len(self.content)}
        self.content += array.astype(array.dtype.newbyteorder("<")).tobytes()
        self.content += bytes(-len(self.content) % 8)
        return name


def _layers(file: _File, name: str, model: Normalized) -> list[dict[str, str]]:
    """A sequential network for the page: kind of each layer, and names of its arrays."""
    layers: list[dict[str, str]] = []
    assert isinstance(model.network, nn.Sequential)
    for index, layer in enumerate(model.network):
        place = f"{name}.{index}"
        match layer:
            case nn.Conv2d() | nn.Linear():
                whole, scale = quantized(layer.weight.data)
                kind = "linear" if isinstance(layer, nn.Linear) else "convolution"
                described = {"kind": kind, "weights": file.add(place, whole)}
                described["scale"] = file.add(f"{place}.scale", scale)
                if layer.bias is not None:
                    described["bias"] = file.add(f"{place}.bias", layer.bias)
                layers.append(described)
            case nn.BatchNorm2d():  # in eval mode one scale and one shift per channel
                # in double precision: in single precision, processors differ in the last bit
                assert layer.running_mean is not None
                assert layer.running_var is not None
                scale = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
                shift = layer.bias.double() - layer.running_mean.double() * scale
                folded = {"scale": scale, "shift": shift}
                names = {part: file.add(f"{place}.{part}", values.float()) for part, values in folded.items()}
                layers.append({"kind": "affine"} | names)
            case nn.MaxPool2d() | nn.ReLU() | nn.AdaptiveAvgPool2d():
                layers.append({"kind": {"MaxPool2d": "pool", "ReLU": "relu"}.get(type(layer).__name__, "mean")})
            case nn.Identity() | nn.Flatten():
                pass
            case _:
                raise FmlibError(f"the playground page knows no layer {type(layer).__name__}: add it to network.mjs")
    return layers


def _dataset(
    file: _File,
    name: str,
    title: str,
    settings: Profile,
    classes: Iterable[str],
    networks: dict[str, Normalized],
    masks: dict[str, tuple[str, Tensor]],
    pictures: dict[str, tuple[str, Tensor]],
) -> dict[str, Any]:
    """One data set of the page. masks: name -> title, full mask (H, W); pictures: name -> title, uint8 (H, W)."""
    attack, spec = settings.train.attack, MinimalMaskSpec()
    return {
        "name": name,
        "title": title,
        "size": settings.data.size,
        "mean": settings.network.mean,
        "std": settings.network.std,
        "classes": list(classes),
        "attack": {"epsilon": attack.epsilon, "step": attack.step, "steps": attack.steps},
        "learning": {setting: getattr(spec, setting) for setting in LEARNING},
        "networks": {
            regime: {"title": NAMES[regime], "layers": _layers(file, f"{name}.{regime}", model)}
            for regime, model in networks.items()
        },
        "masks": [
            {"name": mask, "title": heading, "half": file.add(f"{name}.mask.{mask}", half_plane(full))}
            for mask, (heading, full) in masks.items()
        ],
        "pictures": [
            {"name": picture, "title": heading, "pixels": file.add(f"{name}.picture.{picture}", pixels)}
            for picture, (heading, pixels) in pictures.items()
        ],
    }


def pack(results: Results) -> bytes:
    """The playground's binary file, from published results; the same bytes for the same results.

    Raises:
        FmlibError: the results hold no small networks (profile paper), or a network has a layer that the page lacks.
    """
    file = _File()
    settings, quick = profile(results.profile), profile("quick")
    masks, synthetic = results.arrays("dataset_masks"), results.arrays("synthetic")
    tones = np.argwhere(synthetic["tones"] > 0)
    datasets = [
        _dataset(
            file,
            "photographs",
            "Photographs",
            settings,
            map(str, results.arrays("samples")["classes"]),
            {regime: network(results, f"network_{regime}.safetensors", settings) for regime in "NA"},
            {regime: (title, torch.from_numpy(masks[regime][0])) for regime, title in NAMES.items()},
            {name: (title, sample_image(name, settings.data.size)[0]) for name, title in PHOTOGRAPHS.items()},
        ),
        _dataset(
            file,
            "synthetic",
            "Synthetic tones",
            quick,
            [f"tone {number}" for number in range(1, len(synthetic["images"]) + 1)],
            {regime: network(results, f"synthetic_network_{regime}.safetensors", quick) for regime in "NA"},
            {
                "N": (NAMES["N"], torch.from_numpy(synthetic["mask"])),
                "A": (NAMES["A"], torch.from_numpy(synthetic["mask.A"])),
                "tones": (f"the {len(tones)} frequencies of the class tones", torch.from_numpy(synthetic["tones"])),
            },
            {
                f"tone-{number}": (f"Tone {number} in noise", torch.from_numpy(image))
                for number, image in enumerate(synthetic["images"], 1)
            },
        ),
    ]
    header = {"results": results.manifest["key"], "profile": results.profile, "bytes": len(file.content)}
    text = json.dumps(header | {"datasets": datasets, "arrays": file.arrays}).encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text)) % 8)
    return MAGIC + len(text).to_bytes(4, "little") + text + bytes(file.content)


def as_script(name: str, value: object) -> bytes:
    """A script that assigns `value` to `playgroundFiles.<name>`, for a page opened from disk.

    From disk, browsers run scripts but load neither modules nor data.
    """
    return f"(globalThis.playgroundFiles ??= {{}}).{name} = {json.dumps(value)};\n".encode()


def in_order(sources: dict[str, str]) -> dict[str, str]:
    """Modules by file name, each after those that it imports."""
    needs = {name: re.findall(r'from "\./(.+?)"', text) for name, text in sources.items()}
    return {name: sources[name] for name in TopologicalSorter(needs).static_order()}


def files(results: Results) -> dict[str, bytes]:
    """The files that the page needs beside its modules, from published results: file name -> content."""
    binary = pack(results)
    modules = in_order({path.name: path.read_text() for path in sorted(FOLDER.glob("*.mjs"))})
    return {
        "networks.bin": binary,
        "networks.cjs": as_script("networks", base64.b64encode(binary).decode()),
        "modules.cjs": as_script("modules", modules),
        "preview.png": figure_scheme(results.arrays("scheme"))._repr_png_(),
    }
