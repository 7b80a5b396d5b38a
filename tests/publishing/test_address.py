"""The repository's public address: one place states it, and links to it are hidden as long as it names no owner."""

import re

import nbformat
import pytest

from fmlib.publishing import build

URL = build.repository()["url"]
PROJECT = URL.removeprefix("https://github.com/")
#: What stands in the place of the owner, as the styles of the book know it.
PLACEHOLDER = "OWNER"
HIDDEN = PROJECT.startswith(f"{PLACEHOLDER}/")
SUFFIXES = (".md", ".py", ".toml", ".cff", ".yml", ".css", ".mjs", ".html", ".bib")


def texts():
    """Path below the root -> content of every file that people write, tests left out."""
    folders = ("book", "fmlib", "ci")
    listed = [path for folder in folders for path in (build.ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    listed += [path for path in build.ROOT.iterdir() if path.suffix in SUFFIXES]
    published = [path for path in listed if "published" not in path.parts]
    return {str(path.relative_to(build.ROOT)): path.read_text() for path in published}


def test_the_settings_alone_state_the_address():
    assert re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", URL)
    assert [name for name, text in texts().items() if PROJECT in text] == ["_config.yml"]
    assert texts()["_config.yml"].count(PROJECT) == 1


@pytest.mark.parametrize("path", build.notebooks(), ids=lambda path: path.stem)
def test_a_notebook_states_it_in_its_generated_cell_alone(path):
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells]
    assert [index for index, source in enumerate(sources) if PROJECT in source] == build.tagged(notebook, "colab")


def test_the_styles_hide_the_placeholder():
    styles = (build.BOOK / "_static" / "book.css").read_text()
    assert set(re.findall(r'href\*="/(\w+)/"', styles)) == {PLACEHOLDER}


LINKS = """() => [...document.querySelectorAll("a[href*='github.com/'], .dropdown-launch-buttons > button")]
  .filter(one => one.tagName === "BUTTON" || one.href.includes(PROJECT))
  .map(one => one.checkVisibility())"""


@pytest.mark.parametrize("name", ["dataset_masks", "how_to_run"])
def test_links_are_seen_exactly_if_they_name_an_owner(name, address, visit):
    page = visit(f"{address}/{name}.html").page
    here = LINKS.replace("PROJECT", repr(PROJECT))
    colab = page.locator("a[href*='colab.research.google.com']").count()
    assert colab == (name == "dataset_masks")
    shown = [link for link in page.evaluate(here) if link]
    assert len(shown) == (0 if HIDDEN else 1 + colab)
    page.evaluate(
        f"""() => document.querySelectorAll("a[href*='{PROJECT}']").forEach(
            link => link.href = link.href.replace("{PLACEHOLDER}/", "someone/"))"""
    )
    named = LINKS.replace("PROJECT", repr(PROJECT.replace(f"{PLACEHOLDER}/", "someone/")))
    assert len([link for link in page.evaluate(named) if link]) == 1 + colab  # the repository's, and the rocket
