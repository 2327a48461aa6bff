"""Typical wrong answers to the exercises of notebook 09, each with words of its diagnosis."""

import numpy as np


def over_patients(dice, folds):
    return np.nanmean(dice)


def with_nan(dice, folds):
    return np.mean([dice[folds == fold].mean() for fold in np.unique(folds)])


def missing_is_zero(dice, folds):
    return with_nan(np.nan_to_num(dice), folds)


def patients_only(differences, folds, rng, n):
    return np.array([rng.choice(differences, differences.size).mean() for _ in range(n)])


def folds_only(differences, folds, rng, n):
    means = np.array([differences[folds == fold].mean() for fold in np.unique(folds)])
    return np.array([rng.choice(means, means.size).mean() for _ in range(n)])


def not_resampled(differences, folds, rng, n):
    return np.full(n, differences.mean())


WRONG = {
    "exercise_9_1": [
        (over_patients, "the mean over all patients"),
        (with_nan, "your mean became NaN too"),
        (missing_is_zero, "whether such a patient counts as 0"),
    ],
    "exercise_9_2": [
        (patients_only, "as if all patients were independent"),
        (folds_only, "their patients stay as they are"),
        (not_resampled, "with replacement"),
    ],
}
