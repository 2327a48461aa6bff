"""Checks of notebook 09: the mean that weighs folds alike, and the bootstrap that knows of folds."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixsup_lib.experiments.statistics import bootstrap_over_folds, mean_over_folds
from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect


@check
def exercise_9_1(fold_mean: Any) -> str:
    """Dice (P,) with NaN for patients without the region, folds (P,) -> the mean as in the paper's tables."""
    dice, folds = np.array([85.0, 65.0, 30.0, 10.0, 20.0]), np.array([1, 1, 1, 2, 3])  # means 60, 10, 20
    found = float(as_array(call(fold_mean, dice, folds), ()))
    expect(
        not np.isclose(found, dice.mean()),
        f"{found:g} is the mean over all patients: the fold with three patients weighs three times as much.",
        "the order of the two means: first the patients of a fold, then the folds.",
    )
    expect(
        not np.isclose(found, 20.0),
        "Folds with means 60, 10 and 20 gave 20, their median.",
        "the second mean: over folds, too, it is a mean.",
    )
    expect(
        np.isclose(found, 30.0),
        f"Folds with means 60, 10 and 20 gave {found:g}, expected 30.",
        "whether every fold enters once, by the mean of its patients; `np.unique(folds)` lists the folds.",
    )
    missing = np.append(dice, np.nan)
    found = float(as_array(call(fold_mean, missing, np.append(folds, 2)), ()))
    expect(
        not np.isnan(found),
        "A patient whose ground truth lacks the region has no Dice (NaN), and your mean became NaN too.",
        "`np.isnan`: such a patient is left out, as in the authors' code (the paper does not say).",
    )
    expect(
        np.isclose(found, 30.0),
        f"With a patient without a Dice the mean became {found:g}, expected 30 as before.",
        "whether such a patient counts as 0, which would punish a method for a region that is not there.",
    )
    return "First over the patients of a fold, then over folds; who lacks the region does not count."


SIZES = np.array([4, 8, 12, 16, 20])
"""Patients of the five folds in exercise 2."""

FOLD_MEANS = np.array([-8.0, -2.0, 3.0, 8.0, 14.0])
"""The larger the fold, the larger its mean: pooling its patients moves the mean over folds."""


def _resampled(
    bootstrap: Any, differences: np.ndarray, folds: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """The student's resampled means (n,), and the library's."""
    means = as_array(call(bootstrap, differences.copy(), folds.copy(), np.random.default_rng(2), n), (n,))
    return means, bootstrap_over_folds(differences, folds, resamples=4000, seed=3)


@check
def exercise_9_2(bootstrap: Any) -> str:
    """Differences (P,), folds (P,), generator, n -> n bootstrap means over folds and then patients."""
    folds = np.repeat(np.arange(5), SIZES)
    patients = np.concatenate([np.linspace(-25, 25, size) for size in SIZES])
    differences = FOLD_MEANS[folds] + patients
    means, ours = _resampled(bootstrap, differences, folds, 2000)
    expect(
        np.ptp(means) > 0,
        "Nothing is drawn yet: each of the n means needs a draw of its own.",
        "the sentence on what to draw: folds first, then patients.",
    )
    expect(
        np.ptp(means) > 1e-9,
        "All resampled means are equal, although you draw.",
        "whether the draw is with replacement (`rng.choice` and `rng.integers` both do that by default).",
    )
    centre, spread = means.mean() - mean_over_folds(differences, folds), means.std() / ours.std()
    patients_only = differences.std() / np.sqrt(differences.size) / ours.std()
    expect(
        abs(spread - patients_only) > 0.08,
        f"The spread is {spread:.2f} times what it should be, as if all patients were independent.",
        "what is drawn first: five folds out of the five, some twice and some not at all.",
    )
    drawn = np.random.default_rng(1).integers(5, size=(4000, 5))
    pooled = (SIZES * FOLD_MEANS)[drawn].sum(axis=1) / SIZES[drawn].sum(axis=1)
    expect(
        abs(means.mean() - pooled.mean()) > 0.5,
        f"The resampled means lie {centre:+.1f} points off the mean over folds: the patients of the drawn folds are "
        "pooled, so that a large fold weighs more.",
        "the order of the two means, as in exercise 1: first the patients of each drawn fold, then the folds.",
    )
    expect(
        abs(centre) < 0.5,
        f"The resampled means lie {centre:+.1f} points off the mean over folds.",
        "what a resample averages: the means of its folds.",
    )
    folds_only = FOLD_MEANS.std() / np.sqrt(5) / ours.std()
    expect(
        abs(spread - folds_only) > 0.04,
        f"The spread is {spread:.2f} times what it should be: folds are drawn, but their patients stay as they are.",
        "the second draw: patients within each drawn fold.",
    )
    expect(
        abs(spread - 1) < 0.08,
        f"The spread of the resampled means is {spread:.2f} times what it should be.",
        "the two draws: folds with replacement, then as many patients as a drawn fold has.",
    )
    for part, alike, look in (
        (FOLD_MEANS[folds], "the patients of a fold are", "the first draw: a fold drawn twice counts twice"),
        (patients, "the means of the folds are", "the second draw: a patient drawn twice counts twice"),
    ):
        means, ours = _resampled(bootstrap, part, folds, 1000)
        spread = means.std() / ours.std()
        expect(
            abs(spread - 1) < 0.1,
            f"Where {alike} all alike, the spread is {spread:.2f} times what it should be.",
            f"{look}, and as many are drawn as there are.",
        )
    return "Folds first, then patients: the interval is as wide as five folds deserve."
