"""Five instruments compared: profiles, their centres and widths, and their rank correlations over networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from fmlib.core.intervals import Measured, pooled_range
from fmlib.pipeline.results import NotComputed, Results
from fmlib.pipeline.store import bits
from fmlib.studies.discussion.experiment import DEVIATIONS, INSTRUMENTS
from fmlib.studies.shared.names import full_name, in_order, minus
from fmlib.studies.shared.ranks import rank_correlation

#: Full width at half maximum of a normal distribution, in standard deviations.
FULL_WIDTH = 2.354820
RESAMPLES = 1000


def found(results: Results, network: str) -> dict[str, np.ndarray]:
    """What the instruments gave for a network such as "A.0": as the task `instruments` stores it, bits unpacked."""
    prefix, arrays = f"{network}/", results.arrays("instruments")
    own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return {name: bits(own, name) if f"{name}.shape" in own else own[name] for name in own if ".shape" not in name}


def networks(results: Results) -> dict[str, list[str]]:
    """Kind of network -> its networks, such as "A" -> ["A.0", "A.1"], in the order of pages."""
    names = sorted({name.split("/")[0] for name in results.arrays("instruments") if "/" in name})
    kinds = in_order({name.rpartition(".")[0] for name in names})
    return {kind: [name for name in names if name.rpartition(".")[0] == kind] for kind in kinds}


# ------------------------------------------------------------------------------------------------ profiles


def thresholds(correct: np.ndarray, clean: np.ndarray, classes: int, weights: np.ndarray) -> np.ndarray:
    """The noise in each octave that takes the accuracy half-way to chance, log2 of its standard deviation.

    Between two deviations the accuracy is interpolated. A threshold outside the measured deviations is set to the
    nearest of them.

    Args:
        correct: (octaves, deviations, N) bool.
        clean: (N,) bool, without noise.
        weights: (samples, N), each row sums to 1: the images of a sample.

    Returns:
        (samples, octaves).
    """
    accuracy = np.einsum("odn,sn->sod", correct.astype(float), weights)
    level = ((weights @ clean.astype(float)) + 1 / classes)[:, None] / 2  # (samples, 1)
    below = accuracy <= level[:, :, None]
    above = ~below.any(-1)
    index = np.where(above, len(DEVIATIONS) - 1, below.argmax(-1)).clip(1)
    after, before = (np.take_along_axis(accuracy, index[..., None] - step, -1)[..., 0] for step in (0, 1))
    part = np.clip((before - level) / np.maximum(before - after, 1e-12), 0, 1)
    steps = np.log2(DEVIATIONS)
    return np.where(above, steps[-1], steps[index - 1] + part * (steps[index] - steps[index - 1]))


def critical_band(arrays: dict[str, np.ndarray], classes: int, weights: np.ndarray) -> np.ndarray:
    """Sensitivity to noise in each octave, one over the noise's power at threshold: (samples, octaves)."""
    return 2 ** (-2 * thresholds(arrays["noise"], arrays["clean"], classes, weights))


