"""The run notebook as a program: one run through papermill, so that the executed notebook is its record.

python -m mixsup_lib.run_notebook NOTEBOOK EXECUTED PARAMETERS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixsup_lib.config import RunConfig

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = ("cohort", "out", "stores")
NAMED = ("preset", "task", "n_fa", "n_wa", "fold", "supervision", "seed", "device")
"""Settings that are parameters of the run notebook; all others go into its parameter `settings`."""

_PASSING = ("Kernel died before replying", "Address already in use", "another process works on this run")


def command(config: RunConfig, given: Mapping[str, Any], notebook: str | Path) -> list[str]:
    """The command that executes a run and writes `notebook`; `given` are the settings that were asked for."""
    values = {name: str(getattr(config, name).resolve()) for name in PATHS}
    values |= {name: getattr(config, name) for name in NAMED}
    values["settings"] = {name: value for name, value in given.items() if name not in PATHS + NAMED}
    return execution(NOTEBOOKS / "08_scenario_run.ipynb", notebook, values)


def execution(notebook: str | Path, executed: str | Path, parameters: Mapping[str, Any]) -> list[str]:
    """The command that executes `notebook` with these parameters (JSON values) and writes it to `executed`."""
    module = [sys.executable, "-m", "mixsup_lib.run_notebook"]
    return [*module, str(notebook), str(executed), json.dumps(parameters)]


def execute(notebook: str, executed: str, parameters: str) -> None:
    """papermill, ready one second sooner than its command and through one second sooner.

    jsonschema would load a grammar of internationalised web addresses, which no notebook holds. The kernel is ended
    where its last cell has ended: all that a run leaves is on the disk by then.
    """
    sys.modules["rfc3987_syntax"] = None  # how Python says that there is no such package
    import papermill

    values = json.loads(parameters)
    papermill.execute_notebook(
        notebook, executed, values, cwd=NOTEBOOKS, progress_bar=False, shutdown_kernel="immediate"
    )


def may_pass(log: str) -> bool:
    """Did papermill print a fault of the moment, such as kernels that race for ports, so that it pays to retry?"""
    return any(sentence in log for sentence in _PASSING)


if __name__ == "__main__":
    execute(*sys.argv[1:])
