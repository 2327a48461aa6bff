"""Cohort -> SliceStore: every patient's volumes are normalised and cut into axial slices (section 4.1)."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm.auto import tqdm

from mixsup_lib import paper
from mixsup_lib.cohort import Case, Cohort, Patient, find_cohort
from mixsup_lib.errors import DataError
from mixsup_lib.files import atomic_path, read_json, write_json
from mixsup_lib.frames import fit_window, foreground_mask, resample_in_plane
from mixsup_lib.slice_labels import derive_rows, read_slice_labels, write_slice_labels
from mixsup_lib.store import SliceStore, checksum, digest, open_images, read_description, write_description

FORMAT = 1


def normalise(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Volume / median over the foreground `mask` * 100 (section 4.1), float32 of the same shape.

    Where the background is exactly 0 the mask is the paper's "non-zero voxels".
    """
    return (volume * (paper.INTENSITY_CONSTANT / np.median(volume[mask]))).astype(np.float32)


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
    volumes = np.stack([normalise(v, m) for v, m in zip(case.images, masks, strict=True)])  # (C, X, Y, Z)
    slices = np.ascontiguousarray(volumes.transpose(3, 0, 2, 1))  # (Z, C, Y, X)
    foreground = np.any(masks, axis=0).any(axis=2).T  # (Y, X)
    frame = fit_window(foreground, case.voxel_size_mm, pixel_mm, window)
    slices = resample_in_plane(slices, frame)  # (Z, C, H, W)
    limit = np.finfo(np.float16).max
    return np.clip(slices, -limit, limit).astype(np.float16), frame


def _prepare_patient(patient: Patient, parts: Path, pixel_mm: float | None, window) -> dict:
    """Write one patient's slices under `parts`; return its entry of the store's description. Kept if already there."""
    array_file, entry_file = parts / f"{patient.id}.npy", parts / f"{patient.id}.json"
    sources = _file_states(patient)
    with suppress(
        OSError, EOFError, ValueError, TypeError, KeyError
    ):  # half a part, or a damaged one, is made again
        entry, seal = read_json(entry_file)
        if (
            seal == checksum(entry)
            and entry["files"] == sources
            and entry["digest"] == digest(_part(parts, patient.id))
        ):
            return entry
    case = patient.read_images()
    slices, frame = patient_slices(case, pixel_mm, window)
    with atomic_path(array_file) as temporary:
        np.save(temporary, slices)
    entry = {
        "patient": patient.id,
        "n_slices": len(slices),
        "frame": asdict(frame),
        "voxel_size_mm": case.voxel_size_mm,
        "digest": digest(slices),
        "files": sources,
    }
    write_json(entry_file, [entry, checksum(entry)])
    return entry


def _file_states(patient: Patient) -> list[list]:
    """Name, size and modification time of each image file: what decides whether a store still fits its cohort."""
    try:
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in patient.image_files]
    except OSError as error:
        raise DataError(
            f"{error.filename}: image file of {patient.id} cannot be read ({error.strerror})."
        ) from None


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
    with FileLock(labels_folder / ".lock"):
        _keep_slice_labels(cohort, labels_folder, progress)
        settings = {
            "format": FORMAT,
            "cohort": str(cohort.folder.resolve()),
            "pixel_mm": pixel_mm,
            "window": list(window) if window else None,
        }
        known, images = read_description(folder) or {}, open_images(folder)
        states = {patient.id: _file_states(patient) for patient in cohort.patients}
        recorded = {entry["patient"]: entry["files"] for entry in known.get("patients", [])}
        n_slices = sum(entry["n_slices"] for entry in known.get("patients", []))
        whole = images is not None and len(images) == n_slices
        if known.get("settings") != settings or recorded != states or not whole:
            key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
            _build(cohort, folder, folder / f"parts-{key}", settings, workers, progress)
    return SliceStore(folder, cohort, labels_folder)


def _build(cohort: Cohort, folder: Path, parts: Path, settings: dict, workers: int, progress: bool) -> None:
    parts.mkdir(exist_ok=True)
    job = partial(_prepare_patient, parts=parts, pixel_mm=settings["pixel_mm"], window=settings["window"])
    bar = partial(tqdm, total=len(cohort.patients), desc="slices", unit="patient", disable=not progress)
    if workers > 1:
        with ProcessPoolExecutor(workers, initializer=_one_thread) as pool:
            entries = list(bar(pool.map(job, cohort.patients)))
    else:
        entries = list(bar(map(job, cohort.patients)))
    arrays = {entry["patient"]: _part(parts, entry["patient"]) for entry in entries}
    first_shape = arrays[entries[0]["patient"]].shape[1:]
    for patient, shape in ((patient, array.shape[1:]) for patient, array in arrays.items()):
        if shape != first_shape:
            raise DataError(
                f"{patient}: slices are {shape[1:]} pixels, those of {entries[0]['patient']} {first_shape[1:]}; "
                "all slices need one size: give `prepare` a window."
            )
    total = sum(entry["n_slices"] for entry in entries)
    with atomic_path(folder / "images.npy") as temporary:
        images = np.lib.format.open_memmap(temporary, "w+", np.float16, (total, *first_shape))
        row = 0
        for entry in entries:
            images[row : row + entry["n_slices"]] = arrays[entry["patient"]]
            row += entry["n_slices"]
        images.flush()
        del images
    write_description(folder, settings, entries)
    for entry in entries:
        (parts / f"{entry['patient']}.npy").unlink()
        (parts / f"{entry['patient']}.json").unlink()
    parts.rmdir()


def _part(parts: Path, patient: str) -> np.ndarray:
    return np.load(parts / f"{patient}.npy", mmap_mode="r", allow_pickle=False)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _keep_slice_labels(cohort: Cohort, folder: Path, progress: bool) -> None:
    """Derive `slice_labels.csv` from the masks once, where neither the cohort nor the store has one."""
    if read_slice_labels(cohort.folder) is not None or read_slice_labels(folder) is not None:
        return
    with_mask = [patient for patient in cohort.patients if patient.mask_files]
    bar = tqdm(with_mask, desc="slice labels", unit="patient", disable=not progress)
    rows = [derive_rows(patient.id, patient.read_labels(), cohort.tasks) for patient in bar]
    if rows:
        write_slice_labels(folder, pd.concat(rows, ignore_index=True))
