"""The ledger: every claim judged from one folder of results."""

from __future__ import annotations

from typing import Any

from fmlib import dataset_claims, image_claims
from fmlib.claim import Claim
from fmlib.results import Results

CLAIMS: list[Claim] = [*dataset_claims.CLAIMS, *image_claims.CLAIMS]


def ledger(results: Results) -> list[dict[str, Any]]:
    """Every claim's row, measured from `results` alone."""
    return [claim.judge(results) for claim in CLAIMS]
