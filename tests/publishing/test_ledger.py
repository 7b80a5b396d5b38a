"""The ledger's table: its rows, and its controls in a real browser, with and without JavaScript."""

import itertools
import re

import pytest

from fmlib.pipeline.claims import VERDICTS
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.publishing import build, ledger

RESULTS = Results.open(PUBLISHED / build.SHOWN)
ROWS = RESULTS.claims()


@pytest.fixture(scope="module")
def html():
    return ledger.ledger(RESULTS).data


def test_every_claim_has_one_row_with_its_own_anchor(html):
    found = re.findall(r'<tr id="claim-(.*?)" data-verdict="(.*?)" data-source="(.*?)" data-chapter="(.*?)">', html)
    assert found == [(row["id"], row["verdict"], row["source"], row["chapter"]) for row in ROWS]
    assert ledger.address("T1.N.gap") == "ledger.html#claim-T1.N.gap"


def test_a_row_says_what_the_claim_says_and_links_to_where_it_is_shown(html):
    for row in ROWS:
        text = html.split(f'<tr id="claim-{row["id"]}"')[1].split("</tr>")[0]
        place = row["figure"] if ".html#" in row["figure"] else f"{row['chapter']}.html#{row['figure']}"
        assert f'<a href="{place}">{row["id"]}</a>' in text
        assert all(words in text for words in (row["statement"], row["by_construction"] or row["rule"], row["verdict"]))


def test_the_lists_offer_what_the_rows_have_with_counts(html):
    for verdict in VERDICTS:
        count = sum(row["verdict"] == verdict for row in ROWS)
        assert (f'<option value="{verdict}">{verdict} ({count})</option>' in html) == (count > 0)
    for source, words in (("paper", "papers"), ("control", "our controls")):
        count = sum(row["source"] == source for row in ROWS)
        assert f'<option value="{source}">{words} ({count})</option>' in html


def test_the_output_asks_nothing_of_other_places(html):
    assert not re.search(r"https?://|@import|url\(|\bimport\b|fetch\(|\.cjs|src=", html)


def test_styles_apply_to_the_container_alone():
    text = re.sub(r"/\*.*?\*/", "", (build.ROOT / "fmlib/publishing/ledger.css").read_text(), flags=re.DOTALL)
    rules = [part.split("}")[-1].strip() for part in text.split("{")[:-1]]
    names = [rule.split(";")[-1].strip() for rule in rules]
    assert [name for name in names if not name.startswith((".ledger", "@container", "@media"))] == []


def test_a_chapter_is_named_by_its_notebook_or_by_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ledger._chapter("adversarial_tables") == "Adversarial tables"
    monkeypatch.chdir(build.BOOK)
    assert ledger._chapter("adversarial_tables") != "adversarial_tables"


# ---------------------------------------------------------------------------------------------- in the browser


@pytest.fixture
def opened(visit, address):
    """A factory: what follows the page's name, and options of `visit` -> the page."""
    return lambda end="", **options: visit(f"{address}/ledger.html{end}", **options)


def visible(page):
    """The ids of the claims that are shown, in order."""
    rows = page.locator("#ledger tbody tr:visible")
    return rows.evaluate_all("rows => rows.map(row => row.id.replace('claim-', ''))")


def control(page, name):
    """A list or the field of the form."""
    return page.locator(f"#ledger [name={name}]")


def wanted(**values):
    """The ids of the claims with these values, in order."""
    return [row["id"] for row in ROWS if all(row[name] == value for name, value in values.items())]


def test_claims_are_filtered_counted_and_all_shown_again(opened):
    page = opened().page
    assert visible(page) == wanted()
    control(page, "verdict").select_option("not reproduced")
    assert visible(page) == wanted(verdict="not reproduced")
    control(page, "source").select_option("paper")
    found = wanted(verdict="not reproduced", source="paper")
    assert visible(page) == found
    assert page.inner_text(".ledger-count") == (
        f"{len(found)} of {len(ROWS)} claims shown: {len(found)} not reproduced."
    )
    control(page, "chapter").select_option("class_separability")
    assert visible(page) == wanted(verdict="not reproduced", source="paper", chapter="class_separability")
    page.get_by_role("button", name="Show all").click()
    assert visible(page) == wanted()
    assert control(page, "verdict").input_value() == ""


def test_every_word_of_a_search_is_found(opened):
    page = opened().page
    control(page, "q").fill("jacobian AUTOATTACK")
    found = visible(page)
    assert "J.attack.N_small" in found
    assert len(found) < len(ROWS) / 4
    control(page, "q").fill("-0.36")  # written with a minus sign
    assert "T1.N.gap" in visible(page)
    control(page, "q").fill("no such words")
    assert visible(page) == []
    assert page.inner_text(".ledger-count") == f"0 of {len(ROWS)} claims shown."


