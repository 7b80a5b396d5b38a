"""Images and labels: splits on a device, and images from disk, decoded once to uint8."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from fmlib.core.config import ImageSpec, SyntheticSpec, fingerprint
from fmlib.core.errors import FmlibError, require

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

#: Named choices of five Imagenette classes: WordNet ids, and the numbers of training and validation images.
#: The paper's text and figures disagree on the five classes; "paper-text" matches the printed numbers of images.
SELECTIONS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "paper-text": (("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"), 4710, 1934),
    "paper-code": (("n02102040", "n03000684", "n03028079", "n03394916", "n03417042"), 4671, 1973),
}

#: What is read, whatever a file's name says. The decoders of some other formats start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


@dataclass
class Split:
    """Images as uint8 (N, C, H, W) and labels as int64 (N,), on one device.

    Example:
        >>> fmlib.Split(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.tensor([0, 1])).pixels().shape
        torch.Size([2, 3, 16, 16])
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """The images at `index` as float32 in [0, 1]: (B, C, H, W)."""
        return self.images[index].float() / 255

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (B, C, H, W) and labels (B,) in order, in batches of `size`."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.pixels(part), self.labels[part]


@dataclass
class Dataset:
    """A training and a validation split, and the names of the classes."""

    train: Split
    validation: Split
    classes: list[str]


def folders(spec: ImageSpec, root: Path | None) -> dict[str, ImageFolder]:
    """The folder trees `train` and `validation` of a data set, listed but not decoded.

    Raises `FmlibError` if a folder, a class or some of its images are missing.
    """
    from torchvision.datasets import ImageFolder

    if root is None:
        raise FmlibError("these images need a folder: give --data-root (or FMLIB_DATA), or run 'fmlib data --download'")
    require(
        root.is_dir(), f"data folder {root} does not exist: give another --data-root, or run 'fmlib data --download'"
    )
    base = root
    if spec.source == "imagenette":
        base = root / "imagenette2-160"
        fix = "extract the archive there, or run 'fmlib data --download'"
        require(base.is_dir(), f"no imagenette2-160 folder in {root}: {fix}")
    trees = {}
    for split, folder in (("train", "train"), ("validation", "val")):
        _require_no_links(base / folder)
        try:
            trees[split] = ImageFolder(str(base / folder))
        except (RuntimeError, FileNotFoundError) as error:
            raise FmlibError(
                f"{base / folder} does not have one folder of images per class: extract the data again"
            ) from error
    require(trees["train"].classes == trees["validation"].classes, f"train and val in {base} have different classes")
    if spec.selection != "all":
        _select(trees, spec.selection)
    return trees


def _require_no_links(tree: Path) -> None:
    """Raise `FmlibError` if a class holds a link to a folder: its images would count twice, or again and again."""
    for place in tree.glob("*/"):
        for parent, names, _ in os.walk(place):
            links = [name for name in names if os.path.islink(os.path.join(parent, name))]
            require(not links, f"{parent} has a link to a folder, {', '.join(links)}: remove it, or copy the folder")


def _select(trees: dict[str, ImageFolder], selection: str) -> None:
    """Reduce the trees to the classes of a selection, in its order."""
    require(selection in SELECTIONS, f"unknown selection {selection!r}: {', '.join(SELECTIONS)} or all")
    wanted, *counts = SELECTIONS[selection]
    for tree, count in zip(trees.values(), counts, strict=True):
        absent = [name for name in wanted if name not in tree.class_to_idx]
        require(not absent, f"{tree.root} lacks the class folders {', '.join(absent)}: extract the whole archive")
        tree.samples = [(path, wanted.index(tree.classes[c])) for path, c in tree.samples if tree.classes[c] in wanted]
        require(
            len(tree.samples) == count,
            f"{tree.root} has {len(tree.samples)} images of {selection}, not {count}: extract the archive again",
        )
    for tree in trees.values():
        tree.classes = list(wanted)


def source_fingerprint(spec: ImageSpec | SyntheticSpec, root: Path | None) -> str:
    """Fingerprint of the data: of every file's name and size, or of the spec of synthetic images."""
    if isinstance(spec, SyntheticSpec):
        return fingerprint(spec)
    listed = [
        (split, Path(path).parent.name, Path(path).name, Path(path).stat().st_size)
        for split, tree in folders(spec, root).items()
        for path, _ in tree.samples
    ]
    return fingerprint(sorted(listed))


def decode(path: str | Path, size: int, channels: int) -> Tensor:
    """A picture as uint8 (C, size, size): its shorter side resized to `size`, and the centre cropped.

    Raises `FmlibError` if it cannot be decoded, or is too large or too narrow to be a picture.
    """
    from torchvision.transforms import functional

    try:
        with Image.open(path, formats=FORMATS) as file:
            require(max(file.size) <= 50 * min(file.size), "more than 50 times as long as wide")
            image = functional.resize(file.convert("L" if channels == 1 else "RGB"), [size])
            return functional.pil_to_tensor(functional.center_crop(image, [size]))
    except Exception as error:  # decoders raise many kinds for a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FmlibError(f"cannot read the picture {path} ({reason}): replace or remove it") from error


def load_images(spec: ImageSpec, root: Path | None) -> Dataset:
    """Decode all images of `spec` below `root`, resized and centre-cropped to (C, size, size) uint8.

    Raises `FmlibError` for a missing or incomplete folder and for an image that cannot be decoded.
    """
    splits, names = {}, []
    for split, tree in folders(spec, root).items():
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda sample: decode(sample[0], spec.size, spec.channels), tree.samples))
        splits[split] = Split(torch.stack(images), torch.tensor([label for _, label in tree.samples]))
        names = tree.classes
    if spec.source == "imagenette":
        from torchvision.datasets import Imagenette

        known = Imagenette(str(root), split="val", size="160px")
        words = dict(zip(known.wnids, known.classes, strict=True))  # WordNet id -> names, the most common first
        names = [words[name][0] for name in names]
    return Dataset(splits["train"], splits["validation"], names)


def sample_image(name: str, size: int, channels: int = 1) -> Tensor:
    """scikit-learn's sample image "china" or "flower", gray or RGB, centre-cropped: uint8 (channels, size, size)."""
    from sklearn.datasets import load_sample_image
    from torchvision.transforms import functional

    image = torch.from_numpy(load_sample_image(f"{name}.jpg").copy()).permute(2, 0, 1)  # (3, H, W)
    shown = functional.rgb_to_grayscale(image) if channels == 1 else image
    return functional.center_crop(functional.resize(shown, [size], antialias=True), [size])
