"""The command line: what each command does, its exit code, and one sentence where something is wrong."""

from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from cohorts import change, write_cohort

from mixsup_lib.__main__ import main, parser
from mixsup_lib.config import RunConfig
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import load_run


def test_run_takes_a_file_and_settings(phantom, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(f"cohort: {phantom}\nout: {tmp_path / 'runs'}\nstores: {tmp_path / 'stores'}\nn_fa: 3\n")
    pairs = ["iterations=2", "batch_norm_batches=1", "supervision=standard", "progress=false"]
    assert main(["run", "--config", str(file), "--set", *pairs]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    config, _ = load_run(folder)
    assert (config.iterations, config.supervision, config.n_fa) == (2, "standard", 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["run", "--set", "cohort=x", "iteratons=2"], "Did you mean 'iterations'?"),
        (["run", "--set", "cohort=nothing"], "nothing"),
        (["run", "--config", "run.yaml"], "run.yaml"),
    ],
)
def test_a_fault_is_one_sentence_and_exits_2(call, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("a: [1")
    assert main(call) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


def test_prepare_says_what_it_made(phantom, tmp_path, capsys):
    assert main(["prepare", str(phantom), str(tmp_path / "store"), "--window", "40", "32"]) == 0
    assert "10 patients, (310, 4, 40, 32)" in capsys.readouterr().out


def test_check_data_on_a_sound_cohort_exits_0(phantom):
    assert main(["check-data", str(phantom)]) == 0


def test_segment_writes_a_mask_on_the_cases_grid(finished, phantom, tmp_path):
    patient = find_cohort(phantom)[load_run(finished)[1].split["test"][0]]
    output = tmp_path / "mask.nii.gz"
    assert main(["segment", str(finished), str(patient.image_files[0].parent), str(output)]) == 0
    mask, scan = nib.load(output), nib.load(patient.image_files[0])
    assert mask.shape == scan.shape and np.allclose(mask.affine, scan.affine)
    table = pd.read_csv(finished / "per_patient.csv").set_index("patient")
    assert int((np.asarray(mask.dataobj) > 0).sum()) == table.loc[patient.id, "predicted_voxels"] > 0


def test_segment_writes_probabilities_and_the_scores_of_slices(finished, phantom, tmp_path):
    patient = find_cohort(phantom).patients[0].image_files[0].parent
    assert main(["segment", str(finished), str(patient), str(tmp_path / "m.nii"), "--probabilities"]) == 0
    mask, probability = (nib.load(tmp_path / name) for name in ("m.nii", "m_probability.nii.gz"))
    values = probability.get_fdata()
    assert probability.get_data_dtype() == np.float32 and np.array_equal(probability.affine, mask.affine)
    np.testing.assert_array_equal(values > 0.5, mask.get_fdata() > 0)
    scores = pd.read_csv(tmp_path / "m_slices.csv")
    assert list(scores) == ["z", "whole_tumor"] and len(scores) == mask.shape[2]
    assert scores["whole_tumor"].between(0, 1).all()


SHORT = ["pixel_mm=1", "window=[32,32]", "width=2", "iterations=1", "batch_norm_batches=1", "progress=false"]
LEGENDS = {
    "brats2018": "1 non_enhancing, 2 oedema, 4 enhancing",
    "brats2023": "1 non_enhancing, 2 oedema, 3 enhancing",
    "decathlon": "2 non-enhancing tumor, 1 edema, 3 enhancing tumour",
    "nnunet_v2": "2 non_enhancing, 1 oedema, 3 enhancing",
}


@pytest.mark.parametrize("layout", LEGENDS)
def test_a_mask_has_the_label_values_of_the_patients_cohort(tmp_path, layout, capsys):
    truths = write_cohort(tmp_path / "cohort", layout, patients=6, shape=(32, 32, 24))
    settings = ["task=multiclass", "n_fa=3", "supervision=standard", *SHORT]
    places = [f"{name}={tmp_path / name}" for name in ("cohort", "out", "stores")]
    assert main(["run", "--set", *places, *settings]) == 0
    run = capsys.readouterr().out.splitlines()[-1]
    assert main(["segment", run, str(tmp_path / "cohort"), str(tmp_path / "masks")]) == 0
    assert capsys.readouterr().out.endswith(f"masks of 6 of 6 patients (values: {LEGENDS[layout]})\n")
    for name in truths:
        values = np.unique(nib.load(tmp_path / "masks" / f"{name}.nii.gz").get_fdata())
        assert set(values) <= {0, *(int(part.split()[0]) for part in LEGENDS[layout].split(", "))}
    if layout == "decathlon":
        image, mask = tmp_path / "cohort" / "imagesTr" / f"{name}.nii.gz", tmp_path / "one.nii.gz"
        assert main(["segment", run, str(image), str(mask)]) == 0
        assert mask.read_bytes() == (tmp_path / "masks" / f"{name}.nii.gz").read_bytes()
        shutil.copy(image, tmp_path / "lost.nii.gz")
        assert main(["segment", run, str(tmp_path / "lost.nii.gz"), str(mask)]) == 1
        assert "lost.nii.gz: holds no patient's files; expected" in capsys.readouterr().err
    legend = json.loads((tmp_path / "masks" / f"{name}.json").read_text())
    assert ", ".join(f"{value} {meaning}" for value, meaning in legend["labels"].items()) == LEGENDS[layout]
    assert legend["run"].endswith(run.split("/")[-1])


def test_masks_of_another_run_are_not_taken_for_this_runs(finished, phantom, tmp_path, capsys):
    patient = find_cohort(phantom).patients[0]
    shutil.copytree(patient.image_files[0].parent, tmp_path / "cohort" / patient.id)
    shutil.copytree(finished, tmp_path / "other" / finished.name)
    for run, code in ((finished, 0), (finished, 0), (tmp_path / "other" / finished.name, 1)):
        assert main(["segment", str(run), str(tmp_path / "cohort"), str(tmp_path / "masks")]) == code
    assert "is a mask of phantom/tiny/" in capsys.readouterr().err


def test_segment_refuses_sequences_and_intensities_the_run_was_not_trained_on(finished, phantom, tmp_path, capsys):
    patient = find_cohort(phantom).patients[0]
    shutil.copytree(patient.image_files[0].parent, tmp_path / patient.id)
    call = ["segment", str(finished), str(tmp_path / patient.id), str(tmp_path / "mask.nii")]
    (tmp_path / "cohort.yaml").write_text("sequences: {T1: _t1, FLAIR: _flair, T1c: _t1ce, T2: _t2}")
    assert main(call) == 1
    assert (
        "has the sequences T1, FLAIR, T1c, T2, but the run was trained on FLAIR, T1, T1c, T2" in capsys.readouterr().err
    )
    (tmp_path / "cohort.yaml").write_text("intensities: as is\nrange: [0, 500]")
    assert main(call) == 1
    assert "its intensity range is [0.0, 500.0], but that of the run's patients was None" in capsys.readouterr().err


def test_masks_of_one_value_serve_no_other_task_until_the_user_says_what_it_means(tmp_path, capsys):
    write_cohort(tmp_path / "cohort", "brats2021", patients=6, shape=(32, 32, 24))
    for patient in find_cohort(tmp_path / "cohort").patients:
        change(patient.mask_files[0], lambda mask: (mask > 0).astype(np.uint8))
    assert main(["check-data", str(tmp_path / "cohort")]) == 1
    assert "all masks hold the single value 1. Only whole_tumor" in capsys.readouterr().out
    places = [f"{name}={tmp_path / name}" for name in ("cohort", "out", "stores")]
    call = ["run", "--set", *places, "n_fa=3", *SHORT]
    assert main([*call, "task=whole_tumor"]) == 0
    assert main([*call, "task=tumor_core"]) == 2
    assert "hold the single value 1, which may mean the whole tumour" in capsys.readouterr().err
    (tmp_path / "cohort" / "cohort.yaml").write_text(
        "labels: {1: non_enhancing}\nregions: {whole_tumor: 1, tumor_core: 1}"
    )
    assert main([*call, "task=tumor_core"]) == 0
    assert main([*call, "task=enhancing_core"]) == 2
    assert "'task': found 'enhancing_core', but" in capsys.readouterr().err


def test_more_threads_than_cores_are_refused(phantom, tmp_path, capsys):
    settings = [f"cohort={phantom}", "n_fa=3", "threads=1000", f"out={tmp_path}", f"stores={tmp_path}"]
    assert main(["run", "--set", *settings]) == 2
    assert "'threads': found 1000, expected at most" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["mask", "mask.nrrd", "."])
