"""The cells of an experiment through Snakemake, as on a cluster: what is missing runs, a fault stops nothing else.

Here Snakemake's jobs are processes of this machine, and programs of a moment stand in for papermill; `make slurm-trial`
does the whole on a real Slurm.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import grid
import pytest
from test_compare import FINISH, stand_in, write_experiment

from mixsup_lib.experiments.compare import compare
from mixsup_lib.files import DataError, SettingError

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "a b'\"`touch executed`$(touch executed);touch executed;&|<>*?#~!{x}\n"


@pytest.fixture
def profile(tmp_path):
    """A Snakemake profile that runs one job at a time on this machine."""
    folder = tmp_path / "profile"
    folder.mkdir()
    (folder / "config.yaml").write_text("cores: 1\n")
    return folder


@pytest.mark.skipif(
    grid.snakemake() is None and not os.environ.get("CI"),
    reason="Snakemake is not installed: `make grid SCENARIO=smoke PROFILE=workflow/slurm` installs it",
)
def test_only_what_is_missing_is_submitted_and_a_fault_stops_no_other(phantom, tmp_path, profile, monkeypatch, capfd):
    """Names that a shell or Snakemake could take for code, too: they stay names."""
    root = tmp_path / HOSTILE
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "if name == 'third': sys.exit('ValueError: a fault of its own')\n"
    monkeypatch.setattr(grid, "run_command", stand_in(code + FINISH))
    where = {"out": root / "runs", "execute": partial(grid.submit, profile=profile)}
    call = partial(compare, write_experiment(root), phantom, **where)
    with pytest.raises(DataError, match=r"1 of 3 runs failed \(third, fold 1, seed 0\)"):
        call()
    printed = capfd.readouterr().out
    assert "failed: third, fold 1, seed 0: ValueError: a fault of its own" in printed
    finished = [path.parent for path in (root / "runs/short-phantom/phantom").rglob("metrics.json")]
    assert {folder.parent.name for folder in finished} == {"standard", "mixed"} and len(finished) == 2
    assert all((folder / "run.ipynb").exists() for folder in finished)
    before = {file: file.stat().st_mtime_ns for folder in finished for file in folder.iterdir()}

    monkeypatch.setattr(grid, "run_command", stand_in(FINISH))
    with pytest.raises(DataError, match="metrics.json: not the record"):  # what the stand-ins leave is none
        call()
    assert len(list((root / "runs").rglob("run.ipynb"))) == 3
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize(
    ("folder", "error", "sentence"),
    [
        (None, SettingError, "nowhere: holds no config.yaml of a Snakemake profile"),
        ("profile", DataError, "Snakemake is not installed; `make grid"),
    ],
)
def test_without_snakemake_or_a_profile_it_says_what_to_do(
    folder, error, sentence, phantom, tmp_path, profile, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(grid, "snakemake", lambda: None if folder else "snakemake")
    execute = partial(grid.submit, profile=profile if folder else Path("nowhere"))
    with pytest.raises(error, match=sentence):
        compare(write_experiment(tmp_path), phantom, execute=execute)
