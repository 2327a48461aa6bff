"""Train the variants of a scenario file that are not there yet, and record their comparison.

    python workflow/run_scenario.py scenarios/ladder.yaml COHORT [--folds 1 2] [--seeds 0 1] [--also RUNS] [--dry-run]

Runs go to runs/SCENARIO-COHORT, one after the other; finished ones there, and in the folders named by `--also`, are not
trained again, an interrupted one resumes. Then data/results/SCENARIO-COHORT.csv (a row per run, test patient and
region, with its provenance), the table between the markers `results:SCENARIO-COHORT` of REPRODUCTION.md, and
docs/SCENARIO-COHORT.png.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
from record import record

from mixsup_lib.experiments import pictures, style, tables
from mixsup_lib.experiments.experiment import Scenario, read_scenario
from mixsup_lib.experiments.runs import collect
from mixsup_lib.experiments.tables import dice_by_variant, format_table, runs_of, variant_table
from mixsup_lib.files import DataError, MixsupError, SettingError, atomic_path

RESULTS, PICTURES = Path("data/results"), Path("docs")


def finished(folders: list[Path], cohort: str) -> pd.DataFrame | None:
    """The finished runs of the cohort; None where there is no finished run at all."""
    there = [folder for folder in folders if folder.exists()]
    try:
        frame = collect(there)
        return frame[frame["cohort"] == cohort]
    except DataError:
        if any(next(folder.rglob("metrics.json"), None) for folder in there):
            raise
        return None


def missing(scenario: Scenario, cells: list[dict], frame: pd.DataFrame | None) -> list[tuple[str, dict]]:
    """(variant, cell) of every run that is not in `frame`."""
    left = []
    for cell in cells:
        for name, config in scenario.configs().items():
            runs = frame if frame is None else runs_of(frame, config)
            if runs is None or runs.query("fold == @cell['fold'] and seed == @cell['seed']").empty:
                left.append((name, cell))
    return left


def train(scenario: Scenario, variant: str, cell: dict) -> None:
    settings = {**scenario.settings, **scenario.variants[variant], **cell}
    pairs = [f"{key}={value}" for key, value in settings.items()]
    subprocess.run([sys.executable, "-m", "mixsup_lib", "run", "--set", *pairs], check=True)


def write(scenario: Scenario, name: str, frame: pd.DataFrame) -> None:
    configs = scenario.configs()
    kept = pd.concat([runs_of(frame, config) for config in configs.values()])
    with atomic_path(RESULTS / f"{name}.csv") as temporary:
        kept.drop(columns="folder").to_csv(temporary, index=False, float_format="%.4f")
    dice = dice_by_variant(kept, configs)
    table = variant_table(dice, scenario.against())
    caption = tables.caption(kept["cohort"].iloc[0])
    figure = pictures.variant_ladder(dice, table, title=caption)
    with atomic_path(PICTURES / f"{name}.png") as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    print(style.alt_text(figure))
    record(name, f"{caption}\n\n{format_table(table, 'markdown')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--folds", nargs="+", type=int, help="instead of those of the scenario")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of those of the scenario")
    parser.add_argument(
        "--also", nargs="+", type=Path, default=[], help="folders with runs that may be used too"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what is missing, train nothing")
    call = parser.parse_args()
    try:
        scenario = read_scenario(call.scenario).changed({}, folds=call.folds, seeds=call.seeds)
        if scenario.compare == "supervision":
            raise SettingError(
                f"{call.scenario}: compares the two kinds of supervision: `make grid` trains it, "
                "workflow/record_results.py records it."
            )
        name = f"{scenario.name}-{call.cohort.name}"
        out = Path("runs") / name
        cells = [{"fold": fold, "seed": seed} for fold in scenario.folds for seed in scenario.seeds]
        left = missing(scenario, cells, finished([out, *call.also], call.cohort.name))
        print(f"{len(cells) * len(scenario.variants)} runs, {len(left)} to train")
        for number, (variant, cell) in enumerate(left, start=1):
            print(f"{number} of {len(left)}: {variant}, fold {cell['fold']}, seed {cell['seed']}", flush=True)
            if not call.dry_run:
                train(scenario, variant, {**cell, "cohort": call.cohort, "out": out})
        if not call.dry_run:
            frame = finished([out, *call.also], call.cohort.name)
            cell = frame["fold"].isin(scenario.folds) & frame["seed"].isin(scenario.seeds)
            write(scenario, name, frame[cell])
    except MixsupError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
