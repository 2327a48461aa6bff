"""The run notebook as a program: one run through papermill, so that the executed notebook is its record."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixsup_lib.config import RunConfig

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = ("cohort", "out", "stores")
NAMED = ("preset", "task", "n_fa", "n_wa", "fold", "supervision", "seed", "device")
"""Settings that are parameters of the run notebook; all others go into its parameter `settings`."""

_PASSING = ("Kernel died before replying", "Address already in use", "another process works on this run")


def command(config: RunConfig, given: Mapping[str, Any], notebook: str | Path) -> list[str]:
    """The papermill command that executes a run and writes `notebook`; `given` are the settings that were asked for."""
    values = {name: str(getattr(config, name).resolve()) for name in PATHS}
    values |= {name: getattr(config, name) for name in NAMED}
    values["settings"] = {name: value for name, value in given.items() if name not in PATHS + NAMED}
    papermill = [sys.executable, "-m", "papermill", str(NOTEBOOKS / "08_scenario_run.ipynb"), str(notebook)]
    return [*papermill, "--cwd", str(NOTEBOOKS), "--no-progress-bar", "-y", json.dumps(values)]


def may_pass(log: str) -> bool:
    """Did papermill print a fault of the moment, such as kernels that race for ports, so that it pays to retry?"""
    return any(sentence in log for sentence in _PASSING)
