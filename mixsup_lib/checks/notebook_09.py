"""Checks of notebook 09: the mean that weighs folds alike, and the bootstrap that knows of folds."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixsup_lib.checks.verdict import as_array, call, check, expect
from mixsup_lib.paired import bootstrap_over_folds, mean_over_folds


@check
def exercise_9_1(fold_mean: Any) -> str:
    """Dice (P,) with NaN for patients without the region, folds (P,) -> the mean as in the paper's tables."""
    dice, folds = np.array([80.0, 60.0, 40.0, 10.0]), np.array([1, 1, 1, 2])
    found = float(as_array(call(fold_mean, dice, folds), ()))
    expect(
        not np.isclose(found, dice.mean()),
        f"{found:g} is the mean over all patients: the fold with three patients weighs three times as much.",
        "the order of the two means: first the patients of a fold, then the folds.",
    )
    expect(
        np.isclose(found, 35.0),
        f"Folds with means 60 and 10 gave {found:g}, expected 35.",
        "whether every fold enters once; `np.unique(folds)` lists them.",
    )
    missing = np.append(dice, np.nan)
    found = float(as_array(call(fold_mean, missing, np.append(folds, 2)), ()))
    expect(
        not np.isnan(found),
        "A patient whose ground truth lacks the region has no Dice (NaN), and your mean became NaN too.",
        "`np.isnan`: section 4 leaves such patients out.",
    )
    expect(
        np.isclose(found, 35.0),
        f"With a patient without a Dice the mean became {found:g}, expected 35 as before.",
        "whether such a patient counts as 0, which would punish a method for a region that is not there.",
    )
    return "First over the patients of a fold, then over folds; who lacks the region does not count."


@check
def exercise_9_2(bootstrap: Any) -> str:
    """Differences (P,), folds (P,), generator, n -> n bootstrap means over folds and then patients."""
    rng = np.random.default_rng(1)
    folds = np.repeat(np.arange(5), 12)
    differences = rng.normal(0, 8, 5)[folds] + rng.normal(0, 10, folds.size)
    means = as_array(call(bootstrap, differences, folds, np.random.default_rng(2), 2000), (2000,))
    ours = bootstrap_over_folds(differences, folds, resamples=4000, seed=3)
    expect(
        np.ptp(means) > 0,
        "All resampled means are equal.",
        "whether the draw is with replacement (`rng.choice` and `rng.integers` both do that by default).",
    )
    centre, spread = means.mean() - mean_over_folds(differences, folds), means.std() / ours.std()
    expect(
        abs(centre) < 0.5,
        f"The resampled means lie {centre:+.1f} points off the mean over folds.",
        "what a resample averages: the means of its folds.",
    )
    patients_only = (
        np.std([rng.choice(differences, differences.size).mean() for _ in range(500)]) / ours.std()
    )
    expect(
        abs(spread - patients_only) > 0.08,
        f"The spread is {spread:.2f} times what it should be, as if all patients were independent.",
        "what is drawn first: five folds out of the five, some twice and some not at all.",
    )
    means_of_folds = np.array([differences[folds == fold].mean() for fold in range(5)])
    folds_only = np.std([rng.choice(means_of_folds, 5).mean() for _ in range(2000)]) / ours.std()
    expect(
        abs(spread - folds_only) > 0.04 or abs(spread - 1) < 0.03,
        f"The spread is {spread:.2f} times what it should be: folds are drawn, but their patients stay as they are.",
        "the second draw: patients within each drawn fold.",
    )
    expect(
        abs(spread - 1) < 0.08,
        f"The spread of the resampled means is {spread:.2f} times what it should be.",
        "the two draws: folds with replacement, then as many patients as a drawn fold has.",
    )
    return "Folds first, then patients: the interval is as wide as five folds deserve."
