"""What the chapter on Jacobian frequency regularisation tabulates, draws and quotes, from published results."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML
from torch import from_numpy

from fmlib.config import PROFILES, profile
from fmlib.intervals import Measured, average, envelope, paired, wilson
from fmlib.jacobian_claims import bits, gains, halves, radii
from fmlib.jacobian_lab import BANDS, DEVIATIONS, trials
from fmlib.jacobian_plots import minus
from fmlib.results import Results
from fmlib.spectra import corner_radius, full_plane, radius

#: Networks with JaFR and without attacks in training.
JAFR = ("N+", "N++", "N-", "N--")


#: Column of the networks' table -> digits after the point.
DIGITS = {"statistic": 1, "amplitude": 2, "jacobian_low_share": 3, "mask_low_share": 3, "standard": 1}


def arrays_of(results: Results, file: str, kind: str) -> dict[str, np.ndarray]:
    """Regime -> the array `<kind>.<regime>` of a file."""
    arrays = results.arrays(file)
    return {name.removeprefix(f"{kind}."): one for name, one in arrays.items() if name.startswith(f"{kind}.")}


def gain_rows(results: Results, kind: str) -> pd.DataFrame:
    """Gains over N of networks with JaFR: columns name, label, radius, value, low, high; in points, over all seeds.

    kind: "corruptions", or "bands", whose radius is the middle of the band as a fraction of the corner radius.
    """
    if kind == "bands":
        place = (np.arange(BANDS) + 0.5) / BANDS
        labels = [f"{middle:.2f}" for middle in place]
    else:
        place = radii(results)
        labels = results.table("corruptions")["corruption"].drop_duplicates().tolist()
        labels = [f"{label} ({middle:.2f})" for label, middle in zip(labels, place, strict=True)]
    rows = []
    for name in [name for name in JAFR if f"{kind}.{name}" in results.arrays("corruptions")]:
        found = np.moveaxis(gains(results, kind, name), -1, 0)  # (kinds, repetitions, N)
        for label, middle, one in zip(labels, place, found, strict=True):
            value, low, high, _ = envelope([average(own) for own in one])
            rows.append({"name": name, "label": label, "radius": middle, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def median_radius(results: Results) -> float:
    """The radius that parts low-frequency corruptions from high-frequency ones, as a fraction of the corner radius."""
    return float(np.median(radii(results)))


def axis_share(amplitude: np.ndarray) -> float:
    """Share of a half plane's energy (H, W // 2 + 1) at high frequencies beside the vertical axis.

    High are radii from a third of the corner's on; beside the axis lie the columns up to a sixteenth of the width.
    """
    height, width = amplitude.shape[0], 2 * (amplitude.shape[1] - 1)
    power = full_plane(from_numpy(amplitude.astype(float) ** 2), width)
    high = radius(height, width) >= corner_radius(height, width) / 3
    beside = radius(1, width) <= width / 16  # (1, W)
    return float((power * (high & beside)).sum() / power.sum())


def points(results: Results) -> list[tuple[str, float, float]]:
    """Name of each network, and the low shares of its Jacobian and of its dataset mask."""
    table = results.table("biased_networks")
    return list(zip(table["network"], table["jacobian_low_share"], table["mask_low_share"], strict=True))


def networks_table(results: Results) -> HTML:
    """Each kind of network: accuracies in percent; S, mean amplitude and low share of the Jacobian; the mask's.

    Intervals are Wilson's, or normal ones over images, and with several networks span those of all. S, the amplitude
    and the mask's low share are the least and the largest of the networks.
    """
    table, lows = results.table("biased_networks"), arrays_of(results, "jacobians", "low")
    arrays, rows = results.arrays("biased_evaluation"), {}
    for name, group in table.groupby("network", sort=False):
        hits = {kind: bits(arrays, f"{kind}.{name}") for kind in ("standard", "masked")}
        row = {kind: _cell(envelope([wilson(one) for one in found]), 1) for kind, found in hits.items()}
        row["S"] = _span(group["statistic"], DIGITS["statistic"])
        row["amplitude"] = _span(group["amplitude"], DIGITS["amplitude"])
        row["Jacobian's low share"] = _cell(envelope([average(one.astype(float)) for one in lows[str(name)]]), 3)
        row["mask's low share"] = _span(group["mask_low_share"], DIGITS["mask_low_share"])
        rows[minus(str(name))] = row
    return _html(pd.DataFrame(rows).T)


def halves_table(results: Results) -> HTML:
    """Each biased network's gain over that of the same training without a bias, in points: corruptions, and noise."""
    arrays, cells = results.arrays("corruptions"), {}
    for name in biased(arrays):
        row = {}
        for kind in ("corruptions", "bands"):
            for where, found in zip(("low", "high"), halves(results, kind, name, name[0]), strict=True):
                row[f"{kind}, {where}"] = _cell(envelope([average(one) for one in found]), 1)
        cells[_against(name)] = row
    return _html(pd.DataFrame(cells).T)


