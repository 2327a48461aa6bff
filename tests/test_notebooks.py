"""The notebooks: how they are built, that they run, and that a mistyped parameter stops them."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
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


def test_opens_with_objectives_and_time(notebook):
    first = notebook.cells[0].source
    assert first.startswith("# ") and "You will be able to" in first and "| Time |" in first


def test_links_lead_to_files(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#:]+)\)", cell.source):
                assert (ROOT / "notebooks" / target).exists(), target


def test_small(notebook):
    assert len(json.dumps(notebook)) < 1_000_000


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


def test_a_scenario_run_and_its_comparison_through_papermill(phantom, tmp_path):
    shared = ["-p", "cohort", str(phantom), "-p", "n_fa", "3", "-p", "out", str(tmp_path / "runs")]
    shared += [
        "-p",
        "stores",
        str(tmp_path / "stores"),
        "-y",
        "settings: {iterations: 5, batch_norm_batches: 2}",
    ]
    for supervision in ("standard", "mixed"):
        done = papermill("08_scenario_run", tmp_path / "run.ipynb", *shared, "-p", "supervision", supervision)
        assert done.returncode == 0, done.stderr[-2000:]
    folders = list((tmp_path / "runs").rglob("metrics.json"))
    assert len(folders) == 2
    assert {json.loads(path.read_text())["config"]["iterations"] for path in folders} == {5}
    done = papermill(
        "09_scenario_comparison", tmp_path / "report.ipynb", "-p", "runs", str(tmp_path / "runs")
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 FA + 5 WA" in (tmp_path / "report.ipynb").read_text()


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [("08_scenario_run", "supervison", "supervision"), ("09_scenario_comparison", "taks", "task")],
)
def test_a_mistyped_parameter_stops_plain_papermill(tmp_path, name, wrong, meant):
    done = papermill(name, tmp_path / "run.ipynb", "-p", wrong, "mixed")
    assert done.returncode != 0 and f"Did you mean '{meant}'?" in done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval(path):
    """Every notebook runs from top to bottom; cells marked as exact facts give what was committed."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", str(path), "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "-c", "/dev/null"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
