"""Run folders -> tables: what is refused, what is averaged how, and what the interval means."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.experiments import statistics, tables
from mixsup_lib.experiments.experiment import read_experiment
from mixsup_lib.experiments.runs import collect, read_examples, read_history, read_recorded
from mixsup_lib.experiments.statistics import bootstrap_over_folds, mean_over_folds
from mixsup_lib.files import DataError, SettingError

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
    assert frame.columns[:9].tolist() == [
        *statistics.SCENARIO,
        "fold",
        "supervision",
        "seed",
        "settings_hash",
    ]
    assert set(frame["cohort"]) == {"phantom-seed1"}
    assert set(frame["settings_hash"]) == set(HASHES.values())
    assert frame.loc[frame["patient"] == "d", "dice"].tolist() == [80.0, 80.0]


def test_collect_takes_single_run_folders_too(runs):
    folders = sorted({Path(folder) for folder in collect(runs)["folder"]})
    assert len(folders) == 4
    assert len(collect(folders[:2])) + len(collect(folders[2:])) == 8
    assert len(collect([runs, folders[0]])) == 8  # named twice, counted once


def test_a_patient_id_of_digits_stays_text(tmp_path):
    write_run(tmp_path, {"001": 50.0, "NA": 60.0})
    assert collect(tmp_path)["patient"].tolist() == ["001", "NA"]


def test_runs_in_progress_are_passed_over(runs):
    finished = Path(collect(runs)["folder"].iloc[0])
    partial = finished.with_name("seed1-aaaa0000.partial")
    shutil.copytree(finished, partial)
    (partial / "metrics.json").unlink()
    assert len(collect(runs)) == 8


@pytest.mark.parametrize("name", ["metrics.json", "per_patient.csv", "provenance.json"])
def test_an_incomplete_run_folder_is_refused_and_the_file_named(runs, name):
    next(runs.rglob(name)).unlink()
    with pytest.raises(DataError, match=rf"{name}: (not the record|cannot be read).*No such file"):
        collect(runs)


def test_a_folder_with_a_runs_name_and_nothing_in_it_is_refused(runs):
    (runs / "x" / "seed0-cafe").mkdir(parents=True)
    with pytest.raises(DataError, match=r"seed0-cafe/metrics.json: not the record of a finished run"):
        collect(runs)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_runs_says_make_run_first(tmp_path, exists):
    folder = tmp_path / "runs"
    if exists:
        (folder / "cohort" / "seed0-abc.partial").mkdir(parents=True)
    with pytest.raises(DataError, match="no finished run in it; do `make run` first"):
        collect(folder)


def damage(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("metrics.json", "{", "", "not the record of a finished run .*Invalid JSON"),
        ("metrics.json", '"task"', '"tsak"', "records settings that no run has: Unknown setting 'tsak'"),
        ("metrics.json", '"standard"', '"standart"', "records settings .*'supervision': found 'standart'"),
        ("metrics.json", '"weak"', '"week"', "split: week: "),
        ("per_patient.csv", "dice", "dise", "column 'dice' is missing"),
        ("per_patient.csv", "a,whole", "z,whole", r"first that does not fit is \('z', 'whole_tumor'\)"),
        (
            "per_patient.csv",
            "whole_tumor,10.0",
            "whole_tumor,ten",
            "could not convert string to float: 'ten'",
        ),
        ("provenance.json", "{", "[", "not the record of a finished run .*Invalid JSON"),
        ("provenance.json", '"commit"', '"comit"', "commit: Field required"),
    ],
)
def test_a_damaged_record_is_one_clear_sentence(tmp_path, file, old, new, message):
    folder = write_run(tmp_path, {"a": 10.0, "b": 50.0})
    damage(folder / file, old, new)
    with pytest.raises(DataError, match=message) as error:
        collect(tmp_path)
    assert str(folder / file) in str(error.value)


def test_a_run_in_the_folder_of_another_is_refused(tmp_path):
    folder = write_run(tmp_path, {"a": 10.0})
    damage(folder / "metrics.json", '"seed": 0', '"seed": 7')
    with pytest.raises(DataError, match="holds the run of seed 7, and its folder is called seed7-<hash"):
        collect(tmp_path)


def test_a_recorded_table_is_read_back_as_the_runs_were(runs, tmp_path):
    frame = collect(runs)
    path = tmp_path / "recorded.csv"
    frame.drop(columns="folder").to_csv(path, index=False)
    read = read_recorded(path)
    assert set(read["folder"]) == {str(path)}
    pd.testing.assert_frame_equal(tables.comparison_table(read), tables.comparison_table(frame))


def test_a_table_that_is_no_record_is_one_clear_sentence(runs, tmp_path):
    frame = collect(runs).drop(columns=["folder", "commit"])
    frame.to_csv(tmp_path / "recorded.csv", index=False)
    with pytest.raises(DataError, match=r"recorded.csv: column 'commit' is missing"):
        read_recorded(tmp_path / "recorded.csv")


def test_a_patient_listed_twice_is_refused(tmp_path):
    path = write_run(tmp_path, {"a": 10.0, "b": 50.0}) / "per_patient.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    with pytest.raises(DataError, match=r"3 rows where 2 .* \('a', 'whole_tumor'\)"):
        collect(tmp_path)


def test_all_remaining_weak_patients_are_one_scenario_though_folds_differ_by_one(tmp_path):
    for fold, n_weak in enumerate((38, 39, 39), start=1):
        write_pair(tmp_path, {f"p{fold}": 50.0}, {f"p{fold}": 60.0}, fold=fold, n_weak=n_weak)
    table = tables.comparison_table(collect(tmp_path))
    assert table["n_wa"].tolist() == [39]
    assert table["n_folds"].tolist() == [3]


def test_a_chosen_number_of_weak_patients_is_a_scenario_of_its_own(tmp_path):
    write_pair(tmp_path, {"a": 50.0}, {"a": 60.0}, n_weak=39)
    write_pair(tmp_path, {"a": 50.0}, {"a": 55.0}, n_weak=10, n_wa=10)
    table = tables.comparison_table(collect(tmp_path))
    assert table[["n_wa", "difference"]].to_numpy().tolist() == [[10, 5.0], [39, 10.0]]


# Selecting


def test_select_filters_and_names_what_there_is(runs):
    frame = collect(runs)
    assert set(statistics.select(frame, fold=2, cohort="")["patient"]) == {"d"}
    assert len(statistics.select(frame, fold=[1, 2], cohort=None)) == 8
    with pytest.raises(DataError, match="no finished run has fold 3; finished runs have 1, 2"):
        statistics.select(frame, fold=3)
    with pytest.raises(SettingError, match="no column 'folds'. Did you mean 'fold'"):
        statistics.select(frame, folds=3)


# Means, medians, seeds


def test_a_mean_is_over_folds_of_the_folds_mean_as_in_the_paper(runs):
    row = tables.comparison_table(collect(runs)).iloc[0]
    assert row["standard"] == pytest.approx((40.0 + 80.0) / 2)  # not 50, the mean over the 4 patients
    assert row["standard_median"] == pytest.approx(55.0)
    assert row[["n_patients", "n_folds", "n_seeds", "mixed_failed"]].tolist() == [4, 2, 1, 0]
    assert row["standard_failed"] == 1  # patient a, 10 < 20


def test_seeds_are_averaged_per_patient_before_anything_else(tmp_path):
    for seed, (standard, mixed) in enumerate([(10.0, 30.0), (30.0, 70.0)]):
        write_pair(tmp_path, {"a": standard, "b": 50.0}, {"a": mixed, "b": 50.0}, seed=seed)
    frame = collect(tmp_path)
    pairs = statistics.pairs(frame).set_index("patient")
    assert pairs.loc["a", ["standard", "mixed", "difference"]].tolist() == [20.0, 50.0, 30.0]
    row = tables.comparison_table(frame).iloc[0]
    assert (row["n_patients"], row["n_seeds"], row["difference"]) == (2, 2, 15.0)
    assert row["standard_failed"] == 0  # 20 on average, though 10 with one seed


def test_a_patient_without_the_region_is_left_out(tmp_path):
    write_pair(tmp_path, {"a": 40.0, "b": math.nan}, {"a": 60.0, "b": math.nan}, region="enhancing_core")
    row = tables.comparison_table(collect(tmp_path)).iloc[0]
    assert (row["standard"], row["mixed"], row["n_patients"]) == (40.0, 60.0, 1)


def test_tables_2_and_4_average_to_their_printed_means_by_the_rule_used_here():
    from mixsup_lib.paper import TABLE_2

    for *folds, printed in TABLE_2.values():
        assert mean_over_folds(np.array(folds), np.arange(5)) == pytest.approx(printed, abs=0.0051)


# The comparison


def test_comparison_by_hand(runs):
    row = tables.comparison_table(collect(runs)).iloc[0]
    assert (row["standard"], row["mixed"], row["difference"]) == (60.0, 70.0, 10.0)
    assert (row["standard_median"], row["mixed_median"]) == (55.0, 75.0)
    assert (row["standard_failed"], row["mixed_failed"]) == (1, 0)
    assert (row["n_patients"], row["n_folds"]) == (4, 2)
    assert 0 <= row["low"] < 10 < row["high"] <= 30


def test_wilcoxon_by_hand():
    pairs = pd.DataFrame({"fold": 1, "difference": [1.0, 2.0, 3.0, 4.0, -5.0, 6.0]})
    # The smaller rank sum is 5; 2 * (number of subsets of ranks 1..6 that sum to <= 5 = 10) / 2^6
    assert statistics.paired_difference(pairs).p_wilcoxon == pytest.approx(2 * 10 / 64)
    assert math.isnan(statistics.paired_difference(pairs.assign(difference=0.0)).p_wilcoxon)


@pytest.mark.parametrize(("n_folds", "words"), [(1, "One fold only"), (2, "barely sampled"), (3, "")])
def test_few_folds_are_said_in_the_output(tmp_path, n_folds, words):
    for fold in range(1, n_folds + 1):
        write_pair(
            tmp_path, {f"a{fold}": 40.0, f"b{fold}": 50.0}, {f"a{fold}": 50.0, f"b{fold}": 70.0}, fold=fold
        )
    table = tables.comparison_table(collect(tmp_path))
    assert (words in table.loc[0, "note"]) and bool(table.loc[0, "note"]) == bool(words)
    assert words in " ".join(tables.format_table(table).split())
    assert words in tables.conclusion(table.iloc[0])


def test_a_fold_run_in_one_arm_only_is_left_out_and_said(runs):
    write_run(runs, {"e": 0.0}, supervision="mixed", fold=3)
    row = tables.comparison_table(collect(runs)).iloc[0]
    assert (row["mixed"], row["n_folds"]) == (70.0, 2)
    assert "1 run(s) without a partner" in row["note"]


def test_an_arm_that_was_not_run_is_empty_not_invented(tmp_path):
    write_run(tmp_path, {"a": 90.0}, n_fa=228, n_weak=0)
    table = tables.comparison_table(collect(tmp_path))
    row = table.iloc[0]
    assert row["standard"] == 90.0
    assert math.isnan(row["mixed"]) and math.isnan(row["difference"])
    assert "only the standard arm has been run" in tables.conclusion(row)
    assert "| 90.0 " in tables.format_table(table, "markdown")


def test_runs_of_different_settings_are_not_averaged_like_seeds(runs):
    write_run(runs, {"a": 0.0, "b": 0.0, "c": 0.0}, fold=1, seed=1, settings_hash="dddd2222")
    frame = collect(runs)
    with pytest.raises(DataError, match=r"differ in their settings_hash: aaaa0000 .*dddd2222"):
        tables.comparison_table(frame)
    kept = statistics.select(frame, settings_hash=list(HASHES.values()))
    assert tables.comparison_table(kept).loc[0, "difference"] == 10.0


def test_runs_on_different_data_are_not_compared(tmp_path):
    write_run(tmp_path, {"a": 10.0}, supervision="standard")
    write_run(tmp_path, {"a": 20.0}, supervision="mixed", fingerprint="data1")
    with pytest.raises(DataError, match="differ in their data_fingerprint: data0"):
        tables.comparison_table(collect(tmp_path))


def test_arms_that_tested_different_patients_are_refused(tmp_path):
    write_pair(tmp_path, {"a": 10.0, "b": 20.0}, {"a": 10.0, "c": 20.0})
    with pytest.raises(DataError, match=r"patient [bc] was tested in one arm only \(fold 1\)"):
        tables.comparison_table(collect(tmp_path))


def test_scenarios_and_regions_have_rows_of_their_own_in_the_papers_order(tmp_path):
    for region in ("enhancing_core", "whole_tumor"):
        for n_fa in (15, 5):
            write_pair(tmp_path, {"a": 10.0, "b": 30.0}, {"a": 20.0, "b": 40.0}, region=region, n_fa=n_fa)
    table = tables.comparison_table(collect(tmp_path))
    assert table["region"].tolist() == ["whole_tumor"] * 2 + ["enhancing_core"] * 2
    assert table["n_fa"].tolist() == [5, 15] * 2


def test_the_papers_numbers_stand_beside_ours(tmp_path):
    write_pair(tmp_path, {"a": 10.0}, {"a": 20.0}, region="tumor_core", n_fa=15)
    write_pair(tmp_path, {"a": 10.0}, {"a": 20.0}, region="tumor_core", n_fa=7)
    table = tables.beside_paper(tables.comparison_table(collect(tmp_path))).set_index("n_fa")
    assert table.loc[15, ["paper_standard", "paper_mixed"]].tolist() == [58.33, 63.23]
    assert table.loc[7, ["paper_standard", "paper_mixed"]].isna().all()
    multiclass = tables.beside_paper(table.reset_index().assign(task="multiclass")).set_index("n_fa")
    assert multiclass.loc[15, ["paper_standard", "paper_mixed"]].tolist() == [59.87, 63.91]


def test_a_table_of_folds_has_the_papers_rows_at_15_annotated_only(tmp_path):
    for n_fa in (5, 15):
        write_pair(tmp_path, {"a": 10.0, "b": 30.0}, {"a": 20.0, "b": 60.0}, region="tumor_core", n_fa=n_fa)
    pairs = statistics.pairs(collect(tmp_path))
    five, fifteen = (tables.fold_means(pairs[pairs["n_fa"] == n]) for n in (5, 15))
    assert five[""].tolist() == ["standard, tumour core", "mixed, tumour core"]
    assert five["fold 1"].tolist() == five["mean"].tolist() == [20.0, 40.0]
    assert fifteen[""].tolist()[1::2] == ["paper: standard, tumour core", "paper: mixed, tumour core"]
    assert fifteen.loc[3, ["fold 1", "fold 5", "mean"]].tolist() == [63.15, 61.91, 63.23]


# The interval


def slow_bootstrap(values: np.ndarray, folds: np.ndarray, resamples: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    sample = []
    for _ in range(resamples):
        drawn = rng.choice(np.unique(folds), len(np.unique(folds)))
        parts = [values[folds == fold] for fold in drawn]
        sample.append(np.mean([rng.choice(part, part.size).mean() for part in parts]))
    return np.array(sample)


def test_the_bootstrap_equals_its_written_out_loop():
    rng = np.random.default_rng(0)
    folds = np.repeat([1, 2, 3, 4, 5], [4, 9, 11, 11, 11])
    values = rng.normal(5, 15, folds.size) + folds
    fast, slow = bootstrap_over_folds(values, folds), slow_bootstrap(values, folds, 10_000)
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    assert np.quantile(fast, quantiles) == pytest.approx(np.quantile(slow, quantiles), abs=0.25)


def test_the_bootstrap_of_one_fold_equals_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(3, 10, 57)
    pairs = pd.DataFrame({"fold": 1, "difference": values})
    ours = statistics.paired_difference(pairs)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(1), n_resamples=10_000
    )
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (ours.low, ours.high) == pytest.approx(expected, abs=0.15)


def test_folds_are_resampled_before_patients():
    """Patients that agree within folds, folds that disagree: patients alone would show no spread."""
    pairs = pd.DataFrame(
        {"fold": np.repeat([1, 2, 3, 4, 5], 50), "difference": np.repeat([0.0, 2, 4, 6, 8], 50)}
    )
    found = statistics.paired_difference(pairs)
    assert found.difference == 4.0
    assert (found.low, found.high) == pytest.approx((1.6, 6.4), abs=0.4)


def test_every_fold_weighs_the_same_in_the_interval():
    pairs = pd.DataFrame({"fold": [1] * 99 + [2], "difference": [0.0] * 99 + [10.0]})
    found = statistics.paired_difference(pairs)
    assert (found.difference, found.low, found.high) == (5.0, 0.0, 10.0)


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


def test_the_interval_is_reproducible_and_depends_on_its_seed():
    pairs = pd.DataFrame({"fold": [1, 1, 2, 2], "difference": [1.0, 5.0, 2.0, 9.0]})
    one, again = statistics.paired_difference(pairs), statistics.paired_difference(pairs)
    assert one == again
    folds, values = pairs["fold"].to_numpy(), pairs["difference"].to_numpy()
    assert (bootstrap_over_folds(values, folds, seed=0) != bootstrap_over_folds(values, folds, seed=1)).any()
    assert bootstrap_over_folds(values, folds).shape == (10_000,)


def test_no_pair_is_no_difference():
    with pytest.raises(DataError, match="no patient was scored in both arms"):
        statistics.paired_difference(pd.DataFrame({"fold": [], "difference": []}))


# Words


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (10.0, "mixed supervision is ahead of standard by 10.0"),
        (-10.0, "is behind standard by 10.0"),
        (0.0, "cannot tell"),
    ],
)
def test_the_conclusion_follows_from_the_interval(tmp_path, gain, words):
    rng = np.random.default_rng(0)
    for fold in range(1, 6):
        standard = {f"{fold}-{i}": float(x) for i, x in enumerate(rng.uniform(40, 60, 8))}
        mixed = {patient: x + gain + float(rng.normal(0, 3)) for patient, x in standard.items()}
        shift = gain - np.mean(list(mixed.values())) + np.mean(list(standard.values()))
        write_pair(tmp_path, standard, {patient: x + shift for patient, x in mixed.items()}, fold=fold)
    (text,) = [tables.conclusion(row) for _, row in tables.comparison_table(collect(tmp_path)).iterrows()]
    assert words in text
    assert "40 patients, 5 folds" in text


def test_every_phantom_table_says_what_the_phantom_is():
    assert "phantom, calibrated to the paper's standard curve" in tables.caption("phantom-seed1")
    assert "phantom, for trying out, not calibrated" in tables.caption("phantom-tiny")
    assert "phantom" not in tables.caption("kaggle_3m")


# How a table is shown


@pytest.fixture
def shown(runs) -> dict[str, str]:
    write_pair(runs, {"a": 10.0}, {"a": 34.56}, region="enhancing_core", n_fa=15)
    table = tables.beside_paper(tables.comparison_table(collect(runs)))
    return {form: tables.format_table(table, form) for form in ("terminal", "markdown", "latex", "csv")}


def test_a_table_has_the_same_numbers_in_every_form(shown):
    for form in ("terminal", "markdown", "latex"):
        for number in ("60.0", "70.0", "34.6", "+10.0 [", "5 FA + 8 WA", "whole tumour", "55.0, 75.0"):
            assert number in shown[form], (form, number)
    for form in ("markdown", "latex"):
        assert "4 (2)" in shown[form] and "1, 0" in shown[form] and "70.4, 78.3" in shown[form]
    read = pd.read_csv(io.StringIO(shown["csv"]))
    assert read["mixed"].tolist() == [70.0, 34.56] and "One fold only" in read["note"][1]


def test_in_the_terminal_no_line_is_longer_than_79_characters(shown):
    assert max(map(len, shown["terminal"].splitlines())) <= 79
    assert "Columns that did not fit: patients (folds); failed: standard, mixed;" in shown["terminal"]
    assert "One fold only" in shown["terminal"]


def test_markdown_columns_are_aligned_and_latex_is_escaped(shown):
    lines = [line for line in shown["markdown"].splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4 and set(lines[1]) == {"|", "-"}
    assert r"difference [95 \%]" in shown["latex"] and shown["latex"].count(r"\\") == 3


def test_any_frame_is_a_table():
    frame = pd.DataFrame({"x_y": [1.25, math.nan], "y": ["z", "<b>|"], "p_holm": [0.000123, 1.0]})
    lines = tables.format_table(frame, "markdown").splitlines()
    assert lines[0] == "| x y | y           | p (Holm) |"
    assert lines[2:] == ["| 1.2 | z           | 0.00012  |", r"|     | &lt;b&gt;\| | 1        |"]
    wide = pd.DataFrame({f"column {i}": ["long text " * 5] for i in range(9)})
    assert max(map(len, tables.format_table(wide).splitlines())) <= 79


# Histories and examples


def test_history_is_read_and_its_columns_checked(tmp_path):
    history = pd.DataFrame(
        np.ones((3, 4)), columns=["iteration", "loss", "segmentation_loss", "learning_rate"]
    )
    with pytest.raises(DataError, match=r"history.csv: cannot be read as a table"):
        read_history(tmp_path)
    history.to_csv(tmp_path / "history.csv", index=False)
    with pytest.raises(DataError, match="column 'classification_loss' is missing"):
        read_history(tmp_path)
    history.assign(classification_loss=np.nan).to_csv(tmp_path / "history.csv", index=False)
    assert len(read_history(tmp_path)) == 3


def test_examples_are_read_and_a_damaged_file_is_one_sentence(tmp_path):
    arrays = {
        name: np.zeros((3, 8, 6), kind)
        for name, kind in (("image", "f4"), ("truth", "u1"), ("prediction", "u1"))
    }
    arrays |= {"patient": np.array(["a", "b", "c"]), "z": np.arange(3)}
    with pytest.raises(DataError, match="examples.npz: cannot be read"):
        read_examples(tmp_path)
    np.savez(tmp_path / "examples.npz", **arrays)
    assert read_examples(tmp_path)["patient"].tolist() == ["a", "b", "c"]
    whole = (tmp_path / "examples.npz").read_bytes()
    (tmp_path / "examples.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="examples.npz: cannot be read"):
        read_examples(tmp_path)
    np.savez(tmp_path / "examples.npz", **(arrays | {"patient": np.array([{}], dtype=object)}))
    with pytest.raises(DataError, match="cannot be read"):  # a pickle inside is not opened
        read_examples(tmp_path)


# What was recorded


def recorded_tables() -> list[str]:
    files = (ROOT / "data/results").glob("*.csv")
    return sorted(path.stem for path in files if "settings_hash,patient,region" in path.read_text()[:200])


@pytest.mark.parametrize("name", recorded_tables())
def test_every_record_of_runs_still_gives_its_printed_table(name):
    """Those of an experiment file, NAME-COHORT, by variant; the others standard against mixed."""
    frame = read_recorded(ROOT / f"data/results/{name}.csv")
    file = ROOT / f"scenarios/{name.removesuffix('-' + frame['cohort'].iloc[0])}.yaml"
    if file.exists() and (experiment := read_experiment(file)).compare != "supervision":
        dice = tables.dice_by_variant(frame, experiment.configs())
        table = tables.variant_table(dice, experiment.against())
    else:
        tuning = (frame["cohort"] == "lgg") & (frame["fold"] == 1)
        table = tables.comparison_table(frame[~tuning])
    pages = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/experiments/*.md"))
    printed = pages.split(f"results:{name} -->")[1]
    assert tables.format_table(table, "markdown") in printed


def test_the_recorded_run_folders_are_still_read():
    frame = collect(ROOT / "data/results/runs")
    table = pd.read_csv(ROOT / "data/results/phantom.csv")
    same = ["fold", "supervision", "seed", "patient", "settings_hash"]
    both = frame.merge(table, on=same, suffixes=("", "_recorded"))
    assert len(both) == len(frame) == len(table)
    assert both["dice"].to_numpy() == pytest.approx(both["dice_recorded"].to_numpy(), abs=1e-4)
    for folder in frame["folder"].unique():
        assert len(read_history(folder)) == 300 and len(read_examples(folder)["z"]) == 3
