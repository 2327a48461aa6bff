"""What the readers of all data sets share: which folders are patients', whether voxels are usable, label -> class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixsup_lib.cohort import Problem, Report


def visible_folders(folder: Path) -> list[Path]:
    """Subfolders by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def no_patient(path: Path, name: str, endings: tuple[str, ...]) -> Problem | None:
    """The problem of a folder that holds no file with one of the `endings` of a patient's; None if it holds some."""
    content = [file.name.lower() for file in path.iterdir() if not file.name.startswith(".")]
    if not content:
        return Problem(path.name, name, "is an empty folder; add the patient's files or delete it.")
    if any(file.endswith(endings) for file in content):
        return None
    sentence = f"holds no {endings[0]} file, so it is not read as a patient."
    return Problem(path.name, name, sentence, "warning")


def check_intensities(array: np.ndarray, file: str, name: str, report: Report) -> bool:
    """Whether the volume (X, Y, Z) of sequence `name` can be used: finite numbers, not all the same."""
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        report(file, f"{name} holds {bad} voxels that are NaN or infinite; export the scan again.")
    elif low == high:
        report(file, f"{name} is empty (every voxel is {low:g}); export the scan again.")
    else:
        return True
    return False


def map_labels(
    values: np.ndarray, classes: dict[int, int], file: str, report: Report, known_from: str = "this layout"
) -> np.ndarray | None:
    """Label values on disk -> the paper's classes, uint8 of the same shape; None after an unknown value.

    classes: {value on disk: class}, as `known_from` tells them. The value 0 is always background. A value within 0.01
    of a whole number is that number: a scale factor in the header makes 1.00002 of 1.
    """
    if values.dtype.kind == "f":
        whole = np.rint(values)
        values = np.where(np.abs(values - whole) <= 0.01, whole, values)
    labels = np.zeros_like(values, np.uint8)
    known = values == 0
    for value, name in classes.items():
        hit = values == value
        labels |= hit * np.uint8(name)
        known |= hit
    if known.all():
        return labels
    unknown = ", ".join(f"{value:g}" for value in np.unique(values[~known])[:5])
    expected = ", ".join(str(value) for value in sorted({0, *classes}))
    report(file, f"holds the unknown label value {unknown}; {known_from} has {expected}: correct the mask.")
    return None
