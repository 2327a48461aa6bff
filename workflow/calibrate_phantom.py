"""Calibrate the phantom: standard supervision against the paper's own curve (70 / 78 / 84 / 87 Dice).

    python workflow/calibrate_phantom.py NAME [setting=value ...] [--fa 5 15 30 all] [--folds 1 2 3] [--jobs 2]

Writes a phantom of seed 0 (the tuning seed) with the given `PhantomSettings`, trains standard supervision only - the
mixed result is an outcome and never looked at here - and adds the Dice of every fold to data/results/calibration.csv,
where every calibration so far stays, and their means to REPRODUCTION.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import yaml
from record import record

from mixsup_lib.experiments.runs import load_run
from mixsup_lib.experiments.tables import format_table
from mixsup_lib.phantom import make_phantom
from mixsup_lib.phantom.settings import PhantomSettings

COHORTS, RUNS, TABLE = (
    Path("data/calibration"),
    Path("runs/calibration"),
    Path("data/results/calibration.csv"),
)
KNOBS = (
    "conspicuity_low",
    "conspicuity_flair",
    "conspicuity_t2",
    "site_spread",
    "lesion_count",
    "noise",
    "rater_mm",
)
CELL = ["phantom", "n_fa", "fold", "iterations"]
ALL = "all"
ALL_ITERATIONS = 6000
"""Iterations of the all-annotated line, which needs longer until it no longer improves."""


def command(cohort: Path, n_fa: int, fold: int, iterations: int | None) -> list[str]:
    settings = {"cohort": cohort, "preset": "workshop", "supervision": "standard", "n_fa": n_fa, "fold": fold}
    settings |= {"out": RUNS, "progress": False}
    if iterations or n_fa > 30:
        settings |= {"iterations": iterations or ALL_ITERATIONS}
    return [sys.executable, "-m", "mixsup_lib", "run", "--set", *(f"{k}={v}" for k, v in settings.items())]


def train(cohort: Path, n_fa: int, fold: int, iterations: int | None) -> None:
    done = subprocess.run(command(cohort, n_fa, fold, iterations), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    _, metrics = load_run(done.stdout.splitlines()[-1])
    print(f"{cohort.name}, {n_fa} FA, fold {fold}: {metrics.mean_dice['whole_tumor']:.1f}", flush=True)


def knobs(cohort: str) -> str:
    """The settings of a phantom that calibrations turn, as text."""
    written = json.loads((COHORTS / cohort / "phantom.json").read_text(encoding="utf-8"))["settings"]
    return "; ".join(f"{name}={written[name]}" for name in KNOBS)


def write_table() -> pd.DataFrame:
    """A row per finished run of any calibration: those already in the table, and the run folders."""
    rows = []
    for path in sorted(RUNS.rglob("metrics.json")):
        config, metrics = load_run(path.parent)
        name = config.cohort_name
        settings = {
            "phantom": name,
            "n_fa": config.n_fa,
            "fold": config.fold,
            "iterations": config.iterations,
        }
        dice = {
            "mean_dice": metrics.mean_dice["whole_tumor"],
            "median_dice": metrics.median_dice["whole_tumor"],
        }
        rows.append({**settings, **dice, "settings": knobs(name)})
    earlier = [pd.read_csv(TABLE)] if TABLE.exists() else []
    table = pd.concat([*earlier, pd.DataFrame(rows)]).drop_duplicates(CELL, keep="last")
    table = table.sort_values(["phantom", "iterations", "n_fa", "fold"])
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(TABLE, index=False, float_format="%.2f")
    by_scenario = table.groupby(["phantom", "settings", "iterations", "n_fa"], sort=False)["mean_dice"]
    means = by_scenario.agg(mean="mean", lowest="min", highest="max", folds="count").reset_index()
    record("calibration", format_table(means, "markdown"))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--fa", nargs="+", default=["5", "15", "30", ALL])
    parser.add_argument("--folds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--iterations", type=int, help="fewer, for a first look")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    call = parser.parse_args()
    changed = {key: yaml.safe_load(value) for key, value in (pair.split("=") for pair in call.settings)}
    cohort = COHORTS / f"phantom-{call.name}"
    make_phantom(
        cohort, patients=call.patients, seed=0, settings=PhantomSettings(**changed), workers=call.jobs
    )
    everyone = call.patients - call.patients // 5
    cells = [(everyone if fa == ALL else int(fa), fold) for fa in call.fa for fold in call.folds]
    first, *rest = cells
    train(cohort, *first, call.iterations)  # prepares the slices for the others
    with ThreadPoolExecutor(call.jobs) as pool:
        list(pool.map(lambda cell: train(cohort, *cell, call.iterations), rest))
    table = write_table()
    table = table[table["phantom"] == cohort.name]
    print(table.groupby(["iterations", "n_fa"])["mean_dice"].agg(["mean", "min", "max", "count"]).round(1))


if __name__ == "__main__":
    main()
