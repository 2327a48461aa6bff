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
            lambda dice, folds: np.median([np.nanmean(part) for part in _parts(dice, folds)]),
            "{case} gave {found:g}, their median.",
            "the second mean: over folds, too, it is a mean.",
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
            when=lambda found, wanted, dice, folds: np.isnan(dice).any() and not np.isclose(found, wanted),
        ),
    ),
    says="{case} gave {found:g}, expected 30.",
    look="whether every fold enters once, by the mean of its patients; `np.unique(folds)` lists the folds.",
    praise="First over the patients of a fold, then over folds; who lacks the region does not count.",
)

SIZES = np.array([4, 8, 12, 16, 20])
"""Patients of the five folds in exercise 2."""

FOLD_MEANS = np.array([-8.0, -2.0, 3.0, 8.0, 14.0])
"""The larger the fold, the larger its mean: pooling its patients moves the mean over folds."""

OF_FOLD = np.repeat(np.arange(5), SIZES)
BY_FOLD, BY_PATIENT = FOLD_MEANS[OF_FOLD], np.concatenate([np.linspace(-25, 25, size) for size in SIZES])

Bootstrap = Callable[[np.ndarray, np.ndarray, np.random.Generator, int], np.ndarray]


def _bootstrap(
    folds: Callable = lambda rng: rng.integers(5, size=5),
    patients: Callable = lambda rng, part: rng.choice(part, part.size),
    mean: Callable = lambda drawn: np.mean([part.mean() for part in drawn]),
) -> Bootstrap:
    """The bootstrap, by which folds and patients are drawn and how the drawn patients are averaged."""

    def bootstrap(
        differences: np.ndarray, of_fold: np.ndarray, rng: np.random.Generator, n: int
    ) -> np.ndarray:
        parts = _parts(differences, of_fold)
        return np.array([mean([patients(rng, parts[fold]) for fold in folds(rng)]) for _ in range(n)])

    return bootstrap


def _spread(differences: np.ndarray) -> float:
    """Standard deviation of the bootstrap's means, exactly: between folds, and within them."""
    parts = _parts(differences, OF_FOLD)
    return np.sqrt(
        (np.var([part.mean() for part in parts]) + np.mean([part.var() / part.size for part in parts])) / 5
    )


def _times(found: np.ndarray, differences: np.ndarray) -> str:
    return f"{found.std() / _spread(differences):.2f}"


def _spreads_as(spread: float, tolerance: float) -> Callable[..., str]:
    """Whether the first case's means spread about as much as `spread`, and how many times as much as they should."""
    return lambda found, wanted, differences, n: (
        n == 2000
        and abs(found.std() - spread) <= tolerance * _spread(differences)
        and _times(found, differences)
    )


def _off_spread(of: int, tolerance: float) -> Callable[..., str]:
    return lambda found, wanted, differences, n: (
        n == of and abs(found.std() / _spread(differences) - 1) > tolerance and _times(found, differences)
    )


def _off_centre(found: np.ndarray, wanted: np.ndarray, differences: np.ndarray, n: int) -> str:
    off = found.mean() - mean_over_folds(differences, OF_FOLD)
    return n == 2000 and abs(off) >= 0.5 and f"{off:+.1f}"


def _pooled(found: np.ndarray, wanted: np.ndarray, differences: np.ndarray, n: int) -> str:
    drawn = np.random.default_rng(1).integers(5, size=(4000, 5))
    pooled = ((SIZES * FOLD_MEANS)[drawn].sum(axis=1) / SIZES[drawn].sum(axis=1)).mean()
    return abs(found.mean() - pooled) <= 0.5 and _off_centre(found, wanted, differences, n)


exercise_9_2 = Exercise(
    right=lambda differences, folds, rng, n: bootstrap_over_folds(differences, folds, resamples=n),
    cases={
        "60 patients in five folds": (BY_FOLD + BY_PATIENT, 2000),
        "Where the patients of a fold are": (BY_FOLD, 1001),  # n tells a mistake which case it is
        "Where the means of the folds are": (BY_PATIENT, 1000),
    },
    attempt=lambda bootstrap, differences, n: bootstrap(
        differences, OF_FOLD.copy(), np.random.default_rng(2), n
    ),
    same=lambda found, wanted: found.shape == wanted.shape,
    mistakes=(
        Mistake(
            lambda differences, folds, rng, n: np.full(n, differences.mean()),
            "Nothing is drawn yet: each of the n means needs a draw of its own.",
            "the sentence on what to draw: folds first, then patients.",
            when=lambda found, wanted, *_: found.shape == wanted.shape and np.ptp(found) == 0,
        ),
        Mistake(
            _bootstrap(lambda rng: range(5), lambda rng, part: rng.permutation(part)),
            "All resampled means are equal, although you draw.",
            "whether the draw is with replacement (`rng.choice` and `rng.integers` both do that by default).",
            when=lambda found, wanted, *_: found.shape == wanted.shape and np.ptp(found) <= 1e-9,
        ),
        Mistake(
            lambda differences, folds, rng, n: rng.choice(differences, (n, differences.size)).mean(axis=1),
            "The spread is {seen} times what it should be, as if all patients were independent.",
            "what is drawn first: five folds out of the five, some twice and some not at all.",
            when=_spreads_as((BY_FOLD + BY_PATIENT).std() / np.sqrt(60), 0.08),
        ),
        Mistake(
            _bootstrap(mean=lambda drawn: np.concatenate(drawn).mean()),
            "The resampled means lie {seen} points off the mean over folds: the patients of the drawn folds are "
            "pooled, so that a large fold weighs more.",
            "the order of the two means, as in exercise 1: first the patients of each drawn fold, then the folds.",
            when=_pooled,
        ),
        Mistake(
            _bootstrap(lambda rng: rng.integers(4, size=5)),
            "The resampled means lie {seen} points off the mean over folds.",
            "what a resample averages: the means of its folds.",
            when=_off_centre,
        ),
        Mistake(
            _bootstrap(patients=lambda rng, part: part),
            "The spread is {seen} times what it should be: folds are drawn, but their patients stay as they are.",
            "the second draw: patients within each drawn fold.",
            when=_spreads_as(FOLD_MEANS.std() / np.sqrt(5), 0.04),
        ),
        Mistake(
            _bootstrap(lambda rng: rng.integers(5, size=4)),
            "The spread of the resampled means is {seen} times what it should be.",
            "the two draws: folds with replacement, then as many patients as a drawn fold has.",
            when=_off_spread(2000, 0.08),
        ),
        Mistake(
            _bootstrap(lambda rng: set(rng.integers(5, size=5).tolist())),
            "{case} all alike, the spread is {seen} times what it should be.",
            "the first draw: a fold drawn twice counts twice, and as many are drawn as there are.",
            when=_off_spread(1001, 0.1),
        ),
        Mistake(
            _bootstrap(patients=lambda rng, part: np.unique(rng.choice(part, part.size))),
            "{case} all alike, the spread is {seen} times what it should be.",
            "the second draw: a patient drawn twice counts twice, and as many are drawn as there are.",
            when=_off_spread(1000, 0.1),
        ),
    ),
    praise="Folds first, then patients: the interval is as wide as five folds deserve.",
)
