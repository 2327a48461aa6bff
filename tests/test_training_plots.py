"""Figures of notebooks 05 and 06: what they say in words is what was handed to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import DataError
from mixsup_lib.teaching.figures.nb05 import (
    batch_norm_memory,
    gradient_agreement,
    schedules,
    seen_and_unseen,
    toy_descent,
)
from mixsup_lib.teaching.figures.nb06 import error_profile, spread_of_dice, surface_distances


def test_the_toy_depends_on_scale_only_without_the_norm():
    figure = toy_descent()
    left, right = ({line.get_label(): line.get_ydata() for line in axis.lines} for axis in figure.axes)
    assert np.allclose(right["f x 0.1"], right["f x 10"]) and np.allclose(right["f x 1"], right["f x 10"])
    assert left["f x 1"][-1] < left["f x 0.1"][-1] < left["f x 10"][-1]
    assert right["f x 1, falling rate"][-1] < 1e-3 < right["f x 1"][-1] < 0.05
    assert "f x 10: diverged" in alt_text(figure)


def test_gradient_agreement_names_the_means():
    words = alt_text(gradient_agreement({1: [0.0, 0.5], 10: [0.9]}))
    assert "1: 0.25; 10: 0.90" in words


def test_schedules_name_the_failed_checks_and_the_last_rates():
    losses = np.linspace(1, 0.5, 30)
    checks = {10: (0.9, True), 20: (0.7, False), 30: (0.6, False)}
    words = alt_text(schedules(losses, {"plateau rule": np.full(30, 0.125)}, checks))
    assert "3 checks of the plateau rule, 2 failed (at iterations 20, 30)" in words
    assert "plateau rule 0.125" in words
    assert "1 checks of the plateau rule, 0 failed." in alt_text(schedules(losses, {}, {10: (0.9, True)}))


def test_seen_and_unseen_names_both_means():
    rows = [("standard", "annotated", 90.0), ("standard", "test", 40.0), ("standard", "test", 60.0)]
    dice = pd.DataFrame(rows, columns=["supervision", "group", "dice"])
    assert "standard: 90 on annotated, 50 on test patients" in alt_text(seen_and_unseen(dice))
    with pytest.raises(DataError):
        seen_and_unseen(dice.head(0))


def test_batch_norm_memory_draws_the_mean_over_all_batches():
    means = np.array([1.0, 3.0, 2.0, 6.0])
    figure = batch_norm_memory(means, means, test=-1.0, what="channel 0")
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["mean over all batches so far"].tolist() == [1.0, 2.0, 2.0, 3.0]
    assert "Last value 3, on test slices -1" in alt_text(figure)


def test_surface_distances_name_percentile_and_maximum():
    image, mask = np.zeros((20, 20)), np.zeros((20, 20), bool)
    image[5:15, 5:15], mask[8:11, 8:11] = 100, True
    words = alt_text(surface_distances(image, mask, mask, {"prediction to truth": np.arange(101.0)}))
    assert "prediction to truth: 95 % are within 95.0 mm, the farthest is at 100.0 mm" in words


def test_an_error_profile_names_missed_and_extra_volume():
    errors = {"standard": (np.array([0, 1.0]), np.array([2.0, 0])), "mixed": (np.zeros(2), np.zeros(2))}
    figure = error_profile(np.array([0, 3.0]), errors, np.array([0.1, 0.9]))
    assert len(figure.axes) == 3
    assert "Of 3.0 ml tumour standard misses 1.0 ml and draws 2.0 ml too much" in alt_text(figure)
    assert len(error_profile(np.array([0, 3.0]), errors).axes) == 2


def test_the_spread_leaves_out_patients_without_the_region():
    columns = {"supervision": "mixed", "dice": [90.0, 10.0, 50.0, np.nan], "truth_voxels": [9, 9, 9, 0]}
    words = alt_text(spread_of_dice(pd.DataFrame(columns)))
    assert "Dice of 3 test patients per arm. mixed: mean 50.0, median 50.0, worst 10.0" in words
    with pytest.raises(DataError):
        spread_of_dice(pd.DataFrame({"supervision": [], "dice": [], "truth_voxels": []}))
