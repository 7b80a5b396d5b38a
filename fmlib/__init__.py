"""Fourier masks of neural networks: learn which input frequencies a network needs.

The names in `__all__` are the library. `fmlib.explain` finds the frequencies that an image classifier of any kind
needs: start with `FourierMask`. `fmlib.core` is what it computes with: masks, spectra, training and attacks. Names are
imported at first use, which keeps `import fmlib` fast. `fmlib.pipeline`, `fmlib.studies` and `fmlib.publishing`
reproduce published results with them.

The examples in the docstrings of the library continue this one.

Example:
    >>> import torch, fmlib
    >>> data = fmlib.make_synthetic(fmlib.SyntheticSpec(size=16, classes=2, train=64, validation=16))
    >>> network = fmlib.build(fmlib.NetworkSpec("tiny_vgg", classes=2, mean=0.5, std=0.14), seed=0)
    >>> spec = fmlib.TrainSpec(epochs=2, batch=16, lr=0.01)
    >>> history = fmlib.train(network, data.train, data.validation, spec, seed=0, progress=False)
    >>> images, labels = data.validation.pixels(), data.validation.labels
    >>> one_mask = torch.zeros(len(images), dtype=torch.long)  # the index of each image's mask
    >>> spec = fmlib.MaskSpec(lr=0.05, batch=16, epochs=20)
    >>> masks = fmlib.learn_masks(network, images, labels, one_mask, spec, seed=0, centre=0.5, progress=False)
    >>> masks.full().shape
    torch.Size([1, 16, 16])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Exported name -> its module in `fmlib`.
_MODULES = {
    "AttackSpec": "core.config",
    "Classifier": "explain.classifier",
    "Explanation": "explain.explanation",
    "FmlibError": "core.errors",
    "FourierMask": "explain.fourier_mask",
    "FrequencyMapSpec": "core.config",
    "FrequencyMaps": "core.frequency_maps",
    "ImageMaskSpec": "core.config",
    "MaskSpec": "core.config",
    "Masks": "core.masks",
    "MinimalMaskSpec": "core.config",
    "NetworkSpec": "core.config",
    "Split": "core.data",
    "SyntheticSpec": "core.config",
    "TrainSpec": "core.config",
    "angular_energy": "core.spectra",
    "apply_mask": "core.spectra",
    "build": "core.models",
    "complement": "core.spectra",
    "correctness": "core.evaluation",
    "correlation": "core.spectra",
    "heat_map": "core.heat_maps",
    "jacobian_spectrum": "core.jacobian",
    "l1_share": "core.spectra",
    "learn_masks": "core.masks",
    "make_synthetic": "core.synthetic",
    "minimal_masks": "core.minimal_masks",
    "perturb": "core.attacks",
    "radial_energy": "core.spectra",
    "train": "core.training",
}

__all__ = list(_MODULES)

if TYPE_CHECKING:
    from fmlib.core.attacks import perturb as perturb
    from fmlib.core.config import AttackSpec as AttackSpec
    from fmlib.core.config import FrequencyMapSpec as FrequencyMapSpec
    from fmlib.core.config import ImageMaskSpec as ImageMaskSpec
    from fmlib.core.config import MaskSpec as MaskSpec
    from fmlib.core.config import MinimalMaskSpec as MinimalMaskSpec
    from fmlib.core.config import NetworkSpec as NetworkSpec
    from fmlib.core.config import SyntheticSpec as SyntheticSpec
    from fmlib.core.config import TrainSpec as TrainSpec
    from fmlib.core.data import Split as Split
    from fmlib.core.errors import FmlibError as FmlibError
    from fmlib.core.evaluation import correctness as correctness
    from fmlib.core.frequency_maps import FrequencyMaps as FrequencyMaps
    from fmlib.core.heat_maps import heat_map as heat_map
    from fmlib.core.jacobian import jacobian_spectrum as jacobian_spectrum
    from fmlib.core.masks import Masks as Masks
    from fmlib.core.masks import learn_masks as learn_masks
    from fmlib.core.minimal_masks import minimal_masks as minimal_masks
    from fmlib.core.models import build as build
    from fmlib.core.spectra import angular_energy as angular_energy
    from fmlib.core.spectra import apply_mask as apply_mask
    from fmlib.core.spectra import complement as complement
    from fmlib.core.spectra import correlation as correlation
    from fmlib.core.spectra import l1_share as l1_share
    from fmlib.core.spectra import radial_energy as radial_energy
    from fmlib.core.synthetic import make_synthetic as make_synthetic
    from fmlib.core.training import train as train
    from fmlib.explain.classifier import Classifier as Classifier
    from fmlib.explain.explanation import Explanation as Explanation
    from fmlib.explain.fourier_mask import FourierMask as FourierMask
else:

    def __getattr__(name: str) -> Any:
        """Import an exported name at its first use."""
        if name not in _MODULES:
            raise AttributeError(f"module 'fmlib' has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(f"fmlib.{_MODULES[name]}"), name)
        return value


def __dir__() -> list[str]:
    """The names of the module, exported ones included."""
    return sorted({*globals(), *__all__})
