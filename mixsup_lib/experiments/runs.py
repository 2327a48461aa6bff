"""One run, one folder: start it, resume it, finish it, read it back, and segment a patient with it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save as weights_as_bytes
from tqdm.auto import tqdm

from mixsup_lib.cohort import Cohort, LabelValue, Patient
from mixsup_lib.config import RunConfig, make_config, run_name
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.nifti import ENDINGS as NIFTI_ENDINGS
from mixsup_lib.evaluation import PER_PATIENT_COLUMNS, evaluate, label_volume, save_nifti, score_slices
from mixsup_lib.experiments.provenance import provenance
from mixsup_lib.files import DataError, SettingError, read_json, remove_leftovers, write_bytes, write_json, write_text
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.protocol import Split, make_split, read_split
from mixsup_lib.sampling import BatchSampler, WeakLabels, feed_batches, select_training_slices, task_columns
from mixsup_lib.slices import SliceStore, patient_slices, prepare, scores_on_source_grid
from mixsup_lib.training import HISTORY_COLUMNS, Trainer, TrainingDivergedError, build_network, network_input, set_up

RUN_COLUMNS = ("cohort", "preset", "task", "n_fa", "n_wa", "fold", "supervision", "seed")
"""Settings that tell the runs of a table apart."""

_NAME = re.compile(r"seed(?P<seed>\d+)-(?P<hash>\w+)")


class RunMetrics(BaseModel):
    """Content of metrics.json: the settings as used, the split, and Dice (per cent) per region."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any]
    split: Annotated[dict[Literal["fully_annotated", "weak", "test"], list[str]], Field(min_length=3)]
    mean_dice: dict[str, float | None]
    median_dice: dict[str, float | None]
    n_test: dict[str, int]


class RunOrigin(BaseModel):
    """What a table needs of provenance.json; older records lack some of its other entries."""

    model_config = ConfigDict(extra="allow")

    commit: str | None
    data_fingerprint: str
    device: str
    wall_seconds: float


def run_folder(config: RunConfig, split: Split) -> Path:
    """Where a run lives: cohort/preset/task/<n>fa<m>wa/fold/supervision/seed-hash below `config.out`."""
    scenario = f"{len(split.fully_annotated)}fa{len(split.weak)}wa"
    name = f"seed{config.seed}-{config.settings_hash()}"
    below = Path(config.cohort_name, config.preset, config.task, scenario, f"fold{config.fold}", config.supervision)
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
        tested=config.test is None,
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
    progress = Progress(partial, trainer, also=report)
    trainer.report = progress
    resumed = trainer.checkpoint.exists()
    try:
        history = trainer.run()
    except TrainingDivergedError as error:
        shown = store.table.iloc[error.rows]
        at_fault = [f"{patient} z = {z}" for patient, z in zip(shown["patient"], shown["z"], strict=True)]
        more = ", ..." if len(at_fault) > 10 else ""
        if not at_fault:
            raise
        raise DataError(f"{error} The images of that step: {', '.join(at_fault[:10])}{more}.") from None
    progress.write("evaluating")
    write_text(partial / "history.csv", history_text(history))
    weights = {name: tensor.contiguous().cpu() for name, tensor in trainer.network.state_dict().items()}
    write_bytes(partial / "weights.safetensors", weights_as_bytes(weights))
    per_patient = pd.DataFrame(columns=PER_PATIENT_COLUMNS)
    if split.test:
        tested = tqdm(split.test, desc="evaluating", unit="patient", disable=not config.progress)
        per_patient, examples = evaluate(
            trainer.network, store, tested, config.task, device=device, precision=precision
        )
        pictures = io.BytesIO()
        np.savez_compressed(pictures, **examples)
        write_bytes(partial / "examples.npz", pictures.getbuffer())
    write_text(partial / "per_patient.csv", per_patient.to_csv(index=False))
    origin = provenance(store, split, device, precision, started, resumed)
    computed = {"feed": trainer.sampler.feed, "compiled": trainer.forward is not trainer.network}
    if config.initial_weights:
        computed["initial_weights"] = weights_digest(config.initial_weights)
    write_json(partial / "provenance.json", origin | computed)
    write_json(partial / "metrics.json", summarise(config, split, per_patient).model_dump())
    (partial / "progress.json").unlink(missing_ok=True)


