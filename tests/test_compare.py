"""`compare`: every run through papermill, to a table and a report; nothing twice, and a fault stops nothing else."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
import yaml
from no_network import guarded

from mixsup_lib.__main__ import main
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments import compare as module
from mixsup_lib.experiments.compare import compare, places, run_command, run_here
from mixsup_lib.experiments.experiment import cells_of, read_experiment
from mixsup_lib.experiments.runs import run
from mixsup_lib.files import DataError

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"preset": "tiny", "n_fa": 3, "iterations": 4, "batch_norm_batches": 2, "progress": False}
VARIANTS = {"standard": {"supervision": "standard"}, "mixed": {}, "third": {"a": 0.5}}


def write_experiment(folder: Path, **changes) -> Path:
    content = {"name": "short", "compare": "first", "settings": SETTINGS, "folds": [1], "variants": VARIANTS}
    (folder / "short.yaml").write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return folder / "short.yaml"


def cells_in(folder: Path, cohort: Path, **changes):
    experiment = read_experiment(write_experiment(folder, **changes))
    return cells_of(experiment, find_cohort(cohort), folder / "runs", folder / "stores")[0]


def in_this_process(cells, cohort, jobs) -> None:
    for cell in cells:
        run(cell.config)


def dates(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("seed*/*") if path.is_file()}


# The main job


@pytest.fixture(scope="module")
def main_job(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("main")
    call = {"out": root / "runs", "stores": root / "stores", "folds": [1], "settings": SETTINGS}
    with pytest.MonkeyPatch.context() as patch:  # papermill, its kernels and nbconvert inherit it
        patch.setenv("PYTHONPATH", guarded(root)["PYTHONPATH"])
        report = compare(None, phantom, **call, jobs=2)
    return report, root, call


def test_it_leaves_a_report_and_run_folders_and_reaches_for_no_network(main_job):
    report, root, _ = main_job
    attempts = root / "attempts.txt"
    assert not attempts.exists(), attempts.read_text()
    page = report.read_text(encoding="utf-8")
    assert report == root / "runs/phantom/report.html" and page.count("<img alt=") == 5
    assert "3 FA + 5 WA" in page and "Traceback (most recent" not in page
    assert "Mean Dice by fold" in page and 'alt="No description' not in page
    folders = [path.parent for path in (root / "runs").rglob("metrics.json")]
    assert {folder.parent.name for folder in folders} == {"standard", "mixed"}
    for folder in folders:
        book = nbformat.read(folder / "run.ipynb", as_version=4)
        assert any(cell.get("execution_count") for cell in book.cells)
        assert json.loads((folder / "config.json").read_text())["iterations"] == 4
    assert not list((root / "runs").rglob("*.log"))


def test_a_second_call_reuses_what_is_done(main_job, phantom, capsys):
    report, root, call = main_job
    before = dates(root / "runs")
    assert compare(None, phantom, **call) == report
    assert dates(root / "runs") == before
    printed = capsys.readouterr().out
    assert "2 runs, 2 finished, 0 to run" in printed and str(report) in printed
    table = pd.read_csv(root / "runs/phantom/table.csv")
    assert {"standard", "mixed", "difference"} <= set(table)
    first = (root / "runs/phantom/table.md").read_text().splitlines()[0]
    assert first in printed and "One fold only" in printed
    papers = pd.read_csv(root / "runs/phantom/tables/table1.csv").set_index("scenario")
    assert papers.loc["standard, 3 FA", "whole tumour"] > 0
    assert papers.loc["mixed, 30 FA", "paper: whole tumour"] == 83.84


# An experiment of one's own


def test_an_experiment_leaves_its_table_and_picture_beside_its_runs(phantom, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    variants = {**VARIANTS, "too many": {"n_fa": 9}}
    call = {"execute": in_this_process, "settings": {"device": "cpu"}}
    picture = compare(write_experiment(tmp_path, variants=variants), phantom, **call)
    printed = capsys.readouterr().out
    assert picture == Path("runs/short-phantom/whole_tumor.png") and picture.stat().st_size > 1000
    assert "left out, 1 of 4 variants" in printed and "third" in printed
    table = pd.read_csv("runs/short-phantom/table.csv")
    assert list(table["variant"]) == list(VARIANTS) and list(table["against"])[1:] == ["standard"] * 2
    assert {path.name for path in tmp_path.iterdir()} == {"short.yaml", "runs", "data"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["stores"]

    wider = {**VARIANTS, "all weight on pixels": {"a": 1.0}}
    asked = []
    with pytest.raises(DataError, match=r"1 of 4 runs failed \(all weight on pixels, fold 1, seed 0\)"):
        compare(
            write_experiment(tmp_path, variants=wider),
            phantom,
            settings={"device": "cpu"},
            execute=lambda cells, cohort, jobs: asked.extend(cell.name for cell in cells),
        )
    assert asked == ["all weight on pixels, fold 1, seed 0"]
    assert "no table yet: no finished run of variant 'all weight on pixels'" in capsys.readouterr().out


def test_a_dry_run_shows_what_is_missing_and_writes_nothing(phantom, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compare(write_experiment(tmp_path), phantom, folds=[2], seeds=[0, 1], dry_run=True) is None
    printed = capsys.readouterr().out
    assert "6 runs, 0 finished, 6 to run" in printed and "third, fold 2, seed 1" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"short.yaml"}


def test_interrupted_in_the_middle_it_ends_its_children_and_keeps_what_is_finished(phantom, tmp_path):
    out = tmp_path / "runs/short-phantom"
    write_experiment(tmp_path, settings={**SETTINGS, "device": "cpu"})
    command = [sys.executable, "-m", "mixsup_lib", "compare", "short.yaml", "--data", phantom, "--jobs", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, **pipes)
    until = time.monotonic() + 120
    while not (any(out.rglob("run.ipynb")) and (children := psutil.Process(process.pid).children(recursive=True))):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "start the same command again to continue" in errors.splitlines()[-1]
    assert "Traceback" not in printed + errors
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert len([path for path in out.rglob("run.ipynb") if path.parent.suffix != ".partial"]) == 1


def test_a_run_that_diverges_is_named_and_put_right_runs_alone(phantom, tmp_path, monkeypatch, capsys):
    def third_through_papermill(cells, cohort, jobs) -> None:
        in_this_process([cell for cell in cells if cell.variant != "third"], cohort, jobs)
        run_here([cell for cell in cells if cell.variant == "third"], cohort, jobs)

    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs/short-phantom"
    own = {"settings": {**SETTINGS, "device": "cpu"}}
    own["variants"] = {**VARIANTS, "third": {"learning_rate": 1e30}}
    with pytest.raises(DataError, match=r"1 of 3 runs failed \(third, fold 1, seed 0\)"):
        compare(write_experiment(tmp_path, **own), phantom, execute=third_through_papermill, jobs=1)
    printed = capsys.readouterr().out
    (notebook,) = out.rglob("seed*.ipynb")
    assert "failed: third, fold 1, seed 0: " in printed and str(notebook.relative_to(tmp_path)) in printed
    book = nbformat.read(notebook, as_version=4)
    assert any(output.output_type == "error" for cell in book.cells for output in cell.get("outputs", []))
    before = {path: date for path, date in dates(out).items() if path.parent.suffix != ".partial"}
    own["variants"]["third"] = {"a": 0.5}
    compare(write_experiment(tmp_path, **own), phantom, execute=in_this_process)
    assert "3 runs, 2 finished, 1 to run" in capsys.readouterr().out
    assert before.items() <= dates(out).items() and (out / "table.csv").exists()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["laddr"], "no experiment 'laddr'. Did you mean 'ladder'?"),
        (["short.yaml", "--set", "itrations=3"], "iterations"),
        (["short.yaml", "--folds", "9"], "fold is 9"),
        (["short.yaml", "--data", "nowhere"], "nowhere"),
    ],
)
def test_a_call_that_cannot_be_is_one_sentence(call, words, phantom, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)
    data = [] if "--data" in call else ["--data", str(phantom)]
    assert main(["compare", *call, *data]) in (1, 2)
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


# The pool, with programs of a moment in the place of papermill


def stand_in(code: str):
    """A command per cell that runs `code` with its `name`, `folder` and `notebook`."""
    head = "import os, pathlib, sys, time; name, folder, notebook = sys.argv[1], *map(pathlib.Path, sys.argv[2:])\n"
    start = [sys.executable, "-c", head + code]
    return lambda cell: [*start, cell.variant, str(cell.folder), str(cell.notebook)]


FINISH = "folder.mkdir(parents=True); (folder / 'metrics.json').touch(); notebook.touch()\n"


def test_a_dead_kernel_is_started_again_a_fault_of_a_run_is_not_and_each_sees_its_gpu(phantom, tmp_path, monkeypatch):
    """`mixed` always loses its kernel, `third` once in the race for ports; `standard` has a fault of its own."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cells = cells_in(tmp_path, phantom)
    code = (
        "tries = folder.parent / f'{name}.txt'; again = tries.exists()\n"
        "open(tries, 'a').write(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))\n"
        "if name == 'standard': sys.exit('ValueError: a')\n"
        "if name == 'mixed' or not again: sys.exit('Kernel died before replying to kernel_info')\n"
    )
    monkeypatch.setattr(module, "run_command", stand_in(code + FINISH))
    run_here(cells, find_cohort(phantom), None)
    standard, mixed, third = cells
    assert [cell.finished() for cell in cells] == [False, False, True]
    assert (third.folder / "run.ipynb").exists() and not third.log.exists()
    assert standard.log.read_text() == "ValueError: a\n"
    tries = [(cell.folder.parent / f"{cell.variant}.txt").read_text() for cell in cells]
    assert [len(text) for text in tries] == [1, 3, 2] and set("".join(tries)) == {"0", "1"}


