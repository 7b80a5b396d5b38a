"""How numbers and claims are printed: decimals, units, intervals."""

from __future__ import annotations

from typing import Any

_MINUS, _DASH = "\N{MINUS SIGN}", "\N{EN DASH}"
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def scientific(value: float) -> str:
    """The value as one digit times a power of ten, such as 2 x 10^-7 with a raised exponent."""
    return _with_power(f"{value:.0e}")


def shortest(value: float) -> str:
    """The value with up to six significant digits and no trailing zeros; very small and large ones in powers of ten."""
    return _with_power(f"{value:g}")


def _with_power(text: str) -> str:
    """Python's notation of a number with a minus sign, and a power of ten in place of its exponent."""
    digits, _, exponent = text.partition("e")
    power = f" \N{MULTIPLICATION SIGN} 10{str(int(exponent)).translate(_RAISED)}" if exponent else ""
    return digits.replace("-", _MINUS) + power


def number(value: float, unit: str) -> str:
    """A measured value without its unit.

    Percentages and points have one decimal, other units three. Values below 0.0005 are written as powers of ten.
    """
    if 0 < abs(value) < 5e-4:
        return scientific(value)
    return _with_power(f"{value:z.1f}" if unit[:1] == "%" or unit == "points" else f"{value:z.3f}")


def with_unit(text: str, unit: str) -> str:
    """A number and its unit: "83.5%", "0.5 points", "0.912 correlation"."""
    return text + unit if unit[:1] == "%" else f"{text} {unit}"


def _counted(count: int, plural: str) -> str:
    """What a number counts, in the singular for one: "images", "pair of networks"."""
    noun, of, rest = plural.partition(" of ")
    return (noun.removesuffix("s") if count == 1 else noun) + of + rest


def readable(row: dict[str, Any]) -> dict[str, str]:
    """A row of `claims.json` as text.

    Returns:
        value: without its unit; interval: empty where there is none; measured: value with unit and interval;
        published; n: with what it counts; verdict.
    """
    text = {
        "value": "not computed" if row["verdict"] == "not computed" else "not measured",
        "interval": "",
        "measured": _DASH,
        "published": _DASH if row["published"] is None else shortest(row["published"]),
        "n": _DASH if row["n"] is None else f"{row['n']:,} {_counted(row['n'], row['n_of'])}",
        "verdict": row["verdict"],
    }
    if row["value"] is not None:
        text["value"] = number(row["value"], row["unit"])
        text["measured"] = with_unit(text["value"], row["unit"])
        if row["low"] < row["high"]:
            text["interval"] = f"{number(row['low'], row['unit'])} to {number(row['high'], row['unit'])}"
            text["measured"] += f" ({text['interval']})"
    return text
