"""Cohort -> SliceStore: every patient's volumes are normalised and cut into axial slices (section 4.1)."""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tokenize import TokenError

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mixsup_lib import paper
from mixsup_lib.cohort import Case, Cohort, Patient
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import (
    derive_rows,
    read_slice_labels,
    slice_presence,
    tasks_covered,
    unexplained,
    write_slice_labels,
)
from mixsup_lib.files import (
    DataError,
    atomic_path,
    disk_full,
    locked,
    read_json,
    remove_leftovers,
    worker_pool,
    write_json,
)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory in this process; False where its C library is not glibc, which changes nothing.

    Left alone, glibc returns every large array to the system, which hands it out again page by page and zeroed. What
    that costs a training step and preparing a patient, and how much more memory keeping it needs at most, are rows of
    `make bench`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


ASSUMED_FIELD_OF_VIEW_MM = 240.0
"""Field of view taken for scans without spacing: that of BraTS (240 pixels of 1 mm)."""


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
    spacing = (
        voxel_size_mm[1::-1] if voxel_size_mm else (ASSUMED_FIELD_OF_VIEW_MM / max(source),) * 2
    )  # (y, x)
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
        import torch
        from torch.nn.functional import interpolate

        options = {"mode": "nearest-exact"} if nearest else {"mode": "bilinear", "antialias": True}
        resized = interpolate(torch.from_numpy(slices), size=frame.resampled, **options)  # (Z, C, Yr, Xr)
        slices = resized.numpy()
    stored = np.zeros((*slices.shape[:2], *frame.window), slices.dtype)  # (Z, C, H, W)
    inside, outside = _overlap(frame)
    stored[:, :, inside[0], inside[1]] = slices[:, :, outside[0], outside[1]]
    return stored


def scores_on_source_grid(scores: np.ndarray, frame: SliceFrame) -> np.ndarray:
    """Class probabilities (Z, K, H, W) of stored slices on the scan's own grid: (Z, K, Y, X) float32.

    Linear interpolation; outside the window the scan is background (probability 1 of class 0).
    """
    import torch
    from torch.nn.functional import interpolate

    whole = np.zeros((*scores.shape[:2], *frame.resampled), np.float32)  # (Z, K, Yr, Xr)
    whole[:, 0] = 1
    inside, outside = _overlap(frame)
    whole[:, :, outside[0], outside[1]] = scores[:, :, inside[0], inside[1]]
    if frame.resampled == frame.source:
        return whole
    return interpolate(torch.from_numpy(whole), size=frame.source, mode="bilinear").numpy()  # (Z, K, Y, X)


def _overlap(frame: SliceFrame) -> tuple[list[slice], list[slice]]:
    """The common part of window and resampled slice, as index ranges (rows, columns) in each of the two."""
    inside, outside = [], []
    for corner, size, whole in zip(frame.corner, frame.window, frame.resampled, strict=True):
        first, last = max(corner, 0), min(corner + size, whole)
        inside.append(slice(first - corner, last - corner))
        outside.append(slice(first, last))
    return inside, outside


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


HEADER_BYTES = 128
"""So long NumPy makes the header of an array of four axes, however many rows it has."""


