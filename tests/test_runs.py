"""One run, one folder; its record, its notebook parameters and its settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from safetensors.torch import load_file

from mixsup_lib.config import RunConfig, make_config, run_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import derive_rows, write_slice_labels
from mixsup_lib.experiments.runs import load_network, load_run, run
from mixsup_lib.files import DataError, SettingError


@pytest.fixture(scope="module")
def finished(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    return run(
        make_config(
            cohort=phantom, out=root / "runs", stores=root / "stores", n_fa=3, iterations=6, batch_norm_batches=2,
            progress=False, device="cpu",
        )
    )  # fmt: skip


def test_a_run_leaves_the_contracts_folder(finished):
    assert finished.parts[-7:-1] == ("phantom", "tiny", "whole_tumor", "3fa5wa", "fold1", "mixed")
    expected = {
        "config.json",
        "metrics.json",
        "per_patient.csv",
        "history.csv",
        "provenance.json",
        "examples.npz",
    }
    assert expected | {"weights.safetensors", "checkpoint.pt"} == {file.name for file in finished.iterdir()}


def test_metrics_echo_the_settings_used(finished):
    config, metrics = load_run(finished)
    assert metrics.config == json.loads((finished / "config.json").read_text())
    assert (config.iterations, config.n_fa, config.a) == (6, 3, 0.7)
    assert {name: len(ids) for name, ids in metrics.split.items()} == {
        "fully_annotated": 3,
        "weak": 5,
        "test": 2,
    }


def test_mean_and_median_are_those_of_the_patients(finished):
    _, metrics = load_run(finished)
    dice = pd.read_csv(finished / "per_patient.csv")["dice"]
    assert metrics.mean_dice["whole_tumor"] == pytest.approx(dice.mean())
    assert metrics.median_dice["whole_tumor"] == pytest.approx(dice.median())


def test_history_has_a_row_per_iteration(finished):
    history = pd.read_csv(finished / "history.csv")
    assert history["iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history["learning_rate"].is_monotonic_decreasing


def test_a_finished_run_is_never_overwritten(finished):
    before = {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    config, _ = load_run(finished)
    assert run(config) == finished
    assert {file.name: file.stat().st_mtime_ns for file in finished.iterdir()} == before


def test_a_second_process_on_the_same_run_is_told(run_settings):
    config = make_config(**run_settings)
    folder = run(make_config(**{**run_settings, "iterations": 2}))
    other = folder.with_name(f"seed0-{config.settings_hash()}")
    with (
        FileLock(other.with_name(other.name + ".lock")),
        pytest.raises(DataError, match="another process works on"),
    ):
        run(config)


def test_the_trained_network_can_be_loaded(finished):
    network = load_network(finished, 4, (48, 48))
    assert not network.training and len(network.branches) == 1


def test_examples_are_slices_with_truth_and_prediction(finished):
    with np.load(finished / "examples.npz", allow_pickle=False) as examples:
        assert (
            examples["image"].shape == examples["truth"].shape == examples["prediction"].shape == (2, 48, 48)
        )
        assert (examples["truth"].reshape(2, -1).sum(axis=1) > 0).all()


def test_a_run_without_its_record_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="not the record of a finished run"):
        load_run(tmp_path)


def test_location_settings_do_not_change_the_hash_and_others_do(run_settings):
    base = make_config(**run_settings)
    for same in ({"fold": 2}, {"seed": 5}, {"device": "auto"}, {"progress": True}):
        assert make_config(**{**run_settings, **same}).settings_hash() == base.settings_hash()
    for other in ({"a": 0.5}, {"iterations": 9}, {"k": 5}, {"threads": 2}, {"pixel_mm": 4.0}):
        assert make_config(**{**run_settings, **other}).settings_hash() != base.settings_hash()


def test_a_setting_that_is_not_used_renames_no_folder(run_settings, tmp_path, monkeypatch):
    config = make_config(**run_settings)
    without = {name: value for name, value in config.settings().items() if value is not None}
    monkeypatch.setattr(RunConfig, "settings", lambda self: without)
    assert make_config(**run_settings).settings_hash() == config.settings_hash()
    monkeypatch.undo()
    assert make_config(**run_settings, split_lists=tmp_path).settings_hash() != config.settings_hash()


def test_weak_patients_need_no_mask(phantom, run_settings, tmp_path):
    """A cohort of one's own: masks of a few patients, slice_labels.csv for the others."""
    copy = tmp_path / "own"
    shutil.copytree(phantom, copy)
    patients = find_cohort(copy).patients
    rows = [derive_rows(patient.id, patient.read_labels(), ("whole_tumor",)) for patient in patients]
    write_slice_labels(copy, pd.concat(rows))
    for patient in patients[::3]:
        patient.mask_files[0].unlink()
    folder = run(make_config(**{**run_settings, "cohort": copy, "iterations": 2, "fold": 2, "n_fa": 2}))
    split = load_run(folder)[1].split
    maskless = {patient.id for patient in patients[::3]}
    assert maskless <= set(split["weak"]) and len(maskless) == 4


