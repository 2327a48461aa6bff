"""What an output pixel sees: the measurements behind the pictures, and the pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixsup_lib.experiments.style import alt_text
from mixsup_lib.teaching.figures.nb02 import (
    averaging_unet,
    border_effect,
    centre,
    change_at_border,
    delivered,
    field,
    half_side,
    open_path,
    receptive_field,
    untrained_gradient,
)
from mixsup_lib.unet import Geometry

PAPER, SMALL = Geometry(4, "valid"), Geometry(2, "valid")
SIZE = 92  # of the input of SMALL; 49 pixels of output


def seen(i, geometry):
    """First and last input pixel of the deepest path, in whole numbers."""
    a = b = i
    for _ in range(geometry.depth):
        b += 5
        a, b = a // 2, -(-b // 2)
    b += 4
    for _ in range(geometry.depth):
        a, b = 2 * a, 2 * b + 5
    return a, b


@pytest.mark.parametrize(("geometry", "size"), [(SMALL, SIZE), (PAPER, 300)])
def test_the_field_is_what_arithmetic_says_and_nowhere_negative(geometry, size):
    unet = averaging_unet(geometry)
    for pixel in (0, 11, 20, 26):
        found = field(unet, pixel, size)
        rows = found.sum(dim=1).nonzero()[:, 0]
        assert (int(rows[0]), int(rows[-1])) == seen(pixel, geometry) and float(found.min()) >= 0


@pytest.mark.parametrize(("geometry", "size"), [(SMALL, SIZE), (PAPER, 300)])
def test_aligned_paths_share_their_centre_and_their_fields_grow(geometry, size):
    fields = [
        field(open_path(averaging_unet(geometry), path), 20, size) for path in range(geometry.depth + 1)
    ]
    assert [centre(one) - 20 for one in fields] == pytest.approx(
        [geometry.window_start()] * len(fields), abs=0.01
    )
    sides = [int((one.sum(dim=1) > 0).sum()) for one in fields]
    assert sides == sorted(sides) and sides[0] == 9


def test_variants_shift_the_paths():
    authors = averaging_unet(PAPER, crops=(4, 16, 40, 88))
    found = [centre(field(open_path(authors, path), 50)) - 50 for path in range(5)]
    assert found == pytest.approx([92, 93, 95, 99, 107], abs=0.01)
    by_pytorch = averaging_unet(PAPER, half_pixel=True, crops=(4, 17, 43, 95))
    found = [centre(field(open_path(by_pytorch, path), 50)) - 50 for path in range(5)]
    assert found == pytest.approx([99, 98.5, 97.5, 95.5, 99.5], abs=0.01)


def test_opening_a_path_leaves_the_network_alone():
    unet = averaging_unet(SMALL)
    before = field(unet, 20, SIZE)
    open_path(unet, 0)
    assert torch.equal(field(unet, 20, SIZE), before)


def test_a_sharp_network_passes_the_shallowest_path_on_unmoved():
    image = torch.rand(1, 1, SIZE, SIZE, dtype=torch.double)
    unet = open_path(averaging_unet(SMALL, sharp=True), 0)
    start, size = SMALL.window_start(), SMALL.output_size(SIZE)
    with torch.no_grad():
        output = unet(image)
    part = image[..., start : start + size, start : start + size]
    assert torch.allclose(output / output.mean(), part / part.mean(), atol=1e-6)


def test_no_gradient_comes_from_what_cannot_be_seen():
    gradient = untrained_gradient(SMALL, 20, SIZE, width=4, seeds=2)
    first, last = seen(20, SMALL)
    inside = gradient[first : last + 1, first : last + 1]
    assert inside.sum() == pytest.approx(gradient.sum()) and (inside > 0).mean() > 0.5


def test_the_smallest_square_that_holds_a_share():
    gradient = np.zeros((9, 9))
    gradient[3:6, 3:6] = 1
    gradient[4, 4] = 10
    assert [half_side(gradient, 4, share) for share in (0.5, 0.56, 1.0)] == [0, 1, 1]


def test_measuring_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    untrained_gradient(SMALL, 20, SIZE, width=2, seeds=1)
    change_at_border(SMALL, SIZE, width=2, seeds=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_padding_only_pixels_that_look_over_the_edge_change():
    change = change_at_border(PAPER, 300, width=2, seeds=1)
    over = [seen(i, PAPER)[1] > 299 for i in range(101)]
    assert over.index(True) == 86
    assert (change[:86] < 1e-5).all() and (change[90:] > 1e-4).all()


def test_with_padding_every_pixel_changes():
    change = change_at_border(Geometry(3, "same"), 64, width=2, seeds=1)
    assert change.shape == (64,) and (change > 1e-4).all()


def test_the_receptive_field_in_words_and_on_the_image():
    gradient = np.zeros((300, 300))
    gradient[157, 157] = 1
    image = np.random.default_rng(0).random((300, 300))
    figure = receptive_field(image, gradient, seen=(48, 267), window=(107, 207), pixel=157)
    words = alt_text(figure)
    assert "48 to 267, a square of 220" in words and "107 to 207" in words and "square of 1," in words
    assert sorted(patch.get_width() for patch in figure.axes[0].patches) == [1, 1, 101, 220]
    assert "(%)" in figure.axes[1].get_ylabel() and "pixel" in figure.axes[1].get_xlabel()


def test_the_shift_is_that_of_the_masks():
    mask = np.zeros((40, 40))
    mask[10:20, 12:18] = 1
    figure = delivered({"moved": (np.ones((40, 40)), mask, np.roll(mask, (5, -3), (0, 1)) / 7)})
    assert "moved +5.0 rows and -3.0 columns" in alt_text(figure)
    assert len(figure.axes[0].collections) == 2


def test_the_border_in_words():
    figure = border_effect({"a": np.array([0, 0, 0, 0.5]), "b": np.full(10, 0.2)})
    assert "a: 1 of 4 pixels change, at most by 50% of the spread" in alt_text(figure)
    assert "b: 10 of 10 pixels change" in alt_text(figure) and len(figure.axes[0].lines) == 2
    assert figure.axes[0].lines[0].get_linestyle() != figure.axes[0].lines[1].get_linestyle()
