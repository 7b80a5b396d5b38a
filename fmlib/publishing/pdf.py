"""The book on paper: all chapters as one page, printed to a PDF by headless Chromium."""

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
    """The words that Chromium needs to start as root, as in containers; none for anybody else."""
    return ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []


def pdf() -> Path:
    """Print the committed book to `_build/fourier-masks.pdf`; returns its path.

    Raises `FmlibError` if Chromium is missing, the book does not build, or nothing is printed.
    """
    program, target = chromium(), build.BUILD / "fourier-masks.pdf"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        build.lay_out(place, Results.open(PUBLISHED / build.SHOWN))
        build.render(place, "singlehtml")
        draft = place / "book.pdf"
        words = [program, "--headless", *as_root(), f"--user-data-dir={place / 'browser'}", "--no-pdf-header-footer"]
        words += ["--generate-pdf-document-outline", "--virtual-time-budget=60000", f"--print-to-pdf={draft}"]
        page = place / "_build" / "singlehtml" / "intro.html"
        done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, check=False)
        if done.returncode or not draft.exists():
            raise FmlibError(f"{program} does not print the book: {done.stderr.strip()[-300:]}")
        target.parent.mkdir(exist_ok=True)
        shutil.move(draft, target)
    return target
