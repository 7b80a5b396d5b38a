"""A campaign of faults: `fmlib` commands are disturbed, and must end as if they had not been.

The commands are the real ones, on an experiment of a few tasks that takes a fraction of a second (`toy`), and on a book
of two chapters (`book`). After every fault the command is run again: artifacts, results and pages must be equal to the
last byte to those of an undisturbed run, with no process and no file left over. Then files are damaged: each damage
must be one line and exit code 2, or the file must be made anew and that be said.

    python -m ci.faults --kills 100 --damages 1000 --publish

takes half an hour, and writes `data/results/bench/faults.json` and the table of `book/trust.md`. It runs on Linux; a
full disk is tried on a small file system in memory, which takes root.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import torch

from ci.faults import book, damage, disks, kills
from ci.faults.campaign import ROOT, Campaign, Fault, call, expect
from fmlib.pipeline.disk.files import signed_json, write_bytes

PAGE = ROOT / "book" / "trust.md"
BEGIN, END = "<!-- faults -->", "<!-- /faults -->"
LINUX = sys.platform == "linux"

#: All kinds of faults; a row of the table is a kind's docstring.
KINDS = (
    kills.killed_at_writes_of_run, kills.killed_at_writes_of_publish, kills.killed_run, kills.killed_worker,
    kills.killed_group, kills.killed_publish, book.killed_at_writes_of_build, book.killed_build, kills.two_runs,
    kills.one_of_two_runs, kills.interrupted_start, kills.interrupted_run, book.interrupted_build, kills.clock_jumps,
    disks.refused_writes, disks.refused_publication, disks.file_size_limit, disks.small_disk, damage.damaged_artifacts,
    damage.damaged_states, damage.damaged_results, damage.damaged_publications, damage.damaged_playground,
)  # fmt: skip


def conduct(seed: int, most_kills: int, damages: int) -> list[dict[str, object]]:
    """Try all kinds of faults; returns a row for each with how many were tried and how many survived."""
    torch.set_num_threads(1)
    multiprocessing.resource_tracker.ensure_running()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # kills do not depend on the disk
    with tempfile.TemporaryDirectory(prefix="fmlib-faults-", dir=memory) as folder:
        call("store", "list", "--store", folder)  # imports what the forked commands need
        campaign = Campaign(Path(folder), seed, most_kills, damages)
        return [_row(kind, campaign) for kind in KINDS]


def _row(kind: Callable[[Campaign], Iterator[Fault]], campaign: Campaign) -> dict[str, object]:
    begin, tried, survived = time.monotonic(), 0, 0
    for fault in kind(campaign):
        tried += 1
        try:
            expect(campaign.hits(fault), "the fault never hits")
            survived += 1
        except Exception as error:  # a fault that is not survived is counted, whatever it is
            print(f"  NOT SURVIVED: {type(error).__name__}: {str(error)[:600]}", flush=True)
    name = str(kind.__doc__)
    print(f"{name}: {survived} of {tried} survived ({time.monotonic() - begin:.1f} s)", flush=True)
    return {"kind": name, "tried": tried, "survived": survived}


def table(rows: list[dict[str, object]]) -> str:
    """The table of the page."""
    lines = ["| fault | tried | survived |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row['kind']} | {row['tried']:,} | {row['survived']:,} |" for row in rows)])


def with_table(text: str, rows: list[dict[str, object]]) -> str:
    """The page with its table renewed."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.split(END)[1]}"


def main(words: list[str] | None = None) -> int:
    """Conduct the campaign; the exit code is 1 if a fault was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="of each kind, at most (default: 20)")
    parser.add_argument("--damages", type=int, default=200, help="of all kinds together (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", action="store_true", help="write faults.json and the table of the page")
    options = parser.parse_args(words)
    rows = conduct(options.seed, options.kills, options.damages)
    if options.publish:
        record = {"date": date.today().isoformat(), "device": f"{platform.machine()}, {platform.system()}"}
        path = ROOT / "data" / "results" / "bench" / "faults.json"
        write_bytes(path, signed_json(record | {"seed": options.seed, "rows": rows}).encode())
        write_bytes(PAGE, with_table(PAGE.read_text(), rows).encode())
    return int(any(row["tried"] != row["survived"] for row in rows))
