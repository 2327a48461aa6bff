"""The page of claims is whole, the paper's printed numbers are those we compare with, and recorded tables stay."""

import re
import shutil

import pytest
import record
from claims import DATA, PAGE, ROOT, departures_table, make_page, read_rows

from mixsup_lib import paper
from mixsup_lib.config import make_config
from mixsup_lib.protocol import make_split


def numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.findall(r"\d+\.\d+", text))


def printed(section: str) -> list[str]:
    """What docs/claims.yaml says of one of the paper's tables."""
    return [row["claim"] for row in DATA["rows"] if row["id"].startswith(f"{section}-")]


def test_the_page_of_claims_is_that_of_the_markers_and_ids_count_up_in_every_section():
    rows = read_rows()
    sizes = {section: sum(row.place[0] == section for row in rows) for section in DATA["sections"]}
    assert min(sizes.values()) > 0
    assert {row.id for row in rows} == {f"{name}-{n:02}" for name in sizes for n in range(1, sizes[name] + 1)}
    assert [row.id for row in rows if not row.tests and not row.check] == []
    assert PAGE.read_text(encoding="utf-8") == make_page(), "run: python tests/claims.py"


def test_a_claim_without_text_or_with_two_is_refused(tmp_path):
    file = tmp_path / "test_one.py"
    file.write_text("@pytest.mark.claim('F-01')\ndef test_a():\n    pass\n")
    with pytest.raises(ValueError, match="F-01: none of `test_one.py::test_a` has its text"):
        read_rows(tmp_path)
    file.write_text("@pytest.mark.claim('T1-01', 'twice', ours='-')\ndef test_a():\n    pass\n")
    with pytest.raises(ValueError, match="T1-01: the text at test_one.py::test_a is its second"):
        read_rows(tmp_path)


@pytest.mark.parametrize(("section", "table"), [("T1", paper.TABLE_1), ("T3", paper.TABLE_3)])
def test_tables_1_and_3_stand_among_the_claims_as_printed(section, table):
    assert [numbers(claim) for claim in printed(section)] == list(table.values())
    for claim, (supervision, n_fa) in zip(printed(section), table, strict=True):
        assert claim.startswith(f"{supervision}, {n_fa} FA")


@pytest.mark.parametrize(("section", "table"), [("T2", paper.TABLE_2), ("T4", paper.TABLE_4)])
def test_tables_2_and_4_stand_among_the_claims_as_printed(section, table):
    assert [numbers(claim) for claim in printed(section)] == list(table.values())
    for claim, (supervision, region) in zip(printed(section), table, strict=True):
        assert claim.startswith(f"{supervision}, {region.replace('_', ' ')}")


@pytest.mark.parametrize("table", [paper.TABLE_2, paper.TABLE_4])
def test_printed_means_are_the_means_of_the_printed_folds(table):
    for *folds, mean in table.values():
        assert sum(folds) / len(folds) == pytest.approx(mean, abs=0.0101)


@pytest.mark.parametrize(("by_fold", "overall"), [(paper.TABLE_2, paper.TABLE_1), (paper.TABLE_4, paper.TABLE_3)])
def test_fold_tables_and_overview_tables_agree_at_15_fa(by_fold, overall):
    for supervision in ("standard", "mixed"):
        assert overall[supervision, 15] == tuple(by_fold[supervision, region][-1] for region in paper.REGIONS)


def gains(table, n_fa):
    return [mixed - standard for mixed, standard in zip(table["mixed", n_fa], table["standard", n_fa], strict=True)]


@pytest.mark.claim(
    "C4.3-01",
    "At 5 and 15 FA the mixed model is ahead on all three binary problems and in the multiclass setting",
    ours="+0.04 (enhancing core, multiclass, 5 FA) to +9.03 as printed",
)
@pytest.mark.parametrize("table", [paper.TABLE_1, paper.TABLE_3])
def test_the_paper_prints_a_gain_for_every_region_at_5_and_15_fa(table):
    assert min(gains(table, 5) + gains(table, 15)) > 0


@pytest.mark.claim(
    "C4.3-02",
    "The largest improvement is whole tumour at 5 FA: 8 points binary, 9 multiclass",
    ours="+7.95 and +9.03 as printed",
)
def test_the_papers_largest_gain_is_whole_tumor_at_5_fa():
    for table, printed in ((paper.TABLE_1, 8), (paper.TABLE_3, 9)):
        assert round(gains(table, 5)[0]) == printed
        assert gains(table, 5)[0] == max(gains(table, 5) + gains(table, 15) + gains(table, 30))


@pytest.mark.claim(
    "C4.3-04", "At 30 FA both approaches perform similarly", ours="differences of -1.97 to +2.13 as printed"
)
def test_the_paper_prints_similar_scores_at_30_fa():
    assert max(abs(gain) for table in (paper.TABLE_1, paper.TABLE_3) for gain in gains(table, 30)) < 2.2


@pytest.mark.claim(
    "C4.3-03",
    "At 15 FA every fold and region improves, except one fold of enhancing core (binary)",
    ours="fold 4: 68.09 -> 67.55 as printed",
)
def test_the_paper_prints_one_fold_without_gain_at_15_fa():
    without = [
        (region, fold)
        for table in (paper.TABLE_2, paper.TABLE_4)
        for region in paper.REGIONS
        for fold in range(5)
        if table["mixed", region][fold] <= table["standard", region][fold]
    ]
    assert without == [("enhancing_core", 3)]  # fold 4 of the binary problem


