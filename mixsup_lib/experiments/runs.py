"""What a finished run is good for: segment a patient with it."""

from __future__ import annotations

import io
import math
import os
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as weights_as_bytes

from mixsup_lib.cohort import Cohort
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.datasets import find_cohort, open_patient
from mixsup_lib.evaluation import (
    PER_PATIENT_COLUMNS,
    evaluate,
    label_volume,
    save_nifti,
    score_slices,
    task_regions,
)
from mixsup_lib.experiments.provenance import provenance
from mixsup_lib.files import (
    DataError,
    SettingError,
    check_sums,
    read_json,
    remove_leftovers,
    shown,
    write_bytes,
    write_json,
    write_sums,
    write_text,
)
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.paper import TASKS
from mixsup_lib.protocol import Split, make_split, read_split
from mixsup_lib.sampling import BatchSampler, WeakLabels, feed_batches, select_training_slices
from mixsup_lib.slices import SliceStore, patient_slices, prepare
from mixsup_lib.training import (
    FILE_NAME,
    HISTORY_COLUMNS,
    Trainer,
    TrainingDivergedError,
    build_network,
    network_input,
    save_batches,
    set_up,
)

WEIGHTS = "weights.safetensors"


def load_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """weights.safetensors of a finished run; raises `DataError` if it is damaged or missing."""
    path = Path(folder) / WEIGHTS
    check_sums(folder, path.name)
    try:
        return load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read as weights ({reason}); run it again.") from None


