"""Metrics of Captum and Quantus take what `FourierMask.attribute` returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fmlib import FourierMask

captum = pytest.importorskip("captum.metrics")

LABELS = torch.tensor([0, 1, 2])

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def explain(make_network):
    """Masks of a tiny network."""
    return FourierMask(make_network(), steps=12)


def test_captum_measures_the_sensitivity_of_masks(explain, make_images):
    def noise(inputs, radius):
        return (inputs + radius * torch.empty_like(inputs).uniform_(-1, 1)).clamp(0, 1)

    labels = explain.classifier.predict(make_images(3))
    changed = captum.sensitivity_max(explain.attribute, make_images(3), noise, 0.1, 2, target=labels)
    assert changed.shape == (3,)
    assert float(changed.min()) >= 0
    assert float(changed.max()) > 0.01
    same = captum.sensitivity_max(explain.attribute, make_images(3), lambda x, radius: x, 0.0, 2, target=labels)
    assert float(same.max()) < 0.2  # rounding only: the perturbed images are solved in other batches


def test_quantus_measures_the_sparseness_of_masks(explain, make_images):
    quantus = pytest.importorskip("quantus")
    images = make_images(3)
    metric = quantus.Sparseness(disable_warnings=True)
    given = metric(explain.classifier, images.numpy(), LABELS.numpy(), explain.attribute(images, LABELS).numpy())
    assert all(0.3 < float(value) < 1 for value in given)

    def explained(model, inputs, targets, **options):
        return explain.attribute(torch.as_tensor(inputs), torch.as_tensor(targets)).numpy()

    called = metric(explain.classifier, images.numpy(), LABELS.numpy(), explain_func=explained)
    np.testing.assert_allclose(called, given)
