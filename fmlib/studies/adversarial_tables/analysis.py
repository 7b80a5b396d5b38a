"""Analysis of adversarial images: Table 2, Figures 6 and 7, and the frequencies that attacks change."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch

from fmlib.core.intervals import Measured, average, min_max, paired, ratio_of_means
from fmlib.core.spectra import angular_energy, binarize, correlation, full_plane, radial_energy
from fmlib.pipeline.results import NotComputed, Results

#: Ranges of the 64 radial bands of Paper Fig. 7: the lowest sixteenth and the middle quarter.
BANDS = {"lowest": slice(0, 4), "middle": slice(24, 40)}

#: Band energies, whose sum is 1, that differ by less than this are equal: sums of the same numbers in another order do.
ROUNDING = 1e-12


def exceeds(
    results: Results,
    kind: str,
    binary: bool = False,
    energy: Callable[[torch.Tensor], torch.Tensor] = radial_energy,
    file: str = "image_masks",
) -> np.ndarray:
    """Whether each image's mask of `kind` has more energy than M_{N,x} in each of 64 bands (Figure 7): (K, 64) bool.

    Args:
        results: with `file`.
        kind: of the masks to compare, such as "A.xA".
        binary: whether both masks are binarised first.
        energy: spectra.radial_energy or spectra.angular_energy. A tie, up to `ROUNDING`, does not exceed.
        file: "image_masks", or "minimal_image_masks".
    """
    arrays = results.arrays(file)
    energies = []
    for name in (kind, "N.x"):
        half = torch.from_numpy(arrays[name].astype(np.float64))
        energies.append(energy(full_plane(binarize(half) if binary else half, 2 * (half.shape[-1] - 1))))
    return (energies[0] - energies[1] > ROUNDING).numpy()


def exceedance_in_bands(results: Results, kind: str, binary: bool, bands: str, file: str = "image_masks") -> Measured:
    """Percentage of images whose mask of `kind` exceeds M_{N,x} in a band, averaged over a range of BANDS."""
    return average(100 * exceeds(results, kind, binary, file=file)[:, BANDS[bands]].mean(1))


def low_shift(results: Results, file: str = "image_masks") -> Measured:
    """Difference in low share, M_{A,x_A} minus M_{N,x}, paired by image."""
    table = results.table(file)
    groups = {kind: table[table["kind"] == kind]["low_share"].to_numpy() for kind in ("A.xA", "N.x")}
    if not len(groups["A.xA"]):
        raise NotComputed("no masks of A were learned")
    return average(groups["A.xA"] - groups["N.x"])


def attack_enrichment(results: Results) -> Measured:
    """Ratio of the attack's mean energy at the mask's frequencies to that at radially matched frequencies."""
    arrays = results.arrays("tables")
    return ratio_of_means(*(arrays[name].astype(float) for name in ("attack_inside", "attack_matched")))


def attack_outside(results: Results, file: str = "tables") -> Measured:
    """Percentage of the attack's energy outside the mask's frequencies, averaged over images."""
    return average(100 * (1 - results.arrays(file)["attack_inside"]))


def attack_structure(results: Results) -> Measured:
    """Correlation over frequencies of each other family's mean spectrum with that of the training attack."""
    arrays = {name: torch.from_numpy(array) for name, array in results.arrays("attacks").items() if "spectrum" in name}
    first, *others = arrays  # the training attack comes first
    families = [name for name in others if "PGD" not in name]
    return min_max(np.array([float(correlation(arrays[first], arrays[name])) for name in families]))


def borrowed_mask(results: Results, regime: str) -> Measured:
    """Robust accuracy of N with A's dataset mask applied, minus that of an unmasked network of `regime`, in points.

    The attack on N goes through the mask.
    """
    return paired(results.arrays("adaptive")["aware.A"], results.arrays("evaluation")[f"attacked.{regime}"][0])


