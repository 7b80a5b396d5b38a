"""The networks of FreqBench: their weights travel with the book, so that every method meets the same ones.

`networks.safetensors` holds two networks for each kind of tones, and three of the published networks at 64 px: JaFR
(low-frequency bias), ResNet, and the standard network (N) of another seed. N and A are those of the laptop results.
"""

from __future__ import annotations

import hashlib
from functools import cache

from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor, nn

from fmlib.core.config import NetworkSpec, TrainSpec
from fmlib.core.models import build
from fmlib.core.training import train
from fmlib.pipeline.results import PUBLISHED
from fmlib.studies.freqbench.tasks.tones import CLASSES, KINDS, make_tones
from fmlib.studies.shared.pretrained import published_network
from fmlib.studies.shared.profiles import PROFILES

FILE = PUBLISHED / "freqbench" / "networks.safetensors"
#: Name -> architecture of the networks at 64 px, in the file or in the laptop results.
AT_64 = {"N": "network", "A": "network", "JaFR": "network", "N-seed": "network", "ResNet": "second_network"}


def tone_network(kind: str) -> NetworkSpec:
    """The network that classifies tones of a kind."""
    return NetworkSpec("tiny_vgg", channels=1 + (kind == "two-channel"), classes=CLASSES, mean=0.5, std=0.14)


def train_tone_networks(kind: str) -> dict[str, Tensor]:
    """The weights of both networks of a kind, `<kind>.0.<parameter>` and `<kind>.1.<parameter>`."""
    data, spec = make_tones(kind), TrainSpec(epochs=8, batch=64, lr=5e-3, crop=(1.0, 1.0), flip=False)
    weights: dict[str, Tensor] = {}
    for seed in (0, 1):
        model = build(tone_network(kind), seed)
        train(model, data.train, data.validation, spec, seed=seed, progress=False)
        weights |= {f"{kind}.{seed}.{name}": value for name, value in model.state_dict().items()}
    return weights


def write_networks(at_64: dict[str, dict[str, Tensor]]) -> None:
    """Train the networks of all kinds of tones and write `FILE`.

    Args:
        at_64: name -> state of JaFR, ResNet and N-seed, as the laptop experiments train them.
    """
    weights = {f"{name}.{entry}": value for name, state in at_64.items() for entry, value in state.items()}
    for kind in KINDS:
        weights |= train_tone_networks(kind)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    content = save_weights({name: value.contiguous() for name, value in weights.items()})
    FILE.write_bytes(content)
    FILE.with_suffix(".sha256").write_text(hashlib.sha256(content).hexdigest())


@cache
def _weights() -> dict[str, Tensor]:
    return load_weights(FILE.read_bytes())


@cache
def checksum() -> str:
    """The first 16 hex digits of the SHA-256 of `FILE`."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()[:16]


def network(name: str) -> nn.Module:
    """A network in eval mode: "plain.0" and the like for tones, or a key of `AT_64`."""
    if name in ("N", "A"):
        return published_network(name)
    spec = getattr(PROFILES["laptop"], AT_64[name]) if name in AT_64 else tone_network(name.partition(".")[0])
    model, start = build(spec, 0), f"{name}."
    model.load_state_dict({key.removeprefix(start): one for key, one in _weights().items() if key.startswith(start)})
    return model.eval()
