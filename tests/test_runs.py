"""One run, one folder; its record, its notebook parameters and its settings."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from mixsup_lib.__main__ import main
from mixsup_lib.config import make_config, run_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import derive_rows, write_slice_labels
from mixsup_lib.experiments import runs
from mixsup_lib.experiments.runs import (
    collect,
    load_network,
    load_run,
    load_weights,
    make_trainer,
    open_store,
    read_history,
    read_per_patient,
    read_provenance,
    run,
    run_folder,
    split_of,
    weights_digest,
)
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.phantom import make_phantom
from mixsup_lib.slices import prepare


def test_a_run_leaves_the_contracts_folder_and_its_metrics_echo_the_settings(finished):
    assert finished.parts[-7:-1] == ("phantom", "tiny", "whole_tumor", "3fa5wa", "fold1", "mixed")
    records = {"config.json", "metrics.json", "per_patient.csv", "history.csv", "provenance.json"}
    arrays = {"examples.npz", "weights.safetensors", "checkpoint.pt"}
    assert {file.name for file in finished.iterdir()} == records | arrays
    config, metrics = load_run(finished)
    assert metrics.config == json.loads((finished / "config.json").read_text())
    assert (config.iterations, config.n_fa, config.a) == (6, 3, 0.7)
    sizes = {name: len(ids) for name, ids in metrics.split.items()}
    assert sizes == {"fully_annotated": 3, "weak": 5, "test": 2}
    dice = pd.read_csv(finished / "per_patient.csv")["dice"]
    assert metrics.mean_dice["whole_tumor"] == pytest.approx(dice.mean())
    assert metrics.median_dice["whole_tumor"] == pytest.approx(dice.median())
    history = pd.read_csv(finished / "history.csv")
    assert history["iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert history["learning_rate"].is_monotonic_decreasing
    network = load_network(finished, 4, (48, 48))
    assert not network.training and len(network.branches) == 1
    with np.load(finished / "examples.npz", allow_pickle=False) as examples:
        assert {examples[name].shape for name in ("image", "truth", "prediction")} == {(2, 48, 48)}
        assert (examples["truth"].reshape(2, -1).sum(axis=1) > 0).all()


def test_a_finished_run_is_never_overwritten(finished):
    before = {file.name: file.stat().st_mtime_ns for file in finished.iterdir()}
    config, _ = load_run(finished)
    assert run(config) == finished
    assert {file.name: file.stat().st_mtime_ns for file in finished.iterdir()} == before


def test_location_settings_do_not_change_the_hash_and_others_do(run_settings):
    base = make_config(**run_settings)
    for same in ({"fold": 2}, {"seed": 5}, {"device": "auto"}, {"progress": True}):
        assert make_config(**{**run_settings, **same}).settings_hash() == base.settings_hash()
    for other in ({"a": 0.5}, {"iterations": 9}, {"k": 5}, {"threads": 2}, {"pixel_mm": 4.0}):
        assert make_config(**{**run_settings, **other}).settings_hash() != base.settings_hash()


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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fold": 6}, "fold is 6"),
        ({"n_fa": 0}, "'n_fa': found 0"),
        ({"supervision": "standard", "n": 4}, "standard supervision sees no weak images"),
        ({"task": "multiclass", "k": 2}, "multiclass needs k >= 3"),
        ({"target_weights": (0.5, 0.3, 0.2)}, "target_weights needs 2 values"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(wrong, message):
    with pytest.raises(SettingError, match=message) as caught:
        make_config(cohort="x", **wrong)
    assert "\n" not in str(caught.value)


def test_notebook_parameters_become_the_configuration():
    before = {"get_ipython", "before"}
    given = {"cohort": "x", "n_fa": 3, "settings": {"a": 0.5, "n_fa": 4}}
    config = run_config({"get_ipython": 0, "before": before, "_i": 1, **given}, before)
    assert (config.n_fa, config.a) == (4, 0.5)


@pytest.mark.claim("F-20")
def test_the_authors_lists_decide_who_is_annotated_weak_and_tested(run_settings, phantom, tmp_path):
    names = [patient.id for patient in find_cohort(phantom).patients]
    for name, ids in (("fully_annotated", names[:3]), ("weak", names[3:5]), ("test", names[5:7])):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"/server/HGG/{patient}" for patient in ids))
    _, metrics = load_run(run(make_config(**run_settings, split_lists=tmp_path)))
    assert metrics.split == {"fully_annotated": names[:3], "weak": names[3:5], "test": names[5:7]}
    with pytest.raises(SettingError, match="Setting 'n_fa': found 4"):
        run(make_config(**{**run_settings, "split_lists": tmp_path, "n_fa": 4}))


def test_a_patient_called_nan_is_a_patient(copy):
    """pandas would take the name for a missing number."""
    metrics = json.loads((copy / "metrics.json").read_text())
    patient = metrics["split"]["test"][0]
    for name in ("metrics.json", "per_patient.csv"):
        (copy / name).write_text((copy / name).read_text().replace(patient, "nan"))
    assert "nan" in set(collect(copy)["patient"])


def test_a_run_without_test_patients_trains_on_every_mask_and_segments(tmp_path, capsys):
    """Five masks in all, as in the recipe of notebook 11: every one annotates."""
    make_phantom(tmp_path / "cohort", patients=8, voxel_mm=5, seed=0, workers=1)
    places = [f"cohort={tmp_path / 'cohort'}", f"out={tmp_path / 'runs'}", f"stores={tmp_path / 'stores'}"]
    rest = ["n_fa=5", "iterations=6", "batch_norm_batches=2", "progress=false"]
    prepare(tmp_path / "cohort", tmp_path / "labels", progress=False)
    shutil.copy(tmp_path / "labels" / "slice_labels.csv", tmp_path / "cohort")
    for patient in find_cohort(tmp_path / "cohort").patients[5:]:
        patient.mask_files[0].unlink()
    assert main(["run", "--set", *places, *rest]) == 2
    assert "or test nobody (test=none)" in capsys.readouterr().err
    assert main(["run", "--set", *places, *rest, "test=none"]) == 0
    *_, words, folder = capsys.readouterr().out.splitlines()
    assert words == "no test patients (test=none), so no Dice"
    _, metrics = load_run(folder)
    assert [len(metrics.split[name]) for name in ("fully_annotated", "weak", "test")] == [5, 3, 0]
    assert read_per_patient(folder).empty and len(read_history(folder)) == 6 and metrics.mean_dice == {}
    with pytest.raises(DataError, match="has no test patients .* no Dice to compare"):
        collect(folder)
    patient = find_cohort(tmp_path / "cohort").patients[7].image_files[0].parent
    assert main(["segment", folder, str(patient), str(tmp_path / "mask.nii.gz")]) == 0


def test_a_mixed_run_starts_from_the_weights_of_a_standard_one(run_settings):
    first = run(make_config(**run_settings, supervision="standard"))
    config = make_config(**run_settings, initial_weights=first)
    assert config.settings_hash() != make_config(**run_settings).settings_hash()
    cohort = find_cohort(config.cohort)
    store, split = open_store(config, cohort), split_of(config, cohort)
    started = make_trainer(config, store, split, "cpu", "float32").network.state_dict()
    usual = make_trainer(make_config(**run_settings), store, split, "cpu", "float32").network.state_dict()
    trained = load_weights(first)
    for name, tensor in started.items():
        expected = usual if name.startswith("branches.") else trained
        assert torch.equal(tensor, expected[name]), name
    second = run(config)
    assert read_provenance(second)["initial_weights"] == weights_digest(first)
    with pytest.raises(DataError, match=r"its network does not fit, as layer unet.* shows: width 4 \(here 6\)"):
        run(make_config(**{**run_settings, "width": 6}, initial_weights=first))
    with pytest.raises(SettingError, match="was trained on .* patients that this run tests"):
        run(make_config(**{**run_settings, "fold": 2}, initial_weights=first))
    record = json.loads((second / "metrics.json").read_text())
    record["split"] |= {"fully_annotated": [], "weak": []}  # as if it had seen nobody itself
    (second / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(SettingError, match=f"{re.escape(str(first))} was trained on .* patients that this run tests"):
        run(make_config(**{**run_settings, "fold": 2}, initial_weights=second))
    shutil.rmtree(first)
    with pytest.raises(DataError, match=r"metrics.json: not the record of a finished run"):
        run(make_config(**{**run_settings, "seed": 1}, initial_weights=second))
    with pytest.raises(DataError, match="not the record of a finished run"):
        run(make_config(**run_settings, initial_weights=first.parent))


def test_the_history_can_be_watched_while_a_run_trains(run_settings, monkeypatch):
    clock, seen = iter(range(0, 10_000, 3)), []
    monkeypatch.setattr(runs.time, "monotonic", lambda: next(clock))
    config = make_config(**{**run_settings, "iterations": 4})
    split = split_of(config, find_cohort(config.cohort))
    partial = run_folder(config, split).with_name(f"{run_folder(config, split).name}.partial")
    done = run(config, lambda *_: seen.append((partial / "history.csv").read_text()))
    final = (done / "history.csv").read_text()
    assert [text.count("\n") for text in seen] == [2, 3, 4, 5] and all(final.startswith(text) for text in seen)
