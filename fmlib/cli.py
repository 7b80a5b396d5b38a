"""The command line: `fmlib run`, `status`, `data`, `book`, `publish`, `bench`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import torch

from fmlib import bench, experiments
from fmlib.config import PROFILES, FmlibError, PhotoSpec, profile, require
from fmlib.data import download, folders
from fmlib.lab import Lab
from fmlib.models import build
from fmlib.results import PUBLISHED, Results, checkout
from fmlib.runtime import BFLOAT16, pick_device
from fmlib.store import Store, write_bytes


def parser() -> argparse.ArgumentParser:
    """The grammar of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--profile", default="quick", metavar="NAME", help=f"{', '.join(PROFILES)} (default: quick)")
    common.add_argument("--seed", type=int, default=0, help="of the first repetition (default: 0)")
    common.add_argument(
        "--data-root",
        type=Path,
        default=os.environ.get("FMLIB_DATA"),
        help="folder that holds imagenette2-160/ (or FMLIB_DATA)",
    )
    common.add_argument(
        "--store",
        type=Path,
        default=Path(os.environ.get("FMLIB_STORE", ".fmlib")),
        help="folder of computed artifacts (default: .fmlib, or FMLIB_STORE)",
    )
    common.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    common.add_argument(
        "--quiet", action="store_true", help="no progress bars (there are none either when output is not a terminal)"
    )

    top = argparse.ArgumentParser(prog="fmlib", description="Fourier masks of neural networks.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    grammar = {}
    for name, about in (
        ("run", "compute recipes; resumes where it was stopped"),
        ("status", "what is computed, what is missing, what it will cost"),
        ("publish", "write computed recipes to data/results/<profile>/; the other recipes there stay as they are"),
    ):
        grammar[name] = commands.add_parser(name, parents=[common], help=about, description=about)
        grammar[name].add_argument("recipe", nargs="*", help=f"{', '.join(experiments.RECIPES)} or all (default: all)")
    grammar["run"].add_argument(
        "--published-networks",
        action="store_true",
        help="do not train the networks whose weights are published for this profile: take those",
    )
    grammar["run"].add_argument(
        "--bfloat16",
        action="store_true",
        help="on a CPU, let networks run in bfloat16, as on a GPU: about twice as fast where the processor has it",
    )
    about = "measure the engine against a serial reference, its scaling and training; keep it in data/results/bench/"
    timed = commands.add_parser("bench", parents=[common], help=about, description=about)
    timed.add_argument("--case", nargs="*", default=[], metavar="CASE", help=f"{', '.join(bench.CASES)} (default: all)")
    timed.add_argument("--output", type=Path, help="folder (default: data/results/bench)")
    about = "check the photographs, or fetch them"
    data = commands.add_parser("data", parents=[common], help=about, description=about)
    data.add_argument("--download", action="store_true", help="fetch Imagenette (160 px, 95 MB) into --data-root")
    about = "run the recipes, execute every chapter on their results and build the HTML, all under _build/"
    made = commands.add_parser("book", parents=[common], help=about, description=about)
    for grown in (grammar["run"], made):
        grown.add_argument(
            "--workers",
            type=int,
            metavar="N",
            help="processes that compute side by side and share the threads (default: 2 on two cores or more, else 1)",
        )
    instead = made.add_mutually_exclusive_group()
    instead.add_argument("--pdf", action="store_true", help="instead: print book/ to _build/fourier-masks.pdf")
    instead.add_argument(
        "--publish",
        action="store_true",
        help="instead: judge the published results anew, execute the chapters on them and keep the outputs in book/",
    )
    return top


def _status(lab: Lab, store: Store, chosen: list[experiments.Recipe]) -> None:
    seconds = _seconds_per_pass(lab)
    for recipe in chosen:
        try:
            jobs = recipe.tree(lab)
        except FmlibError as error:
            print(f"{recipe.name:<16}cannot be planned: {error}")
            continue
        absent = [job for job in jobs if not store.has(job)]
        cost = sum(job.passes for job in absent) * seconds
        state = (
            "computed"
            if not absent
            else f"{len(jobs) - len(absent)} of {len(jobs)} computed, about {_duration(cost)} left"
        )
        print(f"{recipe.name:<16}{state:<44}{recipe.about}")
        for job in absent:
            print(f"  missing  {job.name:<60}{_duration(job.passes * seconds):>8}")
    print(
        f"Times are for {lab.device.type}, from {1000 * seconds:.2f} ms an image forward and backward, just measured."
    )


def _seconds_per_pass(lab: Lab) -> float:
    """Seconds to send one image forward and backward through the profile's network, measured on 32 images."""
    model = build(lab.profile.network, 0).to(lab.device)
    size = (32, lab.profile.network.channels, lab.profile.data.size, lab.profile.data.size)
    images = torch.rand(size, device=lab.device, requires_grad=True)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        (gradient,) = torch.autograd.grad(model(images).sum(), images)
        float(gradient.sum())  # waits for the device
        took.append((time.perf_counter() - start) / len(images))
    return min(took)


def _bench(lab: Lab, cases: list[str], folder: Path) -> None:
    """Measure, print a line a case, and write `<folder>/<device>.json`."""
    found = bench.measure(cases, lab.device, lab.root, say=lambda line: print(line, flush=True))
    for row in found["rows"]:
        print(
            f"{row['case']}: {row['ratio']:.1f} times the serial reference, "
            f"{row['ceiling_share']:.0%} of the matrix ceiling, objectives within {row['objective_gap']:.2%}"
        )
    name = "-".join(found["device"].split(",")[0].lower().split())
    write_bytes(folder / f"{name}.json", (json.dumps(found, indent=1) + "\n").encode())
    print(f"written to {folder / name}.json")


def _binder(name: str) -> ModuleType:
    """The module of that name, which makes the book: it needs a checkout, and more packages than the library."""
    checkout()
    try:
        return importlib.import_module(f"fmlib.{name}")
    except ModuleNotFoundError as error:
        raise FmlibError(f"the book needs {error.name}: pip install --editable '.[book]'") from error


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def _data(lab: Lab, fetch: bool) -> None:
    spec = lab.profile.data
    if not isinstance(spec, PhotoSpec):
        print(f"profile {lab.profile.name} makes its images itself: nothing to fetch")
        return
    if fetch:
        require(lab.root is not None, "say where to put the photographs: --data-root FOLDER (or FMLIB_DATA)")
        assert lab.root is not None
        download(lab.root)
    for split, tree in folders(spec, lab.root).items():
        print(f"{split}: {len(tree.samples)} images of {len(tree.classes)} classes ({spec.selection}) in {tree.root}")


def main(words: list[str] | None = None) -> int:
    """Run one command; a mistake the user can mend prints one line and gives exit code 2."""
    given = parser().parse_args(words)
    try:
        device = pick_device(given.device)
        root = Path(given.data_root) if given.data_root else None
        lab = Lab(profile(given.profile), given.seed, device, root, progress=not given.quiet and sys.stderr.isatty())
        store = Store(given.store, device, say=lambda line: print(line, flush=True))
        if given.command == "run":
            chosen = experiments.recipes(given.recipe)
            if given.bfloat16:
                BFLOAT16.add("cpu")
            if given.published_networks:
                for name in experiments.restore(lab, store, Results.open(PUBLISHED / lab.profile.name)):
                    store.say(f"published: {name}")
            experiments.run(chosen, lab, store, given.workers)
        elif given.command == "status":
            _status(lab, store, experiments.recipes(given.recipe))
        elif given.command == "bench":
            _bench(lab, given.case, given.output or checkout() / "bench")
        elif given.command == "data":
            _data(lab, given.download)
        elif given.command == "publish":
            chosen = experiments.recipes(given.recipe)
            place = checkout() / experiments.home(chosen, lab.profile.name)
            print(f"published to {experiments.publish(chosen, lab, store, place).folder}")
        elif given.publish:
            _binder("book").publish()
        elif given.pdf:
            print(f"printed to {_binder('printing').pdf()}")
        else:
            book, chosen = _binder("book"), experiments.recipes([])
            experiments.run(chosen, lab, store, given.workers)
            results = experiments.publish(chosen, lab, store, book.BUILD / "results" / lab.profile.name)
            print(f"the book lies at {book.build(results)}")
    except FmlibError as error:
        print(f"fmlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fmlib: stopped; run again to go on", file=sys.stderr)
        return 130
    return 0
