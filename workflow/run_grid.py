"""Train the runs of a scenario that have not finished, several at a time, and make their table.

    python workflow/run_grid.py SCENARIO [--cohort FOLDER] [--cores N] [--dry-run]
    python workflow/run_grid.py SCENARIO --status

SCENARIO is a file, or the name of one in scenarios/. Runs go to runs/SCENARIO-COHORT; what has finished there is never
run again, an interrupted run resumes. docs/grid.md says more.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import torch
from grid_plan import Plan, read_plan
from grid_progress import (
    expected_time,
    failed_cells,
    has_log,
    in_words,
    progress,
    report,
)
from grid_snakemake import snakemake
from grid_train import train

from mixsup_lib.__main__ import parse_settings
from mixsup_lib.experiments.compare import gpu_places
from mixsup_lib.experiments.experiment import Scenario, cells_of, part_of, read_scenario
from mixsup_lib.files import DataError, MixsupError, SettingError, disk_full, nearest
from mixsup_lib.phantom import make_phantom

RUNS, STORES, SCENARIOS = Path("runs"), Path("data/stores"), Path("scenarios")
PHANTOMS = {
    Path("data/phantom-tiny"): {"patients": 12, "voxel_mm": 5.0},
    Path("data/phantom-seed1"): {"seed": 1},
}
"""Cohorts that are made where they are missing."""


def find_scenario(name: str) -> Scenario:
    """The scenario of a file, or by its name in scenarios/."""
    known = sorted(path.stem for path in SCENARIOS.glob("*.yaml"))
    if Path(name).suffix == ".yaml":
        return read_scenario(name)
    if name not in known:
        raise SettingError(f"no scenario {name!r}.{nearest(name, known)} There are {', '.join(known)}.")
    return read_scenario(SCENARIOS / f"{name}.yaml")


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_cohort(scenario: Scenario) -> Path:
    """The small phantom for runs of seconds, else the one that results are reported on."""
    tiny = all(config.preset == "tiny" for config in scenario.configs().values())
    return Path("data/phantom-tiny" if tiny else "data/phantom-seed1")


def make_plan(call: argparse.Namespace, scenario: Scenario, cohort: Path) -> Plan:
    """All cells, and those of this start: the missing ones of this machine's part."""
    out = (RUNS / f"{scenario.name}-{cohort.resolve().name}").resolve()
    cells, left_out = cells_of(scenario, cohort.resolve(), out, STORES.resolve())
    for why in dict.fromkeys(left_out.values()):
        first, *others = [variant for variant, reason in left_out.items() if reason == why]
        more = f" and {len(others)} more" if others else ""
        print(f"left out: {first!r}{more}. {why}")
    places = gpu_places(os.environ, torch.cuda.device_count(), call.per_gpu)
    mine = part_of(cells, *call.part)
    return Plan(scenario, cells, [cell for cell in mine if not cell.finished()], call.cores, places)


@contextmanager
def held(path: Path) -> Iterator[IO | None]:
    """Hold the lock of a grid, or None where another process does. Whoever inherits the file holds it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


def show(plan: Plan) -> None:
    """The dry run: every cell of this start, and Snakemake's count of jobs."""
    for cell in plan.todo:
        print(f"  to run: {cell.name}")
    with tempfile.TemporaryDirectory() as work:
        command = snakemake(Path(work), plan, "--dry-run", "--quiet", "rules", "host")
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"Snakemake cannot plan this: {done.stdout}{done.stderr}")
    print("\nJob stats:" + done.stdout.split("Job stats:")[-1].split("Reasons:")[0].rstrip())


def start(call: argparse.Namespace) -> None:
    """Say what there is to do, and do it unless this is a dry run."""
    scenario, cohort = chosen(call)
    if cohort in PHANTOMS and not call.dry_run:
        make_phantom(cohort, **PHANTOMS[cohort], workers=call.cores)
    if cohort in PHANTOMS and not cohort.exists():
        cells = len(scenario.variants) * len(scenario.folds) * len(scenario.seeds)
        print(f"{scenario.name} on {cohort}, a phantom that is made first: {cells} runs, none finished")
        return
    plan = make_plan(call, scenario, cohort)
    work = work_folder(call, scenario, cohort)
    finished = sum(cell.finished() for cell in plan.cells)
    counts = (
        f"{len(plan.cells)} runs, {finished} finished, {len(plan.todo)} to run, {plan.at_a_time} at a time"
    )
    print(f"{work.name}: {counts}")
    print(f"expected time: {in_words(expected_time(plan.todo, plan.at_a_time, RUNS))}", flush=True)
    if call.dry_run:
        show(plan)
        return
    with held(work.with_name(f"{work.name}.lock")) as lock:
        if lock is None:
            raise DataError(
                f"{work.name} is running already; wait for it, or see how far it is: make grid-status."
            )
        train(plan, work, RUNS, lock, call.profile)


def status(call: argparse.Namespace) -> None:
    """Say how far the latest start is."""
    work = work_folder(call, *chosen(call))
    if not (work / "plan.json").exists():
        raise DataError(f"{work.name} has not been started.")
    plan = read_plan(work / "plan.json")
    with held(work.with_name(f"{work.name}.lock")) as lock:
        if lock is None:
            print(f"{work.name} is running")
        elif failed := [cell for cell in failed_cells(plan, work) if has_log(cell, work)]:
            raise DataError(f"{work.name} is not running; {report(failed, work, len(plan.todo))}")
        else:
            print(f"{work.name} is not running")
        print(progress(plan, work, RUNS, datetime.now()))


def chosen(call: argparse.Namespace) -> tuple[Scenario, Path]:
    """The scenario with the settings and the choice of the call, and its cohort."""
    scenario = find_scenario(call.scenario)
    scenario = scenario.changed(parse_settings(call.set), folds=call.folds, seeds=call.seeds)
    scenario = scenario.only(parse_settings(call.only))
    return scenario, call.cohort or default_cohort(scenario)


def work_folder(call: argparse.Namespace, scenario: Scenario, cohort: Path) -> Path:
    """Where Snakemake works: a folder per grid and part, so that two grids do not meet."""
    number, parts = call.part
    part = f"-part{number}of{parts}" if parts > 1 else ""
    return (RUNS / ".grid" / f"{scenario.name}-{cohort.resolve().name}{part}").resolve()


def part(text: str) -> tuple[int, int]:
    """ "2/3" -> (2, 3)."""
    number, parts = text.split("/")
    return int(number), int(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", default="", help="a file, or the name of one in scenarios/")
    parser.add_argument("--cohort", type=Path, help="without it a phantom")
    parser.add_argument("--folds", nargs="+", type=int, help="instead of those of the scenario")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of those of the scenario")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="shared settings")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME=VALUES", help="only these variants")
    parser.add_argument("--cores", type=int, default=cores(), help="CPU cores to use (default: all)")
    parser.add_argument("--per-gpu", type=int, default=1, help="runs at a time on each GPU")
    parser.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="this machine's part of N")
    parser.add_argument(
        "--profile", type=Path, help="a Snakemake profile for a cluster, such as workflow/slurm"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, train nothing")
    parser.add_argument("--status", action="store_true", help="say how far the latest start is")
    call = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell's background jobs ignore it
        signal.signal(number, signal.default_int_handler)
    try:
        status(call) if call.status else start(call)
    except MixsupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if (full := disk_full(error, error.filename or RUNS / "output")) is None:
            raise
        print(full, file=sys.stderr)
        return full.exit_code
    except KeyboardInterrupt:
        print("Interrupted; the same command continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
