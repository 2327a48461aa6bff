"""Run folders -> tables: what is refused, what is averaged how, how a table is shown, and the paper's own beside it."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.config import make_config
from mixsup_lib.experiments import statistics, tables
from mixsup_lib.experiments.experiment import read_experiment
from mixsup_lib.experiments.pictures import variant_ladder
from mixsup_lib.experiments.runs import collect, read_examples, read_history, read_recorded
from mixsup_lib.experiments.statistics import holm
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.experiments.tables import dice_by_variant, paper_tables, variant_table
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.paper import TABLE_1, TABLE_2, TABLE_3

ROOT = Path(__file__).resolve().parent.parent
HASHES = {"standard": "aaaa0000", "mixed": "bbbb1111"}


def write_run(
    root: Path,
    dice: dict[str, float],
    *,
    supervision: str = "standard",
    fold: int = 1,
    seed: int = 0,
    region: str = "whole_tumor",
    n_fa: int = 5,
    n_wa: int | None = None,
    n_weak: int = 8,
    cohort: str = "phantom-seed1",
    settings_hash: str | None = None,
    fingerprint: str = "data0",
) -> Path:
    """A finished run folder of a binary task; its test patients have the given Dice (NaN: region absent)."""
    name = f"seed{seed}-{settings_hash or HASHES[supervision]}"
    folder = root / cohort / "tiny" / region / f"{n_fa}fa{n_weak}wa" / f"fold{fold}" / supervision / name
    folder.mkdir(parents=True)
    config = {"cohort": f"data/{cohort}", "preset": "tiny", "task": region, "n_fa": n_fa, "n_wa": n_wa}
    config |= {"fold": fold, "supervision": supervision, "seed": seed, "iterations": 40}
    split = {"fully_annotated": ["f"] * n_fa, "weak": ["w"] * n_weak, "test": list(dice)}
    summary = {name: {region: 0} for name in ("mean_dice", "median_dice", "n_test")}
    (folder / "metrics.json").write_text(json.dumps({"config": config, "split": split} | summary))
    provenance = {"commit": "c", "data_fingerprint": fingerprint, "device": "cpu", "wall_seconds": 1.0}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    rows = {"patient": list(dice), "region": region, "dice": list(dice.values())}
    rows |= {"sensitivity": 50.0, "specificity": 99.0, "hausdorff95": 3.0, "hausdorff_unit": "mm"}
    rows |= {"truth_voxels": [0 if math.isnan(x) else 9 for x in dice.values()], "predicted_voxels": 9}
    pd.DataFrame({**rows, "slice_auc": np.nan}).to_csv(folder / "per_patient.csv", index=False)
    return folder


def write_pair(root: Path, standard: dict[str, float], mixed: dict[str, float], **kwargs) -> None:
    write_run(root, standard, supervision="standard", **kwargs)
    write_run(root, mixed, supervision="mixed", **kwargs)


def compared(root: Path) -> pd.DataFrame:
    return tables.comparison_table(collect(root))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two folds of different size: patient gains 10, 20, 30 in fold 1 and 0 in fold 2."""
    root = tmp_path / "runs"
    write_pair(root, {"a": 10.0, "b": 50.0, "c": 60.0}, {"a": 20.0, "b": 70.0, "c": 90.0}, fold=1)
    write_pair(root, {"d": 80.0}, {"d": 80.0}, fold=2)
    return root


# Reading


def test_collect_has_a_row_per_run_patient_and_region(runs):
    frame = collect(runs)
    assert len(frame) == 8
    assert frame.columns[:9].tolist() == [*statistics.SCENARIO, "fold", "supervision", "seed", "settings_hash"]
    assert set(frame["cohort"]) == {"phantom-seed1"}
    assert set(frame["settings_hash"]) == set(HASHES.values())
    assert frame.loc[frame["patient"] == "d", "dice"].tolist() == [80.0, 80.0]
    folders = sorted({Path(folder) for folder in frame["folder"]})
    assert len(folders) == 4
    assert len(collect(folders[:2])) + len(collect(folders[2:])) == 8
    assert len(collect([runs, folders[0]])) == 8  # named twice, counted once
    shutil.copytree(folders[0], folders[0].with_name("seed1-aaaa0000.partial"))  # in progress
    assert len(collect(runs)) == 8
    write_run(runs, {"001": 50.0, "NA": 60.0}, fold=5)
    assert collect(next(runs.rglob("fold5")))["patient"].tolist() == ["001", "NA"]  # IDs stay text


