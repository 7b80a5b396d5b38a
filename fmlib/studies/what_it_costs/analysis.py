"""Tables and numbers of the chapter on cost, from an object of `benchmark.measure` or of `solvers.measure`."""

from __future__ import annotations

from typing import Any

import pandas as pd

#: Key of a case's row -> heading of its column.
COLUMNS = {
    "images": "masks",
    "serial_steps_per_s": "serial (steps/s)",
    "batched_steps_per_s": "batched (steps/s)",
    "ratio": "speed-up",
    "serial_seconds": "serial (s)",
    "batched_seconds": "batched (s)",
    "peak_mib": "peak memory (MiB)",
    "ceiling_share": "share of the matrix-product rate",
}

#: The unit in which tables print excesses.
PER_MILLE = " (10\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT THREE})"

#: Solver -> its name in tables and legends.
SOLVERS = {
    "authors": "authors' schedule, one image at a time",
    "adam": "authors' schedule, batched",
    "slp-40": "minimal masks, 40 steps",
    "slp-60": "minimal masks, 60 steps",
    "slp-120": "minimal masks, 120 steps",
}


def cases_table(measured: dict[str, Any]) -> pd.DataFrame:
    """One row per case: rates of serial and batched learning, and their ratio."""
    table = pd.DataFrame(measured["rows"]).set_index("case")[list(COLUMNS)].rename(columns=COLUMNS)
    return table.map(lambda value: f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").rename_axis(None)


def quality_table(measured: dict[str, Any]) -> pd.DataFrame:
    """One row per case and way of learning: means over the masks of excess, L1 share, non-zero share and kept."""
    rows = {
        (row["case"], kind): _quality_cells(quality)
        for row in measured["rows"]
        for kind, quality in row["quality"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _quality_cells(quality: dict[str, float]) -> dict[str, str]:
    """The measures of `benchmark.mask_quality`, averaged over images, as cells of a table."""
    return {
        f"mean excess{PER_MILLE}": f"{1e3 * quality['excess']:#.3g}",
        "L1 share": f"{quality['l1_share']:#.2g}",
        "non-zero": f"{quality['nonzero_share']:.1%}",
        "predictions kept": f"{quality['kept']:.1%}",
    }


def network_name(case: str, images: int) -> str:
    """The network and size of a case of `solvers.CASES`, for tables and legends."""
    names = {
        "laptop-64-N": "standard network (N), 64 px",
        "laptop-64-A": "adversarially trained network (A), 64 px",
        "imagenet-160": "EfficientNet-Lite0, 160 px",
        "imagenet-160-authors": f"EfficientNet-Lite0, 160 px, first {images} images",
    }
    return names.get(case, case)


def solvers_table(compared: dict[str, Any]) -> pd.DataFrame:
    """One row per network and solver, from an object of `solvers.measure`.

    Passes, excess, L1 share, non-zero share and kept predictions are means over images. Seconds per image, and how many
    times as fast as the reference a solver is, are medians over chunks of images with their ranges.
    """
    speeds = {(entry["case"], entry["solver"]): entry for entry in compared["ratios"]}
    rows = {}
    for row in compared["rows"]:
        entry = speeds.get((row["case"], row["solver"]))
        speed = _ranged(entry["speed"], entry["speed_range"]) if entry else "\N{EN DASH}"
        cells = {"images": row["images"], "passes": f"{row['passes']:,.0f}"}
        cells |= {"seconds per image": _ranged(row["seconds"], row["seconds_range"]), "speed-up": speed}
        cells["median excess" + PER_MILLE] = f"{1e3 * row['excess_quartiles'][1]:#.3g}"
        name = (network_name(row["case"], row["images"]), SOLVERS[row["solver"]])
        rows[name] = cells | _quality_cells(row)
    return pd.DataFrame.from_dict(rows, orient="index")


def _ranged(value: float, bounds: list[float]) -> str:
    """A value and its range, in parentheses, with two significant digits."""
    text = [f"{one:,.0f}" if one >= 100 else f"{one:#.2g}".rstrip(".") for one in (value, *bounds)]
    return f"{text[0]} ({text[1]} to {text[2]})"


def minimal_table(compared: dict[str, Any]) -> pd.DataFrame:
    """One row per network and number of steps of minimal masks, compared with the reference on the same images.

    Args:
        compared: an object of `solvers.measure`.
    """
    kept = {(row["case"], row["solver"]): row["kept"] for row in compared["rows"]}
    images = {row["case"]: row["images"] for row in compared["rows"]}
    rows = {}
    for entry in compared["ratios"]:
        case, solver = entry["case"], entry["solver"]
        low, high = entry["excess_interval"]
        if solver.startswith("slp"):
            rows[network_name(case, images[case]), SOLVERS[solver].removeprefix("minimal masks, ")] = {
                "speed-up": _ranged(entry["speed"], entry["speed_range"]),
                "excess, as a ratio": f"{entry['excess']:.2f} ({low:.2f} to {high:.2f})",
                "images with the lower excess": f"{entry['lower']:.1%}",
                "predictions kept": f"{kept[case, solver]:.1%}",
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def solver_numbers(compared: dict[str, Any]) -> dict[str, str]:
    """The numbers of a comparison for prose, from an object of `solvers.measure`.

    For each case: `images.<case>`; for each of its solvers `passes.`, `kept.` and `nonzero.<case>.<solver>`; where
    there is a reference, `speed.`, `excess.` and `lower.<case>.<solver>`, as in `solvers.ratio`; and of each profile
    `network.`, `convolutions.`, `knapsack.` and `fft.<side in pixels>`, shares of a step.
    """
    found = {"device": compared["device"], "date": compared["date"]}
    for row in compared["rows"]:
        name = f"{row['case']}.{row['solver']}"
        found |= {f"images.{row['case']}": f"{row['images']}", f"chunks.{row['case']}": f"{row['chunks']}"}
        found |= {f"passes.{name}": f"{row['passes']:,.0f}", f"kept.{name}": f"{row['kept']:.1%}"}
        found |= {f"nonzero.{name}": f"{row['nonzero_share']:.1%}"}
    for entry in compared["ratios"]:
        name, (low, high) = f"{entry['case']}.{entry['solver']}", entry["excess_interval"]
        found |= {f"speed.{name}": _ranged(entry["speed"], entry["speed_range"])}
        found |= {f"excess.{name}": f"{entry['excess']:.2f} ({low:.2f} to {high:.2f})"}
        found |= {f"lower.{name}": f"{entry['lower']:.1%}"}
    for parts in compared["profile"]:
        shares = {name: parts[name] / parts["total"] for name in ("network", "convolutions", "knapsack", "fft", "rest")}
        found |= {f"{name}.{parts['size']}": f"{share:.0%}" for name, share in shares.items()}
    return found


#: Solver of shared masks -> its name in tables.
SHARED_SOLVERS = {"adam": "Adam", "adam-short": "Adam, as few passes", "sequential": "sequential convex steps"}
#: Case of `shared_masks` -> its masks and their network.
SHARED_CASES = {
    "dataset-64-N": "dataset mask of N",
    "dataset-64-A": "dataset mask of A",
    "class-64-N": "class masks of N",
}


def shared_masks_table(measured: dict[str, Any]) -> pd.DataFrame:
    """One row per kind of mask and solver, from an object of `shared_masks.measure`.

    Means over masks and seeds; in parentheses the range over seeds of the mean over masks.
    """
    rows = {}
    for row in measured["rows"]:
        excess = [f"{1e3 * value:#.3g}".rstrip(".") for value in (row["excess"], *row["excess_range"])]
        rows[SHARED_CASES[row["case"]], SHARED_SOLVERS[row["solver"]]] = {
            "passes (thousands)": f"{row['passes'] / 1e3:.3g}",
            "seconds": _ranged(row["seconds"], row["seconds_range"]),
            f"excess{PER_MILLE}": f"{excess[0]} ({excess[1]} to {excess[2]})",
            "L1 share": f"{row['l1_share']:.3f}",
            "non-zero": f"{row['nonzero_share']:.1%}",
            "accuracy (points)": f"{100 * row['accuracy_change']:+.1f}".replace("-", "\N{MINUS SIGN}"),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def shared_masks_numbers(measured: dict[str, Any]) -> dict[str, str]:
    """For prose, of each case: how sequential steps compare with Adam on its whole schedule and in as few passes.

    Ratios to Adam's whole schedule: `fewer.<case>` of the passes, `time.<case>` of the seconds, `excess.<case>` of the
    excesses; and `short.<case>` of the excesses to Adam's in as few passes. `seeds.<case>`, the number of seeds.
    """
    rows = {(row["case"], row["solver"]): row for row in measured["rows"]}
    found = {"device": measured["device"], "date": measured["date"]}
    for case in SHARED_CASES:
        adam, short, ours = (rows[case, solver] for solver in SHARED_SOLVERS)
        found |= {f"fewer.{case}": f"{ours['passes'] / adam['passes']:.0%}", f"seeds.{case}": f"{ours['seeds']}"}
        found |= {f"time.{case}": f"{ours['seconds'] / adam['seconds']:.0%}"}
        found |= {f"excess.{case}": f"{ours['excess'] / adam['excess']:.2f}"}
        found |= {f"short.{case}": f"{ours['excess'] / short['excess']:.2f}"}
    return found


def cost_table(measured: dict[str, Any]) -> pd.DataFrame:
    """Thousands of images forward and backward per experiment and profile, and total operations and hours."""
    cost = pd.DataFrame(measured["cost"])
    cases = {profile: next(case for case in measured["cases"] if case.startswith(profile)) for profile in cost}
    rates = {row["case"]: row["batched_steps_per_s"] for row in measured["rows"]}
    total = cost.sum()
    table = (cost / 1e3).map(lambda value: f"{value:,.0f}")
    table.loc["total (PFLOP)"] = [
        f"{total[profile] * measured['cases'][case]['operations'] / 1e15:,.3g}" for profile, case in cases.items()
    ]
    hours = {profile: total[profile] / rates[case] / 3600 for profile, case in cases.items() if case in rates}
    table.loc["total (hours on this device)"] = [
        f"{hours[profile]:.2f}" if profile in hours else "not measured" for profile in cost
    ]
    return table
