"""Folds and scenarios of section 4.2."""

from __future__ import annotations

import pytest

from mixsup_lib.files import DataError, SettingError
from mixsup_lib.protocol import Split, fold_bounds, make_split, permutation, read_patient_list, read_split

PATIENTS = [f"Brats18_TCIA_{i:03d}_1" for i in range(285)]


@pytest.mark.claim("C4.2-02", "5 folds, 57 patients for test and 228 for training in each", ours="5, 57, 228")
@pytest.mark.claim("C4.2-03", "Test patients of fold k are numbers (k-1)*57 to k*57-1", ours="the same")
def test_285_patients_give_five_test_folds_of_57_that_test_everyone_once():
    assert [fold_bounds(285, k) for k in range(1, 6)] == [((k - 1) * 57, k * 57) for k in range(1, 6)]
    tested = [p for fold in range(1, 6) for p in make_split(PATIENTS, n_fa=5, fold=fold).test]
    assert sorted(tested) == sorted(PATIENTS)


@pytest.mark.claim(
    "C4.2-06", "Scenarios: 5 FA + 223 WA, 15 FA + 213 WA, 30 FA + 198 WA", ours="the same for 285 patients"
)
def test_scenarios_leave_the_papers_number_of_weak_patients():
    for n_fa, n_wa in ((5, 223), (15, 213), (30, 198), (228, 0)):
        split = make_split(PATIENTS, n_fa=n_fa, fold=3)
        assert (len(split.test), len(split.fully_annotated), len(split.weak)) == (57, n_fa, n_wa)


@pytest.mark.claim(
    "C4.2-04",
    "The next patients are fully annotated, all others weak, in a circular way",
    ours="fold 5 goes on at patient 0",
)
def test_folds_are_circular():
    order = permutation(PATIENTS, 15)
    first, second, fifth = (make_split(PATIENTS, n_fa=15, fold=fold) for fold in (1, 2, 5))
    assert first.fully_annotated == tuple(order[57:72]) == second.test[:15]
    assert fifth.fully_annotated == tuple(order[:15])


@pytest.mark.claim(
    "C4.2-07",
    "Each scenario has its own random permutation of the patients",
    ours="one per number of FA and scenario seed",
)
def test_each_scenario_has_its_own_permutation():
    assert permutation(PATIENTS, 5) != permutation(PATIENTS, 15)
    assert permutation(PATIENTS, 5) != permutation(PATIENTS, 5, scenario_seed=1)
    assert permutation(PATIENTS, 5) == permutation(reversed(PATIENTS), 5)


def test_fewer_weak_patients_keep_test_and_annotated_patients():
    all_weak, fifty = make_split(PATIENTS, n_fa=5), make_split(PATIENTS, n_fa=5, n_wa=50)
    assert (fifty.test, fifty.fully_annotated) == (all_weak.test, all_weak.fully_annotated)
    assert fifty.weak == all_weak.weak[:50]


def test_masks_are_needed_of_annotated_and_test_patients_only():
    split = make_split(PATIENTS, n_fa=5, fold=2)
    assert make_split(PATIENTS, n_fa=5, fold=2, with_mask={*split.fully_annotated, *split.test}) == split
    with_mask = set(PATIENTS[::2])
    other = make_split(PATIENTS, n_fa=5, fold=1, with_mask=with_mask)
    assert with_mask.issuperset(other.test + other.fully_annotated)
    assert len(other.weak) + len(other.test) + 5 == 285


def test_impossible_requests_are_refused():
    with pytest.raises(DataError, match="Patient b is used twice"):
        Split(("a", "b"), ("c",), ("b",))
    for request in ({"fold": 6}, {"n_fa": 229}, {"n_wa": 224}):
        with pytest.raises(SettingError):
            make_split(PATIENTS, **{"n_fa": 5, **request})


def test_scenarios_that_share_a_permutation_test_the_same_patients_and_nest_the_annotated():
    few, many = (make_split(PATIENTS, n_fa=n_fa, fold=2, permutation_of=5) for n_fa in (5, 12))
    assert few.test == many.test and many.fully_annotated[:5] == few.fully_annotated
    assert few == make_split(PATIENTS, n_fa=5, fold=2)
    assert many.test != make_split(PATIENTS, n_fa=12, fold=2).test


@pytest.mark.claim(
    "F-20", "List files name Brats17_..., folders Brats18_...: matched without the year", ours="the rest is reported"
)
def test_lists_are_matched_without_the_year_prefix(tmp_path):
    path = tmp_path / "test.txt"
    path.write_text("data/HGG/Brats17_TCIA_001_1\n\ndata\\LGG\\Brats17_TCIA_999_1\n")
    assert read_patient_list(path, PATIENTS) == (["Brats18_TCIA_001_1"], ["Brats17_TCIA_999_1"])


@pytest.fixture
def lists(tmp_path):
    for number, name in enumerate(("fully_annotated", "weak", "test")):
        (tmp_path / f"{name}.txt").write_text(f"/data/BRATS/HGG/Brats17_TCIA_00{number}_1/\n")
    return tmp_path


def test_the_authors_lists_decide_the_split(lists):
    split = read_split(lists, PATIENTS, n_fa=1, n_wa=1)
    assert split == Split(("Brats18_TCIA_000_1",), ("Brats18_TCIA_001_1",), ("Brats18_TCIA_002_1",))


@pytest.mark.claim("F-20")
def test_unmatched_list_entries_are_reported(lists):
    (lists / "weak.txt").write_text("Brats17_TCIA_0001_1\n")
    with pytest.raises(DataError, match=r"weak\.txt: 1 of 1 entries match no patient.*'Brats17_TCIA_0001_1'"):
        read_split(lists, PATIENTS, n_fa=1)


def test_lists_that_do_not_fit_the_run_or_are_empty_or_missing_are_refused(lists):
    with pytest.raises(SettingError, match="Setting 'n_fa': found 5, but the lists in .* name 1"):
        read_split(lists, PATIENTS, n_fa=5)
    with pytest.raises(SettingError, match="Setting 'n_wa': found 2"):
        read_split(lists, PATIENTS, n_fa=1, n_wa=2)
    (lists / "test.txt").write_text("\n")
    with pytest.raises(DataError, match=r"test\.txt: found no patient"):
        read_split(lists, PATIENTS, n_fa=1)
    (lists / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test\.txt: cannot be read"):
        read_split(lists, PATIENTS, n_fa=1)
