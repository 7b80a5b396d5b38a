"""Images and labels: photographs decoded once to uint8, planted frequencies, augmentation on the device."""

from __future__ import annotations

import math
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

from fmlib.config import FmlibError, PhotoSpec, PlantedSpec, fingerprint, require
from fmlib.runtime import generator

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


# ---------------------------------------------------------------------------------------------- photographs


def folders(spec: PhotoSpec, root: Path | None) -> dict[str, ImageFolder]:
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


def source_fingerprint(spec: PhotoSpec | PlantedSpec, root: Path | None) -> str:
    """Identity of the data: for photographs, a hash of every file's name and size; for planted data, the spec."""
    if isinstance(spec, PlantedSpec):
        return fingerprint(spec)
    listed = [
        (split, Path(path).parent.name, Path(path).name, Path(path).stat().st_size)
        for split, tree in folders(spec, root).items()
        for path, _ in tree.samples
    ]
    return fingerprint(sorted(listed))


def _decode(path: str, spec: PhotoSpec) -> Tensor:
    try:
        with Image.open(path) as file:
            picture = file.convert("L" if spec.channels == 1 else "RGB")
            square = functional.center_crop(functional.resize(picture, [spec.size]), [spec.size])
    except (OSError, UnidentifiedImageError) as error:
        raise FmlibError(f"cannot decode {path} ({error}): replace the file, or extract the data again") from error
    return functional.pil_to_tensor(square)  # (C, size, size) uint8


def load_photographs(spec: PhotoSpec, root: Path | None) -> Dataset:
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


def sample_photograph(name: str, size: int) -> Tensor:
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


# --------------------------------------------------------------------------------------- planted frequencies


def planted_tones(spec: PlantedSpec, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Frequencies (row, column) of the class tones (classes, 2) and of the distractors (distractors, 2).

    All differ, stay off DC, off the axes and below Nyquist, and none is the mirror of another.
    """
    reach = spec.size // 2 - 2
    grid = torch.cartesian_prod(torch.arange(-reach, reach + 1), torch.arange(1, reach + 1))
    grid = grid[(grid[:, 0] != 0) & (grid.float().norm(dim=1) >= 3)]
    order = torch.randperm(len(grid), generator=generator(seed, "planted tones"))
    wanted = spec.classes + spec.distractors
    require(
        wanted <= len(grid), f"{wanted} tones do not fit into {spec.size} px: take fewer distractors or larger images"
    )
    chosen = grid[order[:wanted]]
    return chosen[: spec.classes], chosen[spec.classes :]


def tone_mask(tones: Tensor, size: int) -> Tensor:
    """The full mask (size, size) that is 1 at `tones` (n, 2) and their mirrors, else 0."""
    mask = torch.zeros(size, size)
    for row, column in tones.tolist():
        mask[row % size, column % size] = mask[-row % size, -column % size] = 1
    return mask


def _waves(tones: Tensor, size: int, phases: Tensor) -> Tensor:
    """cos(2 pi f . r + phase): tones (n, 2), phases (n,) -> (n, size, size)."""
    rows = torch.arange(size)[:, None] / size
    columns = torch.arange(size)[None, :] / size
    turns = tones[:, 0, None, None] * rows + tones[:, 1, None, None] * columns
    return torch.cos(2 * math.pi * turns + phases[:, None, None])


def make_planted(spec: PlantedSpec, seed: int = 0) -> Dataset:
    """Images 1/2 + noise + class tone + distractors, clipped to [0, 1], uint8 (N, 1, size, size), random phases.

    Whatever the class, the noise has a strength of its own in every image, uniform from 0, and each distractor is
    absent from half of the images: they say nothing of the class, and an image without them is nothing new.
    """
    tones, distractors = planted_tones(spec, seed)
    falloff = torch.fft.rfftfreq(spec.size) * spec.size
    rows = torch.fft.fftfreq(spec.size) * spec.size
    envelope = 1 / torch.hypot(rows[:, None], falloff[None, :]).clamp_min(1)

    def split(count: int, name: str) -> Split:
        draws = generator(seed, f"planted {name}")
        labels = torch.arange(count) % spec.classes
        white = torch.randn(count, spec.size, spec.size, generator=draws)
        noise = torch.fft.irfft2(torch.fft.rfft2(white) * envelope, s=(spec.size, spec.size))
        levels = spec.noise * torch.rand(count, 1, 1, generator=draws)
        images = 0.5 + levels * noise / noise.std((1, 2), keepdim=True)
        images += spec.amplitude * _waves(tones[labels], spec.size, 2 * math.pi * torch.rand(count, generator=draws))
        for distractor in distractors:
            phases = 2 * math.pi * torch.rand(count, generator=draws)
            heights = spec.amplitude * (2 * torch.rand(count, 1, 1, generator=draws) - 1).clamp_min(0)
            images += heights * _waves(distractor.expand(count, 2), spec.size, phases)
        return Split((images.clamp(0, 1) * 255).round().to(torch.uint8)[:, None], labels)

    names = [f"tone ({row}, {column})" for row, column in tones.tolist()]
    return Dataset(split(spec.train, "train"), split(spec.validation, "validation"), names)


def load(spec: PhotoSpec | PlantedSpec, root: Path | None = None, seed: int = 0) -> Dataset:
    """The data set of a spec, decoded or made."""
    if isinstance(spec, PlantedSpec):
        return make_planted(spec, seed)
    return load_photographs(spec, root)


# ---------------------------------------------------------------------------------------------- augmentation


def random_affine(
    count: int,
    draws: torch.Generator,
    *,
    flip: bool = False,
    crop: tuple[float, float] = (1.0, 1.0),
    scale: tuple[float, float] = (1.0, 1.0),
    translation: float = 0.0,
    rotation: float = 0.0,
) -> Tensor:
    """One random affine map an image, (count, 2, 3), from output to input coordinates in [-1, 1]^2.

    crop: range of the area that is cut out and enlarged, sides in ratio 3/4 to 4/3; scale: range of the zoom;
    translation: largest shift as a fraction of the side; rotation: largest angle, degrees, either way.
    The crop and the flip come first, then zoom, rotation and shift, all in one warp.
    """
    device = draws.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=draws, device=device)

    area, ratio = uniform(*crop), torch.exp(uniform(math.log(3 / 4), math.log(4 / 3)) * (crop != (1.0, 1.0)))
    width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
    centre_x, centre_y = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    mirror = 1 - 2 * (uniform(0, 1) < 0.5).float() * flip

    zoom, turn = uniform(*scale), uniform(-rotation, rotation) * math.pi / 180
    shift_x, shift_y = 2 * uniform(-translation, translation), 2 * uniform(-translation, translation)
    cos, sin = torch.cos(turn) / zoom, torch.sin(turn) / zoom
    inner = torch.stack((cos, sin, -sin, cos), -1).view(-1, 2, 2)
    offset = -(inner @ torch.stack((shift_x, shift_y), -1)[:, :, None])  # undo the shift, then turn and zoom
    frame = torch.stack((width * mirror, height), -1)[:, :, None]
    centre = torch.stack((centre_x, centre_y), -1)[:, :, None]
    return torch.cat((frame * inner, frame * offset + centre), -1)


def warp(images: Tensor, affine: Tensor) -> Tensor:
    """Each image (B, C, H, W) under its own map (B, 2, 3), bilinear; black outside the picture."""
    grid = torch.nn.functional.affine_grid(affine, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
