"""What the estimation of the batch-norm statistics is worth: recomputed over training batches against running averages.

    python workflow/batch_norm_effect.py RUNFOLDER [RUNFOLDER ...]

The weights are those of the last iteration in both cases: a run's checkpoint still holds torch's running averages, its
final weights the recomputed means. Writes mean Dice of the test patients to data/results/batch-norm.csv and
REPRODUCTION.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from record import record

from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import evaluate
from mixsup_lib.experiments.runs import load_network, load_run, open_store
from mixsup_lib.experiments.tables import format_table
from mixsup_lib.protocol import Split
from mixsup_lib.training import set_up

TABLE = Path("data/results/batch-norm.csv")


def running_average_dice(folder: Path) -> dict:
    config, metrics = load_run(folder)
    device, precision = set_up(config)
    store = open_store(config, find_cohort(config.cohort))
    network = load_network(folder, store.shape[1], store.shape[2:]).to(device)
    state = torch.load(folder / "checkpoint.pt", map_location=device, weights_only=True)
    network.load_state_dict(state["network"])
    split = Split(**{name: tuple(patients) for name, patients in metrics.split.items()})
    per_patient, _ = evaluate(network, store, split.test, config.task, device=device, precision=precision)
    running = per_patient.groupby("region")["dice"].mean()
    return {
        "cohort": config.cohort_name,
        "fold": config.fold,
        "supervision": config.supervision,
        "seed": config.seed,
        "running_averages": running[config.regions[0]],
        "recomputed": metrics.mean_dice[config.regions[0]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    table = pd.DataFrame([running_average_dice(folder) for folder in parser.parse_args().runs])
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(TABLE, index=False, float_format="%.2f")
    record("batch-norm", format_table(table, "markdown"))


if __name__ == "__main__":
    main()
