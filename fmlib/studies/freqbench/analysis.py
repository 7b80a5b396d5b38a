"""Measures of the claims about FreqBench, and its tables: the leaderboard and the methods by task."""

from __future__ import annotations

import hashlib
import html
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fmlib.core.errors import FmlibError, require
from fmlib.core.intervals import Measured, average
from fmlib.pipeline.disk.files import read_signed
from fmlib.pipeline.results import PUBLISHED, NotComputed, Results
from fmlib.studies.freqbench.measure import METHODS, summary
from fmlib.studies.freqbench.tasks.problems import TASKS

TONES = ["plain", "redundant", "phase", "two-channel"]
NETWORKS = ["N", "A", "JaFR", "ResNet"]
#: Folder of further methods' files, besides the published one.
FURTHER = "FMLIB_FREQBENCH"


def _values(results: Results, tasks: list[str], method: str, score: str) -> np.ndarray:
    """The values of all images of some tasks, one after the other."""
    arrays = results.arrays("freqbench")
    found = np.concatenate([arrays[f"{task}/{method}/{score}"] for task in tasks]).astype(float)
    if np.isnan(found).all():
        raise NotComputed(f"{score} of {method} has no value on {', '.join(tasks)}")
    return found


def mean_score(results: Results, tasks: list[str], method: str, score: str, scale: float = 1) -> Measured:
    """Mean over the images of these tasks of a method's score, times `scale`."""
    return average(scale * _values(results, tasks, method, score))


def difference(results: Results, tasks: list[str], first: str, second: str, score: str, scale: float = 1) -> Measured:
    """Mean difference of two methods' scores, first - second, paired by image, times `scale`."""
    pair = [_values(results, tasks, method, score) for method in (first, second)]
    return average(scale * (pair[0] - pair[1]))


def net(results: Results, tasks: list[str], first: str, second: str) -> Measured:
    """Mean difference of insertion minus deletion between two methods, paired by image."""
    one, other = (
        _values(results, tasks, method, "insertion") - _values(results, tasks, method, "deletion")
        for method in (first, second)
    )
    return average(one - other)


def best_rival(results: Results, tasks: list[str], method: str, score: str) -> Measured:
    """The smallest difference of a method's score to that of any other method, paired by image."""
    rivals = [other for other in METHODS if other != method]
    return min((difference(results, tasks, method, other, score) for other in rivals), key=lambda one: one.value)


def fewest_ratio(results: Results, tasks: list[str], first: str, second: str) -> Measured:
    """The geometric mean over images of the ratio of the fewest frequencies, first / second."""
    logs = [np.log(_values(results, tasks, method, "fewest")) for method in (first, second)]
    value, low, high = (float(np.exp(one)) for one in average(logs[0] - logs[1])[:3])
    return Measured(value, low, high, len(logs[0]))


def between_tasks(results: Results, method: str, score: str, first: list[str], second: list[str]) -> Measured:
    """Mean of a method's score over the images of some tasks minus that over the images of others."""
    one, other = (average(_values(results, tasks, method, score)) for tasks in (first, second))
    error = np.hypot(one.high - one.value, other.high - other.value)
    value = one.value - other.value
    return Measured(value, value - float(error), value + float(error), one.n + other.n)


def records(results: Results, further: str | None = None) -> list[dict[str, Any]]:
    """The methods, one record each as `measure.record` makes them.

    The scores of built-in methods are those of the results; seconds and memory come from the files that
    `fmlib freqbench` wrote at the same scale. Further methods come from the published folder and from `further`.

    Args:
        further: a folder of files (default: that of the environment variable `FMLIB_FREQBENCH`, if it is set).

    Raises:
        FmlibError: a file does not match its checksum.
    """
    folders = [PUBLISHED / "freqbench", further or os.environ.get(FURTHER)]
    files = [_read(path) for folder in folders if folder for path in sorted(Path(folder).glob("*.json"))]
    measured = {one["method"]: one for one in files if one["scale"] == scale(results)}
    found = [_built_in(results, name, measured.get(name, {}).get("tasks", {})) for name in METHODS]
    return found + [one for one in files if one["own"]]


def scale(results: Results) -> str:
    """What is measured at the profile of the results: "full", or "small" where there are no photographs."""
    return "small" if results.manifest["data"] == "planted" else "full"


def require_undamaged(folder: Path) -> None:
    """Raise `FmlibError` if a file in the published folder of FreqBench is missing or damaged."""
    for name in (*(f"{method}.json" for method in METHODS), "networks.safetensors", "networks.sha256"):
        require((folder / name).exists(), f"{folder / name} is missing: restore it, or run 'fmlib freqbench' again")
    for path in sorted(folder.glob("*.json")):
        _read(path)
    found = hashlib.sha256((folder / "networks.safetensors").read_bytes()).hexdigest().encode()
    same = found == (folder / "networks.sha256").read_bytes()
    require(same, f"{folder / 'networks.safetensors'} does not match its checksum (cut short or edited): restore it")


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_signed(path.read_bytes())
    except ValueError as error:
        damaged = f"{path} does not match its checksum (cut short or edited): run 'fmlib freqbench' again"
        raise FmlibError(damaged) from error


def _built_in(results: Results, method: str, costs: dict[str, Any]) -> dict[str, Any]:
    arrays, table = results.arrays("freqbench"), results.table("freqbench")
    rows = table.query("method == @method and not swept").set_index("task")
    tasks = {}
    for task, row in rows.iterrows():
        start = f"{task}/{method}/"
        scores = {key.removeprefix(start): summary(arrays[key]) for key in arrays if key.startswith(start)}
        tasks[str(task)] = {"scores": scores, "passes": float(row["passes"]), "budget": int(row["budget"])}
        tasks[str(task)] |= {key: costs[task][key] for key in ("seconds", "memory_mib") if task in costs}
    return {"method": method, "title": METHODS[method].title, "source": METHODS[method].source, "own": False} | {
        "tasks": tasks
    }


