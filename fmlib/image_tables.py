"""The tables and numbers of the chapters on image masks and on adversarial images."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from fmlib import adversarial_claims
from fmlib.chapters import scientific
from fmlib.config import profile as named_profile
from fmlib.intervals import average
from fmlib.results import Results
from fmlib.spectra import angular_energy, correlation, radial_energy


def class_names(results: Results) -> list[str]:
    """The names of the classes, in the order of their labels."""
    return [str(name) for name in results.arrays("samples")["classes"]]


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


def kinds(results: Results) -> pd.DataFrame:
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


def attack_spectra(results: Results) -> dict[str, np.ndarray]:
    """One mean spectrum for each family of attacks, PGD's at the training strength: half planes (H, W // 2 + 1)."""
    found = {
        name.removeprefix("spectrum."): one for name, one in results.arrays("attacks").items() if "spectrum" in name
    }
    first = next(iter(found))
    return {name: one for name, one in found.items() if name == first or "PGD" not in name}


def attacks(results: Results) -> pd.DataFrame:
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
