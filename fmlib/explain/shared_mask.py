"""One mask for many images by sequential convex steps: dataset and class masks in tens of passes per image.

A shared mask M minimises J(M) = mean_i g(d_i(M)) + penalty * a(M), as in `core.masks`. A step takes the next images in
a random order. For each of them one pass gives d_i and its gradient q_i at the present mask, and with them the linear
model d_i(M') = d_i(M) + q_i . (M' - M), which is kept until the image comes again. The next mask minimises J with all
these models in the place of the network, within the reach of the step: a convex problem, which L-BFGS-B (Byrd et al.,
1995) solves approximately. As in `core.minimal_masks`, the reach of an entry falls with the amplitude of the images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from fmlib.core.checks import check_classifier
from fmlib.core.config import MinimalMaskSpec
from fmlib.core.device import frozen, full_precision, generator, keep_freed_memory
from fmlib.core.errors import require
from fmlib.core.masks import Masks, clipped_exp_square
from fmlib.core.minimal_masks import EXPONENT, FACTORS
from fmlib.core.spectra import column_weights, filter_spectrum

#: The reach of the first step, for an entry of mean amplitude, and its share that is left in the last one.
RADIUS, DECAY = 0.1, 0.1
#: Images per step.
BATCH = 256
#: Iterations of L-BFGS-B in each step.
ITERATIONS = 50
#: A mask has converged if its L1 share changed by at most this part in the last step.
SETTLED = 0.02


def shared_masks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    spec: MinimalMaskSpec,
    *,
    seed: int = 0,
    centre: float | Tensor = 0.0,
    iterations: int = ITERATIONS,
    batch_size: int = 64,
    progress: bool = True,
) -> Masks:
    """Learn K masks, mask `index[i]` from image i, by the method of the module's docstring, one after the other.

    The linear models of a mask's images take H * (W // 2 + 1) * 4 bytes of memory per image.

    Args:
        model: a classifier that maps pixels (B, C, H, W) to logits (B, classes); left as it was.
        images: pixels in [0, 1], (N, C, H, W).
        labels: targets (N,).
        index: (N,), the mask of each image, from 0 to K - 1; every mask needs at least one image.
        spec: penalty, steps, radius and clip.
        seed: of the order of the images.
        centre: gray level about which the filter acts, see `spectra.apply_mask`.
        iterations: of L-BFGS-B in each step.
        batch_size: images that go through the network together.
        progress: whether to show a progress bar, in steps.

    Returns:
        The masks with the history of their L1 share.

    Raises:
        FmlibError: the inputs do not fit together, or a loss is not finite.
    """
    require(not spec.per_channel, "shared masks have no channels")
    check_classifier(model, images, labels)
    keep_freed_memory()
    found, shares, count = [], [], int(index.max()) + 1
    with tqdm(total=count * spec.steps, desc="shared masks", unit="step", disable=not progress) as bar:
        for number in range(count):
            members = index == number
            require(bool(members.any()), "every mask needs at least one image: number the masks 0..K-1 without gaps")
            with frozen(model), full_precision(), torch.enable_grad():
                problem = _Problem(model, images[members], labels[members], centre, spec, batch_size)
                half, share = _solve(problem, generator(seed, f"order of shared mask {number}"), iterations, bar)
            found.append(half)
            shares.append(share)
    history = torch.stack(shares, 1)  # (steps, K)
    last = history[-2:] if spec.steps > 1 else history.expand(2, -1)
    settled = (last[1] - last[0]).abs() <= SETTLED * last[0]
    steps = torch.full((count,), spec.steps)
    return Masks(torch.stack(found).to(images.device), images.shape[-1], settled, steps, {"l1_share": history})


class _Problem:
    """The images of one mask, and the pass that gives their linear models."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        centre: float | Tensor,
        spec: MinimalMaskSpec,
        batch_size: int,
    ) -> None:
        self.model, self.labels, self.centre, self.spec = model, labels, centre, spec
        self.size, self.images, self.batch_size = images.shape[-2:], images, batch_size
        columns = column_weights(self.size[1], torch.device("cpu")) / math.prod(self.size)
        self.weights = columns.expand(self.size[0], -1).flatten().float()  # (F,)
        amplitude = sum(torch.fft.rfft2(part - centre).abs().square().sum((0, 1)) for part in images.split(batch_size))
        amplitude = torch.as_tensor(amplitude).sqrt().flatten().cpu()
        tiny = torch.finfo(amplitude.dtype).tiny
        self.factors = (amplitude.mean() / amplitude.clamp_min(tiny)).pow(EXPONENT).clamp(*FACTORS).float()
        with torch.no_grad():
            parts = torch.arange(len(images), device=images.device).split(batch_size)
            self.reference = torch.cat([self._losses(part, images[part]) for part in parts])

    def _losses(self, chosen: Tensor, pixels: Tensor) -> Tensor:
        logits = self.model(pixels.contiguous(memory_format=torch.channels_last)).to(pixels.dtype)
        return cross_entropy(logits, self.labels[chosen], reduction="none")

    def linear_models(self, chosen: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Of the chosen images (B,), under a mask (F,): offsets d_i - q_i . M, (B,), and gradients q_i, (B, F)."""
        changes, slopes = [], []
        for part in chosen.to(self.images.device).split(self.batch_size):
            spectrum = torch.fft.rfft2(self.images[part] - self.centre)
            leaf = mask.to(self.images).expand(len(part), -1).clone().requires_grad_()
            filtered = filter_spectrum(spectrum, leaf.unflatten(1, (self.size[0], -1)), self.size)
            change = self._losses(part, self.centre + filtered) - self.reference[part]
            slopes.append(torch.autograd.grad(change.sum(), leaf)[0].float().cpu())
            changes.append(change.detach().float().cpu())
        slope = torch.cat(slopes)
        return torch.cat(changes) - slope @ mask, slope


def _solve(problem: _Problem, rng: torch.Generator, iterations: int, bar: tqdm) -> tuple[Tensor, Tensor]:
    """The mask (H, W // 2 + 1) and its L1 share after each step, (steps,), on the CPU."""
    count, steps = len(problem.images), problem.spec.steps
    slopes, offsets = torch.zeros(count, len(problem.weights)), torch.zeros(count)
    seen, order = torch.zeros(count, dtype=torch.bool), torch.empty(0, dtype=torch.long)
    mask, shares = torch.ones_like(problem.weights), []
    for step in range(steps):
        while len(order) < min(BATCH, count):
            order = torch.cat((order, torch.randperm(count, generator=rng)))
        chosen, order = order[:BATCH].unique(), order[BATCH:]
        offsets[chosen], slopes[chosen] = problem.linear_models(chosen, mask)
        seen[chosen] = True
        require(bool(torch.isfinite(slopes[chosen]).all()), "the loss of an image is not finite: inspect the model")
        reach = problem.spec.radius * DECAY ** (step / max(steps - 1, 1)) * problem.factors
        mask = next_mask(slopes[seen], offsets[seen], mask, reach, problem.weights, problem.spec, iterations)
        shares.append(problem.weights @ mask)
        bar.update()
    return mask.unflatten(0, (problem.size[0], -1)), torch.stack(shares)


def next_mask(
    slopes: Tensor,
    offsets: Tensor,
    mask: Tensor,
    reach: Tensor,
    weights: Tensor,
    spec: MinimalMaskSpec,
    iterations: int = ITERATIONS,
) -> Tensor:
    """The mask within reach with the lowest objective if d_i = offset_i + slope_i . M.

    Args:
        slopes, offsets: (N, F) and (N,).
        mask, reach, weights: (F,): M, the largest change of each entry, and its weight in the L1 share.
        spec: penalty and clip.
        iterations: of L-BFGS-B.
    """

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        leaf = torch.from_numpy(point).float().requires_grad_()
        cost = clipped_exp_square(offsets + slopes @ leaf, spec.clip).mean() + spec.penalty * (weights @ leaf)
        (grad,) = torch.autograd.grad(cost, leaf)
        return float(cost.detach()), grad.double().numpy()

    bounds = torch.stack(((mask - reach).clamp_min(0), (mask + reach).clamp_max(1)), 1).numpy()
    options: dict[str, Any] = {"maxiter": iterations, "gtol": 0, "ftol": 0}  # ends after its iterations, not before
    found = minimize(objective, mask.double().numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return torch.from_numpy(found.x).float()