def test_a_folder_without_runs_says_make_run_first_and_an_empty_run_is_refused(tmp_path):
    folder = tmp_path / "runs"
    for _ in range(2):
        with pytest.raises(DataError, match="no finished run in it; do `make run` first"):
            collect(folder)
        (folder / "cohort" / "seed0-abc.partial").mkdir(parents=True, exist_ok=True)
    (folder / "x" / "seed0-cafe").mkdir(parents=True)
    with pytest.raises(DataError, match=r"seed0-cafe/metrics.json: not the record of a finished run"):
        collect(folder)


def damage(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_damaged_record_is_one_clear_sentence(tmp_path):
    for number, (file, old, new, message) in enumerate(
        (
            ("metrics.json", "{", "", "not the record of a finished run .*Invalid JSON"),
            ("metrics.json", '"task"', '"tsak"', "records settings that no run has: Unknown setting 'tsak'"),
            ("metrics.json", '"standard"', '"standart"', "records settings .*'supervision': found 'standart'"),
            ("metrics.json", '"weak"', '"week"', "split: week: "),
            ("metrics.json", '"seed": 0', '"seed": 7', "holds the run of seed 7, and its folder is called seed7-<hash"),
            ("per_patient.csv", "dice", "dise", "column 'dice' is missing"),
            ("per_patient.csv", "a,whole", "z,whole", r"first that does not fit is \('z', 'whole_tumor'\)"),
            ("per_patient.csv", "b,whole", "a,whole", r"\('a', 'whole_tumor'\)"),
            ("per_patient.csv", "whole_tumor,10.0", "whole_tumor,ten", "could not convert string to float: 'ten'"),
            ("provenance.json", '"commit"', '"comit"', "commit: Field required"),
        )
    ):
        folder = write_run(tmp_path / str(number), {"a": 10.0, "b": 50.0})
        damage(folder / file, old, new)
        with pytest.raises(DataError, match=message) as error:
            collect(tmp_path / str(number))
        assert str(folder) in str(error.value)


def test_a_recorded_table_is_read_back_as_the_runs_were(runs, tmp_path):
    frame = collect(runs)
    path = tmp_path / "recorded.csv"
    frame.drop(columns="folder").to_csv(path, index=False)
    read = read_recorded(path)
    assert set(read["folder"]) == {str(path)}
    pd.testing.assert_frame_equal(tables.comparison_table(read), tables.comparison_table(frame))
    frame.drop(columns=["folder", "commit"]).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"recorded.csv: column 'commit' is missing"):
        read_recorded(path)


def test_select_filters_and_names_what_there_is(runs):
    frame = collect(runs)
    assert set(statistics.select(frame, fold=2, cohort="")["patient"]) == {"d"}
    assert len(statistics.select(frame, fold=[1, 2], cohort=None)) == 8
    with pytest.raises(DataError, match="no finished run has fold 3; finished runs have 1, 2"):
        statistics.select(frame, fold=3)
    with pytest.raises(SettingError, match="no column 'folds'. Did you mean 'fold'"):
        statistics.select(frame, folds=3)


# The comparison


@pytest.mark.claim(
    "C4.2-13",
    "The score of a fold is the mean over its test patients",
    ours="patients without the region are left out, as in the authors' code",
)
def test_a_mean_is_over_folds_of_the_folds_mean_as_in_the_paper(runs):
    row = compared(runs).iloc[0]
    assert row["standard"] == (40.0 + 80.0) / 2  # not 50, the mean over the 4 patients
    assert (row["standard"], row["mixed"], row["difference"]) == (60.0, 70.0, 10.0)
    assert (row["standard_median"], row["mixed_median"]) == (55.0, 75.0)
    assert (row["standard_failed"], row["mixed_failed"]) == (1, 0)  # patient a, 10 < 20
    assert row[["n_patients", "n_folds", "n_seeds"]].tolist() == [4, 2, 1]
    assert 0 <= row["low"] < 10 < row["high"] <= 30