def test_columns_are_sorted_both_ways_and_empty_cells_stay_last(opened):
    page = opened().page
    published = {row["id"]: row["published"] for row in ROWS}
    for direction, sign in (("ascending", 1), ("descending", -1)):
        page.locator("#ledger th button", has_text="published").click()
        assert page.locator("#ledger th[aria-sort]").get_attribute("aria-sort") == direction
        values = [published[identity] for identity in visible(page)]
        numbers = [value for value in values if value is not None]
        assert numbers == sorted(numbers, key=lambda value: sign * value)
        assert values[len(numbers) :] == [None] * (len(values) - len(numbers))
    page.locator("#ledger th button", has_text="verdict").click()
    order = {row["id"]: VERDICTS.index(row["verdict"]) for row in ROWS}
    places = [order[identity] for identity in visible(page)]
    assert places == sorted(places)


def test_the_address_keeps_the_state(opened, visit):
    first = opened().page
    control(first, "verdict").select_option("inconclusive")
    control(first, "q").fill("seed")
    for _ in range(2):
        first.locator("#ledger th button", has_text="measured").click()
    assert "#ledger&verdict=inconclusive&q=seed&sort=measured&order=falling" in first.url
    second = visit(first.url).page
    assert visible(second) == visible(first)
    assert second.locator("#ledger th[aria-sort=descending]").inner_text().startswith("measured")


@pytest.mark.parametrize("end", ["#ledger&verdict=wrong&sort=%3Cb%3E&chapter=", "#ledger&", "#claim-none", "#"])
def test_an_address_that_asks_for_what_is_not_there_shows_everything(opened, end):
    found = opened(end)
    assert visible(found.page) == wanted()
    assert found.errors == []


def test_a_link_leads_to_a_claim_even_if_it_was_filtered_out(opened):
    page = opened("#claim-T1.N.gap").page
    row = page.locator("[id='claim-T1.N.gap']")
    assert row.evaluate("row => row.matches(':target')")
    assert 0 <= row.bounding_box()["y"] < 850
    control(page, "source").select_option("control")
    assert row.is_hidden()
    page.evaluate("location.hash = '#claim-T2.x'")
    page.wait_for_function("!document.getElementById('claim-T2.x').hidden")
    assert visible(page) == wanted()


def test_controls_are_used_by_keyboard(opened):
    page = opened().page
    control(page, "verdict").focus()
    page.keyboard.press("ArrowDown")
    assert len(visible(page)) < len(ROWS)
    for name in ("source", "chapter", "q"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.name") == name
    page.keyboard.press("Enter")  # the form sends nothing
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert visible(page) == wanted()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#ledger th[aria-sort=ascending]").inner_text() == "id"


def test_on_a_phone_claims_are_cards(opened):
    page = opened(width=390).page
    row = page.locator("#ledger tbody tr").first
    assert row.locator("td").last.evaluate("cell => getComputedStyle(cell, '::before').content") == '"verdict"'
    boxes = [cell.bounding_box() for cell in row.locator("td").all()]
    assert all(above["y"] < below["y"] for above, below in itertools.pairwise(boxes))
    control(page, "sort").select_option("verdict")
    assert visible(page)[0] == next(row["id"] for row in ROWS if row["verdict"] == VERDICTS[0])


def test_it_works_from_disk(visit, site):
    found = visit(f"file://{site}/ledger.html#ledger&source=control")
    assert visible(found.page) == wanted(source="control")
    control(found.page, "verdict").select_option("reproduced")
    assert visible(found.page) == wanted(source="control", verdict="reproduced")
    assert found.errors == found.outside == []


def test_without_javascript_it_is_a_plain_table(browser, address):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"{address}/ledger.html")
    assert page.locator("#ledger tbody tr").count() == len(ROWS)
    assert page.locator("#ledger form").is_hidden()
    assert page.locator("#ledger th button").count() == 0
    assert page.inner_text(".ledger-count") == f"{len(ROWS)} claims."
    page.context.close()


def test_outside_the_book_it_filters_but_leaves_the_address_alone(visit, html, tmp_path):
    (tmp_path / "output.html").write_text(f"<!doctype html><title>Jupyter</title><body>{html}</body>")
    found = visit((tmp_path / "output.html").as_uri())
    control(found.page, "source").select_option("paper")
    assert visible(found.page) == wanted(source="paper")
    assert "#" not in found.page.url
    assert found.errors == found.outside == []
