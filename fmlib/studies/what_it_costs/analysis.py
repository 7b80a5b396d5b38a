"""Tables of the chapter on cost, from an object of `benchmark.measure`."""

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
    "objective_gap": "largest relative difference of objectives",
    "peak_mib": "peak memory (MiB)",
    "ceiling_share": "share of the matrix-product rate",
}


def cases_table(measured: dict[str, Any]) -> pd.DataFrame:
    """One row per case: rates of serial and batched learning, their ratio, and the difference of their objectives."""
    table = pd.DataFrame(measured["rows"]).set_index("case")[list(COLUMNS)].rename(columns=COLUMNS)
    return table.map(lambda value: f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").rename_axis(None)


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
