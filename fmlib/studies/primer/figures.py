"""Pictures of the primer: an image as a sum of waves, filters, and what a penalty does to a mask."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib
import numpy as np
from IPython.display import HTML

from fmlib.core.spectra import corner_radius, radius
from fmlib.pipeline.plotting import STYLE, Picture, canvas, centred, show


def figure_waves(image: np.ndarray, counts: Sequence[int] = (1, 5, 50, 500)) -> Picture:
    """An image (H, W) as a sum of waves: one with the largest amplitude, the sums of more of them, and the image."""
    spectrum = np.fft.fft2(image - image.mean())
    order = np.argsort(-np.abs(spectrum), axis=None)
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 1.8), 1, len(counts) + 1)
        for one, count in zip(axes, counts, strict=False):
            kept = np.zeros(image.size)
            kept[order[: 2 * count]] = 1  # a wave of a real image has two entries, at f and -f
            waves = np.fft.ifft2(spectrum * kept.reshape(image.shape)).real + image.mean()
            show(one, waves, f"{count} wave{'s' * (count > 1)}", vmin=0, vmax=1)
        show(axes[-1], image, "all waves", vmin=0, vmax=1)
    return figure


def figure_filters(image: np.ndarray, fraction: float = 0.2) -> Picture:
    """An image (H, W), its spectrum, and what is left of it below and above a fraction of the corner radius."""
    spectrum = np.fft.fft2(image - image.mean())
    low = radius(*image.shape).numpy() <= fraction * corner_radius(*image.shape)
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas((7.4, 1.8), 1, 4)
        show(axes[0], image, "image", vmin=0, vmax=1)
        show(axes[1], centred(np.log1p(np.abs(spectrum))), "amplitudes (log)", cmap="magma")
        for one, mask, title in ((axes[2], low, "low frequencies"), (axes[3], ~low, "high frequencies")):
            show(one, np.fft.ifft2(spectrum * mask).real + image.mean(), title, vmin=0, vmax=1)
    return figure


def figure_masks(masks: Mapping[str, np.ndarray], images: Mapping[str, np.ndarray]) -> Picture:
    """Masks and what they leave of images, one row per network.

    Args:
        masks: name of the network -> (H, W), with DC at (0, 0).
        images: name of the network -> filtered images (n, H, W) in [0, 1].
    """
    columns = 1 + len(next(iter(images.values())))
    with matplotlib.rc_context(STYLE):
        figure, grid = canvas((7.4, 1.5 * len(masks)), len(masks), columns, squeeze=False)
        for (name, mask), (first, *rest) in zip(masks.items(), grid, strict=True):
            show(first, centred(mask), f"mask, mean {mask.mean():.3f}", vmin=0, vmax=1, cmap="viridis")
            first.set_ylabel(name)
            for one, image in zip(rest, images[name], strict=True):
                show(one, image, "", vmin=0, vmax=1)
    return figure


def choice(pictures: Mapping[str, Picture], legend: str, alt: str) -> HTML:
    """Pictures of which the reader chooses one; without a style sheet, all of them.

    Args:
        pictures: label of a choice -> its picture; the first is shown at first.
        legend: what is chosen.
        alt: what the pictures show; the label is added.
    """
    rules, buttons, figures = [], [], []
    for index, (label, picture) in enumerate(pictures.items()):
        name, data = f"choice-{index}", base64.b64encode(picture._repr_png_()).decode()
        rules.append(f".choice:has(#{name}:checked) .{name} {{ display: block; }}")
        checked = " checked" if index == 0 else ""
        buttons.append(f'<label><input type="radio" name="choice" id="{name}"{checked}> {escape(label)}</label>')
        source = f"data:image/png;base64,{data}"
        figures.append(f'<img class="{name}" src="{source}" alt="{escape(alt)} {escape(label)}." width="100%">')
    style = f"<style>@supports selector(:has(*)) {{ .choice img {{ display: none; }} {' '.join(rules)} }}</style>"
    field = f"<fieldset><legend>{escape(legend)}</legend>{' '.join(buttons)}</fieldset>"
    return HTML(f'{style}<div class="choice">{field}{"".join(figures)}</div>')