class GrowingArray:
    """float16 rows (N, C, H, W) in the file `path`, which `finish` turns into the .npy array `target`.

    A process that was killed leaves whole patients and perhaps a part of one more. The next one takes over with `keep`
    what is as it should be; the first `append` cuts off the rest. Not flushed before `finish`: after a power failure
    `keep` finds other bytes.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self.target = path, target
        self.rows, self.shape = 0, ()
        self._end = HEADER_BYTES
        self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)

    def __enter__(self) -> GrowingArray:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def keep(self, shape: tuple[int, ...], expected: str) -> bool:
        """Are the next slices in the file (Z, C, H, W), those with this digest (`store.digest`)? Then they stay."""
        self._file.seek(self._end)
        n_bytes = 2 * int(np.prod(shape))
        if digest(np.frombuffer(self._file.read(n_bytes), np.uint8)) != expected:
            return False
        self._grow(shape, n_bytes)
        return True

    def append(self, slices: np.ndarray) -> None:
        """Write slices (Z, C, H, W) float16 behind those that are there. Raises DiskFullError; they are kept then."""
        content = memoryview(np.ascontiguousarray(slices).data).cast("B")
        self._file.truncate(self._end)
        self._file.seek(self._end)
        try:
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            self._file.truncate(self._end)
            raise disk_full(error, self.target, len(content)) or error from None
        if hasattr(os, "posix_fadvise"):  # Linux begins to write now, not when `finish` waits for it
            os.posix_fadvise(self._file.fileno(), self._end, len(content), os.POSIX_FADV_DONTNEED)
        self._grow(slices.shape, len(content))

    def _grow(self, shape: tuple[int, ...], n_bytes: int) -> None:
        self.rows += shape[0]
        self.shape = tuple(shape[1:])
        self._end += n_bytes

    def finish(self) -> None:
        """Flush the array to the disk and give it its name. Raises DiskFullError."""
        header = io.BytesIO()
        kind = {"descr": "<f2", "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(header, kind)
        assert header.tell() == HEADER_BYTES, header.tell()
        self._file.truncate(self._end)
        self._file.seek(0)
        try:  # some file systems look for room only now
            self._file.write(header.getvalue())
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_full(error, self.target) or error from None
        os.replace(self.path, self.target)


Prepared = tuple[dict, np.ndarray]
"""A patient's entry of the store's description, and the slices (Z, C, H, W) float16."""


def build(
    cohort: Cohort,
    folder: Path,
    parts: Path,
    job: Callable[[Patient], Prepared],
    before: Mapping[str, Prepared],
    *,
    workers: int,
    progress: bool,
) -> list[dict]:
    """Write images.npy into `folder`, without its store.json, which it removes; returns the patients' entries.

    Args:
        parts: folder that keeps what is finished until images.npy is there; whoever calls removes it.
        job: prepares one patient. With several workers its slices wait in a file in `parts` for their turn.
        before: what need not be prepared again, by patient.

    Raises `DataError` where the slices of two patients differ in size.
    """
    parts.mkdir(exist_ok=True)
    remove_leftovers(parts)
    growing, description, images = parts / "images.growing", folder / "store.json", folder / "images.npy"
    if not growing.exists() and not description.exists() and images.exists():
        os.replace(images, growing)  # killed before the description was written
    bar = tqdm(total=len(cohort.patients), desc="slices", unit="patient", disable=not progress)
    with bar, GrowingArray(growing, images) as array:
        entries = _keep(array, cohort, parts)
        bar.update(len(entries))
        todo = cohort.patients[len(entries) :]
        there = {p.id: found for p in todo if (found := before.get(p.id) or _waiting(parts, p))}
        new = [patient for patient in todo if patient.id not in there]
        with worker_pool(workers, folder) if workers > 1 and new else nullcontext() as pool:
            made = pool.map(partial(_work, job, parts), new) if pool else map(job, new)
            for patient in todo:
                entry, slices = there.get(patient.id) or next(made)
                slices = _part(parts, patient) if slices is None else slices
                if entries and slices.shape[1:] != array.shape:
                    raise DataError(
                        f"{patient.id}: slices are {slices.shape[2:]} pixels, those of {entries[0]['patient']} "
                        f"{array.shape[1:]}; all slices need one size: give `prepare` a window."
                    )
                array.append(slices)
                _write_entry(parts, entry)
                _part_file(parts, patient).unlink(missing_ok=True)
                entries.append(entry)
                bar.update()
        description.unlink(missing_ok=True)  # it describes what is about to be replaced
        array.finish()
    return entries


def _keep(array: GrowingArray, cohort: Cohort, parts: Path) -> list[dict]:
    """Entries of the first patients, as far as an interrupted build came with the same files."""
    entries = []
    for patient in cohort.patients:
        entry = _read_entry(parts, patient)
        if entry is None:
            break
        shape = (entry["n_slices"], len(patient.sequences), *entry["frame"]["window"])
        if not array.keep(shape, entry["digest"]):
            break
        entries.append(entry)
    return entries


def _waiting(parts: Path, patient: Patient) -> Prepared | None:
    """What a worker of an interrupted build left of this patient, if it is sound."""
    entry = _read_entry(parts, patient)
    with suppress(OSError, EOFError, ValueError):
        slices = _part(parts, patient)
        if entry and entry["digest"] == digest(slices):
            return entry, slices
    return None


def _work(job: Callable[[Patient], Prepared], parts: Path, patient: Patient) -> tuple[dict, None]:
    """What a worker does, on one thread."""
    import torch

    torch.set_num_threads(1)
    entry, slices = job(patient)
    header = {"descr": "<f2", "fortran_order": False, "shape": slices.shape}
    file = _part_file(parts, patient)
    with atomic_path(file, slices.nbytes, flush=False) as temporary, open(temporary, "wb") as part:
        np.lib.format.write_array_header_1_0(part, header)
        part.write(slices.data)
    _write_entry(parts, entry)
    return entry, None


def _part_file(parts: Path, patient: Patient) -> Path:
    return parts / f"{patient.id}.npy"


def _part(parts: Path, patient: Patient) -> np.ndarray:
    return np.load(_part_file(parts, patient), mmap_mode="r", allow_pickle=False)


def _write_entry(parts: Path, entry: dict) -> None:
    with atomic_path(parts / f"{entry['patient']}.json", flush=False) as temporary:
        temporary.write_text(json.dumps([entry, checksum(entry)]))


def _read_entry(parts: Path, patient: Patient) -> dict | None:
    """What `_write_entry` wrote of this patient; None where it is missing, damaged or of other files."""
    with suppress(OSError, EOFError, ValueError, TypeError, KeyError):
        entry, seal = read_json(parts / f"{patient.id}.json")
        if seal == checksum(entry) and entry["files"] == file_states(patient):
            return entry
    return None


def file_states(patient: Patient) -> list[list]:
    """Name, size and modification time of each image file: what decides whether a store still fits its cohort."""
    try:
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in patient.image_files]
    except OSError as error:
        raise DataError(
            f"{error.filename}: image file of {patient.id} cannot be read ({error.strerror})."
        ) from None


FORMAT = 1


def normalise(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Volume / median over the foreground `mask` * 100 (section 4.1), float32 of the same shape.

    Where the background is exactly 0 the mask is the paper's "non-zero voxels".
    """
    factor = paper.INTENSITY_CONSTANT / _median_under(volume, mask)
    return (volume * factor).astype(np.float32, copy=False)


