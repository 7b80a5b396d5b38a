"""Numbers of the chapter on Jacobian frequency regularisation, from its published files.

In order: what is read from the files, the measures of `claims.toml`, the data of the figures, the tables, and the
numbers that the text quotes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML
from torch import from_numpy

from fmlib.core.intervals import Measured, average, min_max, paired, pooled_range, wilson
from fmlib.core.spectra import corner_radius, full_plane, radius
from fmlib.pipeline.results import Results
from fmlib.pipeline.store import bits
from fmlib.studies.jacobian_regularisation.tasks import BANDS, DEVIATIONS, attacks
from fmlib.studies.shared.names import full_name, minus
from fmlib.studies.shared.profiles import PROFILES, profile
from fmlib.studies.shared.ranks import rank_correlation

# ------------------------------------------------------------------------------------------------ reading the files


def arrays_by_network(results: Results, file: str, kind: str) -> dict[str, np.ndarray]:
    """Name of a network -> the array `<kind>.<name>` of a file."""
    arrays = results.arrays(file)
    return {name.removeprefix(f"{kind}."): array for name, array in arrays.items() if name.startswith(f"{kind}.")}


def correct(results: Results, kind: str, regime: str) -> np.ndarray:
    """Whether each network classifies each changed image correctly, 0 or 100: (repetitions, N, changes, strengths).

    kind: "corruptions" (14 corruptions, 5 severities) or "bands" (6 bands of radius, 2 deviations).
    """
    return 100.0 * bits(results.arrays("corruptions"), f"{kind}.{regime}")


def gains(results: Results, kind: str, regime: str, base: str = "N") -> np.ndarray:
    """Accuracy gains of a regime's networks over those of `base` from the same seeds, in points.

    (repetitions, N, changes), the mean over strengths; see `correct`.
    """
    own = correct(results, kind, regime)
    return (own - correct(results, kind, base)[: len(own)]).mean(-1)


def radii(results: Results) -> np.ndarray:
    """Mean radius of each corruption's energy, the mean over severities: (14,), as a fraction of the corner radius."""
    table = results.table("corruptions")
    return table.groupby("corruption", sort=False)["mean_radius"].mean().to_numpy()


def gains_by_half(results: Results, kind: str, regime: str, base: str = "N") -> tuple[np.ndarray, np.ndarray]:
    """Mean gains on changes of low and of high frequencies: (repetitions, N) each; see `gains`.

    The median separates them: of the corruptions' mean radius, or of the bands' number.
    """
    points = gains(results, kind, regime, base)
    place = radii(results) if kind == "corruptions" else np.arange(points.shape[-1])
    median = np.median(place)
    return points[..., place < median].mean(-1), points[..., place > median].mean(-1)


def biased_networks(arrays: dict[str, np.ndarray]) -> list[str]:
    """Names of a file's networks with a bias, where it also holds the same training without a bias."""
    names = [name.removeprefix("clean.") for name in arrays if name.startswith("clean.")]
    return [name for name in names if len(name) > 1 and name[0] in names]


# ------------------------------------------------------------------------------------------------ measures of claims


def jacobian_difference(results: Results, more: str, less: str) -> Measured:
    """Low share of the Jacobian, regime `more` minus regime `less`, paired over images and seeds."""
    arrays = results.arrays("jacobians")
    pairs = zip(arrays[f"low.{more}"].astype(float), arrays[f"low.{less}"].astype(float), strict=False)
    return pooled_range([average(first - second) for first, second in pairs])


def network_contrast(results: Results, column: str, regime: str, sign: int) -> Measured:
    """A column of the networks' table, a regime's minus N's (sign -1: the reverse), paired over seeds."""
    table = results.table("biased_networks").set_index(["network", "repetition"])[column]
    return min_max(sign * (table.loc[regime] - table.loc["N"]).to_numpy())


def accuracy_difference(results: Results, regime: str) -> Measured:
    """Accuracy on the validation images, a regime's minus N's, paired over images and seeds."""
    arrays = results.arrays("biased_evaluation")
    first, second = (bits(arrays, f"standard.{name}") for name in (regime, "N"))
    return pooled_range([paired(*pair) for pair in zip(first, second, strict=True)])


def corruption_gain(results: Results, regime: str, high: bool, sign: int) -> Measured:
    """Mean gain over N (sign -1: loss) on the corruptions above (high) or below the median of the mean radius."""
    return pooled_range([average(sign * points) for points in gains_by_half(results, "corruptions", regime)[high]])


def gain_order(results: Results, regime: str, sign: int) -> Measured:
    """Rank correlation of the corruptions' mean radius with the mean gain over N (sign -1: loss) of all repetitions."""
    return rank_correlation(radii(results), sign * gains(results, "corruptions", regime).mean((0, 1)))


