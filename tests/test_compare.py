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
import pytest
import yaml
from no_network import guarded

from mixsup_lib.__main__ import main
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments import compare as module
from mixsup_lib.experiments.compare import compare, places, run_command, run_here
from mixsup_lib.experiments.experiment import cells_of, read_experiment
from mixsup_lib.experiments.runs import run
from mixsup_lib.files import DataError, SettingError

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
def finished(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("main_job")
    call = {"out": root / "runs", "stores": root / "stores", "folds": [1], "settings": SETTINGS}
    with pytest.MonkeyPatch.context() as patch:  # papermill, its kernels and nbconvert inherit it
        patch.setenv("PYTHONPATH", guarded(root)["PYTHONPATH"])
        report = compare(None, phantom, **call, jobs=2)
    return report, root, call


def test_it_reaches_for_no_network(finished):
    _, root, _ = finished
    attempts = root / "attempts.txt"
    assert not attempts.exists(), attempts.read_text()


def test_it_ends_on_a_report_with_pictures_that_have_alt_texts(finished):
    report, root, _ = finished
    page = report.read_text(encoding="utf-8")
    assert report == root / "runs/phantom/report.html" and page.count("<img alt=") == 5
    assert "3 FA + 5 WA" in page and "Traceback (most recent" not in page
    assert "Mean Dice by fold" in page and 'alt="No description' not in page


def test_each_arm_left_its_run_folder_with_the_executed_notebook(finished):
    _, root, _ = finished
    folders = [path.parent for path in (root / "runs").rglob("metrics.json")]
    assert {folder.parent.name for folder in folders} == {"standard", "mixed"}
    for folder in folders:
        book = nbformat.read(folder / "run.ipynb", as_version=4)
        assert any(cell.get("execution_count") for cell in book.cells)
        assert json.loads((folder / "config.json").read_text())["iterations"] == 4
    assert not list((root / "runs").rglob("*.log"))


def test_a_second_call_reuses_what_is_done(finished, phantom, capsys):
    report, root, call = finished
    before = dates(root / "runs")
    assert compare(None, phantom, **call) == report
    assert dates(root / "runs") == before
    printed = capsys.readouterr().out
    assert "2 runs, 2 finished, 0 to run" in printed and str(report) in printed
    table = pd.read_csv(root / "runs/phantom/table.csv")
    assert {"standard", "mixed", "difference"} <= set(table)
    assert (root / "runs/phantom/table.md").read_text().splitlines()[
        0
    ] in printed and "One fold only" in printed
    papers = pd.read_csv(root / "runs/phantom/tables/table1.csv").set_index("scenario")
    assert papers.loc["standard, 3 FA", "whole tumour"] > 0
    assert papers.loc["mixed, 30 FA", "paper: whole tumour"] == 83.84


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fold": 2}, "fold is given"),
        ({"supervision": "mixed"}, "gives it itself"),
        ({"itrations": 3}, "iterat"),
    ],
)
def test_what_the_comparison_chooses_cannot_be_set(settings, words, phantom):
    with pytest.raises(SettingError, match=words):
        compare(None, phantom, settings=settings)


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


def start(folder: Path, cohort: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "mixsup_lib", "compare", "short.yaml", "--data", cohort, "--jobs", "1"]
    return subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=300)
    assert "Traceback" not in out + errors, out + errors
    return process.returncode, out, errors.splitlines()[-1] if errors else ""


