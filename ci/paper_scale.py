"""The paper's own scale in turns of a few minutes, for a GPU that is lent for so long.

    python ci/paper_scale.py --data-root ~/imagenette --minutes 9

trains N, S, T, R and A one after the other, each with its dataset mask; then come minimal masks, all else of one seed,
and the other seeds. After `--minutes` it stops and publishes what is finished; the next call goes on where this one
stopped, as long as the store is there. It ends with status 0 when nothing is left to compute, with 3 before.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fmlib.core.device import pick_device
from fmlib.core.errors import FmlibError, require
from fmlib.pipeline import experiment
from fmlib.pipeline.store import Store
from fmlib.studies import registry
from fmlib.studies.shared.profiles import profile
from fmlib.studies.shared.setup import Setup

ORDER = ("N", "S", "T", "R", "A")
MASKS = ("dataset-masks",)
MINIMAL = ("minimal-image-masks", "minimal-tables", "minimal-separability")
#: What is computed and published, in this order: names of experiments (none: all that need no other network), and the
#: networks of one seed (none: all networks of all seeds).
STAGES: list[tuple[Sequence[str], Sequence[str]]] = [
    *((MASKS, ORDER[:count]) for count in range(1, len(ORDER) + 1)),
    (MINIMAL, ORDER),
    ((), ORDER),
    (MASKS, ()),
    ((), ()),
]


@contextmanager
def interrupted_after(minutes: float) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block, as Ctrl-C does, after some minutes."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def stages(whole: Setup) -> Iterator[tuple[Setup, list[experiment.Experiment]]]:
    """The setup and the experiments of each stage."""
    for names, networks in STAGES:
        setup = replace(whole, profile=whole.profile.only(networks))
        yield setup, registry.needing_only(setup, names) if networks else registry.experiments(names)


def turn(whole: Setup, store: Store, results: Path, minutes: float) -> bool:
    """Compute for some minutes, then publish what is finished to a folder; whether all is."""
    finished = []
    try:
        with interrupted_after(minutes):
            for setup, chosen in stages(whole):
                registry.run(chosen, setup, store, workers=1)
                finished.append((setup, chosen))
    except KeyboardInterrupt:
        print(f"interrupted after {minutes:g} minutes", flush=True)
    published: set[str] = set()
    for setup, chosen in reversed(finished):  # the last stage of an experiment holds the earlier ones
        fresh = [one for one in chosen if one.name not in published]
        if fresh:
            experiment.publish(fresh, setup, store, results, registry.all_claims())
        published |= {one.name for one in fresh}
    return len(finished) == len(STAGES)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each kind")
    parser.add_argument("--data-root", type=Path, help="folder that holds imagenette2-160/")
    parser.add_argument("--store", type=Path, default=Path(".fmlib"), help="folder of computed artifacts")
    parser.add_argument("--results", type=Path, default=Path("_build/results"), help="folder of what is published")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--minutes", type=float, default=9.0, help="of computing; publishing takes a minute more")
    words = parser.parse_args()
    try:
        require(0 < words.minutes < 1e6, f"--minutes must be positive, not {words.minutes:g}")
        require(words.seeds >= 1, f"--seeds must be at least 1, not {words.seeds}")
        device = pick_device(words.device)
        chosen = replace(profile(words.profile), repetitions=words.seeds)
        setup = Setup(chosen, 0, device, words.data_root, progress=False)
        store = Store(words.store, device, say=lambda line: print(line, flush=True))
        complete = turn(setup, store, words.results / setup.profile.name, words.minutes)
    except FmlibError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"published to {words.results / setup.profile.name}", "" if complete else "; call again to go on", sep="")
    return 0 if complete else 3


if __name__ == "__main__":
    raise SystemExit(main())
