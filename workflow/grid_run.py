"""One run of a grid: `python grid_run.py PLAN CELL`, as the Snakefile calls it in the grid's own folder.

Loads little, as it does no more than wait for the notebook.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from mixsup_lib.experiments.compare import may_pass, take_place
from mixsup_lib.files import atomic_path

ATTEMPTS = 3
"""Kernels that start at the same time can race for ports; then the notebook is started again."""


def run_cell(cell: dict, places: list[str]) -> int:
    """Execute the run notebook; returns papermill's exit status. A copy of metrics.json says that it is done."""
    folder, notebook = Path(cell["folder"]), Path(cell["notebook"])
    metrics, running = folder / "metrics.json", Path("running") / cell["key"]
    running.parent.mkdir(parents=True, exist_ok=True)
    running.write_text(f"{platform.node()} {os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            pass  # a run that outlived the grid that started it: wait for it
        status = 0 if metrics.exists() else _execute(cell["command"], notebook, places if cell["gpu"] else [])
    finally:
        running.unlink(missing_ok=True)
    if metrics.exists() and notebook.exists():
        with atomic_path(folder / "run.ipynb") as temporary:
            shutil.copyfile(notebook, temporary)
    if status == 0:
        shutil.copyfile(metrics, Path("finished") / cell["key"] / "metrics.json")
    return status


def _execute(command: list[str], notebook: Path, places: list[str]) -> int:
    gpus = Path(f"../gpus-{platform.node()}")  # beside the folders of all grids of this machine
    printed = notebook.with_suffix(".log")
    with take_place(places, gpus) if places else contextlib.nullcontext() as gpu:
        environment = os.environ if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
        for _ in range(ATTEMPTS):
            with open(printed, "w", encoding="utf-8") as log:
                try:
                    done = subprocess.run(
                        command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
                    )
                except KeyboardInterrupt:
                    printed.unlink()  # stopped from outside: no fault of the run
                    raise
            if done.returncode == 0 or not may_pass(printed.read_text(encoding="utf-8", errors="replace")):
                break
    return done.returncode


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the notebook as well
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    todo = {cell["key"]: cell for cell in plan["todo"]}
    sys.exit(run_cell(todo[sys.argv[2]], plan["places"]))