def test_segment_looks_at_the_output_before_it_works(finished, phantom, output, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    patient = find_cohort(phantom).patients[0].image_files[0].parent
    assert main(["segment", str(finished), str(patient), output]) == 2
    assert f"{output}: expected the name of a file to write, ending in .nii.gz" in capsys.readouterr().err


def test_segment_takes_a_whole_cohort_and_names_who_failed(finished, phantom, tmp_path, capsys):
    cohort, masks = tmp_path / "cohort", tmp_path / "masks"
    first, second, *_ = find_cohort(phantom).patients
    for patient in (first, second):
        folder = patient.image_files[0].parent
        shutil.copytree(folder, cohort / folder.relative_to(phantom))
    find_cohort(cohort)[second.id].image_files[0].unlink()
    assert main(["segment", str(finished), str(cohort), str(masks)]) == 1
    printed = capsys.readouterr()
    assert f"{second.id} was not segmented" in printed.err and "sequence FLAIR is missing" in printed.err
    assert f"{masks}: masks of 1 of 2 patients" in printed.out
    assert sorted(path.name for path in masks.iterdir()) == [f"{first.id}.json", f"{first.id}.nii.gz"]
    kept = (masks / f"{first.id}.nii.gz").stat().st_mtime_ns
    shutil.copy(second.image_files[0], cohort / second.image_files[0].relative_to(phantom))
    assert main(["segment", str(finished), str(cohort), str(masks)]) == 0
    assert (masks / f"{first.id}.nii.gz").stat().st_mtime_ns == kept and len(list(masks.glob("*.nii.gz"))) == 2
    assert main(["segment", str(finished), str(cohort), str(tmp_path / "one.nii.gz")]) == 2


def test_segment_refuses_two_patients_of_one_name(finished, phantom, tmp_path, capsys):
    cohort = tmp_path / "cohort"
    folder = find_cohort(phantom).patients[0].image_files[0].parent
    for grade in ("HGG", "LGG"):
        shutil.copytree(folder, cohort / grade / folder.name)
    assert main(["segment", str(finished), str(cohort), str(tmp_path / "masks.v2")]) == 1
    assert f"the patient ID {folder.name} occurs 2 times" in capsys.readouterr().err
    assert not (tmp_path / "masks.v2").exists()


def test_rerun_repeats_a_run_bit_for_bit_elsewhere_and_only_once(finished, tmp_path, capsys):
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished.iterdir()}
    call = ["rerun", str(finished), "--out", str(tmp_path / "again")]
    assert main(call) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "bit-identical: weights, per_patient.csv and metrics"
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished.iterdir()} == before
    assert main(call) == 1 and "has been repeated before" in capsys.readouterr().err
    own = load_run(finished)[0].out
    assert main(["rerun", str(finished), "--out", str(own)]) == 2
    assert "holds the run itself" in capsys.readouterr().err


def test_every_setting_is_listed_with_its_meaning(capsys):
    assert main(["run", "--settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(RunConfig.model_fields)
    assert any(line.startswith("a ") and "segmentation loss" in line for line in lines)
    for name, said in (
        ("cohort", "(default: must be given)"),
        ("task", "(default: whole_tumor; one of whole_tumor, tumor_core, enhancing_core, multiclass)"),
        ("width", "(default: tiny 4, workshop 16, paper 64; >= 1)"),
        ("momentum", "(default: 0.9; >= 0 and < 1)"),
        ("test", "(default: None; one of none)"),
    ):
        assert next(line for line in lines if line.startswith(f"{name} ")).endswith(said)


def test_every_option_says_what_it_does_and_its_default():
    (commands,) = (action for action in parser()._actions if action.dest == "command")
    for name, command in commands.choices.items():
        assert command.description
        for action in command._actions[1:]:
            assert action.help, (name, action.dest)
            if action.option_strings and action.nargs != 0:
                assert "(default: " in action.help, (name, action.dest)
            if action.default not in (None, False, []):
                assert "%(default)s" in action.help, (name, action.dest)
