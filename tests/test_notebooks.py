"""The notebooks: how they are built, that they run, and that a mistyped parameter stops them."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_cells_are_short(notebook):
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert statistics.median(lengths) < 8 and max(lengths) <= 30


def test_executed_once_from_top_to_bottom_without_error(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.metadata.kernelspec.name == "python3"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_no_machine_paths(notebook):
    text = json.dumps(notebook)
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)


def test_the_kinds_of_cells(notebook):
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    assert tags <= {"parameters", "nbval-check-output", "exercise", "check", "recorded"}
    assert 20 <= len(notebook.cells) <= 35


def test_opens_with_objectives_prerequisites_time_data_and_sections(notebook):
    first = notebook.cells[0].source
    assert first.startswith("# ") and "You will be able to" in first
    for row in ("Before", "Time", "Data", "Paper"):
        assert re.search(rf"^\| {row} \| .+ \|$", first, re.M), row


def test_the_promised_time_is_at_least_half_of_the_measured_one(notebook):
    promise = re.search(r"\| Time \| .*cells run in (\d+) (second|minute)s", notebook.cells[0].source)
    promised = int(promise[1]) * {"second": 1, "minute": 60}[promise[2]]
    assert notebook.metadata.papermill.duration < 2 * promised


def test_closes_with_a_summary_three_questions_and_the_next_step(notebook):
    text = "\n\n".join(cell.source for cell in notebook.cells[-3:] if cell.cell_type == "markdown")
    assert "## Summary" in text and "### Questions" in text and "**Next:**" in text
    assert len(re.findall(r"<details><summary>.+?</summary>", text)) == 3


def test_two_to_four_exercises(notebook):
    exercises = [cell for cell in code_cells(notebook) if "exercise" in cell.metadata.get("tags", [])]
    assert 2 <= len(exercises) <= 4


def test_every_picture_has_words(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[\s*\]", cell.source), cell.source
            assert all("alt=" in image for image in re.findall(r"<img[^>]*>", cell.source))
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt"), cell.source


def test_no_error_in_a_widget(notebook):
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    states = [model["state"] for model in widgets.get("state", {}).values()]
    outputs = [output for state in states for output in state.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [state for state in states if 'role="alert"' in str(state.get("value", ""))]


def test_links_lead_to_files(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
                assert (ROOT / "notebooks" / target).exists(), target


def test_small(notebook):
    assert len(json.dumps(notebook)) < 1_000_000


def test_all_notebooks_together_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 4_000_000


def papermill(name, output, *parameters):
    command = [
        sys.executable,
        "-m",
        "papermill",
        f"notebooks/{name}.ipynb",
        str(output),
        "--cwd",
        "notebooks",
    ]
    return subprocess.run(
        [*command, "--no-progress-bar", *parameters], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(("task", "n_regions"), [("whole_tumor", 1), ("multiclass", 3)])
def test_a_scenario_run_and_its_comparison_through_papermill(phantom, tmp_path, task, n_regions):
    shared = ["-p", "cohort", str(phantom), "-p", "n_fa", "3", "-p", "task", task]
    shared += ["-p", "out", str(tmp_path / "runs"), "-p", "stores", str(tmp_path / "stores")]
    shared += ["-y", "settings: {iterations: 5, batch_norm_batches: 2}"]
    for supervision in ("standard", "mixed"):
        done = papermill("08_scenario_run", tmp_path / "run.ipynb", *shared, "-p", "supervision", supervision)
        assert done.returncode == 0, done.stderr[-2000:]
    folders = [path.parent for path in (tmp_path / "runs").rglob("metrics.json")]
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "metrics.json").read_text())["config"]["iterations"] == 5
        assert pd.read_csv(folder / "per_patient.csv")["region"].nunique() == n_regions
    ours_alone = ["-p", "runs", str(tmp_path / "runs"), "-p", "recorded", ""]
    done = papermill("09_scenario_comparison", tmp_path / "report.ipynb", *ours_alone)
    assert done.returncode == 0, done.stderr[-2000:]
    report = (tmp_path / "report.ipynb").read_text()
    assert "3 FA + 5 WA" in report and ("enhancing_core" in report) == (n_regions == 3)


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [("08_scenario_run", "supervison", "supervision"), ("09_scenario_comparison", "taks", "task")],
)
def test_a_mistyped_parameter_stops_plain_papermill(tmp_path, name, wrong, meant):
    done = papermill(name, tmp_path / "run.ipynb", "-p", wrong, "mixed")
    assert done.returncode != 0 and f"Did you mean '{meant}'?" in done.stderr


def nbval(path, **environment):
    """Run a notebook again; cells marked as exact facts must give what is saved."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", str(path), "-q", "-p", "no:cacheprovider"]
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(
        [*command, "-c", "/dev/null"], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval(path):
    """Every notebook runs from top to bottom; cells marked as exact facts give what was committed."""
    done = nbval(path)
    assert done.returncode == 0, done.stdout[-3000:]


def mark_the_result(path):
    """Tag the cell of a scenario run that shows its mean Dice, and return it."""
    book = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in code_cells(book) if cell.source.endswith("metrics.mean_dice")]
    cell.metadata.tags = ["nbval-check-output"]
    return book, cell


def test_a_scenario_run_trained_again_by_nbval_gives_the_same_dice(phantom, tmp_path):
    """With parameters of one's own, in an empty output folder; and a digit changed in the record is noticed."""
    shared = [
        "-p",
        "cohort",
        str(phantom),
        "-p",
        "n_fa",
        "3",
        "-p",
        "fold",
        "2",
        "-p",
        "supervision",
        "standard",
    ]
    shared += ["-p", "out", str(tmp_path / "runs"), "-p", "stores", str(tmp_path / "stores")]
    done = papermill(
        "08_scenario_run",
        tmp_path / "run.ipynb",
        *shared,
        "-y",
        "settings: {iterations: 6, precision: float32}",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    book, cell = mark_the_result(tmp_path / "run.ipynb")
    nbformat.write(book, tmp_path / "run.ipynb")
    shutil.rmtree(tmp_path / "runs")
    shutil.rmtree(tmp_path / "stores")
    done = nbval(tmp_path / "run.ipynb")
    assert done.returncode == 0, done.stdout[-3000:]
    assert list((tmp_path / "runs").rglob("metrics.json")), "it did not train again"
    text = cell.outputs[-1].data["text/plain"]
    cell.outputs[-1].data["text/plain"] = re.sub(r"\d(?=\})", lambda last: str((int(last[0]) + 1) % 10), text)
    nbformat.write(book, tmp_path / "run.ipynb")
    done = nbval(tmp_path / "run.ipynb")
    assert done.returncode != 0 and "mean_dice" in done.stdout


def test_nbval_sees_one_digit_of_a_setting_changed_in_the_code(tmp_path):
    shutil.copytree(ROOT / "mixsup_lib", tmp_path / "code" / "mixsup_lib")
    paper = tmp_path / "code" / "mixsup_lib" / "paper.py"
    source = paper.read_text(encoding="utf-8")
    changed = source.replace('"binary": (0.7, 0.3)', '"binary": (0.8, 0.3)')
    assert changed != source
    paper.write_text(changed, encoding="utf-8")
    done = nbval(ROOT / "notebooks" / "08_scenario_run.ipynb", PYTHONPATH=tmp_path / "code")
    assert done.returncode != 0 and "t = (0.8, 0.3)" in done.stdout
