"""BraTS: one folder per patient, one NIfTI file per sequence.

2017/2018 (and the original 2019): grade folders `HGG/` and `LGG/`; 2019-2021: flat; 2023 and later: other file
endings, and label 3 instead of 4 for enhancing tumour. https://www.synapse.org/brats
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixsup_lib import paper
from mixsup_lib.cohort import Cohort, Labels, LabelValue, Problem
from mixsup_lib.datasets import nifti
from mixsup_lib.datasets.reading import UnknownLayoutError, no_patient, visible_folders
from mixsup_lib.files import composed

GRADES = ("HGG", "LGG")


@dataclass(frozen=True)
class Naming:
    """How the files of the paper's four sequences and of the mask end, and what the values of the mask mean.

    The first spelling is BraTS' own; the others, and capitals, stand in other collections of the same kind of data.
    """

    sequences: tuple[tuple[str, ...], ...]
    mask: tuple[str, ...]
    labels: Labels


def _labels(values: Sequence[int], hint: tuple[int, str]) -> Labels:
    """The label values of the paper's classes 1, 2, 3, and a sentence about another value that such masks may hold."""
    named = zip(values, paper.CLASSES.items(), strict=True)
    return Labels(tuple(LabelValue(value, *meaning) for value, meaning in named), hints=(hint,))


UNTIL_2021 = Naming(
    (("_flair",), ("_t1",), ("_t1ce", "_t1gd", "_t1c"), ("_t2",)),
    ("_seg", "_segm"),
    _labels((1, 2, 4), (3, "The value 3 is enhancing tumour in BraTS from 2023 on, whose files are named otherwise.")),
)
SINCE_2023 = Naming(
    (("-t2f",), ("-t1n",), ("-t1c",), ("-t2w",)),
    ("-seg",),
    _labels((1, 2, 3), (4, "The value 4 is the resection cavity in BraTS' post-treatment tasks from 2024 on.")),
)
OTHER_TASKS = {
    "PED": "paediatric tumours, whose values are 1 enhancing, 2 non-enhancing, 3 cyst and 4 oedema",
    "MEN-RT": "meningioma before radiotherapy, whose one value is the target volume",
}
"""BraTS tasks whose values mean something else than in those of adult glioma, by what follows BraTS in a name."""


def find(folder: Path, inside: Sequence[Path] | None = None, labels: Labels | None = None) -> Cohort | None:
    """The BraTS cohort in `folder`, or None if this is none.

    `inside`: the subfolders to look at (None: all). `labels`: what the values mean, where cohort.yaml says so.
    """
    inside = visible_folders(folder) if inside is None else inside
    grades = [path for path in inside if path.name.upper() in GRADES]
    candidates = [path for grade in grades for path in visible_folders(grade)] if grades else inside
    namings = [naming for naming in map(_naming_of, candidates) if naming]
    if not namings:
        return None
    naming = max((UNTIL_2021, SINCE_2023), key=namings.count)
    absent = [
        name
        for name, spellings in zip(paper.SEQUENCES, naming.sequences, strict=True)
        if not any(_ending_in(path, spellings) for path in candidates)
    ]
    if absent and len(candidates) > 1:
        sentence = f"has files named as in BraTS, but no patient has the sequence {' or '.join(absent)}; "
        sentence += (
            "`python -m mixsup_lib check-data` drafts a cohort.yaml that describes what is there (data/README.md)."
        )
        raise UnknownLayoutError(folder, sentence)
    layout = "BraTS 2023+" if naming is SINCE_2023 else "BraTS 2017/2018" if grades else "BraTS 2019-2021"
    patients, problems = [], [] if labels else [*_other_task(candidates)]
    labels = labels or naming.labels
    for path in candidates:
        name = path.relative_to(folder).as_posix()
        passed_over = no_patient(path, name, nifti.ENDINGS)
        if passed_over:
            problems.append(passed_over)
        else:
            patients.append(_patient(path, folder, naming, labels))
            problems += [Problem(path.name, *fault) for fault in _naming_faults(path, name, naming)]
    for path in inside if grades else ():
        if path not in grades and _naming_of(path):
            sentence = "lies beside HGG/ and LGG/; move this patient into one of them."
            problems.append(Problem(path.name, path.name, sentence))
    return Cohort(folder, layout, paper.SEQUENCES, labels, tuple(patients), True, tuple(problems))


