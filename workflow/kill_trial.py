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
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # noqa: F401 (the optimisers load it at their first step, which takes seconds)
from forks import in_fork
from kill_jobs import Job, check_whole, digests, make_job

from mixsup_lib.files import is_leftover
from mixsup_lib.phantom import make_phantom

KILLS = {"prepare": 50, "training": 50, "phantom": 15, "evaluation": 15, "grid": 15}
"""Kills of a job where --kills gives no other number."""

MEMORY = Path("/dev/shm")


@dataclass
class Outcome:
    """`ends`: how often the killed job came to its end; `duration`: of the undisturbed job, seconds."""

    kills: int = 0
    ends: int = 0
    duration: float = 0.0
    seconds: float = 0.0


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
        cohort = make_phantom(
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
