"""Files that are damaged: bits flipped, bytes changed, cut, extended, emptied or deleted."""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from ci.faults.campaign import ROOT, Campaign, Fault, call, expect, one_line, run
from ci.faults.toy import diamond, install
from ci.faults.writes import at_write, die
from fmlib import cli
from fmlib.pipeline import results
from fmlib.pipeline.disk.files import write_bytes
from fmlib.publishing import build
from fmlib.publishing.playground import book
from fmlib.studies import registry


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file in a random way, which is returned."""
    content = bytearray(path.read_bytes())
    how = rng.choice(("flip", "flip", "change", "cut", "extend", "empty", "delete"))
    place = rng.randrange(len(content))
    if how == "flip":
        content[place] ^= 1 << rng.randrange(8)
    elif how == "change":
        content[place] ^= rng.randrange(1, 256)
    path.write_bytes({"cut": content[:place], "extend": content + b"\n", "empty": b""}.get(how, content))
    if how == "delete":
        path.unlink()
    return how


def share(campaign: Campaign, part: float) -> range:
    return range(max(1, round(campaign.damages * part)))


def damaged_artifacts(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of the store"""
    place = campaign.copy()
    install(place.published)
    paths = [path for path in sorted(place.store.rglob("*")) if path.is_file()]
    for _ in share(campaign, 0.4):

        def fault() -> None:
            path = campaign.rng.choice(paths)
            gone = damage(path, campaign.rng) == "delete" and path.name == "spec.json"  # then it is computed again
            code, _, errors = call("store", "verify", "--store", str(place.store))
            if not gone:
                one_line(code, errors, "is damaged", str(path.parent))
            for folder in (place.store / "toy").iterdir():
                if folder != path.parent:
                    shutil.rmtree(folder)
            code, _, errors = call(*place.words("run", "--workers", "1"))
            if code == 0:
                code, _, errors = call(*place.words("publish"))
            if not gone:
                one_line(code, errors, "is damaged", str(path.parent))
                shutil.rmtree(path.parent)  # as the line says
            for command in (place.words("run", "--workers", "1"), place.words("publish")):
                code, _, errors = call(*command)
                expect((code, errors) == (0, []), errors)
            expect(place.files() == campaign.expected, "the artifact differs")

        yield fault


def damaged_states(campaign: Campaign) -> Iterator[Fault]:
    """a damaged state of an interrupted run"""
    place = campaign.copy()
    install(place.published)
    last = diamond()[0]
    artifact, path = place.store / "toy" / last.key, place.store / "toy" / f"{last.key}.part"
    shutil.rmtree(artifact)
    run(place, place.words("run", "--workers", "1"), lambda: at_write(4, die))
    state = path.read_bytes()
    for _ in share(campaign, 0.1):

        def fault() -> None:
            shutil.rmtree(artifact, ignore_errors=True)
            path.write_bytes(state)
            how = damage(path, campaign.rng)
            code, out, errors = call(*place.words("run", "--workers", "1"))
            said = [f"the saved state {path} is damaged: starting again"] if how != "delete" else []
            expect((code, errors, out[1:]) == (0, [], said), (how, out, errors))
            expect(place.files() == campaign.expected, "the artifact differs")

        yield fault


def damaged_results(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of results, and one of their experiments published again"""
    place = campaign.copy()
    install(place.published)
    folder = place.published / "quick"
    names = ["manifest.json", "totals.npz", "means.csv", "claims.json"]
    for _ in share(campaign, 0.15):

        def fault() -> None:
            name = campaign.rng.choice(names)
            how = damage(folder / name, campaign.rng)
            code, out, errors = call(*place.words("publish", "means"))
            if name in ("manifest.json", "totals.npz"):
                one_line(code, errors, str(folder))
                shutil.rmtree(folder)
                code, out, errors = call(*place.words("publish"))
            expect((code, out, errors) == (0, [f"published to {folder}"], []), (name, how, out, errors))
            expect(place.files() == campaign.expected, f"{name} differs")

        yield fault


def damaged_publications(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of the published results and benchmarks"""
    folder = campaign.place().published
    shutil.copytree(ROOT / "data" / "results", folder, dirs_exist_ok=True)
    for name in results.TRUST:
        (folder / "bench" / f"{name}.json").unlink(missing_ok=True)
    install(folder)
    registry.PUBLISHED = folder
    registry.run = build.build = lambda *_, **__: None
    cli._publish = lambda *_: None
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for _ in share(campaign, 0.25):

        def fault() -> None:
            path = campaign.rng.choice(paths)
            content = path.read_bytes()
            how = damage(path, campaign.rng)
            code, _, errors = call("book", "build", "--store", str(folder / "store"), "--device", "cpu")
            if not (how == "delete" and path.parent.name == "bench"):  # which chapter needs it says so
                one_line(code, errors, str(path.parent))
            path.write_bytes(content)

        yield fault


def damaged_playground(campaign: Campaign) -> Iterator[Fault]:
    """a damaged file of the playground, when the book is built"""
    folder = campaign.place().root
    book.figure_scheme = lambda *_: SimpleNamespace(_repr_png_=bytes)  # the preview is not looked at
    made = book.files(results.Results.open(build.PUBLISHED / build.SHOWN))
    build.files = lambda _: made
    names = [name for name in made if name != "preview.png"]
    for name in names:
        write_bytes(folder / name, made[name])
    for _ in share(campaign, 0.1):

        def fault() -> None:
            name = campaign.rng.choice(names)
            damage(folder / name, campaign.rng)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                build.renew_playground(folder)
            said = [f"the playground's {name} is damaged or outdated: written again"]
            expect(out.getvalue().splitlines() == said, out.getvalue())
            expect((folder / name).read_bytes() == made[name], f"{name} differs")

        yield fault
