"""Images and labels: photographs decoded once to uint8, planted frequencies, augmentation on the device."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.datasets import ImageFolder, Imagenette
from torchvision.transforms import functional

from fmlib.core.config import ImageSpec, SyntheticSpec, fingerprint
from fmlib.core.errors import FmlibError, require

#: Named choices of five Imagenette classes: WordNet ids, and the numbers of training and validation images.
#: The paper's text and figures disagree on the five classes; "paper-text" gives the counts it prints.
SELECTIONS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "paper-text": (("n01440764", "n02102040", "n02979186", "n03000684", "n03028079"), 4710, 1934),
    "paper-code": (("n02102040", "n03000684", "n03028079", "n03394916", "n03417042"), 4671, 1973),
}


@dataclass
class Split:
    """Images as uint8 (N, C, H, W) and labels as int64 (N,), on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Split:
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def pixels(self, index: Tensor | slice = slice(None)) -> Tensor:
        """Chosen images as float32 in [0, 1]: (B, C, H, W)."""
        return self.images[index].float() / 255

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels and labels in order, `size` at a time."""
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
    """The two folder trees of a photographic data set, `train` and `validation`, listed but not decoded.

    Raises `FmlibError` if the folder is missing, or a class or part of its images is.
    """
    if root is None:
        raise FmlibError(
            "this profile needs photographs: give --data-root (or FMLIB_DATA), or run 'fmlib data --download'"
        )
    require(
        root.is_dir(), f"data folder {root} does not exist: give another --data-root, or run 'fmlib data --download'"
    )
    base = root
    if spec.source == "imagenette":
        base = root / "imagenette2-160"
        mend = "extract the archive there, or run 'fmlib data --download'"
        require(base.is_dir(), f"no imagenette2-160 folder in {root}: {mend}")
    found = {}
    for split, folder in (("train", "train"), ("validation", "val")):
        try:
            found[split] = ImageFolder(str(base / folder))
        except (RuntimeError, FileNotFoundError) as error:
            raise FmlibError(
                f"{base / folder} holds no folders of images, one a class: extract the data again"
            ) from error
    require(found["train"].classes == found["validation"].classes, f"train and val in {base} have different classes")
    if spec.selection != "all":
        require(spec.selection in SELECTIONS, f"unknown selection {spec.selection!r}: {', '.join(SELECTIONS)} or all")
        wanted, *counts = SELECTIONS[spec.selection]
        for tree, count in zip(found.values(), counts, strict=True):
            absent = [name for name in wanted if name not in tree.class_to_idx]
            require(not absent, f"{tree.root} lacks the class folders {', '.join(absent)}: extract the whole archive")
            tree.samples = [
                (path, wanted.index(tree.classes[c])) for path, c in tree.samples if tree.classes[c] in wanted
            ]
            require(
                len(tree.samples) == count,
                f"{tree.root} has {len(tree.samples)} images of {spec.selection}, not {count}: extract again",
            )
        for tree in found.values():
            tree.classes = list(wanted)
    return found


def source_fingerprint(spec: ImageSpec | SyntheticSpec, root: Path | None) -> str:
    """Identity of the data: for photographs, a hash of every file's name and size; for planted data, the spec."""
    if isinstance(spec, SyntheticSpec):
        return fingerprint(spec)
    listed = [
        (split, Path(path).parent.name, Path(path).name, Path(path).stat().st_size)
        for split, tree in folders(spec, root).items()
        for path, _ in tree.samples
    ]
    return fingerprint(sorted(listed))


def _decode(path: str, spec: ImageSpec) -> Tensor:
    try:
        with Image.open(path) as file:
            picture = file.convert("L" if spec.channels == 1 else "RGB")
            square = functional.center_crop(functional.resize(picture, [spec.size]), [spec.size])
    except (OSError, UnidentifiedImageError) as error:
        raise FmlibError(f"cannot decode {path} ({error}): replace the file, or extract the data again") from error
    return functional.pil_to_tensor(square)  # (C, size, size) uint8


def load_images(spec: ImageSpec, root: Path | None) -> Dataset:
    """Decode all photographs of `spec` found under `root`, resized and centre-cropped to (C, size, size) uint8.

    Raises `FmlibError` for a missing or partial folder and for an image that cannot be decoded.
    """
    splits, names = {}, []
    for split, tree in folders(spec, root).items():
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda sample: _decode(sample[0], spec), tree.samples))
        splits[split] = Split(torch.stack(images), torch.tensor([label for _, label in tree.samples]))
        names = tree.classes
    if spec.source == "imagenette":
        known = Imagenette(str(root), split="val", size="160px")
        words = dict(zip(known.wnids, known.classes, strict=True))  # WordNet id -> names, the common one first
        names = [words[name][0] for name in names]
    return Dataset(splits["train"], splits["validation"], names)


def sample_image(name: str, size: int) -> Tensor:
    """scikit-learn's photograph of that name, "china" or "flower", gray and centre-cropped: uint8 (1, size, size)."""
    photograph = torch.from_numpy(load_sample_image(f"{name}.jpg").copy()).permute(2, 0, 1)  # (3, H, W)
    gray = functional.resize(functional.rgb_to_grayscale(photograph), [size], antialias=True)
    return functional.center_crop(gray, [size])


def download(root: Path) -> None:
    """Fetch Imagenette (160 px) into `root` through torchvision, which checks the archive.

    Raises `FmlibError` if it cannot be fetched or is damaged.
    """
    if not (root / "imagenette2-160").is_dir():
        try:
            root.mkdir(parents=True, exist_ok=True)
            Imagenette(str(root), split="train", size="160px", download=True)
        except (OSError, RuntimeError) as error:
            raise FmlibError(
                f"cannot fetch Imagenette into {root} ({error}): check the connection and try again"
            ) from error
