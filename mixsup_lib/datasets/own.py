"""`cohort.yaml`: what the files and label values of a cohort are, where its layout does not say it.

The file lies in the cohort folder. With `sequences` it describes a layout of one's own: a folder per patient, and in it
one NIfTI file per sequence, told by how its name ends. Without, it adds to a known layout what is missing there: what
the label values mean, or how the intensities are scaled. data/README.md explains every entry; `draft` writes one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixsup_lib import paper
from mixsup_lib.cohort import PAPER_LABELS, Cohort, Labels, Problem
from mixsup_lib.datasets import nifti
from mixsup_lib.datasets.labels import labels_by_name, labels_by_region
from mixsup_lib.datasets.reading import no_patient, sequence_named, visible_folders
from mixsup_lib.files import DataError, nearest, read_yaml, shown

FILE_NAME = "cohort.yaml"
DRAFT_NAME = "cohort.draft.yaml"
ENTRIES = ("sequences", "mask", "intensities", "range", "labels", "regions")
MASK_WORDS = ("seg", "mask", "label", "lesion", "roi", "tumor", "tumour", "truth")
MAX_SEQUENCES = 8
LOOKED_AT = 10
"""Of so many patients a draft opens the mask."""


@dataclass(frozen=True)
class Description:
    """The content of a cohort.yaml. `sequences`: (name, ending) pairs, () for a known layout; None: not said."""

    sequences: tuple[tuple[str, str], ...]
    mask: str | None
    intensity_range: tuple[float, float] | None
    labels: Labels | None

    def apply(self, cohort: Cohort) -> Cohort:
        """The cohort with the intensities as they are said to be."""
        patients = [replace(patient, intensity_range=self.intensity_range) for patient in cohort.patients]
        return replace(cohort, patients=tuple(patients))


def read_description(folder: Path) -> Description | None:
    """The cohort.yaml in `folder`, or None without one. Raises `DataError`, naming the entry that is at fault."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        content = read_yaml(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({shown(error)}); correct it, or save it as UTF-8.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: found {shown(content)}, expected entries such as `sequences:` (data/README.md).")
    for name in content:
        if name not in ENTRIES:
            hint = nearest(str(name), ENTRIES)
            raise DataError(f"{path}: unknown entry {shown(name)}, expected some of {', '.join(ENTRIES)}.{hint}")
    sequences = _sequences(content.get("sequences"), path)
    mask = content.get("mask")
    if mask is not None and not (isinstance(mask, str) and mask):
        raise DataError(f"{path}: mask is {shown(mask)}, expected how the name of a mask ends, such as _seg.")
    if mask is not None and not sequences:
        raise DataError(f"{path}: has mask but no sequences; name the sequences too, or leave the mask to the layout.")
    return Description(sequences, mask, _range(content, path), _labels(content, path))


def find(folder: Path, description: Description, inside: Sequence[Path] | None = None) -> Cohort:
    """The cohort in `folder` whose layout `description` describes. `inside`: the subfolders to look at (None: all)."""
    names = tuple(name for name, _ in description.sequences)
    labels = description.labels or PAPER_LABELS
    patients, problems = [], []
    for path in visible_folders(folder) if inside is None else inside:
        if passed_over := no_patient(path, path.name, nifti.ENDINGS, deep=True):
            problems.append(passed_over)
            continue
        endings = [*(ending for _, ending in description.sequences), *filter(None, [description.mask])]
        found = {ending: _ending_with(path, ending, endings) for ending in endings}
        for ending, files in found.items():
            if len(files) > 1:
                sentence = f"holds {files[0].name} and {files[1].name}, which both end in {ending}; keep one of them."
                problems.append(Problem(path.name, path.name, sentence))
        images = [(*found[ending], path / f"{path.name}{ending}.nii.gz")[0] for _, ending in description.sequences]
        masks = found.get(description.mask, [])[:1]
        patients.append(nifti.NiftiPatient(path.name, folder, tuple(images), tuple(masks), names, labels))
    return Cohort(folder, f"own layout ({FILE_NAME})", names, labels, tuple(patients), False, tuple(problems))


def draft(folder: Path) -> str | None:
    """A cohort.yaml for the folders of NIfTI files in `folder`, to be looked through; None where there are none.

    What file names and masks do not tell is left empty, and such a file is refused until it is filled in.
    """
    patients = {path: sorted(_stems(path)) for path in visible_folders(folder)}
    patients = {path: stems for path, stems in patients.items() if stems}
    counts = Counter(ending for path, stems in patients.items() for ending in _endings(path.name, stems))
    common = [ending for ending, count in counts.items() if 2 * count >= len(patients)]
    masks = [ending for ending in counts if any(word in ending.lower() for word in MASK_WORDS)]
    mask = max(masks, key=counts.get, default=None)
    images = [ending for ending in common if ending not in masks]
    if not images:
        return None
    named = {ending: sequence_named(ending) or ending.strip("_-. ") for ending in images}
    order = {name: place for place, name in enumerate(paper.SEQUENCES)}
    images.sort(key=lambda ending: order.get(named[ending], len(order)))
    lines = [
        f"# A draft from the names of {len(patients)} folders. Look through it, fill in what is empty,",
        f"# and rename it to {FILE_NAME}. data/README.md explains every entry.",
        "sequences:  # how the files of each end; pictures show the first",
        *(f"  {_quoted(named[ending])}: {_quoted(ending)}" for ending in images[:MAX_SEQUENCES]),
    ]
    if mask:
        values = _mask_values([path for path in patients if mask in _endings(path.name, patients[path])], mask)
        lines += [
            f"mask: {_quoted(mask)}",
            "labels:  # each is oedema, enhancing, non_enhancing, background, or as the only one lesion",
            *(f"  {value}:" for value in values),
        ]
    lines.append("intensities: median  # or: as is, and range: [lowest, highest], for CT and images normalised before")
    return "\n".join(lines) + "\n"


