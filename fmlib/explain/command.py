"""What `fmlib explain` does: load a model and images, learn masks, measure, and write a report."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fmlib.core.device import pick_device
from fmlib.core.errors import FmlibError, require
from fmlib.explain import card
from fmlib.explain.classifier import ATTACK, Classifier
from fmlib.explain.fourier_mask import FourierMask
from fmlib.explain.loading import find_images, load_image, load_model, load_names
from fmlib.explain.report import DIRECTIONS, HEAT_IMAGES, RADII, SHARED_STEPS, measure
from fmlib.explain.shared_mask import BATCH
from fmlib.pipeline.progress import duration

#: Side of the images if neither the user nor the model's publisher says, pixels.
SIZE = 224


@dataclass
class Request:
    """The words of the command; see `fmlib explain --help`."""

    model: str
    images: Path
    out: Path
    weights: Path | None = None
    classes: Path | None = None
    size: int | None = None
    count: int = 64
    mean: str | None = None
    std: str | None = None
    centre: str | None = None
    steps: int = 60
    max_seconds: float | None = None
    device: str = "auto"


def explain(request: Request, say: Callable[[str], None], *, progress: bool = False) -> Path:
    """Write a report of a model.

    Args:
        request: what to explain, and where to write.
        say: called with each line of progress.
        progress: whether to show bars.

    Returns:
        The path of the page.

    Raises:
        FmlibError: something cannot be read or written, or the model or the images fail the check.
    """
    card.require_free(request.out)
    require(request.size is None or 8 <= request.size <= 4096, f"--size must be 8 to 4096, not {request.size}")
    require(request.count >= 2, f"--count must be at least 2, not {request.count}")
    given = request.max_seconds is None or request.max_seconds > 0
    require(given, f"--max-seconds must be positive, not {request.max_seconds}")
    mean, std = numbers("--mean", request.mean), numbers("--std", request.std)
    centre = numbers("--centre", request.centre)
    names = load_names(request.classes)
    files = find_images(request.images, request.count)
    require(len(files) >= 2, f"{request.images} has a single picture: a report needs at least 2 for its intervals")
    chosen = pick_device(request.device)
    loaded = load_model(request.model, request.weights)
    device = loaded.device or chosen
    model = loaded.model.to(device) if isinstance(loaded.model, nn.Module) else loaded.model
    classifier = Classifier(model, mean=mean or loaded.mean, std=std or loaded.std, centre=centre)
    images = _images(files, request.size or loaded.size or SIZE, channels(classifier)).to(device)
    # the masks of the images and the mask of all may each take half of the time; the rest takes a few seconds
    limit = None if request.max_seconds is None else request.max_seconds / 2
    door = FourierMask(classifier, steps=request.steps, max_seconds=limit, progress=progress)
    pixels, _ = classifier.pixels(images)
    with torch.no_grad():
        classes = classifier(pixels[:1]).shape[1]
    fits = names is None or len(names) == classes
    require(fits, f"{request.classes} has {len(names or ())} names, but the model has {classes} classes")
    _say_time(door, images, limit, say)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page says how many masks did not converge
        report = measure(door, images, say=lambda part: say(f"{duration(time.perf_counter() - start):>6}  {part}"))
    shown = [str(path.relative_to(request.images)).encode(errors="replace").decode() for path in files]
    return card.write(report, request.out, model=request.model, files=shown, names=names)


def numbers(option: str, words: str | None) -> tuple[float, ...] | None:
    """Numbers of an option, separated by commas: one, or one per channel."""
    if words is None:
        return None
    try:
        return tuple(float(word) for word in words.split(","))
    except ValueError as error:
        raise FmlibError(
            f"{option} must be numbers separated by commas, such as 0.485,0.456,0.406, not {words!r}"
        ) from error


def channels(classifier: Classifier) -> int:
    """How many channels a model's images have: those of its mean, or of its first convolution, or 3."""
    if classifier.mean is not None and len(classifier.mean) > 1:
        return len(classifier.mean)
    modules = classifier.model.modules() if isinstance(classifier.model, nn.Module) else ()
    convolutions = (module.in_channels for module in modules if isinstance(module, nn.Conv2d))
    found = next(convolutions, 3)
    require(found in (1, 3), f"pictures have 1 or 3 channels, but the model takes {found}: use FourierMask from Python")
    return found


def _images(files: list[Path], size: int, channels: int) -> Tensor:
    require(channels in (1, 3), f"pictures have 1 or 3 channels, not {channels}")
    return torch.stack([load_image(path, size, channels) for path in files])


def _say_time(door: FourierMask, images: Tensor, limit: float | None, say: Callable[[str], None]) -> None:
    """Say how long the report takes: the masks of the images, the mask of all, and the rest."""
    expected = door.estimate(images)
    count, second = len(images), expected.passes / expected.seconds  # passes in a second
    parts = [expected.seconds, SHARED_STEPS * min(BATCH, count) / second]
    rest = (count * (ATTACK.steps + 1) + min(count, HEAT_IMAGES) * len(RADII) * DIRECTIONS / 3) / second
    seconds = sum(parts if limit is None else (min(part, limit) for part in parts)) + rest
    say(f"{count} images take about {duration(seconds)} on {images.device.type}")
