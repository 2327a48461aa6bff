"""The notebooks: how they are built, that they give their facts again, and that a mistyped parameter stops them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from mixsup_lib.config import run_config
from mixsup_lib.experiments.runs import collect, read_recorded, run
from mixsup_lib.experiments.tables import beside_paper, comparison_table, outcomes, region_name
from mixsup_lib.paper import REGIONS

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {path.stem: nbformat.read(path, as_version=4) for path in sorted(ROOT.glob("notebooks/[0-9]*.ipynb"))}


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    return NOTEBOOKS[request.param]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_executed_once_from_top_to_bottom_without_error_or_path_of_a_machine(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert notebook.metadata.kernelspec.name == "python3"
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    text = json.dumps(notebook)
    assert not re.search(r"/(home|root|tmp|work|Users)/", text) and len(text) < 1_000_000


def test_tags_and_exercises(notebook):
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    assert set(sum(tags, [])) <= {"parameters", "nbval-check-output", "exercise", "check", "recorded"}
    assert 2 <= sum("exercise" in own for own in tags) <= 4


def test_opens_with_objectives_and_closes_with_summary_questions_and_the_next_step(notebook):
    first = notebook.cells[0].source
    assert first.startswith("# ") and "You will be able to" in first
    assert all(re.search(rf"^\| {row} \| .+ \|$", first, re.M) for row in ("Before", "Time", "Data", "Paper"))
    last = "\n\n".join(cell.source for cell in notebook.cells[-3:] if cell.cell_type == "markdown")
    assert "## Summary" in last and "### Questions" in last and "**Next:**" in last
    assert len(re.findall(r"<details><summary>.+?</summary>", last)) == 3


def test_every_picture_has_words_and_no_widget_holds_an_error(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"!\[\s*\]", cell.source), cell.source
            assert all("alt=" in image for image in re.findall(r"<img[^>]*>", cell.source))
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt"), cell.source
    widgets = json.dumps(notebook.metadata.get("widgets", {}))
    assert '"output_type": "error"' not in widgets and 'role=\\"alert\\"' not in widgets


def test_links_lead_to_files(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [target for target in targets if not (ROOT / "notebooks" / target).exists()] == []


def papermill(name, output, **values):
    command = [sys.executable, "-m", "papermill", f"notebooks/{name}.ipynb", str(output), "--cwd", "notebooks"]
    command += ["--no-progress-bar", "-y", json.dumps(values)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def nbval(path, **environment):
    """Run a notebook again; cells marked as exact facts must give what is saved."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", str(path), "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "-c", "/dev/null"]
    environment = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "seconds"), [(name, book.metadata.papermill.duration) for name, book in NOTEBOOKS.items()], ids=NOTEBOOKS
)
def test_nbval(name, seconds):
    """Every notebook runs from top to bottom; cells marked as exact facts give what was committed."""
    done = nbval(ROOT / "notebooks" / f"{name}.ipynb")
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_scenario_run_its_comparison_and_the_same_dice_when_trained_again(phantom, tmp_path):
    """With parameters of one's own, and with a part of the runs made in this process."""
    shared = {"cohort": str(phantom), "n_fa": 3, "task": "multiclass", "out": str(tmp_path / "runs")}
    shared |= {"stores": str(tmp_path / "stores")}
    shared |= {"settings": {"iterations": 5, "batch_norm_batches": 2, "precision": "float32"}}
    run(run_config({**shared, "supervision": "standard"}, set()))
    done = papermill("08_scenario_run", tmp_path / "run.ipynb", **shared, supervision="mixed")
    assert done.returncode == 0, done.stderr[-2000:]
    folders = [path.parent for path in (tmp_path / "runs").rglob("metrics.json")]
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "metrics.json").read_text())["config"]["iterations"] == 5
        assert pd.read_csv(folder / "per_patient.csv")["region"].nunique() == 3
    done = papermill("09_scenario_comparison", tmp_path / "report.ipynb", runs=str(tmp_path / "runs"), recorded="")
    assert done.returncode == 0, done.stderr[-2000:]
    report = (tmp_path / "report.ipynb").read_text()
    assert "3 FA + 5 WA" in report and all(f"multiclass: {region_name(region)}" in report for region in REGIONS)
    own = outcomes(beside_paper(comparison_table(collect(tmp_path / "runs"))))
    assert own.splitlines()[0] in report
    of_the_phantom = outcomes(
        beside_paper(comparison_table(read_recorded(ROOT / "data/results/paper-phantom-seed1.csv")))
    )
    assert not [line for line in of_the_phantom.splitlines() if line.startswith("-") and line in report]
    assert not re.search("ahead in every|catches up|does not rise|usually gets", report)

    book = nbformat.read(tmp_path / "run.ipynb", as_version=4)
    (cell,) = [cell for cell in code_cells(book) if cell.source.endswith("metrics.mean_dice")]
    cell.metadata.tags = ["nbval-check-output"]
    nbformat.write(book, tmp_path / "run.ipynb")
    shutil.rmtree(tmp_path / "runs")
    done = nbval(tmp_path / "run.ipynb")
    assert done.returncode == 0, done.stdout[-3000:]
    assert list((tmp_path / "runs").rglob("metrics.json")), "it did not train again"


@pytest.mark.parametrize(
    ("name", "wrong", "meant"),
    [("08_scenario_run", "supervison", "supervision"), ("09_scenario_comparison", "taks", "task")],
)
def test_a_mistyped_parameter_stops_plain_papermill(tmp_path, name, wrong, meant):
    done = papermill(name, tmp_path / "run.ipynb", **{wrong: "mixed"})
    assert done.returncode != 0 and f"Did you mean '{meant}'?" in done.stderr


def test_nbval_sees_one_digit_of_a_setting_changed_in_the_code(tmp_path):
    shutil.copytree(ROOT / "mixsup_lib", tmp_path / "code" / "mixsup_lib")
    paper = tmp_path / "code" / "mixsup_lib" / "paper.py"
    source = paper.read_text(encoding="utf-8")
    changed = source.replace('"binary": (0.7, 0.3)', '"binary": (0.8, 0.3)')
    assert changed != source
    paper.write_text(changed, encoding="utf-8")
    done = nbval(ROOT / "notebooks" / "08_scenario_run.ipynb", PYTHONPATH=tmp_path / "code")
    assert done.returncode != 0 and "t = (0.8, 0.3)" in done.stdout
