"""Which public data set a folder holds, recognised from its file names: `find_cohort`.

To add a data set, write a file beside `brats.py` with these two things and name it in `LAYOUTS`:

1. A class derived from `cohort.Patient`. It tells which files are missing, and reads the images and the mask as
   volumes (X, Y, Z) on LPS axes and as the paper's classes. Every fault goes to `report(file, sentence)`.
2. A function `find(folder)` that returns the `Cohort` in a folder, or None where the folder is no such data set. It
   looks at file names alone.

`reading.py` and `nifti.py` hold the steps that all data sets share. `slice_labels.py` is the table of the slices that
show tumour, which is all that a weakly annotated patient needs beside its images.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from mixsup_lib.cohort import Cohort, Patient, Problem
from mixsup_lib.datasets import brats, decathlon, lgg_kaggle
from mixsup_lib.datasets.reading import visible_folders
from mixsup_lib.datasets.slice_labels import FILE_NAME
from mixsup_lib.files import DataError, SettingError

LAYOUTS = (decathlon, brats, lgg_kaggle)
LAYOUT_NAMES = "BraTS 2017/2018, BraTS 2019-2021, BraTS 2023+, Decathlon Task01, LGG Kaggle"


def find_cohort(folder: str | Path, *, strict: bool = True) -> Cohort:
    """Find the patients in `folder`, or in the one folder inside it that has a known layout. Reads no image.

    Raises `SettingError` where there is no such folder. Raises `DataError` where it holds no known layout or, if
    `strict`, at the first patient whose files cannot be complete; `strict=False` keeps such faults in
    `Cohort.problems`, and reading that patient raises. A missing mask is no fault here, because such a patient can
    be weakly annotated.
    """
    cohort = _recognise(_existing(folder))
    problems = [*cohort.problems]
    for patient in cohort.patients:
        problems += [Problem(patient.id, file, sentence) for file, sentence in patient.missing()]
    for name, count in Counter(patient.id for patient in cohort.patients).items():
        if count > 1:
            first, second, *_ = (patient.place for patient in cohort.patients if patient.id == name)
            sentence = f"the patient ID {name} occurs {count} times (also {first}); keep one."
            problems.append(Problem(name, second, sentence))
    labels = cohort.folder / FILE_NAME
    for path in (*cohort.folder.glob("*"), *cohort.folder.glob("*/*")):
        similar = path.name.lower().startswith(labels.stem) and path.is_file()
        if similar and not (labels.exists() and path.samefile(labels)):
            sentence = f"is not read; if it holds the slice labels, it has to be {labels}."
            problems.append(Problem("", path.relative_to(cohort.folder).as_posix(), sentence, "warning"))
    if not cohort.patients and not problems:
        problems.append(Problem("", str(cohort.folder), "holds no patient."))
    errors = [problem for problem in problems if problem.severity == "error"]
    if strict and errors:
        more = f" {len(errors) - 1} more problems;" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more} `python -m mixsup_lib check-data {cohort.folder}` lists all.")
    patients = tuple(sorted(cohort.patients, key=lambda patient: patient.id))
    return replace(cohort, patients=patients, problems=tuple(problems))


def open_patient(folder: str | Path) -> Patient:
    """The patient whose own folder this is (BraTS and LGG: the Decathlon has no folder per patient).

    Raises `SettingError` where there is no such folder and `DataError` where it is no patient's.
    """
    folder = _existing(folder).resolve()
    for layout in (brats, lgg_kaggle):
        found = layout.find(folder.parent, [folder])
        if found and [patient.id for patient in found.patients] == [folder.name]:
            return found.patients[0]
    raise DataError(f"{folder}: holds no patient's files; expected those of a BraTS or LGG patient.")


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, expected a folder" if folder.exists() else "there is no such folder"
        raise SettingError(f"{folder}: {what}; name the folder that holds the data.")
    return folder


def _recognise(folder: Path) -> Cohort:
    """The cohort in `folder`, or in the one subfolder that has a known layout."""
    if found := _find(folder):
        return found
    inside = [found for path in visible_folders(folder) if (found := _find(path))]
    if len(inside) == 1:
        if (folder / FILE_NAME).exists():
            raise DataError(f"{folder / FILE_NAME}: lies outside the cohort; move it into {inside[0].folder}.")
        return inside[0]
    if inside:
        names = ", ".join(cohort.folder.name for cohort in inside)
        raise DataError(f"{folder}: holds {len(inside)} cohorts ({names}); name one of these folders.")
    content = list(folder.iterdir())
    if not content:
        raise DataError(f"{folder}: is an empty folder, expected patients ({LAYOUT_NAMES}).")
    if any(path.suffix in (".gz", ".nii", ".tif") for path in content):
        raise DataError(f"{folder}: looks like one patient's folder; name the folder that holds all patients.")
    raise DataError(f"{folder}: has none of the known layouts ({LAYOUT_NAMES}); see data/README.md.")


def _find(folder: Path) -> Cohort | None:
    try:
        return next((found for layout in LAYOUTS if (found := layout.find(folder))), None)
    except PermissionError as error:
        raise DataError(f"{error.filename}: cannot be opened (no permission); change its permissions.") from None