def check_shapes(
    folder: str | Path, weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raise `DataError` unless the weights of a run have the names, shapes and types of its network's."""
    found, wanted = (
        {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        for tensors in (weights, expected)
    )
    if found != wanted:
        raise DataError(
            f"{Path(folder) / WEIGHTS}: holds other layers than the network that metrics.json describes; run it again."
        )


class RunProgress:
    """Keeps progress.json (iteration, of how many, loss) up to date, once every two seconds; then calls `also`."""

    def __init__(self, path: Path, iterations: int, also: Callable[[int, float], None] | None) -> None:
        self.path, self.iterations, self.also, self.written_at = path, iterations, also, 0.0

    def __call__(self, iteration: int, loss: float) -> None:
        if time.monotonic() - self.written_at > 2:
            write_json(self.path, {"iteration": iteration, "iterations": self.iterations, "loss": loss})
            self.written_at = time.monotonic()
        if self.also:
            self.also(iteration, loss)


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
    slice_shape = store.shape[2:]
    network = build_network(config, store.shape[1], slice_shape)
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


REQUIRED = ("metrics.json", "per_patient.csv", "provenance.json")
"""Files a finished run folder must hold to enter a table."""

_NAME = re.compile(r"seed(?P<seed>\d+)-(?P<hash>\w+)")
_SETTINGS = {
    "cohort": str, "preset": str, "task": str, "n_fa": int, "n_wa": (int, type(None)), "fold": int,
    "supervision": str, "seed": int,
}  # fmt: skip
"""Setting that a table needs -> its type."""

_PROVENANCE = ("commit", "data_fingerprint", "device", "wall_seconds")


def collect(folders: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """All finished runs in one folder, or in several, as one table: a row per run, test patient and region.

    Columns: cohort (its folder's name), preset, task, n_fa, n_wa, fold, supervision, seed, settings_hash,
    those of per_patient.csv, then commit, data_fingerprint, device, wall_seconds and `folder` (of the run).
    Where a run takes all remaining patients as weak, their number can differ by one between folds; n_wa is
    then the median over folds.

    Runs in progress (`.partial`) are passed over. Raises DataError for an incomplete or inconsistent run
    folder, naming the file, and where no run has finished.
    """
    roots = (
        [Path(folders)] if isinstance(folders, str | os.PathLike) else [Path(folder) for folder in folders]
    )
    found = sorted({folder for root in roots for folder in _run_folders(root)})
    if not found:
        where = ", ".join(str(root.resolve()) for root in roots) or "an empty list of folders"
        raise DataError(
            f"{where}: no finished run in it; do `make run` first, or name the folder that holds the runs."
        )
    frame = pd.concat([_read_run(folder) for folder in found], ignore_index=True)
    scenario = frame.groupby(["cohort", "preset", "task", "n_fa", "n_wa"], dropna=False)["n_weak"]
    frame["n_wa"] = frame["n_wa"].fillna(scenario.transform("median")).astype(int)
    return frame.drop(columns="n_weak")


def read_recorded(path: str | Path) -> pd.DataFrame:
    """A recorded table of runs, as data/results holds them: the columns of `collect`, `folder` naming the file.

    Raises DataError for a file that is no such table.
    """
    path = Path(path)
    frame = _read_csv(path)
    needed = (*_SETTINGS, "settings_hash", *PER_PATIENT_COLUMNS, *_PROVENANCE)
    if missing := [name for name in needed if name not in frame.columns]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; this is no record of runs.")
    return frame.assign(folder=str(path))


def read_history(folder: str | Path) -> pd.DataFrame:
    """history.csv of a run: iteration, loss, segmentation_loss, classification_loss, learning_rate."""
    path = Path(folder) / "history.csv"
    check_sums(folder, path.name)
    frame = _read_csv(path)
    needed = ("iteration", "loss", "segmentation_loss", "classification_loss", "learning_rate")
    if missing := [name for name in needed if name not in frame.columns]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; run it again, or restore the file.")
    _check_numbers(path, frame, needed)
    return frame


def read_provenance(folder: str | Path) -> dict:
    """provenance.json of a run; older records lack some entries. Raises DataError where it cannot be read."""
    return _read_json(Path(folder) / "provenance.json")


def _run_folders(root: Path) -> Iterator[Path]:
    """Folders of finished runs below `root`, itself included; nothing inside a run folder is looked at."""
    for place, inside, files in os.walk(root):
        folder = Path(place)
        if folder.name.endswith(".partial"):
            inside.clear()
        elif _NAME.fullmatch(folder.resolve().name) or {"metrics.json", "per_patient.csv"} & set(files):
            inside.clear()
            yield folder
        else:
            inside[:] = sorted(name for name in inside if not name.startswith("."))


def _read_run(folder: Path) -> pd.DataFrame:
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name}: missing, so this run is incomplete; delete the folder and run again."
            )
    name = _NAME.fullmatch(folder.resolve().name)
    if not name:
        raise DataError(
            f"{folder}: a run folder is called seed<number>-<hash of the settings>; give it its name back."
        )
    check_sums(folder, *REQUIRED)
    path = folder / "metrics.json"
    record = _read_json(path)
    config, split = record.get("config", {}), record.get("split", {})
    if not isinstance(config, dict) or not isinstance(split, dict):
        raise DataError(
            f"{path}: its config or split is no object; this is not the record of a run, run it again."
        )
    missing = [key for key in _SETTINGS if key not in config]
    missing += [key for key in ("weak", "test") if key not in split]
    if missing:
        raise DataError(
            f"{path}: {missing[0]!r} is missing; this is not the record of a finished run, run it again."
        )
    for key, kinds in _SETTINGS.items():
        if not isinstance(config[key], kinds) or isinstance(config[key], bool):
            raise DataError(f"{path}: {key!r} is {shown(config[key])}, which no run has; run it again.")
    for key in ("weak", "test"):
        if not isinstance(split[key], list) or not all(isinstance(patient, str) for patient in split[key]):
            raise DataError(
                f"{path}: {key!r} is {shown(split[key])}, expected a list of patients; run it again."
            )
    if config["task"] not in TASKS:
        raise DataError(
            f"{path}: 'task' is {shown(config['task'])}, expected one of {', '.join(TASKS)}; run it again."
        )
    if config["seed"] != int(name["seed"]) or config["supervision"] not in ("standard", "mixed"):
        found = f"seed {config['seed']}, supervision {shown(config['supervision'])}"
        raise DataError(
            f"{path}: records {found}, which does not belong into {folder.name}; restore the folder."
        )
    provenance = _read_json(folder / "provenance.json")
    table = _read_per_patient(folder / "per_patient.csv", config["task"], split["test"])
    before = {**{key: config[key] for key in _SETTINGS}, "settings_hash": name["hash"]}
    before["cohort"] = Path(config["cohort"]).name
    before["n_wa"] = np.nan if config["n_wa"] is None else config["n_wa"]
    if missing := [key for key in _PROVENANCE if key not in provenance]:
        raise DataError(
            f"{folder / 'provenance.json'}: {missing[0]!r} is missing, so where this run comes from is unknown; "
            "run it again."
        )
    after = {key: provenance[key] for key in _PROVENANCE}
    columns = {**before, **{key: table[key] for key in PER_PATIENT_COLUMNS}, **after}
    return pd.DataFrame({**columns, "folder": str(folder), "n_weak": len(split["weak"])}, index=table.index)


def _read_per_patient(path: Path, task: str, test: list[str]) -> pd.DataFrame:
    """per_patient.csv, checked against the run's test patients and the regions of its task."""
    table = _read_csv(path)
    if missing := [name for name in PER_PATIENT_COLUMNS if name not in table.columns]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; restore the file, or run again.")
    _check_numbers(path, table, ("truth_voxels", "dice"))
    for name in ("patient", "region"):
        table[name] = table[name].astype(object).fillna("").astype(str)
    expected = sorted((patient, region) for patient in test for region in task_regions(task))
    rows = sorted(zip(table["patient"], table["region"], strict=True))
    if rows != expected:
        odd = sorted(set(rows) ^ set(expected)) or [row for row in rows if rows.count(row) > 1]
        raise DataError(
            f"{path}: {len(rows)} rows where {len(expected)} test patients and regions were expected, the "
            f"first that does not fit is {odd[0]}; restore the file, or run again."
        )
    scored = table["truth_voxels"] > 0
    wrong = table[(table["dice"].notna() != scored) | (scored & ~table["dice"].between(0, 100))]
    if not wrong.empty:
        row = wrong.iloc[0]
        raise DataError(
            f"{path}: patient {row['patient']} has Dice {row['dice']} with {row['truth_voxels']} tumour "
            "voxels; expected 0 to 100, and no value only where there are none: run again."
        )
    return table


def _check_numbers(path: Path, table: pd.DataFrame, columns: Iterable[str]) -> None:
    for name in columns:
        if table[name].dtype.kind not in "iuf":
            wrong = table[name][pd.to_numeric(table[name], errors="coerce").isna()]
            found = shown(wrong.iloc[0]) if len(wrong) else table[name].dtype
            raise DataError(
                f"{path}: column {name!r} holds {found}, expected numbers; restore the file, or run again."
            )


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"patient": str}, keep_default_na=False, na_values=["", "nan"])
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(
            f"{path}: cannot be read as a table ({str(error).splitlines()[0]}); run it again."
        ) from None


