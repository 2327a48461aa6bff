"""Two trained networks and a few cases, small enough to ship: what notebooks show where training takes too long.

`workflow/lesson_files.py` makes the folder (data/lessons) from two finished runs on a phantom, one per supervision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file

from mixsup_lib.cohort import Case
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.evaluation import segment
from mixsup_lib.files import DataError
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.training import build_network


@dataclass(frozen=True, eq=False)
class Arm:
    """One trained network, in evaluation mode on the CPU, and its records. Kernels were rounded to float16.

    history: columns of history.csv, a row for every five iterations; per_patient: per_patient.csv of the run.
    """

    config: RunConfig
    network: MixedSupervisionUNet
    history: pd.DataFrame
    per_patient: pd.DataFrame

    def predict(self, case: Case) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (X, Y, Z) uint8 on the case's own grid, and the branches' probabilities of tumour (Z, R) or None."""
        return segment(self.network, case, pixel_mm=self.config.pixel_mm, window=self.config.window)


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the folder holds.

    arms: "standard" and "mixed", trained and tested on the same fold; cases: how it was chosen ("median", "gained",
    "worst") -> a test patient of both runs; record: lessons.json: where everything comes from, and why these cases.
    """

    arms: dict[str, Arm]
    cases: dict[str, Case]
    record: dict


def read_lessons(folder: str | Path) -> Lessons:
    """Read data/lessons. Raises `DataError` where a file is missing or damaged."""
    folder = Path(folder)
    try:
        record = json.loads((folder / "lessons.json").read_text(encoding="utf-8"))
        arms = {name: _read_arm(folder, name, entry) for name, entry in record["runs"].items()}
        cases = {name: _read_case(folder / entry["file"]) for name, entry in record["cases"].items()}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{folder}: not the files of the lessons ({reason}); get them back from the repository."
        ) from None
    return Lessons(arms, cases, record)


def _read_arm(folder: Path, name: str, entry: dict) -> Arm:
    config = make_config(**entry["settings"])
    network = build_network(config, entry["in_channels"], config.window)
    network.load_state_dict({k: v for file in entry["weights"] for k, v in load_file(folder / file).items()})
    tables = [pd.read_csv(folder / f"{name}-{part}.csv") for part in ("history", "per-patient")]
    return Arm(config, network.eval(), *tables)


def _read_case(path: Path) -> Case:
    with np.load(path, allow_pickle=False) as archive:
        same = {name: archive[name] for name in ("labels", "affine", "source_affine")}
        patient, sequences = str(archive["patient"]), tuple(archive["sequences"].tolist())
        images, voxel = archive["images"].astype(np.float32), tuple(archive["voxel_size_mm"].tolist())
        return Case(patient=patient, sequences=sequences, images=images, voxel_size_mm=voxel, **same)
