"""The shipped lessons: written from two runs, read back, kept small; nothing but phantoms goes into them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import dice
from mixsup_lib.experiments.runs import load_run, run
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.teaching.lessons import read_lessons

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "data" / "lessons"


def script():
    spec = importlib.util.spec_from_file_location("lesson_files", ROOT / "workflow" / "lesson_files.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lesson_files = script()


@pytest.fixture(scope="module")
def settings(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lessons")
    shared = {"cohort": phantom, "out": folder / "runs", "stores": folder / "stores", "n_fa": 3, "n_folds": 3}
    return shared | {"iterations": 7, "batch_norm_batches": 2, "progress": False, "precision": "float32"}


@pytest.fixture(scope="module")
def runs(settings):
    return {arm: run(make_config(supervision=arm, **settings)) for arm in ("standard", "mixed")}


@pytest.fixture
def written(runs, tmp_path):
    lesson_files.write_lessons(*runs.values(), tmp_path / "out", command="the command")
    return tmp_path / "out"


def test_networks_come_back_with_kernels_rounded_to_16_bits(runs, written):
    lessons = read_lessons(written)
    for arm, folder in runs.items():
        state = lessons.arms[arm].network.state_dict()
        weights = load_file(folder / "weights.safetensors")
        assert state.keys() == weights.keys() and not lessons.arms[arm].network.training
        for name, tensor in weights.items():
            assert torch.equal(state[name], tensor.half().float() if tensor.ndim > 1 else tensor)


def test_histories_and_patients_come_back(runs, written):
    for arm, read in read_lessons(written).arms.items():
        history = pd.read_csv(runs[arm] / "history.csv")
        assert read.history["iteration"].tolist() == [5, 7]
        assert read.history["loss"].iloc[0] == pytest.approx(history["loss"][:5].mean(), rel=1e-4)
        assert read.per_patient["patient"].tolist() == load_run(runs[arm])[1].split["test"]
        assert read.config.supervision == arm and read.config.iterations == 7


def test_cases_come_back_as_the_cohort_has_them(settings, written):
    cohort = find_cohort(settings["cohort"])
    lessons = read_lessons(written)
    assert list(lessons.cases) == ["median", "gained", "worst"]
    for case in lessons.cases.values():
        original = cohort[case.patient].read_images()
        assert np.array_equal(case.images, original.images) and case.images.dtype == np.float32
        assert np.array_equal(case.labels, cohort[case.patient].read_labels())
        assert np.array_equal(case.source_affine, original.source_affine)
        assert case.voxel_size_mm == original.voxel_size_mm and case.sequences == original.sequences


def test_predictions_of_a_case_are_those_of_the_run(written):
    lessons = read_lessons(written)
    for name, case in lessons.cases.items():
        entry = lessons.record["cases"][name]
        assert entry["why"] == lesson_files.CASE_RULES[name]
        for arm, read in lessons.arms.items():
            labels, presence = read.predict(case)
            assert labels.shape == case.labels.shape
            assert (presence is None) == (arm == "standard")
            found = dice(labels, case.labels != 0)
            assert found == pytest.approx(entry["dice_of_these_weights"][arm], abs=0.01)
            assert found == pytest.approx(entry["dice_of_the_run"][arm], abs=2)


def test_the_record_names_origin_and_no_place_on_this_machine(settings, written):
    text = (written / "lessons.json").read_text()
    record = json.loads(text)
    assert record["command"] == "the command" and record["phantom"]["seed"] == 3
    assert record["runs"]["mixed"]["patients"] == {"fully_annotated": 3, "weak": 4, "test": 3}
    assert record["runs"]["standard"]["provenance"]["commit"]
    assert str(settings["cohort"].parent) not in text and str(settings["out"]) not in text


def table(**dice):
    return pd.DataFrame({"patient": list(dice), "dice": list(dice.values())})


def test_cases_are_chosen_by_rule_and_never_twice():
    standard = table(a=50.0, b=10.0, c=30.0, d=80.0, e=float("nan"))
    mixed = table(a=60.0, b=70.0, c=20.0, d=75.0, e=99.0)
    assert lesson_files.choose_cases(standard, mixed) == {"median": "a", "gained": "b", "worst": "c"}
    standard = table(a=10.0, b=60.0, c=80.0)  # a gains most and stays the worst
    mixed = table(a=40.0, b=70.0, c=80.0)
    assert lesson_files.choose_cases(standard, mixed) == {"median": "c", "gained": "b", "worst": "a"}


def test_scans_of_people_are_refused(runs, settings, tmp_path):
    described = Path(settings["cohort"]) / "phantom.json"
    hidden = described.rename(tmp_path / "phantom.json")
    try:
        with pytest.raises(SettingError, match="scans of people are never shipped"):
            lesson_files.write_lessons(*runs.values(), tmp_path / "out")
    finally:
        hidden.rename(described)
    assert not (tmp_path / "out").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("harm", "name"),
    [(cut, "lessons.json"), (cut, "mixed-unet.safetensors"), (cut, "case-worst.npz")]
    + [(Path.unlink, "standard-history.csv")],
)
def test_a_damaged_folder_is_one_sentence(written, harm, name):
    harm(written / name)
    with pytest.raises(DataError, match="not the files of the lessons"):
        read_lessons(written)


def test_the_command_line(runs, tmp_path, monkeypatch, capsys):
    call = ["lesson_files.py", *map(str, runs.values()), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", call)
    lesson_files.main()
    assert "mixed-branch.safetensors" in capsys.readouterr().out
    assert read_lessons(tmp_path / "out").record["command"].startswith("python workflow/lesson_files.py")


# what is shipped


def test_shipped_files_are_small():
    files = sorted(SHIPPED.iterdir())
    assert len(files) == 11 and all(path.stat().st_size < 1_500_000 for path in files)


def test_shipped_weights_give_the_dice_of_their_runs():
    lessons = read_lessons(SHIPPED)
    assert lessons.record["phantom"]["patients"] > 0
    for name, case in lessons.cases.items():
        for arm, read in lessons.arms.items():
            recorded = lessons.record["cases"][name]["dice_of_the_run"][arm]
            of_table = read.per_patient.set_index("patient")["dice"][case.patient]
            assert of_table == pytest.approx(recorded, abs=0.01)
            assert dice(read.predict(case)[0], case.labels != 0) == pytest.approx(recorded, abs=1)
