"""The tables of the chapter on what masks cost."""

from __future__ import annotations

from typing import Any

import pandas as pd


def cases(found: dict[str, Any]) -> pd.DataFrame:
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


def bill(found: dict[str, Any]) -> pd.DataFrame:
    """Thousands of images forward and backward per experiment and profile, with total operations and hours."""
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
