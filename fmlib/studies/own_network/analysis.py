"""Numbers of the chapter on one's own network, from the published report."""

from __future__ import annotations

from typing import Any

import pandas as pd
from IPython.display import HTML

from fmlib.pipeline.results import Results


def report_table(results: Results) -> HTML:
    """`report_rows` as HTML, whose sentences are not cut."""
    with pd.option_context("display.max_colwidth", None):
        return HTML(report_rows(results).to_html(border=0))


def report_rows(results: Results) -> pd.DataFrame:
    """One row per number of the report: its value and its control with 95% intervals, and how to read it."""
    table = results.table("own_network")
    rows = {
        row["name"]: {
            "value": _measured(row, ""),
            "control": _measured(row, "control_"),
            "compared with": row["against"] if isinstance(row["against"], str) else "",
            "how to read it": row["reading"],
        }
        for _, row in table.iterrows()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _measured(row: Any, prefix: str) -> str:
    """A value of the table with its interval, in percent."""
    value, low, high = (row[f"{prefix}{key}"] for key in ("value", "low", "high"))
    if pd.isna(value):
        return "\N{EN DASH}"
    text = f"{value:.1f}%"
    return text if low == high else f"{text} ({low:.1f} to {high:.1f})"


def numbers(results: Results) -> dict[str, str]:
    """The name of the network, how many images, and each number of the report and its control, by their order."""
    table, arrays = results.table("own_network"), results.arrays("own_network")
    found = {"network": str(table["network"][0]), "images": f"{len(arrays['kept'])}"}
    found |= {"size": f"{arrays['dataset'].shape[-1]}", "dataset_share": f"{arrays['dataset'].mean():.2f}"}
    for number, (_, row) in enumerate(table.iterrows()):
        found |= {f"value.{number}": _measured(row, ""), f"control.{number}": _measured(row, "control_")}
    return found
