"""One step of a grid, as the Snakefile calls it, in the grid's own folder.

python workflow/grid_step.py store PLAN STORE [--workers N]
python workflow/grid_step.py run PLAN CELL
python workflow/grid_step.py table PLAN
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grid_plan import Plan, read_plan

from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments import runs, tables
from mixsup_lib.experiments.runs import open_store, store_folder
from mixsup_lib.experiments.tables import (
    dice_by_variant,
    paper_tables,
    variant_table,
    write_tables,
)
from mixsup_lib.files import MixsupError, atomic_path, write_text


def prepare_store(plan: Plan, name: str, workers: int) -> None:
    """The prepared slices that the cells named by `name` share."""
    cell = next(cell for cell in plan.todo if store_folder(cell.config).name == name)
    open_store(cell.config, find_cohort(cell.config.cohort), workers=workers)


def make_table(plan: Plan) -> str:
    """Write table.csv and table.md beside the runs, of all finished cells of the grid; returns the text.

    A grid of standard against mixed supervision also gets the paper's tables 1 to 4 in `tables`.
    """
    finished = [cell for cell in plan.cells if cell.finished()]
    frame = runs.collect([cell.folder for cell in finished])
    if plan.scenario.compare == "supervision":
        table = tables.beside_paper(tables.comparison_table(frame))
        write_tables(paper_tables(frame), plan.table.parent / "tables")
    else:
        table = variant_table(dice_by_variant(frame, plan.scenario.configs()), plan.scenario.against())
    of = f"{len(finished)} of {len(plan.cells)} runs have finished."
    text = f"{tables.caption(frame['cohort'].iloc[0])}; {of}\n\n{tables.format_table(table, 'markdown')}\n"
    write_text(plan.table.with_suffix(".md"), text)
    with atomic_path(plan.table) as temporary:
        table.to_csv(temporary, index=False)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("store", "table"):
        steps.add_parser(name).add_argument("plan", type=Path)
    steps.choices["store"].add_argument("store")
    steps.choices["store"].add_argument("--workers", type=int, default=1)
    call = parser.parse_args()
    try:
        plan = read_plan(call.plan)
        if call.step == "store":
            prepare_store(plan, call.store, call.workers)
        else:
            make_table(plan)
    except MixsupError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
