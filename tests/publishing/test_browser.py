"""The built book in a real browser: offline, accessible, legible on a phone and in the dark, searched and copied."""

import pytest

from fmlib.publishing import build

PAGES = build.pages()
EXTRA = ["search", "genindex"]  # made by the theme
SHOTS = build.BUILD / "screenshots"

#: Elements wider than the window that no box of theirs scrolls, and how far the page itself would scroll sideways.
TOO_WIDE = """() => {
  const scrolls = box =>
    box && (["auto", "scroll"].includes(getComputedStyle(box).overflowX) || scrolls(box.parentElement));
  const wide = [...document.querySelectorAll("article *")].filter(
    one => one.getBoundingClientRect().right > innerWidth + 1 && !scrolls(one.parentElement));
  return [wide.map(one => one.outerHTML.slice(0, 80)), document.documentElement.scrollWidth - innerWidth];
}"""


def shoot(visit, name):
    """Keep a picture of the whole page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=SHOTS / f"{name}.jpg", full_page=True, type="jpeg", quality=80)


def clean(visit):
    """Whether the page asked nothing of other machines and its console has no error; says what it found."""
    assert visit.outside == []
    assert visit.errors == []


@pytest.mark.parametrize("name", [*PAGES, *EXTRA])
def test_a_page_opens_from_disk_without_a_network(name, site, visit):
    clean(visit((site / f"{name}.html").as_uri()))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_served_and_accessible(name, scheme, address, visit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    seen = visit(f"{address}/{name}.html", scheme=scheme)
    clean(seen)
    assert seen.page.locator("html").get_attribute("data-theme") == scheme
    # docutils lists the bibliography with roles of its own, which axe refuses
    rules = {} if scheme == "light" else {"runOnly": ["color-contrast"]}  # the rest does not depend on the scheme
    options = {"resultTypes": ["violations"]} | rules
    found = axe.run(seen.page, {"include": ["article"], "exclude": [".citation-list"]}, options)
    grave = [rule for rule in found.response["violations"] if rule["impact"] in ("serious", "critical")]
    assert [(rule["id"], node["html"][:120]) for rule in grave for node in rule["nodes"]] == []
    shoot(seen, f"{name}-{scheme}")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(name, address, visit):
    seen = visit(f"{address}/{name}.html", width=390)
    clean(seen)
    assert seen.page.evaluate(TOO_WIDE) == [[], 0]
    shoot(seen, f"{name}-phone")


def test_a_request_elsewhere_and_an_error_are_noticed(address, visit):
    seen = visit(f"{address}/glossary.html")
    seen.page.evaluate("fetch('https://example.org/font').catch(() => null)")
    seen.page.evaluate("setTimeout(() => { throw new Error('on purpose') })")
    seen.page.wait_for_timeout(200)
    assert seen.outside == ["https://example.org/font"]
    assert any("on purpose" in line for line in seen.errors)


def test_equations_are_drawn(address, visit):
    page = visit(f"{address}/harmonic_distortion.html").page
    equations = page.locator("div.math")
    assert page.locator("div.math > mjx-container > svg").count() == equations.count() > 3
    assert page.locator("mjx-container [data-mml-node='merror']").count() == 0


@pytest.mark.parametrize("name", ["how_to_run", "bibliography"])
def test_a_page_without_equations_loads_no_mathjax(name, site):
    assert "mathjax" not in (site / f"{name}.html").read_text().lower().replace("mathjax_ignore", "")


@pytest.mark.parametrize("served", [True, False], ids=["served", "disk"])
def test_search_finds_pages(served, site, address, visit):
    start = address if served else site.as_uri()
    seen = visit(f"{start}/search.html?q=mask")
    results = seen.page.locator("#search-results ul.search li a")
    results.first.wait_for()
    seen.page.locator(".search-summary", has_text="found").wait_for()
    titles = {text.partition(". ")[2] or text for text in results.all_inner_texts()}  # chapters are numbered
    assert {"Dataset masks", "Image masks"} <= titles
    clean(seen)


def test_the_copy_button_copies(address, visit):
    page = visit(f"{address}/how_to_run.html", permissions=["clipboard-read", "clipboard-write"]).page
    block = page.locator("div.highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    assert page.evaluate("navigator.clipboard.readText()").strip() == block.locator("pre").inner_text().strip()


def test_keyboard_focus_is_seen(address, visit):
    page = visit(f"{address}/intro.html").page
    page.keyboard.press("Tab")
    ring = """one => [[one, null], [one, "::after"]].map(part => getComputedStyle(...part)).some(
        style => style.outlineStyle != "none" || style.boxShadow != "none")"""
    found = page.locator(
        "article :is(a[href]:not(.headerlink, details:not([open]) a), .cell:not(.tag_colab) summary)"
    ).all()
    assert len(found) > 10
    for one in found:
        one.focus()
        assert one.evaluate(ring), one.evaluate("one => one.outerHTML")
        assert one.text_content().strip() or one.locator("img[alt]").count() == 1


def test_the_home_page_leads_everywhere(address, visit):
    page = visit(f"{address}/intro.html").page
    targets = {link.get_attribute("href") for link in page.locator("article a").all()}
    assert {f"{name}.html" for name in ("playground", "primer", "own_network", "how_to_run", "ledger")} <= targets
    assert page.locator(".finding img").count() == page.locator(".finding h3").count() == 7


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ("ledger", "reference")])
def test_a_page_is_not_too_long(name, address, visit):
    page = visit(f"{address}/{name}.html", width=1400).page
    assert page.evaluate("document.documentElement.scrollHeight") < 9000


def test_figures_keep_their_colours_in_the_dark(address, visit):
    page = visit(f"{address}/dataset_masks.html", scheme="dark").page
    look = "one => [getComputedStyle(one).filter, getComputedStyle(one).backgroundColor]"
    assert {tuple(image.evaluate(look)) for image in page.locator("figure img").all()} == {
        ("none", "rgb(255, 255, 255)")
    }
