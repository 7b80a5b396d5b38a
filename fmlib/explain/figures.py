"""Pictures of explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from fmlib.core.errors import require
from fmlib.pipeline.plotting import Picture, canvas, centred, show

if TYPE_CHECKING:
    from fmlib.explain.explanation import Explanation


def examples(found: Explanation, names: Sequence[str] | None, rows: int) -> Picture:
    """Images, masks, filtered images and complements, as `Explanation.plot` says."""
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
        picture(axes[row, 0], found.images[row], title)
        mask = masks[row] if masks[row].ndim == 2 else masks[row].mean(0)
        share = float(found.share[found.index[row]])
        show(axes[row, 1], mask**0.5, f"mask, mean {share:.4f}", cmap="magma", vmin=0, vmax=1)
        for column, pixels, kept in ((2, filtered, found.kept), (3, rest, found.kept_complement)):
            what = "mask applied" if column == 2 else "complement"
            picture(axes[row, column], pixels[row], f"{what}: {'kept' if kept[row] else 'lost'}")
    return figure


def picture(axes, pixels: Tensor, title: str) -> None:  # type: ignore[no-untyped-def]
    """Draw an image (C, H, W); one that has neither one nor three channels is drawn as their mean."""
    array = np.clip(pixels.float().cpu().numpy(), 0, 1)
    plane = array.transpose(1, 2, 0) if len(array) == 3 else array.mean(0)
    show(axes, plane, title, vmin=0, vmax=1)
