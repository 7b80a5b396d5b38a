"""What chapters call: load results, show source beside equations, show claims and numbers as cards and tables."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Code

from fmlib.core.config import SyntheticSpec
from fmlib.core.device import pick_device
from fmlib.core.errors import require
from fmlib.pipeline.claims import BY_CONSTRUCTION, VERDICTS, count_verdicts
from fmlib.pipeline.formatting import readable, with_unit
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.publishing.ledger import FINDINGS, badge, link, reference, rule, style
from fmlib.publishing.ledger import ledger as ledger
from fmlib.studies.shared.profiles import Profile
from fmlib.studies.shared.profiles import profile as profile_named

#: Keeps a value and its interval on one line of a table.
NO_BREAK = "\N{NO-BREAK SPACE}"


def class_names(results: Results) -> list[str]:
    """The names of the classes, in the order of their labels."""
    return [str(name) for name in results.arrays("samples")["classes"]]


def greet() -> None:
    """Print the device on which a chapter would compute, and the versions in use; for readers on Colab."""
    device = pick_device()
    name = f"GPU {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type.upper()
    versions = f"torch {torch.__version__}, numpy {np.__version__}, pandas {pd.__version__}"
    print(f"{name}; Python {sys.version.split()[0]}, {versions}")
    print("Profile 'laptop' shows the published results at once; 'quick' computes its own in about two minutes.")
    if device.type == "cpu":
        print(
            "No GPU is selected, and none is needed for these two. 'paper' takes hours on a GPU: for it choose "
            "Runtime > Change runtime type > T4 GPU."
        )


def load(profile: str, folder: str = "") -> Results:
    """The results that a chapter shows.

    Args:
        profile: "quick", "laptop" or "paper".
        folder: a folder of results; if empty, the published ones of the profile. If none are published, all
            experiments are computed now and kept in `.fmlib/` of the working directory.

    Raises:
        FmlibError: the folder holds no results, the profile is unknown, or photographs are needed and missing.
    """
    if folder:
        return Results.open(Path(folder))
    if (PUBLISHED / profile / "manifest.json").exists():
        return Results.open(PUBLISHED / profile)
    root = Path(os.environ["FMLIB_DATA"]) if "FMLIB_DATA" in os.environ else None
    spec = profile_named(profile)
    require(
        isinstance(spec.data, SyntheticSpec) or root is not None,
        f'nothing is published at profile {profile!r}, and computing it needs photographs: set profile = "quick", '
        f"which needs none; or run '!fmlib data --profile {profile} --data-root photographs --download' and "
        "'%env FMLIB_DATA=photographs' in a cell above",
    )
    return _computed(spec, root)


def _computed(spec: Profile, root: Path | None) -> Results:
    """The results of all experiments, computed now."""
    from fmlib.pipeline.experiment import publish
    from fmlib.pipeline.store import Store
    from fmlib.studies import registry
    from fmlib.studies.shared.setup import Setup

    kept = Path(".fmlib")
    store = Store(kept, pick_device(), say=print)
    setup = Setup(spec, 0, store.device, root, progress=root is not None)  # at `quick` no task takes long
    chosen = registry.experiments()
    registry.run(chosen, setup, store)
    return publish(chosen, setup, store, kept / "results" / spec.name, registry.all_claims())


def published(name: str) -> Results:
    """The results in a published folder, such as "paper"."""
    return Results.open(PUBLISHED / name)


def source(function: Callable[..., Any]) -> Code:
    """A function's source code, to show beside the equation that it implements."""
    return Code(inspect.getsource(function), language="python")


def findings(
    results: Results, *identities: str, larger: Results | None = None, above: Mapping[str, str] | None = None
) -> HTML:
    """Cards of claims: the sentence, our value with interval and n, the published value, and the verdict.

    Args:
        identities: ids of claims, such as "F4.A.low_shift".
        larger: results at another profile, whose values are shown too where they are computed.
        above: claim id -> HTML that begins its card.

    Raises:
        FmlibError: a claim is unknown.
    """
    cards = [_card(results.claim(identity), larger, (above or {}).get(identity, "")) for identity in identities]
    columns = ' style="--card: 14rem"' if above or len(cards) == 3 else ""
    return HTML(f"{style()}{FINDINGS}{columns}>{''.join(cards)}</div>")


def _card(row: dict[str, Any], larger: Results | None, above: str) -> str:
    """One claim, as HTML, below other HTML."""
    text = readable(row)
    lines = [f"{row['id']}{reference(row)}"]
    if row["published"] is not None:
        lines.insert(0, f"Published: {with_unit(text['published'], row['unit'])}")
    if larger is not None and (there := larger.claim(row["id"]))["value"] is not None:
        cells = readable(there)
        lines.insert(0, f"{_title(larger)}: {cells['measured']}, {cells['n']}, {cells['verdict']}")
    value = "" if row["value"] is None else f'<span class="measured">{text["measured"]}</span>, {text["n"]} '
    return (
        f'<div class="finding" data-verdict="{row["verdict"]}">{above}<p>{row["statement"]}</p>'
        f"<p>{value}{badge(row['verdict'])}</p>"
        f'<p class="details">{"<br>".join(lines)}</p></div>'
    )


def numbers(values: dict[str, str]) -> HTML:
    """A table of numbers that the text speaks of, each already formatted, under its description."""
    return _as_html({"quantity": list(values), "value": list(values.values())})