class Progress:
    """What can be watched while a run trains: progress.json and a history.csv that grows, every two seconds.

    progress.json holds `doing` (training or evaluating), the iteration, of how many, and the loss.
    """

    def __init__(self, folder: Path, trainer: Trainer, also: Callable[[int, float], None] | None = None) -> None:
        self.folder, self.trainer, self.also = folder, trainer, also
        self.written_at, self.rows = 0.0, 0

    def __call__(self, iteration: int, loss: float) -> None:
        if time.monotonic() - self.written_at > 2:
            self.write("training")
        if self.also:
            self.also(iteration, loss)

    def write(self, doing: str) -> None:
        history, total = self.trainer.history, self.trainer.config.iterations
        state = {"doing": doing, "iteration": len(history), "iterations": total, "loss": history[-1][1]}
        write_json(self.folder / "progress.json", state)
        text = history_text(history[self.rows :], header=not self.rows)
        with open(self.folder / "history.csv", "a" if self.rows else "w", encoding="utf-8") as file:
            file.write(text)
        self.rows, self.written_at = len(history), time.monotonic()


def history_text(rows: list[list[float]], header: bool = True) -> str:
    """Rows of a training's history as the lines of history.csv."""
    return pd.DataFrame(rows, columns=HISTORY_COLUMNS).to_csv(index=False, header=header)


def make_trainer(config: RunConfig, store: SliceStore, split: Split, device: torch.device, precision: str) -> Trainer:
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
    identity = f"{store.fingerprint()}-{config.settings_hash()}-{config.seed}"
    if config.initial_weights:
        start_from(network, config, split)
        identity += f"-{weights_digest(config.initial_weights)}"
    batches = feed_batches(sampler, torch.device(device), config.feed, n_classes=config.n_maps)
    _, frames = network_input(config, slice_shape)
    return Trainer(network, batches, config, frames, device, precision, identity=identity)


def start_from(network: MixedSupervisionUNet, config: RunConfig, split: Split) -> None:
    """Copy the weights of the finished run `config.initial_weights` into a new network.

    Every layer of the U-Net has to fit. The last layer and the branches are copied where the other run has the same.

    Raises `DataError` where they do not fit, and SettingError where that run, or one that it started from, was trained
    on this run's test patients.
    """
    folder = config.initial_weights
    other, _ = load_run(folder)
    earlier: Path | None = folder
    while earlier:  # that run may have started from another one
        begun, metrics = load_run(earlier)
        seen = {*metrics.split["fully_annotated"], *metrics.split["weak"]}
        if begun.cohort_name == config.cohort_name and (shared := sorted(seen & {*split.test})):
            raise SettingError(
                f"Setting 'initial_weights': {earlier} was trained on {len(shared)} patients that this run tests, such "
                f"as {shared[0]}; take a run of the same fold and scenario, or test nobody (test=none)."
            )
        earlier = begun.initial_weights
    weights, own = load_weights(folder), network.state_dict()
    fits = {name for name in own if name in weights and weights[name].shape == own[name].shape}
    if misfits := [name for name in own if name.startswith("unet.") and name not in fits]:
        differ = [
            f"{name} {getattr(other, name)} (here {getattr(config, name)})"
            for name in ("width", "depth", "padding")
            if getattr(other, name) != getattr(config, name)
        ]
        why = ", ".join(differ) or "another number of sequences"
        raise DataError(f"{folder}: its network does not fit, as layer {misfits[0]} shows: {why}; choose another run.")
    heads = {head: {name for name in own if name.startswith(f"{head}.")} for head in ("segmentation_layer", "branches")}
    left = set().union(*(names for names in heads.values() if not names <= fits))
    network.load_state_dict(own | {name: weights[name] for name in fits - left})


def weights_digest(folder: str | Path) -> str:
    """Digest of a run's weights.safetensors."""
    return hashlib.sha256((Path(folder) / "weights.safetensors").read_bytes()).hexdigest()[:16]


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
    metrics = _read_record(path, RunMetrics)
    try:
        return make_config(**metrics.config), metrics
    except SettingError as error:
        raise DataError(f"{path}: records settings that no run has: {error}") from None


