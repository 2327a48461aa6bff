"""Patients -> axial slices (section 4.1): normalised, cut out around the head, one memory-mapped file per patient.

The store holds images only. Which classes a slice shows comes from `slice_labels.csv`. The mask of a patient is opened
when that patient is used as fully annotated or as test patient, never otherwise.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from isal import isal_zlib
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from mixsup_lib import paper
from mixsup_lib.cohort import Case, Cohort, Patient
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import (
    NONE,
    derive_rows,
    read_slice_labels,
    slice_presence,
    tasks_covered,
    unexplained,
    write_slice_labels,
)
from mixsup_lib.files import DataError, atomic_path, locked, read_json, remove_leftovers, worker_pool, write_json

FIELD_OF_VIEW_MM = 240.0
"""Taken for scans without spacing: that of BraTS (240 pixels of 1 mm)."""

SLICES_AT_A_TIME = 8
"""So many slices stay in a CPU's cache from one step of preparing them to the next."""

OPEN_FILES = 64
"""A store keeps the files of so many patients open. macOS allows a process 256 files."""


# Intensities


def foreground_mask(volume: np.ndarray) -> np.ndarray:
    """Voxels of the head, bool of the volume's shape (X, Y, Z).

    Where the rim of the slices and at least half of the volume are exactly 0 (skull-stripped scans) these are the
    non-zero voxels, as in the paper. Elsewhere the background is grey or noisy and Otsu's threshold separates it.

    Departure: the paper's non-zero median needs a background of exactly 0; Otsu's threshold serves cohorts without.
    """
    rim = [volume[0], volume[-1], volume[:, 0], volume[:, -1]]
    nonzero = volume != 0
    if np.mean([(side == 0).mean() for side in rim]) > 0.99 and 2 * np.count_nonzero(nonzero) <= nonzero.size:
        return nonzero
    from skimage.filters import threshold_otsu

    return volume > threshold_otsu(volume)


def scale_fault(volume: np.ndarray, mask: np.ndarray) -> str | None:
    """Why the median over the foreground `mask` is no scale to divide by, as a clause of a sentence; None if it is one.

    Images that were z-scored before lie around 0: their median is near 0, and dividing by it would invert or inflate
    the contrast.
    """
    if volume.min() >= 0:
        return None
    low, middle, high = np.percentile(volume[mask], [25, 50, 75])
    if middle > 0 and 2 * middle >= high - low:
        return None
    return (
        f"has intensities around 0 (median of the head {middle:.3g}, its middle half from {low:.3g} to {high:.3g}), so "
        "the median is no scale; use the scan's own intensities, as they were before z-scoring, or write "
        "`intensities: as is` and a range into cohort.yaml (data/README.md)"
    )


