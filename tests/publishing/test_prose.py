"""The chapters as Jupyter, Colab and GitHub show them: plain Markdown, in words of the field, a box at the head."""

import json
import re

import pytest
from markdown_it import MarkdownIt

from fmlib.publishing import build
from fmlib.studies import registry

#: What Jupyter shows as raw markup: roles, directives, labels of equations, targets.
MARKUP = re.compile(r"\{[a-z:]+\}|:::|\$\$ *\([\w-]+\)|^(<p>)?\([\w-]+\)=", re.MULTILINE)

#: As Jupyter, Colab and GitHub render a cell.
RENDER = MarkdownIt("commonmark").enable("table").render

#: Phrases that a machine-learning paper would not print.
PHRASES = (
    "nought", "as it stands", "plainly trained", "withstand", "withstood", "told from", "what chance does",
    "what a seed does", "one image a step", "a mask each", "tells the class", "tells? apart", "specks",
    "a stamp", "all but empty", "sister paper", "looks? low", "wants none", "lay on", "give or take",
    "made by", "recipe", "See that", "See how", "behind (its|a|their) masks?", "envelope", "likeness",
    "planted", "laboratory", "profile laptop",
)  # fmt: skip

#: Pages that only list or only greet.
WITHOUT_BOX = ("intro", "ledger", "status")


def markdown(path):
    """The texts of a notebook that are written by hand: Markdown cells, and captions without their source lines."""
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "markdown":
            yield "".join(cell["source"])
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        yield figure.get("caption", "").partition("\n\n<details")[0]


@pytest.fixture(params=build.notebooks(), ids=lambda path: path.stem)
def notebook(request):
    return request.param


def leftovers(text):
    """Raw markup in a rendered cell: names of roles are left beside the code that follows them."""
    page = re.sub(r'<code(?! class="language-\{).*?</code>', "", RENDER(text), flags=re.DOTALL)
    page = re.sub(r"\$\$.*?\$\$(?! *\()|(?<!\$)\$[^$]+\$(?!\$)", "", page, flags=re.DOTALL)  # mathematics
    return [found[0] for found in MARKUP.finditer(page)]


@pytest.mark.parametrize(
    "text", ["{term}`mask`", "x {cite:t}`karantzas2022`", ":::{note}\nx\n:::", "```{note}\nx\n```", "(place)=\n# T"]
)
def test_raw_markup_is_noticed(text):
    assert leftovers(text)


def test_a_chapter_is_plain_markdown_as_jupyter_renders_it(notebook):
    assert [found for text in markdown(notebook) for found in leftovers(text)] == []


def test_a_chapter_opens_with_its_question_its_finding_and_a_caveat(notebook):
    if notebook.stem in WITHOUT_BOX:
        return
    head = next(text for text in markdown(notebook) if text.startswith("# "))
    assert re.match(r"(?s)# [^\n]+\n\n> \*\*Question\.\*\* .+?> \*\*Finding\.\*\* .+?> \*\*Caveat\.\*\* ", head), head


def test_links_between_chapters_lead_to_files(notebook):
    targets = [target for text in markdown(notebook) for target in re.findall(r"\]\(([^)#:]+)\)", text)]
    assert [target for target in targets if not (build.BOOK / target).is_file()] == []


PAGES = [*build.notebooks(), *sorted(build.BOOK.rglob("*.md")), build.ROOT / "README.md"]


def private(text):
    """The phrases in a text, code left out, that the field does not use."""
    text = re.sub(r"```.*?```|`[^`]+`", "", " ".join(text.split()))
    return [phrase for phrase in PHRASES if re.search(rf"(?<!\w){phrase}", text, re.IGNORECASE)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_has_only_words_of_the_field(path):
    text = "\n".join(markdown(path)) if path.suffix == ".ipynb" else path.read_text()
    assert private(text) == []


@pytest.mark.parametrize("claim", registry.all_claims(), ids=lambda claim: claim.id)
def test_a_claim_has_only_words_of_the_field(claim):
    assert private(f"{claim.statement} {claim.unit} {claim.n} {claim.reference} {claim.by_construction}") == []
