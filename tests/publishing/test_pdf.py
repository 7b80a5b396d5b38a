"""The book on paper: every chapter is printed, and without Chromium one line says what to install."""

import re
import shutil

import nbformat
import pytest

from fmlib.core.errors import FmlibError
from fmlib.publishing import build, pdf


def titles():
    """The first heading of every chapter."""
    for name in build.pages():
        path = build.BOOK / f"{name}.ipynb"
        cells = nbformat.read(path, as_version=4).cells if path.exists() else []
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        text = text or path.with_suffix(".md").read_text()
        yield next(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, pdf.PROGRAMS)), reason="Chromium is not installed")
def test_the_pdf_has_every_chapter(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    content = pdf.pdf().read_bytes()
    assert content.startswith(b"%PDF-")
    for title in titles():
        assert re.search(rb"/Title \((\d+\. )?" + re.escape(title.encode()) + rb"\)", content), title


def test_without_chromium_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FmlibError, match="apt install chromium"):
        pdf.pdf()


def test_a_browser_that_prints_nothing_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    monkeypatch.setattr(build, "render", lambda place, builder: None)
    monkeypatch.setattr(pdf, "chromium", lambda: "/bin/true")
    with pytest.raises(FmlibError, match="does not print the book"):
        pdf.pdf()
    assert list(tmp_path.iterdir()) == []