def test_seeds_are_averaged_per_patient_before_anything_else(tmp_path):
    for seed, (standard, mixed) in enumerate([(10.0, 30.0), (30.0, 70.0)]):
        write_pair(tmp_path, {"a": standard, "b": 50.0}, {"a": mixed, "b": 50.0}, seed=seed)
    frame = collect(tmp_path)
    pairs = statistics.pairs(frame).set_index("patient")
    assert pairs.loc["a", ["standard", "mixed", "difference"]].tolist() == [20.0, 50.0, 30.0]
    row = tables.comparison_table(frame).iloc[0]
    assert (row["n_patients"], row["n_seeds"], row["difference"]) == (2, 2, 15.0)
    assert row["standard_failed"] == 0  # 20 on average, though 10 with one seed


@pytest.mark.claim("F-21")
def test_a_patient_without_the_region_is_left_out(tmp_path):
    write_pair(tmp_path, {"a": 40.0, "b": math.nan}, {"a": 60.0, "b": math.nan}, region="enhancing_core")
    row = tables.comparison_table(collect(tmp_path)).iloc[0]
    assert (row["standard"], row["mixed"], row["n_patients"]) == (40.0, 60.0, 1)


def test_scenarios_have_rows_of_their_own_in_the_papers_order_with_its_numbers_beside_ours(tmp_path):
    for region in ("tumor_core", "whole_tumor"):
        for n_fa in (15, 7):
            write_pair(tmp_path, {"a": 10.0, "b": 30.0}, {"a": 20.0, "b": 60.0}, region=region, n_fa=n_fa)
    table = tables.beside_paper(compared(tmp_path))
    assert table["region"].tolist() == ["whole_tumor"] * 2 + ["tumor_core"] * 2
    assert table["n_fa"].tolist() == [7, 15] * 2
    core = table[table["region"] == "tumor_core"].set_index("n_fa")
    assert core.loc[15, ["paper_standard", "paper_mixed"]].tolist() == [58.33, 63.23]
    assert core.loc[7, ["paper_standard", "paper_mixed"]].isna().all()
    multiclass = tables.beside_paper(core.reset_index().assign(task="multiclass")).set_index("n_fa")
    assert multiclass.loc[15, ["paper_standard", "paper_mixed"]].tolist() == [59.87, 63.91]
    pairs = statistics.pairs(collect(tmp_path))
    pairs = pairs[pairs["region"] == "tumor_core"]
    seven, fifteen = (tables.fold_means(pairs[pairs["n_fa"] == n]) for n in (7, 15))
    assert seven[""].tolist() == ["standard, tumour core", "mixed, tumour core"]
    assert seven["fold 1"].tolist() == seven["mean"].tolist() == [20.0, 40.0]
    assert fifteen[""].tolist()[1::2] == ["paper: standard, tumour core", "paper: mixed, tumour core"]
    assert fifteen.loc[3, ["fold 1", "fold 5", "mean"]].tolist() == [63.15, 61.91, 63.23]


def test_all_remaining_weak_patients_are_one_scenario_and_a_chosen_number_another(tmp_path):
    for fold, n_weak in enumerate((38, 39, 39), start=1):
        write_pair(tmp_path, {f"p{fold}": 50.0}, {f"p{fold}": 60.0}, fold=fold, n_weak=n_weak)
    write_pair(tmp_path, {"p1": 50.0}, {"p1": 55.0}, n_weak=10, n_wa=10)
    table = compared(tmp_path)
    assert table[["n_wa", "n_folds", "difference"]].to_numpy().tolist() == [[10, 1, 5.0], [39, 3, 10.0]]


@pytest.mark.parametrize(("n_folds", "words"), [(1, "One fold only"), (2, "barely sampled"), (3, "")])
def test_few_folds_are_said_in_the_output(tmp_path, n_folds, words):
    for fold in range(1, n_folds + 1):
        write_pair(tmp_path, {f"a{fold}": 40.0, f"b{fold}": 50.0}, {f"a{fold}": 50.0, f"b{fold}": 70.0}, fold=fold)
    table = compared(tmp_path)
    assert (words in table.loc[0, "note"]) and bool(table.loc[0, "note"]) == bool(words)
    assert words in " ".join(tables.format_table(table).split())
    assert words in tables.conclusion(table.iloc[0])


