"""Harmonics, intermodulation and translation damping; cheap enough to be computed when they are published."""

from __future__ import annotations

from fmlib.pipeline.experiment import Experiment
from fmlib.pipeline.store import Store, Task, arrays_to_bytes, csv
from fmlib.studies.harmonic_distortion import harmonics
from fmlib.studies.shared.setup import Setup


def _tasks(setup: Setup) -> list[Task]:
    return []


def _files(setup: Setup, store: Store) -> dict[str, bytes]:
    return {
        "harmonics.csv": csv(harmonics.table()),
        "intermodulation.csv": csv(harmonics.intermodulation_table()),
        "translation.csv": csv(harmonics.translation_damping()),
        "waveforms.npz": arrays_to_bytes(harmonics.waveforms()),
    }


EXPERIMENTS = (Experiment("harmonics", "harmonics and intermodulation of activations (Fig. 1)", _tasks, _files),)