def _other_task(folders: Sequence[Path]) -> Iterator[Problem]:
    """The problem of patients whose name says that they are of a BraTS task with other label values."""
    for task, meaning in OTHER_TASKS.items():
        if named := [path.name for path in folders if path.name.lower().startswith(f"brats-{task.lower()}-")]:
            sentence = (
                f"is of the BraTS task {task}: {meaning}; say in cohort.yaml what each counts as (data/README.md)."
            )
            yield Problem(named[0], named[0], sentence)


def _naming_of(folder: Path) -> Naming | None:
    for naming in (UNTIL_2021, SINCE_2023):
        if any(_ending_in(folder, spellings) for spellings in (*naming.sequences, naming.mask)):
            return naming
    return None


def _ending_in(folder: Path, spellings: Sequence[str]) -> list[Path]:
    """The NIfTI files in a folder whose name ends in one of `spellings`, in capitals or not, also before "(1)"."""
    files = [file for file in folder.iterdir() if file.name.lower().endswith(nifti.ENDINGS) and file.name[0] != "."]
    return sorted(file for file in files if re.sub(r" ?\(\d+\)$", "", _stem(file)).endswith(tuple(spellings)))


def _stem(file: Path) -> str:
    """A NIfTI file's name in small letters without its ending."""
    return re.sub(r"\.nii(\.gz)?$", "", composed(file.name).lower())


def _files(folder: Path, spellings: Sequence[str]) -> list[Path]:
    """A patient's files for one sequence, or for the mask: the name that BraTS gives, or else one of its spellings."""
    usual = nifti.existing(folder / f"{folder.name}{spellings[0]}")
    names = {composed(folder.name).lower() + spelling for spelling in spellings}
    others = [file for file in _ending_in(folder, spellings) if _stem(file) in names]
    return usual or [file for file in others if not nifti.is_broken_link(file)]


def _patient(path: Path, folder: Path, naming: Naming, labels: Labels) -> nifti.NiftiPatient:
    images = [
        next(iter(_files(path, spellings)), path / f"{path.name}{spellings[0]}.nii.gz")
        for spellings in naming.sequences
    ]
    masks = _files(path, naming.mask)
    if not masks and naming is UNTIL_2021:
        masks = sorted(path.glob("*_Segm.nii*"))  # BraTS 2020 ships patient 355's mask under such a name
    return nifti.NiftiPatient(path.name, folder, tuple(images), tuple(masks[:1]), paper.SEQUENCES, labels)


def _naming_faults(path: Path, name: str, naming: Naming) -> Iterator[tuple[str, str]]:
    """(file, sentence) for files that are there twice or under another name."""
    for spellings in (*naming.sequences, naming.mask):
        found = _files(path, spellings)
        if len(found) > 1:
            yield name, f"holds both {found[0].name} and {found[1].name}; keep one of them."
        there = [] if found else _ending_in(path, spellings)
        others = [file for file in there if not nifti.is_broken_link(file)]
        if spellings is naming.mask:  # that of a sequence is told where it is looked for
            for file in set(there) - set(others):
                yield f"{name}/{file.name}", "is a broken link; get the file it points to, or delete the link."
        if spellings is naming.mask and naming is UNTIL_2021:
            others = [file for file in others if not file.match("*_Segm.nii*")]
        if others:
            there = " and ".join(file.name for file in others)
            sentence = f"is missing, but {there} is there; if that is this patient's, rename it to {path.name}"
            yield f"{name}/{path.name}{spellings[0]}.nii.gz", f"{sentence}{spellings[0]}{_suffix(others[0])}."


def _suffix(file: Path) -> str:
    return file.name[file.name.lower().rindex(".nii") :]
