"""`workflow/run_scenario.py`: what is missing is trained, what is there is used, and the comparison is recorded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = {
    "name": "short",
    "compare": "previous",
    "settings": {"preset": "tiny", "n_fa": 3, "iterations": 2, "batch_norm_batches": 2, "progress": False},
    "variants": {"standard": {"supervision": "standard"}, "mixed": {"supervision": "mixed"}},
}


def call(folder: Path, cohort: Path, *options: str, **changes) -> subprocess.CompletedProcess:
    (folder / "short.yaml").write_text(yaml.safe_dump({**SCENARIO, **changes}, sort_keys=False))
    return subprocess.run(
        [sys.executable, ROOT / "workflow/run_scenario.py", "short.yaml", cohort, "--folds", "1", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_scenario_is_trained_once_and_recorded(phantom, tmp_path):
    name = f"short-{phantom.name}"
    (tmp_path / "data/results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    markers = f"<!-- results:{name} -->\n<!-- /results:{name} -->\n"
    (tmp_path / "REPRODUCTION.md").write_text(f"before\n{markers}after\n")

    plan = call(tmp_path, phantom, "--dry-run")
    assert "2 runs, 2 to train" in plan.stdout and not (tmp_path / "runs").exists()

    first = call(tmp_path, phantom)
    assert first.returncode == 0, first.stderr
    rows = pd.read_csv(tmp_path / f"data/results/{name}.csv")
    assert set(rows["supervision"]) == {"standard", "mixed"} and {"commit", "settings_hash", "fold"} <= set(
        rows
    )
    assert (tmp_path / f"docs/{name}.png").stat().st_size > 1000
    text = (tmp_path / "REPRODUCTION.md").read_text()
    assert "| mixed " in text and text.startswith("before") and text.rstrip().endswith("after")

    again = call(tmp_path, phantom)
    assert "2 runs, 0 to train" in again.stdout and "test patients" in again.stdout

    variants = {**SCENARIO["variants"], "all weight on pixels": {"supervision": "mixed", "a": 1.0}}
    wider = call(tmp_path, phantom, "--dry-run", variants=variants)
    assert "3 runs, 1 to train" in wider.stdout and "all weight on pixels, fold 1" in wider.stdout


def test_a_fault_is_one_sentence(phantom, tmp_path):
    wrong = call(tmp_path, phantom, variants={"a": {"branhc": "deep"}, "b": {}})
    assert wrong.returncode == 1 and "branch" in wrong.stderr and "Traceback" not in wrong.stderr
    arms = call(tmp_path, phantom, compare="supervision")
    assert arms.returncode == 1 and "make grid" in arms.stderr and "Traceback" not in arms.stderr


def test_the_files_own_folds_and_seeds_are_taken(phantom, tmp_path):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**SCENARIO, "folds": [2], "seeds": [0, 1]}))
    command = [sys.executable, ROOT / "workflow/run_scenario.py", "own.yaml", phantom, "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    plan = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "4 runs, 4 to train" in plan.stdout and "fold 2, seed 1" in plan.stdout
