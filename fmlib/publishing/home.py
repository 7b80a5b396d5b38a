"""The findings on the home page: a few claims, each with a headline and a small picture."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import matplotlib
from IPython.display import HTML

from fmlib.pipeline.plotting import BLUE, GREEN, STYLE, VERMILION, Picture, canvas, centred, show
from fmlib.pipeline.results import Results
from fmlib.publishing.notebook import findings

SIZE = (3.6, 1.7)  # inches


@dataclass(frozen=True)
class Illustration:
    """What stands above the card of a claim.

    Attributes:
        headline: the finding, in a few plain words.
        draw: the picture, from results.
        alt: the picture in words.
    """

    headline: str
    draw: Callable[[Results], Picture]
    alt: str


def illustrated(results: Results, *identities: str) -> HTML:
    """Cards of claims as `notebook.findings`, each below its headline and picture.

    Args:
        identities: keys of `ILLUSTRATIONS`.
    """
    return findings(results, *identities, above={identity: _above(identity, results) for identity in identities})


def _above(identity: str, results: Results) -> str:
    """A headline and a picture, as HTML."""
    shown = ILLUSTRATIONS[identity]
    data = base64.b64encode(shown.draw(results)._repr_png_()).decode()
    return f'<h3>{shown.headline}</h3><img src="data:image/png;base64,{data}" alt="{shown.alt}">'


def _dataset_masks(first: str, second: str) -> Callable[[Results], Picture]:
    """Draws the dataset masks of two networks, such as "N" and "A"."""
    names = {"N": "standard", "A": "adversarial training", "T": "translated images"}

    def draw(results: Results) -> Picture:
        masks = results.arrays("dataset_masks")
        with matplotlib.rc_context(STYLE):
            figure, axes = canvas(SIZE, 1, 2)
            for one, name in zip(axes, (first, second), strict=True):
                show(one, centred(masks[name][0]), names[name], vmin=0, vmax=1, cmap="viridis")
        return figure

    return draw


def _one_image(results: Results) -> Picture:
    """An image, its mask and what the mask leaves of it."""
    samples = {name: array[0, 0].astype(float) for name, array in results.arrays("samples").items() if array.ndim > 2}
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(SIZE, 1, 3)
        show(axes[0], samples["x"], "image", vmin=0, vmax=1)
        show(axes[1], centred(samples["mask"]), "its mask", vmin=0, vmax=1, cmap="viridis")
        show(axes[2], samples["masked"], "what is left", vmin=0, vmax=1)
    return figure


def _bars(values: Mapping[str, float], label: str) -> Picture:
    """Percentages as bars, the first at the top."""
    with matplotlib.rc_context(STYLE):
        figure, axes = canvas(SIZE)
        colours = (BLUE, VERMILION, GREEN)[: len(values)]
        bars = axes.barh(list(values), list(values.values()), 0.6, color=colours)
        axes.bar_label(bars, fmt="%.0f", padding=3)
        axes.set(xlim=(0, 115), xticks=(0, 50, 100), xlabel=label)
        axes.invert_yaxis()
    return figure


def _own_and_random(results: Results) -> Picture:
    """Predictions kept by the frequencies of the mask, and by as many others of the same radii."""
    curves = results.arrays("necessity")
    names = {"the mask's\nfrequencies": "keep.own", "random, of\nthe same radii": "keep.matched"}
    return _bars({name: 100 * curves[kind][-1].mean() for name, kind in names.items()}, "predictions kept (%)")


def _published_and_here(identity: str, label: str) -> Callable[[Results], Picture]:
    """Draws a claim's published value and ours, in percent."""

    def draw(results: Results) -> Picture:
        row = results.claim(identity)
        here = {} if row["value"] is None else {"here": row["value"]}
        return _bars({"published": row["published"]} | here, label)

    return draw


def _robust_accuracy(results: Results) -> Picture:
    """Robust accuracy of three networks: standard, with a penalty on the Jacobian norm, adversarially trained."""
    arrays = results.arrays("robustness")
    names = {"standard": "N", "Jacobian norm\npenalised": "N_small", "adversarial\ntraining": "A"}
    keys = {name: f"AutoAttack.{kind}" for name, kind in names.items()}
    values = {name: 100 * arrays[key].mean() for name, key in keys.items() if key in arrays}
    return _bars(values, "accuracy under AutoAttack (%)")


#: Claim id -> what stands above its card.
ILLUSTRATIONS = {
    "F4.A.low_shift": Illustration(
        "Robust networks need only low frequencies",
        _dataset_masks("N", "A"),
        "The mask of the standard network is broad, that of the adversarially trained network a small star.",
    ),
    "F5.nonzero_share": Illustration(
        "A few frequencies decide a prediction",
        _one_image,
        "A photograph, its mask of few frequencies, and the blurred photograph that these frequencies make.",
    ),
    "C.own_vs_random": Illustration(
        "Which frequencies matters, not only how high",
        _own_and_random,
        "Bars: the mask's own frequencies keep more predictions than random ones of the same radii.",
    ),
    "F4.T.low_shift": Illustration(
        "Translated training images do not lower frequencies",
        _dataset_masks("N", "T"),
        "The mask of the network trained on translated images reaches higher frequencies than the standard one's.",
    ),
    "T2.masked_adversarial": Illustration(
        "Masks undo nearly every attack, not six in ten",
        _published_and_here("T2.masked_adversarial", "attacked images classified correctly (%)"),
        "Bars: the published percentage and the larger one measured here.",
    ),
    "T3.shuffled_train": Illustration(
        "Shuffled labels can be fitted as well",
        _published_and_here("T3.shuffled_train", "training accuracy, shuffled labels (%)"),
        "Bars: the published percentage and the much larger one measured here.",
    ),
    "J.attack.N_small": Illustration(
        "A small Jacobian makes a network robust, without any attack in training",
        _robust_accuracy,
        "Bars: accuracy under attack is near zero for the standard network and close to that of adversarial training "
        "for the network with a penalised Jacobian norm.",
    ),
}
