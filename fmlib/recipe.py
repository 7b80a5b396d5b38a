"""What a recipe is: a named piece of the book, its jobs, and the files it publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fmlib.lab import Lab
from fmlib.store import Job, Store, with_needs


@dataclass(frozen=True)
class Recipe:
    """A named piece of the book: its jobs, and the files it publishes from their artifacts."""

    name: str
    about: str
    jobs: Callable[[Lab], list[Job]]
    export: Callable[[Lab, Store], dict[str, bytes]]

    def tree(self, lab: Lab) -> list[Job]:
        """Every job of the recipe and all they need, needs first, each once."""
        return with_needs(self.jobs(lab))


def csv(rows: list[dict[str, Any]]) -> bytes:
    """Rows of a table as CSV, six significant digits."""
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g").encode()
