"""The claim ledger holds what it promises, and the paper's printed numbers are the ones we compare with."""

import re

import pytest
from ledger import ROOT, Row, faults, read_ledger
from record import departures_table, main, record

from mixsup_lib import paper
from mixsup_lib.config import make_config
from mixsup_lib.protocol import make_split

LEDGER = read_ledger()
DOCUMENT = (ROOT / "REPRODUCTION.md").read_text(encoding="utf-8")


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.findall(r"\d+\.\d+", text))


def rows_of(prefix: str) -> list[Row]:
    return [row for row in LEDGER if row.id.startswith(prefix)]


def test_every_claim_has_a_test_a_command_or_a_reason():
    assert [fault for row in LEDGER for fault in faults(row)] == []


def test_ids_are_unique_and_count_up_within_their_section():
    assert len({row.id for row in LEDGER}) == len(LEDGER)
    for section in {row.id.rpartition("-")[0] for row in LEDGER}:
        counts = [int(row.id.rpartition("-")[2]) for row in LEDGER if row.id.rpartition("-")[0] == section]
        assert counts == list(range(1, len(counts) + 1)), section


@pytest.mark.parametrize("section", ["C3.1", "C3.2", "C4.1", "C4.2", "C4.3", "T1", "T2", "T3", "T4", "F"])
def test_every_section_of_the_method_and_of_the_experiments_has_rows(section):
    assert rows_of(f"{section}-")


def test_a_row_that_names_no_test_is_found_out():
    empty = Row("C3.1-99", "3.1", "claim", "value", "", "tested")
    wrong = Row(
        "C3.1-99", "3.1", "claim", "value", "tests/test_reproduction.py::test_that_is_not_there", "tested"
    )
    fine = Row(
        "C3.1-99", "3.1", "claim", "value", "reason: it cannot be checked from outside", "not repeated"
    )
    assert faults(empty) and faults(wrong) and not faults(fine)


def test_a_row_with_a_missing_cell_is_found_out():
    with pytest.raises(ValueError, match="C3.1-01 has 5 cells"):
        read_ledger("| C3.1-01 | 3.1 | claim | value | tested |")


@pytest.mark.parametrize(("prefix", "table"), [("T1-", paper.TABLE_1), ("T3-", paper.TABLE_3)])
def test_tables_1_and_3_stand_in_the_ledger_as_printed(prefix, table):
    assert [numbers(row.claim) for row in rows_of(prefix)] == list(table.values())
    for row, (supervision, n_fa) in zip(rows_of(prefix), table, strict=True):
        assert row.claim.startswith(f"{supervision}, {n_fa} FA")


@pytest.mark.parametrize(("prefix", "table"), [("T2-", paper.TABLE_2), ("T4-", paper.TABLE_4)])
def test_tables_2_and_4_stand_in_the_ledger_as_printed(prefix, table):
    assert [numbers(row.claim) for row in rows_of(prefix)] == list(table.values())
    for row, (supervision, region) in zip(rows_of(prefix), table, strict=True):
        assert row.claim.startswith(f"{supervision}, {region.replace('_', ' ')}")


@pytest.mark.parametrize("table", [paper.TABLE_2, paper.TABLE_4])
def test_printed_means_are_the_means_of_the_printed_folds(table):
    for *folds, mean in table.values():
        assert sum(folds) / len(folds) == pytest.approx(mean, abs=0.0101)


@pytest.mark.parametrize(
    ("by_fold", "overall"), [(paper.TABLE_2, paper.TABLE_1), (paper.TABLE_4, paper.TABLE_3)]
)
def test_fold_tables_and_overview_tables_agree_at_15_fa(by_fold, overall):
    for supervision in ("standard", "mixed"):
        assert overall[supervision, 15] == tuple(by_fold[supervision, region][-1] for region in paper.REGIONS)


def gains(table, n_fa):
    return [
        mixed - standard
        for mixed, standard in zip(table["mixed", n_fa], table["standard", n_fa], strict=True)
    ]


@pytest.mark.parametrize("table", [paper.TABLE_1, paper.TABLE_3])
def test_the_paper_prints_a_gain_for_every_region_at_5_and_15_fa(table):
    assert min(gains(table, 5) + gains(table, 15)) > 0


def test_the_papers_largest_gain_is_whole_tumor_at_5_fa():
    for table, printed in ((paper.TABLE_1, 8), (paper.TABLE_3, 9)):
        assert round(gains(table, 5)[0]) == printed
        assert gains(table, 5)[0] == max(gains(table, 5) + gains(table, 15) + gains(table, 30))


def test_the_paper_prints_similar_scores_at_30_fa():
    assert max(abs(gain) for table in (paper.TABLE_1, paper.TABLE_3) for gain in gains(table, 30)) < 2.2


def test_the_paper_prints_one_fold_without_gain_at_15_fa():
    without = [
        (region, fold)
        for table in (paper.TABLE_2, paper.TABLE_4)
        for region in paper.REGIONS
        for fold in range(5)
        if table["mixed", region][fold] <= table["standard", region][fold]
    ]
    assert without == [("enhancing_core", 3)]  # fold 4 of the binary problem