def claims_table(results: Results, chapter: str, key: Sequence[str] = ()) -> HTML:
    """The claims of one chapter: statement and rule, source, published and measured value, n, verdict.

    Args:
        chapter: the name of the study.
        key: ids of claims that are shown; all others are folded below them. If empty, all are shown.

    Raises:
        FmlibError: a claim in `key` is unknown.
    """
    rows = [row for row in results.claims() if row["chapter"] == chapter]
    if not key:
        return HTML(style() + _claims(rows))
    shown = _claims([results.claim(identity) for identity in key])
    folded = f"<summary>All {len(rows)} claims of this chapter</summary>{_claims(rows)}"
    return HTML(f'{style()}{shown}<details class="claims">{folded}</details>')


def _claims(rows: list[dict[str, Any]]) -> str:
    """A table of claims, as HTML."""
    cells = [readable(row) for row in rows]
    return _as_html(
        {
            "id": [row["id"] for row in rows],
            "claim": [f"{row['statement']} <em>{rule(row)}</em>" for row in rows],
            "source": [row["source"] for row in rows],
            "published": [cell["published"] for cell in cells],
            "measured": [cell["measured"] for cell in cells],
            "n": [cell["n"] for cell in cells],
            "verdict": [badge(row["verdict"]) for row in rows],
        }
    ).data


def scales_table(results: Results, larger: Results) -> HTML:
    """The claims that are computed in `larger`, with value and verdict in both results."""
    rows = [row for row in larger.claims() if row["value"] is not None]
    columns = {
        "id": [link(row) for row in rows],
        "claim": [row["statement"] for row in rows],
        "published": [readable(row)["published"] for row in rows],
    }
    columns |= {_title(place): _verdict_cells(place, [row["id"] for row in rows]) for place in (results, larger)}
    return _as_html(columns)


def _verdict_cells(results: Results, claims: Iterable[str]) -> list[str]:
    """The value of each claim, what it counts, and the verdict, as HTML."""
    read = {row["id"]: readable(row) for row in results.claims()}
    cells = [read[claim] for claim in claims]
    return ["<br>".join((cell["measured"], cell["n"], f"<em>{cell['verdict']}</em>")) for cell in cells]


def _title(results: Results) -> str:
    """What a page calls the scale of results."""
    return profile_named(results.profile).title


def comparison_table(results: Results, counterparts: dict[str, str], larger: Results | None = None) -> HTML:
    """Statements that are tested with masks by the authors' schedule and with minimal masks: values and verdicts.

    Args:
        counterparts: claim id -> id of the claim about minimal masks.
        larger: results at another profile; if nothing was computed there by one of the solvers, it has no column.
    """
    rows = [results.claim(claim) for claim in counterparts]
    columns = {"statement": [row["statement"] for row in rows]}
    columns["published"] = [readable(row)["published"] for row in rows]
    for place in (results, *([larger] if larger else [])):
        scale = f", {_title(place)}" if larger else ""
        for title, names in (("authors' schedule", counterparts.keys()), ("minimal masks", counterparts.values())):
            if place is results or any(place.claim(name)["value"] is not None for name in names):
                columns[title + scale] = _verdict_cells(place, names)
    return _as_html(columns)


def _as_html(columns: dict[str, list[str]]) -> HTML:
    """A table of claims, as HTML."""
    with pd.option_context("display.max_colwidth", None):
        return HTML(pd.DataFrame(columns).to_html(index=False, escape=False, border=0, classes="claims"))


def published_table(results: Results, shown: dict[str, str], larger: Results | None = None) -> pd.DataFrame:
    """A table of the paper beside `results`, and beside `larger`.

    Args:
        shown: claim id -> label of its row.
        larger: results at another profile.
    """
    scales = {"here": results} | ({_title(larger): larger} if larger else {})
    columns = {"published": {label: readable(results.claim(claim))["published"] for claim, label in shown.items()}}
    for title, place in scales.items():
        cells = {label: readable(place.claim(claim)) for claim, label in shown.items()}
        columns[title] = {
            label: cell["value"] + (f" ({cell['interval']})".replace(" ", NO_BREAK) if cell["interval"] else "")
            for label, cell in cells.items()
        }
        columns[f"n, {title}"] = {label: cell["n"] for label, cell in cells.items()}
    return pd.DataFrame(columns)


def means(arrays: dict[str, np.ndarray]) -> pd.Series:
    """The mean of each named array."""
    return pd.Series({name: float(array.mean()) for name, array in arrays.items()})


def verdicts(results: Results, source: str) -> dict[str, int]:
    """How many claims from one source, "paper" or "control", have each verdict.

    Claims that hold by construction are not counted.
    """
    counts = count_verdicts(results.claims(), source)
    return {verdict: count for verdict, count in counts.items() if verdict != BY_CONSTRUCTION}


def verdict_words(results: Results, source: str) -> str:
    """Counts of verdicts as words, such as "31 reproduced, 9 not reproduced"."""
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts(results, source).items()) or "none"


def verdicts_table(results: Results) -> HTML:
    """How many claims of the papers, and how many controls of ours, have each verdict."""
    papers, controls = (verdicts(results, source) for source in ("paper", "control"))
    found = [verdict for verdict in VERDICTS if verdict in papers | controls]
    columns = {"verdict": [badge(verdict) for verdict in found]}
    columns["claims of the papers"] = [f"{papers.get(verdict, 0):,}" for verdict in found]
    columns["controls of ours"] = [f"{controls.get(verdict, 0):,}" for verdict in found]
    return HTML(style() + _as_html(columns).data)
