"""`make grid`: what is missing runs, a fault stops nothing else, SIGKILL costs nothing, two grids do not meet.

Starting runs needs Snakemake, which `make grid` installs into an environment of its own; without it those tests are
skipped, but not where CI is set: `make test` installs it there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent

import grid_progress  # noqa: E402
import grid_run  # noqa: E402
import grid_snakemake  # noqa: E402
import grid_step  # noqa: E402
import run_grid  # noqa: E402
from grid_plan import Plan, read_plan  # noqa: E402

from mixsup_lib.config import make_config  # noqa: E402
from mixsup_lib.experiments.experiment import cells_of, read_scenario  # noqa: E402
from mixsup_lib.experiments.runs import run  # noqa: E402

needs_snakemake = pytest.mark.skipif(
    grid_snakemake.snakemake_program() is None and not os.environ.get("CI"),
    reason="Snakemake is not installed: `make grid SCENARIO=smoke` installs it into .venv/workflow",
)
VARIANTS = {"standard": {"supervision": "standard"}, "mixed": {}, "third": {"a": 0.5}}
SETTINGS = {"preset": "tiny", "n_fa": 3, "iterations": 4, "batch_norm_batches": 2, "progress": False}


def write_scenario(folder: Path, name: str = "short", **changes) -> Path:
    content = {"name": name, "compare": "first", "settings": SETTINGS, "folds": [1], "variants": VARIANTS}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    return folder / f"{name}.yaml"


def plan_of(folder: Path, cohort: Path, cores: int = 1, places: tuple[str, ...] = (), **changes) -> Plan:
    scenario = read_scenario(write_scenario(folder, **changes))
    out = folder / f"runs/{scenario.name}-{cohort.name}"
    cells, _ = cells_of(scenario, cohort, out, folder / "data/stores")
    return Plan(scenario, cells, [cell for cell in cells if not cell.finished()], cores, list(places))


def start(folder: Path, cohort: Path, *options: str, name: str = "short") -> subprocess.Popen:
    command = [sys.executable, ROOT / "workflow/run_grid.py", f"{name}.yaml", "--cohort", cohort, *options]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, errors = process.communicate(timeout=300)
    assert "Traceback" not in out + errors, out + errors
    return process.returncode, out, errors


@needs_snakemake
def test_killed_and_started_again_only_the_missing_runs_run_and_a_fault_stops_nothing_else(phantom, tmp_path):
    """One grid, four starts: killed in its middle; one run diverges; that run is put right; nothing is left to do."""
    wrong = {**VARIANTS, "third": {"learning_rate": 1e30}}
    first, second, third = plan_of(tmp_path, phantom, variants=wrong).cells

    process = start(tmp_path, phantom, "--cores", "1")
    wait_until(lambda: sum(cell.finished() for cell in (first, second, third)) == 1, process)
    wait_until(lambda: any((tmp_path / "runs").rglob("*.partial")), process)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    (done,) = [cell for cell in (first, second, third) if cell.finished()]
    dates = {path: path.stat().st_mtime_ns for path in done.folder.iterdir()}
    os.utime(done.folder / "config.json")  # a date alone makes nothing run again
    dates[done.folder / "config.json"] = (done.folder / "config.json").stat().st_mtime_ns

    status, out, errors = finish(start(tmp_path, phantom, "--cores", "1"))
    assert "3 runs, 1 finished, 2 to run, 1 at a time" in out
    assert status == 1 and "1 of 2 runs failed (third, fold 1, seed 0)" in errors and "nan" in errors
    assert (first.finished(), second.finished(), third.finished()) == (True, True, False)
    work = tmp_path / f"runs/.grid/short-{phantom.name}"
    notebook = nbformat.read(work / f"notebooks/{third.key}.ipynb", as_version=4)
    assert any(out.output_type == "error" for cell in notebook.cells for out in cell.get("outputs", []))
    assert (second.folder / "run.ipynb").stat().st_size > 10_000

    plan = plan_of(
        tmp_path, phantom
    )  # the third variant as it should be: another run, the only one that is missing
    assert [cell.name for cell in plan.todo] == ["third, fold 1, seed 0"]
    status, out, errors = finish(start(tmp_path, phantom, "--cores", "1"))
    assert (status, errors) == (0, "") and "3 runs, 2 finished, 1 to run" in out and "3 of 3 runs" in out
    assert {path: path.stat().st_mtime_ns for path in dates} == dates

    status, out, errors = finish(start(tmp_path, phantom, "--status"))
    assert status == 0 and "is not running" in out and "1 done, 0 running, 0 left" in out

    alone = tmp_path / "alone"  # the same runs without a grid, never interrupted
    alone.mkdir()
    for cell in plan_of(alone, phantom).todo:
        run(make_config(**cell.given))
    grid_step.make_table(plan_of(alone, phantom))
    tables = [folder / f"runs/short-{phantom.name}/table.csv" for folder in (tmp_path, alone)]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_standard_against_mixed_supervision_gives_the_papers_tables(phantom, tmp_path):
    arms = {name: {"supervision": name} for name in ("standard", "mixed")}
    plan = plan_of(tmp_path, phantom, compare="supervision", variants=arms)
    for cell in plan.todo:
        run(make_config(**cell.given))
    grid_step.make_table(plan)
    table = pd.read_csv(plan.table.parent / "tables/table1.csv").set_index("scenario")
    assert table.loc["standard, 3 FA", "whole tumour"] > 0
    assert (
        pd.isna(table.loc["mixed, 30 FA", "whole tumour"])
        and table.loc["mixed, 30 FA", "paper: whole tumour"] == 83.84
    )


def wait_until(happened, process: subprocess.Popen, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


@needs_snakemake
def test_the_plan_is_shown_and_nothing_is_written(phantom, tmp_path):
    write_scenario(tmp_path)
    status, out, errors = finish(start(tmp_path, phantom, "--dry-run"))
    assert (status, errors) == (0, "")
    assert "3 runs, 0 finished, 3 to run" in out and "to run: mixed, fold 1, seed 0" in out
    assert "expected time: unknown" in out and "run          3" in out and not (tmp_path / "runs").exists()


@needs_snakemake
def test_a_thousand_cells_are_planned_in_seconds(phantom, tmp_path):
    axes = {"a": [(i + 1) / 200 for i in range(199)], "supervision": ["mixed"]}
    write_scenario(tmp_path, axes=axes, folds=[1, 2, 3, 4, 5], variants={"more": {"width": 5}})
    before = time.monotonic()
    status, out, _ = finish(start(tmp_path, phantom, "--dry-run"))
    assert status == 0 and "1000 to run" in out and time.monotonic() - before < 60


def test_the_same_grid_twice_at_once_is_one_sentence(phantom, tmp_path):
    write_scenario(tmp_path)
    with run_grid.held(tmp_path / f"runs/.grid/short-{phantom.name}.lock") as lock:
        assert lock is not None
        status, _, errors = finish(start(tmp_path, phantom))
    assert status == 1 and f"short-{phantom.name} is running already" in errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "itrations=3"], "iterations"),
        (["--only", "n_fa=99"], "no variant"),
        (["--part", "3/2"], "part 3 of 2"),
        (["--folds", "9"], "fold is 9"),
        (["--status"], "has not been started"),
        (["--cohort", "nowhere"], "no such folder"),
    ],
)
def test_a_call_that_cannot_be_is_one_sentence(options, words, phantom, tmp_path):
    write_scenario(tmp_path)
    status, _, errors = finish(start(tmp_path, phantom, *options))
    assert status in (1, 2) and words in errors and len(errors.splitlines()) == 1


def test_slices_that_cannot_be_prepared_are_named(phantom, tmp_path):
    plan = plan_of(tmp_path, phantom)
    (tmp_path / "prepare-5mm-48x48.log").write_text("slices: 10%\nDataError: patient 7 is broken.\n")
    sentence = grid_progress.report(plan.todo, tmp_path, 3)
    assert sentence == "the slices 5mm-48x48 could not be prepared: DataError: patient 7 is broken."


def test_a_grid_says_what_it_cost_beside_its_runs(phantom, tmp_path):
    plan = plan_of(tmp_path, phantom, 2)
    for cell, seconds in zip(plan.todo, (60, 90, 90), strict=True):
        cell.folder.mkdir(parents=True)
        (cell.folder / "provenance.json").write_text(json.dumps({"wall_seconds": seconds, "resumed": False}))
    words = grid_progress.overhead(plan, 132.4)
    assert words == "3 runs in 132 s, 2 at a time; by themselves 240 s, a factor of 1.10."
    last = plan_of(
        tmp_path, phantom, 2, settings={**SETTINGS, "a": 0.6}, variants={"one": {}, "two": {"k": 5}}
    )
    (last.todo[0].folder).mkdir(parents=True)  # an interrupted run does not know its time
    assert grid_progress.overhead(last, 12.0) == "2 runs in 12 s, 2 at a time."


def test_a_cluster_that_refuses_a_job_is_quoted(phantom, tmp_path):
    plan = plan_of(tmp_path, phantom)
    (tmp_path / "prepare-5mm-48x48.log").touch()
    refused = (
        "SLURM sbatch failed. The error message was 'sbatch: error: CPU count per node can not be satisfied"
    )
    (tmp_path / "snakemake.log").write_text(f"Error in rule store:\n    message: {refused}\nExiting\n")
    assert grid_progress.report(plan.todo, tmp_path, 3).endswith(f"could not be prepared: {refused}")


def test_progress_is_one_line(phantom, tmp_path):
    plan = plan_of(tmp_path, phantom)
    standard, mixed, _ = plan.cells
    running = tmp_path / "work/running" / mixed.key
    running.parent.mkdir(parents=True)
    running.touch()
    now = datetime(2026, 3, 2, 9, 30)
    line = grid_progress.progress(plan, tmp_path / "work", tmp_path / "runs", now)
    assert (
        line
        == "09:30  0 done, 1 running, 2 left; expected end: unknown until one run of each kind has finished"
    )
    for cell, seconds in ((standard, 600), (mixed, 1200)):
        cell.folder.mkdir(parents=True)
        (cell.folder / "metrics.json").write_text("{}")
        (cell.folder / "provenance.json").write_text(json.dumps({"wall_seconds": seconds, "resumed": False}))
    running.unlink()
    alike = plan_of(tmp_path, phantom, variants={**VARIANTS, "third": {"n_fa": 4}})
    (left,) = alike.todo
    line = grid_progress.progress(alike, tmp_path / "work", tmp_path / "runs", now)
    assert left.variant == "third" and line == "09:30  0 done, 0 running, 1 left; expected end: Mon 09:50"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "unknown until one run of each kind has finished"),
        (20, "under a minute"),
        (150, "about 2 min"),
        (3 * 3600, "about 3 h"),
        (84 * 3600, "about 3.5 days"),
    ],
)
def test_a_time_in_words(seconds, words):
    assert grid_progress.in_words(seconds) == words


def test_how_many_run_at_once(phantom, tmp_path):
    def at_a_time(cores: int, places: tuple[str, ...] = (), **settings) -> int:
        return plan_of(tmp_path, phantom, cores, places, settings={**SETTINGS, **settings}).at_a_time

    assert (at_a_time(4), at_a_time(4, threads=2), at_a_time(1, threads=2)) == (4, 2, 1)
    assert (at_a_time(4, ("0", "1")), at_a_time(4, ("0", "1"), device="cpu")) == (2, 4)
    assert at_a_time(1, ("0", "1", "0", "1")) == 1


def test_a_plan_is_read_back_as_it_was(phantom, tmp_path):
    plan = plan_of(tmp_path, phantom, 3, ("0",))
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    content = json.loads((tmp_path / "plan.json").read_text())
    assert {(cell["gpu"], cell["threads"], cell["store"]) for cell in content["todo"]} == {
        (1, 1, "5mm-48x48")
    }


def test_a_run_sees_the_gpu_of_its_place_alone(phantom, tmp_path, monkeypatch):
    """Without a GPU: what papermill would be started with."""
    plan_of(tmp_path, phantom, 2, ("7",)).write(tmp_path / "plan.json")
    (cell, *_) = json.loads((tmp_path / "plan.json").read_text())["todo"]
    seen = []

    def papermill(command, env, **_):
        seen.append((command, env.get("CUDA_VISIBLE_DEVICES")))
        return subprocess.CompletedProcess([], 3)

    Path(cell["notebook"]).parent.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(grid_run.subprocess, "run", papermill)
    assert grid_run.run_cell(cell, ["7"]) == 3 and seen == [(cell["command"], "7")]
    assert grid_run.run_cell({**cell, "gpu": 0}, ["7"]) == 3 and seen[1][1] == os.environ.get(
        "CUDA_VISIBLE_DEVICES"
    )
    assert not any(path.is_file() for path in Path("running").rglob("*"))


def test_a_kernel_that_died_in_the_race_for_ports_is_started_again(phantom, tmp_path, monkeypatch):
    plan_of(tmp_path, phantom).write(tmp_path / "plan.json")
    (cell, *_) = json.loads((tmp_path / "plan.json").read_text())["todo"]
    sentences = [
        "Kernel died before replying to kernel_info",
        "ValueError: a fault of its own",
        "never reached",
    ]

    def papermill(command, stdout, **_):
        stdout.write(sentences.pop(0))
        return subprocess.CompletedProcess([], 1)

    Path(cell["notebook"]).parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid_run.subprocess, "run", papermill)
    assert grid_run.run_cell(cell, []) == 1 and sentences == ["never reached"]
