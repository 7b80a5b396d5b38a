"""The recipes of what can be had without a GPU where every network and image mask cannot: their jobs and files."""

from __future__ import annotations

from dataclasses import replace

from fmlib.image_measures import necessity, tables
from fmlib.image_recipes import (
    architecture_jobs,
    files_of_architectures,
    files_of_image_masks,
    second_architecture,
)
from fmlib.lab import Lab
from fmlib.network_recipes import files_of_dataset_masks, files_of_networks
from fmlib.recipe import Recipe
from fmlib.store import Job, Store, arrays_to_bytes

#: Validation images considered for image masks, the same number of each class.
IMAGES = 75
#: Steps of an image mask at most, as at profile laptop; the authors allow 20,000, which a few masks would take.
STEPS = 6000


def _alone(lab: Lab) -> Lab:
    """The same laboratory with one training regime, N, and one seed, and fewer image masks."""
    shorter = replace(lab.profile.image_mask, epochs=min(lab.profile.image_mask.epochs, STEPS))
    fewer = replace(lab.profile, regimes=("N",), repetitions=1, images=IMAGES, chunk=IMAGES, image_mask=shorter)
    return replace(lab, profile=fewer)


def _measures(lab: Lab) -> list[Job]:
    return [tables(_alone(lab)), necessity(_alone(lab))]


def _jobs(lab: Lab) -> list[Job]:
    return [lab.evaluation("N"), *_measures(lab), *architecture_jobs(lab)]


def _files(lab: Lab, store: Store) -> dict[str, bytes]:
    alone = _alone(lab)
    of_dataset, _ = files_of_dataset_masks(alone, store, ())
    of_images, _ = files_of_image_masks(alone, store, ("N.x",))
    of_measures = {f"{job.kind}.npz": arrays_to_bytes(store.get(job).arrays) for job in _measures(lab)}
    return files_of_networks(alone, store) | of_dataset | of_images | of_measures | files_of_architectures(lab, store)


#: Networks of the second architecture beyond those that it has at every profile: regime and repetition.
MORE = (("S", 0), ("N", 1))


def _more_jobs(lab: Lab) -> list[Job]:
    return [lab.second.evaluation(*network) for network in MORE]


def _more_files(lab: Lab, store: Store) -> dict[str, bytes]:
    return {"second_more.npz": second_architecture(lab, store, MORE)}


RECIPES = (
    Recipe(
        "without-gpu",
        "N and its masks, of the data set and of some images (T1, T2); N and A of another architecture",
        _jobs,
        _files,
    ),
    Recipe("without-gpu-more", "S, and N of another seed, of another architecture", _more_jobs, _more_files),
)
