"""What the readers of all data sets share: which folders are patients', and whether voxels are usable."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixsup_lib.cohort import Problem, Report
from mixsup_lib.datasets.labels import plain
from mixsup_lib.files import DataError


class UnknownLayoutError(DataError):
    """`folder` holds no layout that is known, but maybe one that a cohort.yaml can describe."""

    def __init__(self, folder: Path, sentence: str) -> None:
        super().__init__(f"{folder}: {sentence}")
        self.folder, self.sentence = folder, sentence


SEQUENCE_NAMES = {
    "FLAIR": ("flair", "t2f", "t2flair"),
    "T1": ("t1w", "t1", "t1n"),
    "T1c": ("t1gd", "t1c", "t1ce", "t1post"),
    "T2": ("t2w", "t2"),
}
"""The paper's sequences, as data sets name them; letters and digits only."""


def sequence_named(name: str) -> str | None:
    """The sequence of the paper that a data set calls so, or None."""
    return next((known for known, spellings in SEQUENCE_NAMES.items() if plain(name) in spellings), None)


def visible_folders(folder: Path) -> list[Path]:
    """Subfolders by name, without hidden ones and those that macOS packs into archives."""
    inside = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path for path in inside if not path.name.startswith((".", "__MACOSX")))


def no_patient(path: Path, name: str, endings: tuple[str, ...], *, deep: bool = False) -> Problem | None:
    """The problem of a folder that holds no file with one of the `endings` of a patient's; None if it holds some.

    `deep`: files in folders inside it count too.
    """
    files = path.rglob("*") if deep else path.iterdir()
    content = [file.name.lower() for file in files if not file.name.startswith(".")]
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