def _median_under(volume: np.ndarray, mask: np.ndarray) -> np.floating:
    """`np.median(volume[mask])` of finite values, several times faster: read in the order of memory, ordered once."""
    order = "F" if volume.flags.f_contiguous else "C"
    values = volume.ravel(order)[mask.ravel(order)]
    middle = len(values) // 2
    ordered = np.partition(values, middle)
    first = ordered[middle] if len(values) % 2 else ordered[:middle].max()
    return np.median(np.stack([first, ordered[middle]]))


def patient_slices(case: Case, pixel_mm: float | None, window: tuple[int, int] | None):
    """Normalised slices (Z, C, H, W) float16 of one patient and their `SliceFrame`.

    float16 keeps 11 significant bits: a relative rounding error below 0.05 %, far under the noise of any scan.
    """
    masks = [foreground_mask(volume) for volume in case.images]
    for name, mask in zip(case.sequences, masks, strict=True):
        if not mask.any():
            raise DataError(
                f"{case.patient}: sequence {name} is empty (all voxels 0); export the scan again."
            )
    foreground = np.any([mask.T.any(axis=0) for mask in masks], axis=0)  # (Y, X)
    frame = fit_window(foreground, case.voxel_size_mm, pixel_mm, window)
    slices = np.empty((masks[0].shape[2], len(masks), *frame.window), np.float16)  # (Z, C, H, W)
    for channel, (volume, mask) in enumerate(zip(case.images, masks, strict=True)):
        planes = np.ascontiguousarray(normalise(volume, mask).transpose(2, 1, 0))  # (Z, Y, X)
        _round(resample_in_plane(planes[:, None], frame)[:, 0], slices[:, channel])  # (Z, H, W)
    return slices, frame


