"""The audit of the paper: verdicts and the numbers behind them, recomputed here from the paper's printed values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from mixsup_lib.paper import TABLE_1, TABLE_2, TABLE_3, TABLE_4
from mixsup_lib.teaching import audit


def because(words):
    (found,) = [s.because for s in audit.audit() if words in s.says]
    return found


def test_the_verdicts():
    no, open_, yes = "not supported", "cannot tell", "supported"
    expected = [no, open_, no, yes, yes, yes, open_, yes, open_, yes, yes]
    assert [statement.verdict for statement in audit.audit()] == expected


def test_significance_at_15_is_that_of_a_paired_t_test():
    standard, mixed = [76.23, 78.15, 78.13, 77.67, 79.35], [82.36, 81.03, 78.96, 79.88, 82.35]
    plain, corrected = audit.fold_tests()["binary", "whole_tumor"]
    assert plain == pytest.approx(ttest_rel(mixed, standard).pvalue) == pytest.approx(0.026, abs=5e-4)
    assert corrected == pytest.approx(4 * audit.fold_tests()["multiclass", "tumor_core"][0])
    assert because("15 FA, every region").startswith("paired t-test over five folds: p < 0.05 in 5 of 6")


def test_the_numbers_behind_the_verdicts():
    assert [audit.gains(n)["binary", "tumor_core"] for n in (5, 15, 30)] == [1.97, 4.90, 2.13]
    assert because("proportional").startswith(
        "in 4 of 6 columns the gain grows with it (not in binary tumour core and multiclass enhancing core)"
    )
    assert f"{7.95 / 3.01:.1f} times as large where the ratio is {44.6 / 14.2:.1f}" in because("proportional")
    assert because("largest improvements").startswith("+7.95 and +9.03")
    assert because("all folds and regions") == "29 of 30 differences are positive; the other is fold 4"


def test_other_numbers_would_change_the_verdicts(monkeypatch):
    """The verdicts follow from the tables: a paper with other results is judged otherwise."""
    monkeypatch.setitem(TABLE_1, ("mixed", 5), (70.0, 50.11, 60.06))
    monkeypatch.setitem(TABLE_2, ("mixed", "tumor_core"), (60.0, 66.82, 63.45, 60.83, 61.91, 62.6))
    wrong = " ".join(s.says for s in audit.audit() if s.verdict == "not supported")
    for start in ("with 5 and 15 FA", "the largest", "15 FA: an improvement", "whole tumour: mixed with 5 FA"):
        assert start in wrong


@pytest.mark.parametrize("table", [TABLE_2, TABLE_4])
def test_printed_means_of_folds_are_their_means(table):
    """Up to one unit of the last place: table 4 prints 59.87 where its folds average to 59.864."""
    for *folds, printed in table.values():
        assert abs(np.mean(folds) - printed) < 0.0101


def test_the_folds_means_stand_in_the_tables_of_means():
    for i, region in enumerate(("whole_tumor", "tumor_core", "enhancing_core")):
        for arm in ("standard", "mixed"):
            assert TABLE_2[arm, region][-1] == TABLE_1[arm, 15][i]
            assert TABLE_4[arm, region][-1] == TABLE_3[arm, 15][i]
