"""Kills and interrupts of `fmlib book build`, on a book of a page and two chapters."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from multiprocessing import forkserver
from pathlib import Path

import nbformat
import psutil

from ci.faults.campaign import ROOT, Campaign, Child, Fault, Place, expect, start, succeed
from ci.faults.writes import at_write, chosen, die, writes
from fmlib.pipeline import processes
from fmlib.publishing import build
from fmlib.studies import registry

#: The chapters' table, made from the results of the toy experiment.
TABLE = """
from pathlib import Path

import pandas as pd

from fmlib.pipeline.results import Results

pd.DataFrame(Results.open(Path(folder)).table("means"))
"""
TOC = """
format: jb-book
root: intro
parts:
  - caption: Toys
    chapters:
      - file: toy
      - file: status
"""


def lay_out(root: Path) -> None:
    """Write the toy book, with the settings of the real one."""
    for folder in ("book", "published/bench", "published/freqbench"):
        (root / folder).mkdir(parents=True)
    settings = (ROOT / "_config.yml").read_text()
    (root / "_config.yml").write_text(settings.replace("mathjax/tex-svg.mjs", "none.mjs"))
    (root / "_toc.yml").write_text(TOC.lstrip())
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "intro.md").write_text("# Toys\n\nA book of two chapters.\n")
    for name in ("toy", "status"):
        cell = nbformat.v4.new_code_cell
        cells = [
            nbformat.v4.new_markdown_cell(f"# A chapter called {name}"),
            cell(build.colab_source(), metadata={"tags": ["colab"]}),
            cell('profile = "quick"\nfolder = ""', metadata={"tags": ["parameters"]}),
            cell(TABLE.strip(), metadata={"made_from": ["means.csv"]}),
        ]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), root / "book" / f"{name}.ipynb")


def install(place: Place) -> None:
    """Let the commands of this process know the toy book only; its pages show no other results."""
    # The server is that of the campaign, which is no child of this process.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    build.ROOT, build.BOOK, build.BUILD = place.root, place.root / "book", place.root / "_build"
    build.PUBLISHED = place.root / "published"
    build.FOLDER = build.BOOK / "_static" / "playground"
    build.renew_playground = lambda _: None
    build.require_undamaged = lambda: None
    registry.published = list


def words(place: Place) -> list[str]:
    """The command line that builds the book."""
    return place.words("book", "build", "--workers", "1")


def pages(place: Place) -> dict[str, bytes]:
    """Relative path -> content of every page of the built book and of what it links to."""
    folder = place.root / "_build" / "quick" / "_build" / "html"
    kinds = (".html", ".csv", ".json", ".npz", ".js", ".css")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in kinds]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Books:
    """Places with a toy book that was built once, and the pages of an undisturbed build.

    All kernels are forked from one server, which is started here, as `fmlib` would start one in seconds.
    """

    def __init__(self, campaign: Campaign) -> None:
        processes.context()
        self.campaign, self.first = campaign, campaign.copy()
        lay_out(self.first.root)
        begin = time.monotonic()
        self.build(self.first)
        self.seconds, self.expected = time.monotonic() - begin, pages(self.first)
        expect(len(self.expected) > 10, self.expected.keys())

    def place(self) -> Place:
        """A new place with the store, the book and its pages."""
        place = self.campaign.place()
        shutil.copytree(self.first.root, place.root, dirs_exist_ok=True)
        return place

    def start(self, place: Place, before: Callable[[], None] = lambda: None) -> Child:
        """Start a build; `before` is called in its process first."""

        def both() -> None:
            install(place)
            before()

        return start(place, words(place), both)

    def build(self, place: Place) -> None:
        """Build to the end."""
        out = succeed(place, words(place), partial(install, place))
        expect(out[-1].startswith("the book is at "), out)

    def killed(self, place: Place, child: Child) -> bool:
        """Whether a killed build was hit. It is built again at once, while what it has started may still run."""
        status = os.waitpid(child.pid, 0)[1]
        self.finish(place)
        expect(not child.others() + served(), "a process is left over")
        return status == signal.SIGKILL

    def finish(self, place: Place) -> None:
        """Build again; the pages must be as if undisturbed, and the book as it was."""
        self.build(place)
        found = pages(place)
        expect(found.keys() == self.expected.keys(), found.keys() ^ self.expected.keys())
        expect(found == self.expected, [name for name in found if found[name] != self.expected[name]])
        for path in (self.first.root / "book").iterdir():
            expect((place.root / "book" / path.name).read_bytes() == path.read_bytes(), f"{path.name} was changed")
        shutil.rmtree(place.root)


#: The books of a campaign, built once.
books = cache(Books)


def served() -> list[psutil.Process]:
    """The processes that the server of kernels has started."""
    return psutil.Process(forkserver._forkserver._forkserver_pid).children()


def killed_at_writes_of_build(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL at a file write of `book build`"""
    place = books(campaign).place()
    for number in chosen(writes(place, words(place), before=partial(install, place)), campaign.kills):

        def fault(number: int = number) -> bool:
            place = books(campaign).place()
            return books(campaign).killed(place, books(campaign).start(place, partial(at_write, number, die)))

        yield fault


def killed_build(campaign: Campaign) -> Iterator[Fault]:
    """SIGKILL of `book build` at a random moment"""
    for _ in range(campaign.kills):

        def fault() -> bool:
            place, delay = books(campaign).place(), campaign.rng.uniform(0, books(campaign).seconds)
            child = books(campaign).start(place)
            time.sleep(delay)
            os.kill(child.pid, signal.SIGKILL)
            return books(campaign).killed(place, child)

        yield fault


def interrupted_build(campaign: Campaign) -> Iterator[Fault]:
    """Ctrl-C while `book build` works"""
    for _ in range(campaign.others):

        def fault() -> bool:
            place, delay = books(campaign).place(), campaign.rng.uniform(0.1, 1) * books(campaign).seconds
            child = books(campaign).start(place)
            time.sleep(delay)
            os.killpg(child.pid, signal.SIGINT)
            code, (_, errors) = child.wait(), child.output()
            stopped = (130, ["fmlib: stopped; run the same command again to go on"])
            expect((code, errors) in ((0, []), stopped), errors)
            books(campaign).finish(place)
            expect(not served(), "a process is left over")
            return code == 130

        yield fault
