"""Kill work with SIGKILL at random moments, start it again, and see whether anything is lost, damaged or different.

    python workflow/kill_trial.py [prepare training phantom evaluation grid] [--kills N] [--seed 0]

Each job is first done once without a kill. Then it is started in a fresh folder, killed at a moment drawn from the time
that the job took in the folder before, started again in the same folder, and so on until it ends; then in the next
fresh folder, until all kills are spent (a start that ends before its moment counts as none). After every kill: no
file under its final name is half written, and what had been finished is still there, unchanged. At every end: byte for
byte the result of the job that was never killed. All on the CPU in float32, at sizes of seconds.

The process that is killed is a fork of this one, which has loaded PyTorch: so a start costs no seconds of loading. A
grid is killed with all its processes. Works in memory where /dev/shm is there: flushing to a disk takes most of the
time, and SIGKILL does not tell the two apart.
"""

from __future__ import annotations

import argparse
import hashlib
import io
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
import pandas as pd
import torch
import torch._dynamo  # noqa: F401 (the optimisers load it at their first step, which takes seconds)
from safetensors.torch import load_file

from mixsup_lib.config import make_config
from mixsup_lib.files import is_leftover
from mixsup_lib.phantom import make_patient, write_phantom
from mixsup_lib.runs import run
from mixsup_lib.slices import prepare

ROOT = Path(__file__).resolve().parent.parent
KILLS = {"prepare": 50, "training": 50, "phantom": 15, "evaluation": 15, "grid": 15}
"""Kills of a job where --kills gives no other number."""

MEMORY = Path("/dev/shm")

TRAINING = {"iterations": 30, "batch_norm_batches": 3, "checkpoint_seconds": 1e-9}
"""A checkpoint after every iteration, so that many kills fall into its writing."""

DEPENDS_ON_TIME = {
    "provenance.json",
    "SHA256SUMS",
    "checkpoint.pt",
    "examples.npz",
    "config.json",
    "metrics.json",
}
"""Not compared as bytes: they hold times, dates inside an archive, or the folder of the job."""


@dataclass(frozen=True)
class Job:
    """`work(folder, number)` does the job in `folder` (or continues it); `number` counts the starts.

    `results(folder)`: what must not depend on kills, by name. `finished(folder)`: files that must stay as they are once
    they are there. `before(folder)`: puts there what the first start finds. `in_groups`: kill its processes too.
    """

    work: Callable[[Path, int], None]
    results: Callable[[Path], dict[str, bytes]]
    finished: Callable[[Path], list[Path]]
    before: Callable[[Path], None] = lambda folder: None
    in_groups: bool = False


@dataclass
class Outcome:
    """`ends`: how often the killed job came to its end; `duration`: of the undisturbed job, seconds."""

    kills: int = 0
    ends: int = 0
    duration: float = 0.0
    seconds: float = 0.0


def settings_of(cohort: Path, folder: Path) -> dict:
    """Settings of a tiny run in float32."""
    return {
        "cohort": cohort,
        "out": folder / "runs",
        "stores": folder / "stores",
        "n_fa": 3,
        "progress": False,
        "precision": "float32",
        "device": "cpu",
        **TRAINING,
    }


def make_job(name: str, cohort: Path, scratch: Path) -> Job:
    """The job of that name on a cohort of tiny phantoms. `scratch` keeps what its starts share."""
    if name == "prepare":

        def work(folder: Path, number: int) -> None:
            grid = {"pixel_mm": 5.0, "window": (48, 48)}
            prepare(cohort, folder / "store", **grid, workers=1 + number % 2, progress=False)

        return Job(work, lambda folder: contents(folder / "store"), lambda folder: [])
    if name == "phantom":
        make_patient(0, voxel_mm=6.0)  # the template is loaded once, before the forks

        def work(folder: Path, number: int) -> None:
            write_phantom(folder / "cohort", patients=6, voxel_mm=6.0, workers=1, progress=False)

        return Job(
            work, lambda folder: contents(folder / "cohort"), lambda f: sorted(f.glob("cohort/[HL]GG/*/*"))
        )
    if name == "grid":
        return _grid(cohort)

    def work(folder: Path, number: int) -> None:
        run(make_config(**settings_of(cohort, folder)))

    def before(folder: Path) -> None:
        if name == "evaluation":
            shutil.copytree(_trained(cohort, scratch), folder, dirs_exist_ok=True)

    return Job(work, lambda folder: contents(folder / "runs"), _finished_runs, before)


def _trained(cohort: Path, scratch: Path) -> Path:
    """A folder with a run that has its last checkpoint and nothing more."""
    folder = scratch / "trained"
    if not folder.exists():
        begun = scratch / "begun"
        in_fork(lambda: run(make_config(**settings_of(cohort, begun))))
        (finished,) = [path.parent for path in begun.rglob("metrics.json")]
        for file in finished.iterdir():
            if file.name not in ("config.json", "checkpoint.pt"):
                file.unlink()
        finished.rename(finished.with_name(f"{finished.name}.partial"))
        begun.rename(folder)
    return folder


def _grid(cohort: Path) -> Job:
    scenario = {"name": "small", "compare": "supervision", "folds": [1]}
    scenario["settings"] = {"preset": "tiny", "n_fa": 3, "precision": "float32", "device": "cpu", **TRAINING}
    scenario["axes"] = {"supervision": ["standard", "mixed"]}

    def work(folder: Path, number: int) -> None:
        (folder / "small.yaml").write_text(json.dumps(scenario))
        command = [sys.executable, ROOT / "workflow/run_grid.py", "small.yaml", "--cohort", cohort]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--cores", "1"], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return Job(work, lambda folder: contents(folder / "runs"), _finished_runs, in_groups=True)