def biased(arrays: dict[str, np.ndarray]) -> list[str]:
    """Of the networks that a file has, those with a bias whose training without one it has as well."""
    names = [name.removeprefix("clean.") for name in arrays if name.startswith("clean.")]
    return [name for name in names if len(name) > 1 and name[0] in names]


def attacks_table(results: Results) -> HTML:
    """Each kind of network: percent of the first images that it gets right, as they are and under each attack."""
    arrays = results.arrays("robustness")
    kinds = ["clean", *trials(profile(results.profile))]
    names = dict.fromkeys(name.split(".")[1] for name in arrays)
    cells = {
        minus(name): {kind: _cell(envelope([wilson(one) for one in arrays[f"{kind}.{name}"]]), 1) for kind in kinds}
        for name in names
    }
    return _html(pd.DataFrame(cells).T)


def differences(results: Results) -> HTML:
    """Each biased network against the one of the same training without a bias, under each attack, in points."""
    arrays = results.arrays("robustness")
    kinds = ["clean", *trials(profile(results.profile))]
    cells: dict[str, dict[str, str]] = {}
    for name in biased(arrays):
        own, base = ({kind: arrays[f"{kind}.{one}"] for kind in kinds} for one in (name, name[0]))
        cells[_against(name)] = {
            kind: _cell(envelope([paired(*pair) for pair in zip(own[kind], base[kind], strict=False)]), 1)
            for kind in kinds
        }
    return _html(pd.DataFrame(cells).T)


def numbers(results: Results) -> dict[str, str]:
    """What the chapter's prose quotes beside claims, ready to read."""
    found, table = profile(results.profile), results.table("biased_networks")
    clean = results.arrays("corruptions")["clean.N"]
    quoted = {
        "lambda": f"{found.jafr:g}",
        "sensitivity": f"{found.sensitivity:g}",
        "size": f"{found.size:g}",
        "seeds": f"{len(clean)}",
        "corrupted": f"{clean.shape[1]:,}",
        "tried": f"{results.arrays('robustness')['clean.N'].shape[1]:,}",
        "steps": f"{found.evaluation.steps}",
        "restarts": f"{found.evaluation.restarts}",
        "queries": f"{found.evaluation.queries:,}",
        "epsilon": f"{found.evaluation.epsilon:.3g}",
        "deviations": " and ".join(f"{one:g}" for one in DEVIATIONS),
        "median": f"{median_radius(results):.2f}",
    }
    for name in PROFILES["paper"].biased:  # those that this profile leaves out
        quoted |= {f"{column}.{name}": "(not trained here)" for column in ("axis", *DIGITS)}
    for name, amplitudes in arrays_of(results, "jacobians", "amplitude").items():
        quoted[f"axis.{name}"] = _span([axis_share(one) for one in amplitudes], 3)
    for name, group in table.groupby("network", sort=False):
        for column, digits in DIGITS.items():
            quoted[f"{column}.{name}"] = _span(group[column], digits)
    return quoted


def _span(values: Iterable[float], digits: int) -> str:
    """The least and the largest of several values, or the value that they are."""
    ordered = sorted(values)
    low, high = (minus(f"{one:.{digits}f}") for one in (ordered[0], ordered[-1]))
    return low if low == high else f"{low} to {high}"


def _against(name: str) -> str:
    return f"{minus(name)} against {name[0]}"


def _cell(measured: Measured, digits: int) -> str:
    """A value with its interval below, or without one if that has no width."""
    value, low, high = (minus(f"{one:.{digits}f}") for one in measured[:3])
    return value if low == high else f"{value}<br>({low} to {high})"


def _html(table: pd.DataFrame) -> HTML:
    with pd.option_context("display.max_colwidth", None):
        return HTML(table.to_html(escape=False, border=0))
