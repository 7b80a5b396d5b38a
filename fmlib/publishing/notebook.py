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

from fmlib.core.config import SyntheticSpec
from fmlib.core.device import pick_device
from fmlib.core.errors import require
from fmlib.pipeline.claims import count_verdicts
from fmlib.pipeline.experiment import publish
from fmlib.pipeline.formatting import readable
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.pipeline.store import Store
from fmlib.studies import registry
from fmlib.studies.shared.profiles import profile as profile_named
from fmlib.studies.shared.setup import Setup


def class_names(results: Results) -> list[str]:
    """The names of the classes, in the order of their labels."""
    return [str(name) for name in results.arrays("samples")["classes"]]


try:
    from myst_nb import glue as _glue
except ImportError:  # on a machine that runs chapters but does not build the book

    def _glue(name: str, variable: Any, display: bool = False) -> None: ...


def greet() -> None:
    """Say on which device a chapter will compute, and with which versions; for readers on Colab."""
    device = pick_device()
    name = f"GPU {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type.upper()
    versions = f"torch {torch.__version__}, numpy {np.__version__}, pandas {pd.__version__}"
    print(f"{name}; Python {sys.version.split()[0]}, {versions}")
    if device.type == "cpu":
        print(
            "No GPU is selected. Profiles 'laptop' (published results) and 'quick' (computed here in minutes) need "
            "none; for 'paper' choose Runtime > Change runtime type > T4 GPU."
        )


def load(profile: str, folder: str = "") -> Results:
    """The results a chapter draws: those in `folder`; else the published ones; else computed now, and kept.

    Raises `FmlibError` if `folder` holds none, the profile is unknown, or photographs are needed and not there.
    """
    if folder:
        return Results.open(Path(folder))
    if (PUBLISHED / profile / "manifest.json").exists():
        return Results.open(PUBLISHED / profile)
    root = Path(os.environ["FMLIB_DATA"]) if "FMLIB_DATA" in os.environ else None
    spec = profile_named(profile)
    require(
        isinstance(spec.data, SyntheticSpec) or root is not None,
        f'nothing is published at profile {profile!r}, and computing it needs photographs: set profile = "quick", '
        f"which needs none; or run '!fmlib data --profile {profile} --data-root photographs --download' and "
        "'%env FMLIB_DATA=photographs' in a cell above",
    )
    kept = Path(".fmlib")
    store = Store(kept, pick_device(), say=print)
    setup = Setup(spec, 0, store.device, root, progress=root is not None)  # at `quick` no task takes long
    chosen = registry.experiments()
    registry.run(chosen, setup, store)
    return publish(chosen, setup, store, kept / "results" / profile, registry.all_claims())


def published(name: str) -> Results:
    """The results in a published folder, such as "paper"."""
    return Results.open(PUBLISHED / name)


def source(function: Callable[..., Any]) -> Code:
    """A function's source, to stand beside the equation that it implements."""
    return Code(inspect.getsource(function), language="python")


def glue(**values: Any) -> None:
    """Name values for use in prose: numbers as they should read, already formatted."""
    for name, value in values.items():
        _glue(name, value, display=False)


def glue_claims(results: Results, *families: str, prefix: str = "") -> None:
    """Name the numbers of claims for prose: `<id>`, `<id>.interval`, `<id>.published`, `<id>.n`, `<id>.verdict`.

    Args:
        families: what their ids begin with, up to the first point, such as "T1".
        prefix: of every name.
    """
    for row in results.claims():
        if row["id"].split(".")[0] in families:
            named = {"" if name == "value" else f".{name}": text for name, text in readable(row).items()}
            glue(**{prefix + row["id"] + ending: text for ending, text in named.items()})


def claims_table(results: Results, chapter: str, linked: bool = False) -> HTML:
    """The claims of one chapter: statement, rule, published and measured value with interval, n, verdict.

    Args:
        linked: whether each id leads to the figure or section that shows the claim, and its reference is named.
    """
    rows = [row for row in results.claims() if row["chapter"] == chapter]
    read = [readable(row) for row in rows]
    return _as_html(
        {
            "id": [_linked(row) if linked else row["id"] for row in rows],
            "claim": [f"{row['statement']}{_reference(row) if linked else ''} {_rule(row)}" for row in rows],
            "source": [row["source"] for row in rows],
            "published": [one["published"] for one in read],
            "measured": [one["measured"] for one in read],
            "n": [one["n"] for one in read],
            "verdict": [one["verdict"] for one in read],
        }
    )


def scales_table(results: Results, larger: Results) -> HTML:
    """The claims that `larger` has computed, with value and verdict at both scales."""
    rows = [row for row in larger.claims() if row["value"] is not None]
    columns = {
        "id": [_linked(row) for row in rows],
        "claim": [row["statement"] for row in rows],
        "published": [readable(row)["published"] for row in rows],
    }
    for one in (results, larger):
        read = {row["id"]: readable(row) for row in one.claims()}
        cells = [read[row["id"]] for row in rows]
        columns[f"profile {one.profile}"] = [f"{cell['measured']}<br><em>{cell['verdict']}</em>" for cell in cells]
    return _as_html(columns)


def _rule(row: dict[str, Any]) -> str:
    """How a claim is judged, as a sentence in italics."""
    if row["by_construction"]:
        return f"<em>Holds by construction: {row['by_construction']}.</em>"
    if not row["rule"]:
        return "<em>Needs human observers.</em>"
    late = ", a rule written after the value was seen" if row["timing"] == "after" else ""
    return f"<em>Reproduced if {row['rule']}{late}.</em>"


def _reference(row: dict[str, Any]) -> str:
    """Where a claim is published, in parentheses."""
    place = row["reference"].replace("Karantzas et al. (2022), ", "")
    return f" ({place})" if place else ""


def _linked(row: dict[str, Any]) -> str:
    """A claim's id, leading to the figure or section that shows the claim."""
    return f'<a href="{row["chapter"]}.html#{row["figure"]}">{row["id"]}</a>'


def _as_html(columns: dict[str, list[str]]) -> HTML:
    """A table of claims."""
    with pd.option_context("display.max_colwidth", None):
        return HTML(pd.DataFrame(columns).to_html(index=False, escape=False, border=0, classes="claims"))


def published_table(results: Results, shown: dict[str, str], larger: Results | None = None) -> pd.DataFrame:
    """A table of the paper beside ours, and beside that of `larger`.

    Args:
        shown: claim id -> label of its row.
    """
    scales = {"here": results} | ({f"profile {larger.profile}": larger} if larger else {})
    columns = {"published": {name: readable(results.claim(identity))["published"] for identity, name in shown.items()}}
    for title, one in scales.items():
        read = {name: readable(one.claim(identity)) for identity, name in shown.items()}
        columns[title] = {
            name: text["value"] + (f" ({text['interval']})" if text["interval"] else "") for name, text in read.items()
        }
        columns[f"n, {title}"] = {name: text["n"] for name, text in read.items()}
    return pd.DataFrame(columns)


def means(arrays: dict[str, np.ndarray]) -> pd.Series:
    """The mean of each named array."""
    return pd.Series({name: float(array.mean()) for name, array in arrays.items()})


def verdicts(results: Results, source: str) -> dict[str, int]:
    """How many claims from one source, "paper" or "control", have each verdict."""
    return count_verdicts(results.claims(), source)
