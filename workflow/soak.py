"""Kill a job at random moments, start it again until it ends, and compare the end with a job that was left alone.

    python workflow/soak.py [prepare training grid] [--kills 20] [--seed 0]

Each job is first done once without a kill. Then it is started in a fresh folder, killed with all its processes
(SIGKILL) at a moment drawn from the time that the last folder took, started again in the same folder until it ends, and
so on in the next folder until all kills are spent. After every kill, no file under its final name is half written. At
every end, the results are those of the job that was left alone, byte for byte. All on the CPU in float32, in seconds.

What is killed is a fork of this process, which has loaded PyTorch already, so that kills fall into the work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # noqa: F401 (the optimisers load it at their first step, which takes seconds)
from safetensors.torch import load_file

from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import run
from mixsup_lib.files import is_leftover
from mixsup_lib.phantom import make_phantom
from mixsup_lib.slices import prepare

ROOT = Path(__file__).resolve().parent.parent
TRAINING = {"n_fa": 3, "precision": "float32", "device": "cpu", "progress": False}
TRAINING |= {"iterations": 30, "batch_norm_batches": 3, "checkpoint_seconds": 1e-9}
"""A checkpoint after every iteration, so that many kills fall into its writing."""
READ = {".json": json.loads, ".npy": np.load, ".npz": np.load, ".safetensors": load_file}


def prepare_slices(cohort: Path, folder: Path, start: int) -> None:
    """With one process and with two, by turns."""
    prepare(cohort, folder / "store", pixel_mm=5.0, window=(48, 48), workers=1 + start % 2, progress=False)


def train(cohort: Path, folder: Path, start: int) -> None:
    run(make_config(cohort=cohort, out=folder / "runs", stores=folder / "stores", **TRAINING))


def train_grid(cohort: Path, folder: Path, start: int) -> None:
    experiment = {"name": "small", "compare": "supervision", "folds": [1], "settings": TRAINING}
    experiment["axes"] = {"supervision": ["standard", "mixed"]}
    (folder / "small.yaml").write_text(json.dumps(experiment))
    command = [sys.executable, "-m", "mixsup_lib", "compare", "small.yaml", "--data", cohort, "--jobs", "1"]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


JOBS: dict[str, Callable[[Path, Path, int], None]] = {"prepare": prepare_slices, "training": train, "grid": train_grid}
"""Each takes a cohort, the folder to work in and how often it was started there before."""


def results(folder: Path) -> dict[str, bytes]:
    """What must not depend on kills, by name: slices and their records, weights, histories, scores, scans."""
    same = ("*.npy", "*.safetensors", "*.nii.gz", "history.csv", "per_patient.csv", "slice_labels.csv")
    files = [*(file for pattern in same for file in folder.rglob(pattern)), *folder.glob("store*/**/*.json")]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def check_whole(folder: Path) -> None:
    """Read every file under its final name; raises where one is half written."""
    for file in folder.rglob("*"):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
            if file.suffix == ".pt":
                torch.load(file, weights_only=True)
            elif read := READ.get(file.suffix):
                read(file.read_text() if file.suffix == ".json" else file)


def soak(job: Callable, cohort: Path, kills: int, rng: np.random.Generator, scratch: Path) -> tuple[int, float]:
    """Kill a job so often; SystemExit with a sentence at the first difference.

    Returns how often the killed job came to its end and the seconds of the job that was left alone.
    """
    (scratch / "alone").mkdir(parents=True)
    alone = usual = in_fork(job, cohort, scratch / "alone", 0)
    expected, left, ends = results(scratch / "alone"), kills, 0
    while left:
        folder, started, start = scratch / f"killed{ends}", time.monotonic(), 0
        folder.mkdir()
        while in_fork(job, cohort, folder, start, rng.uniform(0, usual) if left else np.inf) is None:
            check_whole(folder)
            left, start = left - 1, start + 1
        usual = time.monotonic() - started
        found = results(folder)
        for name in sorted(found.keys() | expected.keys()):
            if found.get(name) != expected.get(name):
                raise SystemExit(f"{name}: another file than that of the job that was left alone")
        if leftover := [file for file in folder.rglob(".*") if is_leftover(file)]:
            raise SystemExit(f"{leftover[0]}: a temporary file is left at the end")
        ends += 1
        shutil.rmtree(folder)
    return ends, alone


def in_fork(job: Callable, cohort: Path, folder: Path, start: int, delay: float = np.inf) -> float | None:
    """The seconds a job took in a fork of this process, or None if it was killed after `delay` seconds."""
    with open(folder.with_suffix(".log"), "w+") as log:
        began, child = time.monotonic(), os.fork()
        if child == 0:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                job(cohort, folder, start)
                os._exit(0)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
                os._exit(1)
        os.setpgid(child, child)
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            if time.monotonic() - began >= delay:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return None
            time.sleep(0.0005)
        if ended[1]:
            log.seek(0)
            raise SystemExit(f"a start failed: {log.read().strip()}")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"some of {', '.join(JOBS)} (default: all)")
    parser.add_argument("--kills", type=int, default=20, help="how often each is killed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    call = parser.parse_args()
    if unknown := set(call.jobs) - set(JOBS):
        parser.error(f"unknown job {min(unknown)!r}; there are {', '.join(JOBS)}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        cohort = make_phantom(Path(scratch, "c"), patients=10, voxel_mm=5.0, workers=1, progress=False)
        for name in call.jobs or JOBS:
            place, rng = Path(scratch, name), np.random.default_rng(call.seed)
            ends, alone = soak(JOBS[name], cohort, call.kills, rng, place)
            print(f"{name} ({alone:.1f} s): {call.kills} kills, {ends} ends, each equal byte for byte", flush=True)


if __name__ == "__main__":
    main()
