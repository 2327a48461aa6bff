"""Make data/lessons: trained weights, histories and three cases that the notebooks 05 and 06 load.

    python workflow/lesson_files.py STANDARD_RUN MIXED_RUN [--out data/lessons]

Takes the two arms of one fold, finished on a phantom with a cut-out window (presets tiny and workshop), and the phantom
cohort itself where the runs' settings say it is. Kernels are rounded to float16; lessons.json records the Dice of the
cases before and after, and where everything comes from. The files are phantoms only: a cohort without phantom.json is
refused.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from record import thinned
from safetensors.torch import load_file, save_file

from mixsup_lib.cohort import Case
from mixsup_lib.config import RunConfig
from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import dice
from mixsup_lib.experiments.runs import RunMetrics, load_run, read_history
from mixsup_lib.files import DataError, SettingError, atomic_path, write_json
from mixsup_lib.sampling import task_labels
from mixsup_lib.teaching.lessons import Lessons, read_lessons

CASE_RULES = {
    "median": "the test patient in the middle by Dice under mixed supervision",
    "gained": "the test patient who gains most Dice points from mixed supervision",
    "worst": "the test patient with the lowest Dice under mixed supervision",
}
"""Which test patients are shipped, and under which name. They are chosen, so they say nothing about the mean."""
RECORDED = ("commit", "mixsup_lib", "packages", "cpu", "device", "precision", "data_fingerprint", "finished")


def write_lessons(standard: Path, mixed: Path, out: Path, *, command: str = "") -> Lessons:
    """Write the folder anew and read it back. Raises SettingError for a cohort that is no phantom."""
    runs = {"standard": standard, "mixed": mixed}
    loaded = {name: load_run(run) for name, run in runs.items()}
    cohort = find_cohort(loaded["mixed"][0].cohort)
    if not (cohort.folder / "phantom.json").is_file():
        raise SettingError(f"{cohort.folder}: holds no phantom.json; scans of people are never shipped.")
    tables = {name: pd.read_csv(run / "per_patient.csv") for name, run in runs.items()}
    chosen = choose_cases(tables["standard"], tables["mixed"])
    patients = {name: cohort[patient] for name, patient in chosen.items()}
    cases = {name: replace(p.read_images(), labels=p.read_labels()) for name, p in patients.items()}
    out.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.safetensors", "*.csv", "*.npz", "lessons.json"):
        for old in out.glob(pattern):
            old.unlink()
    record = {"command": command, "phantom": json.loads((cohort.folder / "phantom.json").read_text())}
    record["runs"] = {name: write_arm(out, name, run, *loaded[name]) for name, run in runs.items()}
    record["cases"] = {name: write_case(out, name, case) for name, case in cases.items()}
    write_json(out / "lessons.json", record)
    lessons = read_lessons(out)
    for name, case in lessons.cases.items():
        truth = task_labels(case.labels, lessons.arms["mixed"].config.task)
        record["cases"][name]["dice_of_the_run"] = {arm: _dice_of(tables[arm], case.patient) for arm in runs}
        record["cases"][name]["dice_of_these_weights"] = {
            arm: round(dice(lessons.arms[arm].predict(case)[0], truth), 3) for arm in runs
        }
    write_json(out / "lessons.json", record)
    return read_lessons(out)


def choose_cases(standard: pd.DataFrame, mixed: pd.DataFrame) -> dict[str, str]:
    """`CASE_RULES` applied to two per_patient.csv: rule -> patient, each patient at most once."""
    arms = {"standard": standard, "mixed": mixed}
    both = pd.DataFrame({name: table.set_index("patient")["dice"] for name, table in arms.items()}).dropna()
    orders = {
        "worst": both["mixed"],
        "gained": both["standard"] - both["mixed"],
        "median": (both["mixed"] - both["mixed"].median()).abs(),
    }
    chosen: dict[str, str] = {}
    for name, order in orders.items():
        chosen[name] = next(p for p in order.sort_values().index if p not in chosen.values())
    return {name: chosen[name] for name in CASE_RULES}


def write_arm(out: Path, name: str, run: Path, config: RunConfig, metrics: RunMetrics) -> dict:
    """Weights (U-Net and branch in a file each), history and test patients of one run; returns what is recorded."""
    weights = {key: small(tensor) for key, tensor in load_file(run / "weights.safetensors").items()}
    branch = {key: tensor for key, tensor in weights.items() if key.startswith("branches.")}
    parts = {"unet": {key: tensor for key, tensor in weights.items() if key not in branch}}
    parts |= {"branch": branch} if branch else {}
    for part, tensors in parts.items():
        with atomic_path(out / f"{name}-{part}.safetensors") as temporary:
            save_file(tensors, temporary)
    tables = {
        "history": (thinned(read_history(run)), "%.5g"),
        "per-patient": (pd.read_csv(run / "per_patient.csv"), "%.5f"),
    }
    for part, (table, form) in tables.items():
        with atomic_path(out / f"{name}-{part}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format=form)
    provenance = json.loads((run / "provenance.json").read_text(encoding="utf-8"))
    settings = {**config.settings(), "cohort": config.cohort_name}
    return {
        "settings": {key: value for key, value in settings.items() if key not in ("out", "stores")},
        "in_channels": weights["unet.encoder.0.0.0.weight"].shape[1],
        "weights": [f"{name}-{part}.safetensors" for part in parts],
        "mean_dice": metrics.mean_dice[config.task],
        "median_dice": metrics.median_dice[config.task],
        "patients": {group: len(patients) for group, patients in metrics.split.items()},
        "provenance": {key: provenance.get(key) for key in RECORDED},
    }


def small(tensor: torch.Tensor) -> torch.Tensor:
    """Kernels in float16; vectors (biases, batch-norm statistics, whose variances exceed float16) as they are."""
    return tensor.half() if tensor.ndim > 1 else tensor


def write_case(out: Path, name: str, case: Case) -> dict:
    """One case with its labels; returns what is recorded of it."""
    images = case.images.astype(np.int16)
    if not np.array_equal(images, case.images):
        raise DataError(f"{case.patient}: intensities are not whole numbers, as those of a phantom are.")
    arrays = {"images": images, "labels": case.labels, "affine": case.affine}
    arrays |= {"source_affine": case.source_affine, "voxel_size_mm": case.voxel_size_mm}
    with atomic_path(out / f"case-{name}.npz") as temporary:
        np.savez_compressed(temporary, patient=case.patient, sequences=case.sequences, **arrays)
    return {"patient": case.patient, "why": CASE_RULES[name], "file": f"case-{name}.npz"}


def _dice_of(table: pd.DataFrame, patient: str) -> float:
    return round(float(table.loc[table["patient"] == patient, "dice"].iloc[0]), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("standard", type=Path, help="folder of the standard run")
    parser.add_argument("mixed", type=Path, help="folder of the mixed run")
    out = "folder that receives the files (default: %(default)s)"
    parser.add_argument("--out", type=Path, default=Path("data/lessons"), help=out)
    call = parser.parse_args()
    names = " ".join(os.path.relpath(run) for run in (call.standard, call.mixed))
    command = f"python workflow/lesson_files.py {names}"
    lessons = write_lessons(call.standard, call.mixed, call.out, command=command)
    for path in sorted(call.out.iterdir()):
        print(f"{path.name:26s} {path.stat().st_size / 1e6:5.2f} MB")
    for name, entry in lessons.record["cases"].items():
        print(name, entry["patient"], entry["dice_of_the_run"], entry["dice_of_these_weights"])


if __name__ == "__main__":
    main()
