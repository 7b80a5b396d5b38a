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
from IPython.display import Code

from fmlib import experiments
from fmlib.config import profile as named_profile
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
    lab = experiments.Lab(named_profile(profile), 0, store.device, root)
    experiments.run(experiments.recipes([]), lab, store)
    return experiments.publish(lab, store, kept / "results" / profile)


def source(function: Callable[..., Any]) -> Code:
    """A function's source, to stand beside the equation that it implements."""
    return Code(inspect.getsource(function), language="python")


def glue(**values: Any) -> None:
    """Name values for use in prose: numbers as they should read, already formatted."""
    for name, value in values.items():
        _glue(name, value, display=False)


def glue_claims(results: Results) -> None:
    """Name every claim's numbers for prose: `<id>`, `<id>.interval`, `<id>.published`, `<id>.n`, `<id>.verdict`."""
    for row in results.claims():
        digits = 1 if row["unit"] in ("%", "points") else 3
        glue(
            **{
                row["id"]: f"{row['value']:.{digits}f}",
                f"{row['id']}.interval": f"{row['low']:.{digits}f} to {row['high']:.{digits}f}",
                f"{row['id']}.published": "none" if row["published"] is None else f"{row['published']:g}",
                f"{row['id']}.n": f"{row['n']:,}",
                f"{row['id']}.verdict": row["verdict"],
            }
        )


def claims_table(results: Results, chapter: str) -> pd.DataFrame:
    """The claims of one chapter as a table: statement, published and own value, interval, n, verdict."""
    rows = [row for row in results.claims() if row["chapter"] == chapter]
    return pd.DataFrame(
        {
            "claim": [row["statement"] for row in rows],
            "published": ["" if row["published"] is None else f"{row['published']:g}" for row in rows],
            "value": [f"{row['value']:.3g} {row['unit']}" for row in rows],
            "interval": [f"{row['low']:.3g} to {row['high']:.3g}" for row in rows],
            "n": [row["n"] for row in rows],
            "verdict": [row["verdict"] for row in rows],
        },
        index=pd.Index([row["id"] for row in rows], name="id"),
    )


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
