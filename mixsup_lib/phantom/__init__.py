"""The embedded data set: a cohort of phantom patients, in files as BraTS 2018 has them.

Each patient is a deformed MNI152 head (`anatomy`) with a tumour and distractors (`tumor`), recorded by one of several
acquisition sites (`scanner`); `settings` holds every number that decides how hard the tumours are to find. A phantom
shows that the method runs and how it behaves. It is no evidence about real patients.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
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
    read_json,
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

GENERATOR = 2
"""Version of the generator; a change that makes patients look different raises it, so that cohorts do not mix."""
GRADES = ("HGG", "LGG")
SUFFIXES = ("flair", "t1", "t1ce", "t2", "seg")
"""Endings of a patient's five BraTS 2018 files: the sequences in the paper's order, and the mask."""
BRATS_LABELS = np.array([0, 1, 2, 4], np.uint8)
"""Label values on disk of the paper's classes 0..3."""


@dataclass(frozen=True)
class PhantomPatient:
    """One phantom patient, axes LPS as in BraTS. The last four are what the files do not tell.

    Attributes:
        grade: "HGG" or "LGG".
        site: number of the acquisition site.
        sequences: names of the four images, in the paper's order.
        images: (4, X, Y, Z) int16.
        labels: (X, Y, Z) uint8 of the paper's classes 0..3, as an expert drew them.
        affine: (4, 4) from voxel indices to mm.
        tumor: (X, Y, Z) uint8 of the same classes, as the tumour really is.
        tissue: (3, X, Y, Z) shares of white matter, grey matter and fluid.
        lesions, vessels: (X, Y, Z) float32 distractors, which look like tumour and are none.
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
    voxel_mm, settings = float(voxel_mm), settings or PhantomSettings()
    with threadpool_limits(1):  # more threads would sum in another order
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


def make_phantom(
    folder: str | Path,
    *,
    patients: int = 120,
    voxel_mm: float = 2.5,
    seed: int = 0,
    settings: PhantomSettings | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a cohort of phantom patients into `folder` and return the folder, ready for `find_cohort`.

    Patients that are there already are kept. So an interrupted call goes on where it stopped, and a larger number of
    patients extends the cohort. The files depend on `patients`, `voxel_mm` (1-6 mm), `seed` and `settings` alone, not
    on `workers`, the number of processes of one thread each (default: one per CPU core).

    Raises SettingError for an impossible value, and where `folder` holds another phantom or anything else.
    """
    from tqdm import tqdm

    folder, settings = Path(folder), settings or PhantomSettings()
    counts = {"patients": (patients, 1), "workers": (1 if workers is None else workers, 1), "seed": (seed, 0)}
    for name, (value, least) in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingError(f"The phantom's {name} is {value!r}, but needs a whole number from {least} up.")
    grid_shape(voxel_mm)
    foreign = folder.exists() and not (folder / "phantom.json").exists()
    if foreign and (not folder.is_dir() or any(not is_leftover(file) for file in folder.iterdir())):
        raise SettingError(f"{folder} is not empty and holds no phantom.json; choose a new folder for the phantom.")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock"), folder):
        remove_leftovers(folder)
        for rest in folder.glob(".unfinished-*"):
            shutil.rmtree(rest, ignore_errors=True)
        asked = {"seed": seed, "voxel_mm": float(voxel_mm), "patients": patients, "settings": asdict(settings)}
        _describe(folder / "phantom.json", {"generator": GENERATOR, **asked})
        todo = [i for i in range(patients) if not any(_is_complete(folder / g / patient_id(i)) for g in GRADES)]
        write = partial(_write_patient, cohort=folder, seed=seed, voxel_mm=voxel_mm, settings=settings)
        workers = min(workers or os.cpu_count() or 1, len(todo)) or 1
        bar = {"total": patients, "initial": patients - len(todo), "desc": "phantom", "unit": "patient"}
        with worker_pool(workers, folder, "spawn") as each:
            for _ in tqdm(each(write, todo), **bar, disable=not progress):
                pass
    return folder


def _describe(path: Path, asked: dict) -> None:
    """Write `phantom.json`, or refuse to mix where it tells that the folder holds another phantom."""
    asked = json.loads(json.dumps(asked))  # tuples become lists, as in the file
    if not path.exists():
        write_json(path, asked)
        return
    try:
        found = read_json(path)
        old, new = ({**content, **content["settings"], "settings": None} for content in (found, asked))
        n_found = int(old.pop("patients"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not describe a phantom; remove the folder and start again.") from error
    n_asked = new.pop("patients")
    for name in new:
        if old.get(name) != new[name]:
            raise SettingError(
                f"{path.parent} holds a phantom with {name} = {old.get(name)}, but {name} = {new[name]} is asked for; "
                "choose another folder, or delete this one."
            )
    if n_found > n_asked:
        raise SettingError(
            f"{path.parent} holds a phantom of {n_found} patients, but {n_asked} are asked for; choose another folder."
        )
    if n_found < n_asked:
        write_json(path, asked)


def _is_complete(folder: Path) -> bool:
    return all((folder / f"{folder.name}_{suffix}.nii.gz").is_file() for suffix in SUFFIXES)


def _write_patient(index: int, *, cohort: Path, seed: int, voxel_mm: float, settings: PhantomSettings) -> None:
    """Write one patient into a hidden folder, which gets its name when it is complete."""
    import nibabel as nib

    made = make_patient(index, seed=seed, voxel_mm=voxel_mm, settings=settings)
    hidden = cohort / f".unfinished-{uuid.uuid4().hex[:8]}"
    try:
        for suffix, volume in zip(SUFFIXES, (*made.images, BRATS_LABELS[made.labels]), strict=True):
            image = nib.Nifti1Image(volume, made.affine)
            image.header.set_xyzt_units("mm")
            with atomic_path(hidden / f"{made.patient}_{suffix}.nii.gz") as path:
                nib.save(image, path)
        folder = cohort / made.grade / made.patient
        folder.parent.mkdir(exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)  # there only if files of it were lost
        os.replace(hidden, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
