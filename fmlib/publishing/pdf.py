"""The book as a PDF: all chapters as one page, printed by headless Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from fmlib.core.errors import FmlibError
from fmlib.pipeline.results import PUBLISHED, Results
from fmlib.publishing import build

#: Names under which systems install Chromium or Chrome.
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The path of Chromium or Chrome; raises `FmlibError` if neither is installed."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    raise FmlibError(f"Chromium is missing: install it (apt install chromium), or Chrome, as {', '.join(PROGRAMS)}")


def as_root() -> list[str]:
    """The option that Chromium needs to start as root, as in containers; empty for other users."""
    return ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []


def pdf() -> Path:
    """Print the committed book to `_build/fourier-masks.pdf`.

    Returns:
        The path of the PDF.

    Raises:
        FmlibError: Chromium is missing, the book does not build, or nothing is printed.
    """
    program, target = chromium(), build.BUILD / "fourier-masks.pdf"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        build.lay_out(place, Results.open(PUBLISHED / build.SHOWN))
        build.render(place, "singlehtml")
        draft = place / "book.pdf"
        command = [program, "--headless", *as_root(), f"--user-data-dir={place / 'browser'}", "--no-pdf-header-footer"]
        command += ["--generate-pdf-document-outline", "--virtual-time-budget=60000", f"--print-to-pdf={draft}"]
        page = place / "_build" / "singlehtml" / "intro.html"
        process = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, check=False)
        if process.returncode or not draft.exists():
            raise FmlibError(f"{program} does not print the book: {process.stderr.strip()[-300:]}")
        target.parent.mkdir(exist_ok=True)
        shutil.move(draft, target)
    return target
