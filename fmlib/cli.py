"""The command line: `fmlib explain`, `compare`, `playground`; `run`, `status`, `publish`, `data`, `bench`,
`freqbench`, `book`, `store`.

Only light modules are imported here; each command imports what it needs, so that `fmlib --help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fmlib.core.errors import FmlibError, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fmlib.pipeline.disk.upkeep import Stored
    from fmlib.pipeline.experiment import Experiment
    from fmlib.pipeline.launchers.ray import RayCluster
    from fmlib.pipeline.store import Store
    from fmlib.studies.shared.setup import Setup

#: The profiles, for help texts: `fmlib.studies.shared.profiles` is not imported for them.
PROFILE_NAMES = "quick, laptop or paper"

#: How a model is named.
MODEL_HELP = "torchvision:NAME, timm:NAME, package.module:factory, or FILE.pt2 written by torch.export.save."

#: Words that cannot be parsed raise this; typer exports only a subclass.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

INTERRUPTED = 130  # exit code after Ctrl-C

Experiments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EXPERIMENT", help="Names of experiments, or all (default: all); 'fmlib status' lists them."
    ),
]
Profile = Annotated[str, typer.Option(metavar="NAME", help=f"Size of data and networks: {PROFILE_NAMES}.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the first repetition, 0 or more.")]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="FMLIB_DATA", metavar="FOLDER", help="Folder that holds imagenette2-160/.")
]
StoreFolder = Annotated[
    Path, typer.Option(envvar="FMLIB_STORE", metavar="FOLDER", help="Folder of computed artifacts.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Device that computes: auto, cpu, cuda or mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Draw no progress bars, not even in a terminal.")]
Networks = Annotated[
    str | None,
    typer.Option(
        metavar="N,A,...",
        help="Only these of the five networks, N among them, one of each, and what needs no other.",
    ),
]
ImageMasks = Annotated[
    int, typer.Option(metavar="N", help="Image masks of the first N validation images only (default: the profile's).")
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that compute side by side and share the threads (default: 2 on a multi-core CPU, else 1). "
        "With --launcher ray: tasks at once (default: as many as fit).",
    ),
]
Launcher = Annotated[
    str,
    typer.Option(
        metavar="local|ray[:HOST:PORT]",
        help="Compute on this machine, or on a Ray cluster: the one that this machine belongs to, or whose head is at "
        "HOST:PORT. Store and data must be on disks that all nodes share.",
    ),
]
CpusPerTask = Annotated[
    int | None, typer.Option(metavar="N", help="With --launcher ray: processors for each task (default: 1).")
]
GpusPerTask = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="With --launcher ray: GPUs for each task, 0.5 if two tasks share one (default: 1 if the cluster has any).",
    ),
]

STORE = Path(".fmlib")

app = typer.Typer(
    help="Fourier masks of neural networks: learn the input frequencies a network needs.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
book = typer.Typer(help="Build, publish or print the book. Needs a checkout of the project.", rich_markup_mode=None)
app.add_typer(book, name="book")
store_app = typer.Typer(help="List, check and clean the store of computed artifacts.", rich_markup_mode=None)
app.add_typer(store_app, name="store")


@app.command()
def explain(
    model: Annotated[str, typer.Option(metavar="NAME", help=MODEL_HELP)],
    images: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of pictures; those below it count too.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write the report; a former one is replaced.")],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="State of the model, safetensors (default: its published weights)."),
    ] = None,
    classes: Annotated[Path | None, typer.Option(metavar="FILE", help="Names of the classes, one per line.")] = None,
    size: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of the images (default: as the model's publisher says, or 224)."),
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="Number of pictures, evenly spaced by name.")] = 64,
    mean: Annotated[
        str | None, typer.Option(metavar="M,M,M", help="Mean that normalises pixels in [0, 1], for each channel.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S,S,S", help="Standard deviation that normalises them, for each channel.")
    ] = None,
    centre: Annotated[
        str | None,
        typer.Option(metavar="C,C,C", help="Gray level about which masks filter, if the model normalises by itself."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", help="Forward and backward passes per image.")] = 60,
    max_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", help="About how long learning the masks may take (default: as long as needed)."),
    ] = None,
    device: Device = "auto",
    launcher: Launcher = "local",
    cpus_per_task: CpusPerTask = None,
    gpus_per_task: GpusPerTask = None,
    quiet: Quiet = False,
) -> None:
    """Find the frequencies that an image classifier needs, and write a report with a page to read."""
    from fmlib.explain.command import Request
    from fmlib.explain.command import explain as write_report
    from fmlib.pipeline.launchers.ray import cluster

    place = cluster(launcher, cpus_per_task, gpus_per_task, device)
    request = Request(model, images, out, weights, classes, size, count, mean, std, centre, steps, max_seconds, device)
    page = write_report(request, _say, progress=not quiet and sys.stderr.isatty(), cluster=place)
    print(f"written to {page}")


@app.command()
def compare(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT", help="Folders that 'fmlib explain' wrote.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write, HTML; a former one is replaced.")],
) -> None:
    """Lay reports of several models side by side on one page."""
    from fmlib.explain.card import write_comparison

    print(f"written to {write_comparison(reports, out)}")


@app.command()
def playground(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write the page; a former one is replaced.")],
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="State of the model, safetensors (default: its published weights)."),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(metavar="N", help="Side of the pictures, pixels (default: as the model says, or 224)."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="M,M,M", help="Mean that normalises pixels in [0, 1], for each channel.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S,S,S", help="Standard deviation that normalises them, for each channel.")
    ] = None,
    classes: Annotated[Path | None, typer.Option(metavar="FILE", help="Names of the classes, one per line.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures to choose from, 12 at most (default: two photographs)."),
    ] = None,
) -> None:
    """Write a page on which a network runs in the browser, with masks to paint and to learn."""
    from fmlib.publishing.playground.page import Request, write

    print(f"written to {write(Request(model, out, weights, side, mean, std, classes, images), _say)}")


@app.command()
def run(
    experiments: Experiments = None,
    profile: Profile = "quick",
    seed: Seed = 0,
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    device: Device = "auto",
    quiet: Quiet = False,
    networks: Networks = None,
    image_masks: ImageMasks = 0,
    workers: Workers = None,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Experiments whose published results are used, where they belong to the same networks, and not "
            "computed again: networks, dataset-masks, image-masks, minimal-image-masks.",
        ),
    ] = None,
    bfloat16: Annotated[
        bool,
        typer.Option(
            "--bfloat16",
            help="Run networks in bfloat16 on a CPU too, as on a GPU: about twice as fast if it supports that.",
        ),
    ] = False,
    launcher: Launcher = "local",
    cpus_per_task: CpusPerTask = None,
    gpus_per_task: GpusPerTask = None,
) -> None:
    """Compute experiments. An interrupted run goes on where it was stopped."""
    setup, artifacts = _open(profile, seed, data_root, store, device, quiet, networks, image_masks, bfloat16)
    from fmlib.pipeline.launchers.ray import cluster
    from fmlib.pipeline.results import PUBLISHED, Results
    from fmlib.studies import registry

    chosen = _chosen(experiments, setup, networks)
    place = cluster(launcher, cpus_per_task, gpus_per_task, device)
    artifacts.require_writable()
    if published is not None:
        results = Results.open(PUBLISHED / setup.profile.name)
        for name in registry.restore(published.split(","), setup, artifacts, results):
            print(f"published: {name}")
    _compute(chosen, setup, artifacts, workers, place)


@app.command()
def status(
    experiments: Experiments = None,
    profile: Profile = "quick",
    seed: Seed = 0,
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    device: Device = "auto",
    quiet: Quiet = False,
    networks: Networks = None,
    image_masks: ImageMasks = 0,
) -> None:
    """Show what is computed, what is missing and how long that takes."""
    setup, artifacts = _open(profile, seed, data_root, store, device, quiet, networks, image_masks)
    from fmlib.pipeline.progress import duration
    from fmlib.pipeline.scheduler import missing as missing_tasks

    chosen = _chosen(experiments, setup, networks)
    seconds = _seconds_per_pass(setup)
    for experiment in chosen:
        try:
            tasks = experiment.tree(setup)
        except FmlibError as error:
            print(f"{experiment.name:<21}cannot be planned: {error}")
            continue
        missing = list(missing_tasks(experiment.tasks(setup), artifacts).values())
        left = duration(sum(task.cost for task in missing) * seconds)
        state = f"{len(tasks) - len(missing)} of {len(tasks)} computed, about {left} left" if missing else "computed"
        print(f"{experiment.name:<21}{state:<44}{experiment.about}")
        for task in missing:
            print(f"  missing  {task.name:<60}{duration(task.cost * seconds):>8}")
    print(
        f"Times are for {setup.device.type}, where an image takes {1000 * seconds:.2f} ms forward and backward, "
        "measured just now."
    )


@app.command()
def publish(
    experiments: Experiments = None,
    profile: Profile = "quick",
    seed: Seed = 0,
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    device: Device = "auto",
    quiet: Quiet = False,
    networks: Networks = None,
    image_masks: ImageMasks = 0,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="They were computed with 'fmlib run --bfloat16'.")
    ] = False,
) -> None:
    """Write computed experiments to data/results/<profile>/. Other experiments there stay as they are."""
    setup, artifacts = _open(profile, seed, data_root, store, device, quiet, networks, image_masks, bfloat16)
    from fmlib.pipeline.results import checkout

    chosen = _chosen(experiments, setup, networks)
    print(f"published to {_publish(chosen, setup, artifacts, checkout()).folder}")


@app.command()
def data(
    profile: Profile = "quick",
    seed: Seed = 0,
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    device: Device = "auto",
    quiet: Quiet = False,
    download: Annotated[
        bool, typer.Option("--download", help="Download Imagenette (160 px, 95 MB) into --data-root first.")
    ] = False,
) -> None:
    """Check the images on disk, or download them."""
    setup, _ = _open(profile, seed, data_root, store, device, quiet)
    from fmlib.core.config import ImageSpec
    from fmlib.core.data import folders
    from fmlib.studies.shared.setup import download as download_images

    spec = setup.profile.data
    if not isinstance(spec, ImageSpec):
        print(f"profile {setup.profile.name} generates its images: nothing to download")
        return
    if download:
        if setup.root is None:
            raise FmlibError("--download needs a folder for the images: give --data-root FOLDER (or FMLIB_DATA)")
        download_images(setup.root)
    for split, tree in folders(spec, setup.root).items():
        print(f"{split}: {len(tree.samples)} images of {len(tree.classes)} classes ({spec.selection}) in {tree.root}")


@app.command()
def bench(
    profile: Profile = "quick",
    seed: Seed = 0,
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    device: Device = "auto",
    quiet: Quiet = False,
    case: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CASE",
            help="quick-32, laptop-64 or paper-128; may be repeated (default: all that the device can run). "
            "With --solvers: laptop-64-N, laptop-64-A, imagenet-160 or imagenet-160-authors (default: all).",
        ),
    ] = None,
    solvers: Annotated[
        bool,
        typer.Option(
            "--solvers",
            help="Compare the solvers of image masks on photographs (half an hour, idle machine). Needs --data-root.",
        ),
    ] = False,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="With --solvers: images of each case, at most (default: all).")
    ] = None,
    shared_masks: Annotated[
        bool, typer.Option("--shared-masks", help="Compare the solvers of dataset and class masks. Needs --data-root.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write a JSON file (default: data/results/bench).")
    ] = None,
) -> None:
    """Measure mask learning and training on this device, or compare solvers. The book shows the result."""
    setup, artifacts = _open(profile, seed, data_root, store, device, quiet)
    from fmlib.pipeline.results import checkout
    from fmlib.studies import registry
    from fmlib.studies.what_it_costs import benchmark

    require(solvers or images is None, "--images limits the images of --solvers: give both or neither")
    require(not (solvers and shared_masks), "--solvers and --shared-masks are two comparisons: give one of them")
    folder = output or checkout() / "bench"
    if shared_masks:
        from fmlib.studies.what_it_costs import shared_masks as shared

        return _write_measured(shared.measure(setup.device, setup.root, _say), folder / "shared_masks.json")
    if solvers:
        return _compare_solvers(case or [], setup, artifacts, images, folder / "solvers.json")
    measured = benchmark.measure(case or [], setup.device, setup.root, registry.experiments(), say=_say)
    for row in measured["rows"]:
        print(
            f"{row['case']}: {row['ratio']:.1f} times as fast as the serial reference, "
            f"{row['ceiling_share']:.0%} of the matrix ceiling, excess {row['quality']['batched']['excess']:.3g} "
            f"(serial {row['quality']['serial']['excess']:.3g})"
        )
    _write_measured(measured, folder / f"{'-'.join(measured['device'].split(',')[0].lower().split())}.json")


@app.command()
def freqbench(
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="A method of your own, or the name of a built-in one; may be repeated (default: all built-in ones).",
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A task; may be repeated (default: all).")
    ] = None,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="Images of each task, at most (default: all of the benchmark).")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", help="Passes per image (default: the method's own).")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write one JSON file a method (default: data/results/freqbench)."),
    ] = None,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="With no other choice: quick measures the small version.")
    ] = "laptop",
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    quiet: Quiet = False,
) -> None:
    """Measure how well methods find the frequencies that networks need. The book shows the leaderboard."""
    setup, artifacts = _open(profile, 0, data_root, store, "cpu", quiet)
    from fmlib.pipeline.results import checkout
    from fmlib.studies.freqbench.command import freqbench as measured

    folder = out or checkout() / "freqbench"
    for path in measured(method or [], task or [], images, budget, setup, artifacts, folder, _say):
        print(f"written to {path}")


def _write_measured(measured: dict[str, Any], path: Path) -> None:
    """Write what was measured as JSON."""
    from fmlib.pipeline.disk.files import signed_json, write_bytes

    write_bytes(path, signed_json(measured).encode())
    print(f"written to {path}")


def _compare_solvers(cases: list[str], setup: Setup, store: Store, images: int | None, path: Path) -> None:
    """Compare the solvers of image masks and write `path`; an interrupted comparison goes on where it was stopped."""
    from fmlib.studies.what_it_costs.solvers import measure

    store.require_writable()
    log = store.root / "bench" / "solvers.log.json"
    measured = measure(cases, setup.device, setup.root, log, say=_say, images=images)
    for row in measured["ratios"]:
        print(
            f"{row['case']}: {row['solver']} {row['speed']:.1f} times as fast as one image at a time, "
            f"{row['excess']:.2f} times its excess ({row['images']} images)"
        )
    _write_measured(measured, path)


@book.command("build")
def book_build(
    profile: Profile = "quick",
    seed: Seed = 0,
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    device: Device = "auto",
    quiet: Quiet = False,
    workers: Workers = None,
) -> None:
    """Compute all experiments and build the book in _build/."""
    build = _publishing("build")
    build.require_undamaged()
    setup, artifacts = _open(profile, seed, data_root, store, device, quiet)
    from fmlib.studies import registry

    chosen = registry.experiments()
    artifacts.require_writable()
    _compute(chosen, setup, artifacts, workers)
    print(f"the book is at {build.build(_publish(chosen, setup, artifacts, build.BUILD / 'results'))}")


@book.command("publish")
def book_publish() -> None:
    """Execute the chapters in book/ on the published results. Claims are evaluated again first."""
    _publishing("build").publish()


@book.command("pdf")
def book_pdf() -> None:
    """Print the published book to _build/fourier-masks.pdf. Needs Chromium or Chrome."""
    print(f"printed to {_publishing('pdf').pdf()}")


@store_app.command("list")
def store_list(store: StoreFolder = STORE) -> None:
    """List the artifacts: kind, name, size and date."""
    from fmlib.pipeline.disk import upkeep

    found = upkeep.artifacts(store)
    for one in found:
        print(_line(one))
    print(f"{len(found)} artifacts, {_megabytes(sum(one.size for one in found))}")


@store_app.command("verify")
def store_verify(store: StoreFolder = STORE) -> int:
    """Check every artifact against its checksums. The exit code is 2 if one is damaged."""
    from fmlib.pipeline.disk import upkeep

    found = list(upkeep.verify(upkeep.artifacts(store)))
    damaged = [problem for _, problem in found if problem not in ("", "unverified")]
    for problem in damaged:
        _fail(problem, 2)
    unverified = sum(problem == "unverified" for _, problem in found)
    older = f"; the records of {unverified} are unverified, as an earlier version stored them" if unverified else ""
    print(f"{len(found) - len(damaged)} of {len(found)} artifacts are whole{older}")
    return 2 if damaged else 0


@store_app.command("gc")
def store_gc(
    store: StoreFolder = STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
) -> None:
    """Remove what runs that were killed more than a day ago have left: drafts, locks, and states to resume from."""
    from fmlib.pipeline.disk import upkeep

    found = upkeep.leftovers(store)
    for path in found if dry_run else upkeep.remove(found):
        print(f"{'would remove' if dry_run else 'removed'} {path}")
    if not found:
        print("nothing is left over")


@store_app.command("prune")
def store_prune(
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Keep what {PROFILE_NAMES} needs; may be repeated (default: all three)."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Keep what this seed needs; may be repeated (default: 0).")
    ] = None,
    data_root: DataRoot = None,
    store: StoreFolder = STORE,
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only listed.")] = False,
) -> None:
    """List the artifacts that no experiment needs at these profiles and seeds, and remove them with --yes."""
    from fmlib.pipeline.disk import upkeep
    from fmlib.studies import registry
    from fmlib.studies.shared.profiles import PROFILES

    needed: set[str] = set()
    for name in profile or PROFILES:
        for number in seed or [0]:
            setup, _ = _open(name, number, data_root, store, "cpu", True)
            needed |= {task.key for experiment in registry.experiments() for task in experiment.tree(setup)}
    unneeded = [one for one in upkeep.artifacts(store) if one.key not in needed]
    for one in unneeded:
        print(_line(one))
    total = f"{len(unneeded)} artifacts that nothing needs, {_megabytes(sum(one.size for one in unneeded))}"
    if not yes or not unneeded:
        print(f"{total}: remove them with --yes" if unneeded else "every artifact is needed")
        return
    removed = list(upkeep.remove(one.folder for one in unneeded))
    print(f"removed {len(removed)} of {total}")


def _line(one: Stored) -> str:
    """An artifact on one line."""
    date = datetime.fromtimestamp(one.written).strftime("%Y-%m-%d %H:%M")
    return f"{one.kind:<18}{one.name:<60}{_megabytes(one.size):>11}  {date}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3f} MB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def main(words: list[str] | None = None) -> int:
    """Run one command.

    Args:
        words: of the command line, without `fmlib` (default: those that this process was started with).

    Returns:
        The exit code: 0, or 2 after an error that the user can correct, or 130 after Ctrl-C. Either prints one line.
    """
    try:
        code = app(words, prog_name="fmlib", standalone_mode=False) or 0
    except FmlibError as error:
        return _fail(str(error), 2)
    except USAGE_ERROR as error:
        return _fail(_usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        from fmlib.pipeline.disk.files import mend

        if mend(error) is None:
            raise
        return _fail(f"{error}: {mend(error)}, then run again", 2)
    return _fail("stopped; run the same command again to go on", code) if code == INTERRUPTED else code


def _fail(message: str, code: int) -> int:
    print(f"fmlib: {message}", file=sys.stderr)
    return code


def _usage(error: Any) -> str:
    """What is wrong with the words of a command, and where its grammar is explained."""
    command = error.ctx.command_path if error.ctx else "fmlib"
    message = " ".join(error.format_message().split()).rstrip(".")
    return f"{message[:1].lower()}{message[1:]} (see '{command} --help')"


def _open(
    profile: str,
    seed: int,
    data_root: Path | None,
    store: Path,
    device: str,
    quiet: bool,
    networks: str | None = None,
    image_masks: int = 0,
    bfloat16: bool = False,
) -> tuple[Setup, Store]:
    """What every command works on, from its common options."""
    require(seed >= 0, f"--seed must be 0 or more, not {seed}")
    from fmlib.core.device import BFLOAT16, pick_device
    from fmlib.pipeline.store import Store
    from fmlib.studies.shared.profiles import profile as profile_named
    from fmlib.studies.shared.setup import Setup

    if bfloat16:
        BFLOAT16.add("cpu")
    found = profile_named(profile).only(() if networks is None else networks.split(","), image_masks)
    chosen = pick_device(device)
    in_terminal = not quiet and sys.stderr.isatty()
    silent = in_terminal and sys.stdout.isatty()  # the bars say as much
    setup = Setup(found, seed, chosen, data_root, progress=in_terminal)
    return setup, Store(store, chosen, say=(lambda line: None) if silent else _say, note=_note)


def _chosen(names: list[str] | None, setup: Setup, networks: str | None) -> list[Experiment]:
    """The experiments of these names; with --networks, those that need no other network."""
    from fmlib.studies import registry

    return registry.experiments(names or []) if networks is None else registry.needing_only(setup, names or [])


def _say(line: str) -> None:
    print(line, flush=True)


def _note(line: str) -> None:
    """Print a line above the bars, if there are any."""
    from tqdm import tqdm

    tqdm.write(line)
    sys.stdout.flush()


def _compute(
    chosen: Sequence[Experiment],
    setup: Setup,
    store: Store,
    workers: int | None,
    cluster: RayCluster | None = None,
) -> None:
    """Compute experiments, with bars in a terminal."""
    from fmlib.pipeline.progress import ProgressBars
    from fmlib.studies import registry

    if not setup.progress:
        registry.run(chosen, setup, store, workers, cluster=cluster)
        return
    with ProgressBars(sys.stderr, partial(_seconds_per_pass, setup)) as bars:
        registry.run(chosen, setup, store, workers, bars, cluster)


def _publish(chosen: Sequence[Experiment], setup: Setup, store: Store, results: Path) -> Any:
    """Publish experiments to the profile's folder in `results`."""
    from fmlib.pipeline import experiment
    from fmlib.studies import registry

    return experiment.publish(chosen, setup, store, results / setup.profile.name, registry.all_claims())


def _publishing(name: str) -> ModuleType:
    """A module of `fmlib.publishing`, which needs a checkout, and more packages than the library."""
    from fmlib.pipeline.results import checkout

    checkout()
    try:
        return importlib.import_module(f"fmlib.publishing.{name}")
    except ModuleNotFoundError as error:
        raise FmlibError(f"the book needs {error.name}: pip install --editable '.[book]'") from error


def _seconds_per_pass(setup: Setup) -> float:
    """Seconds to send one image forward and backward through the profile's network, measured on 32 images.

    The images are noise: activations of constant ones are denormal numbers, which take a processor 100 times as long.
    """
    import torch

    from fmlib.core.models import build

    model = build(setup.profile.network, 0).eval().to(setup.device).to(memory_format=torch.channels_last)
    size = (32, setup.profile.network.channels, setup.profile.data.size, setup.profile.data.size)
    images = torch.rand(size, device=setup.device).requires_grad_()
    measured = []
    for _ in range(3):
        start = time.perf_counter()
        (gradient,) = torch.autograd.grad(model(images).sum(), images)
        float(gradient.sum())  # waits for the device
        measured.append((time.perf_counter() - start) / len(images))
    return min(measured)
