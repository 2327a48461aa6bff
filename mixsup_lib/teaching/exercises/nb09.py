"""Exercises of notebook 09: the mean that weighs folds alike, and the bootstrap that knows of folds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixsup_lib.experiments.statistics import bootstrap_over_folds, mean_over_folds
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake

DICE, FOLDS = np.array([85.0, 65.0, 30.0, 10.0, 20.0]), np.array([1, 1, 1, 2, 3])  # means 60, 10, 20


def _parts(values: np.ndarray, folds: np.ndarray) -> list[np.ndarray]:
    return [values[folds == fold] for fold in np.unique(folds)]


exercise_9_1 = Exercise(
    right=lambda dice, folds: mean_over_folds(dice[~np.isnan(dice)], folds[~np.isnan(dice)]),
    cases={
        "Folds with means 60, 10 and 20": (DICE, FOLDS),
        "With a patient without a Dice": (np.append(DICE, np.nan), np.append(FOLDS, 2)),
    },
    mistakes=(
        Mistake(
            lambda dice, folds: np.nanmean(dice),
            "{found:g} is the mean over all patients: the fold with three patients weighs three times as much.",
            "the order of the two means: first the patients of a fold, then the folds.",
        ),
        Mistake(
            lambda dice, folds: np.mean([part.mean() for part in _parts(dice, folds)]),
            "A patient whose ground truth lacks the region has no Dice (NaN), and your mean became NaN too.",
            "`np.isnan`: such a patient is left out, as in the authors' code (the paper does not say).",
        ),
        Mistake(
            lambda dice, folds: np.mean([part.mean() for part in _parts(np.nan_to_num(dice), folds)]),
            "{case} the mean became {found:g}, expected 30 as before.",
            "whether such a patient counts as 0, which would punish a method for a region that is not there.",
        ),
    ),
    says="{case} gave {found:g}, expected 30.",
    look="whether every fold enters once, by the mean of its patients; `np.unique(folds)` lists the folds.",
    praise="First over the patients of a fold, then over folds; who lacks the region does not count.",
)

OF_FOLD = np.repeat(np.arange(5), [4, 8, 12, 16, 20])
"""The fold of each of 60 patients in exercise 2."""

BY_FOLD = np.array([-8.0, -2.0, 3.0, 8.0, 14.0])[OF_FOLD]
"""The larger the fold, the larger its mean: pooling its patients moves the mean over folds."""

BY_PATIENT = np.concatenate([np.linspace(-25, 25, (OF_FOLD == fold).sum()) for fold in range(5)])
RNG = np.random.default_rng(2)


def _bootstrap(
    patients: Callable = lambda rng, part: rng.choice(part, part.size),
    mean: Callable = lambda drawn: np.mean([part.mean() for part in drawn]),
) -> Callable[..., np.ndarray]:
    """The bootstrap, by how the patients of a fold are drawn and how the drawn patients are averaged."""

    def one(parts: list[np.ndarray], rng: np.random.Generator) -> float:
        return mean([patients(rng, parts[fold]) for fold in rng.integers(5, size=5)])

    return lambda differences, folds, rng, n: [one(_parts(differences, folds), rng) for _ in range(n)]


def _as_wide(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two bootstraps spread about alike around about the same mean."""
    spreads = found.std(), wanted.std()
    near = abs(spreads[0] - spreads[1]) <= 0.09 * max(spreads) + 1e-9
    return found.shape == wanted.shape and near and abs(found.mean() - wanted.mean()) < 0.7


exercise_9_2 = Exercise(
    right=lambda differences, folds, rng, n: bootstrap_over_folds(differences, folds, resamples=n),
    cases={
        "60 patients in five folds": (BY_FOLD + BY_PATIENT, OF_FOLD, RNG, 2000),
        "Where the patients of a fold are all alike": (BY_FOLD, OF_FOLD, RNG, 2000),
        "Where the means of the folds are all alike": (BY_PATIENT, OF_FOLD, RNG, 2000),
    },
    same=_as_wide,
    mistakes=(
        Mistake(
            lambda differences, folds, rng, n: np.full(n, differences.mean()),
            "Nothing is drawn yet: each of the n means needs a draw of its own.",
            "the sentence on what to draw: folds first, then patients.",
        ),
        Mistake(
            lambda differences, folds, rng, n: rng.choice(differences, (n, differences.size)).mean(axis=1),
            "Your means spread as if all patients were independent.",
            "what is drawn first: five folds out of the five, some twice and some not at all.",
        ),
        Mistake(
            _bootstrap(mean=lambda drawn: np.concatenate(drawn).mean()),
            "The patients of the drawn folds are pooled, so that a large fold weighs more.",
            "the order of the two means, as in exercise 1: first the patients of each drawn fold, then the folds.",
        ),
        Mistake(
            _bootstrap(patients=lambda rng, part: part),
            "Folds are drawn, but their patients stay as they are.",
            "the second draw: patients within each drawn fold.",
        ),
    ),
    says="{case}: your means have another mean or spread than the bootstrap over folds.",
    look="the two draws: as many as there are, with replacement; what is drawn twice counts twice.",
    praise="Folds first, then patients: the interval is as wide as five folds deserve.",
)