def load_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """weights.safetensors of a finished run; raises `DataError` if it is damaged or missing."""
    path = Path(folder) / "weights.safetensors"
    try:
        return load_file(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as weights ({_reason(error)}); run it again.") from None


def load_network(folder: str | Path, in_channels: int, slice_shape: tuple[int, int]) -> MixedSupervisionUNet:
    """The trained network of a finished run, for slices of `in_channels` sequences and shape (H, W)."""
    config, _ = load_run(folder)
    network = build_network(config, in_channels, slice_shape)
    try:
        network.load_state_dict(load_weights(folder))
    except RuntimeError:  # torch's own sentence has a line per layer
        raise DataError(
            f"{Path(folder) / 'weights.safetensors'}: holds other layers than the network that metrics.json describes; "
            "run it again."
        ) from None
    return network.eval()


def read_history(folder: str | Path) -> pd.DataFrame:
    """history.csv of a run: iteration, loss, segmentation_loss, classification_loss, learning_rate."""
    return _read_table(Path(folder) / "history.csv", HISTORY_COLUMNS)


def read_per_patient(folder: str | Path) -> pd.DataFrame:
    """per_patient.csv of a run: a row per test patient and region, `PER_PATIENT_COLUMNS`."""
    return _read_table(Path(folder) / "per_patient.csv", PER_PATIENT_COLUMNS)


def read_provenance(folder: str | Path) -> dict[str, Any]:
    """provenance.json of a run; older records lack some entries. Raises `DataError` where it cannot be read."""
    return _read_record(Path(folder) / "provenance.json", RunOrigin).model_dump()


def read_examples(folder: str | Path) -> dict[str, np.ndarray]:
    """examples.npz of a run: its best, median and worst test patient (N = 3), in the slice with most tumour.

    `image` (N, H, W) float32, `truth` and `prediction` (N, H, W) uint8, `patient` (N,) str, `z` (N,) int.
    Rows run to the patient's back, columns to the patient's left.
    """
    path = Path(folder) / "examples.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("image", "truth", "prediction", "patient", "z")}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as example slices ({_reason(error)}); run it again.") from None


def read_recorded(path: str | Path) -> pd.DataFrame:
    """A recorded table of runs, as data/results holds them: the columns of `collect`, `folder` naming the file.

    Raises `DataError` for a file that is no such table.
    """
    columns = (*RUN_COLUMNS, "settings_hash", *PER_PATIENT_COLUMNS, *RunOrigin.model_fields)
    return _read_table(Path(path), columns).assign(folder=str(path))


