"""The drawing of the network: its numbers are those of the geometry and of the layers, and every box has its place."""

from __future__ import annotations

import pytest

from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import SettingError
from mixsup_lib.teaching.figures.nb02 import architecture, branch_rows, place_boxes
from mixsup_lib.unet import Geometry

PAPER = Geometry(4, "valid")
CASES = [
    (1, "valid", 48),
    (3, "valid", 148),
    (4, "valid", 300),
    (5, "valid", 604),
    (2, "same", 48),
    (3, "same", 80),
]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("depth", "padding", "size"), CASES)
def test_every_layer_of_the_geometry_has_a_box_of_its_size(depth, padding, size):
    geometry = Geometry(depth, padding)
    boxes = place_boxes(geometry, input_size=size, width=8, in_channels=4)
    sides = {name: side for name, side in geometry.layer_sizes(size) if not name.startswith("upsample")}
    assert {name: box.side for name, box in boxes.items()} == sides
    assert boxes["input"].maps == 4 and boxes["bottom"].maps == 8 * 2**depth
    for level in range(depth):
        names = (f"encoder {level}", f"up-convolution {level}", f"decoder {level}")
        assert {boxes[name].maps for name in names} == {8 * 2**level}
        assert len({boxes[name].y for name in names}) == 1  # a skip runs horizontally


@pytest.mark.parametrize(("depth", "padding", "size"), CASES)
def test_no_two_boxes_overlap(depth, padding, size):
    boxes = list(place_boxes(Geometry(depth, padding), input_size=size, width=8, in_channels=4).values())
    for number, one in enumerate(boxes):
        for other in boxes[:number]:
            apart = abs(one.x - other.x) >= 0.44  # twice the width, for the box of a skip
            assert apart or abs(one.y - other.y) > (one.height + other.height) / 2 + 0.6, (one, other)


@pytest.mark.parametrize(("depth", "padding", "size"), CASES)
def test_the_drawing_shows_sizes_maps_and_crops(depth, padding, size):
    geometry = Geometry(depth, padding)
    figure = architecture(geometry, input_size=size, width=8)
    shown = texts(figure)
    for name, side in geometry.layer_sizes(size):
        assert name.startswith("upsample") or f"{side}²" in shown, name
    for level in range(depth):
        assert f"{8 * 2**level} + {8 * 2**level}" in shown
    crops = [f"crop {crop}" for crop in geometry.skip_crops()] if padding == "valid" else ["whole"] * depth
    assert sorted(text for text in shown if text.startswith(("crop", "whole"))) == sorted(crops)


def test_the_papers_network_in_words():
    words = alt_text(architecture(PAPER))
    for part in ("300x300", "101x101", "1024 maps of 11x11", "5, 19, 47, 103", "64 × 13²", "32 × 11² = 3872"):
        assert part in words
    assert "fully connected 5: 100" in words and "the first is concatenated to the fifth" in words


def test_the_branchs_rows_are_its_layers():
    rows = branch_rows(64, 101)
    assert [outputs for _, outputs in rows] == [64 * 13**2, 3872, 300, 250, 200, 150, 100, 50, 2]
    assert branch_rows(16, 80)[1] == ("conv 3×3: 8 × 8² = 512", 512)


def test_standard_supervision_has_no_branch_and_multiclass_three():
    standard = architecture(PAPER, n_branches=0)
    assert "standard supervision" in alt_text(standard) and not any(
        "mean-pool" in text for text in texts(standard)
    )
    assert not any("branch" in text for text in legend(standard))
    multiclass = architecture(PAPER, n_branches=3, n_maps=4)
    assert "times 3" in alt_text(multiclass) and any("3 such branches" in text for text in texts(multiclass))
    assert "4 score maps" in alt_text(multiclass)


def test_the_kind_of_convolution_is_named():
    assert any("unpadded" in text for text in legend(architecture(PAPER)))
    padded = legend(architecture(Geometry(3, "same"), input_size=80, width=16))
    assert any("(padded)" in text for text in padded) and any(
        "3×3 convolution, batch" in text for text in padded
    )


def test_all_text_lies_within_the_figure():
    for n_branches in (0, 1, 3):
        figure = architecture(PAPER, n_branches=n_branches)
        figure.canvas.draw()
        for text in figure.axes[0].texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width, text.get_text()
            assert box.y0 >= 0 and box.y1 <= figure.bbox.height, text.get_text()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"input_size": 301}, "use 300 or 316"),
        ({"width": 0}, "width is 0"),
        ({"width": 1}, "needs width >= 2"),
        ({"input_size": 204}, "at least 17 pixels a side"),
    ],
)
def test_an_impossible_network_gets_the_librarys_sentence(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        architecture(PAPER, **settings)
