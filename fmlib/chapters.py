"""What a chapter calls: load its results, show the source beside an equation, quote and tabulate numbers."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Code

from fmlib import experiments
from fmlib.config import profile as named_profile
from fmlib.lab import Lab
from fmlib.results import PUBLISHED, Results
from fmlib.runtime import pick_device
from fmlib.store import Store

try:
    from myst_nb import glue as _glue
except ImportError:  # on a machine that runs chapters but does not build the book

    def _glue(name: str, variable: Any, display: bool = False) -> None: ...


def greet() -> None:
    """Say on which device a chapter will compute, and with which versions; for readers on Colab."""
    device = pick_device()
    print(f"device {device.type}; Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {np.__version__}")
    if device.type == "cpu":
        print(
            "No GPU is selected: profile 'quick' runs in minutes; for more, choose Runtime > Change runtime type > GPU."
        )


def load(profile: str, folder: str = "") -> Results:
    """The results a chapter draws: those in `folder`; else the published ones; else computed now, and kept."""
    if folder:
        return Results.open(Path(folder))
    if (PUBLISHED / profile).is_dir():
        return Results.open(PUBLISHED / profile)
    kept = Path(".fmlib")
    store = Store(kept, pick_device(), say=print)
    root = Path(os.environ["FMLIB_DATA"]) if "FMLIB_DATA" in os.environ else None
    lab = Lab(named_profile(profile), 0, store.device, root)
    chosen = experiments.recipes([])
    experiments.run(chosen, lab, store)
    return experiments.publish(chosen, lab, store, kept / "results" / profile)


def source(function: Callable[..., Any]) -> Code:
    """A function's source, to stand beside the equation that it implements."""
    return Code(inspect.getsource(function), language="python")


def glue(**values: Any) -> None:
    """Name values for use in prose: numbers as they should read, already formatted."""
    for name, value in values.items():
        _glue(name, value, display=False)


def scientific(value: float) -> str:
    """One digit times a power of ten, such as 2 x 10^-7 with a raised exponent."""
    digit, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(
        str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
    )
    return f"{digit} \N{MULTIPLICATION SIGN} 10{raised}"


def number(value: float, unit: str) -> str:
    """A claim's number as it should read: one decimal for percent and points, three for others, tiny ones in powers."""
    if 0 < abs(value) < 5e-4:
        return scientific(value)
    text = f"{value:.1f}" if unit in ("%", "points") else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _readable(row: dict[str, Any]) -> dict[str, str]:
    low, high = number(row["low"], row["unit"]), number(row["high"], row["unit"])
    return {
        "value": number(row["value"], row["unit"]),
        "interval": f"{low} to {high}",
        "published": "none" if row["published"] is None else f"{row['published']:g}",
        "n": f"{row['n']:,}",
        "verdict": row["verdict"],
    }


def glue_claims(results: Results) -> None:
    """Name every claim's numbers for prose: `<id>`, `<id>.interval`, `<id>.published`, `<id>.n`, `<id>.verdict`."""
    for row in results.claims():
        glue(**{row["id"] if name == "value" else f"{row['id']}.{name}": text for name, text in _readable(row).items()})


def claims_table(results: Results, chapter: str) -> HTML:
    """The claims of one chapter: statement, tolerance, published and own value with interval, n, verdict."""
    rows = [row for row in results.claims() if row["chapter"] == chapter]
    read = [_readable(row) for row in rows]
    table = pd.DataFrame(
        {
            "id": [row["id"] for row in rows],
            "claim": [f"{row['statement']} <em>Counts as reproduced if {row['tolerance']}.</em>" for row in rows],
            "published": [one["published"] for one in read],
            "here": [
                f"{one['value']} {row['unit']}<br>({one['interval']})" for row, one in zip(rows, read, strict=True)
            ],
            "n": [one["n"] for one in read],
            "verdict": [one["verdict"] for one in read],
        }
    )
    with pd.option_context("display.max_colwidth", None):
        return HTML(table.to_html(index=False, escape=False, border=0, classes="claims"))


def accuracies(results: Results) -> pd.DataFrame:
    """Percent right on the validation set: a row for each regime and repetition; columns standard, masked, attacked."""
    hits = results.arrays("evaluation")
    regimes = list(dict.fromkeys(name.split(".")[1] for name in hits))
    columns = {
        kind: [100 * one.mean() for regime in regimes for one in hits[f"{kind}.{regime}"]]
        for kind in ("standard", "masked", "attacked")
    }
    repetitions = range(len(hits[f"standard.{regimes[0]}"]))
    return pd.DataFrame(
        columns, index=pd.MultiIndex.from_product([regimes, repetitions], names=["regime", "repetition"])
    )


def means(arrays: dict[str, np.ndarray]) -> pd.Series:
    """The mean of each named array."""
    return pd.Series({name: float(array.mean()) for name, array in arrays.items()})


def verdicts(results: Results) -> dict[str, int]:
    """How many claims have each verdict."""
    found = [row["verdict"] for row in results.claims()]
    return {verdict: found.count(verdict) for verdict in ("reproduced", "partly", "not", "cannot be judged")}
