"""The figures of section 3.2 and the share explorer: what they show, in words and in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mixsup_lib import paper
from mixsup_lib.datasets.slice_labels import mask_presence
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.teaching.figures import nb07
from mixsup_lib.teaching.widgets.share_explorer import share_explorer, share_picture


@pytest.fixture
def scan():
    """A volume (X, Y, Z) and its label map: oedema in three slices, a core with a rim in one of them."""
    volume, labels = np.zeros((16, 18, 5)), np.zeros((16, 18, 5), np.uint8)
    volume[2:14, 2:16] = 100.0
    labels[4:12, 4:12, 1:4] = 2
    labels[5:11, 5:11, 2] = 3
    labels[7:9, 7:9, 2] = 1
    return volume, labels


def test_every_slice_is_named_with_the_subclasses_that_it_shows(scan):
    figure = nb07.subclass_slices(*scan, [0, 1, 2])
    words = alt_text(figure)
    assert "slice 0: none; slice 1: oedema; slice 2: non-enhancing, oedema, enhancing" in words
    below = [axis.texts[-1].get_text().split() for axis in figure.axes]
    assert [text[1::2] for text in below] == [["0", "0", "0"], ["0", "1", "0"], ["1", "1", "1"]]


def test_positive_slices_are_counted_for_each_task(scan):
    words = alt_text(nb07.positive_slices({"one": mask_presence(scan[1])}))
    assert "oedema shown in 3, enhancing shown in 1" in words
    assert "whole tumour: positive in 3, tumour core: positive in 1, enhancing core: positive in 1" in words


def test_the_dice_of_a_slice_is_that_of_its_three_regions(scan):
    volume, truth = scan
    confused = np.where(truth == 3, 2, truth)
    words = alt_text(nb07.label_maps(volume, {"truth": truth, "confused": confused}, 2))
    core = 100 * 2 * 4 / (4 + 36)
    assert f"confused 100, {core:.0f}, 0" in words


@pytest.mark.parametrize(("a", "t0", "branches"), [(0.7, 0.7, 3), (0.3, 0.7, 3), (0.5, 0.4, 5)])
def test_all_shares_of_the_loss_sum_to_1(a, t0, branches):
    figure = share_picture(a, t0, branches)
    own = [bar for bar in figure.axes[0].patches if round(bar.get_y() + bar.get_height() / 2) == 2]
    shares = [bar.get_width() for bar in own]
    assert len(shares) == 4 + branches and sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(a * t0) and shares[-1] == pytest.approx((1 - a) / branches)
    healthy, subclass, branch = a * t0, a * (1 - t0) / 3, (1 - a) / branches
    words = f"non-tumour pixels {healthy:.3f}, each subclass {subclass:.3f}, each of {branches} branches {branch:.3f}"
    assert f"yours: a = {a:.2f}: {words}" in alt_text(figure)


def test_the_papers_settings_stand_above_ones_own():
    words = alt_text(share_picture(0.5, 0.5, 3))
    assert "binary (3.1): non-tumour pixels 0.490, tumour 0.210, the branch 0.300" in words
    assert "each subclass 0.030, each of 3 branches 0.233" in words


def test_moving_a_slider_moves_the_shares():
    explorer = share_explorer()
    controls, picture = explorer.children[0].children, explorer.children[1]
    assert [control.description for control in controls] == ["a", "t0", "branches"]
    assert "yours: a = 0.70: non-tumour pixels 0.490" in picture.value
    controls[0].value = paper.SEGMENTATION_SHARE["multiclass"]
    assert "yours: a = 0.30: non-tumour pixels 0.210" in picture.value