def _read_json(path: Path) -> dict:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as JSON ({str(error).splitlines()[0]}); run it again."
        ) from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, expected an object; run it again.")
    return content


_ARCHIVE_FAULTS = (EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, TokenError)
MOST_BYTES = 2**26
"""Three example slices take far less; an archive can claim, or unpack to, any size."""


def read_examples(folder: str | Path) -> dict[str, np.ndarray]:
    """examples.npz of a run: its best, median and worst test patient (N = 3), in the slice with most tumour.

    `image` (N, H, W) float32, `truth` and `prediction` (N, H, W) uint8, `patient` (N,) str, `z` (N,) int.
    Rows run to the patient's back, columns to the patient's left.
    """
    path = Path(folder) / "examples.npz"
    check_sums(folder, path.name)
    try:
        examples = _read_arrays(path, ("image", "truth", "prediction", "patient", "z"))
    except (*_ARCHIVE_FAULTS, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as example slices ({reason}); run it again.") from None
    shapes = {examples[name].shape for name in ("image", "truth", "prediction")}
    if (
        len(shapes) != 1
        or len({len(array) for array in examples.values()}) != 1
        or examples["image"].ndim != 3
    ):
        raise DataError(f"{path}: its arrays do not fit together, expected (N, H, W) thrice; run it again.")
    return examples


def _read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz archive that take at most `MOST_BYTES` together, as claimed and as unpacked."""
    with zipfile.ZipFile(path) as archive:
        sizes = [archive.getinfo(f"{name}.npy").file_size for name in names]
        if sum(sizes) > MOST_BYTES:
            raise ValueError(f"it unpacks to {sum(sizes) / 1e9:.2g} GB")
        return {name: _read_array(archive.read(f"{name}.npy")) for name in names}


def _read_array(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy version {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"it claims {shape} values of type {dtype}")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def segment_case(run_folder: str | Path, case_folder: str | Path, output: str | Path) -> Path:
    """Segment one patient with a finished run and write the labels as NIfTI on the axes of the patient's own files.

    Args:
        run_folder: finished run whose weights are used.
        case_folder: folder of the patient; its sequences must be those the network was trained on.
        output: file to write, `.nii.gz` or `.nii`; multiclass in BraTS label values (1, 2, 4), binary 1.

    Raises:
        DataError: the run or the patient cannot be used.
    """
    config, _ = load_run(run_folder)
    device, precision = set_up(config)
    case = open_patient(case_folder).read_images()
    slices, frame = patient_slices(case, config.pixel_mm, config.window)
    trained_on = _input_channels(Path(run_folder))
    if slices.shape[1] != trained_on:
        raise DataError(
            f"{case_folder}: has {slices.shape[1]} sequences ({', '.join(case.sequences)}), but the run was trained on "
            f"{trained_on}; use a run of the same sequences."
        )
    network = load_network(run_folder, trained_on, slices.shape[2:]).to(device)
    probabilities, _ = score_slices(network, slices, device=device, precision=precision)
    labels = label_volume(probabilities, frame)
    save_nifti(output, labels, case, multiclass=config.task == "multiclass")
    return Path(output)


def _input_channels(run_folder: Path) -> int:
    """Number of sequences of the trained network, read off its first convolution."""
    first = load_weights(run_folder).get("unet.encoder.0.0.0.weight")
    if first is None or first.ndim != 4:
        raise DataError(f"{run_folder / WEIGHTS}: holds no U-Net of this library; run it again.")
    return first.shape[1]
