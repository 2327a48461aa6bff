"""One run = one folder: start, resume, finish.

A run works in `<folder>.partial` and is renamed when everything is in it; a folder without that suffix is finished and
never written again.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save as weights_as_bytes

from mixsup_lib.cohort import Cohort, find_cohort
from mixsup_lib.compute import set_up
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.divergence import FILE_NAME, TrainingDivergedError, save_batches
from mixsup_lib.errors import DataError, SettingError
from mixsup_lib.evaluation import evaluate
from mixsup_lib.feed import feed_batches
from mixsup_lib.files import check_sums, remove_leftovers, write_bytes, write_json, write_sums, write_text
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.protocol import Split, make_split, read_split
from mixsup_lib.provenance import provenance
from mixsup_lib.run_network import build_network, network_input
from mixsup_lib.run_progress import RunProgress
from mixsup_lib.sampling import BatchSampler
from mixsup_lib.saved_state import check_shapes, load_weights
from mixsup_lib.slices import prepare
from mixsup_lib.store import SliceStore
from mixsup_lib.training import HISTORY_COLUMNS, Trainer
from mixsup_lib.training_slices import select_training_slices
from mixsup_lib.weak_labels import WeakLabels

RECORDS = tuple(
    "config.json history.csv weights.safetensors per_patient.csv examples.npz provenance.json metrics.json".split()
)
"""Files of a finished run that are never written again; SHA256SUMS lists their checksums."""


class RunMetrics(BaseModel):
    """Content of metrics.json: the settings as used, the split, and Dice (per cent) per region."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any]
    split: dict[str, list[str]]
    mean_dice: dict[str, float | None]
    median_dice: dict[str, float | None]
    n_test: dict[str, int]


def run_folder(config: RunConfig, split: Split) -> Path:
    """Where a run lives: cohort/preset/task/<n>fa<m>wa/fold/supervision/seed-hash below `config.out`."""
    scenario = f"{len(split.fully_annotated)}fa{len(split.weak)}wa"
    name = f"seed{config.seed}-{config.settings_hash()}"
    below = Path(
        config.cohort_name, config.preset, config.task, scenario, f"fold{config.fold}", config.supervision
    )
    return config.out / below / name


def store_folder(config: RunConfig) -> Path:
    """Where the prepared slices of a run lie; runs on the same grid share them."""
    size = "whole" if config.window is None else f"{config.window[0]}x{config.window[1]}"
    grid = "own" if config.pixel_mm is None else f"{config.pixel_mm:g}mm"
    return config.stores / config.cohort_name / f"{grid}-{size}"


def open_store(config: RunConfig, cohort: Cohort, *, workers: int = 1) -> SliceStore:
    """The prepared slices a run needs, made if they are not there."""
    folder = store_folder(config)
    return prepare(
        cohort,
        folder,
        labels_folder=folder.parent,
        pixel_mm=config.pixel_mm,
        window=config.window,
        workers=workers,
        progress=config.progress,
    )


def split_of(config: RunConfig, cohort: Cohort) -> Split:
    """The fold of a run: who is fully annotated, weak, tested. A mask is seen by its file name, none is opened."""
    if config.task not in cohort.tasks:
        raise SettingError(
            f"Setting 'task': found {config.task!r}, but {cohort.folder} ({cohort.layout}) has labels for "
            f"{', '.join(cohort.tasks)} only."
        )
    patients = [patient.id for patient in cohort.patients]
    if config.split_lists:
        return read_split(config.split_lists, patients, n_fa=config.n_fa, n_wa=config.n_wa)
    return make_split(
        patients,
        n_fa=config.n_fa,
        n_wa=config.n_wa,
        fold=config.fold,
        n_folds=config.n_folds,
        scenario_seed=config.scenario_seed,
        permutation_of=config.permutation_of,
        with_mask={patient.id for patient in cohort.patients if patient.mask_files},
    )