def _mean(record: dict[str, Any], score: str, tasks: list[str]) -> float:
    """The mean over those of the tasks that have a value."""
    values = [record["tasks"][task]["scores"].get(score, {}).get("value") for task in tasks if task in record["tasks"]]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _cost(record: dict[str, Any], name: str) -> float:
    values = [one.get(name) for one in record["tasks"].values()]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


#: Heading of a column -> decimals, and the number it holds.
COLUMNS: dict[str, tuple[int, Any]] = {
    "overall": (3, lambda one: _mean(one, "insertion", list(TASKS)) - _mean(one, "deletion", list(TASKS))),
    "precision on tones (%)": (1, lambda one: 100 * _mean(one, "precision", TONES)),
    "recall on tones (%)": (1, lambda one: 100 * _mean(one, "recall", TONES)),
    "fewest frequencies (%)": (1, lambda one: _mean(one, "fewest", list(TASKS))),
    "over matched": (3, lambda one: _mean(one, "matched", list(TASKS))),
    "transfer": (3, lambda one: _mean(one, "transfer", list(TASKS))),
    "restart": (2, lambda one: _mean(one, "restart", list(TASKS))),
    "another seed": (2, lambda one: _mean(one, "seeds", list(TASKS))),
    "passes": (0, lambda one: _cost(one, "passes")),
    "seconds per image": (3, lambda one: _cost(one, "seconds")),
    "memory (MiB)": (0, lambda one: _cost(one, "memory_mib")),
}


def leaderboard(found: list[dict[str, Any]]) -> pd.DataFrame:
    """One row a method, the best overall first; each number is the mean over the tasks that have it.

    Overall is the insertion area minus the deletion area.
    """
    rows = {_label(one): {name: number(one) for name, (_, number) in COLUMNS.items()} for one in found}
    table = pd.DataFrame.from_dict(rows, orient="index").sort_values("overall", ascending=False, kind="stable")
    return table.assign(tasks=[len(one["tasks"]) for name in table.index for one in found if _label(one) == name])


def _label(record: dict[str, Any]) -> str:
    return f"{record['title']} (own method)" if record["own"] else record["title"]


SCRIPT = """
<script>
document.querySelectorAll("#freqbench th[data-column]").forEach(head => {
  const sort = () => {
    const body = document.querySelector("#freqbench tbody"), up = head.ariaSort === "descending" ? 1 : -1;
    const value = row => row.cells[head.dataset.column].dataset.value;
    const order = (a, b) => head.dataset.column === "0" ? -up * value(a).localeCompare(value(b))
      : up * ((parseFloat(value(a)) || -Infinity) - (parseFloat(value(b)) || -Infinity));
    [...body.rows].sort(order).forEach(row => body.append(row));
    document.querySelectorAll("#freqbench th").forEach(other => other.removeAttribute("aria-sort"));
    head.ariaSort = up < 0 ? "descending" : "ascending";
  };
  head.firstElementChild.addEventListener("click", sort);
});
</script>
"""


def leaderboard_html(table: pd.DataFrame) -> str:
    """A leaderboard as HTML; with JavaScript, a click on a heading sorts it, and without, it stays as it is."""
    names = ["method", *table.columns]
    style = "background:none;border:0;color:inherit;cursor:pointer;font:inherit;padding:0;text-align:left"
    button = f'<button type="button" style="{style}">{{}}</button>'
    heads = "".join(
        f'<th scope="col" data-column="{n}">{button.format(html.escape(one))}</th>' for n, one in enumerate(names)
    )
    rows = []
    for name, row in table.iterrows():
        title = html.escape(str(name))
        cells = f'<th scope="row" data-value="{title}" style="white-space:nowrap">{title}</th>'
        for column, value in row.items():
            decimals = COLUMNS[str(column)][0] if column in COLUMNS else 0
            text = "\N{EN DASH}" if np.isnan(value) else f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")
            cells += f'<td data-value="{value:.6g}">{text}</td>'
        rows.append(f"<tr>{cells}</tr>")
    head, body = f"<thead><tr>{heads}</tr></thead>", f"<tbody>{''.join(rows)}</tbody>"
    return f'<table id="freqbench" class="claims">{head}{body}</table>{SCRIPT.strip()}'


def task_table(found: list[dict[str, Any]], score: str, tasks: list[str]) -> pd.DataFrame:
    """One row a method, one column a task: a score's mean over images with its 95% interval."""

    def cell(record: dict[str, Any], task: str) -> str:
        value = record["tasks"].get(task, {}).get("scores", {}).get(score)
        if value is None or value["value"] is None:
            return "\N{EN DASH}"
        return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})".replace("-", "\N{MINUS SIGN}")

    rows = {_label(one): {TASKS[task].title: cell(one, task) for task in tasks} for one in found}
    return pd.DataFrame.from_dict(rows, orient="index")


def sweep(results: Results, task: str) -> pd.DataFrame:
    """Insertion minus deletion area against passes on a task: method, passes, value, low, high."""
    arrays, table, rows = results.arrays("freqbench"), results.table("freqbench"), []
    for row in table[table["task"] == task].itertuples():
        start = f"{task}/{row.method}" + (f"@{row.budget}" if row.swept else "")
        area = average((arrays[f"{start}/insertion"] - arrays[f"{start}/deletion"]).astype(float))
        rows.append({"method": row.method, "passes": row.passes, **area._asdict()})
    return pd.DataFrame(rows).sort_values(["method", "passes"])
