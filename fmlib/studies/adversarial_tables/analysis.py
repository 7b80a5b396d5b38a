"""The claims on adversarial images: table 2, figures 6 and 7, and what an attack touches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from fmlib.core.intervals import Measured, average, min_max, paired, wilson
from fmlib.core.spectra import angular_energy, binarize, correlation, full_plane, radial_energy
from fmlib.pipeline.results import NotComputed, Results

#: Ranges of Paper Fig. 7's 64 bands of radius: the lowest sixteenth and the middle quarter.
BANDS = {"lowest": slice(0, 4), "middle": slice(24, 40)}


def _kept(results: Results, what: str) -> Measured:
    """Percent of the images with masks that a network classifies rightly, a column of `tables`."""
    return wilson(results.arrays("tables")[what])


def more_energy(
    results: Results, kind: str, binary: bool = False, energy: Callable[[torch.Tensor], torch.Tensor] = radial_energy
) -> np.ndarray:
    """Whether each image's mask of `kind` has more energy than M_{N,x} in each of 64 bands (figure 7): (K, 64).

    binary: of both masks binarised; energy: spectra.radial_energy or angular_energy. A tie is not more.
    """
    arrays = results.arrays("image_masks")
    energies = []
    for name in (kind, "N.x"):
        half = torch.from_numpy(arrays[name].astype(np.float32))
        energies.append(energy(full_plane(binarize(half) if binary else half, 2 * (half.shape[-1] - 1))))
    return (energies[0] > energies[1]).numpy()


def exceedance_in_bands(results: Results, kind: str, binary: bool, bands: str) -> Measured:
    """Percent of images where a mask of `kind` exceeds M_{N,x} in a band, averaged over a range of BANDS."""
    return average(100 * more_energy(results, kind, binary)[:, BANDS[bands]].mean(1))


def low_shift(results: Results) -> Measured:
    """Energy share below a third of the corner radius, M_{A,x_A} minus M_{N,x}, the same images paired."""
    table = results.table("image_masks")
    groups = {kind: table[table["kind"] == kind]["low_share"].to_numpy() for kind in ("A.xA", "N.x")}
    if not len(groups["A.xA"]):
        raise NotComputed("no masks of A were learned")
    return average(groups["A.xA"] - groups["N.x"])


def attack_enrichment(results: Results) -> Measured:
    """Attack energy at a mask's frequencies over that at radially matched ones, each a mean over images."""
    arrays = results.arrays("tables")
    inside, matched = arrays["attack_inside"].astype(float), arrays["attack_matched"].astype(float)
    rng = np.random.default_rng(0).integers(0, len(inside), (1000, len(inside)))
    low, high = np.quantile(inside[rng].mean(1) / matched[rng].mean(1), (0.025, 0.975)).tolist()
    return Measured(float(inside.mean() / matched.mean()), low, high, len(inside))


def attack_outside(results: Results) -> Measured:
    return average(100 * (1 - results.arrays("tables")["attack_inside"]))


def attack_structure(results: Results) -> Measured:
    """Correlations over frequencies of the other families' mean spectra with that of the training attack."""
    arrays = {name: torch.from_numpy(array) for name, array in results.arrays("attacks").items() if "spectrum" in name}
    first, *others = arrays  # the training attack comes first
    families = [name for name in others if "PGD" not in name]
    return min_max(np.array([float(correlation(arrays[first], arrays[name])) for name in families]))


def borrowed_mask(results: Results, regime: str) -> Measured:
    """N behind A's dataset mask, attacked through it, minus a bare network of that regime under the same attack."""
    return paired(results.arrays("adaptive")["aware.A"], results.arrays("evaluation")[f"attacked.{regime}"][0])


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


def attacks(results: Results) -> pd.DataFrame:
    """Each attack on N: accuracies of N and A, eligible images, what M_{N,x} undoes, distance and similarity to PGD.

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


def adaptive(results: Results) -> pd.DataFrame:
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


def exceedance(results: Results) -> dict[str, dict[str, np.ndarray]]:
    """Figure 7's three readings: label -> radial and angular percent of images, in each of 64 bands."""
    readings = {
        "$M_{A,x_A}$, as described": ("A.xA", False),
        "$M_{A,x_A}$, binarised": ("A.xA", True),
        "$M_{A,x}$, binarised (code)": ("A.x", True),
    }
    return {
        label: {
            name: 100 * more_energy(results, kind, binary, energy).mean(0)
            for name, energy in (("radial", radial_energy), ("angular", angular_energy))
        }
        for label, (kind, binary) in readings.items()
    }
