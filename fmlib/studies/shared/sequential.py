"""Dataset masks by sequential convex steps, at the setting that suits images of 64 pixels."""

from __future__ import annotations

from torch import Tensor, nn

from fmlib.core.config import MaskSpec, MinimalMaskSpec
from fmlib.explain.shared_mask import RADIUS, shared_masks

#: Steps, and iterations of L-BFGS-B in each.
STEPS, ITERATIONS = 60, 10


def sequential_mask(
    model: nn.Module, images: Tensor, labels: Tensor, spec: MaskSpec, *, centre: float, seed: int, steps: int = STEPS
) -> Tensor:
    """One mask for all images, by `explain.shared_mask.shared_masks`: (H, W // 2 + 1).

    Args:
        images, labels: pixels (N, C, H, W) and targets (N,).
        spec: whose penalty and clip are used.
    """
    minimal = MinimalMaskSpec(penalty=spec.penalty, clip=spec.clip, steps=steps, radius=RADIUS)
    found = shared_masks(
        model, images, labels, labels * 0, minimal, seed=seed, centre=centre, iterations=ITERATIONS, progress=False
    )
    return found.half[0]