def test_an_arm_that_was_not_run_is_left_out_and_said(runs):
    write_run(runs, {"e": 0.0}, supervision="mixed", fold=3)
    write_run(runs, {"a": 90.0}, n_fa=228, n_weak=0)
    table = compared(runs)
    both, alone = table.iloc[0], table.iloc[1]
    assert (both["mixed"], both["n_folds"]) == (70.0, 2) and "1 run(s) without a partner" in both["note"]
    assert alone["standard"] == 90.0 and math.isnan(alone["mixed"]) and math.isnan(alone["difference"])
    assert "only the standard arm has been run" in tables.conclusion(alone)
    assert "| 90.0 " in tables.format_table(table, "markdown")


def test_runs_of_other_settings_data_or_patients_are_not_compared(runs, tmp_path):
    write_run(runs, {"a": 0.0, "b": 0.0, "c": 0.0}, fold=1, seed=1, settings_hash="dddd2222")
    frame = collect(runs)
    with pytest.raises(DataError, match=r"differ in their settings_hash: aaaa0000 .*dddd2222"):
        tables.comparison_table(frame)
    kept = statistics.select(frame, settings_hash=list(HASHES.values()))
    assert tables.comparison_table(kept).loc[0, "difference"] == 10.0
    write_run(tmp_path / "data", {"a": 10.0}, supervision="standard")
    write_run(tmp_path / "data", {"a": 20.0}, supervision="mixed", fingerprint="data1")
    with pytest.raises(DataError, match="differ in their data_fingerprint: data0"):
        compared(tmp_path / "data")
    write_pair(tmp_path / "patients", {"a": 10.0, "b": 20.0}, {"a": 10.0, "c": 20.0})
    with pytest.raises(DataError, match=r"patient [bc] was tested in one arm only \(fold 1\)"):
        compared(tmp_path / "patients")


def test_the_conclusion_follows_from_the_interval(tmp_path):
    for gain, words in (
        (10, "mixed supervision is ahead of standard by 10.0"),
        (-10, "is behind standard by 10.0"),
        (0, "cannot tell"),
    ):
        for fold in range(1, 6):
            standard = {f"{fold}-{i}": 50.0 + i for i in range(8)}
            mixed = {patient: dice + gain + 3 * (-1) ** i for i, (patient, dice) in enumerate(standard.items())}
            write_pair(tmp_path / str(gain), standard, mixed, fold=fold)
        text = tables.conclusion(compared(tmp_path / str(gain)).iloc[0])
        assert words in text and "40 patients, 5 folds" in text


def test_the_outcomes_of_a_grid_follow_from_its_intervals(tmp_path):
    gains = {(5, "whole_tumor"): 10, (5, "tumor_core"): -10, (5, "enhancing_core"): 0, (7, "whole_tumor"): 0}
    for (n_fa, region), gain in gains.items():
        for fold in range(1, 6):
            standard = {f"{fold}-{i}": 50.0 + i for i in range(8)}
            mixed = {patient: dice + gain + 3 * (-1) ** i for i, (patient, dice) in enumerate(standard.items())}
            write_pair(tmp_path / "five", standard, mixed, fold=fold, region=region, n_fa=n_fa)
    assert tables.outcomes(tables.beside_paper(compared(tmp_path / "five"))).splitlines() == [
        "- **5 FA**: mixed supervision is ahead in whole tumour; mixed supervision is behind in tumour core; these "
        "runs cannot tell for enhancing core (folds: 5; in the paper the mean of mixed is higher in 3 of 3).",
        "- **7 FA**: these runs cannot tell for whole tumour (folds: 5; not in the paper).",
    ]
    write_pair(tmp_path / "one", {"a": 50.0}, {"a": 40.0}, n_fa=30)
    text = tables.outcomes(tables.beside_paper(compared(tmp_path / "one")))
    assert "(folds: 1; in the paper the mean of mixed is higher in 0 of 1)" in text and "ahead" not in text
    write_run(tmp_path / "alone", {"a": 50.0}, supervision="mixed")
    alone = tables.outcomes(tables.beside_paper(compared(tmp_path / "alone")))
    assert alone == "No scenario has been run in both arms."


def test_every_phantom_table_says_what_the_phantom_is():
    assert "phantom, calibrated to the paper's standard curve" in tables.caption("phantom-seed1")
    assert "phantom, for trying out, not calibrated" in tables.caption("phantom-tiny")
    assert "phantom" not in tables.caption("kaggle_3m")


# How a table is shown


