"""Scripts that tests run in processes of their own, which start at once where processes can be forked."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from fmlib.pipeline import processes


def run(source: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python source as a script with some words; ten minutes at most."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "script.py").write_text(source)
        process = processes.context().Process(target=_main, args=(place, words))
        process.start()
        process.join(600)
        process.kill()
        process.join()
        said = [(place / name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess(words, process.exitcode, *said)


def _main(place: Path, words: tuple[str, ...]) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["script", *words]
    runpy.run_path(str(place / "script.py"), run_name="__main__")
