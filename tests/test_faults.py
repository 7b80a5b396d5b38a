"""A small campaign of faults, and the committed one: the numbers on the page are those of its file."""

from __future__ import annotations

import pytest
import scripts

from ci import faults
from fmlib.pipeline.results import FAULTS, benchmark

CAMPAIGN = """
import sys
sys.path.insert(0, sys.argv[1])
from ci import faults
sys.exit(faults.main(["--kills", "1", "--damages", "10"]))
"""


@pytest.mark.skipif(not faults.LINUX, reason="the campaign forks its commands")
def test_a_small_campaign_is_survived():
    done = scripts.run(CAMPAIGN, str(faults.ROOT))
    assert "NOT SURVIVED" not in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{kind.__doc__}:" in done.stdout for kind in faults.KINDS)


def test_the_committed_campaign_was_survived():
    rows = benchmark(FAULTS)["rows"]
    assert {row["kind"] for row in rows} == {kind.__doc__ for kind in faults.KINDS}
    assert all(row["survived"] == row["tried"] > 0 for row in rows)
    kills = [row["tried"] for row in rows if row["kind"].startswith("SIGKILL")]
    damages = [row["tried"] for row in rows if row["kind"].startswith("a damaged")]
    assert sum(kills) >= 100
    assert sum(damages) >= 1000


def test_the_numbers_on_the_page_are_those_of_the_campaign():
    text = faults.PAGE.read_text()
    assert faults.with_table(text, benchmark(FAULTS)["rows"]) == text, "run 'python ci/faults.py --publish'"
