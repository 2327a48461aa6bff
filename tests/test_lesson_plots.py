"""Figures of notebooks 00 and 01: what they show stands in their words, and wrong input is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_truth

from mixsup_lib.cohort import Case
from mixsup_lib.experiments.style import CLASS_COLORS, COLORS, alt_text
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.teaching.figures.nb00 import mixed_supervision_idea
from mixsup_lib.teaching.figures.nb01 import (
    contact_sheet,
    dice_by_hours,
    head_box,
    intensity_ridges,
    sequences_and_classes,
    slice_bars,
    three_planes,
)
from mixsup_lib.teaching.planner import annotation_hours


@pytest.fixture
def case():
    truth = make_truth(1)
    affine = np.array([[-2.0, 0, 0, 15], [0, -2, 0, 20], [0, 0, 2, -9], [0, 0, 0, 1]])
    return Case(
        "A", ("FLAIR", "T1", "T1c", "T2"), truth.images, truth.labels, affine, (2.0, 2.0, 2.0), affine
    )


def test_a_head_box_holds_the_head():
    volume = np.zeros((20, 16, 4))
    volume[5:8, 10, 2] = 1
    assert head_box(volume, margin=2) == (slice(3, 10), slice(8, 13))
    with pytest.raises(DataError, match="0 everywhere"):
        head_box(np.zeros((3, 3, 3)))


def test_three_planes_meet_at_the_place_of_the_voxel(case):
    figure = three_planes(case, (5, 6, 7))
    x, y, z = (case.affine @ [5, 6, 7, 1])[:3]
    assert f"x, y, z = {x:.1f}, {y:.1f}, {z:.1f} mm" in alt_text(figure)
    for axis, (column, row) in zip(figure.axes, ((x, y), (x, z), (y, z)), strict=True):
        vertical, horizontal = axis.lines
        assert vertical.get_xdata()[0] == column and horizontal.get_ydata()[0] == row


def test_three_planes_show_the_right_voxel_at_each_place(case):
    figure = three_planes(case, (5, 6, 7))
    volume = case.images[0]
    for axis, (i, j, picked) in zip(
        figure.axes,
        ((5, 6, volume[:, :, 7]), (5, 7, volume[:, 6, :]), (6, 7, volume[5, :, :])),
        strict=True,
    ):
        image = axis.images[0]
        left, right, bottom, top = image.get_extent()
        array = np.asarray(image.get_array())
        place = [line.get_xdata()[0] for line in axis.lines[:1]] + [axis.lines[1].get_ydata()[0]]
        column = int((place[0] - left) / (right - left) * array.shape[1])
        row = int((place[1] - top) / (bottom - top) * array.shape[0])
        assert array[row, column] == picked[i, j]


def test_the_anterior_and_the_head_are_at_the_top_and_the_right_on_the_left(case):
    axial, coronal, sagittal = three_planes(case, (5, 6, 7)).axes
    assert axial.get_xlim()[0] > axial.get_xlim()[1] and axial.get_ylim()[0] < axial.get_ylim()[1]
    assert coronal.get_ylim()[0] < coronal.get_ylim()[1] and sagittal.get_ylim()[0] < sagittal.get_ylim()[1]


def test_the_classes_of_a_slice_are_counted(case):
    z = int((case.labels > 0).sum(axis=(0, 1)).argmax())
    words = alt_text(sequences_and_classes(case, z))
    counts = [np.count_nonzero(case.labels[:, :, z] == value) for value in (1, 2, 3)]
    assert f"non-enhancing {counts[0]}, oedema {counts[1]}, enhancing {counts[2]}" in words
    with pytest.raises(DataError, match="has no mask"):
        sequences_and_classes(replace(case, labels=None), z)


def test_ridges_mark_the_medians(case):
    before = {"A": case.images[0], "B": 3 * case.images[0]}
    after = {name: 100 * volume / np.median(volume[volume != 0]) for name, volume in before.items()}
    medians = [f"{np.median(volume[volume != 0]):.0f}" for volume in before.values()]
    words = alt_text(intensity_ridges(before, after))
    assert f"as recorded: {', '.join(medians)}; normalised: 100, 100" in words


def test_bars_name_every_run_of_slices():
    shown = np.zeros(12, bool)
    shown[[0, 1, 5, 11]] = True
    figure = slice_bars({"whole_tumor": shown, "enhancing": np.zeros(12, bool)}, training=(1, 10))
    assert "whole tumour 0 to 1, 5 to 5, 11 to 11; enhancing nowhere" in alt_text(figure)
    assert "Training slices: 1 to 10." in alt_text(figure)


def test_a_contact_sheet_holds_the_slices_with_head_and_their_numbers():
    volume = np.zeros((8, 8, 10))
    volume[2:6, 2:6, 3:9] = np.arange(1, 7)
    framed = np.zeros(10, bool)
    framed[4:6] = True
    figure = contact_sheet(volume, columns=4, framed=framed)
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "4", "5", "6", "7", "8"]
    assert figure.axes[0].images[0].get_array().shape == (2 * 6, 4 * 6)
    assert "slices 3 (lowest) to 8 (highest)" in alt_text(figure) and "Framed: slices 4 to 5." in alt_text(
        figure
    )


def test_hours_are_those_of_the_papers_minutes():
    assert annotation_hours(228) == 171
    assert annotation_hours(5, 223, minutes_wa=1) == (225 + 223) / 60
    words = alt_text(dice_by_hours())
    assert "5 FA + 223 WA 9.3 hours, Dice 78.3" in words and "228 FA 171.0 hours, Dice 86.8" in words


def test_the_idea_needs_three_slices_of_each_kind(case):
    image, mask = case.images[0][:, :, 5].T, case.labels[:, :, 5].T
    words = alt_text(mixed_supervision_idea([(image, mask)] * 3, [(image, True)] * 3, n_fa=7, n_wa=70))
    assert "7 fully annotated scans" in words and "70 weakly annotated scans" in words
    with pytest.raises(SettingError, match="found 2 annotated and 3 weak slices"):
        mixed_supervision_idea([(image, mask)] * 2, [(image, True)] * 3)


def test_every_class_has_a_colour_of_its_own():
    assert len({*CLASS_COLORS.values(), *COLORS.values()}) == len(CLASS_COLORS) + len(COLORS)
