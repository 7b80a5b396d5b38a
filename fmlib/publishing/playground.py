"""What the book's laboratory page runs on: networks, masks and pictures in one binary file, and the page from disk.

The file begins with the eight bytes of `MAGIC`, the length of a header (4 bytes, little endian) and the header, JSON
padded with blanks to a multiple of eight; then come the arrays, which the header lists with their type, shape and
offset. A *world* of the page is a pair of networks, N and A, with pictures of their own: photographs, and planted
tones. Weights are rounded to 16 bits, with a scale for each output channel; `rounded` gives the same network to torch.
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

from fmlib.core.data import sample_image
from fmlib.core.errors import FmlibError
from fmlib.core.models import Normalized, build
from fmlib.core.spectra import half_plane
from fmlib.pipeline.results import Results
from fmlib.studies.dataset_masks.figures import figure_scheme
from fmlib.studies.shared.profiles import Profile, profile

MAGIC = b"FMLAB001"

#: The page's modules and files.
FOLDER = Path(__file__).resolve().parents[2] / "book" / "_static" / "lab"

#: The photographs that ship with scikit-learn: name -> title with credit.
PHOTOGRAPHS = {
    "china": "Temple, by Daniel B\N{LATIN SMALL LETTER U WITH DIAERESIS}chele (CC BY 2.0)",
    "flower": "Flower, by vultilion (CC BY 2.0)",
}

REGIMES = {
    "N": "standard",
    "A": "adversarially trained",
    "S": "trained on scaled images",
    "T": "trained on shifted images",
    "R": "trained on rotated images",
}


def quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight as int16 of the same shape, and the scale of each output channel, (out,): their product is about it."""
    scale = weight.flatten(1).abs().amax(1).clamp_min(1e-30) / 32767
    return (weight / scale.view(-1, *[1] * (weight.ndim - 1))).round().to(torch.int16), scale


def rounded(model: nn.Module) -> nn.Module:
    """A copy of the network with its weights as the laboratory page has them."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            whole, scale = quantized(layer.weight.data)
            layer.weight.data = whole * scale.view(-1, *[1] * (whole.ndim - 1))
    return model


def network(results: Results, file: str, found: Profile) -> Normalized:
    """A published network, in eval mode: its weights in `file`, its architecture that of profile `found`."""
    model = build(found.network, 0)
    model.load_state_dict(load_weights(results.content(file)))
    return model.eval()


class _File:
    """Arrays that are to follow a header, and what the header says of them."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.arrays: dict[str, dict[str, Any]] = {}

    def add(self, name: str, values: Tensor) -> str:
        """Append an array, little endian, from a multiple of eight bytes on; returns its name."""
        array = values.detach().contiguous().numpy()
        self.arrays[name] = {"type": array.dtype.name, "shape": list(array.shape), "offset": len(self.content)}
        self.content += array.astype(array.dtype.newbyteorder("<")).tobytes()
        self.content += bytes(-len(self.content) % 8)
        return name


def _layers(file: _File, name: str, model: Normalized) -> list[dict[str, str]]:
    """A sequential network for the page: the kinds of its layers, and the names of their arrays."""
    found: list[dict[str, str]] = []
    assert isinstance(model.network, nn.Sequential)
    for number, layer in enumerate(model.network):
        place = f"{name}.{number}"
        match layer:
            case nn.Conv2d() | nn.Linear():
                whole, scale = quantized(layer.weight.data)
                kind = "linear" if isinstance(layer, nn.Linear) else "convolution"
                described = {"kind": kind, "weights": file.add(place, whole)}
                described["scale"] = file.add(f"{place}.scale", scale)
                if layer.bias is not None:
                    described["bias"] = file.add(f"{place}.bias", layer.bias)
                found.append(described)
            case nn.BatchNorm2d():  # in eval mode a scale and a shift of each channel
                # in double precision: in single, processors differ in the last bit
                assert layer.running_mean is not None
                assert layer.running_var is not None
                scale = layer.weight.double() / torch.sqrt(layer.running_var.double() + layer.eps)
                shift = layer.bias.double() - layer.running_mean.double() * scale
                folded = {"scale": scale, "shift": shift}
                names = {what: file.add(f"{place}.{what}", values.float()) for what, values in folded.items()}
                found.append({"kind": "affine"} | names)
            case nn.MaxPool2d() | nn.ReLU() | nn.AdaptiveAvgPool2d():
                found.append({"kind": {"MaxPool2d": "pool", "ReLU": "relu"}.get(type(layer).__name__, "mean")})
            case nn.Identity() | nn.Flatten():
                pass
            case _:
                raise FmlibError(f"the laboratory page knows no layer {type(layer).__name__}")
    return found


