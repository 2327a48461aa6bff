"""The plan of a grid as a file: what `run_grid.py` decides and the Snakefile and its scripts carry out."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from mixsup_lib.config import make_config
from mixsup_lib.experiments import compare
from mixsup_lib.experiments.experiment import Cell, Scenario
from mixsup_lib.experiments.runs import store_folder
from mixsup_lib.files import DataError, write_json

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Plan:
    """`cells`: the whole grid; `todo`: those this start is to run. `places`: a GPU name per run at a time, or none."""

    scenario: Scenario
    cells: list[Cell]
    todo: list[Cell]
    cores: int
    places: list[str]

    @property
    def at_a_time(self) -> int:
        """How many runs compute at once."""
        threads = max((cell.config.threads for cell in self.todo), default=1)
        by_core = max(1, self.cores // threads)
        return min(by_core, len(self.places)) if any(map(self.on_gpu, self.todo)) else by_core

    def on_gpu(self, cell: Cell) -> bool:
        """Does this cell take one of the places?"""
        return bool(self.places) and cell.config.device != "cpu"

    @property
    def table(self) -> Path:
        """Where the table of the finished cells goes."""
        return self.cells[0].config.out / "table.csv"

    def write(self, path: Path) -> None:
        """As JSON; the Snakefile reads it as its config."""
        todo = []
        for cell in self.todo:
            notebook = path.resolve().parent / "notebooks" / f"{cell.key}.ipynb"
            entry = {"key": cell.key, "folder": str(cell.folder), "notebook": str(notebook)}
            entry |= {"threads": cell.config.threads, "gpu": int(self.on_gpu(cell))}
            entry |= {"store": store_folder(cell.config).name}
            todo.append(entry | {"command": compare.papermill_command(cell.config, cell.given, notebook)})
        content = {
            "scenario": self.scenario.model_dump(),
            "cells": [[cell.variant, dict(cell.given), str(cell.folder)] for cell in self.cells],
            "todo": todo,
            "cores": self.cores,
            "places": self.places,
            "table": str(self.table),
            "plan": str(path),
            "python": sys.executable,
            "scripts": str(HERE),
        }
        write_json(path, content)


def read_plan(path: Path) -> Plan:
    """The plan that was written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as the plan of a grid ({error}); start the grid.") from None
    cells = [
        Cell(variant, given, make_config(**given), Path(folder))
        for variant, given, folder in content["cells"]
    ]
    keys = {cell["key"] for cell in content["todo"]}
    todo = [cell for cell in cells if cell.key in keys]
    return Plan(
        Scenario.model_validate(content["scenario"]), cells, todo, content["cores"], content["places"]
    )
