"""Sizes and alignment of the network, as whole numbers."""

from __future__ import annotations

import pytest

from mixsup_lib.files import SettingError
from mixsup_lib.unet import Frame, Geometry

PAPER = Geometry(depth=4, padding="valid")


def test_300_becomes_101_layer_by_layer():
    assert PAPER.layer_sizes(300) == [
        ("input", 300),
        ("encoder 0", 296),
        ("pool 0", 148),
        ("encoder 1", 144),
        ("pool 1", 72),
        ("encoder 2", 68),
        ("pool 2", 34),
        ("encoder 3", 30),
        ("pool 3", 15),
        ("bottom", 11),
        ("upsample 3", 22),
        ("up-convolution 3", 21),
        ("decoder 3", 17),
        ("upsample 2", 34),
        ("up-convolution 2", 33),
        ("decoder 2", 29),
        ("upsample 1", 58),
        ("up-convolution 1", 57),
        ("decoder 1", 53),
        ("upsample 0", 106),
        ("up-convolution 0", 105),
        ("decoder 0", 101),
    ]


def test_valid_sizes_are_16b_plus_60_and_give_16b_minus_139():
    for b in range(9, 60):
        assert PAPER.output_size(16 * b + 60) == 16 * b - 139
        assert PAPER.output_size(16 * b + 60) == 16 * b + 60 - 199
    assert (PAPER.output_size(300), PAPER.output_size(444)) == (101, 245)


def test_every_other_size_is_refused_with_its_neighbours():
    valid = {16 * b + 60 for b in range(9, 60)}
    for n in set(range(-20, 1000)) - valid:
        with pytest.raises(SettingError):
            PAPER.output_size(n)
    with pytest.raises(SettingError, match="Input size 301 .* use 300 or 316"):
        PAPER.output_size(301)
    with pytest.raises(SettingError, match="use 204 or more"):
        PAPER.output_size(188)


def test_the_authors_350_gives_165_by_rounding_pools_up():
    assert PAPER.layer_sizes(350)[-1] == ("decoder 0", 165)


def test_skip_crops_are_5_19_47_103_and_the_window_starts_at_107():
    assert PAPER.skip_crops() == (5, 19, 47, 103)
    assert PAPER.window_start() == 107


def test_output_window_of_300_is_107_to_207():
    start = PAPER.window_start()
    assert (start, start + PAPER.output_size(300) - 1) == (107, 207)
    assert (start, start + PAPER.output_size(444) - 1) == (107, 351)


def test_240_in_300_is_padded_by_38_and_22():
    assert PAPER.training_frame(240, 300) == Frame(pad_before=38, pad_after=22, first=69, last=170)


def test_one_pass_at_444_covers_the_whole_slice():
    frame = PAPER.whole_slice_frame(240)
    assert frame.pad_before + 240 + frame.pad_after == 444
    assert 107 <= frame.pad_before <= 112
    assert frame.first <= 0 and frame.last >= 240


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_frames_are_consistent_at_every_slice_size(padding, depth):
    geometry = Geometry(depth, padding)
    for slice_size in (17, 64, 155, 240, 256, 301):
        frame = geometry.whole_slice_frame(slice_size)
        size = frame.pad_before + slice_size + frame.pad_after
        assert min(frame.pad_before, frame.pad_after) >= 0
        assert frame.last - frame.first == geometry.output_size(size)
        assert (
            frame.first + frame.pad_before == geometry.window_start()
        )  # first output pixel, in input pixels
        assert frame.first <= 0 and frame.last >= slice_size
        margins = -frame.first, frame.last - slice_size
        assert abs(margins[0] - margins[1]) <= 1  # centred
        assert size == geometry.smallest_input(slice_size)
        smaller = size - 2**depth
        if smaller >= geometry.smallest_input(1):
            assert geometry.output_size(smaller) < slice_size


def test_same_padding_keeps_the_size_and_crops_nothing():
    geometry = Geometry(3, "same")
    assert [geometry.output_size(n) for n in (8, 64, 80, 96)] == [8, 64, 80, 96]
    assert geometry.skip_crops() == (0, 0, 0) and geometry.window_start() == 0


def test_same_padding_pads_symmetrically_up_to_a_multiple_of_2_to_the_depth():
    geometry = Geometry(4, "same")
    assert geometry.whole_slice_frame(240) == Frame(0, 0, 0, 240)
    assert geometry.whole_slice_frame(90) == Frame(pad_before=3, pad_after=3, first=-3, last=93)
    assert geometry.training_frame(90, 128) == Frame(pad_before=19, pad_after=19, first=-19, last=109)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Geometry(4, "vaild"), "Did you mean 'valid'"),
        (lambda: Geometry(0, "same"), "depth is 0"),
        (lambda: Geometry(3, "same").output_size(100), "use 96 or 104"),
        (lambda: Geometry(3, "same").training_frame(100, 96), "at least 104"),
        (lambda: PAPER.training_frame(320, 300), "at least 348"),
        (lambda: PAPER.training_frame(240, 310), "use 300 or 316"),
    ],
)
def test_impossible_sizes_get_one_clear_sentence(call, sentence):
    with pytest.raises(SettingError, match=sentence):
        call()


def test_the_size_named_in_the_error_works():
    assert PAPER.training_frame(320, 348).pad_after >= 0
    with pytest.raises(SettingError):
        PAPER.training_frame(320, 332)
