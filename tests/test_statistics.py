"""Means over folds, the paired interval, tests and masks worth: against hand numbers and written-out loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.config import make_config
from mixsup_lib.experiments.statistics import (
    bootstrap_over_folds,
    holm,
    masks_reaching,
    masks_worth,
    mean_over_folds,
    paired_difference,
)
from mixsup_lib.files import DataError
from mixsup_lib.paper import TABLE_2


def pairs_of(folds, differences) -> pd.DataFrame:
    return pd.DataFrame({"fold": folds, "difference": differences})


def test_tables_2_and_4_average_to_their_printed_means_by_the_rule_used_here():
    for *folds, printed in TABLE_2.values():
        assert mean_over_folds(np.array(folds), np.arange(5)) == pytest.approx(printed, abs=0.0051)


def test_wilcoxon_by_hand():
    pairs = pairs_of(1, [1.0, 2.0, 3.0, 4.0, -5.0, 6.0])
    # The smaller rank sum is 5; 2 * (number of subsets of ranks 1..6 that sum to <= 5 = 10) / 2^6
    assert paired_difference(pairs).p_wilcoxon == pytest.approx(2 * 10 / 64)
    assert math.isnan(paired_difference(pairs.assign(difference=0.0)).p_wilcoxon)


def test_holm_by_hand():
    """Smallest p times 4, next times 3, ...; never below the one before, never above 1; NaN is no test."""
    found = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.9]))
    assert np.allclose(found, [0.04, 0.09, np.nan, 0.09, 0.9], equal_nan=True)


# The interval


def slow_bootstrap(values: np.ndarray, folds: np.ndarray, resamples: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    sample = []
    for _ in range(resamples):
        drawn = rng.choice(np.unique(folds), len(np.unique(folds)))
        parts = [values[folds == fold] for fold in drawn]
        sample.append(np.mean([rng.choice(part, part.size).mean() for part in parts]))
    return np.array(sample)


def test_the_bootstrap_equals_its_written_out_loop_and_is_reproducible():
    rng = np.random.default_rng(0)
    folds = np.repeat([1, 2, 3, 4, 5], [4, 9, 11, 11, 11])
    values = rng.normal(5, 15, folds.size) + folds
    fast, slow = bootstrap_over_folds(values, folds), slow_bootstrap(values, folds, 10_000)
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    assert np.quantile(fast, quantiles) == pytest.approx(np.quantile(slow, quantiles), abs=0.25)
    assert fast.shape == (10_000,) and np.array_equal(fast, bootstrap_over_folds(values, folds, seed=0))
    assert (fast != bootstrap_over_folds(values, folds, seed=1)).any()


def test_folds_are_resampled_before_patients_and_weigh_the_same():
    """Patients that agree within folds, folds that disagree: patients alone would show no spread."""
    found = paired_difference(pairs_of(np.repeat([1, 2, 3, 4, 5], 50), np.repeat([0.0, 2, 4, 6, 8], 50)))
    assert found.difference == 4.0
    assert (found.low, found.high) == pytest.approx((1.6, 6.4), abs=0.4)
    found = paired_difference(pairs_of([1] * 99 + [2], [0.0] * 99 + [10.0]))
    assert (found.difference, found.low, found.high) == (5.0, 0.0, 10.0)
    with pytest.raises(DataError, match="no patient was scored in both arms"):
        paired_difference(pairs_of([], []))


def coverage(n_folds: int, trials: int = 300) -> float:
    """How often the interval holds the true difference 0; 10 patients a fold, spread 10, folds spread 3."""
    rng = np.random.default_rng(0)
    folds = np.repeat(np.arange(n_folds), 10)
    hits = 0
    for _ in range(trials):
        values = rng.normal(0, 3, n_folds)[folds] + rng.normal(0, 10, folds.size)
        low, high = np.quantile(bootstrap_over_folds(values, folds, resamples=500), [0.025, 0.975])
        hits += low <= 0 <= high
    return hits / trials


def test_the_interval_covers_the_truth_as_often_as_the_docstring_says():
    assert coverage(5) == pytest.approx(0.95, abs=0.03)
    assert coverage(2) == pytest.approx(0.87, abs=0.05)
    assert coverage(1) == pytest.approx(0.75, abs=0.05)


# How many masks weak scans are worth

STANDARD = {f"{n} FA": make_config(cohort="any", supervision="standard", n_fa=n) for n in (5, 10, 40)}
MIXED = {f"5 FA + {n} WA": make_config(cohort="any", supervision="mixed", n_fa=5, n_wa=n) for n in (20, 91)}
CONFIGS = STANDARD | MIXED
MEANS = {"5 FA": 60.0, "10 FA": 70.0, "40 FA": 80.0, "5 FA + 20 WA": 65.0, "5 FA + 91 WA": 81.0}


def measured(means=MEANS) -> pd.DataFrame:
    """Dice of 2 folds of 10 patients; patients differ by how easy they are, the same in every run."""
    ease = np.random.default_rng(0).normal(0, 5, 20)
    index = pd.MultiIndex.from_tuples(
        [("whole_tumor", 1 + i // 10, f"P{i}") for i in range(20)], names=["region", "fold", "patient"]
    )
    return pd.DataFrame({name: mean + ease - ease.mean() for name, mean in means.items()}, index=index)


def test_between_two_numbers_of_masks_dice_grows_with_the_logarithm():
    n_fa, curve = np.array([5, 10, 40]), np.array([[60.0, 70.0, 80.0]] * 4)
    by_hand = [5, 10 * (40 / 10) ** 0.5, 10, np.inf]  # below the first, halfway in log, exact, never
    assert masks_reaching(n_fa, curve, np.array([55.0, 75.0, 70.0, 80.1])).tolist() == by_hand


def test_a_curve_that_falls_counts_from_where_it_first_reaches_the_dice():
    curve = np.array([[60.0, 75.0, 70.0]])
    assert masks_reaching(np.array([5, 10, 40]), curve, np.array([74.0])).tolist() == [10]


def test_the_whole_table_and_its_interval():
    table = masks_worth(measured(), CONFIGS).set_index("variant")
    found = table.loc["5 FA + 20 WA", ["n_wa", "masks", "low", "high"]].tolist()
    assert found == [20, 8, 8, 8]  # 5 * 2 ** 0.5 = 7.07
    assert table.loc["5 FA + 91 WA", "masks"] == np.inf and table["dice"].round(6).tolist() == [65.0, 81.0]
    disagree = measured()
    disagree["5 FA + 20 WA"] += np.random.default_rng(1).normal(0, 8, 20)
    row = masks_worth(disagree, CONFIGS).iloc[0]
    assert row["low"] < row["masks"] < row["high"]
    with pytest.raises(DataError, match="measured with 1 number"):
        masks_worth(measured(), {"5 FA": STANDARD["5 FA"], **MIXED})


def test_one_patient_has_a_difference_and_no_interval():
    found = paired_difference(pd.DataFrame({"fold": [1], "difference": [-4.3]}))
    assert (found.difference, found.n_patients, found.note) == (-4.3, 1, "One patient only: there is no interval.")
    assert np.isnan([found.low, found.high, found.p_wilcoxon]).all()