def low_choices(arrays: dict[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Of hybrids classified as one of their images, the share classified as that of the low ones: (samples, cuts)."""
    low, high = (weights @ arrays[name].T.astype(float) for name in ("low", "high"))
    return low / np.maximum(low + high, 1e-12)


def profile(arrays: dict[str, np.ndarray], instrument: str, classes: int) -> np.ndarray:
    """The profile of one network by one instrument, (octaves,): see `experiment`."""
    if instrument == "noise":
        return critical_band(arrays, classes, _everyone(arrays["clean"].size))[0]
    if instrument == "hybrid":
        return np.maximum(np.diff(low_choices(arrays, _everyone(arrays["low"].shape[1]))[0]), 0)
    return arrays[instrument]


def centre(profiles: np.ndarray) -> np.ndarray:
    """Mean octave of profiles (..., octaves), weighted by them: 0 is one cycle per image; nan if a profile is 0."""
    with np.errstate(invalid="ignore"):
        return (profiles @ np.arange(profiles.shape[-1])) / profiles.sum(-1)


def width(profiles: np.ndarray) -> np.ndarray:
    """Full width at half maximum, in octaves, of the normal distribution with the variance of a profile."""
    octave = np.arange(profiles.shape[-1])
    with np.errstate(invalid="ignore"):
        variance = (profiles * (octave - centre(profiles)[..., None]) ** 2).sum(-1) / profiles.sum(-1)
    return FULL_WIDTH * np.sqrt(variance)


def profiles(results: Results, instrument: str) -> dict[str, np.ndarray]:
    """Kind of network -> its profiles, (networks, octaves)."""
    classes = int(results.arrays("instruments")["classes"])
    return {
        kind: np.stack([profile(found(results, name), instrument, classes) for name in names])
        for kind, names in networks(results).items()
    }


# ------------------------------------------------------------------------------------------------ claims


def channel_difference(results: Results, quantity: str, more: str = "A", less: str = "N") -> Measured:
    """Centre or width of the channel by critical-band masking, `more` minus `less`, both on the same images.

    Intervals are bootstrap percentiles over images, pooled over the seeds of both.

    Args:
        quantity: "centre" or "width".
    """
    classes, measure = int(results.arrays("instruments")["classes"]), {"centre": centre, "width": width}[quantity]

    def values(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return measure(critical_band(arrays, classes, _resampled(arrays["clean"].size)))

    return _difference(results, more, less, values, "clean")


def hybrid_difference(results: Results, more: str = "A", less: str = "N") -> Measured:
    """Percentage of hybrids classified as the image of their low frequencies, averaged over cuts, `more` minus `less`.

    Cuts below the first octave and above the last are left out. Intervals are as of `channel_difference`, over pairs.
    """

    def values(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return 100 * low_choices(arrays, _resampled(arrays["low"].shape[1]))[:, 1:-1].mean(1)

    return _difference(results, more, less, values, "low")


def _difference(
    results: Results, more: str, less: str, values: Callable[[dict[str, np.ndarray]], np.ndarray], counted: str
) -> Measured:
    """Difference of two kinds of network, seed by seed.

    Args:
        values: what `found` returns -> the value and its resamples, (1 + RESAMPLES,).
        counted: the array over whose last axis is resampled.
    """
    parts, names = [], networks(results)
    for first, second in zip(names[more], names[less], strict=True):
        one, other = found(results, first), found(results, second)
        value, *resamples = values(one) - values(other)
        low, high = np.percentile(resamples, (2.5, 97.5))
        parts.append(Measured(float(value), float(low), float(high), one[counted].shape[-1]))
    return pooled_range(parts)


def agreement(results: Results, first: str, second: str) -> Measured:
    """Rank correlation of two instruments' centres over kinds of network, each the mean over its seeds."""
    return _agreement(centres(results, (first, second)), INSTRUMENTS[first], INSTRUMENTS[second])


def _agreement(table: pd.DataFrame, first: str, second: str) -> Measured:
    """Rank correlation of two columns of `centres`; kinds of network without a centre are left out."""
    chosen = table[[first, second]].dropna().to_numpy()
    if len(chosen) < 4:
        raise NotComputed("fewer than 4 kinds of network have a centre")
    return rank_correlation(chosen[:, 0], chosen[:, 1])


# ------------------------------------------------------------------------------------------------ tables


def centres(results: Results, instruments: Sequence[str] = tuple(INSTRUMENTS)) -> pd.DataFrame:
    """Mean over seeds of each instrument's centre, in octaves above one cycle per image: a row per kind of network."""
    columns = {}
    for name in instruments:
        means = {full_name(kind): centre(one).mean() for kind, one in profiles(results, name).items()}
        columns[INSTRUMENTS[name]] = means
    return pd.DataFrame(columns)


def centre_table(results: Results) -> pd.DataFrame:
    """The centres in cycles per image."""
    return (2 ** centres(results)).map("{:.1f}".format)


def agreement_table(results: Results) -> pd.DataFrame:
    """Rank correlations of all pairs of instruments with their intervals."""
    table, rows = centres(results), {}
    for title in table:
        measured = {other: _agreement(table, title, other) for other in table if other != title}
        rows[title] = {
            other: minus(f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})") for other, one in measured.items()
        }
    return pd.DataFrame.from_dict(rows, "index", columns=list(table)).fillna("")


def _everyone(count: int) -> np.ndarray:
    """The images themselves as a sample: (1, count)."""
    return np.full((1, count), 1 / count)


def _resampled(count: int) -> np.ndarray:
    """The images themselves, then bootstrap resamples of them: (1 + RESAMPLES, count), each row sums to 1."""
    counts = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return np.concatenate((_everyone(count), counts / count))
