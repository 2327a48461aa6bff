"""Run the cells of a plan: start Snakemake, say how far it is, end on the table."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from grid_plan import Plan
from grid_progress import failed_cells, last_line, overhead, progress, report
from grid_snakemake import snakemake
from grid_step import make_table

from mixsup_lib.experiments.experiment import Cell
from mixsup_lib.files import DataError, stopped_by_full_disk

BETWEEN_LINES = 60.0
"""Seconds between two lines of progress."""


def train(plan: Plan, work: Path, runs: Path, lock: IO, profile: Path | None = None) -> None:
    """Start Snakemake, say once a minute how far it is, end on the table. DataError names the cells that failed."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    started = time.monotonic()
    with open(work / "snakemake.log", "w") as log:
        process = subprocess.Popen(
            snakemake(work, plan, profile=profile),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=[lock.fileno()],
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(BETWEEN_LINES)
                except subprocess.TimeoutExpired:
                    print(progress(plan, work, runs, datetime.now()), flush=True)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # Snakemake starts no other run, but waits for those
            stop_runs(work)
            process.wait()
            raise
    if failed := failed_cells(plan, work):
        try:
            print(make_table(plan))
        except DataError as error:
            print(f"no table yet: {error}")
        refuse_full_disk(work, failed)
        raise DataError(report(failed, work, len(plan.todo)))
    if process.returncode:
        refuse_full_disk(work, [])
        raise DataError(f"the table could not be made: {last_line(work / 'table.log')}")
    print(plan.table.with_suffix(".md").read_text(encoding="utf-8"))
    print(overhead(plan, time.monotonic() - started))


def refuse_full_disk(work: Path, failed: list[Cell]) -> None:
    """DiskFullError where the logs of this start say so, or say nothing on a full disk."""
    logs = [work / "notebooks" / f"{cell.key}.log" for cell in failed]
    for log in (*logs, *work.glob("prepare-*.log"), work / "table.log", work / "snakemake.log"):
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        if full := stopped_by_full_disk(text, log):
            raise full


def stop_runs(work: Path) -> None:
    """End the runs that compute now on this machine; each continues from its checkpoint later."""
    for file in (work / "running").rglob("*"):
        with suppress(OSError, ValueError):  # it may end by itself meanwhile
            machine, process = file.read_text().rsplit(maxsplit=1)
            if machine == platform.node():
                os.kill(int(process), signal.SIGTERM)
