"""What finished runs left on disk, read back: Dice of every test patient, and the history."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from mixsup_lib.errors import DataError, shown
from mixsup_lib.files import check_sums, read_json
from mixsup_lib.metrics import PER_PATIENT_COLUMNS, task_regions
from mixsup_lib.paper import TASKS

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