def collect(folders: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """All finished runs in one folder, or in several, as one table: a row per run, test patient and region.

    Columns: cohort (its folder's name), preset, task, n_fa, n_wa, fold, supervision, seed, settings_hash,
    those of per_patient.csv, then commit, data_fingerprint, device, wall_seconds and `folder` (of the run).
    Where a run takes all remaining patients as weak, their number can differ by one between folds; n_wa is
    then the median over folds.

    Runs in progress (`.partial`) are passed over; a run without test patients has no row. Raises DataError for an
    incomplete or inconsistent run folder, naming the file, and where no run with test patients has finished.
    """
    roots = [Path(folders)] if isinstance(folders, str | os.PathLike) else [Path(folder) for folder in folders]
    found = sorted({folder for root in roots for folder in _run_folders(root)})
    if not found:
        where = ", ".join(str(root.resolve()) for root in roots) or "an empty list of folders"
        raise DataError(f"{where}: no finished run in it; do `make run` first, or name the folder that holds the runs.")
    frame = pd.concat([_read_run(folder) for folder in found], ignore_index=True)
    if frame.empty:
        raise DataError(f"{found[0]}: has no test patients (test=none), so there is no Dice to compare.")
    scenario = frame.groupby(["cohort", "preset", "task", "n_fa", "n_wa"], dropna=False)["n_weak"]
    frame["n_wa"] = frame["n_wa"].fillna(scenario.transform("median")).astype(int)
    return frame.drop(columns="n_weak")


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
    """The rows of one run in the table of `collect`."""
    config, metrics = load_run(folder)
    name = _NAME.fullmatch(folder.resolve().name)
    if not name or int(name["seed"]) != config.seed:
        raise DataError(
            f"{folder}: holds the run of seed {config.seed}, and its folder is called seed{config.seed}-<hash of the "
            "settings>; give it its name back."
        )
    table = read_per_patient(folder)
    expected = Counter((patient, region) for patient in metrics.split["test"] for region in config.regions)
    found = Counter(zip(table["patient"], table["region"], strict=True))
    if found != expected:
        odd = next(iter((found - expected) + (expected - found)))
        raise DataError(
            f"{folder / 'per_patient.csv'}: {len(table)} rows where {expected.total()} test patients and regions were "
            f"expected, the first that does not fit is {odd}; restore the file, or run again."
        )
    before = {**{key: getattr(config, key) for key in RUN_COLUMNS}, "settings_hash": name["hash"]}
    before |= {"cohort": config.cohort_name, "n_wa": np.nan if config.n_wa is None else config.n_wa}
    origin = read_provenance(folder)
    after = {key: origin[key] for key in RunOrigin.model_fields}
    after |= {"folder": str(folder), "n_weak": len(metrics.split["weak"])}
    columns = {**before, **{key: table[key] for key in PER_PATIENT_COLUMNS}, **after}
    return pd.DataFrame(columns, index=table.index)


def _read_record(path: Path, schema: type[BaseModel]) -> Any:
    """A JSON file of a run by its schema; raises `DataError` where it is missing, cut or another file."""
    try:
        return schema.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = _reason(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise DataError(f"{path}: not the record of a finished run ({reason}); run it again.") from None


def _read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """A CSV file of runs with at least these columns; cohorts and patients are text, also one called nan."""
    kinds = {"cohort": str, "patient": str, "region": str, "dice": float, "truth_voxels": int, "predicted_voxels": int}
    kinds |= dict.fromkeys(HISTORY_COLUMNS[1:], float)
    try:
        names = pd.read_csv(path, nrows=0).columns.difference(["cohort", "patient"])
        missing = dict.fromkeys(names, ["", "nan"])
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=missing)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path}: cannot be read as a table ({_reason(error)}); run it again.") from None
    if missing := [name for name in columns if name not in table.columns]:
        raise DataError(f"{path}: column {missing[0]!r} is missing; restore the file, or run again.")
    return table