def _round(planes: np.ndarray, out: np.ndarray) -> None:
    """Write float32 `planes`, which it may change, into float16 `out`; what is too large becomes the largest number."""
    import torch

    limit = float(np.finfo(np.float16).max)
    np.clip(planes, -limit, limit, out=planes)
    torch.from_numpy(out).copy_(torch.from_numpy(planes))  # NumPy rounds to the same, ten times slower


def _prepare_patient(patient: Patient, pixel_mm: float | None, window) -> tuple[dict, np.ndarray]:
    """One patient's entry of the store's description, and the slices (Z, C, H, W) float16."""
    keep_freed_memory()
    sources = file_states(patient)
    case = patient.read_images(joined=False)
    slices, frame = patient_slices(case, pixel_mm, window)
    entry = {
        "patient": patient.id,
        "n_slices": len(slices),
        "frame": asdict(frame),
        "voxel_size_mm": case.voxel_size_mm,
        "digest": digest(slices),
        "files": sources,
    }
    return entry, slices


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

    A finished store is reused if the image files and the settings are those it was made from; otherwise only the
    patients that changed are prepared again. Nothing is written into the cohort folder. Streams patient by patient.

    Args:
        cohort: a `Cohort` or its folder.
        folder: receives `images.npy` (N, C, H, W) float16 and `store.json`.
        labels_folder: where the cohort has no `slice_labels.csv`, one is derived here from the masks that exist, once:
            it is not derived again (None: in `folder`).
        pixel_mm: in-plane pixel size to resample to; None keeps the cohort's own grid. A cohort without spacing is
            taken to show 240 mm, BraTS' field of view.
        window: (H, W) in pixels cut out around the head; None keeps the whole slice.
    """
    cohort = cohort if isinstance(cohort, Cohort) else find_cohort(cohort)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    labels_folder = Path(labels_folder or folder)
    labels_folder.mkdir(parents=True, exist_ok=True)
    with locked(labels_folder / ".lock", folder):
        remove_leftovers(folder)
        remove_leftovers(labels_folder)
        _keep_slice_labels(cohort, labels_folder, progress)
        settings = {
            "format": FORMAT,
            "cohort": str(cohort.folder.resolve()),
            "pixel_mm": pixel_mm,
            "window": list(window) if window else None,
        }
        known, images = read_description(folder) or {}, open_images(folder)
        states = {patient.id: file_states(patient) for patient in cohort.patients}
        recorded = {entry["patient"]: entry["files"] for entry in known.get("patients", [])}
        n_slices = sum(entry["n_slices"] for entry in known.get("patients", []))
        whole = images is not None and len(images) == n_slices
        key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
        parts = folder / f"parts-{key}"
        same = known.get("settings") == settings and whole
        if not same or recorded != states:
            job = partial(_prepare_patient, pixel_mm=pixel_mm, window=window)
            before = _rows_of(known, images, states) if same else {}
            entries = build(cohort, folder, parts, job, before, workers=workers, progress=progress)
            write_description(folder, settings, entries)
        shutil.rmtree(parts, ignore_errors=True)
        return SliceStore(folder, cohort, labels_folder)


def _rows_of(
    known: dict, images: np.ndarray | None, states: Mapping[str, list]
) -> dict[str, tuple[dict, np.ndarray]]:
    """Entry and slices of each patient whose files have not changed since and whose stored slices are sound."""
    found, start = {}, 0
    for entry in known.get("patients", []):
        rows, start = images[start : start + entry["n_slices"]], start + entry["n_slices"]
        if entry["files"] == states.get(entry["patient"]) and entry["digest"] == digest(rows):
            found[entry["patient"]] = entry, rows
    return found


def _keep_slice_labels(cohort: Cohort, folder: Path, progress: bool) -> None:
    """Derive `slice_labels.csv` from the masks once, where neither the cohort nor the store has one."""
    if read_slice_labels(cohort.folder) is not None or read_slice_labels(folder) is not None:
        return
    with_mask = [patient for patient in cohort.patients if patient.mask_files]
    bar = tqdm(with_mask, desc="slice labels", unit="patient", disable=not progress)
    rows = [derive_rows(patient.id, patient.read_labels(), cohort.tasks) for patient in bar]
    if rows:
        write_slice_labels(folder, pd.concat(rows, ignore_index=True))
