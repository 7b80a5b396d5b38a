"""The check of a model, images and labels that every entry point of the library makes before it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fmlib.core.device import frozen
from fmlib.core.errors import FmlibError, require

#: Images on which the model is tried.
PROBES = 2
EVAL = "If the model is a function, put the modules that it calls into eval mode"


def check_classifier(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Check that `model` is a classifier of these images whose gradients a mask can follow.

    The model is run three times, and differentiated once, on the first images. It is left as it was.

    Args:
        model: maps images (B, C, H, W) to logits (B, classes), one image independently of the others.
        images: finite floats (N, C, H, W).
        labels: class numbers from 0, int64 (N,).

    Raises:
        FmlibError: the arrays do not fit, or the model returns anything but finite logits of all labels: probabilities,
            a single logit, class numbers, noise, or values that do not depend on the image or pass no gradient.
    """
    _check_arrays(images, labels)
    require(isinstance(model, nn.Module), f"the model must be a torch.nn.Module, not {type(model).__name__}")
    require(not torch.is_inference_mode_enabled(), "masks need gradients: leave torch.inference_mode()")
    with frozen(model), torch.enable_grad():
        pixels = images[:PROBES].detach().clone().requires_grad_()
        logits = _applied(model, pixels)
        _check_logits(logits, len(pixels), int(labels.max()) + 1)
        _check_gradient(logits, pixels)
        with torch.no_grad():
            again, alone = _applied(model, pixels), _applied(model, pixels[:1])
        scale = 1e-2 * float(logits.detach().abs().max())
        require(
            bool(torch.allclose(logits, again, rtol=0, atol=scale)),
            f"the model is stochastic: the same images have different logits in eval mode. {EVAL}",
        )
        require(
            alone.shape == again[:1].shape and bool(torch.allclose(again[:1], alone, rtol=0, atol=scale)),
            f"the logits of an image depend on the other images of its batch, so it has no mask of its own. {EVAL}",
        )


def _applied(model: nn.Module, pixels: Tensor) -> Any:
    """What the model returns; whatever its code raises becomes an `FmlibError` of one line."""
    try:
        return model(pixels)
    except FmlibError:
        raise
    except Exception as error:
        shown = f"{_described(pixels)}, {len(pixels)} at once"
        raise FmlibError(f"the model cannot take images {shown}: {_first_line(error)}") from error


def _check_arrays(images: Tensor, labels: Tensor) -> None:
    """Raise `FmlibError` unless images are finite floats (N, C, H, W), and labels class numbers (N,)."""
    for name, value in (("images", images), ("labels", labels)):
        require(isinstance(value, Tensor), f"{name} must be a torch tensor, not {type(value).__name__}")
    require(images.ndim == 4, f"images must have shape (N, C, H, W), not {tuple(images.shape)}")
    require(images.numel() > 0, f"there are no images: their shape is {tuple(images.shape)}")
    require(min(images.shape[-2:]) > 1, f"images must have at least 2 x 2 pixels, not {tuple(images.shape[-2:])}")
    require(images.is_floating_point(), f"images must be floats, not {images.dtype}: use images.float() / 255")
    require(bool(torch.isfinite(images).all()), "the images have NaN or infinite pixels: repair or remove them")
    whole = labels.ndim == 1 and labels.dtype == torch.int64
    require(whole, f"labels must be int64 of shape (N,), not {labels.dtype} of shape {tuple(labels.shape)}")
    require(len(labels) > 0 and bool((labels >= 0).all()), f"labels must be class numbers from 0, not {labels[:5]}")


def _check_logits(logits: Tensor, count: int, classes: int) -> None:
    """Raise `FmlibError` unless `logits` are finite, (count, at least `classes` and 2), and no probabilities."""
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    require(
        isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == count,
        f"the model must return logits (B, classes), not {shape}",
    )
    require(
        logits.shape[1] > 1,
        "the model returns a single logit z: give it two classes, torch.cat((torch.zeros_like(z), z), 1)",
    )
    require(logits.is_floating_point(), f"the model must return logits, not {logits.dtype} class numbers")
    require(logits.shape[1] >= classes, f"the labels need {classes} classes but the model has {logits.shape[1]} logits")
    require(bool(torch.isfinite(logits).all()), "the model returns NaN or infinite logits: train it again")
    rows = logits.detach().float()
    sums_to_one = bool(((rows.sum(1) - 1).abs() < 1e-2).all()) and bool((rows >= 0).all())
    require(not sums_to_one, "the model returns probabilities: give the logits, before softmax")


def _check_gradient(logits: Tensor, pixels: Tensor) -> None:
    """Raise `FmlibError` unless the gradient of the logits in the pixels is finite and not zero."""
    mend = "remove detach(), no_grad(), argmax or rounding from its forward, or check that it uses its input"
    require(logits.requires_grad, f"no gradient passes through the model: {mend}")
    direction = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device)
    try:
        (gradient,) = torch.autograd.grad((logits * direction).sum(), pixels, allow_unused=True)
    except RuntimeError as error:
        raise FmlibError(f"the model cannot be differentiated: {_first_line(error)}") from error
    require(gradient is not None and bool((gradient != 0).any()), f"no gradient passes through the model: {mend}")
    require(bool(torch.isfinite(gradient).all()), "the gradient of the model is NaN or infinite: inspect its forward")


def _described(images: Tensor) -> str:
    """Shape of an image, type and device, for messages."""
    return f"{tuple(images.shape[1:])} of {str(images.dtype).removeprefix('torch.')} on {images.device}"


def _first_line(error: Exception) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]
