"""Profiles are consistent, and "paper" has the numbers of the paper."""

from __future__ import annotations

import dataclasses

import pytest

from fmlib.core.config import ImageSpec
from fmlib.core.errors import FmlibError
from fmlib.studies.shared.profiles import PROFILES, profile


def test_unknown_profile_is_refused_with_the_choices():
    with pytest.raises(FmlibError, match=r"'huge'.*quick.*laptop.*paper"):
        profile("huge")


@pytest.mark.parametrize("name", ["quick", "laptop", "paper"])
def test_profiles_have_their_names_and_fitting_networks(name):
    chosen = profile(name)
    assert chosen is PROFILES[name]
    assert chosen.name == name
    if isinstance(chosen.data, ImageSpec):
        assert chosen.network.channels == chosen.data.channels
    else:
        assert chosen.network.classes == chosen.data.classes


def test_all_regimes_share_one_training_schedule():
    paper = profile("paper")
    for regime in paper.regimes:
        assert paper.training(regime) == dataclasses.replace(paper.train, regime=regime)


def test_paper_profile_has_the_papers_numbers():
    paper = profile("paper")
    assert (paper.train.epochs, paper.train.batch, paper.train.lr, paper.train.warmup) == (50, 128, 1e-3, 0.1)
    single = paper.single_mask  # the authors' schedule
    assert (single.penalty, single.lr, single.batch, single.epochs, single.patience) == (0.2, 1e-3, 1, 100, 7)
    assert single.one_cycle
    assert paper.mask.penalty == single.penalty
    assert (paper.network.mean, paper.network.std) == (0.449, 0.226)
    assert paper.data == ImageSpec("imagenette", "paper-text", 128, 1)
    attack = paper.train.attack
    assert attack.epsilon / paper.network.std == pytest.approx(0.06)
    assert (attack.step / attack.epsilon, attack.steps) == (pytest.approx(1 / 8), 10)


def test_attacks_of_training_have_the_fields_they_were_published_with():
    for one in PROFILES.values():
        assert set(dataclasses.asdict(one.train)["attack"]) == {"epsilon", "step", "steps"}


def test_a_profile_of_fewer_networks_says_what_it_has():
    paper = profile("paper")
    fewer = paper.only(["S", "N"], 1000)
    assert (fewer.regimes, fewer.repetitions, fewer.n_image_masks) == (("N", "S"), 1, 1000)
    assert fewer.partial == "N, S of one seed, with one fit of each dataset mask; image masks of the first 1,000 images"
    assert paper.only() == paper
    assert (fewer.train, fewer.mask, fewer.name) == (paper.train, paper.mask, "paper")


@pytest.mark.parametrize(
    ("networks", "images", "message"),
    [(["N", "Q"], 0, "unknown network 'Q': choose from N, A, S, T, R"), (["S"], 0, "N must be"), (["N"], -1, "not -1")],
)
def test_a_profile_of_impossible_networks_is_refused(networks, images, message):
    with pytest.raises(FmlibError, match=message):
        profile("paper").only(networks, images)