def _reason(error: Exception) -> str:
    """The first line of an error, which may quote a damaged file at length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def segment_patient(
    run_folder: str | Path, patient: Patient, output: str | Path, *, probabilities: bool = False
) -> list[LabelValue]:
    """Segment one patient with a finished run and write the labels as NIfTI on the axes of the patient's own files.

    The mask holds the label values of the patient's cohort; a region that no single value means is written as 1.
    Beside it stands a `.json` that says which value is what, and by which run. With `probabilities` two more files are
    written: `_probability.nii.gz`, the probability of tumour (float32; of any class for multiclass), and for a run with
    a branch `_slices.csv`, the branch's probability that a slice shows tumour.

    Args:
        run_folder: finished run whose weights are used.
        patient: its sequences must be those the network was trained on.
        output: file to write, `.nii.gz` or `.nii`.

    Returns:
        The values in the mask and what they mean.

    Raises:
        DataError: the run or the patient cannot be used.
        SettingError: `output` is no name of a NIfTI file.
    """
    if not str(output).endswith(NIFTI_ENDINGS) or Path(output).is_dir():
        raise SettingError(f"{output}: expected the name of a file to write, ending in .nii.gz or .nii.")
    config, _ = load_run(run_folder)
    if config.task not in patient.labels.tasks:
        raise DataError(
            f"{patient.place}: {patient.labels.source} has label values for {', '.join(patient.labels.tasks)}, but the "
            f"run segments {config.task}; say in cohort.yaml which values its regions have (data/README.md)."
        )
    legend = patient.labels.legend(config.task)
    device, precision = set_up(config)
    _refuse_other_images(Path(run_folder), patient)
    case = patient.read_images()
    slices, frame = patient_slices(case, config.pixel_mm, config.window)
    network = load_network(run_folder, slices.shape[1], slices.shape[2:]).to(device)
    scores, presence = score_slices(network, slices, device=device, precision=precision)
    values = np.array([0, *(label.value for label in legend)], np.uint16)
    values = values.astype(np.uint8) if values.max() < 256 else values
    mask, probability, table = (_beside(output, end) for end in (".json", "_probability.nii.gz", "_slices.csv"))
    if probabilities:
        tumor = 1 - scores_on_source_grid(scores, frame)[:, 0]  # (Z, Y, X)
        save_nifti(probability, tumor.transpose(2, 1, 0), case)
        if presence is not None:
            columns = pd.DataFrame(presence, columns=task_columns(config.task))
            write_text(table, columns.to_csv(index_label="z", float_format="%.4f"))
    write_json(mask, {"labels": {label.value: label.name for label in legend}, "run": run_name(run_folder)})
    save_nifti(output, values[label_volume(scores, frame)], case)
    return legend


def _refuse_other_images(run_folder: Path, patient: Patient) -> None:
    """Raise `DataError` where a patient's images are not of the kind that the run's network was trained on."""
    origin = read_provenance(run_folder)
    trained = tuple(origin.get("sequences") or ())
    if trained and trained != patient.sequences:
        raise DataError(
            f"{patient.place}: has the sequences {', '.join(patient.sequences)}, but the run was trained on "
            f"{', '.join(trained)}; use a run of the same sequences."
        )
    limits = list(patient.intensity_range) if patient.intensity_range else None
    if trained and limits != origin.get("intensity_range"):
        raise DataError(
            f"{patient.place}: its intensity range is {limits}, but that of the run's patients was "
            f"{origin.get('intensity_range')} (None: scaled by the median); give both the same cohort.yaml."
        )
    first_layer = load_weights(run_folder).get("unet.encoder.0.0.0.weight")
    n_sequences = len(patient.sequences)
    if first_layer is not None and first_layer.shape[1] != n_sequences:
        raise DataError(
            f"{patient.place}: has {n_sequences} sequences ({', '.join(patient.sequences)}), but the run was trained "
            f"on {first_layer.shape[1]}; use a run of the same sequences."
        )


def _beside(output: str | Path, ending: str) -> Path:
    """The file beside a mask whose name ends so instead of in .nii.gz."""
    path = Path(output)
    suffix = next(suffix for suffix in NIFTI_ENDINGS if path.name.endswith(suffix))
    return path.with_name(path.name.removesuffix(suffix) + ending)


def segment_cohort(
    run_folder: str | Path, cohort: Cohort, output: str | Path, *, probabilities: bool = False
) -> dict[str, str]:
    """Segment every patient of a cohort into `output`/PATIENT.nii.gz; what is there already from this run is left.

    A patient who cannot be segmented stops no other. Returns these patients, each with what is wrong; those whom file
    names alone show to be at fault (`cohort.problems`) are among them. Raises as `load_run` and, where `output` is a
    file, SettingError. For `probabilities` see `segment_patient`.
    """
    load_run(run_folder)
    if str(output).endswith(NIFTI_ENDINGS) or Path(output).is_file():
        raise SettingError(f"{output}: expected a folder for the masks of {len(cohort.patients)} patients.")
    failed = {problem.patient: str(problem) for problem in cohort.problems if problem.severity == "error"}
    for patient in tqdm(cohort.patients, desc="segment", unit="patient"):
        target = Path(output, f"{patient.id}.nii.gz")
        try:
            if patient.id not in failed and not _is_segmented(target, run_folder, probabilities):
                segment_patient(run_folder, patient, target, probabilities=probabilities)
        except DataError as error:
            failed[patient.id] = str(error)
    return failed


def _is_segmented(target: Path, run_folder: str | Path, probabilities: bool) -> bool:
    """Is this patient's mask there, from this run? Raises `DataError` where it is another's."""
    if not target.exists():
        return False
    try:
        run = read_json(_beside(target, ".json"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        run = "a run that is not known"
    if run != run_name(run_folder):
        raise DataError(f"{target}: is a mask of {run}; give another folder for the masks of this run.")
    return not probabilities or _beside(target, "_probability.nii.gz").exists()
