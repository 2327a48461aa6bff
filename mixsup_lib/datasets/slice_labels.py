"""`slice_labels.csv`: which slices of a patient show tumour, a weakly annotated patient's only label source.

Columns patient, class, first_z, last_z. A row says that the slices first_z..last_z (inclusive, counted from 0 at the
neck) show that class; several rows per patient and class are allowed. The class is a subclass (non_enhancing,
oedema, enhancing), a region (tumor_core, whole_tumor), or `none`, with empty z, for a patient looked at and found
without tumour. Where no row names a class that the file uses, it is absent; a region that the file neither names nor
composes is unknown (`tasks_covered`).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from mixsup_lib import paper
from mixsup_lib.cohort import Report, refuse
from mixsup_lib.files import DataError, atomic_path, composed, nearest, shown

FILE_NAME = "slice_labels.csv"
COLUMNS = ["patient", "class", "first_z", "last_z"]
SUBCLASSES = tuple(paper.CLASSES.values())
NONE = "none"
COMPOSED = {"tumor_core": ("non_enhancing", "enhancing"), "whole_tumor": (*SUBCLASSES, "tumor_core")}
"""Region -> the classes whose presence in a slice implies it."""
PRESENCE = (*SUBCLASSES, *COMPOSED)
"""Columns of a presence table."""


def read_slice_labels(folder: str | Path, report: Report = refuse) -> pd.DataFrame | None:
    """The rows of `folder`/slice_labels.csv, or None without such a table. first_z, last_z: Int64, missing for `none`.

    Raises `DataError` naming the line at the first fault; with another `report` the faulty rows are left out.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return None
    name = FILE_NAME if report is not refuse else str(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)  # ; where numbers have a decimal comma
        table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        lines = [[field.strip() for field in line] for line in table]
    except UnicodeDecodeError:
        report(name, "is not in UTF-8, probably in Windows-1252; save it in Excel as 'CSV UTF-8 (Comma delimited)'.")
        return None
    except (OSError, csv.Error) as error:
        report(name, f"is not a readable table ({shown(error)}); save it as CSV UTF-8.")
        return None
    filled = [(number, line) for number, line in enumerate(lines, start=1) if any(line)]
    header = filled[0][1] if filled else []
    if [name.lower() for name in header] != COLUMNS:
        found = shown(", ".join(header)) if header else "(none)"
        report(name, f"has the columns {found}, expected {', '.join(COLUMNS)}; correct line 1.")
        return None
    rows = []
    for number, line in filled[1:]:
        row, fault = _parse(line)
        if fault:
            report(name, f"line {number}: {fault}")
        else:
            rows.append(row)
    frame = _frame(rows)
    for patient, classes in frame.groupby("patient")["class"]:
        if NONE in set(classes) and len(classes) > 1:
            report(name, f"patient {patient} has the class none beside other rows; keep one or the other.")
    return frame


def write_slice_labels(folder: str | Path, frame: pd.DataFrame) -> Path:
    """Write `frame` as `folder`/slice_labels.csv, atomically, and return the path."""
    path = Path(folder) / FILE_NAME
    with atomic_path(path) as temporary:
        frame[COLUMNS].to_csv(temporary, index=False, lineterminator="\n")
    return path


def derive_rows(patient_id: str, labels: np.ndarray, tasks: tuple[str, ...]) -> pd.DataFrame:
    """The rows of one patient from its label map (X, Y, Z): one per class and run of slices that show it.

    Where the cohort's `tasks` tell the subclasses apart the rows name subclasses, otherwise regions.
    """
    if "multiclass" in tasks:
        members = {name: (value,) for value, name in paper.CLASSES.items()}
    else:
        names = {"enhancing_core": "enhancing"}
        members = {names.get(task, task): values for task, values in paper.REGIONS.items() if task in tasks}
    rows, planes = [], labels.T.reshape(labels.shape[2], -1)  # (Z, Y * X)
    for name, values in members.items():
        present = np.any([(planes == value).any(axis=1) for value in values], axis=0)  # (Z,)
        steps = np.diff(present.astype(np.int8), prepend=0, append=0)  # (Z + 1,)
        runs = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1, strict=True)
        rows += [(patient_id, name, int(first), int(last)) for first, last in runs]
    return _frame(rows or [(patient_id, NONE, None, None)])


def mask_presence(labels: np.ndarray) -> pd.DataFrame:
    """Which classes each slice of a label map (X, Y, Z) shows: Z rows, a bool column per name in `PRESENCE`."""
    shown = np.stack([(labels == value).any(axis=(0, 1)) for value in paper.CLASSES])  # (3, Z)
    return _with_regions(dict(zip(SUBCLASSES, shown, strict=True)))


