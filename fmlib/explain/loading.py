"""Models, pictures and class names from the command line.

Weights are read from safetensors or exported programs, never from pickles. A factory is code that the user names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmlib.core.data import decode
from fmlib.core.errors import FmlibError, require
from fmlib.explain.classifier import IMAGENET_MEAN, IMAGENET_STD
from fmlib.pipeline.disk.programs import load_program

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
#: Files that are looked at in a folder of pictures, at most.
MOST_FILES = 200_000


@dataclass
class Loaded:
    """A model, and what its publisher says of its inputs."""

    model: Any
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None  # side of the images, pixels
    device: torch.device | None = None  # where it must run


def load_model(name: str, weights: Path | None = None) -> Loaded:
    """A model by its name.

    Args:
        name: "torchvision:NAME", "timm:NAME", "package.module:factory" (called without arguments), or the path of a
            program written by `torch.export.save` (.pt2).
        weights: a safetensors file with the state of the model; by default the published weights are downloaded
            ("torchvision:", "timm:"), or the factory's are used.

    Raises:
        FmlibError: the model or its weights cannot be loaded.
    """
    if name.endswith(".pt2"):
        require(weights is None, "a .pt2 program has its weights inside: leave out --weights")
        return _exported(Path(name))
    source, _, rest = name.partition(":")
    require(bool(source and rest), f"unknown model {name!r}: torchvision:NAME, timm:NAME, module:factory or FILE.pt2")
    try:
        loaded = _named(source, rest, pretrained=weights is None)
    except FmlibError:
        raise
    except Exception as error:  # whatever a model's own code raises
        text = (str(error).splitlines() or [""])[0]
        raise FmlibError(f"cannot make the model {name}: {type(error).__name__}: {text}") from error
    if weights is not None:
        _restore(loaded.model, weights)
    return loaded


def _named(source: str, rest: str, *, pretrained: bool) -> Loaded:
    if source == "torchvision":
        from torchvision.models import get_model, list_models

        require(rest in list_models(), f"torchvision has no model {rest!r}: see torchvision.models.list_models()")
        return Loaded(get_model(rest, weights="DEFAULT" if pretrained else None), IMAGENET_MEAN, IMAGENET_STD, 224)
    if source == "timm":
        try:
            timm = importlib.import_module("timm")
        except ModuleNotFoundError as error:
            raise FmlibError("timm: models need that package: pip install timm") from error
        model = timm.create_model(rest, pretrained=pretrained)
        config = model.default_cfg
        return Loaded(model, tuple(config["mean"]), tuple(config["std"]), config["input_size"][-1])
    sys.path.insert(0, "")  # modules of the working folder
    try:
        factory: Any = importlib.import_module(source)
        for part in rest.split("."):
            factory = getattr(factory, part)
    finally:
        sys.path.remove("")
    require(callable(factory), f"{source}:{rest} cannot be called: name a function that returns the model")
    return Loaded(factory())


def _exported(path: Path) -> Loaded:
    """An exported program as a function: its module refuses `eval` and `train`. It runs where it was exported."""
    module = load_program(path).module()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    return Loaded(lambda images: module(images), device=device)


def _restore(model: Any, path: Path) -> None:
    """Load the state of a model from a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require(isinstance(model, nn.Module), "--weights need a model that is a torch.nn.Module")
    require(path.is_file(), f"there is no file {path}")
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise FmlibError(f"{path} is not a safetensors file: {error}. Convert it with safetensors.torch") from error
    except RuntimeError as error:
        fault = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()
        raise FmlibError(f"the weights in {path} do not fit the model: {fault[:200]}") from error


def find_images(folder: Path, count: int) -> list[Path]:
    """`count` pictures of a folder and those below it, evenly spaced in the order of their paths, or all if fewer.

    Links to folders are not followed.

    Raises:
        FmlibError: the folder does not exist or has no picture.
    """
    require(folder.is_dir(), f"there is no folder {folder}")
    require(count >= 1, f"--count must be at least 1, not {count}")
    found = []
    for seen, path in enumerate(folder.rglob("*")):
        require(seen < MOST_FILES, f"{folder} has more than {MOST_FILES} files: give a smaller folder")
        if path.suffix.lower() in SUFFIXES and path.is_file():
            found.append(path)
    require(bool(found), f"{folder} has no pictures ({', '.join(sorted(SUFFIXES))})")
    found.sort()
    return [found[index * len(found) // count] for index in range(count)] if len(found) > count else found


def load_image(path: Path, size: int, channels: int) -> Tensor:
    """A picture in [0, 1], (C, size, size): its shorter side resized to `size`, and the centre cropped.

    Raises:
        FmlibError: it cannot be decoded, or is too large to be a picture.
    """
    return decode(path, size, channels).float() / 255


def load_names(path: Path | None) -> list[str] | None:
    """Class names, one per line of a text file."""
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FmlibError(f"cannot read the class names in {path}: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    require(bool(names), f"{path} has no class names: write one per line")
    return names


def name_of(names: Sequence[str] | None, label: int) -> str:
    """The name of a class."""
    return names[label] if names is not None and label < len(names) else f"class {label}"