def normalise(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Volume / median over the foreground `mask` * 100 (section 4.1), float32 of the same shape.

    Where the background is exactly 0 the mask is the paper's "non-zero voxels".
    """
    return (volume * (paper.INTENSITY_CONSTANT / _median(volume, mask))).astype(np.float32, copy=False)


def within_range(volume: np.ndarray, mask: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Intensities used as they are: clipped to `limits`, which become 0 and 200. float32 of the same shape.

    A background of exactly 0 becomes 0 too, the lowest, which is also what lies outside the scan.

    Departure: the paper's median is no scale for CT, nor for images that were normalised before.
    """
    low, high = limits
    scaled = (np.clip(volume, low, high) - low) * (2 * paper.INTENSITY_CONSTANT / (high - low))
    if not volume[~mask].any():
        scaled[~mask] = 0
    return scaled.astype(np.float32, copy=False)


def _median(volume: np.ndarray, mask: np.ndarray) -> np.floating:
    """`np.median(volume[mask])` of finite values, four times faster: read in the order of memory, ordered once."""
    order = "F" if volume.flags.f_contiguous else "C"
    values = volume.ravel(order)[mask.ravel(order)]
    middle = len(values) // 2
    ordered = np.partition(values, middle)
    return np.mean([ordered[middle] if len(values) % 2 else ordered[:middle].max(), ordered[middle]])


# Grids


@dataclass(frozen=True)
class SliceFrame:
    """Geometry of one patient's slices; sizes are (rows, columns) in pixels.

    source: of the scan's own slice; resampled: after in-plane resampling; corner: position of the window's first
    pixel in the resampled slice (negative where the window reaches beyond it); window: size of the stored slice.
    """

    source: tuple[int, int]
    resampled: tuple[int, int]
    corner: tuple[int, int]
    window: tuple[int, int]

    def overlap(self) -> tuple[list[slice], list[slice]]:
        """The common part of window and resampled slice, as index ranges (rows, columns) in each of the two."""
        inside, outside = [], []
        for corner, size, whole in zip(self.corner, self.window, self.resampled, strict=True):
            first, last = max(corner, 0), min(corner + size, whole)
            inside.append(slice(first - corner, last - corner))
            outside.append(slice(first, last))
        return inside, outside


def fit_window(
    foreground: np.ndarray,
    voxel_size_mm: tuple[float, float, float] | None,
    pixel_mm: float | None,
    window: tuple[int, int] | None,
) -> SliceFrame:
    """The frame for one patient: resampling to `pixel_mm`, then a window centred on the head's bounding box.

    Args:
        foreground: (Y, X) bool, head seen in any slice.
        voxel_size_mm: (x, y, z) of the scan, None if unknown.
        pixel_mm: wanted pixel size, None for the scan's own.
        window: (H, W) in resampled pixels, None for the whole slice.
    """
    source = foreground.shape
    spacing = voxel_size_mm[1::-1] if voxel_size_mm else (FIELD_OF_VIEW_MM / max(source),) * 2  # (y, x)
    factors = (1.0, 1.0) if pixel_mm is None else tuple(size / pixel_mm for size in spacing)
    resampled = tuple(max(round(n * factor), 1) for n, factor in zip(source, factors, strict=True))
    window = resampled if window is None else tuple(window)
    corner = []
    for axis in range(2):
        seen = np.flatnonzero(foreground.any(axis=1 - axis))
        centre = (seen[0] + seen[-1] + 1) / 2 * resampled[axis] / source[axis]
        whole = window[axis] >= resampled[axis]
        corner.append(-((window[axis] - resampled[axis]) // 2) if whole else round(centre - window[axis] / 2))
    return SliceFrame(tuple(source), resampled, tuple(corner), window)


def resample_in_plane(slices: np.ndarray, frame: SliceFrame, *, nearest: bool = False) -> np.ndarray:
    """Slices (Z, C, Y, X) of the scan on the grid of the store: (Z, C, H, W), zero outside the scan.

    Intensities are interpolated linearly with anti-aliasing; label maps (`nearest`) keep their values. Where the store
    keeps the scan's own grid this is `slices` itself.
    """
    if frame.window == frame.resampled == frame.source:
        return slices
    if frame.resampled != frame.source:
        options = {"mode": "nearest-exact"} if nearest else {"mode": "bilinear", "antialias": True}
        slices = interpolate(torch.from_numpy(slices), frame.resampled, **options).numpy()  # (Z, C, Yr, Xr)
    stored = np.zeros((*slices.shape[:2], *frame.window), slices.dtype)  # (Z, C, H, W)
    inside, outside = frame.overlap()
    stored[:, :, *inside] = slices[:, :, *outside]
    return stored


def scores_on_source_grid(scores: np.ndarray, frame: SliceFrame) -> np.ndarray:
    """Class probabilities (Z, K, H, W) of stored slices on the scan's own grid: (Z, K, Y, X) float32.

    Linear interpolation; outside the window the scan is background (probability 1 of class 0).
    """
    whole = np.zeros((*scores.shape[:2], *frame.resampled), np.float32)  # (Z, K, Yr, Xr)
    whole[:, 0] = 1
    inside, outside = frame.overlap()
    whole[:, :, *outside] = scores[:, :, *inside]
    if frame.resampled == frame.source:
        return whole
    return interpolate(torch.from_numpy(whole), frame.source, mode="bilinear").numpy()  # (Z, K, Y, X)


# One patient


def patient_slices(case: Case, pixel_mm: float | None, window: tuple[int, int] | None) -> tuple[np.ndarray, SliceFrame]:
    """Normalised slices (Z, C, H, W) float16 of one patient and their frame.

    float16 keeps 11 significant bits: a relative rounding error below 0.05 %, far under the noise of any scan. A value
    that is too large for it becomes its largest number.
    """
    masks = [foreground_mask(volume) for volume in case.images]
    for name, volume, mask in zip(case.sequences, case.images, masks, strict=True):
        if not mask.any():
            raise DataError(f"{case.patient}: sequence {name} is empty (all voxels 0); export the scan again.")
        if case.intensity_range is None and (fault := scale_fault(volume, mask)):
            raise DataError(f"{case.patient}: sequence {name} {fault}.")
    foreground = np.any([mask.T.any(axis=0) for mask in masks], axis=0)  # (Y, X)
    frame = fit_window(foreground, case.voxel_size_mm, pixel_mm, window)
    slices = torch.empty((masks[0].shape[2], len(masks), *frame.window), dtype=torch.float16)  # (Z, C, H, W)
    limit = torch.finfo(torch.float16).max
    for channel, (volume, mask) in enumerate(zip(case.images, masks, strict=True)):
        if case.intensity_range is None:
            factor = paper.INTENSITY_CONSTANT / _median(volume, mask)  # as `normalise`, a few slices at a time
        else:
            volume, factor = within_range(volume, mask, case.intensity_range), np.float32(1)
        for first in range(0, len(slices), SLICES_AT_A_TIME):
            part = slice(first, first + SLICES_AT_A_TIME)
            planes = np.multiply(volume.T[part], factor, order="C", dtype=np.float32)[:, None]  # (z, 1, Y, X)
            planes = torch.from_numpy(resample_in_plane(planes, frame)).clamp_(-limit, limit)  # (z, 1, H, W)
            slices[part, channel] = planes[:, 0]  # torch rounds as NumPy does, ten times faster
    return slices.numpy(), frame


def training_range(n_slices: int, has_empty_ends: bool) -> tuple[int, int]:
    """First and last training slice, inclusive: the paper's 15..130 of 155, as a fraction for other grids."""
    if not has_empty_ends:
        return 0, n_slices - 1
    first, last, of = paper.TRAINING_SLICES
    return round(first / of * n_slices), min(round(last / of * n_slices), n_slices - 1)


# A cohort: `prepare` writes two files per patient, `<patient>.npy` and then its record `<patient>.json`


def prepare(
    cohort: Cohort | str | Path,
    folder: str | Path,
    *,
    pixel_mm: float | None = None,
    window: tuple[int, int] | None = None,
    labels_folder: str | Path | None = None,
    workers: int = 1,
    progress: bool = True,
) -> SliceStore:
    """Prepare every patient of a cohort as axial slices and open the store in `folder`.

    A patient is prepared once; it is prepared again where its image files or the settings have changed, or its stored
    slices cannot be opened. Each file gets its name when it is whole, so an interrupted call goes on at the next
    patient. Nothing is written into the cohort folder.

    Args:
        cohort: a `Cohort` or its folder.
        folder: receives (Z, C, H, W) float16 and a record of every patient.
        labels_folder: where the cohort has no `slice_labels.csv`, one is derived here from the masks that exist, once:
            it is not derived again (None: in `folder`).
        pixel_mm: in-plane pixel size to resample to; None keeps the cohort's own grid. A cohort without spacing is
            taken to show 240 mm, BraTS' field of view.
        window: (H, W) in pixels cut out around the head; None keeps the whole slice.
        workers: processes that prepare patients at the same time.

    Raises:
        DataError: a scan is faulty, or the slices of two patients differ in size.
    """
    cohort = cohort if isinstance(cohort, Cohort) else find_cohort(cohort)
    folder, labels_folder = Path(folder), Path(labels_folder or folder)
    settings = {"format": 2, "pixel_mm": pixel_mm, "window": list(window) if window else None}
    if limits := cohort.patients[0].intensity_range:
        settings["range"] = list(limits)
    for place in (folder, labels_folder):
        place.mkdir(parents=True, exist_ok=True)
    with locked(labels_folder / ".lock", folder):
        remove_leftovers(folder)
        remove_leftovers(labels_folder)
        _keep_slice_labels(cohort, labels_folder, progress)
        todo = [patient for patient in cohort.patients if not _is_prepared(patient, folder, settings)]
        job = partial(_prepare_patient, folder=folder, settings=settings, alone=workers == 1)
        with worker_pool(workers if todo else 1, folder) as each:
            bar = {"desc": "slices", "unit": "patient", "disable": not (progress and todo)}
            done = len(cohort.patients) - len(todo)
            for _ in tqdm(each(job, todo), total=len(cohort.patients), initial=done, **bar):
                pass
        return SliceStore(folder, cohort, labels_folder)


def _keep_slice_labels(cohort: Cohort, folder: Path, progress: bool) -> None:
    """Derive `slice_labels.csv` from the masks once, where neither the cohort nor the store has one.

    It is derived again where cohort.yaml says something else of the label values than it did. Masks that hold a single
    value between them tell no parts of the tumour apart, unless cohort.yaml says which part it is.
    """
    if read_slice_labels(cohort.folder) is not None:
        return
    made_for, stated = folder / "slice_labels.json", cohort.labels.stated
    meaning = [list(label) for label in cohort.labels.values] if stated else None
    derived = read_slice_labels(folder) is not None
    if derived and (read_json(made_for) if made_for.exists() else None) == meaning:
        return
    with_mask = [patient for patient in cohort.patients if patient.mask_files]
    bar = tqdm(with_mask, desc="slice labels", unit="patient", disable=not progress)
    rows = [derive_rows(patient.id, patient.read_labels(), cohort.tasks) for patient in bar]
    if rows:
        frame = pd.concat(rows, ignore_index=True)
        shown = frame["class"] != NONE
        if not stated and frame.loc[shown, "class"].nunique() == 1:
            frame.loc[shown, "class"] = "whole_tumor"
        if stated or derived:
            write_json(made_for, meaning)
        write_slice_labels(folder, frame)


def _prepare_patient(patient: Patient, folder: Path, settings: dict, alone: bool) -> None:
    """Write one patient's slices, then their record. `alone`: no other process does so at the same time."""
    if not alone:
        torch.set_num_threads(1)
    files = _file_states(patient)
    (folder / f"{patient.id}.json").unlink(missing_ok=True)  # it describes what is about to be replaced
    case = patient.read_images(joined=False)
    slices, frame = patient_slices(case, settings["pixel_mm"], settings["window"])
    target = folder / f"{patient.id}.npy"  # not flushed: its digest tells a power failure, a kill does no harm
    with atomic_path(target, slices.nbytes, flush=False) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(slices))
        file.write(slices.data)  # `np.save` does not tell that the disk is full
    record = {
        "settings": settings,
        "files": files,
        "shape": slices.shape,
        "frame": asdict(frame),
        "voxel_size_mm": case.voxel_size_mm,
        "digest": _digest(slices),
    }
    write_json(folder / f"{patient.id}.json", {"record": record, "checksum": checksum(record)})


def _is_prepared(patient: Patient, folder: Path, settings: dict) -> bool:
    """Are this patient's slices stored, made with these settings from the files that are there now?"""
    record = _read_record(folder, patient.id)
    if not record or (record["settings"], record["files"]) != (settings, _file_states(patient)):
        return False
    with suppress(DataError):
        return _open_slices(folder, {patient.id: record}, patient.id) is not None
    return False


def _file_states(patient: Patient) -> list[list]:
    """Name, size and modification time of each image file: what decides whether the stored slices still fit.

    The time is in seconds as a float, which is how an archive (tar) keeps it.
    """
    try:
        return [[file.name, file.stat().st_size, file.stat().st_mtime] for file in patient.image_files]
    except OSError as error:
        raise DataError(f"{error.filename}: image file of {patient.id} cannot be read ({error.strerror}).") from None


def _read_record(folder: Path, patient: str) -> dict | None:
    """The record of one patient's stored slices; None where it is missing or not what was written."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = read_json(folder / f"{patient}.json")
        if content["checksum"] == checksum(content["record"]):
            return content["record"]
    return None


def _open_slices(folder: Path, records: dict[str, dict], patient: str) -> np.ndarray:
    """Stored slices (Z, C, H, W) of one patient, memory-mapped. Raises DataError where they are not as recorded."""
    path = folder / f"{patient}.npy"
    with suppress(Exception):  # numpy raises many kinds for a damaged header
        slices = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        if slices.dtype == np.float16 and list(slices.shape) == records[patient]["shape"]:
            return slices
    raise DataError(f"{path}: does not hold the slices that `prepare` wrote; run `prepare` again.")


def _digest(slices: np.ndarray) -> str:
    """CRC-32 of stored slices: it tells an accident, and takes a hundredth of the time of preparing them."""
    return f"{isal_zlib.crc32(np.ascontiguousarray(slices).data):08x}"


def checksum(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class SliceStore:
    """Prepared slices of one cohort. `store[rows]` are the images (B, C, H, W) of any rows of `table`.

    Files are opened when they are needed, at most `OPEN_FILES` at a time.

    Attributes:
        shape: (N, C, H, W) of all slices together.
        table: N rows with patient, z, training (is it one of the training slices).
        cohort: the cohort the slices come from.
    """

    def __init__(self, folder: str | Path, cohort: Cohort, labels_folder: str | Path | None = None) -> None:
        self.folder, self.cohort = Path(folder), cohort
        self.labels_folder = Path(labels_folder or folder)
        names = [patient.id for patient in cohort.patients]
        records = {name: _read_record(self.folder, name) for name in names}
        lacking = [name for name, record in records.items() if record is None]
        if lacking or len({checksum(record["settings"]) for record in records.values()}) != 1:
            raise DataError(f"{self.folder}: not a prepared store of {cohort.folder}; run `prepare` again.")
        counts = np.array([record["shape"][0] for record in records.values()])
        sizes = {tuple(record["shape"][1:]): name for name, record in records.items()}
        if len(sizes) > 1:
            (one, first), (other, second), *_ = sizes.items()
            raise DataError(
                f"{self.folder}: slices of {first} are {one[1]}x{one[2]} pixels, those of {second} "
                f"{other[1]}x{other[2]}; all slices need one size: give `prepare` a window."
            )
        self._records, self._names = records, names
        self._starts = np.cumsum(counts) - counts
        ends = (self._starts + counts).tolist()
        self._rows = {name: slice(*ends) for name, *ends in zip(names, self._starts.tolist(), ends, strict=True)}
        self._open = lru_cache(OPEN_FILES)(partial(_open_slices, self.folder, records))
        self.shape = (int(counts.sum()), *next(iter(sizes)))
        z = np.concatenate([np.arange(count) for count in counts])
        first, last = np.repeat([training_range(int(n), cohort.has_empty_ends) for n in counts], counts, axis=0).T
        training = (z >= first) & (z <= last)
        self.table = pd.DataFrame({"patient": np.repeat(names, counts), "z": z, "training": training})

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice | int) -> np.ndarray:
        """Images (B, C, H, W) float16 of rows of `table`, or (C, H, W) of one; their non-zero median is 100."""
        rows = np.arange(len(self))[rows]
        images = np.empty((rows.size, *self.shape[1:]), np.float16)  # (B, C, H, W)
        numbers = np.searchsorted(self._starts, rows.ravel(), side="right") - 1
        for image, row, number in zip(images, rows.flat, numbers, strict=True):
            image[:] = self._open(self._names[number])[row - self._starts[number]]
        return images.reshape(*rows.shape, *self.shape[1:])

    def slices(self, patient: str) -> np.ndarray:
        """All slices (Z, C, H, W) float16 of one patient, memory-mapped, read only."""
        return self._open(patient)

    def verify(self, patients: list[str]) -> None:
        """Raise `DataError` if stored slices of these patients are not those that were prepared.

        This reads them all, about a second per gigabyte, so opening a store leaves it to whoever trains on them.
        """
        for patient in patients:
            if _digest(self.slices(patient)) != self._records[patient]["digest"]:
                raise DataError(
                    f"{self.folder / patient}.npy: these are not the slices that were prepared; delete this file, and "
                    "they are prepared again."
                )

    def rows(self, patient: str) -> slice:
        """Rows of one patient in `table`, in the order of z."""
        return self._rows[patient]

    def frame(self, patient: str) -> SliceFrame:
        """Where this patient's stored slices lie in the slices of the scan."""
        return SliceFrame(**{name: tuple(value) for name, value in self._records[patient]["frame"].items()})

    def voxel_size_mm(self, patient: str) -> tuple[float, float, float] | None:
        """(x, y, z) voxel size of the patient's scan, None where the layout has none."""
        size = self._records[patient]["voxel_size_mm"]
        return tuple(size) if size else None

    def label_maps(self, patient: str) -> np.ndarray:
        """(Z, H, W) uint8 label maps of one patient on the grid of the stored slices. Opens that patient's mask."""
        labels = self.cohort[patient].read_labels().transpose(2, 1, 0)  # (Z, Y, X)
        expected = self._records[patient]["shape"][0]
        if len(labels) != expected:
            raise DataError(f"{patient}: the mask has {len(labels)} slices, the images {expected}; expected one grid.")
        return resample_in_plane(labels[:, None], self.frame(patient), nearest=True)[:, 0]  # (Z, H, W)

    def presence(self, patients: list[str], task: str) -> dict[str, pd.DataFrame]:
        """Per patient, which classes occur in each slice (Z rows, bool columns), from `slice_labels.csv` alone.

        Raises `DataError` if the classes named in the file, or in a patient's rows, do not determine the image-level
        labels of `task`.
        """
        where = f"{self.cohort.folder}: slice_labels.csv"
        labels = read_slice_labels(self.cohort.folder)
        labels = read_slice_labels(self.labels_folder) if labels is None else labels
        if labels is None:
            raise DataError(f"{self.cohort.folder}: neither masks nor slice_labels.csv; write one (data/README.md).")
        if task not in (covered := tasks_covered(labels)):
            raise DataError(
                f"{where} determines {', '.join(covered) or 'no task'}, but not {task}; add rows of the classes it "
                "needs, or choose another task."
            )
        counts = {patient: self._records[patient]["shape"][0] for patient in patients}
        for patient, count in counts.items():
            for fault in unexplained(labels, patient, count, task):
                raise DataError(f"{where}: patient {patient}: {fault}")
        return {patient: slice_presence(labels, patient, count) for patient, count in counts.items()}

    def fingerprint(self) -> str:
        """Digest of all stored intensities and of the settings; masks have no part in it."""
        digests = {name: record["digest"] for name, record in self._records.items()}
        return checksum([digests, next(iter(self._records.values()))["settings"]])
