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

from fmlib.core.config import ImageSpec
from fmlib.core.data import download, folders
from fmlib.core.device import BFLOAT16, pick_device
from fmlib.core.errors import FmlibError, require
from fmlib.core.models import build
from fmlib.pipeline.experiment import Experiment, publish
from fmlib.pipeline.results import PUBLISHED, Results, checkout
from fmlib.pipeline.store import Store, write_bytes
from fmlib.studies import registry
from fmlib.studies.dataset_masks.experiment import restore_networks
from fmlib.studies.shared.profiles import PROFILES, profile
from fmlib.studies.shared.setup import Setup
from fmlib.studies.what_it_costs import benchmark


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
        ("run", "compute experiments; resumes where it was stopped"),
        ("status", "what is computed, what is missing, what it will cost"),
        (
            "publish",
            "write computed experiments to data/results/<profile>/; the other experiments there stay as they are",
        ),
    ):
        grammar[name] = commands.add_parser(name, parents=[common], help=about, description=about)
        grammar[name].add_argument(
            "experiment", nargs="*", help=f"{', '.join(registry.all_experiments())} or all (default: all)"
        )
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
    timed.add_argument(
        "--case", nargs="*", default=[], metavar="CASE", help=f"{', '.join(benchmark.CASES)} (default: all)"
    )
    timed.add_argument("--output", type=Path, help="folder (default: data/results/bench)")
    about = "check the photographs, or fetch them"
    data = commands.add_parser("data", parents=[common], help=about, description=about)
    data.add_argument("--download", action="store_true", help="fetch Imagenette (160 px, 95 MB) into --data-root")
    about = "run the experiments, execute every chapter on their results and build the HTML, all under _build/"
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


def _status(setup: Setup, store: Store, chosen: list[Experiment]) -> None:
    seconds = _seconds_per_pass(setup)
    for experiment in chosen:
        try:
            tasks = experiment.tree(setup)
        except FmlibError as error:
            print(f"{experiment.name:<16}cannot be planned: {error}")
            continue
        absent = [task for task in tasks if not store.has(task)]
        cost = sum(task.cost for task in absent) * seconds
        state = (
            "computed"
            if not absent
            else f"{len(tasks) - len(absent)} of {len(tasks)} computed, about {_duration(cost)} left"
        )
        print(f"{experiment.name:<16}{state:<44}{experiment.about}")
        for task in absent:
            print(f"  missing  {task.name:<60}{_duration(task.cost * seconds):>8}")
    print(
        f"Times are for {setup.device.type}, from {1000 * seconds:.2f} ms an image forward and backward, just measured."
    )


def _seconds_per_pass(setup: Setup) -> float:
    """Seconds to send one image forward and backward through the profile's network, measured on 32 images."""
    model = build(setup.profile.network, 0).to(setup.device)
    size = (32, setup.profile.network.channels, setup.profile.data.size, setup.profile.data.size)
    images = torch.rand(size, device=setup.device, requires_grad=True)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        (gradient,) = torch.autograd.grad(model(images).sum(), images)
        float(gradient.sum())  # waits for the device
        took.append((time.perf_counter() - start) / len(images))
    return min(took)


def _bench(setup: Setup, cases: list[str], folder: Path) -> None:
    """Measure, print a line a case, and write `<folder>/<device>.json`."""
    found = benchmark.measure(
        cases, setup.device, setup.root, registry.experiments(), say=lambda line: print(line, flush=True)
    )
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
        return importlib.import_module(f"fmlib.publishing.{name}")
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


def _data(setup: Setup, fetch: bool) -> None:
    spec = setup.profile.data
    if not isinstance(spec, ImageSpec):
        print(f"profile {setup.profile.name} makes its images itself: nothing to fetch")
        return
    if fetch:
        require(setup.root is not None, "say where to put the photographs: --data-root FOLDER (or FMLIB_DATA)")
        assert setup.root is not None
        download(setup.root)
    for split, tree in folders(spec, setup.root).items():
        print(f"{split}: {len(tree.samples)} images of {len(tree.classes)} classes ({spec.selection}) in {tree.root}")


def main(words: list[str] | None = None) -> int:
    """Run one command; a mistake the user can mend prints one line and gives exit code 2."""
    given = parser().parse_args(words)
    try:
        device = pick_device(given.device)
        root = Path(given.data_root) if given.data_root else None
        setup = Setup(
            profile(given.profile), given.seed, device, root, progress=not given.quiet and sys.stderr.isatty()
        )
        store = Store(given.store, device, say=lambda line: print(line, flush=True))
        if given.command == "run":
            chosen = registry.experiments(given.experiment)
            if given.bfloat16:
                BFLOAT16.add("cpu")
            if given.published_networks:
                for name in restore_networks(setup, store, Results.open(PUBLISHED / setup.profile.name)):
                    store.say(f"published: {name}")
            registry.run(chosen, setup, store, given.workers)
        elif given.command == "status":
            _status(setup, store, registry.experiments(given.experiment))
        elif given.command == "bench":
            _bench(setup, given.case, given.output or checkout() / "bench")
        elif given.command == "data":
            _data(setup, given.download)
        elif given.command == "publish":
            chosen = registry.experiments(given.experiment)
            place = checkout() / setup.profile.name
            results = publish(chosen, setup, store, place, registry.all_claims())
            print(f"published to {results.folder}")
        elif given.publish:
            _binder("build").publish()
        elif given.pdf:
            print(f"printed to {_binder('pdf').pdf()}")
        else:
            book, chosen = _binder("build"), registry.experiments([])
            registry.run(chosen, setup, store, given.workers)
            place = book.BUILD / "results" / setup.profile.name
            results = publish(chosen, setup, store, place, registry.all_claims())
            print(f"the book lies at {book.build(results)}")
    except FmlibError as error:
        print(f"fmlib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fmlib: stopped; run again to go on", file=sys.stderr)
        return 130
    return 0