def wait_until(happened, process: subprocess.Popen, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_interrupted_and_called_again_only_what_is_missing_runs_and_a_fault_stops_nothing_else(
    phantom, tmp_path, monkeypatch, capsys
):
    """Three calls: interrupted in the middle; one run diverges; that run is put right."""
    import psutil

    out = tmp_path / "runs/short-phantom"
    own = {"variants": {"standard": VARIANTS["standard"], "third": {"learning_rate": 1e30}, "mixed": {}}}
    own["settings"] = {**SETTINGS, "device": "cpu"}
    write_experiment(tmp_path, **own)
    process = start(tmp_path, phantom)
    wait_until(lambda: any(out.rglob("run.ipynb")) and any(out.rglob("seed*.log")), process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    status, _, error = finish(process)
    assert status == 130 and "start the same command again to continue" in error
    assert children and psutil.wait_procs(children, timeout=60)[1] == []
    before = dates(out)
    assert len({path.parent for path in before if path.parent.suffix != ".partial"}) == 1

    status, printed, error = finish(start(tmp_path, phantom))
    assert "3 runs, 1 finished, 2 to run" in printed and "failed: third, fold 1, seed 0: " in printed
    assert status == 1 and "1 of 3 runs failed (third, fold 1, seed 0)" in error
    (notebook,) = out.rglob("seed*.ipynb")
    assert str(notebook.relative_to(tmp_path)) in printed
    book = nbformat.read(notebook, as_version=4)
    assert any(out.output_type == "error" for cell in book.cells for out in cell.get("outputs", []))
    assert len(list(out.rglob("run.ipynb"))) == 2

    own["variants"]["third"] = {"a": 0.5}
    for folder in (tmp_path, tmp_path / "alone"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        compare(write_experiment(folder, **own), phantom, execute=in_this_process)
    assert "3 runs, 2 finished, 1 to run" in capsys.readouterr().out
    after = dates(out)
    assert {
        path: after[path] for path in before if path.parent.suffix != ".partial"
    }.items() <= before.items()
    alone = tmp_path / "alone/runs/short-phantom/table.csv"
    assert (out / "table.csv").read_bytes() == alone.read_bytes()


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
    return lambda cell: [
        sys.executable,
        "-c",
        head + code,
        cell.variant,
        str(cell.folder),
        str(cell.notebook),
    ]


FINISH = "folder.mkdir(parents=True); (folder / 'metrics.json').touch(); notebook.touch()\n"


def test_a_kernel_that_died_in_the_race_for_ports_is_started_again(phantom, tmp_path, monkeypatch):
    cells = cells_in(tmp_path, phantom)
    code = (
        "again = notebook.exists(); notebook.touch(); print('Kernel died before replying to kernel_info')\n"
        "if name == 'third': print('ValueError: its own'); open(folder.parent / 'third.txt', 'a').write('x')\n"
        "if name == 'third' and again: print('never'); sys.exit(1)\n"
        "if name == 'third' or not again: sys.exit(1)\n"
    )
    monkeypatch.setattr(module, "run_command", stand_in(code + FINISH))
    run_here(cells, find_cohort(phantom), 2)
    standard, mixed, third = cells
    assert [cell.finished() for cell in cells] == [True, True, False]
    assert (standard.folder / "run.ipynb").exists() and not standard.log.exists()
    assert (third.folder.parent / "third.txt").read_text() == "xxx"


def test_a_fault_of_a_run_itself_is_not_tried_again_and_stops_no_other(phantom, tmp_path, monkeypatch):
    cells = cells_in(tmp_path, phantom)
    code = "if name == 'standard': open(folder.parent / 'tries.txt', 'a').write('x'); sys.exit('ValueError: a')\n"
    monkeypatch.setattr(module, "run_command", stand_in(code + FINISH))
    run_here(cells, find_cohort(phantom), 1)
    assert [cell.finished() for cell in cells] == [False, True, True]
    assert cells[0].log.read_text() == "ValueError: a\n"
    assert (cells[0].folder.parent / "tries.txt").read_text() == "x"


def test_each_run_at_a_time_sees_a_gpu_of_its_own(phantom, tmp_path, monkeypatch):
    """Without a GPU: what the runs would see."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cells = cells_in(tmp_path, phantom)
    code = "(folder.parent / name).write_text(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))\n"
    monkeypatch.setattr(module, "run_command", stand_in(code + FINISH))
    run_here(cells[:2], find_cohort(phantom), None)
    assert [(cell.folder.parent / cell.variant).read_text() for cell in cells[:2]] == ["0", "1"]


@pytest.mark.parametrize(
    ("visible", "count", "jobs", "settings", "expected"),
    [
        (None, 0, None, {}, [None] * 4),
        (None, 0, 3, {}, [None] * 3),
        (None, 0, None, {"threads": 3}, [None]),
        (None, 2, None, {}, ["0", "1"]),
        (None, 2, 4, {}, ["0", "1", "0", "1"]),
        (None, 2, 1, {}, ["0"]),
        (None, 2, None, {"device": "cpu"}, [None] * 4),
        ("3, GPU-5a", 2, None, {}, ["3", "GPU-5a"]),
    ],
)
def test_every_gpu_gets_its_share_of_runs(
    visible, count, jobs, settings, expected, phantom, tmp_path, monkeypatch
):
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