def test_a_patient_with_neither_mask_nor_labels_is_named(phantom, run_settings, tmp_path):
    copy = tmp_path / "own"
    shutil.copytree(phantom, copy)
    patient = find_cohort(copy).patients[4]
    patient.mask_files[0].unlink()
    with pytest.raises(DataError, match=patient.id):
        run(make_config(**{**run_settings, "cohort": copy, "iterations": 1}))


def test_an_unknown_setting_names_the_nearest_known_one():
    with pytest.raises(SettingError, match=r"Unknown setting 'iteratons'.*Did you mean 'iterations'\?"):
        make_config(cohort="x", iteratons=5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fold": 6}, "fold is 6"),
        ({"n_fa": 0}, "'n_fa': found 0"),
        ({"task": "tumour"}, "'task': found 'tumour'"),
        ({"n_fa": 2.5}, "'n_fa': found 2.5"),
        ({"supervision": "standard", "n": 4}, "standard supervision sees no weak images"),
        ({"task": "multiclass", "k": 2}, "multiclass needs k >= 3"),
        ({"target_weights": (0.5, 0.3, 0.2)}, "target_weights needs 2 values"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(wrong, message):
    with pytest.raises(SettingError, match=message) as caught:
        make_config(cohort="x", **wrong)
    assert "\n" not in str(caught.value)


def test_the_papers_settings_are_the_defaults_of_the_method():
    binary, multi = (make_config(cohort="x", preset="paper", task=t) for t in ("whole_tumor", "multiclass"))
    assert (binary.k, binary.m, binary.n, binary.a, binary.target_weights) == (4, 2, 4, 0.7, (0.7, 0.3))
    assert (multi.a, multi.target_weights, multi.n_maps, multi.n_branches) == (
        0.3,
        (0.7, 0.1, 0.1, 0.1),
        4,
        3,
    )
    standard = make_config(cohort="x", preset="paper", supervision="standard")
    assert (standard.k, standard.m, standard.n, standard.n_branches) == (4, 2, 0, 0)
    assert (binary.learning_rate, binary.momentum, binary.flip_fraction) == (0.25, 0.9, 0.3)


def test_settings_survive_json(run_settings):
    config = make_config(**run_settings)
    assert RunConfig(**json.loads(json.dumps(config.settings()))) == config


def test_notebook_parameters_become_the_configuration():
    before = {"get_ipython", "before"}
    namespace = {
        "get_ipython": 0,
        "before": before,
        "_i": 1,
        "cohort": "x",
        "n_fa": 3,
        "settings": {"a": 0.5, "n_fa": 4},
    }
    config = run_config(namespace, before)
    assert (config.n_fa, config.a) == (4, 0.5)


def test_a_mistyped_notebook_parameter_is_refused():
    with pytest.raises(SettingError, match=r"Unknown parameter 'supervison'.*Did you mean 'supervision'\?"):
        run_config({"cohort": "x", "supervison": "mixed"}, set())


def test_a_killed_process_resumes_to_bit_identical_weights(run_settings):
    """SIGKILL in the middle of training; the next start of the same command ends on the same weights."""
    settings = {**run_settings, "iterations": 150, "checkpoint_seconds": 0.05}
    whole = run(make_config(**{**settings, "out": run_settings["out"].with_name("whole")}))
    call = [sys.executable, "-m", "mixsup_lib", "run", "--set", *(f"{k}={v}" for k, v in settings.items())]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not list(run_settings["out"].rglob("checkpoint.pt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not list(run_settings["out"].rglob("metrics.json"))
    resumed = run(make_config(**settings))
    assert json.loads((resumed / "provenance.json").read_text())["resumed"]
    first, second = (load_file(folder / "weights.safetensors") for folder in (whole, resumed))
    assert all(first[name].equal(second[name]) for name in first)
    assert (resumed / "history.csv").read_text() == (whole / "history.csv").read_text()


def test_the_authors_lists_decide_who_is_annotated_weak_and_tested(run_settings, phantom, tmp_path):
    names = [patient.id for patient in find_cohort(phantom).patients]
    for name, ids in (("fully_annotated", names[:3]), ("weak", names[3:5]), ("test", names[5:7])):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"/server/HGG/{patient}" for patient in ids))
    _, metrics = load_run(run(make_config(**run_settings, split_lists=tmp_path)))
    assert metrics.split == {"fully_annotated": names[:3], "weak": names[3:5], "test": names[5:7]}
    with pytest.raises(SettingError, match="Setting 'n_fa': found 4"):
        run(make_config(**{**run_settings, "split_lists": tmp_path, "n_fa": 4}))