def test_a_table_has_the_same_numbers_in_every_form(runs):
    write_pair(runs, {"a": 10.0, "b": 10.0}, {"a": 34.56, "b": 34.56}, region="enhancing_core", n_fa=15)
    table = tables.beside_paper(compared(runs))
    shown = {form: tables.format_table(table, form) for form in ("terminal", "markdown", "latex", "csv")}
    for form in ("terminal", "markdown", "latex"):
        for number in ("60.0", "70.0", "34.6", "+10.0 [", "5 FA + 8 WA", "whole tumour", "55.0, 75.0"):
            assert number in shown[form], (form, number)
    for form in ("markdown", "latex"):
        assert "4 (2)" in shown[form] and "1, 0" in shown[form] and "70.4, 78.3" in shown[form]
    read = pd.read_csv(io.StringIO(shown["csv"]))
    assert read["mixed"].tolist() == [70.0, 34.56] and "One fold only" in read["note"][1]
    assert max(map(len, shown["terminal"].splitlines())) <= 79
    assert "Columns that did not fit: patients (folds); failed: standard, mixed;" in shown["terminal"]
    assert r"difference [95 \%]" in shown["latex"] and shown["latex"].count(r"\\") == 3


def test_any_frame_is_a_table():
    frame = pd.DataFrame({"x_y": [1.25, math.nan], "y": ["z", "<b>|"], "p_holm": [0.000123, 1.0]})
    lines = tables.format_table(frame, "markdown").splitlines()
    assert lines[0] == "| x y | y           | p (Holm) |"
    assert lines[2:] == ["| 1.2 | z           | 0.00012  |", r"|     | &lt;b&gt;\| | 1        |"]
    wide = pd.DataFrame({f"column {i}": ["long text " * 5] for i in range(9)})
    assert max(map(len, tables.format_table(wide).splitlines())) <= 79


# Variants within patients

CONFIGS = {
    "standard": make_config(cohort="any", supervision="standard"),
    "pass through": make_config(cohort="any", supervision="mixed", a=1.0),
    "mixed": make_config(cohort="any", supervision="mixed"),
}
AGAINST = {"pass through": "standard", "mixed": "pass through"}


def rows_of_run(dice, *, fold=1, **columns) -> pd.DataFrame:
    """The rows of one run; `dice` is a number per patient."""
    row = {"cohort": "phantom-x", "preset": "workshop", "task": "whole_tumor", "n_fa": 5, "n_wa": 91, "fold": fold}
    row |= {"seed": 0, "region": "whole_tumor", "data_fingerprint": "one", "folder": "somewhere", **columns}
    return pd.DataFrame({**row, "patient": [f"P{fold}{i}" for i in range(len(dice))], "dice": dice})


def variant(config, dice, **columns) -> pd.DataFrame:
    own = {name: getattr(config, name) for name in ("preset", "task", "n_fa", "supervision")}
    return rows_of_run(dice, **{**own, "settings_hash": config.settings_hash(), **columns})


def three_arms(fold: int, start: float) -> list[pd.DataFrame]:
    base = start + np.arange(4.0)
    return [variant(config, base + 5 * i, fold=fold) for i, config in enumerate(CONFIGS.values())]


FRAME = pd.concat([*three_arms(1, 50), *three_arms(2, 70)])


def test_differences_of_variants_are_paired_exact_and_of_what_all_have_finished():
    """Other settings, another fold and another seed of one variant do not count; seeds of all are averaged first."""
    other = variant(make_config(cohort="any", supervision="mixed", a=0.5), [1.0])
    more = [variant(CONFIGS["mixed"], [99.0] * 4, **columns) for columns in ({"fold": 3}, {"seed": 1})]
    dice = dice_by_variant(pd.concat([FRAME, other, *more]), CONFIGS)
    assert set(dice.columns) == set(CONFIGS)
    table = variant_table(dice, AGAINST)
    assert table["mean"].tolist() == [61.5, 66.5, 71.5]
    assert table["difference"].tolist()[1:] == [5.0, 5.0] and np.isnan(table["difference"][0])
    assert (table["low"][1:] == 5.0).all() and (table["high"][1:] == 5.0).all()
    assert table["lowest_fold"].tolist() == [51.5, 56.5, 61.5] and set(table["n_folds"]) == {2}
    again = [variant(config, np.full(4, 10.0), seed=1) for config in CONFIGS.values()]
    assert dice_by_variant(pd.concat([FRAME, *again]), CONFIGS).loc[("whole_tumor", 1, "P10"), "standard"] == 30.0
    assert tables.difference_in_words(dice, "mixed", "standard").startswith("+10.0 [+10.0, +10.0] (Two folds only:")


