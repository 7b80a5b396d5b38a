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

from fmlib import claim, experiments
from fmlib.config import PlantedSpec, require
from fmlib.config import profile as named_profile
from fmlib.lab import Lab
from fmlib.results import PUBLISHED, Results
from fmlib.runtime import pick_device
from fmlib.spectra import correlation, ring_means
from fmlib.store import Store

try:
    from myst_nb import glue as _glue
except ImportError:  # on a machine that runs chapters but does not build the book

    def _glue(name: str, variable: Any, display: bool = False) -> None: ...


#: Verdicts as they should read.
VERDICTS = {"partly": "partly reproduced", "not": "not reproduced"}


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
    spec = named_profile(profile)
    require(
        isinstance(spec.data, PlantedSpec) or root is not None,
        f'nothing is published at profile {profile!r}, and computing it needs photographs: set profile = "quick", '
        f"which needs none; or run '!fmlib data --profile {profile} --data-root photographs --download' and "
        "'%env FMLIB_DATA=photographs' in a cell above",
    )
    kept = Path(".fmlib")
    store = Store(kept, pick_device(), say=print)
    lab = Lab(spec, 0, store.device, root, progress=root is not None)  # at `quick` no job takes long
    chosen = experiments.recipes([])
    experiments.run(chosen, lab, store)
    return experiments.publish(chosen, lab, store, kept / "results" / profile)


def published(name: str) -> Results:
    """The results in a published folder, such as "paper-without-gpu"."""
    return Results.open(PUBLISHED / name)


def shared(small: np.ndarray, large: np.ndarray) -> dict[str, str]:
    """How two masks (h, h) and (H, H), DC at (0, 0), H a multiple of h, compare, ready for prose.

    `correlation` over the frequencies that both have; `within`, the share of the larger one's energy at these; how far
    their means on rings are apart on average, `by_cycles` at the same cycles per image and `by_share` at the same share
    of the highest frequency.
    """
    first, last = len(large) // 2 - len(small) // 2, len(large) // 2 + len(small) // 2
    common = np.fft.ifftshift(np.fft.fftshift(large)[first:last, first:last])
    alike = float(correlation(torch.from_numpy(common), torch.from_numpy(small)))
    fine, coarse = (ring_means(torch.from_numpy(mask)).numpy() for mask in (large, small))
    apart = {"by_cycles": fine[: len(coarse)] - coarse, "by_share": fine[:: len(large) // len(small)] - coarse}
    found = {name: f"{np.abs(difference).mean():.2f}" for name, difference in apart.items()}
    return found | {"correlation": f"{alike:.2f}", "within": f"{(common**2).sum() / (large**2).sum():.0%}"}


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
    text = f"{value:.1f}" if unit[:1] == "%" or unit == "points" else f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def readable(row: dict[str, Any]) -> dict[str, str]:
    """A claim's numbers as text: value, interval, published, n, verdict."""
    low, high = number(row["low"], row["unit"]), number(row["high"], row["unit"])
    return {
        "value": number(row["value"], row["unit"]),
        "interval": f"{low} to {high}",
        "published": "none" if row["published"] is None else f"{row['published']:g}",
        "n": f"{row['n']:,}",
        "verdict": VERDICTS.get(row["verdict"], row["verdict"]),
    }


def glue_claims(results: Results, *families: str, prefix: str = "") -> None:
    """Name the numbers of claims for prose: `<id>`, `<id>.interval`, `<id>.published`, `<id>.n`, `<id>.verdict`.

    families: what their ids begin with, up to the first point, such as "T1"; prefix: of every name.
    """
    for row in results.claims():
        if row["id"].split(".")[0] in families:
            named = {"" if name == "value" else f".{name}": text for name, text in readable(row).items()}
            glue(**{prefix + row["id"] + ending: text for ending, text in named.items()})


def claims_table(results: Results, chapter: str, linked: bool = False) -> HTML:
    """The claims of one chapter: statement, tolerance, published and own value with interval, n, verdict.

    linked: each id leads to the figure or section that shows the claim, and its source is named.
    """
    rows = [row for row in results.claims() if row["chapter"] == chapter]
    read = [readable(row) for row in rows]
    source = [f" ({row['source'].replace(f'{claim.PAPER}, ', '')})" if linked else "" for row in rows]
    return _as_html(
        {
            "id": [_linked(row) if linked else row["id"] for row in rows],
            "claim": [
                f"{row['statement']}{where} <em>Counts as reproduced if {row['tolerance']}.</em>"
                for row, where in zip(rows, source, strict=True)
            ],
            "published": [one["published"] for one in read],
            "here": [_measured(row) for row in rows],
            "n": [one["n"] for one in read],
            "verdict": [one["verdict"] for one in read],
        }
    )


def scales_table(results: Results, larger: Results) -> HTML:
    """The claims that `larger` judges, as `results` (where it measures them) and `larger` do, with their verdicts."""
    rows = larger.claims()
    columns = {
        "id": [_linked(row) for row in rows],
        "claim": [row["statement"] for row in rows],
        "published": [readable(row)["published"] for row in rows],
    }
    for one in (results, larger):
        own = {row["id"]: f"{_measured(row)}<br><em>{readable(row)['verdict']}</em>" for row in one.claims()}
        columns[f"profile {one.profile}"] = [own.get(row["id"], "not measured") for row in rows]
    return _as_html(columns)


def _linked(row: dict[str, Any]) -> str:
    """A claim's id, leading to the figure or section that shows the claim."""
    return f'<a href="{row["chapter"]}.html#{row["anchor"]}">{row["id"]}</a>'


def _measured(row: dict[str, Any]) -> str:
    """A claim's value with unit and interval."""
    read = readable(row)
    return f"{read['value']} {row['unit']}<br>({read['interval']})"


def _as_html(columns: dict[str, list[str]]) -> HTML:
    """A table of claims."""
    with pd.option_context("display.max_colwidth", None):
        return HTML(pd.DataFrame(columns).to_html(index=False, escape=False, border=0, classes="claims"))


def published_table(results: Results, shown: dict[str, str], larger: Results | None = None) -> pd.DataFrame:
    """A table of the paper beside ours, and beside that of `larger`; shown: claim id -> what the row is called."""
    scales = {"here": results} | ({f"profile {larger.profile}": larger} if larger else {})
    columns = {"published": {name: readable(results.claim(identity))["published"] for identity, name in shown.items()}}
    for title, found in scales.items():
        read = {name: readable(found.claim(identity)) for identity, name in shown.items()}
        columns[title] = {name: f"{one['value']} ({one['interval']})" for name, one in read.items()}
        columns[f"n, {title}"] = {name: one["n"] for name, one in read.items()}
    return pd.DataFrame(columns)


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
