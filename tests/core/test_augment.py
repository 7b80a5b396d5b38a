"""Random affine maps, warps, and the regimes of training."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fmlib.core.augment import NETWORK_NAMES, REGIMES, Batch, random_affine, warp
from fmlib.core.config import AttackSpec, TrainSpec
from fmlib.core.data import Split
from fmlib.core.device import generator

seeds = st.integers(0, 2**32)

IDENTITY = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def random_images(seed: int, count: int = 2, height: int = 9, width: int = 9) -> torch.Tensor:
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(seed))


def close(first, second):
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@given(seeds, st.integers(2, 12), st.integers(2, 12))
def test_identity_warp_rerotations_the_image(seed, height, width):
    images = random_images(seed, 2, height, width)
    close(warp(images, IDENTITY.expand(2, 2, 3)), images)


@given(seeds, st.integers(1, 5))
def test_no_augmentation_is_the_identity_map(seed, count):
    maps = random_affine(count, generator(seed, "x"))
    assert torch.equal(maps, IDENTITY.expand(count, 2, 3))


@given(seeds, st.integers(2, 12))
def test_mirroring_map_flips_left_and_right(seed, width):
    images = random_images(seed, 2, 7, width)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]])
    close(warp(images, mirror.expand(2, 2, 3)), images.flip(-1))


def test_flips_are_horizontal_and_of_about_half():
    maps = random_affine(2000, generator(0, "flip"), flip=True)
    flipped = maps[:, 0, 0] == -1
    close(torch.where(flipped[:, None, None], maps * torch.tensor([[-1.0], [1.0]]), maps), IDENTITY.expand(2000, 2, 3))
    assert abs(flipped.float().mean().item() - 0.5) < 5 * 0.5 / 2000**0.5  # five sigma


@given(seeds, st.integers(-4, 4), st.integers(-4, 4))
def test_a_shift_by_whole_pixels_moves_the_content_right_and_down(seed, right, down):
    images = random_images(seed, 1, 9, 12)
    maps = torch.tensor([[[1.0, 0, -2 * right / 12], [0, 1, -2 * down / 9]]])
    expected = torch.zeros_like(images)
    rows, columns = slice(max(down, 0), 9 + min(down, 0)), slice(max(right, 0), 12 + min(right, 0))
    source_rows, source_columns = slice(max(-down, 0), 9 + min(-down, 0)), slice(max(-right, 0), 12 + min(-right, 0))
    expected[..., rows, columns] = images[..., source_rows, source_columns]
    close(warp(images, maps), expected)


def test_translations_fill_their_range_in_both_directions():
    maps = random_affine(4000, generator(1, "shift"), translation=0.4)
    assert torch.equal(maps[:, :, :2], torch.eye(2).expand(4000, 2, 2))
    shift = maps[:, :, 2] / 2  # fraction of the side
    assert shift.abs().max().item() <= 0.4 + 1e-6
    for axis in range(2):
        assert shift[:, axis].min().item() < -0.39
        assert shift[:, axis].max().item() > 0.39
        assert abs(shift[:, axis].mean().item()) < 5 * 0.8 / 12**0.5 / 4000**0.5
    assert abs(torch.corrcoef(shift.T)[0, 1].item()) < 5 / 4000**0.5


@given(seeds, st.integers(2, 12))
def test_quarter_turn_map_is_rot90(seed, side):
    images = random_images(seed, 2, side, side)
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0]])  # the form of random_affine's rotations, at 90 degrees
    close(warp(images, quarter.expand(2, 2, 3)), torch.rot90(images, -1, (-2, -1)))
    close(warp(images, -quarter.expand(2, 2, 3)), torch.rot90(images, 1, (-2, -1)))


@pytest.mark.parametrize("most", [20, 180])
def test_rotations_are_pure_and_fill_their_range(most):
    maps = random_affine(4000, generator(2, "turn"), rotation=most)
    rotations = maps[:, :, :2]
    close(rotations @ rotations.transpose(1, 2), torch.eye(2).expand(4000, 2, 2))
    close(torch.linalg.det(rotations), torch.ones(4000))
    assert torch.equal(maps[:, :, 2], torch.zeros(4000, 2))
    angle = torch.atan2(rotations[:, 0, 1], rotations[:, 0, 0]).rad2deg()
    assert angle.abs().max().item() <= most + 1e-3
    assert angle.min().item() < -0.98 * most
    assert angle.max().item() > 0.98 * most


def test_zooms_fill_their_range_and_enlarge_above_one():
    maps = random_affine(4000, generator(3, "zoom"), scale=(0.5, 1.5))
    zoom = 1 / maps[:, 0, 0]
    close(maps, torch.cat((torch.eye(2) / zoom[:, None, None], torch.zeros(4000, 2, 1)), -1))
    assert 0.5 - 1e-5 <= zoom.min().item() < 0.51
    assert 1.49 < zoom.max().item() <= 1.5 + 1e-5
    assert abs(zoom.mean().item() - 1) < 5 / 12**0.5 / 4000**0.5
    square = torch.zeros(1, 1, 16, 16)
    square[..., 6:10, 6:10] = 1
    larger = warp(square, random_affine(1, generator(0, "x"), scale=(2.0, 2.0)))
    assert larger.sum().item() == pytest.approx(4 * square.sum().item(), rel=0.05)


def test_crops_have_the_wanted_area_and_ratio_and_stay_inside():
    """Areas of at most 3/4 fit into the image at every aspect ratio, so nothing is clipped."""
    low, high, count = 0.2, 0.7, 4000
    maps = random_affine(count, generator(4, "crop"), crop=(low, high))
    width, height = maps[:, 0, 0], maps[:, 1, 1]
    assert torch.equal(maps[:, [0, 1], [1, 0]], torch.zeros(count, 2))
    area, ratio = width * height, width / height
    assert low - 1e-5 <= area.min().item() < low + 0.01
    assert high - 0.01 < area.max().item() <= high + 1e-5
    assert abs(area.mean().item() - (low + high) / 2) < 5 * (high - low) / 12**0.5 / count**0.5
    assert 3 / 4 - 1e-5 <= ratio.min().item() < 0.76
    assert 1.32 < ratio.max().item() <= 4 / 3 + 1e-5
    assert abs(ratio.log().mean().item()) < 5 * math.log(16 / 9) / 12**0.5 / count**0.5
    margin = 1 - torch.stack((width, height), -1)
    assert bool((maps[:, :, 2].abs() <= margin + 1e-5).all())
    assert (maps[:, :, 2] / margin).abs().max().item() > 0.99


def test_the_shift_comes_last():
    """Zoom and rotation leave the centre of the image where it is, so that only the shift moves it."""
    maps = random_affine(4000, generator(5, "all"), scale=(0.5, 1.5), rotation=180, translation=0.4, flip=True)
    centre = torch.linalg.solve(maps[:, :, :2], -maps[:, :, 2])  # where the output shows the input's (0, 0)
    assert centre.abs().max().item() <= 0.8 + 1e-4
    assert (centre.abs().amax(0) > 0.78).all()


@given(seeds, st.floats(0.05, 1), st.booleans())
def test_crops_never_leave_the_image(seed, low, flip):
    maps = random_affine(50, generator(seed, "crop"), crop=(low, 1.0), flip=flip)
    corners = torch.tensor([[-1.0, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]])
    assert (maps @ corners.T).abs().max().item() <= 1 + 1e-5


@given(seeds)
def test_same_generator_same_maps(seed):
    ranges = {"flip": True, "crop": (0.1, 1.0), "scale": (0.5, 1.5), "translation": 0.4, "rotation": 180.0}
    first = random_affine(6, generator(seed, "x"), **ranges)
    assert torch.equal(first, random_affine(6, generator(seed, "x"), **ranges))
    assert not torch.equal(first, random_affine(6, generator(seed, "y"), **ranges))


@given(seeds)
def test_warped_pixels_stay_in_range(seed):
    images = random_images(seed, 4)
    maps = random_affine(4, generator(seed, "x"), crop=(0.1, 1.0), scale=(0.5, 1.5), translation=0.4, rotation=180)
    out = warp(images, maps)
    assert 0 <= out.min().item() <= out.max().item() <= 1 + 1e-6
    assert out.shape == images.shape


# ----------------------------------------------------------------------------------------------------- regimes


@pytest.fixture
def small(synthetic) -> Split:
    """96 training images."""
    return Split(synthetic.train.images[:96], synthetic.train.labels[:96])


def batch_of(model, split, spec, step=0) -> Batch:
    return Batch(split.pixels(), split.labels, model, spec, generator(0, "regime"), 0, step)


@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_regimes_return_pixels_of_the_same_shape(trained, small, regime):
    images = REGIMES[regime].augment(batch_of(trained, small, TrainSpec(regime)))
    assert images.shape == small.images.shape
    assert 0 <= images.min().item() <= images.max().item() <= 1 + 1e-6
    assert not torch.allclose(images, small.pixels(), atol=0.01)


def test_standard_regime_without_crop_and_flip_leaves_the_images(trained, small, quick_training):
    torch.testing.assert_close(
        REGIMES["N"].augment(batch_of(trained, small, quick_training)), small.pixels(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("regime", ["S", "T", "R"])
def test_geometric_regimes_move_the_images_even_without_crop_and_flip(trained, small, quick_training, regime):
    images = REGIMES[regime].augment(batch_of(trained, small, quick_training))
    moved = (images - small.pixels()).abs().amax((1, 2, 3)) > 0.05
    assert moved.float().mean().item() > 0.9


def test_adversarial_regime_stays_within_epsilon_of_the_standard_one_and_raises_the_loss(trained, small, snapshot):
    spec = TrainSpec("A", attack=AttackSpec(0.1, 0.02, 10), flip=True, crop=(0.5, 1.0))
    before = snapshot(trained)
    attacked = REGIMES["A"].augment(batch_of(trained, small, spec))
    standard = REGIMES["N"].augment(batch_of(trained, small, spec))
    assert (attacked - standard).abs().max().item() <= 0.1 + 1e-6
    with torch.no_grad():
        loss = nn.functional.cross_entropy
        assert loss(trained(attacked), small.labels).item() > loss(trained(standard), small.labels).item()
    assert snapshot(trained) == before


def test_attacks_on_a_network_in_training_have_its_precision(trained, small, request):
    """Attacks are most of the cost of adversarial training."""
    spec, seen = TrainSpec("A", attack=AttackSpec(steps=3)), []
    trained.network[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    full = REGIMES["A"].augment(batch_of(trained, small, spec))
    request.getfixturevalue("bfloat16_on_cpu")
    reduced = REGIMES["A"].augment(batch_of(trained, small, spec))
    assert seen == 3 * [torch.float32] + 3 * [torch.bfloat16]
    assert full.dtype == reduced.dtype == torch.float32
    assert (reduced - full).abs().max().item() <= 2 * spec.attack.epsilon + 1e-6


def test_attacks_of_different_steps_start_at_different_points(trained, small):
    spec = TrainSpec("A", crop=(1.0, 1.0), flip=False, attack=AttackSpec(steps=1))
    first, second = (REGIMES["A"].augment(batch_of(trained, small, spec, step)) for step in (0, 1))
    assert not torch.equal(first, second)


def test_fgsm_regime_changes_every_inner_pixel_by_epsilon(trained, small):
    spec = TrainSpec("F", attack=AttackSpec(0.05), crop=(1.0, 1.0), flip=False)
    change = (REGIMES["F"].augment(batch_of(trained, small, spec)) - small.pixels()).abs()
    inner = (small.pixels() > 0.05) & (small.pixels() < 0.95)
    assert (change[inner] > 0.0499).float().mean().item() > 0.99  # where the gradient is non-zero
    assert change.max().item() <= 0.05 + 1e-5  # the warp's rounding


def test_every_regime_has_a_name_in_words():
    assert NETWORK_NAMES["N"] == "standard"
    assert NETWORK_NAMES["A"] == "adversarially trained"
    assert list(NETWORK_NAMES) == list(REGIMES)
    assert len(set(NETWORK_NAMES.values())) == len(REGIMES)
