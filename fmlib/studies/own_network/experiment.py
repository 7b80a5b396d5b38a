"""The experiment of the chapter on one's own network: what `fmlib explain` measures, on a network trained elsewhere.

On photographs that network is EfficientNet-Lite0 with its published ImageNet weights. Profile `quick` has no
photographs: there the standard network (N) takes its place.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fmlib.core.config import ImageSpec
from fmlib.explain.classifier import Classifier
from fmlib.explain.fourier_mask import FourierMask
from fmlib.explain.report import measure
from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Artifact, Store, Task, arrays_to_bytes, csv
from fmlib.studies.shared.pretrained import MEAN, efficientnet_lite0, photographs
from fmlib.studies.shared.setup import Setup
from fmlib.studies.shared.tasks import first_images

#: Images, and the side of photographs in pixels.
IMAGES, SIZE = 64, 160
STEPS = 60

PHOTOGRAPHS = ImageSpec(selection="all", size=SIZE, channels=3)


def report(setup: Setup) -> Task:
    """What `explain.report.measure` finds on the first validation images, equally many per class.

    Arrays: `dataset`, the mask of all images over the full plane (H, W); `curve.<name>`, (bands, 3), mean over the
    images and its interval; `radii` and `heat`, of the heat map; `share`, `nonzero` and `kept` of each image's mask,
    (N,). Facts: `rows`, the numbers of the report; `network`, its name.
    """
    synthetic = not isinstance(setup.profile.data, ImageSpec)

    def compute(inputs: list[Artifact], checkpoint: Any) -> Artifact:
        if synthetic:
            dataset, network = inputs
            model, images = setup.open_network(network), first_images(setup, dataset, IMAGES).pixels()
            centre, name = setup.profile.network.mean, "standard (N)"
        else:
            model, images = (
                efficientnet_lite0(SIZE).to(setup.device),
                photographs(IMAGES, SIZE, setup.root).to(setup.device),
            )
            centre, name = MEAN, "EfficientNet-Lite0"
        classifier = Classifier(model, centre=centre)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # `kept` says how many masks did not converge
            found = measure(FourierMask(classifier, steps=STEPS, progress=setup.progress), images.to(setup.device))
        masks = found.images
        arrays = {f"curve.{label}": values for label, values in found.curves.items()}
        arrays |= {"dataset": found.dataset.masks.full()[0].cpu().numpy(), "radii": np.array(found.radii)}
        arrays |= {"heat": found.heat, "share": masks.share.cpu().numpy(), "kept": masks.kept.cpu().numpy()}
        arrays |= {"nonzero": masks.nonzero_share.cpu().numpy(), "labels": masks.labels.cpu().numpy()}
        return Artifact(arrays, facts={"network": name, "rows": [row.as_dict() for row in found.rows]})

    described: dict[str, Any] = {"images": IMAGES, "steps": STEPS}
    if synthetic:
        return Task("own_network", f"report ({setup.title})", described, compute, (setup.dataset, setup.network("N")))
    described |= {"size": SIZE, "files": setup.fingerprint(PHOTOGRAPHS)}
    cost = 40 * IMAGES * (STEPS + 240 * 16 / IMAGES)  # a pass takes as long as forty of the profile's network
    return Task("own_network", "report (EfficientNet-Lite0)", described, compute, cost=cost)


def _row(network: str, row: dict[str, Any]) -> dict[str, Any]:
    """A number of the report as a row of the table."""
    flat = {"network": network} | {key: row[key] for key in ("name", "unit", "against", "reading")}
    for prefix, measured in (("", row["value"]), ("control_", row["control"] or {})):
        flat |= {f"{prefix}{key}": measured.get(key) for key in ("value", "low", "high", "n")}
    return flat


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    artifact = store.get(report(setup))
    rows = [_row(artifact.facts["network"], row) for row in artifact.facts["rows"]]
    return {"own_network.npz": arrays_to_bytes(artifact.arrays), "own_network.csv": csv(rows)}


EXPERIMENTS = (
    Experiment(
        "own-network",
        "what fmlib explain measures on a network trained elsewhere",
        lambda setup: [report(setup)],
        _files,
        images=lambda setup: IMAGES,
    ),
)
