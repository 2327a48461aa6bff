"""Patient after patient into the array of a store, by one process or several; an interrupted build continues."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mixsup_lib.cohort import Cohort, Patient
from mixsup_lib.errors import DataError
from mixsup_lib.files import atomic_path, read_json, remove_leftovers
from mixsup_lib.growing_array import GrowingArray
from mixsup_lib.store import checksum, digest
from mixsup_lib.workers import worker_pool

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
