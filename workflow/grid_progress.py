"""What a grid says of itself: how far it is, when it may end, which runs failed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from grid_plan import Plan

from mixsup_lib.experiments.experiment import Cell, expected_seconds, own_seconds, seconds_by_kind
from mixsup_lib.experiments.runs import store_folder

NAMED = 10
"""As many failed runs are named in one sentence."""

NOTHING = "no output"


def expected_time(cells: list[Cell], at_a_time: int, runs: Path) -> float | None:
    """Seconds that these cells will take, judged by the finished runs below `runs`; None where that is not known."""
    return expected_seconds(cells, seconds_by_kind(runs), at_a_time) if cells else 0.0


def in_words(seconds: float | None) -> str:
    """ "about 3 min", or that it is not known."""
    if seconds is None:
        return "unknown until one run of each kind has finished"
    if seconds < 60:
        return "under a minute"
    minutes = seconds / 60
    if minutes < 120:
        return f"about {minutes:.0f} min"
    return f"about {minutes / 60:.0f} h" if minutes < 48 * 60 else f"about {minutes / 60 / 24:.1f} days"


def progress(plan: Plan, work: Path, runs: Path, now: datetime) -> str:
    """One line: done, running, left, and when the end is expected."""
    unfinished = [cell for cell in plan.todo if not cell.finished()]
    running = sum(path.is_file() for path in (work / "running").rglob("*"))
    seconds = expected_time(unfinished, plan.at_a_time, runs)
    end = in_words(None) if seconds is None else f"{now + timedelta(seconds=seconds):%a %H:%M}"
    done = len(plan.todo) - len(unfinished)
    return (
        f"{now:%H:%M}  {done} done, {running} running, {len(unfinished) - running} left; expected end: {end}"
    )


def overhead(plan: Plan, seconds: float) -> str:
    """How long this start took, beside what its runs took by themselves: training and evaluation.

    Their quotient counts all runs that may compute at once, so that places without a run count too.
    """
    own = [own_seconds(cell.folder) for cell in plan.todo]
    took = f"{len(plan.todo)} runs in {seconds:.0f} s, {plan.at_a_time} at a time"
    if not own or None in own:
        return f"{took}."
    return f"{took}; by themselves {sum(own):.0f} s, a factor of {seconds * plan.at_a_time / sum(own):.2f}."


def failed_cells(plan: Plan, work: Path) -> list[Cell]:
    """Cells of this start that did not come to their end."""
    return [cell for cell in plan.todo if not (work / "finished" / cell.key / "metrics.json").exists()]


def has_log(cell: Cell, work: Path) -> bool:
    """Did the notebook of this cell print a fault?"""
    return last_line(work / "notebooks" / f"{cell.key}.log") != NOTHING


def report(failed: list[Cell], work: Path, of: int) -> str:
    """One sentence that names the cells that failed, with the reason and the notebook of the first."""
    for store in {store_folder(cell.config).name for cell in failed}:
        if not (work / "prepared" / store).exists():
            return f"the slices {store} could not be prepared: {_why(work / f'prepare-{store}.log', work)}"
    names = "; ".join(cell.name for cell in failed[:NAMED])
    more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
    notebook = work / "notebooks" / f"{failed[0].key}.ipynb"
    why = _why(notebook.with_suffix(".log"), work)
    return f"{len(failed)} of {of} runs failed ({names}{more}), the first with {why!r}; its notebook is {notebook}."


def _why(log: Path, work: Path) -> str:
    """What the job printed last; where it never began, what Snakemake says of it, such as a cluster's refusal."""
    if (printed := last_line(log)) != NOTHING:
        return printed
    snakemake = work / "snakemake.log"
    lines = snakemake.read_text(encoding="utf-8", errors="replace").splitlines() if snakemake.exists() else []
    messages = [line.strip().removeprefix("message: ") for line in lines if "message: " in line]
    return messages[0] if messages else NOTHING


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), NOTHING)
