"""A finished run says enough to be repeated; the comparison names what differs and excuses nothing unexplained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.rerun import TOLERANCE, compare_runs, rerun
from mixsup_lib.experiments.runs import load_run
from mixsup_lib.files import DataError


@pytest.fixture
def pair(finished, tmp_path):
    """Two copies of the run, of code without changes of its own; a test may change the second."""
    copies = [tmp_path / name / finished.name for name in ("first", "second")]
    for copy in copies:
        shutil.copytree(finished, copy)
        change(copy, "provenance.json", lambda record: record.update(commit="0123456789ab"))
    return copies


def change(folder, name, function):
    content = json.loads((folder / name).read_text())
    function(content)
    (folder / name).write_text(json.dumps(content))


def move_dice(folder, points):
    """As if the repetition had come out `points` better."""
    change(folder, "metrics.json", lambda m: m["mean_dice"].update(whole_tumor=m["mean_dice"]["whole_tumor"] + points))


def test_the_record_names_everything_a_repetition_depends_on(finished):
    record = json.loads((finished / "provenance.json").read_text())
    names = ("commit", "packages", "cpu", "cpu_instructions", "device", "precision", "threads", "platform")
    assert [name for name in names if not record[name]] == []
    assert len(record["data_fingerprint"]) == len(record["labels_fingerprint"]) == 16
    assert {"torch", "numpy", "scipy"} <= record["packages"].keys()


def test_a_run_and_its_copy_are_bit_identical(pair):
    comparison = compare_runs(*pair)
    assert not comparison.differ and comparison.agrees and comparison.largest == 0
    assert comparison.table["largest of a patient"].tolist() == [0.0]


@pytest.mark.parametrize("cpu", ["another model", None])
def test_one_bit_of_a_weight_is_seen_and_only_another_machine_excuses_it(pair, cpu):
    _, copy = pair
    weights = load_file(copy / "weights.safetensors")
    first = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[first].view(-1)[0] *= 1 + 2**-23
    save_file(weights, copy / "weights.safetensors")
    if cpu:
        change(copy, "provenance.json", lambda record: record.update(cpu=cpu))
    comparison = compare_runs(*pair)
    assert comparison.differ == ("weights",) and comparison.agrees is bool(cpu)
    if cpu:
        assert any(line.startswith("cpu: ") and line.endswith(f", now {cpu}") for line in comparison.machine)
        verdict = "weights differ; mean Dice by up to 0.00 points, within the tolerance of 5"
        assert verdict in comparison.verdict()
    else:
        assert "nothing in provenance.json explains it" in comparison.verdict()


@pytest.mark.parametrize(("points", "agrees"), [(TOLERANCE - 0.1, True), (TOLERANCE + 0.1, False)])
def test_the_tolerance_holds_for_the_mean_of_a_region(pair, points, agrees):
    _, copy = pair
    move_dice(copy, points)
    change(copy, "provenance.json", lambda record: record["packages"].update(torch="9.9"))
    comparison = compare_runs(*pair)
    assert comparison.agrees is agrees and comparison.largest == pytest.approx(points)
    assert any("packages: torch: " in line for line in comparison.machine)
    assert ("within" if agrees else "beyond") in comparison.verdict()


def test_without_a_difference_in_provenance_nothing_is_tolerated(pair):
    _, copy = pair
    move_dice(copy, 0.01)
    change(copy, "provenance.json", lambda record: record.update(commit=None))  # not recorded: no excuse
    comparison = compare_runs(*pair)
    assert comparison.machine == () and not comparison.agrees
    assert "nothing in provenance.json explains it" in comparison.verdict()


def test_other_data_are_no_repetition_whatever_the_machine(pair):
    _, copy = pair
    move_dice(copy, 0.01)
    change(copy, "provenance.json", lambda record: record.update(cpu="x", data_fingerprint="0" * 16))
    comparison = compare_runs(*pair)
    assert not comparison.agrees and "so do the data" in comparison.verdict()


def test_it_runs_in_the_recorded_precision_and_says_first_that_the_data_differ(copy, tmp_path):
    """Labels of a weak patient changed after the run: said before the training, and the result is no repetition."""
    record = json.loads((copy / "provenance.json").read_text())
    change(copy, "provenance.json", lambda content: content.update(precision="bfloat16"))
    config, metrics = load_run(copy)
    cohort = shutil.copytree(config.cohort, tmp_path / "phantom")
    weak = metrics.split["weak"][0]
    labels = pd.read_csv(next(Path(config.stores).rglob("slice_labels.csv")))
    added = pd.DataFrame({"patient": [weak], "class": "oedema", "first_z": 10, "last_z": 12})
    pd.concat([labels[labels["patient"] != weak], added]).to_csv(cohort / "slice_labels.csv", index=False)
    said = []
    comparison = rerun(copy, tmp_path / "again", cohort=cohort, say=said.append)
    assert len(said) == 1 and "labels_fingerprint" in said[0]
    again = json.loads((comparison.folder / "provenance.json").read_text())
    assert again["precision"] == "bfloat16" and again["data_fingerprint"] == record["data_fingerprint"]
    assert not comparison.agrees and "so do the data" in comparison.verdict()
    assert find_cohort(cohort)[weak].mask_files  # its mask was there all the time, and had no part in it


def test_a_cohort_that_was_moved_is_asked_for(copy, tmp_path):
    change(copy, "metrics.json", lambda content: content["config"].update(cohort=str(tmp_path / "gone")))
    with pytest.raises(DataError, match=r"gone: the cohort of .* is not there; name its folder with --cohort"):
        rerun(copy, tmp_path / "again")
