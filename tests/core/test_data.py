"""Splits, images from disk, and folders or files that are missing or damaged."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from fmlib.core.config import ImageSpec, SyntheticSpec
from fmlib.core.data import SELECTIONS, Split, folders, load_images, source_fingerprint
from fmlib.core.errors import FmlibError

# ------------------------------------------------------------------------------------------------------ splits


def test_batches_cover_a_split_in_order(random_split):
    split = random_split(7)
    pixels, labels = zip(*split.batches(3), strict=True)
    assert [len(part) for part in labels] == [3, 3, 1]
    assert torch.equal(torch.cat(pixels), split.pixels())
    assert torch.equal(torch.cat(labels), split.labels)


def test_pixels_are_between_zero_and_one():
    split = Split(torch.tensor([[[[0, 51], [204, 255]]]], dtype=torch.uint8), torch.tensor([0]))
    assert split.pixels().flatten().tolist() == pytest.approx([0.0, 0.2, 0.8, 1.0])
    assert split.pixels().shape == (1, 1, 2, 2)


# ------------------------------------------------------------------------------------------------- images


def write_tree(base, classes=("cat", "dog"), count=2, size=(24, 20), form="png"):
    """Class folders in train/ and val/; each image has another gray level."""
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
def test_folder_of_images_is_decoded_to_bytes(tmp_path, channels):
    write_tree(tmp_path)
    data = load_images(ImageSpec("folder", "all", 16, channels), tmp_path)
    assert data.classes == ["cat", "dog"]
    assert data.train.images.shape == data.validation.images.shape == (4, channels, 16, 16)
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert data.train.images.float().mean((1, 2, 3)).tolist() == [9, 18, 27, 36]
    assert data.validation.images.float().mean((1, 2, 3)).tolist() == [45, 54, 63, 72]


@pytest.mark.parametrize("size", [(48, 16), (16, 48)])
def test_images_are_cropped_in_the_middle(tmp_path, size):
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
    data = load_images(ImageSpec("imagenette", "all", 16), tmp_path)
    assert data.classes == ["tench", "church"]
    assert data.train.labels.tolist() == [0, 0, 1, 1]


def test_missing_folder_option_is_explained():
    with pytest.raises(FmlibError, match="--data-root"):
        load_images(FOLDER, None)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FmlibError, match="nowhere"):
        load_images(FOLDER, tmp_path / "nowhere")


def test_folder_without_imagenette_is_named(tmp_path):
    with pytest.raises(FmlibError, match=f"imagenette2-160 folder in {tmp_path}"):
        load_images(ImageSpec(), tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("source", ["folder", "imagenette"])
def test_tree_without_one_split_names_it(tmp_path, split, source):
    base = tmp_path / "imagenette2-160" if source == "imagenette" else tmp_path
    write_tree(base, classes=("n01440764", "n03028079"), form="jpeg")
    (base / split).rename(base / "elsewhere")
    with pytest.raises(FmlibError, match=str(base / split)):
        load_images(ImageSpec(source, "all", 16), tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("source", ["folder", "imagenette"])
def test_class_folder_without_images_names_its_split(tmp_path, split, source):
    base = tmp_path / "imagenette2-160" if source == "imagenette" else tmp_path
    write_tree(base, classes=("n01440764", "n03028079"), form="jpeg")
    for image in (base / split / "n03028079").iterdir():
        image.unlink()
    with pytest.raises(FmlibError, match=str(base / split)):
        load_images(ImageSpec(source, "all", 16), tmp_path)


def test_train_and_val_of_different_classes_are_refused(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "wolf")
    with pytest.raises(FmlibError, match="different classes"):
        load_images(FOLDER, tmp_path)


def test_selection_without_its_class_folders_names_them(tmp_path):
    wanted = SELECTIONS["paper-text"][0]
    write_tree(tmp_path / "imagenette2-160", classes=wanted[:-1], count=1, form="jpeg")
    with pytest.raises(FmlibError, match=wanted[-1]):
        load_images(ImageSpec(), tmp_path)


def test_selection_with_images_missing_says_how_many(tmp_path):
    write_tree(tmp_path / "imagenette2-160", classes=SELECTIONS["paper-text"][0], count=1, form="jpeg")
    with pytest.raises(FmlibError, match=r"train has 5 images of paper-text, not 4710"):
        load_images(ImageSpec(), tmp_path)


@pytest.mark.parametrize("source", ["folder", "imagenette"])
def test_unknown_selection_is_named_with_the_choices(tmp_path, source):
    base = tmp_path / "imagenette2-160" if source == "imagenette" else tmp_path
    write_tree(base, classes=("n01440764", "n03028079"), form="jpeg")
    with pytest.raises(FmlibError, match=r"'best'.*paper-text.*paper-code.*all"):
        load_images(ImageSpec(source, "best", 16), tmp_path)


def test_selections_are_five_classes_with_the_papers_counts():
    assert SELECTIONS["paper-text"][1:] == (4710, 1934)
    assert SELECTIONS["paper-code"][1:] == (4671, 1973)
    assert all(len(set(names)) == 5 for names, *_ in SELECTIONS.values())


@pytest.mark.parametrize("form", ["jpg", "png", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.9])
def test_truncated_image_is_named(tmp_path, form, share):
    write_tree(tmp_path, form=form)
    damaged = tmp_path / "val" / "dog" / f"1.{form}"
    Image.radial_gradient("L").resize((24, 20)).save(damaged)
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FmlibError, match=str(damaged)):
        load_images(FOLDER, tmp_path)


def test_text_in_an_image_file_is_named(tmp_path):
    write_tree(tmp_path)
    damaged = tmp_path / "train" / "cat" / "0.png"
    damaged.write_text("<html>404</html>")
    with pytest.raises(FmlibError, match=str(damaged)):
        load_images(FOLDER, tmp_path)


def test_source_fingerprint_depends_on_the_files_not_the_folder(tmp_path):
    first, second = write_tree(tmp_path / "a"), write_tree(tmp_path / "b")
    digits = source_fingerprint(FOLDER, first)
    assert digits == source_fingerprint(FOLDER, second)
    changed = second / "val" / "cat" / "0.png"
    changed.write_bytes(changed.read_bytes() + b" ")
    assert digits != source_fingerprint(FOLDER, second)
    (first / "train" / "dog" / "1.png").rename(first / "train" / "dog" / "2.png")
    assert digits != source_fingerprint(FOLDER, first)


def test_source_fingerprint_of_synthetic_data_depends_on_the_spec():
    spec = SyntheticSpec(size=16)
    assert source_fingerprint(spec, None) == source_fingerprint(SyntheticSpec(size=16), None)
    assert source_fingerprint(spec, None) != source_fingerprint(SyntheticSpec(size=18), None)


def test_listing_decodes_nothing(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train" / "cat" / "0.png").write_bytes(b"")
    assert len(folders(FOLDER, tmp_path)["train"].samples) == 4
