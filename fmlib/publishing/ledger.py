"""The ledger: one table of all claims, which readers filter, search and sort in the browser.

Without JavaScript it is a plain table. Styles and script are part of the output, so that the table works in the book,
in Jupyter and on Colab, offline; both touch nothing outside its container.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from IPython.display import HTML

from fmlib.pipeline.claims import VERDICTS
from fmlib.pipeline.formatting import readable
from fmlib.pipeline.results import Results
from fmlib.publishing.status import title

#: What the HTML of findings begins with.
FINDINGS = '<div class="findings"'

#: The columns: the name by which a link asks for a sorted table -> the heading.
COLUMNS = {
    "id": "id",
    "claim": "claim",
    "source": "source",
    "published": "published",
    "measured": "measured",
    "n": "n",
    "verdict": "verdict",
}

#: The id of the table's container, and the prefix of the id of a claim's row.
CONTAINER, ANCHOR = "ledger", "claim-"


def address(identity: str, page: str = "ledger.html") -> str:
    """The address of a claim's row, such as "ledger.html#claim-T1.N.gap"."""
    return f"{page}#{ANCHOR}{identity}"


def ledger(results: Results) -> HTML:
    """All claims in one table, with controls to filter it by verdict, source and chapter, to search and to sort it.

    Args:
        results: those whose claims are shown.

    Returns:
        The table with its styles and script. A claim's id links to the figure or section that shows the claim; its row
        has the id `claim-<id>`.
    """
    rows = results.claims()
    chapters = {name: _chapter(name) for name in dict.fromkeys(row["chapter"] for row in rows)}
    head = "".join(f'<th scope="col" data-column="{name}">{heading}</th>' for name, heading in COLUMNS.items())
    body = "\n".join(_row(row, chapters[row["chapter"]]) for row in rows)
    return HTML(
        f'<div id="{CONTAINER}" class="ledger">\n{style("ledger.css")}\n{_controls(rows, chapters)}'
        f'<table class="ledger-table">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n'
        f"<script>\n{_asset('ledger.mjs')}</script>\n</div>"
    )


def style(*names: str) -> str:
    """The style of findings and verdicts, and other style sheets beside this module, as HTML."""
    return f"<style>\n{''.join(_asset(name) for name in ('findings.css', *names))}</style>"


@cache
def _asset(name: str) -> str:
    """A file beside this one."""
    return Path(__file__).with_name(name).read_text()


def badge(verdict: str) -> str:
    """A verdict in colour and words, as HTML."""
    return f'<span class="verdict" data-verdict="{verdict}">{verdict}</span>'


def link(row: dict[str, Any]) -> str:
    """A claim's id, as a link to the figure or section that shows the claim."""
    page, _, anchor = row["figure"].rpartition("#")
    return f'<a href="{page or row["chapter"] + ".html"}#{anchor}">{escape(row["id"])}</a>'


def _chapter(name: str) -> str:
    """The title of a chapter: from its notebook, if that lies in the working directory, else from its file name."""
    path = Path.cwd() / f"{name}.ipynb"
    return title(path) if path.exists() else name.replace("_", " ").capitalize()


def _controls(rows: list[dict[str, Any]], chapters: dict[str, str]) -> str:
    """The form above the table, which only the script shows, and the line that counts the rows."""
    sources = {"paper": "papers", "control": "our controls"}
    selects = (
        _select("verdict", "Verdict", {verdict: verdict for verdict in VERDICTS}, [row["verdict"] for row in rows]),
        _select("source", "Source", sources, [row["source"] for row in rows]),
        _select("chapter", "Chapter", chapters, [row["chapter"] for row in rows]),
    )
    orders = "".join(f'<option value="{name}">{heading}</option>' for name, heading in COLUMNS.items())
    return (
        f'<form class="ledger-controls" aria-label="Filter the claims" hidden>\n{"".join(selects)}'
        '<label>Search <input type="search" name="q" autocomplete="off"></label>\n'
        f'<label class="ledger-order">Sort by <select name="sort"><option value="">chapter</option>{orders}</select>'
        '</label>\n<button type="reset">Show all</button>\n</form>\n'
        f'<p class="ledger-count" role="status">{len(rows)} claims.</p>\n'
    )


def _select(name: str, label: str, options: dict[str, str], values: Iterable[str]) -> str:
    """A list of choices, each with the number of rows that have it; those without rows are left out."""
    counts = Counter(values)
    listed = "".join(
        f'<option value="{escape(value)}">{escape(text)} ({counts[value]})</option>'
        for value, text in options.items()
        if counts[value]
    )
    return f'<label>{label} <select name="{name}"><option value="">all</option>{listed}</select></label>\n'


def _row(row: dict[str, Any], chapter: str) -> str:
    """The row of one claim; cells that hold a number have it as `data-value`, for sorting."""
    cells, identity = readable(row), escape(row["id"])
    anchor = f'<a class="ledger-anchor" href="{address(identity)}" aria-label="Link to the row of {identity}">#</a>'
    columns = {
        "id": f'{link(row)} {anchor}<span class="ledger-chapter">{escape(chapter)}</span>',
        "claim": f'{row["statement"]}{reference(row)}<span class="ledger-rule">{rule(row)}</span>',
        "source": row["source"],
        "published": cells["published"],
        "measured": cells["measured"],
        "n": cells["n"],
        "verdict": badge(row["verdict"]),
    }
    numbers = {"published": row["published"], "measured": row["value"], "n": row["n"]}
    numbers["verdict"] = VERDICTS.index(row["verdict"])
    filled = "".join(
        f'<td data-label="{COLUMNS[name]}"{_value(numbers.get(name))}>{content}</td>'
        for name, content in columns.items()
    )
    data = {name: escape(row[name]) for name in ("verdict", "source", "chapter")}
    attributes = " ".join(f'data-{name}="{value}"' for name, value in data.items())
    return f'<tr id="{ANCHOR}{identity}" {attributes}>{filled}</tr>'


def _value(number: float | None) -> str:
    """The attribute by which a cell is sorted; empty for cells without a number."""
    return "" if number is None else f' data-value="{number:g}"'


def rule(row: dict[str, Any]) -> str:
    """The rule of a claim, as a sentence."""
    if row["by_construction"]:
        return f"Holds by construction: {row['by_construction']}."
    if not row["rule"]:
        return "Needs human observers."
    late = ", a rule written after the value was seen" if row["timing"] == "after" else ""
    return f"Reproduced if {row['rule']}{late}."


def reference(row: dict[str, Any]) -> str:
    """Where a claim is published, in parentheses; empty if nowhere."""
    place = row["reference"].replace("Karantzas et al. (2022), ", "")
    return f" ({place})" if place else ""