def eligibility(results: Results) -> dict[str, str]:
    """Numbers of eligible images by the paper's text and by the authors' code, formatted for prose.

    Text: N is correct on x and wrong on x_A. Code: N and A are both correct or both wrong on x, and the attack changes
    whether N is correct. `turned_right` counts those that the attack makes correct.
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


def selection(results: Results, larger: Results) -> dict[str, str]:
    """How many images are selected, by each rule and in both results: description -> number, formatted."""
    counts, pairs = eligibility(results), larger.arrays("pairs")
    return {
        "validation images": counts["validation"],
        "eligible by the paper's text": counts["eligible"],
        "eligible by the authors' code": counts["by_code"],
        "eligible by the text only": counts["only_text"],
        "eligible by the code only": counts["only_code"],
        "of these, images that the attack makes N classify correctly": counts["turned_right"],
        "VGG11 at 128 px: eligible (the paper speaks of about 1,421)": f"{pairs['eligible'].sum():,}",
        "VGG11 at 128 px: considered for masks, equally many of each class": str(
            larger.manifest["experiments"]["image-masks"]["images"]
        ),
        "VGG11 at 128 px: eligible among these, with masks": f"{len(larger.arrays('tables')['x']):,}",
    }


def attack_spectra(results: Results) -> dict[str, np.ndarray]:
    """Mean spectrum of each attack family, PGD's at the training radius: name -> half plane (H, W // 2 + 1)."""
    spectra = {
        name.removeprefix("spectrum."): array
        for name, array in results.arrays("attacks").items()
        if name.startswith("spectrum.")
    }
    first = next(iter(spectra))
    return {name: spectrum for name, spectrum in spectra.items() if name == first or "PGD" not in name}


def attack_table(results: Results) -> pd.DataFrame:
    """One row per attack on N: accuracies, eligible images, accuracy with M_{N,x} applied, distance, correlation.

    An image is eligible if N is correct on x and wrong on the attacked image. The accuracy with M_{N,x} applied is that
    of N on the attacked eligible images that have masks. The correlation is that of the mean spectrum with PGD's.
    """
    arrays, pairs = results.arrays("attacks"), results.arrays("pairs")
    image = results.arrays("image_masks")["image"]
    correct = pairs["prediction.N.x"] == pairs["labels"]
    names = [name[2:] for name in arrays if name.startswith("N.")]
    first = torch.from_numpy(arrays[f"spectrum.{names[0]}"])
    rows = {}
    for name in names:
        eligible = correct & ~arrays[f"N.{name}"]
        masked = arrays[f"masked.{name}"][eligible[image]]
        rows[name] = {
            "accuracy of N (%)": 100 * arrays[f"N.{name}"].mean(),
            "accuracy of A (%)": 100 * arrays[f"A.{name}"].mean(),
            "eligible images": int(eligible.sum()),
            "N with masks (%)": 100 * masked.mean() if masked.size else float("nan"),
            "median l2 distance": float(np.median(arrays[f"distance.{name}"])),
            "correlation with PGD": float(correlation(torch.from_numpy(arrays[f"spectrum.{name}"]), first)),
        }
    table = pd.DataFrame(rows).T.astype({"eligible images": int})
    return table.round({name: 1 if "%" in name else 3 for name in table})


def adaptive_table(results: Results) -> pd.DataFrame:
    """Accuracy of the first networks N and A, unmasked and N with dataset masks applied: clean, PGD, adaptive PGD.

    PGD goes through the network alone, adaptive PGD through the mask as well; for unmasked networks they are the same.
    """
    unmasked, masked = results.arrays("evaluation"), results.arrays("adaptive")
    rows = {}
    for regime in "NA":
        clean, attacked = (100 * unmasked[f"{name}.{regime}"][0].mean() for name in ("standard", "attacked"))
        rows[regime] = (clean, attacked, attacked)
    for regime in "NA":
        rows[f"N with {regime}'s mask"] = tuple(
            100 * masked[f"{name}.{regime}"].mean() for name in ("clean", "unaware", "aware")
        )
    columns = ["clean (%)", "PGD (%)", "adaptive PGD (%)"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).round(1)


def energy_table(scales: Mapping[str, Results]) -> pd.DataFrame:
    """Shares (%) of the energy of attacks and images at certain frequencies, or passed by the mask, means over images.

    Args:
        scales: title of a column -> results.
    """
    rows = {
        "attack, at the mask's frequencies": "attack_inside",
        "attack, at random frequencies of the same radii": "attack_matched",
        "attack, passed by the mask": "attack_passed",
        "image about the mean gray, passed by the mask": "image_passed",
    }
    arrays = {title: results.arrays("tables") for title, results in scales.items()}
    return pd.DataFrame(
        {
            f"{title} (%)": {label: 100 * float(values[name].mean()) for label, name in rows.items()}
            for title, values in arrays.items()
        }
    ).round(1)


def exceedance(results: Results) -> dict[str, dict[str, np.ndarray]]:
    """The three variants of Figure 7: label -> {"radial", "angular"} -> percentage of images in each of 64 bands."""
    variants = {
        "$M_{A,x_A}$ (paper's text)": ("A.xA", False),
        "$M_{A,x_A}$, binarised": ("A.xA", True),
        "$M_{A,x}$, binarised (authors' code)": ("A.x", True),
    }
    return {
        label: {
            name: 100 * exceeds(results, kind, binary, energy).mean(0)
            for name, energy in (("radial", radial_energy), ("angular", angular_energy))
        }
        for label, (kind, binary) in variants.items()
    }
