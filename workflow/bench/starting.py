"""Row: what one waits for at the start: importing the library, opening a store of 285 patients, notebook 00."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench.growing import write_store
from bench.sizes import Sizes
from bench.table import TIME, Figure
from bench.turns import Way, take_turns
from mixsup_lib.files import MixsupError

ROW = "start-up"
ROOT = Path(__file__).resolve().parents[2]
IMPORT = """
import json, sys, time
started = time.perf_counter()
import mixsup_lib
print(json.dumps([time.perf_counter() - started, "torch" in sys.modules]))
"""
OPEN = """
import sys, time
from bench.growing import opened
opened(sys.argv[1])
seconds = []
for _ in range(5):
    started = time.perf_counter()
    opened(sys.argv[1])
    seconds.append(time.perf_counter() - started)
print(sorted(seconds)[2])
"""


def in_a_new_python(code: str, *arguments: str) -> str:
    """What `code` prints, run by an interpreter of its own with the workflow's folder on its path."""
    lines = [f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'workflow')]!r}", code]
    command = [sys.executable, "-c", "\n".join(lines), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise MixsupError(f"start-up: an interpreter failed.\n{done.stderr}")
    return done.stdout


def notebook(path: Path) -> Callable[[], None]:
    """Execute a notebook as papermill does; the executed one is thrown away."""

    def once() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "papermill",
                path,
                Path(folder, "out.ipynb"),
                "--cwd",
                path.parent,
            ]
            options = ["--no-progress-bar", "--log-level", "ERROR", "--kernel", "python3"]
            done = subprocess.run([*command, *options], capture_output=True, text=True)
        if done.returncode:
            raise MixsupError(f"{path.name}: could not be executed.\n{done.stderr[-2000:]}")

    return once


def measure(sizes: Sizes, folder: Path, *, apart: bool = True) -> Iterator[Figure]:
    answers = [json.loads(in_a_new_python(IMPORT)) for _ in range(1 + sizes.turns)][1:]
    loaded = "torch is loaded" if any(torch for _, torch in answers) else "torch is not loaded"
    seconds = float(np.median([second for second, _ in answers]))
    yield Figure(ROW, "import mixsup_lib", seconds, TIME, reach=0.5, note=loaded)
    patients = sizes.grown_patients[-1]
    store = write_store(folder / f"grown{patients}", patients, sizes)
    seconds = float(in_a_new_python(OPEN, str(store)))
    yield Figure(ROW, f"opening a store of {patients} patients", seconds, TIME, reach=0.05)
    if sizes.notebook:
        way = Way("notebook 00", notebook, {"path": ROOT / "notebooks/00_setup.ipynb"})
        seconds = float(take_turns([way], 2, apart=apart).wall[way.name].median())
        yield Figure(ROW, way.name, seconds, TIME, reach=15.0)