def _world(
    file: _File,
    name: str,
    title: str,
    found: Profile,
    classes: Iterable[str],
    networks: dict[str, Normalized],
    masks: dict[str, tuple[str, Tensor]],
    pictures: dict[str, tuple[str, Tensor]],
) -> dict[str, Any]:
    """One world of the page. masks: name -> title, full mask (H, W); pictures: name -> title, uint8 (H, W)."""
    attack, spec = found.train.attack, found.image_mask
    return {
        "name": name,
        "title": title,
        "size": found.data.size,
        "mean": found.network.mean,
        "std": found.network.std,
        "classes": list(classes),
        "attack": {"epsilon": attack.epsilon, "step": attack.step, "steps": attack.steps},
        "learning": {name: getattr(spec, name) for name in ("penalty", "clip", "memory", "patience", "still", "calm")},
        "networks": {
            regime: {"title": REGIMES[regime], "layers": _layers(file, f"{name}.{regime}", model)}
            for regime, model in networks.items()
        },
        "masks": [
            {"name": one, "title": says, "half": file.add(f"{name}.mask.{one}", half_plane(full))}
            for one, (says, full) in masks.items()
        ],
        "pictures": [
            {"name": one, "title": says, "pixels": file.add(f"{name}.picture.{one}", pixels)}
            for one, (says, pixels) in pictures.items()
        ],
    }


def pack(results: Results) -> bytes:
    """The laboratory's file, from published results; the same bytes for the same results.

    Raises `FmlibError` if they hold no small networks (profile paper) or a network has a layer that the page lacks.
    """
    file = _File()
    found, quick = profile(results.profile), profile("quick")
    masks, planted = results.arrays("dataset_masks"), results.arrays("synthetic")
    tones = np.argwhere(planted["tones"] > 0)
    worlds = [
        _world(
            file,
            "photographs",
            "Photographs",
            found,
            map(str, results.arrays("samples")["classes"]),
            {one: network(results, f"network_{one}.safetensors", found) for one in "NA"},
            {one: (f"of {one}, the network {says}", torch.from_numpy(masks[one][0])) for one, says in REGIMES.items()},
            {name: (title, sample_image(name, found.data.size)[0]) for name, title in PHOTOGRAPHS.items()},
        ),
        _world(
            file,
            "planted",
            "Planted tones",
            quick,
            [f"tone {number}" for number in range(1, len(planted["images"]) + 1)],
            {one: network(results, f"synthetic_network_{one}.safetensors", quick) for one in "NA"},
            {
                "N": ("of N, the network standard", torch.from_numpy(planted["mask"])),
                "A": ("of A, the network adversarially trained", torch.from_numpy(planted["mask.A"])),
                "tones": (
                    f"the {len(tones)} frequencies of the class tones themselves",
                    torch.from_numpy(planted["tones"]),
                ),
            },
            {
                f"tone-{number}": (f"Tone {number} in noise", torch.from_numpy(image))
                for number, image in enumerate(planted["images"], 1)
            },
        ),
    ]
    header = {"results": results.manifest["key"], "profile": results.profile, "bytes": len(file.content)}
    text = json.dumps(header | {"worlds": worlds, "arrays": file.arrays}).encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text)) % 8)
    return MAGIC + len(text).to_bytes(4, "little") + text + bytes(file.content)


def carried(name: str, value: object) -> bytes:
    """A script that puts `value` into `laboratory.<name>`, for a page opened from disk.

    There browsers load neither modules nor data, but do run scripts.
    """
    return f"(globalThis.laboratory ??= {{}}).{name} = {json.dumps(value)};\n".encode()


def in_order(sources: dict[str, str]) -> dict[str, str]:
    """Modules, by file name, in the order of their imports: what is imported comes first."""
    needs = {name: re.findall(r'from "\./(.+?)"', text) for name, text in sources.items()}
    return {name: sources[name] for name in TopologicalSorter(needs).static_order()}


def files(results: Results) -> dict[str, bytes]:
    """What the page needs beside its modules, made from published results: file name -> content."""
    binary = pack(results)
    modules = in_order({path.name: path.read_text() for path in sorted(FOLDER.glob("*.mjs"))})
    return {
        "networks.bin": binary,
        "networks.cjs": carried("networks", base64.b64encode(binary).decode()),
        "modules.cjs": carried("modules", modules),
        "still.png": figure_scheme(results.arrays("scheme"))._repr_png_(),
    }
