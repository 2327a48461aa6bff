"""The table of speeds: one figure a line, each with what it is measured against, and where it was measured."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from bench_file import slug

from bench.turns import Turns
from mixsup_lib import __version__
from mixsup_lib.experiments.provenance import commit, cpu_model
from mixsup_lib.experiments.tables import format_table

RESULTS = Path("data/results")
FASTER, COST, SHARE, TIME, EQUAL = "times faster", "times the cost", "per cent", "seconds", "per cent equal"
"""What a figure can be; more is better for the first and the last, less for the others."""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    `ours` and `against` name the two ways ("" for a figure of one), `ours_value` and `against_value` are medians in
    `unit`; `figure` is a `measure`, `low` and `high` its quartiles over the turns, `by_cpu` the same in CPU time.
    `reach`: what was aimed at, NaN where only the figure counts.
    """

    row: str
    ours: str
    figure: float
    measure: str
    against: str = ""
    ours_value: float = float("nan")
    against_value: float = float("nan")
    unit: str = ""
    low: float = float("nan")
    high: float = float("nan")
    by_cpu: float = float("nan")
    reach: float = float("nan")
    threads: int = 1
    note: str = ""

    @property
    def reached(self) -> str:
        """yes, no, or "" where nothing was aimed at."""
        if pd.isna(self.reach):
            return ""
        more = self.measure in (FASTER, EQUAL)
        return "yes" if (self.figure >= self.reach if more else self.figure <= self.reach) else "no"

    def line(self) -> str:
        """What the runner prints."""
        against = f" against {self.against}" if self.against else ""
        values = ""
        if not pd.isna(self.against_value):
            values = f" ({_number(self.ours_value)} and {_number(self.against_value)} {self.unit})"
        goal = "at least" if self.measure in (FASTER, EQUAL) else "at most"
        aim = f"; {goal} {self.reach:g} was aimed at: {self.reached}" if self.reached else ""
        return f"{self.row}: {self.ours}{against}: {said(self.figure, self.measure)}{values}{aim}"


def compare(
    turns: Turns, row: str, ours: str, against: str, measure: str = FASTER, unit: str = "ms", **rest
) -> Figure:
    """Median time of `ours` and of `against`, and their quotient: how many times faster, or what it costs in times."""
    scale = {"ms": 1000, "s": 1}[unit]
    first, second = (against, ours) if measure == FASTER else (ours, against)
    quotients = turns.wall[first] / turns.wall[second]
    wall, cpu = turns.wall.median(), turns.cpu.median()
    return Figure(
        row=row,
        ours=ours,
        against=against,
        ours_value=scale * wall[ours],
        against_value=scale * wall[against],
        unit=unit,
        figure=wall[first] / wall[second],
        low=quotients.quantile(0.25),
        high=quotients.quantile(0.75),
        by_cpu=cpu[first] / cpu[second],
        measure=measure,
        **rest,
    )


def compare_memory(turns: Turns, row: str, ours: str, against: str, kind: str, **rest) -> Figure:
    """What `ours` holds in times of `against`; `kind`: "peak" or "own" of `Turns.memory`."""
    held = {way: turns.memory[way].get(kind, float("nan")) for way in (ours, against)}
    return Figure(
        row=row,
        ours=ours,
        against=against,
        ours_value=held[ours],
        against_value=held[against],
        unit="MB",
        figure=held[ours] / held[against],
        measure=COST,
        **rest,
    )


def provenance() -> dict[str, str | int]:
    """Code, versions, machine and day, for each line of the table."""
    packages = {name: version(name) for name in ("torch", "monai", "numpy", "nibabel")}
    return {
        "commit": commit() or "unknown",
        "mixsup_lib": __version__,
        "python": platform.python_version(),
        **packages,
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def to_frame(figures: list[Figure], where: dict[str, str | int]) -> pd.DataFrame:
    """The table as it is written: the fields of `Figure`, `reached`, and the provenance."""
    rows = [{**asdict(figure), "reached": figure.reached} for figure in figures]
    return pd.DataFrame(rows).assign(**where)


def file_name(cpu: str) -> str:
    """bench-<model of the CPU>.csv."""
    return f"bench-{slug(cpu)}.csv"


def recorded(folder: Path = RESULTS) -> list[pd.DataFrame]:
    """The recorded tables of CPUs, one a machine, in the order of their file names."""
    paths = [path for path in sorted(folder.glob("bench-*.csv")) if not path.name.startswith("bench-gpu-")]
    return [
        pd.read_csv(path, keep_default_na=False, na_values={name: "" for name in NUMBERS}) for path in paths
    ]


NUMBERS = ("figure", "ours_value", "against_value", "low", "high", "by_cpu", "reach")


def to_text(table: pd.DataFrame) -> str:
    """The table of one machine in Markdown, below a line that says where it was measured."""
    first, rows = table.iloc[0], []
    for entry in table.itertuples():
        goal = "at least" if entry.measure in (FASTER, EQUAL) else "at most"
        aim = "" if pd.isna(entry.reach) else f"{goal} {entry.reach:g}: {entry.reached}"
        rows.append((entry.row, entry.ours, entry.against, said(entry.figure, entry.measure), aim))
    shown = pd.DataFrame(rows, columns=["what", "ours", "against", "figure", "aimed at"])
    where = f"{first['cpu']}, {first['cores']} cores, torch {first['torch']}, MONAI {first['monai']}, {first['date']}"
    return f"{where} (commit {first['commit']}):\n\n{format_table(shown, 'markdown')}"


def in_short(tables: list[pd.DataFrame]) -> str:
    """What the README shows: each row's first figure with an aim, a column per machine, in Markdown."""
    lines, names = {}, []
    for number, table in enumerate(tables, start=1):
        first = table.iloc[0]
        name = (
            first["cpu"]
            if len({one["cpu"][0] for one in tables}) == len(tables)
            else f"{first['cpu']} ({number})"
        )
        names.append(name)
        aims = table[table["reach"].notna()].drop_duplicates("row")
        for entry in aims.itertuples():
            against = f" against {entry.against}" if entry.against else ""
            line = lines.setdefault(entry.row, {"what": f"{entry.row}: {entry.ours}{against}"})
            line[name] = said(entry.figure, entry.measure)
    shown = pd.DataFrame(lines.values(), columns=["what", *names]).fillna("")
    return format_table(shown, "markdown")


def said(figure: float, measure: str) -> str:
    """For example "3.42 times faster"; labels that are nearly all equal get more digits."""
    return f"{_number(figure, 7 if measure == EQUAL else 3)} {measure}"


def _number(value: float, digits: int = 3) -> str:
    """So many significant digits, no exponent, whole numbers whole."""
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-")
