"""Fourier heat maps: the basis, misclassified images, chunks, and rank correlation with a mask."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlib.core.config import NetworkSpec
from fmlib.core.data import Split
from fmlib.core.errors import FmlibError
from fmlib.core.heat_maps import basis, errors, heat_map
from fmlib.core.models import build

SIZE, COLUMNS = 16, 9
ALL = torch.cartesian_prod(torch.arange(SIZE), torch.arange(COLUMNS))


@given(st.integers(0, SIZE - 1), st.integers(0, COLUMNS - 1))
def test_a_basis_image_has_unit_norm_and_one_frequency(row, column):
    image = basis(torch.tensor([[row, column]]), (SIZE, SIZE))[0]
    assert image.norm().item() == pytest.approx(1, abs=1e-5)
    power = torch.fft.fft2(image).abs().square()
    places = {(row, column), (-row % SIZE, -column % SIZE)}
    assert sum(power[place].item() for place in places) == pytest.approx(power.sum().item(), rel=1e-5)


def test_basis_images_are_orthogonal_except_for_equal_ones():
    images = basis(ALL, (SIZE, SIZE)).flatten(1)
    twins = (ALL[:, None, 1] == ALL[None, :, 1]) & (ALL[:, None, 1] % (SIZE // 2) == 0)
    same = twins & ((ALL[:, None, 0] + ALL[None, :, 0]) % SIZE == 0)
    expected = (same | torch.eye(len(ALL), dtype=torch.bool)).float()
    torch.testing.assert_close(images @ images.T, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("row", "column"), [(3, 2), (-2, 5), (4, 0), (0, 8), (0, 0)])
def test_a_network_that_reads_one_frequency_errs_only_there_and_for_half_of_the_signs(linear, row, column):
    """Gray images have a margin of 0.1; noise of norm 0.5 moves those with one sign across the decision boundary."""
    weight = basis(torch.tensor([[row, column]]), (SIZE, SIZE)).flatten()
    offset = (weight * 128 / 255).sum()
    model = linear(torch.stack((-weight, weight)), torch.stack((offset + 0.1, -offset - 0.1)))  # class 0 by 0.1
    gray = Split(torch.full((200, 1, SIZE, SIZE), 128, dtype=torch.uint8), torch.zeros(200, dtype=torch.long))
    found = heat_map(model, gray, 0.5, seed=0)
    places = {(row % SIZE, column)} | ({(-row % SIZE, column)} if column % 8 == 0 else set())
    for place in places:
        assert found[place].item() == pytest.approx(0.5, abs=0.15)  # four standard deviations
        found[place] = 0
    assert found.abs().max().item() == 0


@pytest.mark.parametrize("chunk", [1, 7, 24, 25, 1000])
def test_chunks_do_not_change_the_result(trained, synthetic, snapshot, chunk):
    split = Split(synthetic.validation.images[:24], synthetic.validation.labels[:24])
    before = snapshot(trained)
    whole = errors(trained, split, 2.0, seed=0, chunk=24)
    assert whole.shape == (24, SIZE, COLUMNS)
    assert 0 < whole.float().mean().item() < 1
    assert torch.equal(errors(trained, split, 2.0, seed=0, chunk=chunk), whole)
    assert snapshot(trained) == before


def test_no_batch_is_larger_than_a_chunk(trained, synthetic, monkeypatch):
    split = Split(synthetic.validation.images[:24], synthetic.validation.labels[:24])
    seen = []
    trained.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for chunk in (5, 60):
        seen.clear()
        errors(trained, split, 1.0, seed=0, chunk=chunk)
        assert max(seen) <= chunk
        assert sum(seen) == 24 * SIZE * COLUMNS


def test_signs_follow_the_seed_and_differ_between_frequencies_images_and_channels():
    model = build(NetworkSpec("tiny_vgg", channels=3), seed=0)
    gray = Split(torch.full((8, 3, SIZE, SIZE), 128, dtype=torch.uint8), torch.zeros(8, dtype=torch.long))
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0] - 128 / 255))

    def changes(seed: int) -> torch.Tensor:
        seen.clear()
        errors(model, gray, 1.0, seed=seed)
        return torch.cat(seen)

    first = changes(0)
    assert torch.equal(first, changes(0))
    assert not torch.equal(first, changes(1))
    torch.testing.assert_close(first.flatten(2).norm(dim=2), torch.ones(len(first), 3))
    signs = first[:, :, 0, 0].sign().view(SIZE * COLUMNS, 8, 3)  # every wave is positive at the origin
    assert signs.mean().abs().item() < 0.1
    for dim in range(3):
        assert not torch.equal(signs.select(dim, 0), signs.select(dim, 1))


def test_images_stay_within_the_unit_interval(trained):
    seen = []
    trained.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    black = Split(torch.zeros(2, 1, SIZE, SIZE, dtype=torch.uint8), torch.zeros(2, dtype=torch.long))
    errors(trained, black, 30.0, seed=0)
    assert min(images.min().item() for images in seen) == 0
    assert max(images.max().item() for images in seen) == 1


def test_a_norm_of_zero_is_refused(trained, synthetic):
    with pytest.raises(FmlibError, match="norm and chunk must be positive"):
        errors(trained, synthetic.validation, 0.0, seed=0)


def test_chosen_frequencies_have_the_errors_of_the_whole_map_up_to_signs(trained, synthetic):
    data = Split(synthetic.validation.images[:40], synthetic.validation.labels[:40])
    chosen = torch.tensor([[0, 1], [3, 2], [15, 8]])
    found = errors(trained, data, 4.0, seed=0, frequencies=chosen)
    assert found.shape == (40, 3)
    whole = errors(trained, data, 4.0, seed=0)[:, chosen[:, 0], chosen[:, 1]]
    assert (found.float().mean(0) - whole.float().mean(0)).abs().max() < 0.4
    assert torch.equal(found[:, 0], errors(trained, data, 4.0, seed=0, frequencies=chosen[:1])[:, 0])