def band_gain(results: Results, regime: str, sign: int) -> Measured:
    """Gain over N under noise in the upper half of the bands minus that in the lower half (sign -1: the reverse)."""
    low, high = gains_by_half(results, "bands", regime)
    return pooled_range([average(sign * points) for points in high - low])


def attack_difference(results: Results, first: str, second: str) -> Measured:
    """Difference of two regimes' accuracies under AutoAttack, paired over images and seeds."""
    arrays = results.arrays("robustness")
    pairs = zip(*(arrays[f"AutoAttack.{name}"] for name in (first, second)), strict=False)
    return pooled_range([paired(*pair) for pair in pairs])


def masking_difference(results: Results, attack: str) -> Measured:
    """Accuracy under PGD with restarts minus that under `attack` of the same radius: the largest of all networks."""
    arrays = results.arrays("robustness")
    names = [name.removeprefix("PGD.") for name in arrays if name.startswith("PGD.")]
    pairs = (zip(arrays[f"PGD.{name}"], arrays[f"{attack}.{name}"], strict=True) for name in names)
    return max(paired(*pair) for network in pairs for pair in network)


def jacobian_mask_correlation(results: Results) -> Measured:
    """Rank correlation of the low shares of Jacobian and dataset mask, over the means of each kind of network."""
    table = results.table("biased_networks").groupby("network", sort=False)
    columns = table[["jacobian_low_share", "mask_low_share"]].mean().to_numpy()
    return rank_correlation(columns[:, 0], columns[:, 1])


# ------------------------------------------------------------------------------------------------ data of the figures

#: Networks with JaFR and without attacks in training.
JAFR = ("N+", "N++", "N-", "N--")


def gain_rows(results: Results, kind: str) -> pd.DataFrame:
    """Gains over N of the networks in `JAFR`, one row per network and change.

    Args:
        results: the published files.
        kind: "corruptions", or "bands", whose radius is the middle of the band.

    Returns:
        Columns name, label, radius (fraction of the corner radius), value, low and high (points, over all seeds).
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
        points = np.moveaxis(gains(results, kind, name), -1, 0)  # (changes, repetitions, N)
        for label, middle, repetitions in zip(labels, place, points, strict=True):
            value, low, high, _ = pooled_range([average(images) for images in repetitions])
            rows.append({"name": name, "label": label, "radius": middle, "value": value, "low": low, "high": high})
    return pd.DataFrame(rows)


def median_radius(results: Results) -> float:
    """The mean radius that separates low-frequency from high-frequency corruptions, over the corner radius."""
    return float(np.median(radii(results)))


def low_share_pairs(results: Results) -> list[tuple[str, float, float]]:
    """Name of each network, and the low shares of its Jacobian and of its dataset mask."""
    table = results.table("biased_networks")
    return list(zip(table["network"], table["jacobian_low_share"], table["mask_low_share"], strict=True))


# ------------------------------------------------------------------------------------------------ tables

#: Column of the networks' table -> decimals.
DIGITS = {"statistic": 1, "amplitude": 2, "jacobian_low_share": 3, "mask_low_share": 3, "standard": 1}

#: Name of an attack in the files -> its heading, where they differ.
HEADINGS = {"PGD half": "PGD, half radius"}


def networks_table(results: Results) -> HTML:
    """Each kind of network: accuracies (%); the Jacobian's S, mean amplitude and low share; the mask's low share.

    Intervals are Wilson's (accuracies) or normal ones over images (Jacobian), and span those of all seeds. S, the
    amplitude and the mask's low share have the smallest and the largest value of the seeds.
    """
    table, lows = results.table("biased_networks"), arrays_by_network(results, "jacobians", "low")
    arrays, rows = results.arrays("biased_evaluation"), {}
    for name, group in table.groupby("network", sort=False):
        row = {}
        for heading, kind in (("unmasked accuracy (%)", "standard"), ("accuracy with mask (%)", "masked")):
            row[heading] = _cell(pooled_range([wilson(images) for images in bits(arrays, f"{kind}.{name}")]), 1)
        row["S"] = _span(group["statistic"], DIGITS["statistic"])
        row["mean amplitude"] = _span(group["amplitude"], DIGITS["amplitude"])
        low = pooled_range([average(images.astype(float)) for images in lows[str(name)]])
        row["Jacobian's low share"] = _cell(low, DIGITS["jacobian_low_share"])
        row["mask's low share"] = _span(group["mask_low_share"], DIGITS["mask_low_share"])
        rows[full_name(str(name))] = row
    return _html(pd.DataFrame(rows).T)


def halves_table(results: Results) -> HTML:
    """Each biased network's gain over the same training without a bias, in points: corruptions, and noise bands."""
    arrays, cells = results.arrays("corruptions"), {}
    for name in biased_networks(arrays):
        row = {}
        for kind in ("corruptions", "bands"):
            for half, points in zip(("low", "high"), gains_by_half(results, kind, name, name[0]), strict=True):
                row[f"{kind}, {half}"] = _cell(pooled_range([average(images) for images in points]), 1)
        cells[_compared(name)] = row
    return _html(pd.DataFrame(cells).T)


