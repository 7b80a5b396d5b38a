"""How numbers and claims read: decimals, intervals, units."""

from __future__ import annotations

from typing import Any


def scientific(value: float) -> str:
    """One digit times a power of ten, such as 2 x 10^-7 with a raised exponent."""
    digit, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(
        str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
    )
    return f"{digit} \N{MULTIPLICATION SIGN} 10{raised}"


def number(value: float, unit: str) -> str:
    """A claim's number as it reads: one decimal for percentages and points, three for others, tiny ones in powers."""
    if 0 < abs(value) < 5e-4:
        return scientific(value)
    text = f"{value:.1f}" if unit[:1] == "%" or unit == "points" else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def readable(row: dict[str, Any]) -> dict[str, str]:
    """A row of `claims.json` as text: value, interval, measured, published, n, verdict.

    `interval` is empty where there is none; `measured` is the value with its unit and interval; n says what it counts.
    """
    text = {
        "value": "not computed" if row["verdict"] == "not computed" else "not measured",
        "interval": "",
        "measured": "\N{EN DASH}",
        "published": "\N{EN DASH}" if row["published"] is None else f"{row['published']:g}",
        "n": "\N{EN DASH}" if row["n"] is None else f"{row['n']:,} {row['n_of']}",
        "verdict": row["verdict"],
    }
    if row["value"] is not None:
        text["value"] = number(row["value"], row["unit"])
        if row["low"] < row["high"]:
            text["interval"] = f"{number(row['low'], row['unit'])} to {number(row['high'], row['unit'])}"
        text["measured"] = f"{text['value']} {row['unit']}" + (f" ({text['interval']})" if text["interval"] else "")
    return text
