"""Networks in few bytes: how near they are to what was trained, and that every machine reads the same weights."""

import pytest
import torch
from torch import nn

from fmlib.core import models
from fmlib.core.config import NetworkSpec
from fmlib.core.errors import FmlibError
from fmlib.studies.shared import compact

SPEC = NetworkSpec("dense", classes=3)


@pytest.fixture(autouse=True)
def dense(monkeypatch):
    """A network with a linear layer that is stored as a product, and one that is not."""

    def make(channels, classes):
        return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), *linear(classes))

    def linear(classes):
        return nn.Linear(4 * 36, 40), nn.ReLU(), nn.Linear(40, classes)

    monkeypatch.setattr(compact, "LARGE", 1000)
    monkeypatch.setitem(models.ARCHITECTURES, "dense", make)


def trained(rank):
    """A network, and its weights after an update of its linear layer of some rank."""
    model = models.build(SPEC, seed=5).eval()
    rng = torch.Generator().manual_seed(0)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    left, right = torch.randn(40, rank, generator=rng), torch.randn(rank, 144, generator=rng)
    weights["network.3.weight"] += 0.02 * left @ right
    model.load_state_dict(weights)
    return model, weights


def restored(stored):
    model = models.build(SPEC, seed=0).eval()
    model.load_state_dict(compact.expanded(stored, SPEC))
    return model


def test_an_update_of_low_rank_is_kept_to_the_precision_of_bfloat16():
    model, weights = trained(rank=6)
    stored = compact.compressed(weights, SPEC, seed=5, rank=6)
    assert stored["network.3.weight.left"].shape == (40, 6)
    assert stored["network.3.weight.right"].shape == (6, 144)
    assert stored["network.3.weight.left"].dtype == stored["network.3.weight.right"].dtype == torch.int8
    assert stored["network.0.weight"].dtype == torch.float16
    assert stored["network.1.running_var"].dtype == torch.float32
    exact, near = weights["network.3.weight"], compact.expanded(stored, SPEC)["network.3.weight"]
    update = exact - models.build(SPEC, seed=5).state_dict()["network.3.weight"]
    assert float((near - exact).norm() / update.norm()) < 0.02
    found = compact.difference(model, restored(stored), torch.rand(50, 1, 8, 8))
    assert found["images"] == 50
    assert found["changed"] <= 2
    assert 0 < found["relative"] < 0.02


def test_a_lower_rank_keeps_the_largest_singular_values():
    _, weights = trained(rank=6)
    initial = models.build(SPEC, seed=5).state_dict()["network.3.weight"]
    update = weights["network.3.weight"] - initial
    near = compact.expanded(compact.compressed(weights, SPEC, seed=5, rank=3), SPEC)["network.3.weight"]
    lost = torch.linalg.svdvals(update)[3:].norm()
    assert float((near - weights["network.3.weight"]).norm()) == pytest.approx(float(lost), rel=0.02)


def test_a_network_that_did_not_change_is_kept():
    model = models.build(SPEC, seed=5).eval()
    again = restored(compact.compressed(model.state_dict(), SPEC, seed=5, rank=6))
    assert torch.equal(again.network[3].weight, model.network[3].weight)


def test_the_product_does_not_depend_on_the_order_of_its_sum():
    _, weights = trained(rank=30)
    stored = compact.compressed(weights, SPEC, seed=5, rank=30)
    name = "network.3.weight"
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    shuffled = stored | {
        f"{name}.left": stored[f"{name}.left"][:, order],
        f"{name}.right": stored[f"{name}.right"][order],
        f"{name}.exponent": stored[f"{name}.exponent"][order],
    }
    assert torch.equal(compact.expanded(shuffled, SPEC)[name], compact.expanded(stored, SPEC)[name])


def test_weights_that_were_not_compressed_are_returned():
    weights = models.build(SPEC, seed=5).state_dict()
    assert compact.expanded(weights, SPEC) is weights


def test_other_initial_weights_are_noticed():
    _, weights = trained(rank=6)
    stored = compact.compressed(weights, SPEC, seed=5, rank=6)
    stored["network.3.weight.initial"] += 0.01
    with pytest.raises(FmlibError, match="draws other initial weights"):
        compact.expanded(stored, SPEC)
