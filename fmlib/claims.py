"""The ledger: every claim judged from one folder of results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fmlib import (
    adversarial_claims,
    architecture_claims,
    dataset_claims,
    heat_claims,
    image_claims,
    jacobian_claims,
    map_claims,
    separability_claims,
)
from fmlib.claim import Claim
from fmlib.results import Results

#: Beginning of a claim's id -> the figure or section of its chapter that shows it; the longest that fits counts.
ANCHORS = {
    "F1": "figure-1",
    "F1.square": "figure-intermodulation",
    "F1.series": "figure-series",
    "T1": "figure-accuracy",
    "T1.N.held_out_gap": "is-the-mask-stable",
    "N.robust": "figure-accuracy",
    "A.robust": "figure-accuracy",
    "F3": "figure-masks",
    "F4": "figure-energies",
    "F4.sinc": "figure-translation",
    "S": "figure-stability",
    "P": "figure-planted",
    "V": "another-architecture",
    "V.S": "figure-own-energies",
    "V.N1": "figure-own-energies",
    "F5": "figure-filtered",
    "F5.nonzero_share": "figure-image-masks",
    "F5.converged": "figure-fits",
    "S.seed_correlation": "figure-agreement",
    "S.own_image": "figure-agreement",
    "C": "figure-necessity",
    "C.adaptive": "an-attack-that-knows-the-mask",
    "F6": "figure-pairs",
    "T2": "table-2",
    "T2.attack": "what-the-attack-touches",
    "F7": "figure-exceeds",
    "S.attack_structure": "figure-attacks",
    "T3": "figure-splits",
    "T3.few": "at-the-paper-s-own-scale",
    "F8": "figure-maps",
    "H": "figure-heat",
    "J.jacobian": "figure-jacobians",
    "J.statistic": "figure-jacobians",
    "J.accuracy": "what-a-bias-costs",
    "J.corruption": "figure-gains",
    "J.order": "figure-gains",
    "J.bands": "figure-gains",
    "J.attack": "attacks",
    "J.masking": "attacks",
    "J.bridge": "figure-bridge",
    "B": "figure-frequency-maps",
    "B.high": "figure-attacked-frequencies",
    "B.similar": "figure-similarity",
    "B.exchanged": "whose-are-the-frequencies",
    "B.class": "figure-crossed",
}


def _placed(claim: Claim) -> Claim:
    fitting = [beginning for beginning in ANCHORS if claim.id.startswith(beginning)]
    return replace(claim, anchor=ANCHORS[max(fitting, key=len)])


PARTS = (
    dataset_claims,
    architecture_claims,
    image_claims,
    adversarial_claims,
    separability_claims,
    heat_claims,
    map_claims,
    jacobian_claims,
)
USUAL = [claim for part in PARTS for claim in part.CLAIMS]
CLAIMS: list[Claim] = [_placed(claim) for claim in (*USUAL, *architecture_claims.MORE)]

#: Recipes that are published apart from the others -> the claims that their files suffice for.
APART = {
    "without-gpu": (
        *("T1.N.standard", "T1.N.masked", "T1.N.gap", "N.robust"),
        *("F5.nonzero_share", "F5.converged_kept", "F5.converged", "F5.likeness"),
        *("F5.unrecognisable", "F5.complement_recognisable"),
        *("V.accuracy", "V.N.gap", "V.A.gap", "V.A.robust", "V.correlation", "V.low_shift"),
        *("C.own_vs_random", "C.necessity", "C.radius"),
        *("T2.x", "T2.adversarial", "T2.masked", "T2.masked_adversarial", "T2.masked_adversarial.binarised"),
        *("T2.complement", "T2.attack_outside", "T2.attack_enrichment"),
        *("T3.few", "T3.few.p_value"),
    ),
    "without-gpu-more": tuple(claim.id for claim in architecture_claims.MORE),
}


def ledger(results: Results) -> list[dict[str, Any]]:
    """Every usual claim's row, measured from `results` alone; of recipes published apart, of the claims in `APART`."""
    apart = [identity for recipe in results.manifest["recipes"] for identity in APART.get(recipe, ())]
    chosen = apart or [claim.id for claim in USUAL]
    return [claim.judge(results) for claim in CLAIMS if claim.id in chosen]
