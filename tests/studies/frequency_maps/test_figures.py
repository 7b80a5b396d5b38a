"""The figures of frequency maps: each one can be drawn and shows the numbers that it is given."""

import numpy as np
import pandas as pd
import pytest
from conftest import dc_centred, drawn, shown

from fmlib.pipeline.plotting import BLUE
from fmlib.studies.frequency_maps import figures

SIDE, NAMES = 8, ["tench", "chain saw", "church"]
KINDS = ("essential", "PGD", "DeepFool", "FAB")


def planes(seed, *shape):
    return np.random.default_rng(seed).random((*shape, SIDE, SIDE)).astype(np.float16)


def test_examples_show_each_image_and_its_maps_with_dc_in_the_dc_centred():
    examples = {kind: planes(seed, 3) for seed, kind in enumerate(("x", *KINDS))}
    examples["FAB"][1] = np.nan  # a class without an example
    axes = drawn(figures.figure_examples(examples, NAMES)).axes
    assert [one.get_title() for one in axes[:5]] == ["image", *(f"{kind} map" for kind in KINDS)]
    assert [axes[5 * row].get_ylabel() for row in range(3)] == ["tench", "chain\nsaw", "church"]
    for row in range(3):
        assert (shown(axes[5 * row]) == examples["x"][row]).all()
        for column, kind in enumerate(KINDS, 1):
            if (row, kind) != (1, "FAB"):
                assert (shown(axes[5 * row + column]) == dc_centred(examples[kind][row])).all()


def test_mean_maps_share_a_logarithmic_colour_scale_that_ignores_dc():
    arrays = {}
    for number, network in enumerate("NA"):
        for place, kind in enumerate(KINDS):
            arrays[f"mean.{network} {kind}"] = planes(8 * number + place).astype(float) / 2
            arrays[f"mean.{network} {kind}"][0, 0] = 1
            arrays[f"radial.{network} {kind}"] = np.arange(64.0) + 100 * number + 10 * place
    axes = drawn(figures.figure_attacked_frequencies(arrays, "NA")).axes
    top = max(array.flat[1:].max() for name, array in arrays.items() if "mean" in name)
    assert [one.get_title() for one in axes[:5]] == [*(f"{kind} maps" for kind in KINDS), "radial energy"]
    assert [axes[0].get_ylabel(), axes[5].get_ylabel()] == ["standard\n(N)", "adversarially\ntrained (A)"]
    for row, network in enumerate("NA"):
        for column, kind in enumerate(KINDS):
            one = axes[5 * row + column]
            assert (shown(one) == dc_centred(arrays[f"mean.{network} {kind}"])).all()
            assert one.get_images()[0].get_clim() == (top / 1000, top)
            assert one.get_images()[0].norm(top / 1000**0.5) == pytest.approx(0.5)
            line = axes[5 * row + 4].get_lines()[column]
            assert (line.get_ydata() == arrays[f"radial.{network} {kind}"]).all()
            assert line.get_xdata()[[0, -1]] == pytest.approx([1 / 128, 127 / 128])
    assert [text.get_text() for text in axes[4].get_legend().get_texts()] == list(KINDS)


def test_similarity_draws_one_dot_per_pairing_and_one_bar_per_way_of_shuffling():
    rows = []
    for first, second in (("N essential", "N PGD"), ("N essential", "A essential")):
        for measure in figures.MEASURES:
            for way in ("all", "class"):
                low = len(rows) / 100
                row = {"first": first, "second": second, "measure": measure, "shuffled": way, "low": low}
                rows.append(row | {"high": low + 0.3, "value": len(rows) // 2})
    table = pd.DataFrame(rows)
    picture = drawn(figures.figure_similarity(table))
    assert [text.get_text() for text in picture.axes[0].get_yticklabels()] == [
        "standard (N):\nessential, PGD", "N and A:\nessential"
    ]  # fmt: skip
    assert {text.get_text() for text in picture.legends[0].get_texts()} == {
        "shuffled among all images", "shuffled within classes", "paired maps"
    }  # fmt: skip
    for axes, measure in zip(picture.axes, figures.MEASURES, strict=True):
        own = table[table["measure"] == measure]
        dots = next(line for line in axes.get_lines() if line.get_color() == BLUE)
        assert axes.get_xlim()[0] < dots.get_xdata().min() <= dots.get_xdata().max() < axes.get_xlim()[1]
        assert dots.get_xdata().tolist() == own[own["shuffled"] == "class"]["value"].tolist()
        bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
        for way, found in (("all", bars[:2]), ("class", bars[2:])):
            chosen = own[own["shuffled"] == way]
            assert [low for low, _ in found] == pytest.approx(chosen["low"].tolist())
            assert [width for _, width in found] == pytest.approx([0.3, 0.3])


def test_class_maps_are_means_over_channels_with_dc_in_the_dc_centred():
    half = np.zeros((3, 2, SIDE, SIDE // 2 + 1), np.float16)
    half[1, 0, 2, 3], half[1, 1, 2, 3] = 1, 0.5
    axes = drawn(figures.figure_class_maps(half, NAMES)).axes
    assert [one.get_title() for one in axes[:3]] == NAMES
    found = shown(axes[1])
    assert np.argwhere(found).tolist() == [[2, 1], [6, 7]]
    assert found[6, 7] == found[2, 1] == 0.75
    assert not shown(axes[0]).any()


def test_class_transfer_prints_every_percentage_except_absent_ones():
    rates = {"clean": np.arange(12.0).reshape(3, 4), "fooled": np.full((3, 4), 99.6)}
    rates["fooled"][2] = np.nan
    axes = drawn(figures.figure_class_transfer(rates, NAMES)).axes
    assert [one.get_title() for one in axes[:2]] == ["clean", "fooled"]
    assert [text.get_text() for text in axes[0].texts] == [str(number) for number in range(12)]
    assert [text.get_text() for text in axes[1].texts] == ["100"] * 8
    assert [text.get_text() for text in axes[1].get_xticklabels()] == ["no map", *NAMES]
    assert (shown(axes[0]) == rates["clean"]).all()
