"""The claims on Jacobian frequency regularisation: Chan et al.'s, and controls on masking and on dataset masks."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML
from scipy.stats import spearmanr
from torch import from_numpy

from fmlib.core.intervals import Measured, Z, average, min_max, paired, pooled_range, wilson
from fmlib.core.spectra import corner_radius, full_plane, radius
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import bits
from fmlib.studies.jacobian_regularisation.figures import minus
from fmlib.studies.jacobian_regularisation.tasks import BANDS, DEVIATIONS, trials
from fmlib.studies.shared.profiles import PROFILES, profile


def right(results: Results, kind: str, regime: str) -> np.ndarray:
    """Whether each network is right on each changed image: (repetitions, N, kinds, strengths), as percent.

    kind: "corruptions" (14 kinds, 5 severities) or "bands" (6 bands of radius, 2 strengths).
    """
    return 100.0 * bits(results.arrays("corruptions"), f"{kind}.{regime}")


def gains(results: Results, kind: str, regime: str, base: str = "N") -> np.ndarray:
    """Points by which a regime's networks are right more often than those of `base` from the same seeds.

    (repetitions, N, kinds), the mean over strengths; see `right`.
    """
    own = right(results, kind, regime)
    return (own - right(results, kind, base)[: len(own)]).mean(-1)


def radii(results: Results) -> np.ndarray:
    """Mean radius of each corruption's energy, the mean over severities: (14,), as a fraction of the corner radius."""
    table = results.table("corruptions")
    return table.groupby("corruption", sort=False)["mean_radius"].mean().to_numpy()


def halves(results: Results, kind: str, regime: str, base: str = "N") -> tuple[np.ndarray, np.ndarray]:
    """Mean gains on the kinds of lower and on those of higher frequencies: (repetitions, N) each; see `gains`.

    The median parts them, of the mean radius of corruptions, or of the bands' number.
    """
    found = gains(results, kind, regime, base)
    place = radii(results) if kind == "corruptions" else np.arange(found.shape[-1])
    middle = np.median(place)
    return found[..., place < middle].mean(-1), found[..., place > middle].mean(-1)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Measured:
    """Spearman's correlation of two samples (n,), n > 3, with its 95% interval; equal values correlate with nothing.

    Source of the interval: Bonett and Wright (2000).
    """
    constant = np.ptp(first) == 0 or np.ptp(second) == 0
    value = 0.0 if constant else float(np.clip(spearmanr(first, second).statistic, -1, 1))
    if abs(value) > 1 - 1e-9:
        return Measured(round(value), round(value), round(value), len(first))
    error = Z * math.sqrt((1 + value**2 / 2) / (len(first) - 3))
    centre = math.atanh(value)
    return Measured(value, math.tanh(centre - error), math.tanh(centre + error), len(first))


def jacobian_difference(results: Results, more: str, less: str) -> Measured:
    """Difference of two regimes' low shares of the Jacobian, paired over images and seeds."""
    arrays = results.arrays("jacobians")
    pairs = zip(arrays[f"low.{more}"].astype(float), arrays[f"low.{less}"].astype(float), strict=False)
    return pooled_range([average(first - second) for first, second in pairs])


def accuracy_difference(results: Results, regime: str) -> Measured:
    """Accuracy on the validation images, a regime's minus N's, paired over images and seeds."""
    arrays = results.arrays("biased_evaluation")
    first, second = (bits(arrays, f"standard.{name}") for name in (regime, "N"))
    return pooled_range([paired(own, plain) for own, plain in zip(first, second, strict=True)])


def corruption_gain(results: Results, regime: str, high: bool, sign: int) -> Measured:
    """Mean gain over N (sign -1: loss) on the half of the corruptions of higher or of lower mean radius."""
    return pooled_range([average(sign * one) for one in halves(results, "corruptions", regime)[high]])


def gain_order(results: Results, regime: str, sign: int) -> Measured:
    """Rank correlation of the corruptions' mean radius with the gain over N (sign -1: loss), over repetitions' mean."""
    return rank_correlation(radii(results), sign * gains(results, "corruptions", regime).mean((0, 1)))


def band_gain(results: Results, regime: str, sign: int) -> Measured:
    """Gain over N under noise in the upper half of the bands minus that in the lower half (sign -1: the reverse)."""
    low, high = halves(results, "bands", regime)
    return pooled_range([average(sign * one) for one in high - low])


def attack_difference(results: Results, first: str, second: str) -> Measured:
    """Difference of two regimes' accuracies under AutoAttack, paired over images and seeds."""
    arrays = results.arrays("robustness")
    pairs = zip(*(arrays[f"AutoAttack.{name}"] for name in (first, second)), strict=False)
    return pooled_range([paired(*pair) for pair in pairs])


def masking_difference(results: Results, attack: str) -> Measured:
    """By how many points an attack fools more images than PGD with restarts; of the networks, the one where it is most.

    Both attacks have the same radius.
    """
    arrays = results.arrays("robustness")
    names = [name.removeprefix("PGD.") for name in arrays if name.startswith("PGD.")]
    pairs = (zip(arrays[f"PGD.{name}"], arrays[f"{attack}.{name}"], strict=True) for name in names)
    return max(paired(*pair) for one in pairs for pair in one)


def network_contrast(results: Results, column: str, regime: str, sign: int) -> Measured:
    """A column of the networks' table, a regime's minus N's (sign -1: the reverse), paired over seeds."""
    table = results.table("biased_networks").set_index(["network", "repetition"])[column]
    return min_max(sign * (table.loc[regime] - table.loc["N"]).to_numpy())


def jacobian_mask_correlation(results: Results) -> Measured:
    """Rank correlation, over kinds of networks, of the low shares of Jacobian and dataset mask."""
    table = results.table("biased_networks").groupby("network", sort=False)
    columns = table[["jacobian_low_share", "mask_low_share"]].mean().to_numpy()
    return rank_correlation(columns[:, 0], columns[:, 1])


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
            value, low, high, _ = pooled_range([average(own) for own in one])
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
        row = {kind: _cell(pooled_range([wilson(one) for one in found]), 1) for kind, found in hits.items()}
        row["S"] = _span(group["statistic"], DIGITS["statistic"])
        row["amplitude"] = _span(group["amplitude"], DIGITS["amplitude"])
        row["Jacobian's low share"] = _cell(pooled_range([average(one.astype(float)) for one in lows[str(name)]]), 3)
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
                row[f"{kind}, {where}"] = _cell(pooled_range([average(one) for one in found]), 1)
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
        minus(name): {kind: _cell(pooled_range([wilson(one) for one in arrays[f"{kind}.{name}"]]), 1) for kind in kinds}
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
            kind: _cell(pooled_range([paired(*pair) for pair in zip(own[kind], base[kind], strict=False)]), 1)
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
        "size": f"{found.jacobian_norm:g}",
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
    for name in PROFILES["paper"].regularised_once:  # those that this profile leaves out
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
