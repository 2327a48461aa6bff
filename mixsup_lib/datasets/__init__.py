"""Which public data set a folder holds, recognised from its file names: `find_cohort`.

To add a data set, write a file beside `brats.py` with these two things and name it in `LAYOUTS`:

1. A class derived from `cohort.Patient`. It tells which files are missing, and reads the images and the mask as
   volumes (X, Y, Z) on LPS axes and as the paper's classes. Every fault goes to `report(file, sentence)`.
2. A function `find(folder, labels=None)` that returns the `Cohort` in a folder, or None where the folder is no such
   data set. It looks at file names alone. `labels` is what cohort.yaml says about the label values.

A layout without a file here is described by a cohort.yaml (`own.py`). `reading.py`, `labels.py` and `nifti.py` hold
the steps that all data sets share. `slice_labels.py` is the table of the slices that show tumour, which is all that a
weakly annotated patient needs beside its images.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from mixsup_lib.cohort import Cohort, Patient, Problem
from mixsup_lib.datasets import brats, decathlon, lgg_kaggle, nifti, nnunet, own
from mixsup_lib.datasets.labels import plain
from mixsup_lib.datasets.reading import UnknownLayoutError
from mixsup_lib.datasets.slice_labels import FILE_NAME
from mixsup_lib.files import DataError, SettingError, composed

LAYOUTS = (nnunet, decathlon, brats, lgg_kaggle)
LAYOUT_NAMES = "BraTS 2017/2018, BraTS 2019-2021, BraTS 2023+, Decathlon Task01, nnU-Net, LGG Kaggle"
OTHER_FORMATS = (".mha", ".mhd", ".nrrd", ".dcm", ".mgz", ".hdr", ".npy")
CONVERTER = "dcm2niix for DICOM, SimpleITK for others"
MOST_FILES_OF_A_PATIENT = 9
"""The most sequences that a patient can have, and a mask."""


def find_cohort(folder: str | Path, *, strict: bool = True) -> Cohort:
    """Find the patients in `folder`, or in the one folder inside it that has a known layout. Reads no image.

    Raises `SettingError` where there is no such folder. Raises `DataError` where it holds no known layout or, if
    `strict`, at the first patient whose files cannot be complete; `strict=False` keeps such faults in
    `Cohort.problems`, and reading that patient raises. A missing mask is no fault here, because such a patient can
    be weakly annotated.
    """
    cohort = _recognise(_existing(folder))
    cohort = replace(cohort, patients=tuple(replace(one, id=composed(one.id)) for one in cohort.patients))
    problems, named = [*cohort.problems], {problem.file for problem in cohort.problems}
    for patient in cohort.patients:
        missing = [Problem(patient.id, file, sentence) for file, sentence in patient.missing()]
        problems += [problem for problem in missing if problem.file not in named]
    for name, count in Counter(patient.id for patient in cohort.patients).items():
        if count > 1:
            first, second, *_ = (patient.place for patient in cohort.patients if patient.id == name)
            sentence = f"the patient ID {name} occurs {count} times (also {first}); keep one."
            problems.append(Problem(name, second, sentence))
    labels = cohort.folder / FILE_NAME
    for path in cohort.folder.rglob("*[sS]*[lL]*.*"):
        similar = plain(path.name).startswith(plain(labels.stem)) and path.is_file()
        if similar and not (labels.exists() and path.samefile(labels)):
            sentence = f"is not read; if it holds the slice labels, it has to be {labels}."
            problems.append(Problem("", path.relative_to(cohort.folder).as_posix(), sentence, "warning"))
    for path in cohort.folder.glob("*.y*ml"):
        if plain(path.name).startswith("cohort") and not (cohort.folder / own.FILE_NAME).exists():
            sentence = f"is not read; if it describes the cohort, rename it to {own.FILE_NAME}."
            problems.append(Problem("", path.name, sentence, "warning"))
    if not cohort.patients and not problems:
        problems.append(Problem("", str(cohort.folder), "holds no patient."))
    errors = [problem for problem in problems if problem.severity == "error"]
    if strict and errors:
        more = f" {len(errors) - 1} more problems;" if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more} `python -m mixsup_lib check-data {cohort.folder}` lists all.")
    patients = tuple(sorted(cohort.patients, key=lambda patient: patient.id))
    return replace(cohort, patients=patients, problems=tuple(problems))


def open_patient(path: str | Path) -> Patient:
    """One patient, from its own folder or, where the data set has none, from its image file (Decathlon, nnU-Net).

    Raises `SettingError` where there is nothing at `path` and `DataError` where it is no patient's.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise SettingError(f"{path}: there is no such file or folder; name a patient's folder or image file.")
    folder, description = path.parent, None
    for place in list(path.parents)[:2]:  # a grade folder or imagesTs may lie between
        if description := own.read_description(place):
            folder = place
            break
    labels = description.labels if description else None
    patient = None
    if path.is_file():
        patient = nnunet.open_file(path, labels) or decathlon.open_file(path, labels)
    elif description and description.sequences:
        patient = next(iter(own.find(folder, description, [path]).patients), None)
    else:
        for layout in (brats, lgg_kaggle):
            if (found := layout.find(path.parent, [path], labels)) and found.patients:
                patient = found.patients[0]
                break
    if patient is None:
        raise DataError(
            f"{path}: holds no patient's files; expected the folder of a BraTS or LGG patient, an image file beside a "
            f"dataset.json, or a {own.FILE_NAME} in {path.parent} that describes them (data/README.md)."
        )
    limits = description.intensity_range if description else None
    return replace(patient, id=composed(patient.id), intensity_range=limits)


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, expected a folder" if folder.exists() else "there is no such folder"
        raise SettingError(f"{folder}: {what}; name the folder that holds the data.")
    return folder


