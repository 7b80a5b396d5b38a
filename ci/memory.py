"""The memory of `fmlib run all`: how much it takes, and whether it grows.

    python ci/memory.py

runs profile quick three times with two workers in new stores, adds up once every second what all processes of a run
hold, and writes `data/results/bench/memory.json` and the numbers of `book/trust.md`. It takes minutes, on Linux.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

from fmlib.pipeline.disk.files import signed_json, write_bytes

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "book" / "trust.md"
BEGIN, END = "<!-- memory -->", "<!-- /memory -->"
INTERVAL = 1.0  # seconds between two samples
COMMAND = ("run", "all", "--profile", "quick", "--workers", "2", "--device", "cpu", "--quiet")


def held(process: psutil.Process) -> float:
    """MiB that a process and those it has started hold; pages that several of them share count once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it has ended, or is ending
            continue
    return total / 2**20


def sampled(command: list[str]) -> list[float]:
    """What the processes of a command hold, MiB, once every `INTERVAL` seconds."""
    samples = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as started:
        process = psutil.Process(started.pid)
        while started.poll() is None:
            samples.append(held(process))
            time.sleep(INTERVAL)
    if started.returncode:
        raise SystemExit(f"{' '.join(command)} ends with {started.returncode}")
    return samples


def quarters(samples: list[float]) -> list[float]:
    """The highest sample of each quarter of a run."""
    edges = [index * len(samples) // 4 for index in range(5)]
    return [max(samples[first:last], default=0.0) for first, last in pairwise(edges)]


def sentence(measured: dict) -> str:
    """The numbers of the page."""
    quarters = np.array([row["quarters"] for row in measured["rows"]]) / 1024
    held = ", ".join(f"{mean:.2f}" for mean in quarters.mean(0))
    growth = 100 * (quarters[:, 3] / quarters[:, 2] - 1)
    return (
        f"`fmlib {' '.join(measured['command'])}` was measured once every second on "
        f"{date.fromisoformat(measured['date']):%-d %B %Y}. All processes together held at most {held} GiB in the four "
        f"quarters of a run (means over {len(quarters)} runs), and in the last quarter {growth.min():.0f} to "
        f"{growth.max():.0f}% more than in the third."
    )


def with_sentence(text: str, measured: dict) -> str:
    """The page with its numbers renewed."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{sentence(measured)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Measure, and publish."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="number of runs (default: 3)")
    rows, repeats = [], parser.parse_args().repeats
    if repeats < 1:
        parser.error(f"--repeats must be at least 1, not {repeats}")
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory(prefix="fmlib-memory-") as store:
            fmlib = str(Path(sys.executable).with_name("fmlib"))
            samples = sampled([fmlib, *COMMAND, "--store", store])
        rows.append({"samples": len(samples), "quarters": quarters(samples)})
        print(f"run {repeat + 1}: {rows[-1]}", flush=True)
    measured = {"date": date.today().isoformat(), "device": f"{platform.machine()}, {platform.system()}"}
    measured |= {"command": list(COMMAND), "rows": rows}
    write_bytes(ROOT / "data" / "results" / "bench" / "memory.json", signed_json(measured).encode())
    write_bytes(PAGE, with_sentence(PAGE.read_text(), measured).encode())


if __name__ == "__main__":
    main()
