"""A scenario on a cohort -> its cells: one run each, where it lies, whether it has finished, how long it may take."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mixsup_lib.cohort import find_cohort
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.errors import SettingError
from mixsup_lib.runs import run_folder, split_of
from mixsup_lib.scenario import Scenario

Kind = tuple[str, ...]
"""Cohort, preset, task, supervision and hash of the settings: runs of one kind take about the same time."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid. `given`: the settings that were asked for; `folder`: where the finished run lies."""

    variant: str
    given: Mapping[str, Any]
    config: RunConfig
    folder: Path

    @property
    def name(self) -> str:
        """For people: "mixed, fold 1, seed 0"."""
        return f"{self.variant}, fold {self.config.fold}, seed {self.config.seed}"

    @property
    def key(self) -> str:
        """The run folder below `config.out`; no two cells of a grid share it."""
        return self.folder.relative_to(self.config.out).as_posix()

    @property
    def kind(self) -> Kind:
        """Runs of the same kind take about the same time."""
        return _kind(self.folder)

    def finished(self) -> bool:
        """A run folder gets its name when everything is in it."""
        return (self.folder / "metrics.json").is_file()


def cells_of(
    scenario: Scenario, cohort: str | Path, out: str | Path, stores: str | Path
) -> tuple[list[Cell], dict[str, str]]:
    """Every variant on every fold and seed of the scenario, and what does not fit.

    The second value names the variants that this cohort cannot have (too few patients, or no such labels) and why;
    their cells are left out. Raises SettingError where nothing is left, and as `find_cohort` does.
    """
    found = find_cohort(cohort)
    cells, left_out = [], {}
    where = {"cohort": str(cohort), "out": str(out), "stores": str(stores)}
    for seed in scenario.seeds:
        for fold in scenario.folds:
            for variant, own in scenario.variants.items():
                given = {**scenario.settings, **own, **where, "fold": fold, "seed": seed}
                config = make_config(**given)
                try:
                    folder = run_folder(config, split_of(config, found))
                except SettingError as error:
                    left_out[variant] = str(error)
                    continue
                cells.append(Cell(variant, given, config, folder))
    cells = [cell for cell in cells if cell.variant not in left_out]
    if not cells:
        raise SettingError(f"scenario {scenario.name} does not fit {cohort}: {min(left_out.values())}")
    return cells, left_out


def part_of(cells: Sequence[Cell], number: int, parts: int) -> list[Cell]:
    """Part `number` (from 1) of `parts`, for several machines. Each gets its share of every kind, the slow ones too."""
    if not 1 <= number <= parts:
        raise SettingError(
            f"part {number} of {parts}: expected a number from 1 to {parts}, such as 1/{parts}."
        )
    return sorted(cells, key=lambda cell: (cell.kind, cell.key))[number - 1 :: parts]


def seconds_by_kind(root: str | Path) -> dict[Kind, float]:
    """Mean time of the finished runs below `root`, by kind. A run that was interrupted does not know its time."""
    times: dict[Kind, list[float]] = {}
    for file in Path(root).resolve().rglob("fold*/*/seed*/provenance.json"):
        if not file.parent.name.endswith(".partial") and (seconds := own_seconds(file.parent)) is not None:
            times.setdefault(_kind(file.parent), []).append(seconds)
    return {kind: sum(found) / len(found) for kind, found in times.items()}


def expected_seconds(cells: Iterable[Cell], known: Mapping[Kind, float], at_a_time: int) -> float | None:
    """Time that these cells will take, `at_a_time` at once; None where no run of some kind has finished yet."""
    times = [known.get(cell.kind, math.nan) for cell in cells]
    total = max(sum(times) / at_a_time, max(times, default=0.0))
    return None if math.isnan(total) else total


def _kind(folder: Path) -> Kind:
    cohort, preset, task, _, _, supervision, name = folder.parts[-7:]
    return cohort, preset, task, supervision, name.split("-")[-1]


@cache
def own_seconds(folder: Path) -> float | None:
    """Time of a finished run, training and evaluation; None where it was interrupted and does not know."""
    try:
        record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        return None if record["resumed"] else float(record["wall_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
