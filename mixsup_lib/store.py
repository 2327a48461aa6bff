"""The SliceStore: axial slices of all patients in one memory-mapped array, and a table beside it.

The store holds images only. Which classes a slice shows comes from `slice_labels.csv`, and the mask of a patient is
opened at the moment that patient is used as fully annotated or test, never otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pandas as pd

from mixsup_lib import paper
from mixsup_lib.cohort import Cohort
from mixsup_lib.errors import DataError
from mixsup_lib.files import read_json, write_json
from mixsup_lib.frames import SliceFrame, resample_in_plane
from mixsup_lib.slice_labels import read_slice_labels, slice_presence, tasks_covered, unexplained


def training_range(n_slices: int, has_empty_ends: bool) -> tuple[int, int]:
    """First and last training slice, inclusive: the paper's 15..130 of 155, as a fraction for other grids."""
    if not has_empty_ends:
        return 0, n_slices - 1
    first, last, of = paper.TRAINING_SLICES
    return round(first / of * n_slices), min(round(last / of * n_slices), n_slices - 1)


def write_description(folder: Path, settings: dict, entries: list[dict]) -> None:
    """Write store.json: the settings, an entry per patient, and a checksum over both."""
    content = {"settings": settings, "patients": entries}
    write_json(folder / "store.json", {**content, "checksum": checksum(content)})


def read_description(folder: Path) -> dict | None:
    """Content of store.json; None where it is missing or not what was written. Stores before the checksum have none."""
    try:
        content = read_json(folder / "store.json")
        parts = {name: content[name] for name in ("settings", "patients")}
        return content if content.get("checksum", checksum(parts)) == checksum(parts) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def open_images(folder: Path) -> np.ndarray | None:
    """images.npy, memory-mapped; None where it is missing or no array of slices."""
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError, OverflowError, TokenError, RecursionError, MemoryError):
        return None
    sound = images.dtype == np.float16 and images.ndim == 4 and images.flags.c_contiguous
    return images if sound else None


def digest(slices: np.ndarray) -> str:
    """What identifies one patient's stored slices (Z, C, H, W)."""
    return hashlib.blake2b(np.ascontiguousarray(slices).data, digest_size=16).hexdigest()


def checksum(content: object) -> str:
    """Of a description that is kept as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class SliceStore:
    """Prepared slices of one cohort.

    Attributes:
        images: (N, C, H, W) float16, memory-mapped, read only; non-zero median 100.
        table: N rows with patient, z, training (is it one of the training slices).
        cohort: the cohort the slices come from.
    """

    def __init__(self, folder: str | Path, cohort: Cohort, labels_folder: str | Path | None = None) -> None:
        self.folder, self.cohort = Path(folder), cohort
        self.labels_folder = Path(labels_folder or folder)
        description, images = read_description(self.folder), open_images(self.folder)
        if description is None or images is None:
            raise DataError(f"{self.folder}: not a prepared store; run `prepare` again.")
        self.images = images
        self.settings = description["settings"]
        entries = description["patients"]
        counts = np.array([entry["n_slices"] for entry in entries])
        stops = np.cumsum(counts)
        if stops[-1] != len(self.images):
            raise DataError(
                f"{self.folder}: images.npy and store.json disagree; delete the folder and prepare again."
            )
        self._rows = {
            e["patient"]: slice(int(b - c), int(b)) for e, b, c in zip(entries, stops, counts, strict=True)
        }
        self._frames = {
            e["patient"]: SliceFrame(**{k: tuple(v) for k, v in e["frame"].items()}) for e in entries
        }
        self._voxel_sizes = {e["patient"]: e["voxel_size_mm"] for e in entries}
        self._digests = {e["patient"]: e["digest"] for e in entries}
        ranges = [training_range(int(count), cohort.has_empty_ends) for count in counts]
        z = np.concatenate([np.arange(count) for count in counts])
        first, last = (np.repeat(column, counts) for column in zip(*ranges, strict=True))
        self.table = pd.DataFrame(
            {
                "patient": np.repeat([e["patient"] for e in entries], counts),
                "z": z,
                "training": (z >= first) & (z <= last),
            }
        )

    def verify(self, patients: Iterable[str]) -> None:
        """Raise `DataError` if stored slices of these patients are not those that were prepared.

        Reads them all, about a second per gigabyte, so opening a store leaves it to whoever trains on them.
        """
        for patient in patients:
            if digest(self.images[self.rows(patient)]) != self._digests[patient]:
                raise DataError(
                    f"{self.folder / 'images.npy'}: the slices of {patient} are not those that were prepared; delete "
                    "this file, and they are prepared again."
                )

    def rows(self, patient: str) -> slice:
        """Rows of one patient in `images` and `table`, in the order of z."""
        return self._rows[patient]

    def frame(self, patient: str) -> SliceFrame:
        """Where this patient's stored slices lie in the slices of the scan."""
        return self._frames[patient]

    def voxel_size_mm(self, patient: str) -> tuple[float, float, float] | None:
        """(x, y, z) voxel size of the patient's scan, None where the layout has none."""
        size = self._voxel_sizes[patient]
        return tuple(size) if size else None

    def presence(self, patients: list[str], task: str) -> dict[str, pd.DataFrame]:
        """Per patient, which classes occur in each slice (Z rows, bool columns), from `slice_labels.csv` alone.

        Raises `DataError` if the classes named in the file, or in a patient's rows, do not determine the image-level
        labels of `task`.
        """
        labels = read_slice_labels(self.cohort.folder)
        labels = read_slice_labels(self.labels_folder) if labels is None else labels
        if labels is None:
            raise DataError(
                f"{self.cohort.folder}: neither masks nor slice_labels.csv; write one (data/README.md)."
            )
        if task not in (covered := tasks_covered(labels)):
            raise DataError(
                f"{self.cohort.folder}: slice_labels.csv determines {', '.join(covered) or 'no task'}, but not "
                f"{task}; add rows of the classes it needs, or choose another task."
            )
        counts = {patient: self.rows(patient).stop - self.rows(patient).start for patient in patients}
        for patient, count in counts.items():
            for fault in unexplained(labels, patient, count, task):
                raise DataError(f"{self.cohort.folder}: slice_labels.csv: patient {patient}: {fault}")
        return {patient: slice_presence(labels, patient, counts[patient]) for patient in patients}

    def label_maps(self, patient: str) -> np.ndarray:
        """(Z, H, W) uint8 label maps of one patient on the grid of the stored slices. Opens that patient's mask."""
        labels = self.cohort[patient].read_labels().transpose(2, 1, 0)  # (Z, Y, X)
        expected = self.rows(patient).stop - self.rows(patient).start
        if len(labels) != expected:
            raise DataError(
                f"{patient}: the mask has {len(labels)} slices, the images {expected}; expected one grid."
            )
        return resample_in_plane(labels[:, None], self.frame(patient), nearest=True)[:, 0]  # (Z, H, W)

    def fingerprint(self) -> str:
        """Digest of all stored intensities and of the settings; masks have no part in it."""
        content = json.dumps(
            [self._digests, {k: v for k, v in self.settings.items() if k != "cohort"}], sort_keys=True
        )
        return hashlib.sha256(content.encode()).hexdigest()[:16]
