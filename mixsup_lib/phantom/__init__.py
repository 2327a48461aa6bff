"""The embedded data set: a cohort of phantom patients in the layout of BraTS 2018.

Each patient is a deformed MNI152 head with a tumour and distractors, recorded by one of several acquisition sites. A
phantom shows that the method runs and how it behaves; it is no evidence about real patients.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mixsup_lib.files import (
    DataError,
    SettingError,
    atomic_path,
    is_leftover,
    locked,
    remove_leftovers,
    worker_pool,
    write_json,
)
from mixsup_lib.paper import SEQUENCES
from mixsup_lib.phantom.anatomy import (
    grid_affine,
    grid_shape,
    press,
    sample_anatomy,
    template_coordinates,
    template_for,
)
from mixsup_lib.phantom.scanner import acquire, make_site, tumor_signal
from mixsup_lib.phantom.settings import PhantomSettings
from mixsup_lib.phantom.tumor import annotate, grow_tumor, hyperintensities, plan_tumor, vessels

__all__ = ["PhantomPatient", "PhantomSettings", "make_patient", "patient_id", "write_phantom"]

GENERATOR = 2
"""Version of the generator; a change that makes patients look different raises it, so that cohorts do not mix."""
GRADES = ("HGG", "LGG")
SUFFIXES = ("flair", "t1", "t1ce", "t2", "seg")
"""Endings of a patient's five BraTS 2018 files: the sequences in the paper's order, and the mask."""
BRATS_LABELS = np.array([0, 1, 2, 4], np.uint8)
"""Label values on disk of the paper's classes 0..3."""


@dataclass(frozen=True)
class PhantomPatient:
    """One phantom patient, axes LPS as in BraTS.

    images: (4, X, Y, Z) int16, in the order of `sequences`; labels: (X, Y, Z) uint8, the paper's classes 0..3; affine:
    (4, 4); grade: "HGG" or "LGG"; site: number of the acquisition site. What the files do not tell: tumor: (X, Y, Z)
    uint8, the classes that are there, of which `labels` is an expert's drawing; tissue: (3, X, Y, Z) shares of white
    matter, grey matter and fluid; lesions, vessels: (X, Y, Z) float32 distractors, no tumour.
    """

    patient: str
    grade: str
    site: int
    sequences: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    voxel_size_mm: tuple[float, float, float]
    tumor: np.ndarray
    tissue: np.ndarray
    lesions: np.ndarray
    vessels: np.ndarray


def patient_id(index: int) -> str:
    """BraTS-like name of patient number `index`, counted from 0."""
    return f"Brats18_PHANTOM_{index + 1:03d}_1"


def make_patient(
    index: int, *, seed: int = 0, voxel_mm: float = 2.5, settings: PhantomSettings | None = None
) -> PhantomPatient:
    """Make patient number `index` (from 0): a function of (seed, index, voxel_mm, settings) alone, on one thread.

    Raises SettingError for a negative index or seed and for a voxel size outside 1-6 mm.
    """
    from threadpoolctl import threadpool_limits

    if index < 0 or seed < 0:
        raise SettingError(f"The phantom's index {index} and seed {seed} must both be 0 or above.")
    grid_shape(voxel_mm)
    with threadpool_limits(1):
        return _make_patient(index, seed, float(voxel_mm), settings or PhantomSettings())


def _make_patient(index: int, seed: int, voxel_mm: float, settings: PhantomSettings) -> PhantomPatient:
    rng = np.random.default_rng([seed, index])
    site = int(rng.integers(settings.sites))
    plan = plan_tumor(rng, settings)
    csf_log_odds = rng.normal(0, settings.atrophy)
    coordinates = template_coordinates(rng, voxel_mm, settings)
    seat_mm = rng.choice(template_for(voxel_mm).seats).astype(np.float32)  # (3,)
    distance = ((coordinates - seat_mm[:, None, None, None]) ** 2).sum(0)  # (X, Y, Z)
    x, y, z = np.unravel_index(distance.argmin(), distance.shape)
    seat = (int(x), int(y), int(z))
    coordinates = press(coordinates, seat, plan.core_radius_mm, voxel_mm, settings.mass_effect)
    anatomy = sample_anatomy(coordinates, voxel_mm, csf_log_odds)
    tumor = grow_tumor(rng, anatomy, seat, plan, voxel_mm, settings)
    lesions = hyperintensities(rng, anatomy, tumor, voxel_mm, settings)
    vessel = vessels(rng, anatomy, tumor, voxel_mm)
    signal = tumor_signal(rng, plan.grade, settings)
    scanner = make_site(site, seed=seed, settings=settings)
    expert = np.random.default_rng([seed, index, 2])  # of its own: another expert, the same images
    return PhantomPatient(
        patient=patient_id(index),
        grade=plan.grade,
        site=site,
        sequences=SEQUENCES,
        images=acquire(rng, anatomy, tumor, lesions, vessel, signal, scanner, voxel_mm, settings),
        labels=annotate(expert, tumor, anatomy.brain, voxel_mm, settings),
        affine=grid_affine(voxel_mm),
        voxel_size_mm=(voxel_mm, voxel_mm, voxel_mm),
        tumor=tumor,
        tissue=anatomy.tissue,
        lesions=lesions,
        vessels=vessel,
    )


