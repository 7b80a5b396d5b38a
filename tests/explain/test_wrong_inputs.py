"""Wrong models, images, labels and options. Each is answered by one line: what is wrong and how to fix it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import fmlib
from fmlib import Classifier, FmlibError, FourierMask

NAN, INF = float("nan"), float("inf")
LABELS = torch.tensor([0, 1])

pytestmark = pytest.mark.filterwarnings("ignore:.*did not converge")


class Applies(nn.Module):
    """The tiny network, followed by a function of its logits."""

    def __init__(self, network, function) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, images):
        return self.function(self.network(images))


def raises(error):
    """A function that raises an error."""

    def function(logits):
        raise error

    return function


def refused(message, action):
    """The action raises an `FmlibError` of one short line that matches."""
    with pytest.raises(FmlibError, match=message) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


# ------------------------------------------------------------------------------------------- what the model returns

OUTPUTS = {
    "a single logit": (lambda z: z[:, :1], "a single logit"),
    "one number per image": (lambda z: z[:, 0], r"must return logits \(B, classes\), not \(2,\)"),
    "probabilities": (lambda z: z.softmax(1), "returns probabilities"),
    "one-hot predictions": (lambda z: nn.functional.one_hot(z.argmax(1), 5).float(), "returns probabilities"),
    "class numbers": (lambda z: z.argmax(1), r"must return logits \(B, classes\)"),
    "whole numbers": (lambda z: z.long(), "class numbers"),
    "detached": (lambda z: z.detach(), "no gradient passes"),
    "without autograd": (lambda z: torch.tensor(z.tolist()), "no gradient passes"),
    "rounded": (lambda z: z.round(), "no gradient passes"),
    "constant": (lambda z: 0 * z + torch.arange(5), "no gradient passes"),
    "infinite gradient": (lambda z: z + (z - z).abs().sqrt(), "gradient of the model is NaN or infinite"),
    "NaN": (lambda z: z * NAN, "NaN or infinite logits"),
    "infinite": (lambda z: z / 0, "NaN or infinite logits"),
    "noise": (lambda z: z + torch.randn_like(z), "the model is stochastic"),
    "dropout that stays": (lambda z: nn.functional.dropout(z, training=True), "the model is stochastic"),
    "nothing": (lambda z: None, "not NoneType"),
    "a string": (lambda z: "cat", "not str"),
    "a dictionary without logits": (lambda z: {"loss": z}, "not dict"),
    "an empty tuple": (lambda z: (), "not tuple"),
    "logits that are missing": (lambda z: SimpleNamespace(logits=None), "not NoneType"),
    "another batch": (lambda z: torch.cat((z, z)), r"not \(4, 5\)"),
    "maps": (lambda z: z[..., None].expand(-1, -1, 7), r"not \(2, 5, 7\)"),
    "fewer classes": (lambda z: z[:, :2], "need 5 classes but the model has 2 logits"),
    "relative to the batch": (lambda z: z - 0.3 * z.mean(0), "depend on the other images"),
    "a fixed batch": (lambda z: z.view(2, 5), "cannot take images .*, 1 at once"),
    "an assertion": (raises(AssertionError("Input height (16) must be 224")), "Input height .16. must be 224"),
    "a missing key": (raises(KeyError("pixel_values")), "pixel_values"),
    "several lines": (raises(ValueError("first\nsecond")), "first$"),
}


@pytest.mark.parametrize("case", OUTPUTS)
@pytest.mark.parametrize("call", ["fit", "attribute", "estimate"])
def test_outputs(case, call, make_network, make_images):
    function, message = OUTPUTS[case]
    explain = FourierMask(Applies(make_network(), function), steps=1)
    labels = torch.tensor([0, 4]) if case == "fewer classes" else None
    refused(message, lambda: getattr(explain, call)(make_images(), labels))


def test_a_model_that_fails_on_later_images(make_network, make_images):
    images = make_images(4)
    images[3] = 1.0
    bright = Applies(make_network(), lambda z: z)
    bright.forward = lambda x: torch.where(x.mean((1, 2, 3), keepdim=True)[..., 0, 0] > 0.95, NAN, bright.network(x))
    refused("not finite", lambda: FourierMask(bright, steps=2).fit(images, LABELS.repeat(2)))


@pytest.mark.parametrize("training", [True, False])
def test_a_function_that_calls_a_module_in_training_mode(training, make_network, make_images):
    network = make_network()
    network[3].train(training)  # dropout
    network[1].train(not training)  # batch normalisation
    message = "stochastic.*eval mode" if training else "other images of its batch.*eval mode"
    refused(message, lambda: FourierMask(lambda images: network(images), steps=1).fit(make_images()))


# ------------------------------------------------------------------------------------------------- models and options

OPTIONS = {
    "a name for a model": ({"model": "resnet18"}, "a module or a function, not str"),
    "no model": ({"model": None}, "a module or a function, not NoneType"),
    "a state for a model": ({"model": {"weight": LABELS}}, "a module or a function, not dict"),
    "mean alone": ({"mean": 0.5}, "mean and std together"),
    "std alone": ({"std": 0.5}, "mean and std together"),
    "mean up to 255": ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "mean must be in units of pixels"),
    "std up to 255": ({"mean": 0, "std": 255}, "std must be in units of pixels"),
    "negative mean": ({"mean": -0.5, "std": 0.5}, "mean must be in units of pixels"),
    "std zero": ({"mean": 0.5, "std": (0.2, 0.0, 0.2)}, "std must be positive"),
    "std negative": ({"mean": 0.5, "std": -0.2}, "std must be positive"),
    "std NaN": ({"mean": 0.5, "std": NAN}, "std must be finite"),
    "no mean": ({"mean": (), "std": 1}, "mean must be finite numbers"),
    "mean in words": ({"mean": "imagenet", "std": 1}, "one number or one per channel, not 'imagenet'"),
    "mean and std of other lengths": ({"mean": (0.5, 0.5, 0.5), "std": (0.2,) * 4}, "3 channels and std has 4"),
    "value_range reversed": ({"value_range": (1, 0)}, "black < white"),
    "value_range empty": ({"value_range": (0, 0)}, "black < white"),
    "value_range infinite": ({"value_range": (0, INF)}, "black < white"),
    "value_range of three": ({"value_range": (0, 1, 2)}, "two numbers"),
    "value_range a number": ({"value_range": 255}, "two numbers"),
    "centre up to 255": ({"centre": (124, 116, 104)}, "centre must be in units of pixels"),
    "centre in words": ({"centre": "gray"}, "centre must be one number or one per channel"),
    "unknown solver": ({"solver": "sgd"}, "unknown solver 'sgd': choose one of slp, adam"),
    "penalty negative": ({"penalty": -0.1}, "penalty must be positive"),
    "penalty zero": ({"penalty": 0}, "penalty must be positive"),
    "penalty NaN": ({"penalty": NAN}, "penalty must be positive"),
    "penalty a word": ({"penalty": "small"}, "penalty must be positive"),
    "no steps": ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
    "steps a fraction": ({"steps": 2.5}, "steps must be a whole number"),
    "steps of adam": ({"steps": -3, "solver": "adam"}, "steps must be a whole number"),
    "batch_size zero": ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
    "batch_size a fraction": ({"batch_size": 1.5}, "batch_size must be a whole number"),
    "seed negative": ({"seed": -1}, "seed must be a whole number of at least 0"),
    "seed a word": ({"seed": "0"}, "seed must be a whole number"),
    "max_seconds zero": ({"max_seconds": 0}, "max_seconds must be positive"),
    "max_seconds negative": ({"max_seconds": -1}, "max_seconds must be positive"),
    "max_seconds infinite": ({"max_seconds": INF}, "max_seconds must be positive"),
    "channels with adam": ({"per_channel": True, "solver": "adam"}, 'per channel need solver="slp"'),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options(case, make_network):
    options, message = OPTIONS[case]
    refused(message, lambda: FourierMask(**{"model": make_network()} | options))


@pytest.mark.parametrize(
    "option", [{"mean": torch.full((3,), 0.5), "std": 1}, {"value_range": (0, 255)}, {"centre": 0.5}]
)
def test_a_classifier_has_its_own_normalisation(option, make_network):
    refused("has its own mean", lambda: FourierMask(Classifier(make_network()), **option))


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"shared": "batch"}, "unknown value 'batch' of shared: choose one of none, class, all"),
        ({}, {"shared": None}, "unknown value None of shared"),
        ({"per_channel": True}, {"shared": "all"}, "shared masks have no channels"),
        ({"solver": "frequency-map"}, {"shared": "class"}, "shared masks have no channels"),
        ({"max_seconds": 1e-7}, {}, "too short.*more time"),
        ({"max_seconds": 1e-7, "solver": "frequency-map"}, {}, "too short.*more time"),
        ({"max_seconds": 1e-7}, {"shared": "class"}, "too short.*more time"),
        ({"max_seconds": 1e-7, "solver": "adam"}, {}, "too short.*more time"),
    ],
)
def test_calls(options, arguments, message, make_network, make_images):
    refused(message, lambda: FourierMask(make_network(), **options).fit(make_images(), LABELS, **arguments))


# ----------------------------------------------------------------------------------------------------------- images

IMAGES = {
    "an array": (lambda x: x.numpy(), {}, "torch tensor, not ndarray"),
    "a list": (lambda x: list(x), {}, "torch tensor, not list"),
    "a path": (lambda x: "cat.jpg", {}, "torch tensor, not str"),
    "two tensors": (lambda x: (x, x), {}, "one tensor of images|torch tensor, not tuple"),
    "one image": (lambda x: x[0], {}, r"shape \(N, C, H, W\), not \(3, 16, 16\)"),
    "videos": (lambda x: x[None], {}, r"shape \(N, C, H, W\)"),
    "none": (lambda x: x[:0], {}, "there are no images"),
    "no channels": (lambda x: x[:, :0], {}, "there are no images"),
    "single pixels": (lambda x: x[..., :1, :1], {}, "at least 2 x 2 pixels"),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), {}, r"cannot take images \(16, 16, 3\)"),
    "gray": (lambda x: x[:, :1], {}, r"cannot take images \(1, 16, 16\)"),
    "channels of mean": (lambda x: x[:, :2], {"mean": (0.5,) * 3, "std": 1}, "mean has 3 channels but the images"),
    "channels of std": (lambda x: x[:, :2], {"mean": 0.5, "std": (1,) * 3}, "std has 3 channels but the images"),
    "channels of centre": (lambda x: x[:, :2], {"centre": (0.5,) * 3}, "centre has 3 channels but the images"),
    "NaN": (lambda x: torch.where(x > 0.6, NAN, x), {}, "NaN or infinite pixels"),
    "infinite": (lambda x: torch.where(x > 0.6, INF, x), {}, "NaN or infinite pixels"),
    "up to 255": (lambda x: 255 * x, {}, "outside the range 0 to 1: declare another value_range"),
    "normalised": (lambda x: (x - 0.5) / 0.2, {}, "outside the range 0 to 1: .*mean and std"),
    "beyond the range": (lambda x: 500 * x, {"value_range": (0, 255)}, "outside the range 0 to 255"),
    "below the range": (lambda x: 3 * x - 2, {"value_range": (-1, 1)}, "outside the range -1 to 1"),
    "divided twice": (lambda x: x / 255, {}, "divided by 255 twice"),
    "divided once too often": (lambda x: x, {"value_range": (0, 255)}, "black.*divided by 255 twice"),
    "black": (lambda x: 0 * x, {}, "the images are black"),
    "bytes without a range": (lambda x: (255 * x).byte(), {}, r"have the value_range \(0, 255\): declare it"),
    "whole numbers": (lambda x: (255 * x).long(), {"value_range": (0, 255)}, "must be floats, not torch.int64"),
    "bools": (lambda x: x > 0.5, {}, "must be floats, not torch.bool"),
    "complex": (lambda x: torch.fft.fft2(x), {}, "must be floats, not torch.complex64"),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "predictions"])
@pytest.mark.parametrize("call", ["fit", "attribute"])
def test_images(case, labels, call, make_network, make_images):
    change, options, message = IMAGES[case]
    explain = FourierMask(make_network(), steps=1, **options)
    images = change(make_images())
    labels = labels[: len(images)] if labels is not None and case in ("none", "videos") else labels
    if case == "one image" and labels is not None:
        labels = torch.zeros(3, dtype=torch.int64)
    refused(message, lambda: getattr(explain, call)(images, labels))


LABEL_CASES = {
    "negative": (torch.tensor([0, -1]), "class numbers from 0"),
    "ignored": (torch.tensor([-100, 1]), "class numbers from 0"),
    "negative for all": (-1, "class numbers from 0"),
    "enormous": (2**70, "class numbers from 0"),
    "too large": (torch.tensor([0, 5]), "need 6 classes but the model has 5"),
    "too large for all": (5, "need 6 classes but the model has 5"),
    "floats": (torch.tensor([0.0, 1.0]), "must be int64 of shape"),
    "int32": (LABELS.int(), "must be int64 of shape"),
    "bools": (LABELS.bool(), "must be int64 of shape"),
    "one-hot": (nn.functional.one_hot(LABELS, 5), r"int64 of shape \(N,\), not torch.int64 of shape \(2, 5\)"),
    "column": (LABELS[:, None], r"of shape \(2, 1\)"),
    "too many": (torch.zeros(3, dtype=torch.int64), r"2 images, but the labels have shape \(3,\)"),
    "too few": (LABELS[:1], r"2 images, but the labels have shape \(1,\)"),
    "none": (LABELS[:0], r"2 images, but the labels have shape \(0,\)"),
    "an array": (LABELS.numpy(), "tensor or one number, not ndarray"),
    "a list": ([0, 1], "tensor or one number, not list"),
    "a name": ("cat", "tensor or one number, not str"),
    "a fraction": (1.5, "tensor or one number, not float"),
    "a truth": (True, "tensor or one number, not bool"),
}


@pytest.mark.parametrize("case", LABEL_CASES)
@pytest.mark.parametrize("call", ["fit", "attribute", "estimate"])
def test_labels(case, call, make_network, make_images):
    labels, message = LABEL_CASES[case]
    refused(message, lambda: getattr(FourierMask(make_network(), steps=1), call)(make_images(), labels))


# -------------------------------------------------------------------------------------- modes, files and pictures


def test_inference_mode_is_refused(make_network, make_images):
    explain = FourierMask(make_network(), steps=1)
    with torch.inference_mode():
        images = make_images()
        refused(r"leave torch.inference_mode\(\)", lambda: explain.fit(images))
        refused(r"leave torch.inference_mode\(\)", lambda: explain.estimate(images, 0))
    assert explain.fit(images, LABELS).masks.half.shape == (2, 16, 9)  # images made in inference mode may be used


@pytest.fixture
def saved(tmp_path, make_network, make_images):
    """A file of masks."""
    FourierMask(make_network(), steps=12).fit(make_images()).save(tmp_path / "masks.safetensors")
    return tmp_path / "masks.safetensors"


def test_files_that_cannot_be_read(saved, tmp_path):
    content = saved.read_bytes()
    broken = tmp_path / "broken.safetensors"
    for damage in (content[:-100], content[:40], b"", b"PK" + content, np.random.default_rng(0).bytes(500)):
        broken.write_bytes(damage)
        refused("is not a file of fmlib's masks", lambda: fmlib.Explanation.load(broken))
    refused("nowhere.*is not a file of fmlib's masks", lambda: fmlib.Explanation.load(tmp_path / "nowhere"))
    refused("is not a file of fmlib's masks", lambda: fmlib.Explanation.load(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"half": t["half"][..., :-1]},
        lambda t: {"half": t["half"][:1]},
        lambda t: {"half": t["half"][:, None].expand(-1, 2, -1, -1)},
        lambda t: {"images": t["images"][..., :-1]},
        lambda t: {"images": t["images"][0]},
        lambda t: {"labels": t["labels"][:1]},
        lambda t: {"index": t["index"] + 1},
        lambda t: {"index": t["index"] - 1},
        lambda t: {"kept": t["kept"][:1]},
        lambda t: {"converged": t["converged"][:1]},
        lambda t: {"centre": t["centre"].flatten()},
    ],
)
def test_files_whose_tensors_do_not_fit(saved, change):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved)
    with safe_open(saved, "pt") as file:
        about = file.metadata()
    save_file({k: v.contiguous() for k, v in (tensors | change(tensors)).items()}, saved, about)
    refused("is damaged: its masks, images and labels do not fit together", lambda: fmlib.Explanation.load(saved))


@pytest.mark.parametrize("about", [None, {}, {"about": "["}, {"about": "{}"}, {"about": "3"}, {"about": '"width"'}])
def test_files_of_other_programs(saved, about):
    from safetensors.torch import load_file, save_file

    save_file(load_file(saved), saved, about)
    refused("is not a file of fmlib's masks", lambda: fmlib.Explanation.load(saved))


def test_a_file_that_cannot_be_written(saved, tmp_path):
    found = fmlib.Explanation.load(saved)
    refused("cannot write", lambda: found.save(tmp_path / "nowhere" / "masks.safetensors"))
    refused("cannot write", lambda: found.save(tmp_path))


def test_names_that_are_too_few(saved):
    found = fmlib.Explanation.load(saved)
    found.labels = torch.tensor([0, 3])
    refused("need 4 names, not 2", lambda: found.plot(["cat", "dog"]))
    refused("rows must be at least 1", lambda: found.plot(rows=0))
