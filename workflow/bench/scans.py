"""The scans that rows measure with: phantoms, and copies of them where only their number counts."""

from __future__ import annotations

import os
from pathlib import Path

from mixsup_lib.cohort import Cohort
from mixsup_lib.datasets import find_cohort
from mixsup_lib.phantom import make_phantom


def phantom(folder: Path, patients: int, voxel_mm: float) -> Cohort:
    """A phantom cohort, made if it is not there."""
    make_phantom(folder, patients=patients, voxel_mm=voxel_mm, progress=False)
    return find_cohort(folder)


def copies(cohort: Cohort, folder: Path, patients: int) -> Cohort:
    """A cohort of `patients`, each with the files of one of `cohort`'s (linked, not copied) under a name of its own."""
    for number in range(patients):
        source = cohort.patients[number % len(cohort.patients)]
        name = f"Brats18_COPY_{number + 1:03d}_1"
        target = folder / "HGG" / name
        target.mkdir(parents=True, exist_ok=True)
        for file in (*source.image_files, *source.mask_files):
            link = target / file.name.replace(source.id, name)
            if not link.exists():
                os.link(file, link)
    return find_cohort(folder)