@pytest.mark.parametrize(
    ("visible", "count", "jobs", "settings", "expected"),
    [
        (None, 0, None, {}, [None] * 4),
        (None, 0, None, {"threads": 3}, [None]),
        (None, 2, None, {}, ["0", "1"]),
        (None, 2, 4, {}, ["0", "1", "0", "1"]),
        (None, 2, None, {"device": "cpu"}, [None] * 4),
        ("3, GPU-5a", 2, None, {}, ["3", "GPU-5a"]),
    ],
)
def test_every_gpu_gets_its_share_of_runs(visible, count, jobs, settings, expected, phantom, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cells = cells_in(tmp_path, phantom, settings={**SETTINGS, **settings})
    assert places(cells, jobs, 4) == expected


def test_the_run_notebook_gets_every_setting_that_was_asked_for(phantom, tmp_path):
    cell = cells_in(tmp_path, phantom)[2]
    command = run_command(cell)
    values = yaml.safe_load(base64.b64decode(command[command.index("-b") + 1]))
    assert values["settings"] == {"a": 0.5, "iterations": 4, "batch_norm_batches": 2, "progress": False}
    assert (values["n_fa"], values["fold"], values["cohort"]) == (3, 1, str(phantom))
    book = json.loads((module.NOTEBOOKS / "08_scenario_run.ipynb").read_text(encoding="utf-8"))
    (parameters,) = [cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert {line.split(":")[0] for line in parameters["source"]} == set(values)
