"""Networks in a tenth of their bytes: what training added to large linear layers, as products of thin matrices.

Most weights of VGG11 are in two linear layers. They begin as random draws, which a seed repeats, and training adds a
matrix whose singular values fall quickly: with its best approximation of rank 512, logits change about twice as much
as arithmetic in bfloat16 changes them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fmlib.core.config import NetworkSpec
from fmlib.core.errors import require
from fmlib.core.models import build

#: Linear layers with at least so many weights are stored as products.
LARGE = 1_000_000

#: The first initial weights of a layer, stored to see whether they are drawn again as they were.
SHOWN = 16


def compressed(weights: dict[str, Tensor], network: NetworkSpec, seed: int, rank: int) -> dict[str, Tensor]:
    """The weights of a trained network in few bytes, from which `expanded` makes nearly the same network.

    For a large linear layer W (m, n) there are int8 factors, `<name>.left` (m, rank), `<name>.right` (rank, n) and
    `<name>.exponent` (rank,), with W = W_0 + left diag(2 ** exponent) right; `<name>.initial` are the first entries of
    W_0, the initial weights. Other tensors of two or more axes are float16, and "initial_seed" is the seed.

    Args:
        weights: the state dictionary of `build(network, seed)` after training.
        rank: of the product; less if the matrix has no more rows or columns.
    """
    initial = build(network, seed).state_dict()
    stored = {"initial_seed": torch.tensor(seed)}
    for name, weight in weights.items():
        if weight.ndim == 2 and weight.numel() >= LARGE:
            stored[f"{name}.initial"] = initial[name].flatten()[:SHOWN].clone()
            parts = _factors(weight.cpu() - initial[name], rank)
            stored |= {f"{name}.{part}": values for part, values in parts.items()}
        else:
            stored[name] = weight.half() if weight.ndim > 1 else weight
    return stored


def expanded(stored: dict[str, Tensor], network: NetworkSpec) -> dict[str, Tensor]:
    """The state dictionary that `compressed` stored; one that was not compressed is returned as it is.

    The products are sums of integers times powers of two, which float64 holds: they are the same on every machine.

    Raises:
        FmlibError: the initial weights are drawn in another way than where the network was trained.
    """
    if "initial_seed" not in stored:
        return stored
    weights = build(network, int(stored["initial_seed"])).state_dict()
    for name, initial in weights.items():
        if name in stored:
            weights[name] = stored[name].to(initial.dtype)
            continue
        same = torch.allclose(stored[f"{name}.initial"], initial.flatten()[:SHOWN], rtol=1e-4)
        require(same, "this torch draws other initial weights than the one that trained the network: train it again")
        left = stored[f"{name}.left"].double() * 2.0 ** stored[f"{name}.exponent"].double()
        weights[name] = initial + (left @ stored[f"{name}.right"].double()).float()
    return weights


def difference(model: nn.Module, other: nn.Module, pixels: Tensor) -> dict[str, float]:
    """How far the logits of two networks differ on pixels (B, C, H, W).

    Returns:
        "images": B; "changed": of how many the predicted class differs; "relative": the root mean square of the
        logits' differences, divided by the standard deviation of the first network's logits.
    """
    with torch.no_grad():
        ours, theirs = (torch.cat([each(part).float() for part in pixels.split(256)]) for each in (model, other))
    changed = (ours.argmax(1) != theirs.argmax(1)).sum()
    relative = (ours - theirs).square().mean().sqrt() / ours.std()
    return {"images": len(pixels), "changed": int(changed), "relative": float(relative)}


def _factors(update: Tensor, rank: int) -> dict[str, Tensor]:
    """The best approximation of a matrix (m, n), m <= n, by a product of this rank, its factors rounded to int8.

    The second factor is fitted to the first after rounding, by least squares.
    """
    _, vectors = torch.linalg.eigh(update @ update.T)
    left, first = _rounded(vectors[:, -rank:].T)
    basis = (left * 2.0 ** first[:, None]).T  # (m, rank)
    right, second = _rounded(torch.linalg.solve(basis.T @ basis, basis.T @ update))
    return {"left": left.T.to(torch.int8), "right": right.to(torch.int8), "exponent": (first + second).to(torch.int8)}


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as integers of at most 127 in size, times 2 ** exponent, one exponent for each row."""
    largest = rows.abs().amax(1).clamp(min=2.0**-40)
    exponent = torch.ceil(torch.log2(largest / 127))
    return torch.round(rows / 2.0 ** exponent[:, None]), exponent
