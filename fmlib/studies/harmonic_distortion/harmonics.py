"""Harmonic distortion and intermodulation of pointwise non-linearities.

A function f of a unit sine is periodic, f(sin t) = a_0 + sum_k a_k cos kt + b_k sin kt, and the amplitude of harmonic k
is c_k = hypot(a_k, b_k); a sine alone has c_1 = 1. Each coefficient is computed twice: by the FFT of one evenly sampled
period, and from a closed form or a convergent series without quadrature. Arrays of coefficients have shape
(harmonics + 1, 2): row k holds (a_k, b_k). Source: Karantzas et al. (2022), section 2.1 and figure 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fmlib.core.device import generator
from fmlib.core.errors import require

Function = Callable[[Tensor], Tensor]

Row = dict[str, str | int | float | None]

CLIP = 0.3  # hardtanh is linear within +-CLIP, as in the paper's figure 1

SLOPE = 0.01  # of leaky_relu below 0, as in torch

POLES = (np.arange(1, 4001) - 0.5) * math.pi  # tanh has its poles at +-i times these (first 4000)

ACTIVATIONS: dict[str, Function] = {
    "identity": lambda x: x,
    "square": torch.square,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "relu": F.relu,
    "hardtanh": lambda x: x.clamp(-CLIP, CLIP),
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda x: F.leaky_relu(x, SLOPE),
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
}

INTERMODULATED = ("square", "relu", "tanh", "softplus", "hardtanh")  # the activations shown with two tones

PRODUCTS = {  # name -> (m, n): the frequency |m w1 + n w2|, up to third order
    "DC": (0, 0), "w1": (1, 0), "w2": (0, 1), "2w1": (2, 0), "2w2": (0, 2), "w1+w2": (1, 1), "w1-w2": (1, -1),
    "3w1": (3, 0), "3w2": (0, 3), "2w1+w2": (2, 1), "2w1-w2": (2, -1), "2w2+w1": (1, 2), "2w2-w1": (-1, 2),
}  # fmt: skip


def _period(samples: int) -> Tensor:
    """`samples` evenly spaced phases of one period, from 0 to just below 2 pi: (samples,), float64."""
    require(samples >= 4, f"a period needs at least 4 samples, not {samples}")
    return torch.arange(samples, dtype=torch.float64) * (2 * math.pi / samples)


def _measure(function: Function, signal: Tensor) -> np.ndarray:
    """Cosine and sine coefficients of `function(signal)` below Nyquist: (samples,) -> ((samples + 1) // 2, 2)."""
    output = function(signal)
    require(output.shape == signal.shape, "the function must act pointwise: its output has another shape")
    require(bool(torch.isfinite(output).all()), "the function is not finite on this input")
    spectrum = torch.fft.rfft(output).numpy()[: (len(signal) + 1) // 2] * (2 / len(signal))
    spectrum[0] /= 2  # DC is the mean
    return np.stack((spectrum.real, -spectrum.imag), -1)


def coefficients(function: Function, harmonics: int = 8, samples: int = 4096) -> np.ndarray:
    """(a_k, b_k) of `function(sin t)` for k = 0..harmonics, measured by FFT: (harmonics + 1, 2).

    Harmonics j * samples +- k alias onto k. The error is round-off if the function is analytic near [-1, 1]; with kinks
    it falls as 1 / samples^2, and at 4096 samples it is below 4e-7 for relu, leaky_relu and hardtanh.

    Args:
        function: pointwise, of a float64 tensor.
        harmonics: the highest one.
        samples: per period.

    Raises:
        FmlibError: unless 1 <= harmonics < samples / 2, or if the output has another shape or is not finite.
    """
    require(
        1 <= harmonics < samples / 2, f"{samples} samples allow 1 to {(samples - 1) // 2} harmonics, not {harmonics}"
    )
    return _measure(function, torch.sin(_period(samples)))[: harmonics + 1]


def amplitudes(function: Function, harmonics: int = 8, samples: int = 4096) -> np.ndarray:
    """c_k of `function(sin t)` for k = 0..harmonics, with c_0 = |mean|: (harmonics + 1,). See `coefficients`."""
    return np.hypot(*coefficients(function, harmonics, samples).T)


def _sparse(harmonics: int, **entries: float) -> np.ndarray:
    """Coefficients that are zero except the named ones, such as a0=0.5 or b1=1.0 (one digit)."""
    out = np.zeros((harmonics + 1, 2))
    for name, value in entries.items():
        out[int(name[1]) : int(name[1]) + 1, "ab".index(name[0])] = value  # nothing if beyond `harmonics`
    return out


def _relu(harmonics: int) -> np.ndarray:
    """Half-wave rectified sine: 1/pi + sin(t)/2 - (2/pi) sum_m cos(2mt) / (4 m^2 - 1)."""
    out, even = _sparse(harmonics, b1=0.5), np.arange(0, harmonics + 1, 2)
    out[even, 0] = -2 / math.pi / (even**2 - 1.0)
    out[0, 0] /= 2
    return out


def _hardtanh(harmonics: int) -> np.ndarray:
    """Sine clipped at sin(alpha) = CLIP: b_k = (2 / k pi) [sin((k-1) alpha)/(k-1) + sin((k+1) alpha)/(k+1)], k odd."""
    out, odd, alpha = _sparse(harmonics), np.arange(1, harmonics + 1, 2), math.asin(CLIP)
    ratio = [alpha * np.sinc(n * alpha / math.pi) for n in (odd - 1, odd + 1)]  # sin(n alpha) / n, alpha at n = 0
    out[odd, 1] = 2 / (odd * math.pi) * (ratio[0] + ratio[1])
    return out


def _tanh(gain: float, harmonics: int) -> np.ndarray:
    """tanh(gain sin t): b_k = sum_j (4/gain) exp(-k u_j) / cosh(u_j), k odd, sinh(u_j) = (j - 1/2) pi / gain.

    From tanh x = sum_j 2x / (x^2 + (j - 1/2)^2 pi^2), the logarithmic derivative of the product for cosh (DLMF
    4.36.2), and the Poisson kernel for each 1 / (sin^2 t + sinh^2 u). Leading terms of b_1, 2 gain / ((j - 1/2) pi)^2,
    sum to gain exactly and are treated separately; 4000 terms then leave an error below 1e-12.
    """
    out, odd, angle = _sparse(harmonics), np.arange(1, harmonics + 1, 2), np.arcsinh(POLES / gain)
    out[odd, 1] = (np.exp(-np.outer(odd, angle)) * (4 / gain / np.cosh(angle))).sum(1)
    out[1, 1] += gain - (2 * gain / POLES**2).sum()
    return out


def _silu(harmonics: int) -> np.ndarray:
    """x sigmoid(x) = x / 2 + x tanh(x / 2) / 2, by sin t sin kt = [cos (k-1)t - cos (k+1)t] / 2."""
    out, sine = _sparse(harmonics, b1=0.5), _tanh(0.5, harmonics + 1)[:, 1] / 4  # (harmonics + 2,)
    out[:, 0] = sine[1:] - np.append(0, sine[:-2])
    return out


def _softplus(harmonics: int) -> np.ndarray:
    """x / 2 + log(2 cosh(x / 2)), with log cosh(x / 2) = sum_j log(1 + x^2 / s_j^2), s_j = (2j - 1) pi (DLMF 4.36.2).

    With s_j = sinh(u_j) and q_j = exp(-2 u_j), term j is -2 log(1 - q_j) - 2 sum_m q_j^m cos(2mt) / m. Leading terms,
    1 / (2 s_j^2), sum to 1/16 exactly and are treated separately; 4000 terms then leave an error below 1e-13.
    """
    poles, even = 2 * POLES, np.arange(2, harmonics + 1, 2)
    q, lead = np.exp(-2 * np.arcsinh(poles)), 1 / 16 - (0.5 / poles**2).sum()
    out = _sparse(harmonics, a0=math.log(2) + lead - 2 * np.log1p(-q).sum(), b1=0.5, a2=-lead)
    out[even, 0] -= [4 / k * (q ** (k / 2)).sum() for k in even]
    return out


SERIES: dict[str, Callable[[int], np.ndarray]] = {  # gelu and elu: no closed form is given here
    "identity": lambda h: _sparse(h, b1=1.0),
    "square": lambda h: _sparse(h, a0=0.5, a2=-0.5),
    "softplus": _softplus,
    "tanh": lambda h: _tanh(1.0, h),
    "relu": _relu,
    "hardtanh": _hardtanh,
    "sigmoid": lambda h: _tanh(0.5, h) / 2 + _sparse(h, a0=0.5),  # (1 + tanh(x / 2)) / 2
    "leaky_relu": lambda h: _sparse(h, b1=SLOPE) + (1 - SLOPE) * _relu(h),
    "silu": _silu,
}


def series(name: str, harmonics: int = 8) -> np.ndarray | None:
    """Exact (a_k, b_k) of activation `name` on sin t, k = 0..harmonics: (harmonics + 1, 2); None for gelu and elu.

    Closed forms, or series summed to an error below 1e-12; no quadrature.

    Args:
        name: one of `ACTIVATIONS`.

    Raises:
        FmlibError: the name is unknown, or harmonics < 1.
    """
    require(name in ACTIVATIONS, f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    require(harmonics >= 1, f"harmonics must be at least one, not {harmonics}")
    return SERIES[name](harmonics) if name in SERIES else None


def products(first: int, second: int) -> dict[str, int]:
    """Name -> frequency |m w1 + n w2| of the 13 products up to third order of two tones (see `PRODUCTS`).

    Args:
        first, second: w1 and w2, in cycles per period.

    Raises:
        FmlibError: unless both are positive integers and all the frequencies differ (w1 = 3 w2 fails).
    """
    whole = all(isinstance(tone, int) and tone > 0 for tone in (first, second))
    require(whole, f"tones are positive integers, in cycles per period, not {first!r} and {second!r}")
    found = {name: abs(m * first + n * second) for name, (m, n) in PRODUCTS.items()}
    clash = [name for name, frequency in found.items() if list(found.values()).count(frequency) > 1]
    require(not clash, f"with tones {first} and {second}, products {', '.join(clash)} coincide: choose other tones")
    return found


def intermodulation(function: Function, first: int, second: int, samples: int = 4096) -> np.ndarray:
    """Amplitudes of `function(cos(w1 t) + cos(w2 t))` at 0, 1, ... cycles per period, below Nyquist: (samples / 2,).

    A measured amplitude includes products of higher order at the same frequency. For coprime tones their order is about
    w1 + w2, so they are small for large tones (21 and 29: below 3e-5 for relu, 3e-4 for hardtanh). With two odd tones,
    even and odd orders do not coincide.

    Args:
        function: pointwise, of a float64 tensor.
        first, second: w1 and w2, in cycles per period.
        samples: per period.

    Raises:
        FmlibError: unless the products up to third order differ (see `products`) and lie below Nyquist.
    """
    highest = max(products(first, second).values())
    require(highest < samples / 2, f"product {highest} is not below Nyquist: use more than {2 * highest} samples")
    phase = _period(samples)
    return np.hypot(*_measure(function, torch.cos(first * phase) + torch.cos(second * phase)).T)


def square_intermodulation(first: int, second: int) -> dict[str, float]:
    """Product -> exact amplitude, 0 if absent, of (cos w1 t + cos w2 t)^2; raises as `products` does.

    1 + cos(2 w1 t) / 2 + cos(2 w2 t) / 2 + cos((w1 + w2) t) + cos((w1 - w2) t). Source: Karantzas et al. (2022),
    section 2.1.
    """
    present = {"DC": 1.0, "2w1": 0.5, "2w2": 0.5, "w1+w2": 1.0, "w1-w2": 1.0}
    return {name: present.get(name, 0.0) for name in products(first, second)}


def table(harmonics: int = 8, samples: int = 4096) -> list[Row]:
    """One row per activation and harmonic: measured and exact amplitude, and error; the last two None without a series.

    `error` is the Euclidean distance between the two pairs (a_k, b_k), so it includes signs.
    """
    rows: list[Row] = []
    for name, function in ACTIVATIONS.items():
        measured, exact = coefficients(function, harmonics, samples), series(name, harmonics)
        for k, pair in enumerate(measured):
            row: Row = {"activation": name, "harmonic": k, "measured": math.hypot(*pair), "exact": None, "error": None}
            if exact is not None:
                row |= {"exact": math.hypot(*exact[k]), "error": math.dist(pair, exact[k])}
            rows.append(row)
    return rows


def intermodulation_table(first: int = 21, second: int = 29, samples: int = 4096) -> list[Row]:
    """One row per `INTERMODULATED` activation and product: frequency, measured and exact amplitude (of square only)."""
    exact, rows = square_intermodulation(first, second), []
    for name in INTERMODULATED:
        spectrum = intermodulation(ACTIVATIONS[name], first, second, samples)
        for product, frequency in products(first, second).items():
            row: Row = {"activation": name, "product": product, "frequency": frequency}
            row["measured"], row["exact"] = float(spectrum[frequency]), exact[product] if name == "square" else None
            rows.append(row)
    return rows


def waveforms(samples: int = 256) -> dict[str, np.ndarray]:
    """The arrays of figure 1.

    Returns:
        `time` in periods and `input` = sin(2 pi time), both (samples,); `harmonic`, 0..16; and for each activation
        `wave_<name>` (samples,), its output, and `amplitude_<name>` (17,).
    """
    phase = _period(samples)
    arrays = {"time": phase.numpy() / (2 * math.pi), "input": torch.sin(phase).numpy(), "harmonic": np.arange(17)}
    for name, function in ACTIVATIONS.items():
        arrays[f"wave_{name}"] = function(torch.sin(phase)).numpy()
        arrays[f"amplitude_{name}"] = amplitudes(function, 16)
    return arrays


def translation_damping(reach: float = 0.4, highest: int = 16, shifts: int = 4096) -> list[Row]:
    """One row per frequency: the relative amplitude of a filter averaged over translations, measured and exact.

    A random one-dimensional filter is shifted by `shifts` even steps within +-reach and averaged. The amplitude of the
    average over that of the filter is exactly |sinc(2 reach f)|, sinc(x) = sin(pi x) / (pi x).
    Source: Karantzas et al. (2022), section 3, the argument for a network of one layer.

    Args:
        reach: largest shift either way, as a share of the filter's length.
        highest: largest frequency, in cycles per length.
        shifts: number of shifts.

    Raises:
        FmlibError: unless 0 < reach <= 1/2.
    """
    require(0 < reach <= 0.5, f"reach is a share of the length, above 0 and at most 1/2, not {reach}")
    own = torch.fft.rfft(torch.randn(4 * highest, generator=generator(0, "filter"), dtype=torch.float64))[: highest + 1]
    frequency = torch.arange(highest + 1, dtype=torch.float64)
    steps = (2 * (torch.arange(shifts, dtype=torch.float64) + 0.5) / shifts - 1) * reach
    shifted = own * torch.exp(-2j * math.pi * steps[:, None] * frequency)  # (shifts, highest + 1)
    measured = (shifted.mean(0).abs() / own.abs()).tolist()
    exact = torch.sinc(2 * reach * frequency).abs().tolist()
    return [{"frequency": k, "measured": measured[k], "exact": exact[k]} for k in range(highest + 1)]
