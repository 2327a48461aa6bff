"""The paper's tables from our runs: its numbers where it prints them, ours where they were run, nothing where not."""

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.experiments.statistics import holm
from mixsup_lib.experiments.tables import paper_tables, write_tables
from mixsup_lib.files import DataError
from mixsup_lib.paper import TABLE_1, TABLE_2, TABLE_3


def run(dice, *, supervision, n_fa=15, n_wa=81, fold=1, task="whole_tumor", region=None, cohort="phantom-x"):
    """The rows of one run on patients of its fold; `dice` is their mean."""
    return pd.DataFrame(
        {
            "cohort": cohort,
            "preset": "workshop",
            "task": task,
            "n_fa": n_fa,
            "n_wa": n_wa,
            "fold": fold,
            "supervision": supervision,
            "seed": 0,
            "settings_hash": supervision + task + str(n_fa),
            "patient": [f"P{fold}{i}" for i in range(4)],
            "region": region or task,
            "dice": dice + np.array([-3.0, -1, 1, 3]),
            "data_fingerprint": "one",
            "folder": "somewhere",
        }
    )


@pytest.fixture
def frame():
    """Whole tumour at 15 FA in folds 1 and 2, the core in fold 1, the upper line, and one multiclass pair at 5 FA."""
    parts = []
    for fold in (1, 2):
        parts += [
            run(70.0 + fold, supervision="standard", fold=fold),
            run(75.0 + fold, supervision="mixed", fold=fold),
        ]
    parts += [
        run(50.0 + 2 * i, supervision=arm, task="tumor_core") for i, arm in enumerate(("standard", "mixed"))
    ]
    parts.append(run(85.0, supervision="standard", n_fa=96, n_wa=0))
    for region, dice in (("whole_tumor", 60.0), ("tumor_core", 40.0), ("enhancing_core", 30.0)):
        kind = {"task": "multiclass", "region": region, "n_fa": 5, "n_wa": 91}
        parts += [run(dice, supervision="standard", **kind), run(dice + 4, supervision="mixed", **kind)]
    return pd.concat(parts)


def test_table_1_has_the_papers_rows_with_ours_beside_them(frame):
    table = paper_tables(frame)["table1"].set_index("scenario")
    assert list(table.index) == [
        "standard, 5 FA",
        "mixed, 5 FA",
        "standard, 15 FA",
        "mixed, 15 FA + 81 WA",
        "standard, 30 FA",
        "mixed, 30 FA",
        "standard, 96 FA",
    ]
    printed = table[[column for column in table if column.startswith("paper: ")]].to_numpy()
    assert np.array_equal(printed, np.array(list(TABLE_1.values())))
    row = table.loc["mixed, 15 FA + 81 WA"]
    assert (row["whole tumour"], row["tumour core"], row["folds"]) == (76.5, 52.0, "1, 2")
    assert table.loc["standard, 96 FA", "whole tumour"] == 85.0


def test_what_was_not_run_is_empty(frame):
    tables = paper_tables(frame)
    assert tables["table1"].set_index("scenario").loc["standard, 30 FA", "whole tumour":].isna().sum() == 3
    core = tables["table2"].set_index("").loc["standard, tumour core"]
    assert core["fold 1"] == 50.0 and core[["fold 2", "fold 5", "mean"]].isna().all()
    assert tables["table4"].iloc[0, 1:].isna().all()


def test_table_2_has_the_five_folds_of_the_paper(frame):
    table = paper_tables(frame)["table2"].set_index("")
    assert tuple(table.loc["paper: mixed, whole tumour"]) == TABLE_2["mixed", "whole_tumor"]
    assert table.loc["mixed, whole tumour", "fold 2"] == 77.0


def test_table_3_is_of_the_multiclass_runs_alone(frame):
    table = paper_tables(frame)["table3"].set_index("scenario")
    row = table.loc["mixed, 5 FA + 91 WA"]
    assert tuple(row[["whole tumour", "tumour core", "enhancing core"]]) == (64.0, 44.0, 34.0)
    assert row["paper: tumour core"] == TABLE_3["mixed", 5][1]


def test_differences_are_corrected_for_their_number(frame):
    table = paper_tables(frame)["differences"]
    assert len(table) == 5 and table["difference"].tolist() == [5.0, 2.0, 4.0, 4.0, 4.0]
    assert np.allclose(table["p_holm"], holm(table["p_wilcoxon"].to_numpy()))
    assert (table["p_holm"] > table["p_wilcoxon"]).all()


def test_holm_by_hand():
    """Smallest p times 4, next times 3, ...; never below the one before, never above 1; NaN is no test."""
    found = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.9]))
    assert np.allclose(found, [0.04, 0.09, np.nan, 0.09, 0.9], equal_nan=True)


def test_two_cohorts_are_no_table(frame):
    with pytest.raises(DataError, match=r"2 cohorts \(lgg, phantom-x\), expected one"):
        paper_tables(pd.concat([frame, run(1.0, supervision="standard", cohort="lgg")]))


def test_two_numbers_of_weak_patients_are_no_table(frame):
    fewer = run(70.0, supervision="mixed", n_wa=20)
    with pytest.raises(
        DataError, match=r"whole_tumor, 15 FA: the runs have 2 numbers of weak patients \(20, 81\)"
    ):
        paper_tables(pd.concat([frame, fewer]))


def test_tables_are_written_three_ways_with_the_same_numbers(frame, tmp_path):
    tables = paper_tables(frame)
    written = write_tables(tables, tmp_path)
    assert len(written) == 15 and all(path.stat().st_size for path in written)
    read = pd.read_csv(tmp_path / "table1.csv")
    assert np.allclose(read["whole tumour"], tables["table1"]["whole tumour"], equal_nan=True)
    read = pd.read_csv(tmp_path / "differences.csv")
    assert np.allclose(read["p_wilcoxon"], tables["differences"]["p_wilcoxon"], rtol=1e-5, atol=0)
    assert "| mixed, 15 FA + 81 WA | 1, 2" in (tmp_path / "table1.md").read_text()
    latex = " ".join((tmp_path / "table1.tex").read_text().split())
    assert r"mixed, 15 FA + 81 WA & 1, 2 & 76.5 & 80.9 & 52.0 & 63.2 & & 66.6 \\" in latex
