"""The main job at the smallest size: both arms through papermill, a table, a report, and nothing done twice."""

from __future__ import annotations

import json

import pytest
from no_network import guarded

from mixsup_lib.experiments.compare import compare
from mixsup_lib.files import DataError, SettingError


@pytest.fixture(scope="module")
def finished(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("main_job")
    settings = {"iterations": 5, "batch_norm_batches": 2}
    call = {"out": root / "runs", "stores": root / "stores", "preset": "tiny", "n_fa": 3, "folds": [1]}
    with pytest.MonkeyPatch.context() as patch:  # papermill, its kernels and nbconvert inherit it
        patch.setenv("PYTHONPATH", guarded(root)["PYTHONPATH"])
        report = compare(phantom, **call, jobs=2, settings=settings)
    return report, root, call | {"settings": settings}


def test_it_reaches_for_no_network(finished):
    _, root, _ = finished
    attempts = root / "attempts.txt"
    assert not attempts.exists(), attempts.read_text()


def test_it_ends_on_a_report_with_pictures(finished):
    report, *_ = finished
    page = report.read_text(encoding="utf-8")
    assert report.suffix == ".html" and page.count("<img alt=") == 5
    assert "3 FA + 5 WA" in page and "Traceback (most recent" not in page


def test_pictures_of_the_report_have_alt_texts(finished):
    page = finished[0].read_text(encoding="utf-8")
    assert "Mean Dice by fold" in page and 'alt="No description' not in page


def test_each_arm_left_its_run_folder_with_the_executed_notebook(finished):
    _, root, _ = finished
    folders = [path.parent for path in (root / "runs").rglob("metrics.json")]
    assert {folder.parent.name for folder in folders} == {"standard", "mixed"}
    assert all((folder / "run.ipynb").exists() for folder in folders)
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
    assert {config["iterations"] for config in configs} == {5}


def test_a_second_call_reuses_what_is_done(finished, phantom, capsys):
    report, root, call = finished
    before = {path: path.stat().st_mtime_ns for path in (root / "runs").rglob("metrics.json")}
    assert compare(phantom, **call) == report
    assert {path: path.stat().st_mtime_ns for path in (root / "runs").rglob("metrics.json")} == before
    printed = capsys.readouterr().out
    assert "| standard | mixed |" in printed and str(report) in printed


def test_a_run_that_fails_is_named_with_its_notebook(phantom, tmp_path):
    call = {
        "out": tmp_path / "runs",
        "stores": tmp_path / "stores",
        "preset": "tiny",
        "n_fa": 3,
        "folds": [1],
    }
    with pytest.raises(DataError, match=r"Run 'mixed, fold 1, seed 0' stopped: .*\.ipynb"):
        compare(phantom, **call, jobs=1, settings={"iterations": 2, "learning_rate": 1e30})


def test_what_the_comparison_chooses_cannot_be_set(phantom):
    with pytest.raises(SettingError, match="'fold' is chosen by the comparison"):
        compare(phantom, settings={"fold": 2})
