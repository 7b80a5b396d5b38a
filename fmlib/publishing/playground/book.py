"""The files of the book's playground page: networks, masks and pictures from published results.

The page has two data sets, photographs and synthetic tones, each with networks N and A, masks and pictures. Two
pictures are drawn in code, in place of photographs of the networks' classes under a free licence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmlib.core.config import MinimalMaskSpec
from fmlib.core.data import sample_image
from fmlib.core.models import Normalized
from fmlib.core.spectra import half_plane
from fmlib.pipeline.results import Results
from fmlib.publishing.playground import graph
from fmlib.publishing.playground.binary import LEARNING, PHOTOGRAPHS, File, scripts
from fmlib.publishing.playground.drawings import DRAWINGS
from fmlib.studies.dataset_masks.figures import figure_scheme
from fmlib.studies.shared.names import full_name
from fmlib.studies.shared.pretrained import network_from
from fmlib.studies.shared.profiles import Profile, profile

#: The regimes whose dataset masks the page offers.
REGIMES = "NASTR"


def _nodes(model: Normalized, size: int) -> list[dict[str, Any]]:
    """The graph of a published network, without its normalisation, which the data set states."""
    images = torch.zeros(1, 1, size, size)
    return graph.nodes(graph.trace(model.network, images), images)


def _dataset(
    file: File,
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
        "mean": [settings.network.mean],
        "std": [settings.network.std],
        "classes": list(classes),
        "attack": {"epsilon": attack.epsilon, "step": attack.step, "steps": attack.steps},
        "learning": {setting: getattr(spec, setting) for setting in LEARNING},
        "networks": {
            regime: {
                "title": full_name(regime),
                "nodes": file.add_network(f"{name}.{regime}", _nodes(model, settings.data.size)),
            }
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


def _pictures(side: int) -> dict[str, tuple[str, Tensor]]:
    """Name -> title and pixels, uint8 (side, side), of the drawings and the photographs that ship with scikit-learn."""
    drawn = {name: (title, draw(side)) for name, (title, draw) in DRAWINGS.items()}
    return drawn | {name: (title, sample_image(name, side)[0]) for name, title in PHOTOGRAPHS.items()}


def pack(results: Results) -> bytes:
    """The playground's binary file, from published results; the same bytes for the same results.

    Raises:
        FmlibError: the results hold no small networks (profile paper), or a network has a layer that the page lacks.
    """
    file = File()
    settings, quick = profile(results.profile), profile("quick")
    masks, synthetic = results.arrays("dataset_masks"), results.arrays("synthetic")
    tones = np.argwhere(synthetic["tones"] > 0)
    datasets = [
        _dataset(
            file,
            "photographs",
            "Photographs and drawings",
            settings,
            map(str, results.arrays("samples")["classes"]),
            {regime: network_from(results, f"network_{regime}.safetensors", settings) for regime in "NA"},
            {regime: (full_name(regime), torch.from_numpy(masks[regime][0])) for regime in REGIMES},
            _pictures(settings.data.size),
        ),
        _dataset(
            file,
            "synthetic",
            "Synthetic tones",
            quick,
            [f"tone {number}" for number in range(1, len(synthetic["images"]) + 1)],
            {regime: network_from(results, f"synthetic_network_{regime}.safetensors", quick) for regime in "NA"},
            {
                "N": (full_name("N"), torch.from_numpy(synthetic["mask"])),
                "A": (full_name("A"), torch.from_numpy(synthetic["mask.A"])),
                "tones": (f"the {len(tones)} frequencies of the class tones", torch.from_numpy(synthetic["tones"])),
            },
            {
                f"tone-{number}": (f"Tone {number} in noise", torch.from_numpy(image))
                for number, image in enumerate(synthetic["images"], 1)
            },
        ),
    ]
    return file.packed(datasets, results=results.manifest["key"], profile=results.profile)


def files(results: Results) -> dict[str, bytes]:
    """The files that the page needs beside its modules, from published results: file name -> content."""
    binary = pack(results)
    picture = figure_scheme(results.arrays("scheme"))._repr_png_()
    return {"networks.bin": binary, "preview.png": picture} | scripts(binary)
