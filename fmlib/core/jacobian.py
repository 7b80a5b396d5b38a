"""Input gradients of the loss: their spectra, and the statistics that Jacobian regularisation penalises.

G is the gradient of each image's own cross-entropy with respect to its pixels, (B, C, H, W). F is the mean over images
and channels of |rfft2(G)|, a half plane (H, W // 2 + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fmlib.core.checks import check_classifier
from fmlib.core.device import frozen
from fmlib.core.spectra import column_weights, full_plane, low_share, mean_amplitude, radius

#: The constant that Chan et al. add to the spectrum and to its exponents.
FLOOR = 1e-5


class JacobianSpectrum(NamedTuple):
    """The spectrum of a network's input gradients."""

    amplitude: Tensor  # (H, W // 2 + 1), F
    shares: Tensor  # (rings,), mean over the images of `radial_shares`
    low_share: float  # share of the energy of F at radii below a third of the corner radius
    statistic: float  # S of F, see `jafr_statistic`


def input_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """G, the gradients of each image's cross-entropy with respect to its pixels, in eval mode and full precision.

    Args:
        model: a classifier that returns logits (B, classes). It is left as it was.
        images: pixels (B, C, H, W).
        labels: (B,).

    Returns:
        The gradients, (B, C, H, W), detached.
    """
    with frozen(model), torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        loss = cross_entropy(model(pixels), labels, reduction="sum")
        return torch.autograd.grad(loss, pixels)[0]


def jacobian_spectrum(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> JacobianSpectrum:
    """The spectrum of a network's input gradients, averaged over all images.

    Args:
        model: a classifier that returns logits (B, classes). It is left as it was.
        batches: pixels (B, C, H, W) and labels (B,), as `Split.batches` gives them.

    Raises:
        FmlibError: the model does not fit the images.

    Example:
        >>> fmlib.jacobian_spectrum(network, data.validation.batches(8)).amplitude.shape
        torch.Size([16, 9])
    """
    amplitudes: list[Tensor] = []
    shares: list[Tensor] = []
    width = 0
    for images, labels in batches:
        if not shares:
            check_classifier(model, images, labels)
        gradients, width = input_gradients(model, images, labels), images.shape[-1]
        amplitudes.append(mean_amplitude(gradients) * len(images))
        shares.append(radial_shares(gradients))
    amplitude = torch.stack(amplitudes).sum(0) / sum(map(len, shares))
    share = float(low_share(full_plane(amplitude, width)))
    return JacobianSpectrum(amplitude, torch.cat(shares).mean(0), share, float(jafr_statistic(amplitude)))


def jafr_statistic(spectrum: Tensor) -> Tensor:
    """S = log(sum_i prod_j F_ij^p_j + sum_j prod_i F_ij^p_i): large for low-frequency spectra, small for high ones.

    F is the quadrant of rows 0..H/2 of the spectrum plus 1e-5, DC included. The exponents p fall evenly from 1 at DC to
    -1 at Nyquist, plus 1e-5. Products are computed as sums of logarithms, which cannot overflow.

    For a square of side N with n = N/2 + 1, the exponents of a row sum to n 1e-5. A flat spectrum of level c therefore
    gives S = log(2n) + n 1e-5 log(c + 1e-5), which differs from log(2n) by parts in a thousand. Scaling a spectrum far
    above 1e-5 by c adds n 1e-5 log c. S compares frequencies within a row and within a column only: a sharp band, with
    empty bins beside full ones, has a large S wherever it lies.

    Source: Chan et al. (2022). Their G is the gradient of the batch's mean loss, smaller by the factor B.

    Args:
        spectrum: amplitudes (..., H, W // 2 + 1), at least 0.

    Returns:
        S of each spectrum, (...).
    """
    logs = (spectrum[..., : spectrum.shape[-2] // 2 + 1, :] + FLOOR).log()
    rows, columns = (torch.linspace(1, -1, size, dtype=torch.float64).to(logs) + FLOOR for size in logs.shape[-2:])
    return torch.cat((logs @ columns, rows @ logs), -1).logsumexp(-1)


def radial_shares(gradients: Tensor) -> Tensor:
    """Share of each image's power at radius 1, 2, ... cycles per image, rounded.

    Power is |FFT(G)|^2 over the full plane, summed over channels, without DC. Source: the Fourier sensitivity of
    Krishnamachari et al. (2022), who take the mean of the channels.

    Args:
        gradients: (B, C, H, W).

    Returns:
        (B, rings); the shares of an image sum to 1, or are all 0 if it has no power.
    """
    height, width = gradients.shape[-2:]
    power = torch.fft.rfft2(gradients).abs().square().sum(1) * column_weights(width, gradients.device)
    ring = radius(height, width)[:, : width // 2 + 1].round().long().flatten()
    member = torch.nn.functional.one_hot(ring)[:, 1:].to(power)  # (H * Wh, rings)
    totals = power.flatten(1) @ member
    return totals / totals.sum(1, keepdim=True).clamp_min(1e-30)


def power_share(gradients: Tensor, low: float = 0, high: float = 1) -> Tensor:
    """Mean over images of the share of power at radii from `low` to below `high`, in units of the width.

    gradients: (B, C, H, W) -> (). See `radial_shares`.
    """
    shares, width = radial_shares(gradients), gradients.shape[-1]
    ring = torch.arange(1, shares.shape[1] + 1, device=shares.device)
    return shares[:, (ring >= low * width) & (ring < high * width)].sum(1).mean()


def squared_norm(gradients: Tensor) -> Tensor:
    """Mean over images of the squared l2 norm of the gradient: (B, C, H, W) -> ().

    It ignores frequency, and so controls for the effect of a small Jacobian as such. Source: double backpropagation,
    Drucker and LeCun (1992).
    """
    return gradients.square().sum((1, 2, 3)).mean()


#: Name -> the penalty of gradients G (B, C, H, W), which is multiplied by the weight and added to the loss. The
#: published weights are 0.001 to 0.002 for JaFR, of either sign, and 0.5 for both Fourier-sensitivity penalties.
PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {
    "jafr": lambda gradients: -jafr_statistic(mean_amplitude(gradients)),
    "sensitivity-low": lambda gradients: power_share(gradients, low=1 / 6),
    "sensitivity-high": lambda gradients: power_share(gradients, high=1 / 3),
    "jacobian_norm": squared_norm,
}
