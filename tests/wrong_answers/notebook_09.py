"""Typical wrong answers to the exercises of notebook 09, each with words of its diagnosis."""

import numpy as np


def over_patients(dice, folds):
    return np.nanmean(dice)


def with_nan(dice, folds):
    return np.mean([dice[folds == fold].mean() for fold in np.unique(folds)])


def missing_is_zero(dice, folds):
    return with_nan(np.nan_to_num(dice), folds)


def median_of_folds(dice, folds):
    return np.median([np.nanmean(dice[folds == fold]) for fold in np.unique(folds)])


def medians_of_patients(dice, folds):
    return np.mean([np.nanmedian(dice[folds == fold]) for fold in np.unique(folds)])


def patients_only(differences, folds, rng, n):
    return np.array([rng.choice(differences, differences.size).mean() for _ in range(n)])


def folds_only(differences, folds, rng, n):
    means = np.array([differences[folds == fold].mean() for fold in np.unique(folds)])
    return np.array([rng.choice(means, means.size).mean() for _ in range(n)])


def by_fold(differences, folds):
    return [differences[folds == fold] for fold in np.unique(folds)]


def pooled(differences, folds, rng, n):
    parts = by_fold(differences, folds)
    drawn = ([parts[fold] for fold in rng.integers(5, size=5)] for _ in range(n))
    return np.array([np.concatenate([rng.choice(part, part.size) for part in some]).mean() for some in drawn])


def without_replacement(differences, folds, rng, n):
    parts = by_fold(differences, folds)
    return np.array([np.mean([rng.permutation(part).mean() for part in parts]) for _ in range(n)])


def each_fold_once(differences, folds, rng, n):
    parts = by_fold(differences, folds)
    drawn = (set(rng.integers(5, size=5).tolist()) for _ in range(n))
    return np.array([np.mean([rng.choice(parts[f], parts[f].size).mean() for f in some]) for some in drawn])


def each_patient_once(differences, folds, rng, n):
    parts = by_fold(differences, folds)
    drawn = ([parts[fold] for fold in rng.integers(5, size=5)] for _ in range(n))
    return np.array(
        [np.mean([np.unique(rng.choice(part, part.size)).mean() for part in some]) for some in drawn]
    )


def not_resampled(differences, folds, rng, n):
    return np.full(n, differences.mean())


WRONG = {
    "exercise_9_1": [
        (over_patients, "the mean over all patients"),
        (median_of_folds, "gave 20, their median"),
        (medians_of_patients, "expected 30"),
        (with_nan, "your mean became NaN too"),
        (missing_is_zero, "whether such a patient counts as 0"),
    ],
    "exercise_9_2": [
        (patients_only, "as if all patients were independent"),
        (folds_only, "their patients stay as they are"),
        (pooled, "so that a large fold weighs more"),
        (not_resampled, "each of the n means needs a draw of its own"),
        (without_replacement, "whether the draw is with replacement"),
        (each_fold_once, "a fold drawn twice counts twice"),
        (each_patient_once, "a patient drawn twice counts twice"),
    ],
}