def _sequences(content: object, path: Path) -> tuple[tuple[str, str], ...]:
    if content is None:
        return ()
    wanted = f"expected 1 to {MAX_SEQUENCES} lines `name: ending of the file's name`, such as FLAIR: _flair"
    if not isinstance(content, dict) or not 1 <= len(content) <= MAX_SEQUENCES:
        raise DataError(f"{path}: sequences is {shown(content)}, {wanted}.")
    for name, ending in content.items():
        if not (isinstance(name, str) and name and isinstance(ending, str) and ending):
            raise DataError(f"{path}: sequences holds {shown({name: ending})}, {wanted}; put text in quotes.")
    endings = [_without_suffix(ending) for ending in content.values()]
    if len(set(endings)) != len(endings):
        raise DataError(f"{path}: two sequences have the ending {shown(Counter(endings).most_common(1)[0][0])}.")
    return tuple(zip(content, endings, strict=True))


def _range(content: dict, path: Path) -> tuple[float, float] | None:
    kind, limits = content.get("intensities", "median"), content.get("range")
    if kind not in ("median", "as is"):
        raise DataError(f"{path}: intensities is {shown(kind)}, expected median or as is.")
    if (kind == "as is") != (limits is not None):
        raise DataError(f"{path}: range goes with `intensities: as is`, and only with it; found {shown(limits)}.")
    if limits is None:
        return None
    numbers = isinstance(limits, list) and all(isinstance(x, int | float) and math.isfinite(x) for x in limits)
    if not numbers or len(limits) != 2 or limits[0] >= limits[1]:
        raise DataError(f"{path}: range is {shown(limits)}, expected [lowest, highest], such as [-100, 300] for CT.")
    return float(limits[0]), float(limits[1])


def _labels(content: dict, path: Path) -> Labels | None:
    names, regions = content.get("labels"), content.get("regions")
    if names is None and regions is None:
        if content.get("mask"):
            raise DataError(f"{path}: has a mask but no labels; write under `labels` what each of its values is.")
        return None
    wanted = "expected lines `value: name`, such as 1: oedema"
    if names is not None and not isinstance(names, dict):
        raise DataError(f"{path}: labels is {shown(names)}, {wanted}.")
    for value, name in (names or {}).items():
        if type(value) is not int or value < 0:
            raise DataError(f"{path}: labels holds the value {shown(value)}, expected a whole number from 0.")
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: the label {value} has the name {shown(name)}, {wanted}; fill it in.")
    names = {value: name for value, name in (names or {}).items() if value}
    if regions is None:
        return labels_by_name(names, str(path), stated=True)
    wanted = "expected lines `region: [values]`, such as whole_tumor: [1, 2]"
    if not isinstance(regions, dict):
        raise DataError(f"{path}: regions is {shown(regions)}, {wanted}.")
    sets = {}
    for region, values in regions.items():
        sets[region] = values if isinstance(values, list) else [values]
        if region not in paper.REGIONS:
            hint = nearest(str(region), paper.REGIONS)
            raise DataError(f"{path}: unknown region {shown(region)}, expected {', '.join(paper.REGIONS)}.{hint}")
        if not all(type(value) is int for value in sets[region]):
            raise DataError(f"{path}: the region {region} is {shown(values)}, {wanted}.")
        if names and (odd := sorted(set(sets[region]) - set(names))):
            raise DataError(f"{path}: the region {region} has the value {odd[0]}, which `labels` lacks; add it.")
    return labels_by_region(sets, names, str(path), stated=True)


def _without_suffix(name: str) -> str:
    return next((name.removesuffix(ending) for ending in nifti.ENDINGS if name.endswith(ending)), name)


def _stems(folder: Path) -> list[str]:
    """Names, without .nii or .nii.gz, of the NIfTI files in and below a folder."""
    files = (file for ending in nifti.ENDINGS for file in folder.rglob(f"[!.]*{ending}"))
    return [_without_suffix(file.name) for file in files]


def _ending_with(folder: Path, ending: str, endings: Sequence[str]) -> list[Path]:
    """The files in and below a folder whose name ends so, and in none of the longer `endings`."""
    longer = tuple(other for other in endings if other != ending and other.endswith(ending))
    files = (file for suffix in nifti.ENDINGS for file in folder.rglob(f"[!.]*{suffix}"))
    return sorted(
        file
        for file in files
        if (stem := _without_suffix(file.name)).endswith(ending) and not (longer and stem.endswith(longer))
    )


def _endings(name: str, stems: Sequence[str]) -> list[str]:
    """How each file of the patient `name` ends: with its last word, or where that occurs twice, after the name."""
    last = {stem: f"_{stem.rpartition('_')[2]}" if "_" in stem else stem for stem in stems}
    words = Counter(last.values())
    return [last[stem] if words[last[stem]] == 1 else stem.removeprefix(name) for stem in stems]


def _mask_values(folders: Sequence[Path], mask: str) -> list[int]:
    """The values but 0 in the masks of the first patients; those that are no whole numbers are left out."""
    values: set[float] = set()
    for folder in folders[:LOOKED_AT]:
        for file in _ending_with(folder, mask, [mask])[:1]:
            read = nifti.read_nifti(file, file.name, lambda *_: None)
            values |= set(np.unique(np.rint(read[0])).tolist()) if read else set()
    return sorted(int(value) for value in values if value > 0)


def _quoted(text: str) -> str:
    """A text as YAML keeps it: quoted where it could be taken for something else."""
    return text if text.replace("_", "a").isalnum() and read_yaml(text) == text else f'"{text}"'