def _finished_runs(folder: Path) -> list[Path]:
    found = [path.parent for path in (folder / "runs").rglob("fold*/*/*/metrics.json")]
    found = [place for place in found if place.suffix != ".partial" and ".grid" not in place.parts]
    inside = [file for place in found for file in sorted(place.iterdir())]
    return [file for file in inside if file.name != "run.ipynb"]  # a grid copies it afterwards


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` that is no lock, log or notebook: by its name, its bytes or what they mean."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_dir() or name.startswith(".grid/") or file.suffix in (".lock", ".log", ".ipynb"):
            continue
        found[name] = _meaning(file)
    return found


def _meaning(file: Path) -> bytes:
    if file.name not in DEPENDS_ON_TIME:
        return file.read_bytes()
    if file.name == "examples.npz":
        with np.load(file, allow_pickle=False) as archive:
            return b"".join(archive[name].tobytes() for name in sorted(archive.files))
    if file.name == "metrics.json":
        content = json.loads(file.read_text())
        return json.dumps({name: content[name] for name in content if name != "config"}).encode()
    return b""


def check_whole(folder: Path) -> None:
    """Read every file under its final name; raises where one is half written."""
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.name.startswith("."):
            continue
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        if file.suffix == ".json":
            json.loads(file.read_text(encoding="utf-8"))
        elif file.suffix == ".npy":
            np.load(file, allow_pickle=False)
        elif file.suffix == ".npz":
            np.load(file, allow_pickle=False)["image"]
        elif file.suffix == ".pt":
            torch.load(file, weights_only=True)
        elif file.suffix == ".safetensors":
            load_file(file)
        elif file.suffix == ".csv":
            pd.read_csv(io.BytesIO(file.read_bytes()))
        elif file.name.endswith(".nii.gz"):
            np.asanyarray(nib.load(file).dataobj)


def digests(files: list[Path]) -> dict[Path, str]:
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def in_fork(
    work: Callable[[], None], delay: float | None = None, limit: float = 600.0, group: bool = False
) -> bool:
    """Do `work` in a fork of this process; True if it was killed (SIGKILL) after `delay` seconds, False if it ended.

    SystemExit with what it printed if it failed, and where it has not ended after `limit` seconds.
    """
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            _work_and_leave(work, said.fileno())
        started = time.monotonic()
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            passed = time.monotonic() - started
            if passed >= (limit if delay is None else delay):
                os.killpg(child, signal.SIGKILL) if group else os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                if delay is None:
                    raise SystemExit(f"still not done after {limit:.0f} s; it printed: {_text(said)}")
                return True
            time.sleep(0.0005)
        if ended[1]:
            raise SystemExit(f"a start failed: {_text(said)}")
    return False


def _work_and_leave(work: Callable[[], None], output: int) -> None:
    os.setpgid(0, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(output, "w", closefd=False)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()


def trial(job: Job, kills: int, rng: np.random.Generator, scratch: Path) -> Outcome:
    """Kill a job `kills` times; SystemExit with a sentence at the first thing that is lost, damaged or different."""
    outcome, begin = Outcome(), time.monotonic()

    def fresh(name: str) -> Path:
        folder = scratch / name
        folder.mkdir(parents=True)
        job.before(folder)
        return folder

    whole = fresh("whole")
    started = time.monotonic()
    in_fork(partial(job.work, whole, 0))
    outcome.duration = usual = time.monotonic() - started
    expected = job.results(whole)
    while outcome.kills < kills:
        folder = fresh(f"killed-{outcome.ends}")
        killed, number, first = True, 0, time.monotonic()
        while killed:
            delay = rng.uniform(0, usual) if outcome.kills < kills else None
            before = digests(job.finished(folder))
            killed = in_fork(partial(job.work, folder, number), delay, group=job.in_groups)
            number += 1
            outcome.kills += killed
            check_whole(folder)
            after = digests(job.finished(folder))
            if lost := [file for file, digest in before.items() if after.get(file) != digest]:
                raise SystemExit(
                    f"{lost[0]}: was finished, and is lost or changed after kill {outcome.kills}"
                )
        usual = time.monotonic() - first
        compare(job.results(folder), expected)
        if left := [file for file in folder.rglob(".*") if is_leftover(file)]:
            raise SystemExit(f"{left[0]}: a temporary file is left at the end")
        outcome.ends += 1
        shutil.rmtree(folder)
    outcome.seconds = time.monotonic() - begin
    return outcome


def compare(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """SystemExit where a file differs, is missing or is one too many."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            state = "differs" if name in found and name in expected else "is missing or one too many"
            raise SystemExit(f"{name}: {state} after the job was killed and continued")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", default=list(KILLS), metavar="JOB", help=", ".join(KILLS))
    parser.add_argument("--kills", type=int, help="instead of " + str(KILLS))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    call = parser.parse_args()
    if unknown := set(call.jobs) - set(KILLS):
        parser.error(f"unknown job {min(unknown)!r}; there are {', '.join(KILLS)}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        scratch = Path(place)
        cohort = write_phantom(
            scratch / "cohort", patients=10, voxel_mm=5.0, seed=3, workers=1, progress=False
        )
        for name in call.jobs:
            rng = np.random.default_rng(call.seed)
            outcome = trial(
                make_job(name, cohort, scratch), call.kills or KILLS[name], rng, scratch / f"trial-{name}"
            )
            print(
                f"{name}: {outcome.kills} kills, {outcome.ends} ends, all equal byte for byte to the undisturbed "
                f"job of {outcome.duration:.1f} s; {outcome.seconds:.0f} s in all",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
