"""Specs are checked when created, frozen, and fingerprinted by their content."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.config import (
    AttackSpec,
    EvaluationSpec,
    FrequencyMapSpec,
    ImageMaskSpec,
    ImageSpec,
    JacobianTrainSpec,
    MaskSpec,
    NetworkSpec,
    SyntheticSpec,
    TrainSpec,
    fingerprint,
    spec_dict,
)
from fmlib.core.errors import FmlibError

SPECS = (
    AttackSpec,
    EvaluationSpec,
    FrequencyMapSpec,
    JacobianTrainSpec,
    MaskSpec,
    NetworkSpec,
    ImageSpec,
    SyntheticSpec,
    TrainSpec,
)

IMPOSSIBLE = [
    (SyntheticSpec, {"size": 8}),
    (SyntheticSpec, {"size": 33}),
    (SyntheticSpec, {"classes": 1}),
    (SyntheticSpec, {"classes": 9}),
    (SyntheticSpec, {"classes": 5, "validation": 4}),
    (SyntheticSpec, {"classes": 5, "train": 4}),
    (ImageSpec, {"source": "imagenet"}),
    (ImageSpec, {"channels": 2}),
    (ImageSpec, {"size": 15}),
    (ImageSpec, {"size": 17}),
    (NetworkSpec, {"std": 0.0}),
    (NetworkSpec, {"classes": 1}),
    (AttackSpec, {"epsilon": 0.0}),
    (AttackSpec, {"epsilon": 4.0}),  # 4/255 written without the division
    (AttackSpec, {"step": 0.0}),
    (AttackSpec, {"steps": 0}),
    (TrainSpec, {"epochs": 0}),
    (TrainSpec, {"batch": 0}),
    (TrainSpec, {"lr": 0.0}),
    (TrainSpec, {"lr": math.nan}),
    (TrainSpec, {"warmup": -0.1}),
    (TrainSpec, {"warmup": 1.5}),
    (TrainSpec, {"crop": (0.0, 1.0)}),
    (TrainSpec, {"crop": (0.5, 0.4)}),
    (TrainSpec, {"crop": (0.5, 1.1)}),
    (JacobianTrainSpec, {"weight": 0.0}),
    (JacobianTrainSpec, {"weight": math.inf}),
    (JacobianTrainSpec, {"weight": math.nan}),
    (JacobianTrainSpec, {"images": 0}),
    (JacobianTrainSpec, {"lr": 0.0}),
    (EvaluationSpec, {"restarts": 0}),
    (EvaluationSpec, {"queries": 0}),
    (EvaluationSpec, {"epsilon": 1.0}),
    (MaskSpec, {"penalty": -0.1}),
    (MaskSpec, {"penalty": math.nan}),
    (MaskSpec, {"lr": 0.0}),
    (MaskSpec, {"batch": 0}),
    (MaskSpec, {"epochs": 0}),
    (MaskSpec, {"patience": 0}),
    (MaskSpec, {"clip": 0.0}),
    (MaskSpec, {"clip": 9.5}),
    (FrequencyMapSpec, {"penalty": -0.1}),
    (FrequencyMapSpec, {"lr": 0.0}),
    (FrequencyMapSpec, {"batch": 0}),
    (FrequencyMapSpec, {"epochs": 0}),
    (FrequencyMapSpec, {"window": 1}),
    (FrequencyMapSpec, {"window": 500}),  # of 500 losses, before there are that many
    (FrequencyMapSpec, {"loss_tol": -1e-5}),
    (FrequencyMapSpec, {"loss_tol": math.nan}),
]


@pytest.mark.parametrize(("spec", "change"), IMPOSSIBLE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_impossible_values_are_refused(spec, change):
    with pytest.raises(FmlibError):
        spec(**change)


@pytest.mark.parametrize(("spec", "change"), IMPOSSIBLE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_impossible_values_are_refused_in_a_changed_copy_too(spec, change):
    with pytest.raises(FmlibError):
        dataclasses.replace(spec(), **change)


@pytest.mark.parametrize("spec", SPECS)
def test_unknown_fields_fail(spec):
    with pytest.raises((FmlibError, TypeError), match="colour"):
        spec(colour=1)


@pytest.mark.parametrize("spec", SPECS)
def test_specs_are_frozen(spec):
    made = spec()
    name = dataclasses.fields(made)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, name, getattr(made, name))


# ------------------------------------------------------------------------------------------------ fingerprints

trees = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def same(first, second) -> bool:
    """Equal as JSON, where True is not 1."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@given(trees, trees)
def test_fingerprints_agree_exactly_where_values_do(first, second):
    assert (fingerprint(first) == fingerprint(second)) == same(first, second)


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=2))
def test_order_of_keys_does_not_matter(value):
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


def test_fingerprint_is_short_hexadecimal():
    digits = fingerprint(MaskSpec())
    assert len(digits) == 16
    int(digits, 16)


@pytest.mark.parametrize("spec", SPECS)
def test_every_field_of_a_spec_counts(spec):
    """A changed field changes the fingerprint, even one inside a nested spec."""
    made = spec()
    digits = {fingerprint(made)}
    fields = spec_dict(made)
    for name in fields:
        digits.add(fingerprint({**fields, name: "something else"}))
    assert len(digits) == len(fields) + 1
    assert fingerprint(made) == fingerprint(fields)


def test_published_masks_keep_their_fingerprints():
    """Results are stored under them: a new field or default would orphan the results."""
    assert fingerprint(MaskSpec()) == "493a2a090e19a171"
    assert fingerprint(ImageMaskSpec()) == "6a3fca836f7d582a"


def test_a_nested_attack_counts():
    assert fingerprint(TrainSpec()) != fingerprint(TrainSpec(attack=AttackSpec(steps=11)))


def test_specs_of_published_networks_have_the_fields_they_were_published_with():
    attack = {"epsilon", "step", "steps"}
    assert set(dataclasses.asdict(AttackSpec())) == attack
    assert set(dataclasses.asdict(TrainSpec())) == {
        "regime", "epochs", "batch", "lr", "warmup", "crop", "flip", "attack"
    }  # fmt: skip
    assert set(dataclasses.asdict(TrainSpec())["attack"]) == attack


def test_renamed_fields_and_values_keep_their_first_names():
    assert spec_dict(MaskSpec(share_tol=0.5, min_accuracy_ratio=0.25))["still"] == 0.5
    assert spec_dict(MaskSpec(share_tol=0.5, min_accuracy_ratio=0.25))["keep"] == 0.25
    assert spec_dict(JacobianTrainSpec(statistic="jacobian_norm"))["statistic"] == "size"
    assert spec_dict(JacobianTrainSpec(statistic="jafr"))["statistic"] == "jafr"
