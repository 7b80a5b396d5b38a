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

from fmlib import adversarial_claims, claim, experiments, heat_claims, heat_recipes
from fmlib.config import PlantedSpec, require
from fmlib.config import profile as named_profile
from fmlib.intervals import average
from fmlib.lab import Lab
from fmlib.results import PUBLISHED, Results
from fmlib.runtime import pick_device
from fmlib.spectra import angular_energy, correlation, full_plane, radial_energy, ring_means
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


def kinds_table(results: Results) -> pd.DataFrame:
    """Of each kind of image mask: how many, how many converged and kept the prediction, how large they are."""
    table = results.table("image_masks")
    groups = table.groupby("kind", sort=False)
    kept = 100 * table.groupby(["kind", "converged"], sort=False)["kept"].mean().unstack()
    return pd.DataFrame(
        {
            "masks": groups.size(),
            "converged (%)": (100 * groups["converged"].mean()).round(1),
            "of these kept (%)": kept.get(True, pd.Series(dtype=float)).round(1),
            "of others kept (%)": kept.get(False, pd.Series(dtype=float)).round(1),
            "steps (median)": groups["steps"].median().astype(int),
            "L1 share": groups["l1_share"].mean().round(4),
            "non-zero (%)": (100 * groups["nonzero_share"].mean()).round(1),
            "objective": groups["objective"].mean().round(4),
        }
    ).loc[table["kind"].unique()]


def specks(results: Results) -> dict[str, str]:
    """Of the entries of M_{N,x} that are not nought: the `share` `below` two steps of Adam, and their `energy`.

    The share is that of a mask on average, and `interval` its 95% interval over masks.
    """
    half, below = results.arrays("image_masks")["N.x"].astype(float), 2 * named_profile(results.profile).image_mask.lr
    small = half * (half < below)
    share = average((small > 0).sum((1, 2)) / (half > 0).sum((1, 2)))
    return {
        "share": f"{share.value:.0%}",
        "interval": f"{share.low:.0%} to {share.high:.0%}",
        "below": f"{below:g}",
        "energy": scientific((small**2).sum() / (half**2).sum()),
    }


def eligibility(results: Results) -> dict[str, str]:
    """Numbers of images that enter by the paper's text and by the authors' code, ready for prose.

    Text: N is right on x and wrong on x_A. Code: N and A are both right or both wrong on x, and N's verdict turns.
    """
    pairs = results.arrays("pairs")
    clean, attacked, robust = (pairs[f"prediction.{kind}"] == pairs["labels"] for kind in ("N.x", "N.xA", "A.x"))
    text, code = clean & ~attacked, (clean == robust) & (clean != attacked)
    counts = {
        "validation": clean.size,
        "eligible": text.sum(),
        "by_code": code.sum(),
        "only_text": (text & ~code).sum(),
        "only_code": (code & ~text).sum(),
        "turned_right": (code & ~clean).sum(),
    }
    return {name: f"{count:,}" for name, count in counts.items()}


def attack_spectra(results: Results) -> dict[str, np.ndarray]:
    """One mean spectrum for each family of attacks, PGD's at the training strength: half planes (H, W // 2 + 1)."""
    found = {
        name.removeprefix("spectrum."): one for name, one in results.arrays("attacks").items() if "spectrum" in name
    }
    first = next(iter(found))
    return {name: one for name, one in found.items() if name == first or "PGD" not in name}


def attack_table(results: Results) -> pd.DataFrame:
    """Each attack on N: accuracies of N and A, eligible images, what M_{N,x} undoes, distance and likeness to PGD.

    Right on x and wrong when attacked makes an image eligible; of those with masks, `undone` is the percentage that N
    classifies rightly behind the mask again.
    """
    arrays, pairs = results.arrays("attacks"), results.arrays("pairs")
    image = results.arrays("image_masks")["image"]
    right = pairs["prediction.N.x"] == pairs["labels"]
    names = [name[2:] for name in arrays if name.startswith("N.")]
    first = torch.from_numpy(arrays[f"spectrum.{names[0]}"])
    rows = {}
    for name in names:
        fooled = right & ~arrays[f"N.{name}"]
        rows[name] = {
            "N right (%)": 100 * arrays[f"N.{name}"].mean(),
            "A right (%)": 100 * arrays[f"A.{name}"].mean(),
            "eligible": int(fooled.sum()),
            "undone (%)": 100 * arrays[f"masked.{name}"][fooled[image]].mean() if fooled[image].any() else float("nan"),
            "l2 distance": float(np.median(arrays[f"distance.{name}"])),
            "r with PGD": float(correlation(torch.from_numpy(arrays[f"spectrum.{name}"]), first)),
        }
    return pd.DataFrame(rows).T.astype({"eligible": int}).round(3)


