"""Planted frequencies, photographs from disk and their mishaps, and augmentation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fmlib.core.augment import random_affine, warp
from fmlib.core.config import ImageSpec, SyntheticSpec
from fmlib.core.data import SELECTIONS, Split, folders, load_images, source_fingerprint
from fmlib.core.device import generator
from fmlib.core.errors import FmlibError
from fmlib.core.synthetic import make_synthetic, synthetic_tones, tone_mask
from fmlib.studies.shared.setup import load_dataset

planted_specs = st.builds(
    SyntheticSpec,
    size=st.integers(8, 20).map(lambda n: 2 * n),
    classes=st.integers(2, 8),
    distractors=st.integers(0, 8),
)
seeds = st.integers(0, 2**32)

# -------------------------------------------------------------------------------------------- planted frequencies


@given(planted_specs, seeds)
def test_tones_are_distinct_off_axis_and_below_nyquist(spec, seed):
    classes, distractors = synthetic_tones(spec, seed)
    assert len(classes) == spec.classes
    assert len(distractors) == spec.distractors
    tones = [tuple(tone) for tone in torch.cat((classes, distractors)).tolist()]
    mirrors = [(-row, -column) for row, column in tones]
    assert len({*tones, *mirrors}) == 2 * len(tones)
    assert all(0 < abs(n) < spec.size // 2 for tone in tones for n in tone)


def test_more_tones_than_the_plane_holds_are_refused():
    with pytest.raises(FmlibError):
        synthetic_tones(SyntheticSpec(size=16, distractors=500))


@given(planted_specs, seeds)
def test_tone_mask_is_symmetric_and_marks_each_tone_and_its_mirror(spec, seed):
    tones, _ = synthetic_tones(spec, seed)
    mask = tone_mask(tones, spec.size)
    assert mask.sum().item() == 2 * spec.classes
    assert torch.equal(mask, torch.roll(mask.flip((0, 1)), (1, 1), (0, 1)))
    assert all(mask[row, column] == mask[-row, -column] == 1 for row, column in tones.tolist())


def test_spectra_peak_at_the_class_tone_and_the_distractors(planted, planted_spec):
    tones, distractors = synthetic_tones(planted_spec)
    for label in range(planted_spec.classes):
        pixels = planted.train.pixels(planted.train.labels == label)[:, 0]
        amplitude = torch.fft.fft2(pixels).abs().mean(0)
        amplitude[0, 0] = 0
        expected = tone_mask(torch.cat((tones[label : label + 1], distractors)), planted_spec.size)
        peaks = amplitude.flatten().topk(int(expected.sum())).indices
        assert set(peaks.tolist()) == set(expected.flatten().nonzero().flatten().tolist())


def test_without_noise_every_image_has_its_tone_and_half_have_each_distractor():
    """The tone at its full amplitude; a distractor in about half of the images of every class; nothing else."""
    spec = SyntheticSpec(size=16, classes=3, distractors=2, noise=0.0, train=900)
    data, (tones, distractors) = make_synthetic(spec), synthetic_tones(spec)
    heights = torch.fft.fft2(data.train.pixels()[:, 0]).abs() * 2 / spec.size**2  # (N, H, W), amplitudes of waves
    rounding = 1.01 / 255  # of a wave's amplitude, where every pixel is rounded by at most half a step
    for label in range(3):
        mine = heights[data.train.labels == label]
        allowed = tone_mask(torch.cat((tones[label : label + 1], distractors)), spec.size)
        allowed[0, 0] = 1
        assert (mine * (1 - allowed)).max().item() <= rounding
        own = mine[:, tones[label, 0], tones[label, 1]]
        torch.testing.assert_close(own, torch.full((300,), spec.amplitude), atol=rounding, rtol=0)
        for row, column in distractors.tolist():
            height = mine[:, row, column]
            assert height.max().item() <= spec.amplitude + rounding
            present = (height > rounding).float().mean().item()
            faint = 0.5 * rounding / spec.amplitude  # present, but lost in rounding
            assert 0.5 - faint - 5 * 0.5 / 300**0.5 < present < 0.5 + 5 * 0.5 / 300**0.5  # five sigma


def test_phases_are_random(planted, planted_spec):
    """The mean image holds far less of a tone than the single images do: only its amplitude tells the class."""
    tones, _ = synthetic_tones(planted_spec)
    row, column = tones[0].tolist()
    spectrum = torch.fft.fft2(planted.train.pixels(planted.train.labels == 0)[:, 0])[:, row, column]
    assert (spectrum.mean().abs() / spectrum.abs().mean()).item() < 4 / len(spectrum) ** 0.5


@settings(max_examples=5)
@given(seeds)
def test_same_seed_same_images(seed):
    spec = SyntheticSpec(size=16, train=10, validation=5)
    first, second = make_synthetic(spec, seed), make_synthetic(spec, seed)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.validation.images, second.validation.images)
    assert first.classes == second.classes
    other = make_synthetic(spec, seed + 1)
    assert not torch.equal(first.train.images, other.train.images)


def test_planted_splits_have_the_promised_form(planted, planted_spec):
    for split, count in ((planted.train, planted_spec.train), (planted.validation, planted_spec.validation)):
        assert split.images.shape == (count, 1, 16, 16)
        assert split.images.dtype == torch.uint8
        assert torch.bincount(split.labels).tolist() == [count // 3] * 3
    assert not torch.equal(planted.train.images[: planted_spec.validation], planted.validation.images)
    assert len(planted.classes) == len(set(planted.classes)) == 3


def test_load_makes_planted_data_without_a_folder(planted, planted_spec):
    assert torch.equal(load_dataset(planted_spec).train.images, planted.train.images)


# ------------------------------------------------------------------------------------------------------ splits


def test_batches_cover_a_split_in_order(random_split):
    split = random_split(7)
    pixels, labels = zip(*split.batches(3), strict=True)
    assert [len(part) for part in labels] == [3, 3, 1]
    assert torch.equal(torch.cat(pixels), split.pixels())
    assert torch.equal(torch.cat(labels), split.labels)


def test_pixels_run_from_nought_to_one():
    split = Split(torch.tensor([[[[0, 51], [204, 255]]]], dtype=torch.uint8), torch.tensor([0]))
    assert split.pixels().tolist() == [
        [
            [
                [
                    0.0,
                    pytest.approx(0.2),
                ],
                [pytest.approx(0.8), 1.0],
            ]
        ]
    ]


# ------------------------------------------------------------------------------------------------- photographs


def write_tree(base, classes=("cat", "dog"), count=2, size=(24, 20), form="png"):
    """A tree train/ and val/ of class folders; every image has its own gray."""
    shade = 0
    for split in ("train", "val"):
        for name in classes:
            folder = base / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                shade += 9
                Image.new("RGB", size, (shade, shade, shade)).save(folder / f"{number}.{form}")
    return base


FOLDER = ImageSpec(source="folder", selection="all", size=16)


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_of_photographs_is_decoded_to_bytes(tmp_path, channels):
    write_tree(tmp_path)
    data = load_images(ImageSpec("folder", "all", 16, channels), tmp_path)
    assert data.classes == ["cat", "dog"]
    assert data.train.images.shape == data.validation.images.shape == (4, channels, 16, 16)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.train.images.float().mean((1, 2, 3)).tolist() == [9, 18, 27, 36]
    assert data.validation.images.float().mean((1, 2, 3)).tolist() == [45, 54, 63, 72]


@pytest.mark.parametrize("size", [(48, 16), (16, 48)])
def test_photographs_are_cropped_in_the_middle(tmp_path, size):
    write_tree(tmp_path, count=1, size=size)
    picture = Image.new("L", size, 0)
    middle = ((size[0] - 16) // 2, (size[1] - 16) // 2)
    picture.paste(200, (*middle, middle[0] + 16, middle[1] + 16))
    picture.save(tmp_path / "train" / "cat" / "0.png")
    assert load_images(FOLDER, tmp_path).train.images[0].unique().tolist() == [200]


def test_decoding_resizes_the_short_side(tmp_path):
    write_tree(tmp_path, count=1, size=(64, 32))
    left = Image.new("L", (64, 32), 0)
    left.paste(255, (0, 0, 32, 32))  # the left half is white: after the crop, still half
    left.save(tmp_path / "train" / "cat" / "0.png")
    assert load_images(FOLDER, tmp_path).train.pixels()[0].mean().item() == pytest.approx(0.5, abs=0.01)


def test_imagenette_classes_get_their_english_names(tmp_path):
    write_tree(tmp_path / "imagenette2-160", classes=("n01440764", "n03028079"), form="jpeg")
    data = load_dataset(ImageSpec("imagenette", "all", 16), tmp_path)
    assert data.classes == ["tench", "church"]
    assert data.train.labels.tolist() == [0, 0, 1, 1]


def test_no_folder_given_is_one_line_that_says_what_to_do():
    with pytest.raises(FmlibError, match="--data-root"):
        load_dataset(FOLDER, None)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FmlibError, match="nowhere"):
        load_dataset(FOLDER, tmp_path / "nowhere")


def test_folder_without_imagenette_is_named(tmp_path):
    with pytest.raises(FmlibError, match=f"imagenette2-160 folder in {tmp_path}"):
        load_dataset(ImageSpec(), tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("source", ["folder", "imagenette"])
def test_tree_without_one_split_names_it(tmp_path, split, source):
    base = tmp_path / "imagenette2-160" if source == "imagenette" else tmp_path
    write_tree(base, classes=("n01440764", "n03028079"), form="jpeg")
    (base / split).rename(base / "elsewhere")
    with pytest.raises(FmlibError, match=str(base / split)):
        load_dataset(ImageSpec(source, "all", 16), tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("source", ["folder", "imagenette"])
def test_class_folder_without_images_names_its_split(tmp_path, split, source):
    base = tmp_path / "imagenette2-160" if source == "imagenette" else tmp_path
    write_tree(base, classes=("n01440764", "n03028079"), form="jpeg")
    for image in (base / split / "n03028079").iterdir():
        image.unlink()
    with pytest.raises(FmlibError, match=str(base / split)):
        load_dataset(ImageSpec(source, "all", 16), tmp_path)


def test_train_and_val_of_different_classes_are_refused(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "wolf")
    with pytest.raises(FmlibError, match="different classes"):
        load_dataset(FOLDER, tmp_path)


def test_selection_without_its_class_folders_names_them(tmp_path):
    wanted = SELECTIONS["paper-text"][0]
    write_tree(tmp_path / "imagenette2-160", classes=wanted[:-1], count=1, form="jpeg")
    with pytest.raises(FmlibError, match=wanted[-1]):
        load_dataset(ImageSpec(), tmp_path)


def test_selection_with_images_missing_says_how_many(tmp_path):
    write_tree(tmp_path / "imagenette2-160", classes=SELECTIONS["paper-text"][0], count=1, form="jpeg")
    with pytest.raises(FmlibError, match=r"train has 5 images of paper-text, not 4710"):
        load_dataset(ImageSpec(), tmp_path)


@pytest.mark.parametrize("source", ["folder", "imagenette"])
def test_unknown_selection_is_named_with_the_choices(tmp_path, source):
    base = tmp_path / "imagenette2-160" if source == "imagenette" else tmp_path
    write_tree(base, classes=("n01440764", "n03028079"), form="jpeg")
    with pytest.raises(FmlibError, match=r"'best'.*paper-text.*paper-code.*all"):
        load_dataset(ImageSpec(source, "best", 16), tmp_path)


def test_selections_are_five_classes_with_the_papers_counts():
    assert SELECTIONS["paper-text"][1:] == (4710, 1934)
    assert SELECTIONS["paper-code"][1:] == (4671, 1973)
    assert all(len(set(names)) == 5 for names, *_ in SELECTIONS.values())


@pytest.mark.parametrize("form", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9])
def test_truncated_image_is_named(tmp_path, form, share):
    write_tree(tmp_path, form=form)
    victim = tmp_path / "val" / "dog" / f"1.{form}"
    Image.radial_gradient("L").resize((24, 20)).save(victim)
    content = victim.read_bytes()
    victim.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FmlibError, match=str(victim)):
        load_dataset(FOLDER, tmp_path)


def test_text_in_an_image_file_is_named(tmp_path):
    write_tree(tmp_path)
    victim = tmp_path / "train" / "cat" / "0.png"
    victim.write_text("<html>404</html>")
    with pytest.raises(FmlibError, match=str(victim)):
        load_dataset(FOLDER, tmp_path)


def test_source_fingerprint_follows_the_files_not_the_place(tmp_path):
    first, second = write_tree(tmp_path / "a"), write_tree(tmp_path / "b")
    digits = source_fingerprint(FOLDER, first)
    assert digits == source_fingerprint(FOLDER, second)
    changed = second / "val" / "cat" / "0.png"
    changed.write_bytes(changed.read_bytes() + b" ")
    assert digits != source_fingerprint(FOLDER, second)
    (first / "train" / "dog" / "1.png").rename(first / "train" / "dog" / "2.png")
    assert digits != source_fingerprint(FOLDER, first)


def test_source_fingerprint_of_planted_data_follows_the_spec():
    spec = SyntheticSpec(size=16)
    assert source_fingerprint(spec, None) == source_fingerprint(SyntheticSpec(size=16), None)
    assert source_fingerprint(spec, None) != source_fingerprint(SyntheticSpec(size=18), None)


def test_listing_decodes_nothing(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    assert len(folders(FOLDER, tmp_path)["train"].samples) == 4


# ------------------------------------------------------------------------------------------------------- warps

IDENTITY = torch.tensor([[1.0, 0, 0], [0, 1, 0]])


def pictures(seed: int, count: int = 2, height: int = 9, width: int = 9) -> torch.Tensor:
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(seed))


def close(first, second):
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@given(seeds, st.integers(2, 12), st.integers(2, 12))
def test_identity_warp_returns_the_image(seed, height, width):
    images = pictures(seed, 2, height, width)
    close(warp(images, IDENTITY.expand(2, 2, 3)), images)


@given(seeds, st.integers(1, 5))
def test_no_augmentation_is_the_identity_map(seed, count):
    maps = random_affine(count, generator(seed, "x"))
    assert torch.equal(maps, IDENTITY.expand(count, 2, 3))


@given(seeds, st.integers(2, 12))
def test_mirroring_map_flips_left_and_right(seed, width):
    images = pictures(seed, 2, 7, width)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]])
    close(warp(images, mirror.expand(2, 2, 3)), images.flip(-1))


def test_flips_are_horizontal_and_fall_on_about_half():
    maps = random_affine(2000, generator(0, "flip"), flip=True)
    flipped = maps[:, 0, 0] == -1
    close(torch.where(flipped[:, None, None], maps * torch.tensor([[-1.0], [1.0]]), maps), IDENTITY.expand(2000, 2, 3))
    assert abs(flipped.float().mean().item() - 0.5) < 5 * 0.5 / 2000**0.5  # five sigma


@given(seeds, st.integers(-4, 4), st.integers(-4, 4))
def test_a_shift_by_whole_pixels_moves_the_content_right_and_down(seed, right, down):
    images = pictures(seed, 1, 9, 12)
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
    images = pictures(seed, 2, side, side)
    quarter = torch.tensor([[0.0, 1, 0], [-1, 0, 0]])  # the form of random_affine's turns, at 90 degrees
    close(warp(images, quarter.expand(2, 2, 3)), torch.rot90(images, -1, (-2, -1)))
    close(warp(images, -quarter.expand(2, 2, 3)), torch.rot90(images, 1, (-2, -1)))


@pytest.mark.parametrize("most", [20, 180])
def test_rotations_are_pure_and_fill_their_range(most):
    maps = random_affine(4000, generator(2, "turn"), rotation=most)
    turns = maps[:, :, :2]
    close(turns @ turns.transpose(1, 2), torch.eye(2).expand(4000, 2, 2))
    close(torch.linalg.det(turns), torch.ones(4000))
    assert torch.equal(maps[:, :, 2], torch.zeros(4000, 2))
    angle = torch.atan2(turns[:, 0, 1], turns[:, 0, 0]).rad2deg()
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
    """Areas of at most 3/4 fit the picture at every ratio, so nothing is clipped."""
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
    room = 1 - torch.stack((width, height), -1)
    assert bool((maps[:, :, 2].abs() <= room + 1e-5).all())
    assert (maps[:, :, 2] / room).abs().max().item() > 0.99


def test_the_shift_comes_last():
    """Wherever zoom and turn have put the rest, the picture's centre moves by the shift alone."""
    maps = random_affine(4000, generator(5, "all"), scale=(0.5, 1.5), rotation=180, translation=0.4, flip=True)
    centre = torch.linalg.solve(maps[:, :, :2], -maps[:, :, 2])  # where the output shows the input's (0, 0)
    assert centre.abs().max().item() <= 0.8 + 1e-4
    assert (centre.abs().amax(0) > 0.78).all()


@given(seeds, st.floats(0.05, 1), st.booleans())
def test_crops_never_leave_the_picture(seed, low, flip):
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
    images = pictures(seed, 4)
    maps = random_affine(4, generator(seed, "x"), crop=(0.1, 1.0), scale=(0.5, 1.5), translation=0.4, rotation=180)
    out = warp(images, maps)
    assert 0 <= out.min().item() <= out.max().item() <= 1 + 1e-6
    assert out.shape == images.shape