def slice_presence(frame: pd.DataFrame, patient_id: str, n_slices: int) -> pd.DataFrame:
    """The same table, of Z = `n_slices` rows, from the rows of slice_labels.csv. A subclass implies its regions.

    Raises `DataError` for an unknown class, a range outside the volume or back to front, and a patient without rows.
    """
    for fault in slice_faults(frame, patient_id, n_slices):
        raise DataError(f"{FILE_NAME}: patient {patient_id}: {fault}")
    rows = frame[frame["patient"] == patient_id]
    if rows.empty:
        hint = nearest(patient_id, frame["patient"].unique())
        wanted = "add its slices, or the class none if it has no tumour"
        raise DataError(f"{FILE_NAME}: has no row for patient {patient_id}; {wanted}.{hint}")
    presence = {name: np.zeros(n_slices, bool) for name in PRESENCE}
    for name, first, last in rows[["class", "first_z", "last_z"]].itertuples(index=False, name=None):
        if name != NONE:
            presence[name][int(first) : int(last) + 1] = True
    return _with_regions(presence)


def slice_faults(frame: pd.DataFrame, patient_id: str, n_slices: int) -> list[str]:
    """What is wrong with the rows of one patient in a volume of `n_slices` slices, one sentence each."""
    rows = frame.loc[frame["patient"] == patient_id, ["class", "first_z", "last_z"]]
    faults = (_fault(*row, n_slices) for row in rows.itertuples(index=False, name=None))
    return [fault for fault in faults if fault]


def tasks_covered(frame: pd.DataFrame) -> tuple[str, ...]:
    """The tasks of `paper.TASKS` whose image-level labels the classes used in the file determine."""
    used = set(frame["class"]) - {NONE}
    if used <= set(SUBCLASSES):
        return paper.TASKS
    core = "tumor_core" in used or set(COMPOSED["tumor_core"]) <= used
    known = {
        "whole_tumor": "whole_tumor" in used or (core and "oedema" in used),
        "tumor_core": core,
        "enhancing_core": "enhancing" in used,
        "multiclass": set(SUBCLASSES) <= used,
    }
    return tuple(task for task in paper.TASKS if known[task])


def unexplained(frame: pd.DataFrame, patient_id: str, n_slices: int, task: str) -> list[str]:
    """Where a patient's rows name a region only, while other rows of the file name its parts; one sentence each.

    Whether such a slice shows the parts is unknown, and counting it as free of them would be a guess.
    """
    used = set(frame["class"])
    core = "tumor_core" in used or set(COMPOSED["tumor_core"]) <= used
    composed = {"whole_tumor": core and "oedema" in used, "tumor_core": set(COMPOSED["tumor_core"]) <= used}
    needed = {"whole_tumor": (), "tumor_core": ("whole_tumor",)}.get(task, tuple(COMPOSED))
    presence, found = slice_presence(frame, patient_id, n_slices), []
    for region in (name for name in needed if composed[name]):
        parts = presence[list(COMPOSED[region])].any(axis=1)
        if (slices := np.flatnonzero(presence[region] & ~parts)).size:
            more = f" and {slices.size - 1} more" if slices.size > 1 else ""
            found.append(
                f"{region} in slice {slices[0]}{more}, but no row says which of its classes, as other rows of the file "
                f"do; add rows, or choose the task {region}."
            )
    return found


def _frame(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return frame.astype({"patient": str, "class": str, "first_z": "Int64", "last_z": "Int64"})


def _with_regions(presence: dict[str, np.ndarray]) -> pd.DataFrame:
    for region, parts in COMPOSED.items():
        known = [presence[name] for name in (*parts, region) if name in presence]
        presence[region] = np.logical_or.reduce(known)
    return pd.DataFrame(presence)


def _parse(fields: list[str]) -> tuple[tuple | None, str | None]:
    """One line -> (row, None), or (None, what is wrong with it)."""
    if len(fields) != len(COLUMNS):
        return None, f"has {len(fields)} fields, expected {len(COLUMNS)} ({', '.join(COLUMNS)})."
    patient, name, *ends = fields
    name = name.lower()
    if not patient:
        return None, "names no patient; write the patient's ID."
    if name == NONE and not any(ends):
        return (composed(patient), name, None, None), None
    if name == NONE or not all(end.isdecimal() and len(end) < 7 for end in ends):
        wanted = "none beside z" if name == NONE else f"the slices {shown(ends[0])} to {shown(ends[1])}"
        return None, f"has {wanted}, expected whole numbers from 0, or the class none with both left empty."
    row = (composed(patient), name, int(ends[0]), int(ends[1]))
    fault = _fault(*row[1:])
    return (None, f"patient {patient}: {fault}") if fault else (row, None)


def _fault(name: str, first, last, n_slices: int | None = None) -> str | None:
    """What is wrong with the slices of one row, or None."""
    if name == NONE:
        return None
    if name not in PRESENCE:
        known = ", ".join((*PRESENCE, NONE))
        return f"unknown class {shown(name)}, expected one of {known}.{nearest(name, PRESENCE)}"
    if pd.isna(first) or pd.isna(last):
        return f"{name} has no slice numbers; fill in first_z and last_z."
    if first > last:
        return f"{name} has first_z {first} after last_z {last}; swap them."
    if first < 0 or (n_slices is not None and last >= n_slices):
        return f"{name} has slices {first} to {last}, but the volume has 0 to {n_slices - 1}; correct them."
    return None
