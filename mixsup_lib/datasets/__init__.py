"""Patients on disk -> `Case`. Which public data set a folder holds is recognised from its file names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mixsup_lib.cohort import Cohort, Found, Patient, Problem, visible_folders
from mixsup_lib.datasets import brats, decathlon, lgg_kaggle
from mixsup_lib.datasets.slice_labels import FILE_NAME
from mixsup_lib.files import DataError, SettingError

LAYOUTS = (decathlon, brats, lgg_kaggle)
LAYOUT_NAMES = "BraTS 2017/2018, BraTS 2019-2021, BraTS 2023+, Decathlon Task01, LGG Kaggle"


def find_cohort(folder: str | Path, *, strict: bool = True) -> Cohort:
    """Find the patients in `folder`, or in the one folder inside it that has a known layout. Reads no image.

    Raises `SettingError` where there is no such folder and `DataError` where it holds no known layout or, if
    `strict`, at the first patient whose files cannot be complete; `strict=False` keeps such faults in
    `Cohort.problems`, and reading that patient raises. A missing mask is no fault here: such a patient can be
    weakly annotated.
    """
    found, folder = _recognise(_existing(folder))
    problems = [*found.problems]
    for patient in found.patients:
        problems += [Problem(patient.id, file, sentence) for file, sentence in patient.missing()]
    counts = Counter(patient.id for patient in found.patients)
    for name in (name for name, count in counts.items() if count > 1):
        places = [patient.place for patient in found.patients if patient.id == name]
        sentence = f"the patient ID {name} occurs {counts[name]} times (also {places[0]}); keep one."
        problems.append(Problem(name, places[1], sentence))
    if not found.patients and not problems:
        problems.append(Problem("", str(folder), "holds no patient."))
    errors = [problem for problem in problems if problem.severity == "error"]
    if strict and errors:
        more = f" {len(errors) - 1} more problems;" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more} `python -m mixsup_lib check-data {folder}` lists all.")
    return Cohort(
        folder=folder,
        layout=found.layout,
        sequences=found.sequences,
        tasks=found.tasks,
        patients=tuple(sorted(found.patients, key=lambda patient: patient.id)),
        has_empty_ends=found.has_empty_ends,
        problems=tuple(problems),
    )


def open_patient(folder: str | Path) -> Patient:
    """The patient whose own folder this is (BraTS and LGG: the Decathlon has no folder per patient).

    Raises `SettingError` where there is no such folder and `DataError` where it is no patient's.
    """
    folder = _existing(folder).resolve()
    for layout in (brats, lgg_kaggle):
        found = layout.find(folder.parent, [folder])
        if found and found.patients:
            return found.patients[0]
    raise DataError(f"{folder}: holds no patient's files; expected those of a BraTS or LGG patient.")


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, expected a folder" if folder.exists() else "there is no such folder"
        raise SettingError(f"{folder}: {what}; name the folder that holds the data.")
    return folder


def _recognise(folder: Path) -> tuple[Found, Path]:
    """What a layout found in `folder`, or in the one subfolder that has a layout, and where."""
    found = _find(folder)
    if found:
        return found, folder
    inside = [(found, path) for path in visible_folders(folder) if (found := _find(path))]
    if len(inside) == 1:
        if (folder / FILE_NAME).exists():
            raise DataError(f"{folder / FILE_NAME}: lies outside the cohort; move it into {inside[0][1]}.")
        return inside[0]
    if inside:
        names = ", ".join(path.name for _, path in inside)
        raise DataError(f"{folder}: holds {len(inside)} cohorts ({names}); name one of these folders.")
    if not any(folder.iterdir()):
        raise DataError(f"{folder}: is an empty folder, expected patients ({LAYOUT_NAMES}).")
    if any(path.suffix in (".gz", ".nii", ".tif") for path in folder.iterdir()):
        raise DataError(
            f"{folder}: looks like one patient's folder; name the folder that holds all patients."
        )
    raise DataError(f"{folder}: has none of the known layouts ({LAYOUT_NAMES}); see data/README.md.")


def _find(folder: Path) -> Found | None:
    try:
        return next((found for layout in LAYOUTS if (found := layout.find(folder))), None)
    except PermissionError as error:
        raise DataError(
            f"{error.filename}: cannot be opened (no permission); change its permissions."
        ) from None
