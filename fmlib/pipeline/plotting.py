"""What every figure shares: style, colours, and how planes of numbers are drawn.

The colours are those of Okabe and Ito, which readers with colour-vision deficiency can distinguish. Masks and spectra
are drawn with DC in the middle.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

BLUE, VERMILION, GREEN, ORANGE, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7"
GRAY = "#767676"

STYLE: Any = {
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "legend.fontsize": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8,
}  # fmt: skip


class Picture(Figure):
    """A figure that every notebook shows by itself, as a PNG."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def canvas(size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any) -> tuple[Picture, Any]:
    """An empty picture of `size` inches (width, height), and its axes; `options` are those of `Figure.subplots`."""
    figure = Picture(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def show(axes: Axes, plane: np.ndarray, title: str, **options: object) -> AxesImage:
    """Draw a plane of numbers (H, W) as an image without ticks; `options` are those of `Axes.imshow`."""
    options = {"cmap": "gray", "interpolation": "nearest"} | options
    image = axes.imshow(plane, **options)  # type: ignore[arg-type]
    axes.set_title(title)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return image


def centred(plane: np.ndarray) -> np.ndarray:
    """Planes (..., H, W) with DC at (0, 0), rolled so that DC is in the middle."""
    return np.fft.fftshift(plane, axes=(-2, -1))


def label_rows(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Write a name beside each of `axes`, those of the first column."""
    for row, name in zip(axes, names, strict=True):
        row.set_ylabel(name.replace(" ", "\n", 1), rotation=0, ha="right", va="center", fontsize=9)