def run(config: RunConfig, report: Callable[[int, float], None] | None = None) -> Path:
    """Train, evaluate and leave the run folder; returns it. A finished run is returned as it is.

    `report` is called after every iteration with (iteration, loss); a KeyboardInterrupt from it stops the run as Ctrl-C
    does, with a checkpoint from which the next call continues.

    Raises:
        DataError: the data or an earlier state of the run is at fault, or another process works on this run.
        SettingError: the settings do not fit the cohort.
    """
    cohort = find_cohort(config.cohort)
    split = split_of(config, cohort)
    folder = run_folder(config, split)
    if folder.exists():
        return folder
    partial = folder.with_name(folder.name + ".partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(folder.name + ".lock"), timeout=0):
            if not folder.exists():
                partial.mkdir(exist_ok=True)
                remove_leftovers(partial)
                _run_in(partial, config, cohort, split, report)
                partial.rename(folder)
    except Timeout:
        raise DataError(
            f"{partial}: another process works on this run; wait for it or choose other settings."
        ) from None
    return folder


def _run_in(partial: Path, config: RunConfig, cohort: Cohort, split: Split, report) -> None:
    started = time.time()
    device, precision = set_up(config)
    store = open_store(config, cohort)
    store.verify([*split.fully_annotated, *split.weak, *split.test])
    write_json(partial / "config.json", config.settings())
    trainer = make_trainer(config, store, split, device, precision)
    trainer.checkpoint = partial / "checkpoint.pt"
    trainer.report = RunProgress(partial / "progress.json", config.iterations, report)
    resumed = trainer.checkpoint.exists()
    try:
        history = trainer.run()
    except TrainingDivergedError as error:
        raise save_batches(partial / FILE_NAME, error, store.table) from None
    write_text(partial / "history.csv", pd.DataFrame(history, columns=HISTORY_COLUMNS).to_csv(index=False))
    weights = {name: tensor.contiguous().cpu() for name, tensor in trainer.network.state_dict().items()}
    write_bytes(partial / "weights.safetensors", weights_as_bytes(weights))
    per_patient, examples = evaluate(trainer.network, config, store, split, device, precision)
    write_text(partial / "per_patient.csv", per_patient.to_csv(index=False))
    pictures = io.BytesIO()
    np.savez_compressed(pictures, **examples)
    write_bytes(partial / "examples.npz", pictures.getbuffer())
    origin = provenance(store, split, device, precision, started, resumed)
    computed = {"feed": trainer.sampler.feed, "compiled": trainer.forward is not trainer.network}
    write_json(partial / "provenance.json", origin | computed)
    write_json(partial / "metrics.json", summarise(config, split, per_patient).model_dump())
    write_sums(partial, RECORDS)
    for name in ("progress.json", FILE_NAME):
        (partial / name).unlink(missing_ok=True)


def make_trainer(
    config: RunConfig, store: SliceStore, split: Split, device: torch.device, precision: str
) -> Trainer:
    """Network, sampler and frames of a run, ready for `Trainer.run`."""
    labels = WeakLabels(config.weak_labels, config.weak_label_noise, config.seed)
    data = select_training_slices(
        store,
        split,
        config.task,
        use_weak=config.supervision == "mixed",
        weak_negatives=config.negatives is None,
        weak_labels=labels,
    )
    sampler = BatchSampler(
        data, k=config.k, m=config.m, n=config.n, flip_fraction=config.flip_fraction, seed=config.seed
    )
    slice_shape = store.images.shape[2:]
    network = build_network(config, store.images.shape[1], slice_shape)
    batches = feed_batches(sampler, torch.device(device), config.feed, n_classes=config.n_maps)
    _, frames = network_input(config, slice_shape)
    identity = f"{store.fingerprint()}-{config.settings_hash()}-{config.seed}"
    return Trainer(network, batches, config, frames, device, precision, identity=identity)


def summarise(config: RunConfig, split: Split, per_patient: pd.DataFrame) -> RunMetrics:
    """Mean and median Dice per region over the test patients that have the region (the paper's rule)."""
    by_region = per_patient.groupby("region", sort=False)["dice"]

    def values(series: pd.Series) -> dict[str, float | None]:
        return {region: None if np.isnan(x) else float(x) for region, x in series.items()}

    return RunMetrics(
        config=config.settings(),
        split={name: list(getattr(split, name)) for name in ("fully_annotated", "weak", "test")},
        mean_dice=values(by_region.mean()),
        median_dice=values(by_region.median()),
        n_test={region: int(n) for region, n in by_region.count().items()},
    )


def load_run(folder: str | Path) -> tuple[RunConfig, RunMetrics]:
    """Settings and metrics of a finished run; raises `DataError` if the folder is not one."""
    path = Path(folder) / "metrics.json"
    check_sums(folder, path.name)
    try:
        metrics = RunMetrics.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: not the record of a finished run ({reason}); start the run again."
        ) from None
    try:
        return make_config(**metrics.config), metrics
    except SettingError as error:
        raise DataError(f"{path}: records settings that no run has: {error}") from None


def load_network(folder: str | Path, in_channels: int, slice_shape: tuple[int, int]) -> MixedSupervisionUNet:
    """The trained network of a finished run."""
    config, _ = load_run(folder)
    weights = load_weights(folder)
    with torch.device("meta"):  # without memory: a damaged record may ask for any width
        expected = build_network(config, in_channels, slice_shape).state_dict()
    check_shapes(folder, weights, expected)
    network = build_network(config, in_channels, slice_shape)
    network.load_state_dict(weights)
    return network.eval()
