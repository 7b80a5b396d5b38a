"""Masks of a model together with the images they were learned from: what is kept, curves, files and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fmlib import __version__
from fmlib.core.errors import FmlibError, require
from fmlib.core.masks import Masks
from fmlib.core.spectra import angular_energy, apply_mask, complement, l1_share, radial_energy
from fmlib.explain.classifier import Classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fmlib.pipeline.plotting import Picture

#: What a file of an explanation holds, beside its description; the history of the fit is not saved.
TENSORS = ("half", "converged", "epochs", "images", "labels", "index", "centre", "kept", "kept_complement")


@dataclass
class Explanation:
    """Learned masks and what the model does with them applied.

    Attributes:
        masks: K masks.
        images: pixels in [0, 1], (N, C, H, W).
        labels: whose loss the masks keep, (N,).
        index: the mask of each image, (N,).
        centre: gray level about which the masks filter, (C, 1, 1) or (1, 1, 1).
        kept: (N,) bool, whether the model predicts the label from the filtered image.
        kept_complement: (N,) bool, the same with only those frequencies that are not in the mask.
        about: solver's spec, seed, versions, and a hash of the model's weights.

    Example:
        >>> found = fmlib.FourierMask(network, steps=20).fit(images[:4])
        >>> found.share.shape, found.radial_energy(8).shape
        (torch.Size([4]), torch.Size([4, 8]))
    """

    masks: Masks
    images: Tensor
    labels: Tensor
    index: Tensor
    centre: Tensor
    kept: Tensor
    kept_complement: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        pixels: Tensor,
        labels: Tensor,
        index: Tensor,
        masks: Masks,
        spec: Any,
        seed: int | None,
    ) -> Explanation:
        """The explanation of a classifier by its masks; the arguments are those of `FourierMask._learn`."""
        centre = classifier.centre.to(pixels)
        about = {
            "spec": {"type": type(spec).__name__} | asdict(spec),
            "seed": seed,
            "fmlib": __version__,
            "torch": torch.__version__,
            "weights_sha256": classifier.fingerprint(),
        }
        found = cls(masks, pixels, labels, index, centre, labels == labels, labels == labels, about)
        found.kept = classifier.predict(found.filtered) == labels
        found.kept_complement = classifier.predict(found.complement) == labels
        return found

    @property
    def half(self) -> Tensor:
        """The mask of each image as a half plane, (N, H, W // 2 + 1) or (N, C, H, W // 2 + 1)."""
        return self.masks.half[self.index]

    @property
    def filtered(self) -> Tensor:
        """The images with their masks applied, pixels (N, C, H, W)."""
        return apply_mask(self.images, self.half, self.centre)

    @property
    def complement(self) -> Tensor:
        """The images with only the frequencies that are not in their masks, pixels (N, C, H, W)."""
        return apply_mask(self.images, complement(self.half), self.centre)

    @property
    def share(self) -> Tensor:
        """The mean of each mask over the plane (and the channels), (K,)."""
        shares = l1_share(self.masks.half, self.masks.width)
        return shares if shares.ndim == 1 else shares.mean(1)

    @property
    def nonzero_share(self) -> Tensor:
        """Share of the frequencies that are in each mask, (K,)."""
        shares = l1_share((self.masks.half > 0).to(self.masks.half.dtype), self.masks.width)
        return shares if shares.ndim == 1 else shares.mean(1)

    def radial_energy(self, bands: int = 64) -> Tensor:
        """Energy of the masks in rings, see `fmlib.radial_energy`: (K, bands) or (K, C, bands)."""
        return radial_energy(self.masks.full(), bands)

    def angular_energy(self, bands: int = 64) -> Tensor:
        """Energy of the masks in sectors, see `fmlib.angular_energy`: (K, bands) or (K, C, bands)."""
        return angular_energy(self.masks.full(), bands)

    def save(self, path: str | Path) -> None:
        """Write everything but the history of the fit to a safetensors file.

        Raises:
            FmlibError: the file cannot be written.
        """
        values = {name: getattr(self.masks if hasattr(self.masks, name) else self, name) for name in TENSORS}
        values["half"] = self.masks.half
        about = json.dumps(self.about | {"width": self.masks.width})
        content = save({name: value.contiguous().cpu() for name, value in values.items()}, {"about": about})
        try:
            Path(path).write_bytes(content)
        except OSError as error:
            raise FmlibError(f"cannot write {path}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read what `save` wrote.

        Raises:
            FmlibError: the file is missing, damaged or of another kind.
        """
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                values = {name: file.get_tensor(name) for name in TENSORS}
            width = int(about.pop("width"))
        except (OSError, SafetensorError, AttributeError, KeyError, ValueError, TypeError) as error:
            raise FmlibError(f"{path} is not a file of fmlib's masks: {' '.join(str(error).split())}") from error
        require(_fits(values, width), f"{path} is damaged: its masks, images and labels do not fit together")
        masks = Masks(values.pop("half"), width, values.pop("converged"), values.pop("epochs"), {})
        return cls(masks, **values, about=about)

    def plot(self, names: Sequence[str] | None = None, rows: int = 6) -> Figure:
        """Images, their masks, the filtered images and the complements, one image per row.

        Args:
            names: of the classes.
            rows: number of images, the first ones.

        Raises:
            FmlibError: there are fewer names than the labels need.
        """
        return _examples(self, names, rows)


def _fits(values: dict[str, Tensor], width: int) -> bool:
    """Whether the tensors of a file have the shapes that `Explanation` and `Masks` promise."""
    half, images, index, centre = (values[name] for name in ("half", "images", "index", "centre"))
    if images.ndim != 4 or half.ndim not in (3, 4) or centre.ndim != 3:
        return False
    fits = (*half.shape[-2:], images.shape[3]) == (images.shape[2], width // 2 + 1, width)
    fits &= half.ndim == 3 or half.shape[1] == images.shape[1]
    fits &= all(values[name].shape == images.shape[:1] for name in ("labels", "index", "kept", "kept_complement"))
    fits &= all(values[name].shape == half.shape[:1] for name in ("converged", "epochs"))
    return bool(fits) and len(index) > 0 and int(index.min()) >= 0 and int(index.max()) < len(half)


def _examples(found: Explanation, names: Sequence[str] | None, rows: int) -> Picture:
    """Images, masks, filtered images and complements, as `Explanation.plot` says."""
    from fmlib.pipeline.plotting import canvas, centred, show

    require(rows >= 1, f"rows must be at least 1, not {rows}")
    rows = min(rows, len(found.images))
    needed = int(found.labels[:rows].max()) + 1
    require(names is None or len(names) >= needed, f"the labels need {needed} names, not {len(names or ())}")
    figure, axes = canvas((8.2, 2.1 * rows), rows, 4, squeeze=False)
    masks = centred(found.masks.full()[found.index[:rows]].float().cpu().numpy())
    filtered, rest = found.filtered[:rows], found.complement[:rows]
    for row in range(rows):
        label = int(found.labels[row])
        title = names[label] if names else f"class {label}"
        _picture(axes[row, 0], found.images[row], title)
        mask = masks[row] if masks[row].ndim == 2 else masks[row].mean(0)
        share = float(found.share[found.index[row]])
        show(axes[row, 1], mask**0.5, f"mask, mean {share:.4f}", cmap="magma", vmin=0, vmax=1)
        for column, pixels, kept in ((2, filtered, found.kept), (3, rest, found.kept_complement)):
            what = "mask applied" if column == 2 else "complement"
            _picture(axes[row, column], pixels[row], f"{what}: {'kept' if kept[row] else 'lost'}")
    return figure


def _picture(axes, pixels: Tensor, title: str) -> None:  # type: ignore[no-untyped-def]
    """Draw an image (C, H, W); one that has neither one nor three channels is drawn as their mean."""
    from fmlib.pipeline.plotting import show

    array = np.clip(pixels.float().cpu().numpy(), 0, 1)
    plane = array.transpose(1, 2, 0) if len(array) == 3 else array.mean(0)
    show(axes, plane, title, vmin=0, vmax=1)