def _recognise(folder: Path) -> Cohort:
    """The cohort in `folder`, or in the one folder inside it, down to three levels, that has a known layout."""
    if found := _find(folder):
        return found
    if (folder / "imagesTr").is_dir() and not (folder / "dataset.json").exists():
        raise DataError(f"{folder}: has imagesTr but no dataset.json, which says what its files are; add it.")
    for depth in () if _is_bids(folder) else ("*", "*/*", "*/*/*"):
        inside = [path for path in sorted(folder.glob(depth)) if path.is_dir() and not path.name.startswith(".")]
        cohorts = [found for path in inside if (found := _find(path))]
        if len(cohorts) == 1:
            if (folder / FILE_NAME).exists():
                raise DataError(f"{folder / FILE_NAME}: lies outside the cohort; move it into {cohorts[0].folder}.")
            return cohorts[0]
        if cohorts:
            names = ", ".join(cohort.folder.relative_to(folder).as_posix() for cohort in cohorts)
            raise DataError(f"{folder}: holds {len(cohorts)} cohorts ({names}); name one of these folders.")
    raise UnknownLayoutError(folder, _unknown(folder))


def _is_bids(folder: Path) -> bool:
    return (folder / "dataset_description.json").exists() or any(folder.glob("sub-*/**/anat"))


def _unknown(folder: Path) -> str:
    """What a folder without a known layout seems to be, and what to do."""
    content = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if not content:
        return f"is an empty folder, expected patients ({LAYOUT_NAMES})."
    describe = f"`python -m mixsup_lib check-data` drafts a {own.FILE_NAME} that describes them"
    if _is_bids(folder):
        return f"is a BIDS tree, which is read with a {own.FILE_NAME}; {describe}. Masks have to lie in sub-*/ too."
    names = [path.name.lower() for path in content if path.is_file()]
    scans = [name for name in names if name.endswith((*nifti.ENDINGS, ".tif", ".tiff"))]
    if len(scans) > MOST_FILES_OF_A_PATIENT:
        return f"holds {len(scans)} scans side by side; put the files of each patient into a folder of its own."
    if scans:
        return "looks like one patient's folder; name the folder that holds all patients."
    if other := next((path for path in folder.rglob("*") if path.suffix.lower() in OTHER_FORMATS), None):
        return f"holds {other.suffix} files, but scans are read as NIfTI (.nii.gz, .nii); convert them ({CONVERTER})."
    return f"has none of the known layouts ({LAYOUT_NAMES}); {describe} (data/README.md)."


def _find(folder: Path) -> Cohort | None:
    try:
        description = own.read_description(folder)
        if description and description.sequences:
            return description.apply(own.find(folder, description))
        labels = description.labels if description else None
        cohort = next((found for layout in LAYOUTS if (found := layout.find(folder, labels=labels))), None)
    except PermissionError as error:
        raise DataError(f"{error.filename}: cannot be opened (no permission); change its permissions.") from None
    if description and cohort is None:
        raise DataError(f"{folder / own.FILE_NAME}: names no sequences, and the folder has no known layout; add them.")
    return description.apply(cohort) if description else cohort
