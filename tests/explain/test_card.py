"""The files of a report, its page, and the page that compares several."""

from __future__ import annotations

import copy
import csv
import io
import itertools
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from fmlib import Explanation, FmlibError, FourierMask
from fmlib.core.intervals import Measured
from fmlib.explain import card, charts
from fmlib.explain.report import Row, heat_frequencies, measure, percent, shuffled_in_rings

MODEL = 'net <b>"5" & co'
NAMES = ["<script>alert(1)</script>", "dog & cat", "'c'", '"d"', "é 中"]
FILES = [f'{i} <img src="x"> & co.png' for i in range(7)]

pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")


@pytest.fixture(scope="module")
def lines():
    """What the measurement says while it runs."""
    return []


@pytest.fixture(scope="module")
def report(make_network, make_images, lines):
    """A report of a tiny network on 7 images."""
    return measure(FourierMask(make_network(), mean=0.5, std=0.2, steps=12), make_images(7), say=lines.append)


@pytest.fixture(scope="module")
def folder(report, tmp_path_factory):
    """Where it was written."""
    return card.write(report, tmp_path_factory.mktemp("out") / "r", model=MODEL, files=FILES, names=NAMES).parent


class Page(HTMLParser):
    """The elements and texts of a page; fails on elements that are not closed in order."""

    VOID = {"meta", "img", "br", "circle", "line", "polygon", "polyline"}

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)

    def all(self, tag):
        """The attributes of every element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        """All words outside the style."""
        return " ".join(" ".join(self.texts).split())


def accessible(page):
    """No script, nothing from elsewhere, alternative texts, one first heading, and no level left out."""
    tags = [tag for tag, _ in page.elements]
    assert not {"script", "iframe", "link", "object", "form"} & set(tags)
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:image/png;base64,") or "src" not in attributes
        assert "://" not in attributes.get("href", "")
    assert all(image["alt"] for image in page.all("img"))
    assert all(drawn.get("aria-label") or drawn.get("aria-hidden") == "true" for drawn in page.all("svg"))
    levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")


# --------------------------------------------------------------------------------------------------- measurement


def test_every_number_has_an_interval_and_a_reading(report, lines):
    for row in report.rows:
        assert row.value.low <= row.value.value <= row.value.high
        assert min(row.value.low, 0) == 0
        assert row.value.high <= 100
        assert row.reading.endswith(".")
        assert (row.control is None) == (row.against == "")
    assert len({row.name for row in report.rows}) == len(report.rows) == 10
    assert lines == [
        "masks of 7 images", "one mask for all images", "controls", "Jacobian spectrum", "heat map", "attack"
    ]  # fmt: skip
    for curve in report.curves.values():
        assert bool((curve[:, 1] <= curve[:, 0] + 1e-9).all())
        assert bool((curve[:, 0] <= curve[:, 2] + 1e-9).all())


def test_measuring_twice_gives_the_same_and_leaves_the_model(report, make_network, make_images, snapshot):
    network = make_network()
    before = snapshot(network)
    again = measure(FourierMask(network, mean=0.5, std=0.2, steps=12), make_images(7))
    assert snapshot(network) == before
    for first, second in zip(report.rows, again.rows, strict=True):
        assert second.value.value == pytest.approx(first.value.value, abs=15)  # rounding may change a mask


@pytest.mark.parametrize(("channels", "size", "per_channel"), [(1, (15, 17), False), (5, (16, 20), True)])
def test_other_images_are_measured_too(channels, size, per_channel, make_network, make_images, tmp_path):
    images = make_images(3, channels, *size)
    found = measure(FourierMask(make_network(channels), steps=2, per_channel=per_channel), images)
    page = Page(card.write(found, tmp_path / "r", model="m", files=["a", "b", "c"], names=None).read_text())
    accessible(page)
    assert "class " in page.text


def test_a_single_image_has_no_intervals(make_network, make_images):
    with pytest.raises(FmlibError, match="at least 2 images"):
        measure(FourierMask(make_network(), steps=1), make_images(1))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 20), (224, 224), (2, 2)])
def test_frequencies_of_the_heat_map(height, width):
    radii, pairs = heat_frequencies(height, width)
    assert pairs.shape == (4 * len(radii), 2)
    assert bool((pairs[:, 1] >= 0).all())
    assert bool((pairs[:, 1] <= width // 2).all())
    assert bool((pairs.abs().sum(1) > 0).all())
    if height == 224:
        assert radii == [0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0]
        assert pairs[4:8].tolist() == [[0, 11], [8, 8], [11, 0], [216, 8]]


def test_shares_stay_between_0_and_100():
    assert percent(torch.tensor([0.0, 0.0, 1.0]))[:2] == (pytest.approx(100 / 3), 0.0)
    assert percent(torch.tensor([1.0, 1.0, 0.0])).high == 100


@pytest.mark.parametrize("width", [16, 17])
def test_weights_are_shuffled_within_rings(width):
    half = torch.rand(16, width // 2 + 1)
    rng = torch.Generator().manual_seed(0)
    moved = shuffled_in_rings(half, width, rng)
    assert not torch.equal(moved, half)
    assert torch.equal(moved.flatten().sort().values, half.flatten().sort().values)
    assert float(moved[0, 0]) == float(half[0, 0])


# ------------------------------------------------------------------------------------------------------- the files


def test_a_report_has_four_files(folder, report):
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.html", "masks.safetensors", "report.json", "table.csv"
    ]  # fmt: skip
    loaded = Explanation.load(folder / "masks.safetensors")
    assert torch.equal(loaded.masks.half, report.images.masks.half)
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert [row["file"] for row in rows] == FILES
    assert list(rows[0]) == [
        "file", "label", "name", "share", "nonzero_share", "kept", "complement_kept", "converged"
    ]  # fmt: skip
    for number, row in enumerate(rows):
        assert int(row["label"]) == int(report.images.labels[number])
        assert row["name"] == NAMES[int(row["label"])]
        assert float(row["share"]) == pytest.approx(float(report.images.share[number]), rel=1e-4)
        assert row["kept"] == str(bool(report.images.kept[number]))


def test_the_numbers_are_plain_json(folder, report):
    numbers = card.read(folder)
    assert numbers == card.read(folder / "card.html")
    assert numbers["model"] == MODEL
    assert numbers["n"] == 7
    assert numbers["size"] == [16, 16]
    assert [Measured(**row["value"]) for row in numbers["rows"]] == [row.value for row in report.rows]
    assert len(numbers["heat"]) == 4 * len(numbers["radii"])
    assert set(numbers["curves"]) == set(report.curves)


def test_a_report_replaces_a_report_but_nothing_else(report, tmp_path):
    options = {"model": "m", "files": FILES, "names": NAMES}
    for folder in (tmp_path / "new", tmp_path / "below" / "new"):
        card.write(report, folder, **options)
        first = (folder / "card.html").read_text()
        card.write(report, folder, **options | {"model": "other"})
        assert (folder / "card.html").read_text() != first
    (tmp_path / "mine").mkdir()
    card.require_free(tmp_path / "mine")
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    (tmp_path / "file").touch()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "report.json").write_text('{"format": "another"}')
    for name, message in (("mine", "holds other files"), ("file", "is a file"), ("odd", "of another version")):
        with pytest.raises(FmlibError, match=message):
            card.write(report, tmp_path / name, **options)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(FmlibError, match="cannot write"):
        card.write(report, tmp_path / "file" / "below", **options)


# -------------------------------------------------------------------------------------------------------- the page


def test_the_page_is_accessible_and_complete(folder, report):
    page = Page((folder / "card.html").read_text())
    accessible(page)
    for row in report.rows:
        assert row.name in page.text
        assert row.reading in page.text
        assert row.against in page.text
    assert page.text.replace("\xa0", " ").count("n = 7 images") >= 9
    assert len(page.all("img")) == 4 * card.EXAMPLES + 1
    hrefs = [attributes["href"] for attributes in page.all("a")]
    assert hrefs == ["table.csv", "masks.safetensors", "report.json"]
    assert "default-src 'none'" in page.all("meta")[1]["content"]
    assert "prefers-color-scheme: dark" in page.text


def test_names_are_escaped(report):
    text = card.card(report, MODEL, FILES, NAMES)
    page = Page(text)
    for name in (MODEL, *FILES[: card.EXAMPLES], *(NAMES[label] for label in report.images.labels[: card.EXAMPLES])):
        assert name in page.text
        assert not set("<>") & set(name) or name not in text


def test_masks_that_did_not_converge_are_counted(report):
    changed = copy.copy(report)
    changed.images = copy.copy(report.images)
    changed.images.masks = copy.copy(report.images.masks)
    for flags, words in (([True] * 7, None), ([True] * 5 + [False] * 2, "2 of 7 masks did not converge")):
        changed.images.masks.converged = torch.tensor(flags)
        text = Page(card.card(changed, "m", FILES, NAMES)).text
        assert (words in text) if words else ("did not converge" not in text)


def test_numbers_have_one_decimal_or_two_digits():
    assert [card.number(value) for value in (0, 0.034, 0.96, 1, 12.34, 100)] == [
        "0.0", "0.034", "0.96", "1.0", "12.3", "100.0"
    ]  # fmt: skip
    assert card.interval(Measured(5, 1.5, 10, 3)) == " (1.5 to 10.0)"
    assert card.interval(Measured(5, 5, 5, 1)) == ""


def test_pictures_are_png():
    for pixels in (torch.rand(1, 5, 7), torch.rand(3, 5, 7), torch.rand(4, 5, 7), np.random.rand(5, 7, 3)):
        assert card.png(pixels).startswith("data:image/png;base64,iVBOR")


def test_charts_stay_in_their_frame():
    x, y = np.array([0.1, 0.9]), np.array([[0.2, -0.1, 0.4], [0.0, 0.0, 0.0]])
    for values in (y, 0 * y, 1e-5 * y, 37 * y):
        text = charts.curves([charts.Line("<a>", x, values)], "x & y", "up", 1.0, 'the "alt"', (0.5, "mark"))
        page = Page(text)
        for shape in page.all("polyline") + page.all("polygon"):
            for point in shape["points"].split():
                across, down = map(float, point.split(","))
                assert charts.LEFT <= across <= charts.WIDTH - charts.RIGHT
                assert charts.TOP - 0.1 <= down <= charts.HEIGHT - charts.BOTTOM + 0.1
        assert "<a>" in page.text
    styles = [charts.stroke(index) for index in range(card.MOST)]
    assert len(set(styles)) == card.MOST


# ------------------------------------------------------------------------------------------------------ comparison


@pytest.fixture
def folders(report, tmp_path):
    """Reports of three models; the third lacks a row and has other images."""
    for number in range(3):
        card.write(report, tmp_path / str(number), model=MODEL if number else "first", files=FILES, names=NAMES)
    path = tmp_path / "2" / "report.json"
    numbers = json.loads(path.read_text())
    numbers["images_sha256"] = "other"
    del numbers["rows"][3]
    path.write_text(json.dumps(numbers))
    return [tmp_path / str(number) for number in range(3)]


def test_models_side_by_side(folders, report):
    page = Page(card.compare(folders))
    accessible(page)
    assert "first" in page.text
    assert f"{MODEL} (2)" in page.text
    assert f"{MODEL} (3)" in page.text
    assert page.text.count("not measured") == 1
    assert "different images" in page.text
    assert "different images" not in Page(card.compare(folders[:2])).text
    assert all(row.name in page.text for row in report.rows)
    assert len(page.all("polyline")) == 3 * sum(len(chart[1]) for chart in card.CHARTS) - 3 * 2


def test_comparisons_that_cannot_be_made(folders, tmp_path):
    many = [folders[0]] * 13
    (tmp_path / "bad").mkdir()
    cases = [([folders[0]], "2 to 12"), (many, "2 to 12"), ([folders[0], tmp_path / "nowhere"], "there is no report")]
    for content in (
        "",
        "[]",
        "{}",
        '{"format": "fmlib report 1"}',
        '{"format": "fmlib report 1", "rows": [3]}',
        "\xff",
    ):
        (tmp_path / "bad" / "report.json").write_bytes(content.encode("latin1"))
        with pytest.raises(FmlibError, match="not a report of fmlib, or damaged"):
            card.compare([folders[0], tmp_path / "bad"])
    cases.append(([folders[0], tmp_path / "bad"], "damaged"))
    numbers = json.loads((folders[0] / "report.json").read_text())
    for name in ("curves", "model", "n", "size", "images_sha256", "radii"):
        lacking = {key: value for key, value in numbers.items() if key != name}
        (tmp_path / "bad" / "report.json").write_text(json.dumps(lacking))
        with pytest.raises(FmlibError, match="damaged"):
            card.compare([folders[0], tmp_path / "bad"])
    for chosen, message in cases:
        with pytest.raises(FmlibError, match=message) as caught:
            card.compare(chosen)
        assert "\n" not in str(caught.value)


def test_a_comparison_replaces_a_comparison_but_no_other_page(folders, tmp_path):
    path = tmp_path / "page.html"
    for _ in range(2):
        assert card.write_comparison(folders, path) == path
    for name, message in (("0/card.html", "another page"), ("page.txt", "an HTML file"), ("0", "an HTML file")):
        with pytest.raises(FmlibError, match=message):
            card.write_comparison(folders, tmp_path / name)


def test_rows_are_dictionaries_for_json():
    row = Row("a", Measured(1, 0, 2, 3), "%", None, "", "r")
    assert row.as_dict()["value"] == {"value": 1, "low": 0, "high": 2, "n": 3}
    assert row.as_dict()["control"] is None


# ------------------------------------------------------------------------------------------------------ a browser


def test_markup_in_names_is_shown_and_does_not_run(report, visit, tmp_path):
    hostile = """<img src=x onerror="document.title='it ran'"><script>document.title='it ran'</script>'">"""
    (tmp_path / "card.html").write_text(card.card(report, hostile, [hostile] * len(FILES), [hostile] * len(NAMES)))
    seen = visit(f"file://{tmp_path}/card.html", bypass_csp=True).page
    assert "it ran" not in seen.title().replace(hostile, "")
    assert seen.locator("img[src=x]").count() == 0
    assert seen.inner_text("body").count(hostile) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_in_a_browser(scheme, width, folders, visit, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    comparison = card.write_comparison(folders, tmp_path / "page.html")
    for path in (folders[0] / "card.html", comparison):
        seen = visit(f"file://{path}", width, scheme, bypass_csp=True)
        assert seen.outside == []
        assert seen.errors == []
        found = axe.run(seen.page)
        assert found.violations_count == 0, found.generate_report()
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
