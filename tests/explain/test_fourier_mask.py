"""Masks of any classifier: sizes, channels, outputs, precisions, options, files and pictures that must work."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.models
from torch import nn

import fmlib
from fmlib import Classifier, Explanation, FourierMask
from fmlib.core.config import ImageMaskSpec, MaskSpec, MinimalMaskSpec
from fmlib.explain import fourier_mask
from fmlib.explain.fourier_mask import Estimate

pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")


# --------------------------------------------------------------------------------------------------- images and labels


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [(16, 16), (15, 17), (12, 21)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_channels_and_sizes(channels, size, per_channel, make_network, make_images):
    images = make_images(3, channels, *size)
    explain = FourierMask(make_network(channels), mean=0.5, std=0.2, steps=12, per_channel=per_channel)
    found = explain.fit(images)
    plane = (size[0], size[1] // 2 + 1)
    assert found.masks.half.shape == ((3, channels, *plane) if per_channel else (3, *plane))
    assert found.share.shape == found.nonzero_share.shape == (3,)
    assert bool((found.share <= found.nonzero_share + 1e-6).all())
    assert found.filtered.shape == found.complement.shape == images.shape
    full = explain.attribute(images)
    assert full.shape == images.shape
    assert bool((full[:, :1] == full).all()) == (not per_channel or channels == 1)
    assert 0 <= float(full.min()) <= float(full.max()) <= 1
    opposite = full.flip(-2, -1).roll((1, 1), (-2, -1))
    inner = slice(1, (size[1] - 1) // 2)  # in the columns of DC and Nyquist, M(f) and M(-f) are learned apart
    torch.testing.assert_close(full[..., inner], opposite[..., inner])
    assert found.radial_energy(8).shape == found.angular_energy(8).shape
    assert found.plot()._repr_png_().startswith(b"\x89PNG")


def test_masks_keep_the_predictions_with_few_frequencies(make_network, make_images):
    found = FourierMask(make_network(), mean=0.5, std=0.2).fit(make_images(8))
    assert bool(found.kept.all())
    assert float(found.share.mean()) < 0.2
    assert torch.equal(found.labels, Classifier(make_network(), mean=0.5, std=0.2)(found.images).argmax(1))


@pytest.mark.parametrize(
    ("value_range", "change"),
    [((0, 255), lambda x: 255 * x), ((-1, 1), lambda x: 2 * x - 1), ((0, 1), lambda x: x.double())],
)
def test_other_ranges_lead_to_the_same_masks(value_range, change, make_network, make_images):
    images = (make_images() * 255).round() / 255
    options = {"mean": 0.5, "std": 0.2, "steps": 12}
    expected = FourierMask(make_network(), **options).fit(images)
    found = FourierMask(make_network(), value_range=value_range, **options).fit(change(images))
    torch.testing.assert_close(found.images.float(), expected.images, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.share.float(), expected.share, atol=1e-2, rtol=0)


def test_without_mean_the_model_is_given_the_images_as_they_are(make_images):
    seen = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))

    def record(images):
        seen.append(images.detach())
        return network(images)

    images = (make_images() * 255).byte()
    found = FourierMask(record, value_range=(0, 255), steps=1).fit(images, 1)
    torch.testing.assert_close(seen[0], images.float(), atol=1e-3, rtol=0)
    assert found.centre.tolist() == [[[0.0]]]
    assert found.labels.tolist() == [1, 1]


@pytest.mark.parametrize("target", [2, np.int64(2), torch.tensor(2), torch.tensor([2, 2])], ids=lambda t: str(type(t)))
def test_one_target_for_all_images(target, make_network, make_images):
    found = FourierMask(make_network(), steps=12).fit(make_images(), target)
    assert found.labels.tolist() == [2, 2]


@pytest.mark.parametrize(("shared", "count"), [("none", 6), ("class", 2), ("all", 1)])
@pytest.mark.parametrize("solver", ["slp", "adam"])
def test_shared_masks(shared, count, solver, make_network, make_images):
    labels = torch.tensor([4, 1, 4, 4, 1, 4])
    explain = FourierMask(make_network(), solver=solver, steps=12)
    found = explain.fit(make_images(6), labels, shared=shared)
    assert len(found.masks.half) == len(found.share) == count
    assert found.index.tolist() == {6: list(range(6)), 2: [1, 0, 1, 1, 0, 1], 1: [0] * 6}[count]
    assert found.filtered.shape == found.images.shape
    assert (
        found.about["spec"]["type"]
        == (MinimalMaskSpec if solver == "slp" else MaskSpec if shared != "none" else ImageMaskSpec).__name__
    )


def test_frequency_maps_are_those_of_learn_masks_with_a_penalty_on_the_sum(make_network, make_images):
    network, images, labels = make_network(3), make_images(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    classifier = Classifier(network, mean=0.5, std=0.2)
    found = FourierMask(classifier, solver="frequency-map", penalty=30, steps=12).fit(images, labels)
    spec = fmlib.FrequencyMapSpec(penalty=30 / (3 * 16 * 16), epochs=12)
    options = {"objective": fmlib.FrequencyMaps, "seed": 0, "centre": classifier.centre, "progress": False}
    expected = fmlib.learn_masks(classifier, images, labels, torch.arange(4), spec, **options)
    assert torch.equal(found.masks.half, expected.half)
    assert found.masks.half.shape == (4, 3, 16, 9)
    assert found.about["spec"] == {"type": "FrequencyMapSpec"} | vars(spec)


def test_frequency_maps_keep_the_predictions_with_few_frequencies(trained, synthetic):
    images = synthetic.validation.pixels(slice(12))
    found = FourierMask(trained, centre=0.5, solver="frequency-map", steps=400).fit(images)
    assert found.kept.float().mean() > 0.9
    assert float(found.share.mean()) < 0.1


def test_the_inputs_stay_as_they_are(make_network, make_images, snapshot):
    network = make_network().train()
    network[1].eval()
    images, labels = make_images().requires_grad_(), torch.tensor([0, 1])
    before, copy = snapshot(network), images.detach().clone()
    FourierMask(network, steps=3).fit(images, labels)
    assert snapshot(network) == before
    assert torch.equal(images, copy)
    assert images.grad is None
    assert labels.tolist() == [0, 1]


def test_a_model_that_overwrites_its_input(make_network, make_images):
    network = make_network()
    images = make_images()
    expected = FourierMask(lambda x: network((x - 0.5) / 0.2), steps=12).attribute(images)
    found = FourierMask(lambda x: network(x.sub_(0.5).div_(0.2)), steps=12).attribute(images)
    torch.testing.assert_close(found, expected)


# -------------------------------------------------------------------------------------------------------------- models

OUTPUTS = {
    "tuple": lambda z: (z, z.mean()),
    "list": lambda z: [z],
    "dictionary": lambda z: {"loss": None, "logits": z},
    "object": lambda z: SimpleNamespace(logits=z, hidden_states=None),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_that_hold_logits(case, make_network, make_images):
    network, images = make_network(), make_images()
    expected = FourierMask(network, steps=12).attribute(images)
    found = FourierMask(lambda x: OUTPUTS[case](network(x)), steps=12).attribute(images)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_other_precisions(kind, make_network, make_images):
    images = make_images(4)
    found = FourierMask(make_network().to(kind), mean=0.5, std=0.2, steps=30).fit(images)
    assert found.masks.half.dtype == torch.float32
    assert float(found.kept.float().mean()) >= 0.75
    assert Classifier(make_network().to(kind))(images).dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_images_of_other_precisions(kind, make_network, make_images):
    found = FourierMask(make_network(), steps=2).fit(make_images().to(kind))
    assert found.images.dtype == (torch.float64 if kind == torch.float64 else torch.float32)


def test_it_works_inside_no_grad(make_network, make_images):
    explain, images = FourierMask(make_network(), steps=12), make_images()
    expected = explain.attribute(images)
    with torch.no_grad():
        found = explain.attribute(images)
        assert explain.estimate(images).seconds > 0
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_a_classifier_may_be_given_to_the_whole_library(make_network, make_images):
    classifier = Classifier(make_network(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    images, labels = classifier.pixels(make_images())
    by_hand = make_network()((images - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.2)
    torch.testing.assert_close(classifier(images), by_hand)
    assert classifier.centre.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert FourierMask(classifier).classifier is classifier
    masks = fmlib.minimal_masks(classifier, images, labels, MinimalMaskSpec(steps=2), progress=False)
    assert masks.half.shape == (2, 16, 9)
    attacked = fmlib.perturb(classifier, images, labels, fmlib.AttackSpec(steps=1), seed=0, purpose="test")
    assert attacked.shape == images.shape
    function = Classifier(lambda x: classifier(x))
    attacked = fmlib.perturb(function, images, labels, fmlib.AttackSpec(steps=1), seed=0, purpose="test")
    assert attacked.shape == images.shape


@pytest.mark.parametrize(
    ("options", "centre"),
    [
        ({}, [0.0]),
        ({"mean": 0.4, "std": 0.2}, [0.4]),
        ({"mean": (0.3, 0.4, 0.5), "std": 0.2}, [0.3, 0.4, 0.5]),
        ({"value_range": (-1, 1)}, [0.5]),
        ({"value_range": (0, 255)}, [0.0]),
        ({"value_range": (1, 2)}, [0.0]),
        ({"centre": 0.45}, [0.45]),
        ({"mean": 0.4, "std": 0.2, "centre": (0.1, 0.2, 0.3)}, [0.1, 0.2, 0.3]),
    ],
)
def test_masks_filter_about_what_the_model_sees_as_zero(options, centre, make_network):
    assert FourierMask(make_network(), **options).classifier.centre.flatten().tolist() == pytest.approx(centre)


def test_the_fingerprint_follows_the_weights(make_network, make_images):
    network = make_network()
    first = Classifier(network).fingerprint()
    assert first == Classifier(make_network(), mean=0.5, std=0.2).fingerprint()
    network[0].weight.data[0, 0, 0, 0] += 1e-6
    assert Classifier(network).fingerprint() != first
    assert Classifier(make_network().bfloat16()).fingerprint() != first
    found = FourierMask(network, steps=1).fit(make_images())
    assert found.about["weights_sha256"] == Classifier(network).fingerprint()


# ------------------------------------------------------------------------------------------ steps, time and warnings


def test_masks_that_did_not_converge_are_counted(make_network, make_images, trained, synthetic):
    with pytest.warns(UserWarning, match="3 of 3 masks did not converge.*Increase steps"):
        FourierMask(make_network(), steps=1, penalty=1e6).fit(make_images(3), torch.tensor([0, 1, 2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FourierMask(trained).fit(synthetic.validation.pixels(slice(4)))


def test_the_warning_points_to_the_caller(make_network, make_images):
    explain = FourierMask(make_network(), steps=1)
    for call in (explain.fit, explain.attribute):
        with pytest.warns(UserWarning, match="did not converge") as caught:
            call(make_images(), torch.tensor([0, 1]))
        assert caught[0].filename == __file__


def test_runs_and_batches(make_network, make_images):
    images = make_images(5).double()
    explain = FourierMask(make_network().double(), steps=12)
    expected = explain.attribute(images)
    assert torch.equal(explain.attribute(images), expected)
    torch.testing.assert_close(FourierMask(make_network().double(), steps=12, batch_size=2).attribute(images), expected)
    assert not torch.equal(FourierMask(make_network().double(), steps=12, seed=1).attribute(images), expected)


def test_time_is_kept_by_fewer_steps(make_network, make_images, monkeypatch):
    monkeypatch.setattr(FourierMask, "_estimate", lambda *_: Estimate(4.0, 1.0, 100))
    found = FourierMask(make_network(), steps=40, max_seconds=2).fit(make_images())
    assert found.about["spec"]["steps"] == 20
    found = FourierMask(make_network(), steps=40, max_seconds=5).fit(make_images())
    assert found.about["spec"]["steps"] == 40
    found = FourierMask(make_network(), solver="adam", max_seconds=2).fit(make_images(), shared="all")
    assert found.about["spec"]["epochs"] == 120


def test_estimates(make_network, make_images):
    explain = FourierMask(make_network(), steps=20, batch_size=3)
    few, many = explain.estimate(make_images(3)), explain.estimate(make_images(30))
    assert (few.passes, many.passes) == (60, 600)
    assert many.memory == few.memory > 0
    assert 0 < few.seconds < many.seconds


def test_the_batch_is_as_large_as_memory_allows(make_network, make_images, monkeypatch):
    explain = FourierMask(make_network())
    pixels, labels = explain.classifier.pixels(make_images(4))
    assert explain._batch_size(pixels, labels) == fourier_mask.LARGEST_BATCH
    monkeypatch.setattr(fourier_mask, "MEMORY", 3.5 * explain._bytes_per_image(pixels, labels))
    assert explain._batch_size(pixels, labels) == 3


def test_progress_is_shown_if_wanted(make_network, make_images, capsys):
    FourierMask(make_network(), steps=3).fit(make_images())
    assert not capsys.readouterr().err
    FourierMask(make_network(), steps=3, progress=True).fit(make_images())
    assert "3/3" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- files, pictures


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}])
@pytest.mark.parametrize("shared", ["none", "class", "all"])
def test_files_hold_everything_but_the_history(options, shared, tmp_path, make_network, make_images):
    if options.get("per_channel") and shared != "none":
        return
    saved = FourierMask(make_network(), steps=12, **options).fit(make_images(height=15, width=17), shared=shared)
    saved.save(tmp_path / "masks.safetensors")
    loaded = Explanation.load(str(tmp_path / "masks.safetensors"))
    for name in ("images", "labels", "index", "centre", "kept", "kept_complement"):
        assert torch.equal(getattr(loaded, name), getattr(saved, name)), name
    for name in ("half", "converged", "epochs"):
        assert torch.equal(getattr(loaded.masks, name), getattr(saved.masks, name)), name
    assert loaded.masks.width == 17
    assert loaded.about == saved.about
    assert torch.equal(loaded.filtered, saved.filtered)
    assert [path.name for path in tmp_path.iterdir()] == ["masks.safetensors"]


@pytest.mark.parametrize("names", [None, ["a", "b", "c < & $x$", "d" * 200, "é 中"]])
def test_pictures_name_the_classes(names, make_network, make_images):
    found = FourierMask(make_network(), steps=12).fit(make_images(5), torch.arange(5))
    picture = found.plot(names, rows=4)
    assert picture._repr_png_().startswith(b"\x89PNG")
    titles = [axes.get_title() for axes in picture.axes]
    assert len(titles) == 16
    assert titles[::4] == ([f"class {label}" for label in range(4)] if names is None else names[:4])
    assert len(found.plot(rows=99).axes) == 20


# ----------------------------------------------------------------------------------------------------------- the readme


def test_the_example_of_the_readme_works(tmp_path, monkeypatch, make_images):
    page = (Path(__file__).parents[2] / "README.md").read_text()
    source = page.split("```python\n")[1].split("```")[0]
    assert source.count("images = ...") == 1
    published = torchvision.models.resnet18
    monkeypatch.setattr(torchvision.models, "resnet18", lambda weights: published(num_classes=5))  # no download
    monkeypatch.chdir(tmp_path)
    names = {"make_images": make_images}
    exec(source.replace("images = ...", "images = make_images(2, 3, 32, 32)"), names)
    assert names["found"].filtered.shape == (2, 3, 32, 32)
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------- attacks, Jacobian spectra, heat maps


@pytest.mark.parametrize("value_range", [(0, 1), (0, 255), (-1, 1)])
def test_attacks_spectra_and_heat_maps_through_the_same_door(value_range, make_network, make_images):
    """In any declared range they are those of `core` on pixels in [0, 1]."""
    low, high = value_range
    pixels = make_images(5, 3, 16, 12)
    images = low + (high - low) * pixels
    classifier = Classifier(make_network(), mean=0.5, std=0.2, value_range=value_range)
    labels = classifier.predict(pixels)
    spec = fmlib.AttackSpec(epsilon=0.03, step=0.01, steps=5)
    attacked = classifier.attack(images, spec=spec)
    expected = fmlib.perturb(classifier, pixels, labels, spec, seed=0, purpose="report 0")
    torch.testing.assert_close(attacked, expected, atol=1e-5, rtol=0)
    assert 0 < float((attacked - pixels).abs().max()) <= 0.0301
    spectrum = classifier.jacobian_spectrum(images)
    assert spectrum.shape == (5, 16, 12)
    chosen = [(0, 1), (-3, 2), (13, 2), (8, 6)]
    picked = classifier.jacobian_spectrum(images, labels, frequencies=chosen)
    torch.testing.assert_close(picked, spectrum[:, [0, 13, 13, 8], [1, 2, 2, 6]])
    amplitude = fmlib.jacobian_spectrum(classifier, [(pixels, labels)]).amplitude
    torch.testing.assert_close(spectrum.mean(0)[:, :7], amplitude, rtol=1e-3, atol=1e-5 * float(amplitude.max()))
    lost = classifier.heat_map(images, frequencies=chosen, noise=0.3)
    assert (lost.shape, lost.dtype) == ((5, 4), torch.bool)
    assert classifier.heat_map(images[:2], noise=0.3).shape == (2, 16, 7)


@pytest.mark.parametrize("method", ["attack", "jacobian_spectrum", "heat_map"])
def test_the_same_check_for_all(method, make_network, make_images):
    images = make_images()
    call = getattr(Classifier(nn.Sequential(make_network(), nn.Softmax(1))), method)
    with pytest.raises(fmlib.FmlibError, match="probabilities"):
        call(images)
    call = getattr(Classifier(make_network()), method)
    with pytest.raises(fmlib.FmlibError, match="outside the range 0 to 1"):
        call(255 * images)
    with pytest.raises(fmlib.FmlibError, match="labels"):
        call(images, torch.tensor([0, -100]))
    if method != "attack":
        for wrong in ([1, 2], [[0.5, 1.0]], [[0, 16]], [[-9, 0]], []):
            with pytest.raises(fmlib.FmlibError, match="frequencies must"):
                call(images, frequencies=wrong)
