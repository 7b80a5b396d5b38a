"""The full names of networks, their markers and colours, and the order in which pages show them.

Names of networks are those of `Profile.training`, such as "F+".
"""

from __future__ import annotations

from collections.abc import Iterable

from fmlib.core.augment import NETWORK_NAMES
from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, PURPLE, VERMILION

#: First letter of a network's name, its regime, in the order of pages -> its marker.
MARKERS = {"N": "o", "F": "s", "A": "^", "S": "D", "T": "v", "R": "P"}

#: The rest of a network's name -> its bias and colour.
BIASES = {
    "": ("", GRAY),
    "+": ("JaFR low", BLUE),
    "++": ("10\N{MULTIPLICATION SIGN} JaFR low", "#003B5C"),
    "-": ("JaFR high", VERMILION),
    "--": ("10\N{MULTIPLICATION SIGN} JaFR high", "#7A3400"),
    "_low": ("Fourier sensitivity low", GREEN),
    "_high": ("Fourier sensitivity high", ORANGE),
    "_small": ("Jacobian norm", PURPLE),
}


def minus(text: str) -> str:
    """A name or number with a typographic minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def full_name(name: str) -> str:
    """A network's full name, such as "standard, JaFR low (N+)"."""
    parts = (NETWORK_NAMES[name[0]], BIASES[name[1:]][0])
    return f"{', '.join(filter(None, parts))} ({minus(name)})"


def in_order(names: Iterable[str]) -> list[str]:
    """Names of networks in the order in which figures show them."""
    regimes, biases = list(MARKERS), list(BIASES)
    return sorted(names, key=lambda name: (regimes.index(name[0]), biases.index(name[1:])))
