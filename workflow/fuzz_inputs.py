"""The sound inputs that the fuzzer damages, and how each kind is read through the library."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from cohorts import patient_id, write_cohort  # noqa: E402
from PIL import Image  # noqa: E402

from mixsup_lib.__main__ import read_settings  # noqa: E402
from mixsup_lib.check import check_cohort  # noqa: E402
from mixsup_lib.config import make_config  # noqa: E402
from mixsup_lib.datasets import find_cohort  # noqa: E402
from mixsup_lib.datasets.slice_labels import (  # noqa: E402
    derive_rows,
    read_slice_labels,
    slice_presence,
    write_slice_labels,  # noqa: E402
)
from mixsup_lib.experiments.experiment import read_scenario  # noqa: E402
from mixsup_lib.experiments.runs import (  # noqa: E402
    collect,
    load_network,
    load_run,
    make_trainer,
    read_examples,  # noqa: E402
    read_history,  # noqa: E402
    run,
    split_of,  # noqa: E402
)
from mixsup_lib.files import MixsupError  # noqa: E402
from mixsup_lib.protocol import read_split  # noqa: E402
from mixsup_lib.slices import prepare  # noqa: E402

RUN = {
    "preset": "tiny", "n_fa": 3, "iterations": 3, "batch_norm_batches": 2, "pixel_mm": 1.0, "window": [24, 24],
    "depth": 2, "width": 4, "progress": False, "precision": "float32", "device": "cpu",
}  # fmt: skip
SCENARIO = """name: trial
compare: first
settings: {preset: tiny, iterations: 5}
axes: {n_fa: [3, 5], supervision: [standard, mixed]}
variants:
  other: {supervision: mixed, branch: shallow, n_fa: 7, target_weights: [0.5, 0.5]}
folds: [1, 2]
seeds: [0]
"""
SETTINGS = (
    "cohort: scans\npreset: tiny\nn_fa: 4\nwindow: [32, 48]\na: 0.5\ntask: multiclass\nsplit_lists: null\n"
)


class Missing(AssertionError):
    """Reading refused what check-data finds nothing wrong with."""


def write_material(root: Path) -> None:
    """Every sound input, once."""
    for layout, suffix in (
        ("brats2021", ".nii.gz"),
        ("brats2023", ".nii"),
        ("decathlon", ".nii.gz"),
        ("lgg", ""),
    ):
        write_cohort(root / layout, layout, patients=2, suffix=suffix)
    for path in (root / "lgg").rglob("*.tif"):  # packed, as the data set is
        Image.fromarray(np.asarray(Image.open(path))).save(path, compression="tiff_adobe_deflate")
    for layout in ("brats2021", "lgg"):
        cohort = find_cohort(root / layout)
        rows = [derive_rows(patient.id, patient.read_labels(), cohort.tasks) for patient in cohort.patients]
        write_slice_labels(root / layout, pd.concat(rows, ignore_index=True))
    weak = write_cohort(root / "weak", "decathlon", patients=3)
    shutil.rmtree(root / "weak" / "labelsTr")
    frame = pd.DataFrame(
        [(name, "oedema", 3, 6) for name in weak], columns=["patient", "class", "first_z", "last_z"]
    )
    write_slice_labels(root / "weak", frame)
    cohort = root / "ten"
    write_cohort(cohort, "brats2021", patients=10, shape=(24, 24, 12))
    names = [patient_id("brats2021", i) for i in range(10)]
    lists = {"fully_annotated": names[:3], "weak": names[3:7], "test": names[7:9]}
    (root / "lists").mkdir()
    for name, ids in lists.items():
        text = "".join(f"/data/BraTS/{patient}\n" for patient in ids)
        (root / "lists" / f"{name}.txt").write_text(text)
    (root / "yaml").mkdir()
    (root / "yaml" / "scenario.yaml").write_text(SCENARIO)
    (root / "yaml" / "settings.yaml").write_text(SETTINGS)
    made = run(make_config(cohort=cohort, out=root / "out", stores=root / "stores", **RUN))
    shutil.copytree(made, root / "run" / made.name)
    shutil.copytree(made, root / "old" / made.name, ignore=shutil.ignore_patterns("SHA256SUMS"))
    prepare(cohort, root / "store", progress=False)


# How each kind is read: folder -> what a user gets. MixsupError is a refusal.


def read_cohort(folder: Path) -> dict[str, Any]:
    """Patient -> its case, and under "" what check-data says beyond notes."""
    table = check_cohort(folder)
    found: dict[str, Any] = {"": [tuple(row) for row in table[["severity", "patient", "problem"]].to_numpy()]}
    try:
        for patient in find_cohort(folder).patients:
            found[patient.id] = patient.read() if patient.mask_files else patient.read_images()
        if (labels := read_slice_labels(folder)) is not None:
            n_slices = {name: case.images.shape[3] for name, case in found.items() if name}
            found |= {f"{name} slices": slice_presence(labels, name, n) for name, n in n_slices.items()}
    except MixsupError as error:
        if not (table["severity"] == "error").any():
            raise Missing(f"refused ({error}), but check-data finds no error") from error
        raise
    return found


def read_lists(folder: Path):
    return read_split(folder, [patient_id("brats2021", i) for i in range(10)], n_fa=3)


def read_yaml(folder: Path):
    scenario = read_scenario(folder / "scenario.yaml")
    return scenario.model_dump(), scenario.configs(), make_config(**read_settings(folder / "settings.yaml"))


def read_run(folder: Path) -> list:
    (place,) = folder.iterdir()
    config, metrics = load_run(place)
    history, examples = read_history(place), read_examples(place)
    weights = load_network(place, 4, (24, 24)).state_dict()
    return [config, metrics, collect(folder).drop(columns="folder"), history, examples, weights]


def read_store(folder: Path) -> list:
    store = prepare(folder.with_name("ten").resolve(), folder, progress=False)
    patients = [patient.id for patient in store.cohort.patients]
    verify = getattr(store, "verify", lambda patients: None)
    verify(patients)
    return [
        store[:], store.table, store.fingerprint(), [store.label_maps(name) for name in patients[:2]],
        [(store.frame(name), store.voxel_size_mm(name), store.rows(name)) for name in patients],
        store.presence(patients, "multiclass"),
    ]  # fmt: skip


def read_checkpoint(folder: Path) -> list:
    (place,) = folder.iterdir()
    config, _ = load_run(place)
    cohort = find_cohort(config.cohort)
    store = prepare(cohort, config.stores / "ten" / "1mm-24x24", labels_folder=config.stores / "ten", pixel_mm=1.0,
                    window=(24, 24), progress=False)  # fmt: skip
    trainer = make_trainer(config, store, split_of(config, cohort), torch.device("cpu"), "float32")
    trainer.checkpoint = place / "checkpoint.pt"
    trainer.load()
    states = [trainer.network, trainer.optimizer, trainer.schedule, trainer.sampler]
    return [trainer.history, *(part.state_dict() for part in states)]
