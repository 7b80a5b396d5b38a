"""The playground's files: networks, masks and pictures in one binary file, and scripts for pages opened from disk.

The binary file begins with the eight bytes of `MAGIC`, then three numbers of 4 bytes, little endian: the length of the
file, the CRC-32 of all that follows it, and the length of the header. The header is JSON, padded with blanks so that
the arrays, which follow, begin at a multiple of eight bytes; it lists their types, shapes and offsets. Weights are
rounded to 16 bits, with one scale per output channel; `rounded` returns the same network for torch.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import zlib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MAGIC = b"FMPLAY03"

#: The photographs that ship with scikit-learn: name -> title with credit.
PHOTOGRAPHS = {
    "china": "Temple, by Daniel B\N{LATIN SMALL LETTER U WITH DIAERESIS}chele (CC BY 2.0)",
    "flower": "Flower, by vultilion (CC BY 2.0)",
}

#: Settings of `MinimalMaskSpec` that the page's solver reads.
LEARNING = ("penalty", "steps", "radius", "clip")

#: The page's modules and files.
FOLDER = (Path(__file__).parent / "assets").resolve()


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


class File:
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

    def add_network(self, name: str, nodes: list[dict[str, Any]], *, exact: bool = False) -> list[dict[str, Any]]:
        """Append the arrays of a graph, its weights rounded to 16 bits or `exact`, in single precision.

        Returns:
            The nodes, with the names of their arrays.
        """
        described = []
        for index, node in enumerate(nodes):
            tensors = {part: value.float() for part, value in node.items() if isinstance(value, Tensor)}
            rest = {part: value for part, value in node.items() if part not in tensors}
            if node["kind"] == "input":
                tensors = {}  # the data set has the mean and the standard deviation
            if "weights" in tensors and not exact:
                tensors["weights"], tensors["scale"] = quantized(tensors["weights"])
            arrays = {part: self.add(f"{name}.{index}.{part}", value) for part, value in tensors.items()}
            described.append(rest | {"arrays": arrays})
        return described

    def packed(self, datasets: list[dict[str, Any]], **header: Any) -> bytes:
        """The whole file, with further entries of the header."""
        header |= {"datasets": datasets, "arrays": self.arrays}
        text = json.dumps(header).encode()
        text += b" " * (-(len(MAGIC) + 12 + len(text)) % 8)
        rest = len(text).to_bytes(4, "little") + text + bytes(self.content)
        total, checksum = len(MAGIC) + 8 + len(rest), zlib.crc32(rest)
        return MAGIC + total.to_bytes(4, "little") + checksum.to_bytes(4, "little") + rest


def as_script(name: str, value: object) -> bytes:
    """A script that assigns `value` to `playgroundFiles.<name>`, for a page opened from disk.

    From disk, browsers run scripts but load neither modules nor data.
    """
    return f"(globalThis.playgroundFiles ??= {{}}).{name} = {json.dumps(value)};\n".encode()


def in_order(sources: dict[str, str]) -> dict[str, str]:
    """Modules by file name, each after those that it imports."""
    needs = {name: re.findall(r'from "\./(.+?)"', text) for name, text in sources.items()}
    return {name: sources[name] for name in TopologicalSorter(needs).static_order()}


def scripts(binary: bytes) -> dict[str, bytes]:
    """The scripts that hold the page's modules and a binary file: file name -> content."""
    modules = in_order({path.name: path.read_text() for path in sorted(FOLDER.glob("*.mjs"))})
    return {
        "networks.cjs": as_script("networks", base64.b64encode(binary).decode()),
        "modules.cjs": as_script("modules", modules),
    }
