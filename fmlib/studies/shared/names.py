"""The full names of networks, their markers and colours, and the order in which pages show them.

Names of networks are those of `Profile.training`, such as "F+".
"""

from __future__ import annotations

from collections.abc import Iterable

from fmlib.pipeline.plotting import BLUE, GRAY, GREEN, ORANGE, PURPLE, VERMILION

#: First letter of a network's name -> its training and marker.
TRAININGS = {
    "N": ("standard", "o"),
    "F": ("FGSM-trained", "s"),
    "A": ("adversarially trained", "^"),
    "S": ("scale augmentation", "D"),
    "T": ("translation augmentation", "v"),
    "R": ("rotation augmentation", "P"),
}

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
    parts = (TRAININGS[name[0]][0], BIASES[name[1:]][0])
    return f"{', '.join(filter(None, parts))} ({minus(name)})"


def in_order(names: Iterable[str]) -> list[str]:
    """Names of networks in the order in which figures show them."""
    trainings, biases = list(TRAININGS), list(BIASES)
    return sorted(names, key=lambda name: (trainings.index(name[0]), biases.index(name[1:])))
