"""Variants compared within patients: the right runs, the same patients, exact numbers."""

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.config import make_config
from mixsup_lib.experiments.pictures import variant_ladder
from mixsup_lib.experiments.statistics import paired_difference
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.experiments.tables import (
    dice_by_variant,
    difference_in_words,
    format_table,
    readable,
    runs_of,
    variant_table,
)
from mixsup_lib.files import DataError

CONFIGS = {
    "standard": make_config(cohort="any", supervision="standard"),
    "pass through": make_config(cohort="any", supervision="mixed", a=1.0),
    "mixed": make_config(cohort="any", supervision="mixed"),
}
AGAINST = {"pass through": "standard", "mixed": "pass through"}


def run(config, dice, *, fold=1, seed=0, n_wa=91, fingerprint="one"):
    """The rows of one run; `dice` is a number per patient."""
    return pd.DataFrame(
        {
            "cohort": "phantom-x",
            "preset": config.preset,
            "task": config.task,
            "n_fa": config.n_fa,
            "n_wa": n_wa,
            "fold": fold,
            "supervision": config.supervision,
            "seed": seed,
            "settings_hash": config.settings_hash(),
            "patient": [f"P{fold}{i}" for i in range(len(dice))],
            "region": "whole_tumor",
            "dice": dice,
            "data_fingerprint": fingerprint,
            "folder": "somewhere",
        }
    )


def three_arms(fold: int, start: float) -> list[pd.DataFrame]:
    base = start + np.arange(4.0)
    return [run(config, base + 5 * i, fold=fold) for i, config in enumerate(CONFIGS.values())]


FRAME = pd.concat([*three_arms(1, 50), *three_arms(2, 70)])


def test_each_variant_has_its_own_runs_and_no_others():
    other = run(make_config(cohort="any", supervision="mixed", a=0.5), [1.0])
    frame = pd.concat([FRAME, other])
    assert len(runs_of(frame, CONFIGS["mixed"])) == 8
    assert set(dice_by_variant(frame, CONFIGS).columns) == set(CONFIGS)


def test_numbers_of_weak_patients_are_told_apart():
    mixed = CONFIGS["mixed"]
    frame = pd.concat([run(mixed, [60.0]), run(mixed, [40.0], n_wa=10)])
    assert runs_of(frame, mixed)["n_wa"].tolist() == [91]
    assert runs_of(frame, make_config(cohort="any", supervision="mixed", n_wa=10))["dice"].tolist() == [40.0]


def test_differences_are_paired_and_exact():
    dice = dice_by_variant(FRAME, CONFIGS)
    table = variant_table(dice, AGAINST)
    assert table["mean"].tolist() == [61.5, 66.5, 71.5]
    assert table["difference"].tolist()[1:] == [5.0, 5.0] and np.isnan(table["difference"][0])
    assert (table["low"][1:] == 5.0).all() and (table["high"][1:] == 5.0).all()
    assert table["lowest_fold"].tolist() == [51.5, 56.5, 61.5] and set(table["n_folds"]) == {2}


def test_the_interval_is_that_of_the_paired_comparison():
    rng = np.random.default_rng(0)
    arms = [
        run(config, rng.uniform(20, 90, 6), fold=fold) for config in CONFIGS.values() for fold in (1, 2, 3)
    ]
    dice = dice_by_variant(pd.concat(arms), CONFIGS)
    change = (dice["mixed"] - dice["pass through"]).rename("difference").reset_index()
    row = variant_table(dice, AGAINST).iloc[2]
    found = paired_difference(change)
    assert (row["difference"], row["low"], row["high"]) == (found.difference, found.low, found.high)


def test_only_folds_and_seeds_that_all_variants_have_count():
    frame = pd.concat(
        [FRAME, run(CONFIGS["mixed"], [99.0] * 4, fold=3), run(CONFIGS["mixed"], [99.0] * 4, seed=1)]
    )
    assert variant_table(dice_by_variant(frame, CONFIGS), AGAINST)["mean"].tolist() == [61.5, 66.5, 71.5]


def test_seeds_are_averaged_first():
    again = [run(config, np.full(4, 10.0), seed=1) for config in CONFIGS.values()]
    dice = dice_by_variant(pd.concat([FRAME, *again]), CONFIGS)
    assert dice.loc[("whole_tumor", 1, "P10"), "standard"] == 30.0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="no finished run of variant 'mixed'"):
        dice_by_variant(FRAME[FRAME["settings_hash"] != CONFIGS["mixed"].settings_hash()], CONFIGS)
    only = pd.concat(
        [
            run(CONFIGS["standard"], [1.0]),
            run(CONFIGS["pass through"], [1.0]),
            run(CONFIGS["mixed"], [1.0], fold=2),
        ]
    )
    with pytest.raises(DataError, match="no fold has been finished by every variant"):
        dice_by_variant(only, CONFIGS)
    with pytest.raises(DataError, match="different data"):
        dice_by_variant(pd.concat([FRAME, run(CONFIGS["mixed"], [1.0], fold=3, fingerprint="two")]), CONFIGS)


def test_the_table_and_the_picture_say_the_same():
    dice = dice_by_variant(FRAME, CONFIGS)
    table = variant_table(dice, AGAINST)
    text = readable(table)
    assert text["difference [95 %]"].tolist() == ["", "+5.0 [+5.0, +5.0]", "+5.0 [+5.0, +5.0]"]
    assert text["Dice (folds)"][0] == "61.5 (51.5 to 71.5)"
    assert max(map(len, format_table(table).splitlines())) <= 79
    figure = variant_ladder(dice, table, title="phantom")
    assert "mixed: 71.5 (+5.0, +5.0 to +5.0)" in alt_text(figure)
    figure.savefig("/dev/null", format="png")


def test_a_difference_in_words_is_the_tables():
    words = difference_in_words(dice_by_variant(FRAME, CONFIGS), "mixed", "standard")
    assert words == "+10.0 [+10.0, +10.0]"


def test_variants_that_tested_different_patients_are_refused():
    other = run(CONFIGS["mixed"], [50.0, 60, 70, 80]).assign(patient=["P10", "P11", "P12", "Q"])
    frame = pd.concat([run(CONFIGS["standard"], [50.0, 60, 70, 80]), other])
    with pytest.raises(
        DataError, match="patient P13 was tested in fold 1 by some variants only .standard.*permutation_of"
    ):
        dice_by_variant(frame, {name: CONFIGS[name] for name in ("standard", "mixed")})