def adaptive_table(results: Results) -> pd.DataFrame:
    """Percent right of the first networks N and A, bare and behind dataset masks: clean, attacked, adaptively attacked.

    The attack goes through the network alone, and then through the mask as well; of a bare network both are the same.
    """
    bare, masked = results.arrays("evaluation"), results.arrays("adaptive")
    rows = {}
    for regime in "NA":
        clean, attacked = (100 * bare[f"{name}.{regime}"][0].mean() for name in ("standard", "attacked"))
        rows[regime] = (clean, attacked, attacked)
    for regime in "NA":
        rows[f"N behind {regime}'s mask"] = tuple(
            100 * masked[f"{name}.{regime}"].mean() for name in ("clean", "unaware", "aware")
        )
    columns = ["not attacked (%)", "attacked (%)", "by an attack that knows the mask (%)"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).round(1)


def exceeding(results: Results) -> dict[str, dict[str, np.ndarray]]:
    """Figure 7's three readings: label -> radial and angular percent of images, in each of 64 bands."""
    readings = {
        "$M_{A,x_A}$, as described": ("A.xA", False),
        "$M_{A,x_A}$, binarised": ("A.xA", True),
        "$M_{A,x}$, binarised (code)": ("A.x", True),
    }
    return {
        label: {
            name: 100 * adversarial_claims.more_energy(results, kind, binary, energy).mean(0)
            for name, energy in (("radial", radial_energy), ("angular", angular_energy))
        }
        for label, (kind, binary) in readings.items()
    }


def class_names(results: Results) -> list[str]:
    """The names of the classes, in the order of their labels."""
    return [str(name) for name in results.arrays("samples")["classes"]]


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


def bench_table(found: dict[str, Any]) -> pd.DataFrame:
    """Each case of a benchmark: paces of reference and engine, their ratio, and how far the results are apart."""
    names = {
        "images": "masks",
        "serial_steps_per_s": "serial (steps/s)",
        "engine_steps_per_s": "engine (steps/s)",
        "ratio": "ratio",
        "serial_seconds": "serial (s)",
        "engine_seconds": "engine (s)",
        "objective_gap": "objective gap",
        "peak_mib": "peak (MiB)",
        "ceiling_share": "share of ceiling",
    }
    table = pd.DataFrame(found["rows"]).set_index("case")[list(names)].rename(columns=names)
    return table.map(lambda value: f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").rename_axis(None)


def bill_table(found: dict[str, Any]) -> pd.DataFrame:
    """Thousands of images forward and backward, a row a recipe and a column a profile; in all, operations and hours."""
    bill = pd.DataFrame(found["bill"])
    cases = {name: next(case for case in found["cases"] if case.startswith(name)) for name in bill}
    paces = {row["case"]: row["engine_steps_per_s"] for row in found["rows"]}
    total = bill.sum()
    table = (bill / 1e3).map(lambda value: f"{value:,.0f}")
    table.loc["all (PFLOP)"] = [
        f"{total[name] * found['cases'][case]['operations'] / 1e15:,.3g}" for name, case in cases.items()
    ]
    hours = {name: total[name] / paces[case] / 3600 for name, case in cases.items() if case in paces}
    table.loc["all (hours here)"] = [f"{hours[name]:.2f}" if name in hours else "not measured" for name in bill]
    return table


def heat_maps(results: Results) -> dict[str, np.ndarray]:
    """Regime -> percent of images misclassified under each frequency, full plane (H, W)."""
    found = {regime: heat_claims.heat_errors(results, regime).double().mean(0) for regime in heat_claims.NETWORKS}
    return {regime: 100 * full_plane(half, 2 * (half.shape[1] - 1)).numpy() for regime, half in found.items()}


def heated_masks(results: Results) -> dict[str, np.ndarray]:
    """Regime -> dataset mask of the network of a heat map, full plane (H, W)."""
    arrays = results.arrays("heat_maps")
    halves = {regime: torch.from_numpy(arrays[f"mask.{regime}"]) for regime in heat_claims.NETWORKS}
    return {regime: full_plane(half, half.shape[0]).numpy() for regime, half in halves.items()}


def heat_numbers(results: Results) -> dict[str, str]:
    """What is added to the images of the heat maps, how many they are, and errors in percent, ready for prose.

    `clean.N` is without an added frequency; `low.N` below a third of the corner radius, `high.N` above.
    """
    arrays, size = results.arrays("heat_maps"), named_profile(results.profile).data.size
    numbers = {"images": f"{len(arrays['clean.N']):,}", "norm": f"{heat_recipes.STRENGTH * size:.1f}"}
    numbers["strength"] = f"{heat_recipes.STRENGTH:.3f}"
    for regime in heat_claims.NETWORKS:
        numbers[f"clean.{regime}"] = f"{100 * arrays[f'clean.{regime}'].mean():.1f}"
        for name in ("low", "high"):
            share = heat_claims.third_errors(results, regime, low=name == "low").mean()
            numbers[f"{name}.{regime}"] = f"{100 * share:.1f}"
    return numbers
