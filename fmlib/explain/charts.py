"""Charts as SVG text for pages without scripts: curves with bands, intervals, and the plane of the heat map.

Colours are the custom properties --c0, --c1, ... and --muted of the page, which differ in the light and in the dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from fmlib.core.intervals import Measured

#: How lines of the same chart differ beside their colour.
DASHES = ("", "6 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2")
COLOURS = 6
#: Margins of a chart of curves, in its units: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 10, 34
WIDTH, HEIGHT = 360, 220


@dataclass
class Line:
    """A curve: positions x (bands,), and value, low and high at each, (bands, 3)."""

    name: str
    x: np.ndarray
    y: np.ndarray


def stroke(index: int) -> str:
    """The colour and dashes of line number `index`, as attributes."""
    dashes = DASHES[(index // COLOURS + index) % len(DASHES)]
    return f'stroke="var(--c{index % COLOURS})"' + (f' stroke-dasharray="{dashes}"' if dashes else "")


def curves(
    lines: Sequence[Line], across: str, up: str, right: float, alt: str, mark: tuple[float, str] | None = None
) -> str:
    """A chart of curves with their 95% bands, and a legend below it.

    Args:
        lines: the curves.
        across, up: the labels of the axes.
        right: the largest x; the smallest is 0.
        alt: the chart in words, for readers who do not see it.
        mark: a position on the x axis and its name.
    """
    top = _ceiling(max(float(line.y.max()) for line in lines))
    parts = [_grid(right, top, across, up)]

    def place(x: np.ndarray, y: np.ndarray) -> list[str]:
        px = LEFT + (WIDTH - LEFT - RIGHT) * np.asarray(x) / right
        py = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * np.asarray(y).clip(0) / top
        return [f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True)]

    if mark is not None and mark[0] < right:
        x = float(place(np.array([mark[0]]), np.array([0.0]))[0].split(",")[0])
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" class="mark"/>'
            f'<text x="{x + 4:.1f}" y="{TOP + 9}">{escape(mark[1])}</text>'
        )
    for index, line in enumerate(lines):
        band = " ".join([*place(line.x, line.y[:, 1]), *reversed(place(line.x, line.y[:, 2]))])
        parts.append(f'<polygon points="{band}" fill="var(--c{index % COLOURS})" opacity="0.15"/>')
        parts.append(f'<polyline points="{" ".join(place(line.x, line.y[:, 0]))}" class="curve" {stroke(index)}/>')
    drawn = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
    return drawn + legend([line.name for line in lines])


def legend(names: Sequence[str]) -> str:
    """The names of lines beside a piece of each."""
    entries = "".join(
        f'<li><svg viewBox="0 0 26 8" class="key" aria-hidden="true"><line x1="1" y1="4" x2="25" y2="4" class="curve" '
        f"{stroke(index)}/></svg>{escape(name)}</li>"
        for index, name in enumerate(names)
    )
    return f'<ul class="legend">{entries}</ul>'


def _grid(right: float, top: float, across: str, up: str) -> str:
    """Axes with four intervals each, and their labels."""
    parts = []
    for step in range(5):
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / 4
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * step / 4
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{top * step / 4:g}</text>')
        anchor = "end" if step == 4 else "middle"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="{anchor}">{right * step / 4:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(across)}</text>')
    parts.append(
        f'<text transform="translate(10 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(up)}</text>"
    )
    return "".join(parts)


def _ceiling(value: float) -> float:
    """The smallest round number, of which a quarter is round too, that is at least `value`; 1 for zero."""
    if not 0 < value < math.inf:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        (step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8) if value <= step * power * (1 + 1e-9)), 10 * power
    )


def intervals(values: Sequence[tuple[Measured | None, str]]) -> str:
    """Values in percent with their intervals, one above the other, on a line from 0 to 100.

    It repeats numbers that stand beside it, so it is hidden from screen readers.

    Args:
        values: each with the number or name of its colour: "0", "1", ... or "muted".
    """
    parts = []
    shown = [(value, colour) for value, colour in values if value is not None]
    for row, (value, colour) in enumerate(shown):
        y, paint = 8 + 12 * row, "var(--muted)" if colour == "muted" else f"var(--c{colour})"
        low, middle, high = (6 + 1.48 * min(max(part, 0.0), 100.0) for part in (value.low, value.value, value.high))
        parts.append(f'<line x1="6" y1="{y}" x2="154" y2="{y}" class="grid"/>')
        parts.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{paint}" stroke-width="3"/>')
        parts.append(f'<circle cx="{middle:.1f}" cy="{y}" r="4" fill="{paint}"/>')
    height = 4 + 12 * len(shown)
    return f'<svg viewBox="0 0 160 {height}" class="interval" aria-hidden="true">{"".join(parts)}</svg>'


def plane(frequencies: np.ndarray, shares: np.ndarray, size: Sequence[int], alt: str) -> str:
    """Shares in [0, 1] at frequencies of the half plane, and opposite them: discs whose area is the share.

    Args:
        frequencies: (F, 2), cycles per image; rows may be counted from 0 to H - 1.
        shares: (F,).
        size: (H, W) of the images.
        alt: the same in words, for readers who do not see it.
    """
    height, width = size
    parts = [
        f'<circle cx="180" cy="112" r="{100 * part:.1f}" class="grid" fill="none"/>' for part in (0.25, 0.5, 0.75, 1)
    ]
    for (down, across), share in zip(frequencies.tolist(), shares.tolist(), strict=True):
        down = down - height if down > height / 2 else down
        x, y = 100 * across / (width / 2), 100 * down / (height / 2)
        for sign in (1, -1):
            parts.append(
                f'<circle cx="{180 + sign * x:.1f}" cy="{112 + sign * y:.1f}" r="{0.8 + 7.5 * math.sqrt(share):.1f}" '
                'fill="var(--c1)" fill-opacity="0.55" stroke="var(--c1)"/>'
            )
    parts.append('<text x="350" y="232" text-anchor="end">outer ring: Nyquist frequency</text>')
    return f'<svg viewBox="0 0 360 236" role="img" aria-label="{escape(alt)}">{"".join(parts)}</svg>'