def write_phantom(
    out: str | Path,
    *,
    patients: int = 120,
    voxel_mm: float = 2.5,
    seed: int = 0,
    settings: PhantomSettings | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write `patients` phantom patients into the cohort folder `out` (BraTS 2018 layout) and return the folder.

    Patients already there are kept, so an interrupted call continues where it stopped and a larger number extends the
    cohort. `workers`: processes of one thread each (default: one per CPU core); the result does not depend on it.
    Raises SettingError when `out` holds anything else than this phantom, or more patients of it.
    """
    from tqdm import tqdm

    out, settings = Path(out), settings or PhantomSettings()
    for name, value in (("patients", patients), ("workers", 1 if workers is None else workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingError(f"The phantom's {name} is {value!r}, but needs a whole number from 1 up.")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise SettingError(f"The phantom's seed is {seed!r}, but needs a whole number from 0 up.")
    grid_shape(voxel_mm)
    wanted = {"seed": seed, "voxel_mm": float(voxel_mm), "patients": patients, "settings": asdict(settings)}
    _refuse_foreign(out)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out.with_name(f"{out.name}.lock"), out):
        remove_leftovers(out)
        _claim(out, wanted)
        for rest in out.glob(".unfinished-*"):
            shutil.rmtree(rest, ignore_errors=True)
        todo = [i for i in range(patients) if not any(_is_complete(out / g / patient_id(i)) for g in GRADES)]
        write = partial(_write_patient, out=out, seed=seed, voxel_mm=voxel_mm, settings=settings)
        workers = min(workers or os.cpu_count() or 1, len(todo))
        done = patients - len(todo)
        with tqdm(total=patients, initial=done, desc="phantom", unit="patient", disable=not progress) as bar:
            if workers < 2:
                for index in todo:
                    write(index)
                    bar.update()
                return out
            with worker_pool(workers, out, "spawn") as pool:
                for job in as_completed([pool.submit(write, index) for index in todo]):
                    job.result()
                    bar.update()
    return out


def _refuse_foreign(out: Path) -> None:
    """SettingError where `out` is no folder, or holds anything without a phantom.json."""
    if not out.exists() or (out / "phantom.json").exists():
        return
    if not out.is_dir() or any(not is_leftover(file) for file in out.iterdir()):
        raise SettingError(
            f"{out} is not empty and holds no phantom.json; choose a new folder for the phantom."
        )


def _claim(out: Path, wanted: dict) -> None:
    """Write `phantom.json` into a new folder, or check that the folder holds the phantom asked for."""
    path = out / "phantom.json"
    wanted = json.loads(json.dumps({"generator": GENERATOR, **wanted}))  # tuples become lists, as in the file
    if not path.exists():
        write_json(path, wanted)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        n_found = int(found["patients"])
        differing = [
            (name, old.get(name), new[name])
            for old, new in ((found, wanted), (found["settings"], wanted["settings"]))
            for name in new
            if name not in ("patients", "settings") and old.get(name) != new[name]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not describe a phantom; remove the folder and start again.") from error
    if differing:
        name, old, new = differing[0]
        raise SettingError(
            f"{out} holds a phantom with {name} = {old}, but {name} = {new} is asked for; choose another folder, or "
            "delete this one."
        )
    if n_found > wanted["patients"]:
        raise SettingError(
            f"{out} holds a phantom of {n_found} patients, but {wanted['patients']} are asked for; "
            "choose another folder."
        )
    if n_found < wanted["patients"]:
        write_json(path, wanted)


def _is_complete(folder: Path) -> bool:
    return all((folder / f"{folder.name}_{suffix}.nii.gz").is_file() for suffix in SUFFIXES)


def _write_patient(index: int, *, out: Path, seed: int, voxel_mm: float, settings: PhantomSettings) -> None:
    """Write one patient into a hidden folder, which gets its name when it is complete."""
    import nibabel as nib

    made = make_patient(index, seed=seed, voxel_mm=voxel_mm, settings=settings)
    hidden = out / f".unfinished-{uuid.uuid4().hex[:8]}"
    try:
        for suffix, volume in zip(SUFFIXES, (*made.images, BRATS_LABELS[made.labels]), strict=True):
            image = nib.Nifti1Image(volume, made.affine)
            image.header.set_xyzt_units("mm")
            with atomic_path(hidden / f"{made.patient}_{suffix}.nii.gz") as path:
                nib.save(image, path)
        folder = out / made.grade / made.patient
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # there only if files of it were lost
        os.replace(hidden, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
