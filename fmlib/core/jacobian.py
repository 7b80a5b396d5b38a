"""Gradients of the loss by the input: their spectra, and the statistics by which training bends them.

G is the gradient of each image's own cross-entropy by its pixels, (B, C, H, W); F is the mean over images and
channels of |rfft2(G)|, a half plane (H, W // 2 + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmlib.core.device import frozen
from fmlib.core.spectra import column_weights, full_plane, low_share, mean_amplitude, radius

#: What Chan et al. add to the spectrum, and to its powers.
FLOOR = 1e-5


class JacobianSpectrum(NamedTuple):
    """A network's Jacobian by frequency."""

    amplitude: Tensor  # (H, W // 2 + 1): F
    shares: Tensor  # (rings,): mean of the images' `radial_shares`
    low_share: float  # of the energy of F, at radii below a third of the corner's
    statistic: float  # S of F: see `jafr_statistic`


def input_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """G: gradients of each image's cross-entropy by its pixels, same shape as `images` (B, C, H, W).

    labels: (B,). In eval mode and full precision; the model is left as it was.
    """
    with frozen(model), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        loss = cross_entropy(model(pixels), labels, reduction="sum")
        return torch.autograd.grad(loss, pixels)[0]


def jacobian_spectrum(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> JacobianSpectrum:
    """The mean spectrum of a network's input gradients over batches of pixels (B, C, H, W) and labels (B,)."""
    amplitudes, shares, width = [], [], 0
    for images, labels in batches:
        gradients, width = input_gradients(model, images, labels), images.shape[-1]
        amplitudes.append(mean_amplitude(gradients) * len(images))
        shares.append(radial_shares(gradients))
    amplitude = torch.stack(amplitudes).sum(0) / sum(map(len, shares))
    share = float(low_share(full_plane(amplitude, width)))
    return JacobianSpectrum(amplitude, torch.cat(shares).mean(0), share, float(jafr_statistic(amplitude)))


def jafr_statistic(spectrum: Tensor) -> Tensor:
    """S = log(sum_i prod_j F_ij^p_j + sum_j prod_i F_ij^p_i): large for low-frequency spectra, small for high ones.

    spectrum: (..., H, W // 2 + 1), at least 0 -> (...). F is its quadrant of rows 0..H/2 plus 1e-5, DC included; the
    powers p fall evenly from 1 at DC to -1 at Nyquist, plus 1e-5. Products are sums of logarithms here, which cannot
    overflow. For a square of side N with n = N/2 + 1 the powers of a row sum to n 1e-5. So a flat spectrum c gives
    S = log(2n) + n 1e-5 log(c + 1e-5), which is log(2n) exactly if c + 1e-5 = 1 and otherwise off by parts in a
    thousand; and a spectrum scaled by c gains n 1e-5 log c, as long as it lies far above 1e-5.
    S compares frequencies within a row and within a column only: a sharp band, with empty bins beside full ones,
    scores high wherever it lies.
    Source: Chan et al. (2022), whose G is that of the batch's mean loss, smaller by the factor B.
    """
    logs = (spectrum[..., : spectrum.shape[-2] // 2 + 1, :] + FLOOR).log()
    rows, columns = (torch.linspace(1, -1, size, dtype=torch.float64).to(logs) + FLOOR for size in logs.shape[-2:])
    return torch.cat((logs @ columns, rows @ logs), -1).logsumexp(-1)


def radial_shares(gradients: Tensor) -> Tensor:
    """Share of each image's power at radius r = 1, 2, ... cycles an image, rounded: (B, C, H, W) -> (B, rings).

    Power is |FFT(G)|^2 over the full plane, added over channels, without DC; a row sums to 1, or is 0 without power.
    Source: Krishnamachari et al. (2022), the Fourier sensitivity, there of the channels' mean.
    """
    height, width = gradients.shape[-2:]
    power = torch.fft.rfft2(gradients).abs().square().sum(1) * column_weights(width, gradients.device)
    ring = radius(height, width)[:, : width // 2 + 1].round().long().flatten()
    member = torch.nn.functional.one_hot(ring)[:, 1:].to(power)  # (H * Wh, rings)
    totals = power.flatten(1) @ member
    return totals / totals.sum(1, keepdim=True).clamp_min(1e-30)


def power_share(gradients: Tensor, low: float = 0, high: float = 1) -> Tensor:
    """Mean share of the images' power at low N <= r < high N, N being the width: see `radial_shares`."""
    shares, width = radial_shares(gradients), gradients.shape[-1]
    ring = torch.arange(1, shares.shape[1] + 1, device=shares.device)
    return shares[:, (ring >= low * width) & (ring < high * width)].sum(1).mean()


def squared_norm(gradients: Tensor) -> Tensor:
    """Mean over the images of the sum of squared entries: (B, C, H, W) -> ().

    It knows no frequency: the control for what a small Jacobian does, wherever it lies.
    Source: Drucker and LeCun (1992), double backpropagation.
    """
    return gradients.square().sum((1, 2, 3)).mean()


#: Statistic -> what is added to the loss, times the weight, for gradients G (B, C, H, W). The published weights are
#: .001 to .002 for JaFR, either sign, and .5 for the two of Fourier-sensitivity regularisation.
PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "jafr": lambda gradients: -jafr_statistic(mean_amplitude(gradients)),
    "sensitivity-low": lambda gradients: power_share(gradients, low=1 / 6),
    "sensitivity-high": lambda gradients: power_share(gradients, high=1 / 3),
    "jacobian_norm": squared_norm,
}
