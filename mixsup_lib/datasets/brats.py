"""BraTS: one folder per patient, one NIfTI file per sequence.

2017/2018 (and the original 2019): grade folders `HGG/` and `LGG/`; 2019-2021: flat; 2023 and later: other file
endings, and label 3 instead of 4 for enhancing tumour. https://www.synapse.org/brats
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixsup_lib import paper
from mixsup_lib.cohort import Cohort, Patient, Problem, Report, Volume
from mixsup_lib.datasets import nifti
from mixsup_lib.datasets.reading import check_intensities, no_patient, visible_folders

GRADES = ("HGG", "LGG")


@dataclass(frozen=True)
class Naming:
    """File endings of the paper's four sequences and of the mask, and (label value on disk, class) pairs."""

    sequences: tuple[str, str, str, str]
    mask: str
    classes: tuple[tuple[int, int], ...]


UNTIL_2021 = Naming(("_flair", "_t1", "_t1ce", "_t2"), "_seg", ((1, 1), (2, 2), (4, 3)))
SINCE_2023 = Naming(("-t2f", "-t1n", "-t1c", "-t2w"), "-seg", ((1, 1), (2, 2), (3, 3)))


@dataclass(frozen=True)
class BratsPatient(Patient):
    """A patient of a BraTS cohort. image_files has one path per sequence, whether it exists or not."""

    naming: Naming = UNTIL_2021

    def missing(self) -> list[tuple[str, str]]:
        faults = []
        for name, path in zip(self.sequences, self.image_files, strict=True):
            if _is_broken_link(path):
                faults.append((self.relative(path), "is a broken link; get the file it points to, or correct it."))
            elif not path.is_file():
                sentence = f"sequence {name} is missing; add this file (or the same as .nii)."
                faults.append((self.relative(path), sentence))
        return faults

    def load_volumes(self, report: Report) -> dict[str, Volume]:
        files = dict(zip(self.sequences, map(self.relative, self.image_files), strict=True))
        volumes = {}
        for name, path in zip(self.sequences, self.image_files, strict=True):
            read = nifti.read_nifti(path, files[name], report) if path.is_file() else None
            if read is not None:
                volumes[name] = nifti.lps_volume(*read)
        return {
            name: volume
            for name, volume in _on_one_grid(volumes, files, report).items()
            if check_intensities(volume.array, files[name], f"sequence {name}", report)
        }

    def load_labels(self, report: Report) -> np.ndarray | None:
        return nifti.load_labels(self, dict(self.naming.classes), report)


def find(folder: Path, inside: Sequence[Path] | None = None) -> Cohort | None:
    """The BraTS cohort in `folder`, or None if this is none. `inside`: the subfolders to look at (None: all)."""
    inside = visible_folders(folder) if inside is None else inside
    grades = [path for path in inside if path.name in GRADES]
    candidates = [path for grade in grades for path in visible_folders(grade)] if grades else inside
    namings = [naming for naming in map(_naming_of, candidates) if naming]
    if not namings:
        return None
    naming = max((UNTIL_2021, SINCE_2023), key=namings.count)
    layout = "BraTS 2023+" if naming is SINCE_2023 else "BraTS 2017/2018" if grades else "BraTS 2019-2021"
    patients, problems = [], []
    for path in candidates:
        name = path.relative_to(folder).as_posix()
        passed_over = no_patient(path, name, nifti.ENDINGS)
        if passed_over:
            problems.append(passed_over)
        else:
            patients.append(_patient(path, folder, naming))
            problems += [Problem(path.name, *fault) for fault in _naming_faults(path, name, naming)]
    for path in inside if grades else ():
        if path not in grades and _naming_of(path):
            sentence = "lies beside HGG/ and LGG/; move this patient into one of them."
            problems.append(Problem(path.name, path.name, sentence))
    return Cohort(folder, layout, paper.SEQUENCES, paper.TASKS, tuple(patients), True, tuple(problems))


def _on_one_grid(volumes: dict[str, Volume], files: dict[str, str], report: Report) -> dict[str, Volume]:
    """The volumes on the grid that most of them share; each other one is reported."""
    against = [
        {
            name: nifti.grid_fault(
                volume.array.shape, volume.affine, other.array.shape, other.affine, f"sequence {reference}"
            )
            for name, volume in volumes.items()
        }
        for reference, other in volumes.items()
    ]
    faults = min(against, key=lambda faults: sum(map(bool, faults.values())), default={})
    for name, sentence in faults.items():
        if sentence:
            report(files[name], f"sequence {name} {sentence}")
    return {name: volume for name, volume in volumes.items() if not faults[name]}


def _naming_of(folder: Path) -> Naming | None:
    for naming in (UNTIL_2021, SINCE_2023):
        if any(_with_ending(folder, ending) for ending in (*naming.sequences, naming.mask)):
            return naming
    return None


def _with_ending(folder: Path, ending: str) -> list[Path]:
    found = [path for suffix in nifti.ENDINGS for path in folder.glob(f"*{ending}{suffix}")]
    return [path for path in found if not path.name.startswith(".")]


def _patient(path: Path, folder: Path, naming: Naming) -> BratsPatient:
    images = []
    for ending in naming.sequences:
        stem = path / f"{path.name}{ending}"
        images.append(next(iter(nifti.existing(stem)), stem.with_name(f"{stem.name}.nii.gz")))
    masks = nifti.existing(path / f"{path.name}{naming.mask}")
    if not masks and naming is UNTIL_2021:
        masks = sorted(path.glob("*_Segm.nii*"))  # BraTS 2020 ships patient 355's mask under such a name
    return BratsPatient(path.name, folder, tuple(images), tuple(masks[:1]), paper.SEQUENCES, naming)


def _naming_faults(path: Path, name: str, naming: Naming) -> Iterator[tuple[str, str]]:
    """(file, sentence) for files that are there twice or under another patient's name."""
    for ending in (*naming.sequences, naming.mask):
        own = nifti.existing(path / f"{path.name}{ending}")
        if len(own) > 1:
            yield name, f"holds both {own[0].name} and {own[1].name}; keep one of them."
        for other in [] if own else _with_ending(path, ending):
            if _is_broken_link(other):
                continue  # said where it is looked for
            wanted = f"{path.name}{ending}{other.name[other.name.index('.nii') :]}"
            yield (f"{name}/{other.name}", f"is not named after its folder; if it belongs there, name it {wanted}.")


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
