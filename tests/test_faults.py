"""A small campaign of faults, and the committed one: the numbers on the page are those of its file."""

from __future__ import annotations

import sys

import pytest
import scripts

from ci import faults, memory
from fmlib.pipeline.results import benchmark

CAMPAIGN = """
import sys
sys.path.insert(0, sys.argv[1])
from ci import faults
if __name__ == "__main__":
    sys.exit(faults.main(["--kills", "1", "--damages", "10"]))
"""


@pytest.mark.skipif(not faults.LINUX, reason="the campaign forks its commands")
def test_a_small_campaign_is_survived():
    done = scripts.run(CAMPAIGN, str(faults.ROOT))
    assert "NOT SURVIVED" not in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{kind.__doc__}:" in done.stdout for kind in faults.KINDS)


def test_the_committed_campaign_was_survived():
    rows = benchmark("faults")["rows"]
    assert {row["kind"] for row in rows} == {kind.__doc__ for kind in faults.KINDS}
    assert all(row["survived"] == row["tried"] > 0 for row in rows)
    kills = [row["tried"] for row in rows if row["kind"].startswith("SIGKILL")]
    damages = [row["tried"] for row in rows if row["kind"].startswith("a damaged")]
    assert sum(kills) >= 100
    assert sum(damages) >= 1000


def test_the_numbers_on_the_page_are_those_of_the_campaign():
    text = faults.PAGE.read_text()
    assert faults.with_table(text, benchmark("faults")["rows"]) == text, "run 'python -m ci.faults --publish'"


# ---------------------------------------------------------------------------------------------------------- memory

#: Holds 200 MiB until the file that the first word names is there.
HOLDS = """
import sys, time
from pathlib import Path
held = bytearray(200 * 2**20)
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)
"""


@pytest.mark.skipif(not faults.LINUX, reason="other systems do not tell what processes share")
def test_memory_of_a_command_is_that_of_its_processes(tmp_path, monkeypatch):
    held, seen = memory.held, tmp_path / "seen"

    def watched(process):
        found = held(process)
        if found > 200:
            seen.touch()
        return found

    monkeypatch.setattr(memory, "held", watched)
    monkeypatch.setattr(memory, "INTERVAL", 0.05)
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS!r}, {str(seen)!r}])"
    assert 200 < max(memory.sampled([sys.executable, "-c", parent])) < 300


def test_quarters_of_a_run():
    assert memory.quarters([1.0, 5.0, 2.0, 3.0, 7.0, 1.0, 4.0, 2.0]) == [5.0, 3.0, 7.0, 4.0]


def test_the_committed_memory_is_flat_and_on_the_page():
    measured = benchmark("memory")
    assert all(row["quarters"][3] <= 1.1 * max(row["quarters"][:3]) for row in measured["rows"])
    text = memory.PAGE.read_text()
    assert memory.with_sentence(text, measured) == text, "run 'python ci/memory.py'"
