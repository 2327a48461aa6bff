"""The command line: what each command does, its exit code, and one sentence where something is wrong."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from mixsup_lib.__main__ import main
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import load_run, run


@pytest.fixture(scope="module")
def finished(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    settings = {
        "cohort": phantom,
        "out": root / "runs",
        "stores": root / "stores",
        "device": "cpu",
        "n_fa": 3,
    }
    return run(
        make_config(**settings, iterations=30, batch_norm_batches=5, precision="float32", progress=False)
    )


def test_run_takes_a_file_and_settings(phantom, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(f"cohort: {phantom}\nout: {tmp_path / 'runs'}\nstores: {tmp_path / 'stores'}\nn_fa: 3\n")
    call = [
        "run",
        "--config",
        str(file),
        "--set",
        "iterations=2",
        "batch_norm_batches=1",
        "supervision=standard",
    ]
    assert main([*call, "progress=false"]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    config, _ = load_run(folder)
    assert (config.iterations, config.supervision, config.n_fa) == (2, "standard", 3)


def test_a_mistyped_setting_exits_2_with_one_sentence(capsys):
    assert main(["run", "--set", "cohort=x", "iteratons=2"]) == 2
    error = capsys.readouterr().err
    assert "Did you mean 'iterations'?" in error and len(error.splitlines()) == 1


def test_a_cohort_that_is_not_there_exits_with_one_sentence(tmp_path, capsys):
    assert main(["run", "--set", f"cohort={tmp_path / 'nothing'}"]) in (1, 2)
    error = capsys.readouterr().err
    assert "nothing" in error and "Traceback" not in error


@pytest.mark.parametrize("content", ["a: [1", "- 1", "\x00"])
def test_a_settings_file_that_is_none_exits_2(tmp_path, capsys, content):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    assert main(["run", "--config", str(file)]) == 2
    assert "run.yaml" in capsys.readouterr().err


def test_yaml_cannot_execute_code(tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text(f"cohort: !!python/object/apply:os.system ['touch {tmp_path / 'owned'}']\n")
    assert main(["run", "--config", str(file)]) == 2
    assert not (tmp_path / "owned").exists()


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
    assert int((np.asarray(mask.dataobj) > 0).sum()) == table.loc[patient.id, "predicted_voxels"]


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