def test_the_paper_prints_5_fa_mixed_just_above_15_fa_standard():
    assert 0 < paper.TABLE_1["mixed", 5][0] - paper.TABLE_1["standard", 15][0] < 1


def test_the_papers_gain_shrinks_with_more_annotated_patients_in_four_of_its_six_curves():
    grows_somewhere = [
        (kind, region)
        for kind, table in (("binary", paper.TABLE_1), ("multiclass", paper.TABLE_3))
        for i, region in enumerate(paper.REGIONS)
        if not gains(table, 5)[i] > gains(table, 15)[i] > gains(table, 30)[i]
    ]
    assert grows_somewhere == [("binary", "tumor_core"), ("multiclass", "enhancing_core")]


def test_the_papers_sixty_tests_are_folds_times_scenarios_times_problems():
    mixed = [n_fa for n_fa, n_wa in paper.SCENARIOS.items() if n_wa]
    assert paper.N_FOLDS * len(mixed) * len(paper.TASKS) == 60


def test_every_scenario_uses_the_228_patients_that_are_not_tested():
    assert {n_fa + n_wa for n_fa, n_wa in paper.SCENARIOS.items()} == {paper.N_PATIENTS - 57}


def test_the_preset_paper_holds_the_papers_settings():
    config = make_config(cohort="BraTS2018", preset="paper")
    assert (config.input_size, config.padding, config.width, config.depth) == (300, "valid", 64, 4)
    assert (config.window, config.pixel_mm) == (None, None)
    assert (config.k, config.m, config.n, config.flip_fraction) == (4, 2, 4, 0.3)
    assert (config.target_weights, config.a) == ((0.7, 0.3), 0.7)
    assert (config.optimizer, config.learning_rate, config.momentum) == ("normalized_sgd", 0.25, 0.9)
    assert (config.schedule, config.iterations, config.batches_per_iteration) == ("plateau", 10_000, 10)
    assert (config.n_maps, config.n_branches, config.n_folds) == (2, 1, 5)
    standard = make_config(cohort="BraTS2018", preset="paper", supervision="standard")
    assert (standard.k, standard.m, standard.n, standard.n_branches) == (4, 2, 0, 0)
    assert standard.batch_norm_batches == config.batch_norm_batches == 100


def test_multiclass_runs_hold_the_papers_settings():
    config = make_config(cohort="BraTS2018", preset="paper", task="multiclass")
    assert (config.target_weights, config.a) == ((0.7, 0.1, 0.1, 0.1), 0.3)
    assert (config.n_maps, config.n_branches) == (4, 3)


@pytest.mark.parametrize("n_fa", [5, 15, 30])
def test_fully_annotated_patients_differ_in_each_fold(n_fa):
    patients = [f"patient{i:03d}" for i in range(paper.N_PATIENTS)]
    annotated = [make_split(patients, n_fa=n_fa, fold=fold).fully_annotated for fold in range(1, 6)]
    assert len({patient for fold in annotated for patient in fold}) == 5 * n_fa


def test_departures_in_the_document_are_those_of_the_code():
    table = departures_table(ROOT / "mixsup_lib")
    assert table in DOCUMENT, "run: python workflow/record.py departures"
    assert len(table.splitlines()) > 7


def test_departures_are_found_in_every_kind_of_docstring(tmp_path):
    (tmp_path / "one.py").write_text(
        '"""Module.\n\nDeparture: first\nsentence.\n\nNot this."""\nX = 1\n"""Departure: second."""\n'
        'class A:\n    def b(self):\n        """Departure: third.\n        Departure: fourth."""\n'
    )
    rows = [
        "| `one` | first sentence. |",
        "| `one` | second. |",
        "| `one.A.b` | third. |",
        "| `one.A.b` | fourth. |",
    ]
    assert departures_table(tmp_path).splitlines()[2:] == rows


def test_a_table_is_put_between_its_markers_and_missing_markers_are_one_sentence(tmp_path):
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- results:speed -->\nold\n<!-- /results:speed -->\nafter\n")
    record("speed", "new", document)
    expected = ["before", *"<!-- results:speed --> new <!-- /results:speed --> after".split()]
    assert document.read_text().split() == expected
    with pytest.raises(SystemExit, match="the markers .* are missing"):
        record("other", "new", document)


@pytest.mark.parametrize(
    ("name", "options"),
    [("phantom", []), ("lgg", ["--tuning-fold", "1"]), ("paper-phantom-seed1", ["--paper-tables"])],
)
def test_recorded_runs_give_the_printed_tables(name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/results").mkdir(parents=True)
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    before, _, rest = DOCUMENT.partition(start)
    (tmp_path / "REPRODUCTION.md").write_text(
        f"{before}{start}{end}{rest.partition(end)[2]}", encoding="utf-8"
    )
    table = f"data/results/{name}.csv"
    main(["runs", str(ROOT / table), name, *options, "--no-picture"])
    assert (tmp_path / "REPRODUCTION.md").read_text(encoding="utf-8") == DOCUMENT
    assert (tmp_path / table).read_bytes() == (ROOT / table).read_bytes()