@pytest.mark.claim(
    "C4.3-06", "5 FA + 223 WA (78.3) is slightly better than 15 FA alone (77.9)", ours="+0.43 as printed"
)
def test_the_paper_prints_5_fa_mixed_just_above_15_fa_standard():
    assert 0 < paper.TABLE_1["mixed", 5][0] - paper.TABLE_1["standard", 15][0] < 1


@pytest.mark.claim(
    "C4.3-07",
    "The improvement decreases with the number of segmentations (Fig. 7)",
    ours="so in four of the six printed curves, not for tumour core (binary) and enhancing core (multiclass)",
)
def test_the_papers_gain_shrinks_with_more_annotated_patients_in_four_of_its_six_curves():
    grows_somewhere = [
        (kind, region)
        for kind, table in (("binary", paper.TABLE_1), ("multiclass", paper.TABLE_3))
        for i, region in enumerate(paper.REGIONS)
        if not gains(table, 5)[i] > gains(table, 15)[i] > gains(table, 30)[i]
    ]
    assert grows_somewhere == [("binary", "tumor_core"), ("multiclass", "enhancing_core")]


@pytest.mark.claim(
    "C4.2-08", "60 tests: 5 folds, 3 scenarios, 3 binary problems and the multiclass one", ours="5 * 3 * 4"
)
def test_the_papers_sixty_tests_are_folds_times_scenarios_times_problems():
    mixed = [n_fa for n_fa, n_wa in paper.SCENARIOS.items() if n_wa]
    assert paper.N_FOLDS * len(mixed) * len(paper.TASKS) == 60


@pytest.mark.claim("C4.2-06")
def test_every_scenario_uses_the_228_patients_that_are_not_tested():
    assert {n_fa + n_wa for n_fa, n_wa in paper.SCENARIOS.items()} == {paper.N_PATIENTS - 57}


@pytest.mark.claim("C3.1-01")
@pytest.mark.claim("C3.1-14")
@pytest.mark.claim("C3.1-16")
@pytest.mark.claim("C3.1-22")
@pytest.mark.claim("F-09")
@pytest.mark.claim("F-17")
@pytest.mark.claim("F-19", "Training lasts 10 000 iterations of 10 batches of 10 images", ours="10 000, 10, 10")
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


@pytest.mark.claim("C3.2-08")
@pytest.mark.claim("C3.2-10", "a = 0.3", ours="0.3")
def test_multiclass_runs_hold_the_papers_settings():
    config = make_config(cohort="BraTS2018", preset="paper", task="multiclass")
    assert (config.target_weights, config.a) == ((0.7, 0.1, 0.1, 0.1), 0.3)
    assert (config.n_maps, config.n_branches) == (4, 3)


@pytest.mark.claim("C4.2-05", "Fully annotated patients differ in each fold", ours="no patient twice")
@pytest.mark.parametrize("n_fa", [5, 15, 30])
def test_fully_annotated_patients_differ_in_each_fold(n_fa):
    patients = [f"patient{i:03d}" for i in range(paper.N_PATIENTS)]
    annotated = [make_split(patients, n_fa=n_fa, fold=fold).fully_annotated for fold in range(1, 6)]
    assert len({patient for fold in annotated for patient in fold}) == 5 * n_fa


def test_departures_are_found_in_every_kind_of_docstring(tmp_path):
    (tmp_path / "one.py").write_text(
        '"""Module.\n\nDeparture: first\nsentence.\n\nNot this."""\nX = 1\n"""Departure: second."""\n'
        'class A:\n    def b(self):\n        """Departure: third.\n        Departure: fourth."""\n'
    )
    rows = ["| `one` | first sentence. |", "| `one` | second. |", "| `one.A.b` | third. |", "| `one.A.b` | fourth. |"]
    assert departures_table(tmp_path).splitlines()[2:] == rows


@pytest.mark.parametrize(
    ("name", "page", "options"),
    [
        ("phantom", "phantom", []),
        ("lgg", "lgg", ["--tuning-fold", "1"]),
        ("paper-phantom-seed1", "paper-tables", ["--paper-tables"]),
    ],
)
def test_recorded_runs_give_the_printed_tables(name, page, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/results").mkdir(parents=True)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("*.png"))
    page, table = f"docs/experiments/{page}.md", f"data/results/{name}.csv"
    printed = (ROOT / page).read_text(encoding="utf-8")
    before, after = (printed.split(f"<!-- results:{name} -->")[0], printed.split(f"<!-- /results:{name} -->")[1])
    emptied = f"{before}<!-- results:{name} -->old<!-- /results:{name} -->{after}"
    (tmp_path / page).write_text(emptied, encoding="utf-8")
    record.main(["runs", str(ROOT / table), name, *options, "--no-picture"])
    assert (tmp_path / page).read_text(encoding="utf-8") == printed
    assert (tmp_path / table).read_bytes() == (ROOT / table).read_bytes()


def test_a_table_whose_markers_no_page_has_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="No page below docs has the markers"):
        record.record("phantom", "new")


def test_every_row_of_the_results_stands_on_the_page_of_an_experiment():
    pages = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("docs/experiments/*.md")).splitlines()
    rows = [row for row in (ROOT / "RESULTS.md").read_text(encoding="utf-8").splitlines() if row.startswith("|")]
    assert len(rows) > 50 and [row for row in rows if row not in pages] == []