def test_numbers_of_weak_patients_are_told_apart():
    mixed = CONFIGS["mixed"]
    frame = pd.concat([variant(mixed, [60.0]), variant(mixed, [40.0], n_wa=10)])
    assert tables.runs_of(frame, mixed)["n_wa"].tolist() == [91]
    ten = make_config(cohort="any", supervision="mixed", n_wa=10)
    assert tables.runs_of(frame, ten)["dice"].tolist() == [40.0]


def test_variants_that_cannot_be_compared_are_refused():
    two = {name: CONFIGS[name] for name in ("standard", "mixed")}
    standard, mixed = CONFIGS["standard"], CONFIGS["mixed"]
    other = variant(mixed, [50.0] * 4).assign(patient=["P10", "P11", "P12", "Q"])
    for frames, sentence in (
        ([variant(standard, [1.0])], "no finished run of variant 'mixed'"),
        ([variant(standard, [1.0]), variant(mixed, [1.0], fold=2)], "no fold has been finished by every variant"),
        ([FRAME, variant(mixed, [1.0], fold=3, data_fingerprint="two")], "different data"),
        (
            [variant(standard, [50.0] * 4), other],
            "patient P13 was tested in fold 1 by some variants only .standard.*permutation_of",
        ),
    ):
        with pytest.raises(DataError, match=sentence):
            dice_by_variant(pd.concat(frames), two)


def test_the_table_of_variants_and_its_picture_say_the_same():
    dice = dice_by_variant(FRAME, CONFIGS)
    table = variant_table(dice, AGAINST)
    text = tables.readable(table)
    assert text["difference [95 %]"].tolist() == ["", "+5.0 [+5.0, +5.0]", "+5.0 [+5.0, +5.0]"]
    assert text["Dice (folds)"][0] == "61.5 (51.5 to 71.5)"
    assert "mixed: 71.5 (+5.0, +5.0 to +5.0)" in alt_text(variant_ladder(dice, table, title="phantom"))


# The paper's tables from our runs


def run_of_mean(mean, *, supervision, n_fa=15, n_wa=81, task="whole_tumor", **columns) -> pd.DataFrame:
    """The rows of one run on four patients of its fold."""
    own = {"supervision": supervision, "n_fa": n_fa, "n_wa": n_wa, "task": task, "region": task}
    own["settings_hash"] = supervision + task + str(n_fa)
    return rows_of_run(mean + np.array([-3.0, -1, 1, 3]), **{**own, **columns})


@pytest.fixture
def frame():
    """Whole tumour at 15 FA in folds 1 and 2, the core in fold 1, the upper line, and one multiclass pair at 5 FA."""
    parts = [run_of_mean(85.0, supervision="standard", n_fa=96, n_wa=0)]
    for i, arm in enumerate(("standard", "mixed")):
        parts += [run_of_mean(70.0 + 5 * i + fold, supervision=arm, fold=fold) for fold in (1, 2)]
        parts.append(run_of_mean(50.0 + 2 * i, supervision=arm, task="tumor_core"))
        for region, dice in (("whole_tumor", 60.0), ("tumor_core", 40.0), ("enhancing_core", 30.0)):
            kind = {"task": "multiclass", "region": region, "n_fa": 5, "n_wa": 91}
            parts.append(run_of_mean(dice + 4 * i, supervision=arm, **kind))
    return pd.concat(parts)


