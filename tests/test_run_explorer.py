"""The run explorer: names of runs, what each view draws and says, and the controls."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from mixsup_lib.experiments.runs import collect
from mixsup_lib.experiments.statistics import pairs
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.teaching.widgets.run_explorer import VIEWS, Runs, draw_runs, run_explorer

RECORDED = Path(__file__).resolve().parent.parent / "data" / "results" / "runs"


@pytest.fixture(scope="module")
def runs():
    return Runs(RECORDED)


@pytest.fixture(scope="module")
def pair(runs):
    first = next(name for name in runs.folders if runs.arm(name) == "standard")
    return {"first": first, "second": runs.partner(first)}


def test_every_run_has_a_name_of_its_own(runs):
    assert len(runs.folders) == collect(RECORDED)["folder"].nunique()
    assert len(set(runs.folders.values())) == len(runs.folders)
    for name, folder in runs.folders.items():
        assert runs.arm(name) in name and f"/{runs.arm(name)}/" in folder.replace("\\", "/")


def test_names_tell_apart_what_differs_only(runs, tmp_path):
    assert all(name.count(",") == 3 for name in runs.folders)
    source = Path(next(iter(runs.folders.values())))
    inside = Path(*source.parts[-6:])
    for cohort in ("one", "two"):
        target = shutil.copytree(source, tmp_path / cohort / inside) / "metrics.json"
        text = target.read_text()
        target.write_text(text.replace('"cohort": "data/phantom-seed1"', f'"cohort": "data/{cohort}"'))
    names = list(Runs(tmp_path).folders)
    assert [name.split(", ")[-1] for name in names] == ["one", "two"]
    assert names[0].rsplit(", ", 1)[0] == names[1].rsplit(", ", 1)[0]


def test_the_partner_is_the_other_arm_of_the_same_fold(runs, pair):
    first, second = pair.values()
    assert runs.arm(first) == "standard" and runs.arm(second) == "mixed"
    assert first.replace("standard", "mixed") == second and runs.partner(second) == first


def test_a_run_without_partner_stands_alone(runs, pair, tmp_path):
    source = Path(runs.folders[pair["first"]])
    shutil.copytree(source, tmp_path / Path(*source.parts[-7:]))
    alone = Runs(tmp_path)
    (name,) = alone.folders
    assert alone.partner(name) == name


def test_differences_are_those_of_the_paired_comparison(runs, pair):
    of_both = runs.table["folder"].isin([runs.folders[name] for name in pair.values()])
    of_fold = pairs(runs.table[of_both])
    words = alt_text(draw_runs(runs, **pair, view="patients"))
    assert f"{len(of_fold)} patients: mean {of_fold['difference'].mean():+.1f}" in words
    assert f"{(of_fold['difference'] > 0).sum()} gain" in words


def test_a_run_against_itself_has_no_difference(runs, pair):
    words = alt_text(draw_runs(runs, first=pair["first"], second=pair["first"], view="patients"))
    assert "mean +0.0 Dice points, 0 gain, 0 lose" in words


def test_runs_of_two_folds_share_no_patient(runs, pair):
    other = next(name for name in runs.folders if "fold 2" in name)
    with pytest.raises(DataError, match="choose two runs of one fold"):
        draw_runs(runs, first=pair["first"], second=other, view="patients")
    assert "Losses" in alt_text(draw_runs(runs, first=pair["first"], second=other, view="learning curves"))


def test_curves_name_the_losses_at_the_end(runs, pair):
    words = alt_text(draw_runs(runs, **pair, view="learning curves"))
    loss = runs.history(pair["first"])["segmentation_loss"].tail(5).mean()
    assert f"{pair['first']}: segmentation {loss:.3g};" in words
    assert words.count("classification") == 1  # standard supervision has no branch


def test_slices_run_from_worst_to_best(runs, pair):
    figure = draw_runs(runs, **pair, view="slices, worst first")
    shown = [axis.get_title() for axis in figure.axes]
    scores = np.array([float(title.split("Dice ")[1]) for title in shown if title]).reshape(2, -1)
    assert (np.diff(scores, axis=1) >= 0).all()
    dice = runs.patients(pair["second"], runs.regions[0])
    assert scores[1, 0] == round(dice.min()) and scores[1, -1] == round(dice.max())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"first": "fold 9"}, "unknown run"),
        ({"second": "fold 9"}, "unknown run"),
        ({"view": "patient"}, "Did you mean 'patients'"),
        ({"region": "core"}, "unknown region"),
    ],
)
def test_unknown_names_are_refused(runs, pair, wrong, words):
    with pytest.raises(SettingError, match=words):
        draw_runs(runs, **{**pair, **wrong})


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no finished run"):
        Runs(tmp_path)


def test_every_control_has_a_description_and_changes_the_picture(runs):
    explorer = run_explorer(runs)
    controls, picture = explorer.children[0].children, explorer.children[1]
    first, second, view = controls
    assert [control.description for control in controls] == ["run", "against", "show"]
    assert first.value != second.value and "alert" not in picture.value
    for value in VIEWS[:1] + VIEWS[2:]:
        before = picture.value
        view.value = value
        assert picture.value != before and "alert" not in picture.value
    view.value = "patients"
    second.value = next(name for name in runs.folders if "fold 2" in name and "fold 2" not in first.value)
    assert 'role="alert"' in picture.value and "one fold" in picture.value


@pytest.mark.parametrize("view", VIEWS)
def test_it_answers_quickly(runs, pair, view):
    explorer = run_explorer(runs)
    first, second, show = explorer.children[0].children
    show.value, times = view, []
    for name in (pair["second"], pair["first"]) * 2:
        start = time.process_time()
        first.value = name
        times.append(time.process_time() - start)
    assert min(times) < 0.6  # 0.2 s on an idle core; a busy or old one may need longer
