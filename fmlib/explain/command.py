"""What `fmlib explain` does: load a model and images, learn masks, measure, and write a report.

On a cluster the masks of the images are learned in parts, one task each, in a store beside the report. A run that was
stopped goes on from there; once the report is written the store is removed.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmlib.core.config import MinimalMaskSpec, spec_dict
from fmlib.core.device import Checkpoint, pick_device
from fmlib.core.errors import FmlibError, require
from fmlib.core.masks import Masks
from fmlib.core.minimal_masks import minimal_masks
from fmlib.explain import card
from fmlib.explain.classifier import ATTACK, Classifier
from fmlib.explain.fourier_mask import FourierMask, Spec
from fmlib.explain.loading import find_images, load_image, load_model, load_names
from fmlib.explain.report import DIRECTIONS, HEAT_IMAGES, RADII, SHARED_STEPS, measure
from fmlib.explain.shared_mask import BATCH
from fmlib.pipeline import scheduler
from fmlib.pipeline.launchers.ray import RayCluster
from fmlib.pipeline.progress import ProgressBars, duration
from fmlib.pipeline.store import Artifact, Store, Task

#: Side of the images if neither the user nor the model's publisher says, pixels.
SIZE = 224
#: Images of a task on a cluster, about.
SHARD = 64


@dataclass(frozen=True)
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


def explain(
    request: Request, say: Callable[[str], None], *, progress: bool = False, cluster: RayCluster | None = None
) -> Path:
    """Write a report of a model.

    Args:
        request: what to explain, and where to write.
        say: called with each line of progress.
        progress: whether to show bars.
        cluster: where to learn the masks of the images (default: on this machine). Its nodes see the pictures and the
            folder of the report at the same paths.

    Returns:
        The path of the page.

    Raises:
        FmlibError: something cannot be read or written, the model or the images fail the check, or the cluster cannot
            be reached.
    """
    card.require_free(request.out)
    require(request.size is None or 8 <= request.size <= 4096, f"--size must be 8 to 4096, not {request.size}")
    require(request.count >= 2, f"--count must be at least 2, not {request.count}")
    given = request.max_seconds is None or request.max_seconds > 0
    require(given, f"--max-seconds must be positive, not {request.max_seconds}")
    names = load_names(request.classes)
    files = find_images(request.images, request.count)
    require(len(files) >= 2, f"{request.images} has a single picture: a report needs at least 2 for its intervals")
    classifier, size, device = _opened(request)
    images = _images(files, size, channels(classifier)).to(device)
    # the masks of the images and the mask of all may each take half of the time; the rest takes a few seconds
    limit = None if request.max_seconds is None else request.max_seconds / 2
    options: dict[str, Any] = {"steps": request.steps, "max_seconds": limit, "progress": progress}
    door = FourierMask(classifier, **options)
    if cluster is not None:
        door = _OnCluster(classifier, cluster, request, files, size, **options)
    pixels, _ = classifier.pixels(images)
    with torch.no_grad():
        classes = classifier(pixels[:1]).shape[1]
    fits = names is None or len(names) == classes
    require(fits, f"{request.classes} has {len(names or ())} names, but the model has {classes} classes")
    if cluster is None:
        _say_time(door, images, limit, say)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page says how many masks did not converge
        report = measure(door, images, say=lambda part: say(f"{duration(time.perf_counter() - start):>6}  {part}"))
    shown = [str(path.relative_to(request.images)).encode(errors="replace").decode() for path in files]
    page = card.write(report, request.out, model=request.model, files=shown, names=names)
    if cluster is not None:
        shutil.rmtree(_parts(request), ignore_errors=True)
    return page


def _opened(request: Request) -> tuple[Classifier, int, torch.device]:
    """The model of a request, the side of its images and its device."""
    mean, std = numbers("--mean", request.mean), numbers("--std", request.std)
    centre = numbers("--centre", request.centre)
    chosen = pick_device(request.device)
    loaded = load_model(request.model, request.weights)
    device = loaded.device or chosen
    model = loaded.model.to(device) if isinstance(loaded.model, nn.Module) else loaded.model
    classifier = Classifier(model, mean=mean or loaded.mean, std=std or loaded.std, centre=centre)
    return classifier, request.size or loaded.size or SIZE, device


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


# ------------------------------------------------------------------------------------------------ on a cluster


def _parts(request: Request) -> Path:
    """The store of the parts of a report."""
    return request.out.absolute().with_name(f".{request.out.absolute().name}-parts")


@dataclass(frozen=True)
class _Work:
    """What a node must know to learn masks of some of the images.

    Attributes:
        folder: the working folder of the command.
        files, size: the pictures and their side.
        labels, spec, batch_size: see `minimal_masks`.
        count: images in a task.
        fingerprint: hash of the weights and the pixels.
    """

    request: Request
    folder: Path
    files: tuple[Path, ...]
    size: int
    labels: tuple[int, ...]
    spec: MinimalMaskSpec
    batch_size: int
    count: int
    fingerprint: str

    def tasks(self) -> list[Task]:
        """One task for every `count` images."""
        starts = range(0, len(self.files), self.count)
        return [self._task(first, min(first + self.count, len(self.files))) for first in starts]

    def _task(self, first: int, last: int) -> Task:
        described: dict[str, Any] = {"made from": self.fingerprint, "images": [first, last]}
        described |= {"mask": spec_dict(self.spec), "batch": self.batch_size}
        compute, name = partial(_masks, self, first, last), f"masks of images {first + 1} to {last}"
        return Task("explain", name, described, compute, cost=float(self.spec.steps * (last - first)))


def _masks(work: _Work, first: int, last: int, inputs: list[Artifact], checkpoint: Checkpoint | None) -> Artifact:
    """Masks of some of the images, as a node learns them."""
    with chdir(work.folder):  # names of the model and of its weights may be relative
        classifier, _, device = _opened(work.request)
        images = _images(list(work.files[first:last]), work.size, channels(classifier)).to(device)
    pixels, labels = classifier.pixels(images, torch.tensor(work.labels[first:last], device=device))
    options: dict[str, Any] = {"centre": classifier.centre.to(pixels), "batch_size": work.batch_size}
    found = minimal_masks(classifier, pixels, labels, work.spec, checkpoint=checkpoint, progress=False, **options)
    arrays = {"half": found.half, "converged": found.converged, "epochs": found.epochs}
    arrays |= {f"history.{name}": values for name, values in found.history.items()}
    return Artifact({name: values.cpu().numpy() for name, values in arrays.items()})


class _OnCluster(FourierMask):
    """A `FourierMask` that learns the masks of single images on a cluster."""

    def __init__(
        self,
        classifier: Classifier,
        cluster: RayCluster,
        request: Request,
        files: list[Path],
        size: int,
        **options: Any,
    ) -> None:
        super().__init__(classifier, **options)
        self.cluster, self.request, self.files, self.size = cluster, request, files, size

    def _learn(self, pixels: Tensor, labels: Tensor, index: Tensor, spec: Spec) -> Masks:
        if not isinstance(spec, MinimalMaskSpec) or len(index.unique()) < len(pixels):
            return super()._learn(pixels, labels, index, spec)
        content = hashlib.sha256(self.classifier.fingerprint().encode() + pixels.cpu().numpy().tobytes()).hexdigest()
        batch, expected = self._batch_size(pixels, labels), self._estimate(pixels, labels, spec)
        whole = max(SHARD // batch, 1) * batch  # batches are those of one machine, and so are the masks
        work = _Work(
            self.request, Path.cwd(), tuple(self.files), self.size, tuple(labels.tolist()), spec, batch, whole, content
        )
        with self.cluster as cluster, ProgressBars(sys.stderr, lambda: expected.seconds / expected.passes) as bars:
            store = Store(_parts(work.request), cluster.device)
            scheduler.compute(work.tasks, store, cluster.slots, bars if self.progress else None, cluster.launch)
            parts = [store.get(task).arrays for task in work.tasks()]

        def joined(name: str, axis: int = 0) -> Tensor:
            return torch.cat([torch.from_numpy(part[name]) for part in parts], axis).to(pixels.device)

        names = [name.removeprefix("history.") for name in parts[0] if name.startswith("history.")]
        history = {name: joined(f"history.{name}", 1) for name in names}
        return Masks(joined("half"), pixels.shape[-1], joined("converged"), joined("epochs"), history)