def test_the_papers_tables_have_its_rows_with_ours_beside_them_and_nothing_where_not_run(frame):
    made = paper_tables(frame)
    table = made["table1"].set_index("scenario")
    assert list(table.index) == [
        "standard, 5 FA", "mixed, 5 FA", "standard, 15 FA", "mixed, 15 FA + 81 WA", "standard, 30 FA", "mixed, 30 FA",
        "standard, 96 FA",
    ]  # fmt: skip
    printed = table[[column for column in table if column.startswith("paper: ")]].to_numpy()
    assert np.array_equal(printed, np.array(list(TABLE_1.values())))
    row = table.loc["mixed, 15 FA + 81 WA"]
    assert (row["whole tumour"], row["tumour core"], row["folds"]) == (76.5, 52.0, "1, 2")
    assert table.loc["standard, 96 FA", "whole tumour"] == 85.0
    assert table.loc["standard, 30 FA", "whole tumour":].isna().sum() == 3
    folds = made["table2"].set_index("")
    assert tuple(folds.loc["paper: mixed, whole tumour"]) == TABLE_2["mixed", "whole_tumor"]
    assert folds.loc["mixed, whole tumour", "fold 2"] == 77.0
    core = folds.loc["standard, tumour core"]
    assert core["fold 1"] == 50.0 and core[["fold 2", "fold 5", "mean"]].isna().all()
    row = made["table3"].set_index("scenario").loc["mixed, 5 FA + 91 WA"]  # the multiclass runs alone
    assert tuple(row[["whole tumour", "tumour core", "enhancing core"]]) == (64.0, 44.0, 34.0)
    assert row["paper: tumour core"] == TABLE_3["mixed", 5][1]
    assert made["table4"].iloc[0, 1:].isna().all()
    differences = made["differences"]
    assert len(differences) == 5 and sorted(differences["difference"]) == [2.0, 4.0, 4.0, 4.0, 5.0]
    assert np.allclose(differences["p_holm"], holm(differences["p_wilcoxon"].to_numpy()))
    assert (differences["p_holm"] > differences["p_wilcoxon"]).all()


def test_two_cohorts_or_two_numbers_of_weak_patients_are_no_table(frame):
    for other, sentence in (
        ({"supervision": "standard", "cohort": "lgg"}, r"2 cohorts \(lgg, phantom-x\), expected one"),
        ({"supervision": "mixed", "n_wa": 20}, r"whole_tumor, 15 FA: the runs have 2 numbers of weak .* \(20, 81\)"),
    ):
        with pytest.raises(DataError, match=sentence):
            paper_tables(pd.concat([frame, run_of_mean(1.0, **other)]))


def test_tables_are_written_three_ways_with_the_same_numbers(frame, tmp_path):
    made = paper_tables(frame)
    written = tables.write_tables(made, tmp_path)
    assert len(written) == 15 and all(path.stat().st_size for path in written)
    read = pd.read_csv(tmp_path / "table1.csv")
    assert np.allclose(read["whole tumour"], made["table1"]["whole tumour"], equal_nan=True)
    assert "| mixed, 15 FA + 81 WA | 1, 2" in (tmp_path / "table1.md").read_text()
    latex = " ".join((tmp_path / "table1.tex").read_text().split())
    assert r"mixed, 15 FA + 81 WA & 1, 2 & 76.5 & 80.9 & 52.0 & 63.2 & & 66.6 \\" in latex


# What was recorded


def test_every_record_of_runs_still_gives_its_printed_table():
    """Those of an experiment file, NAME-COHORT, by variant; the others standard against mixed."""
    printed = "\n".join(path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
    files = sorted((ROOT / "data/results").glob("*.csv"))
    records = [path for path in files if "settings_hash,patient,region" in path.read_text()[:200]]
    assert len(records) > 5
    for path in records:
        frame = read_recorded(path)
        file = ROOT / f"scenarios/{path.stem.removesuffix('-' + frame['cohort'].iloc[0])}.yaml"
        if file.exists() and (experiment := read_experiment(file)).compare != "supervision":
            table = variant_table(dice_by_variant(frame, experiment.configs()), experiment.against())
        else:
            tuning = (frame["cohort"] == "lgg") & (frame["fold"] == 1)
            table = tables.comparison_table(frame[~tuning])
        assert tables.format_table(table, "markdown") in printed, path.stem


def test_the_recorded_run_folders_are_still_read():
    frame = collect(ROOT / "data/results/runs")
    table = pd.read_csv(ROOT / "data/results/phantom.csv")
    same = ["fold", "supervision", "seed", "patient", "settings_hash"]
    both = frame.merge(table, on=same, suffixes=("", "_recorded"))
    assert len(both) == len(frame) == len(table)
    assert both["dice"].to_numpy() == pytest.approx(both["dice_recorded"].to_numpy(), abs=1e-4)
    for folder in frame["folder"].unique():
        assert len(read_history(folder)) == 300 and len(read_examples(folder)["z"]) == 3