def attacks_table(results: Results) -> HTML:
    """Each kind of network: accuracy on the first images in percent, clean and under each attack."""
    arrays = results.arrays("robustness")
    kinds = ["clean", *attacks(profile(results.profile))]
    names = dict.fromkeys(name.split(".")[1] for name in arrays)
    cells = {
        full_name(name): {
            HEADINGS.get(kind, kind): _cell(pooled_range([wilson(images) for images in arrays[f"{kind}.{name}"]]), 1)
            for kind in kinds
        }
        for name in names
    }
    return _html(pd.DataFrame(cells).T)


def attack_differences_table(results: Results) -> HTML:
    """Each biased network's accuracy minus that of the same training without a bias, by attack, in points."""
    arrays = results.arrays("robustness")
    kinds = ["clean", *attacks(profile(results.profile))]
    cells: dict[str, dict[str, str]] = {}
    for name in biased_networks(arrays):
        own, base = ({kind: arrays[f"{kind}.{network}"] for kind in kinds} for network in (name, name[0]))
        cells[_compared(name)] = {
            HEADINGS.get(kind, kind): _cell(
                pooled_range([paired(*pair) for pair in zip(own[kind], base[kind], strict=False)]), 1
            )
            for kind in kinds
        }
    return _html(pd.DataFrame(cells).T)


def _span(values: Iterable[float], digits: int) -> str:
    """The smallest and the largest of several values, or the value that all have."""
    ordered = sorted(values)
    low, high = (minus(f"{value:.{digits}f}") for value in (ordered[0], ordered[-1]))
    return low if low == high else f"{low} to {high}"


def _compared(name: str) -> str:
    return f"{minus(name)} compared with {name[0]}"


def _cell(measured: Measured, digits: int) -> str:
    """A value with its interval below, or without one if that has no width."""
    value, low, high = (minus(f"{number:.{digits}f}") for number in measured[:3])
    return value if low == high else f"{value}<br>({low} to {high})"


def _html(table: pd.DataFrame) -> HTML:
    """A table whose cells do not wrap; where it is too wide, it scrolls."""
    with pd.option_context("display.max_colwidth", None):
        page = table.to_html(escape=False, border=0)
    return HTML(f'<div style="font-size: 0.8em; overflow-x: auto; white-space: nowrap">{page}</div>')


# ------------------------------------------------------------------------------------------------ numbers in the text


def axis_share(amplitude: np.ndarray) -> float:
    """Share of a half plane's energy (H, W // 2 + 1) at high frequencies near the vertical axis.

    High frequencies are radii from a third of the corner radius; near the axis are the columns up to a sixteenth of
    the width.
    """
    height, width = amplitude.shape[0], 2 * (amplitude.shape[1] - 1)
    power = full_plane(from_numpy(amplitude.astype(float) ** 2), width)
    high = radius(height, width) >= corner_radius(height, width) / 3
    near = radius(1, width) <= width / 16  # (1, W)
    return float((power * (high & near)).sum() / power.sum())


def numbers(results: Results) -> dict[str, str]:
    """The numbers that the text quotes beside those of claims, as text."""
    settings, table = profile(results.profile), results.table("biased_networks")
    clean = results.arrays("corruptions")["clean.N"]
    quoted = {
        "lambda": f"{settings.jafr:g}",
        "sensitivity": f"{settings.sensitivity:g}",
        "jacobian_norm": f"{settings.jacobian_norm:g}",
        "seeds": f"{len(clean)}",
        "n_corrupted": f"{clean.shape[1]:,}",
        "n_robust": f"{results.arrays('robustness')['clean.N'].shape[1]:,}",
        "steps": f"{settings.evaluation.steps}",
        "restarts": f"{settings.evaluation.restarts}",
        "queries": f"{settings.evaluation.queries:,}",
        "epsilon": f"{settings.evaluation.epsilon:.3g}",
        "deviations": " and ".join(f"{deviation:g}" for deviation in DEVIATIONS),
        "median": f"{median_radius(results):.2f}",
    }
    for name in PROFILES["paper"].regularised_once:  # overwritten below if these results have the network
        quoted |= {f"{column}.{name}": "(not computed)" for column in ("axis", *DIGITS)}
    for name, amplitudes in arrays_by_network(results, "jacobians", "amplitude").items():
        quoted[f"axis.{name}"] = _span([axis_share(amplitude) for amplitude in amplitudes], 3)
    for name, group in table.groupby("network", sort=False):
        for column, digits in DIGITS.items():
            quoted[f"{column}.{name}"] = _span(group[column], digits)
    return quoted
