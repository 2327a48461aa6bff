"""What a patient is: where its files lie (`Patient`), what stands in them (`Case`), who belongs together (`Cohort`).

A `Patient` knows the names of its image and mask files and reads nothing until it is asked. `read_images` never opens
a mask, so a weakly annotated patient needs none; `read_labels` opens the mask of a fully annotated or test patient.
Both give a `Case`: arrays on the same axes and with the same classes, whatever data set the files come from. A
`Cohort` is all patients of one folder. `datasets.find_cohort` finds it, and there each data set has its own patients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mixsup_lib import paper
from mixsup_lib.files import DataError, composed, nearest


class LabelValue(NamedTuple):
    """A value in the masks, the paper's class 1..3 that it counts as (0: healthy), and the cohort's name for it."""

    value: int
    meaning: int
    name: str


@dataclass(frozen=True)
class Labels:
    """What the label values in a cohort's masks mean. `datasets.labels` makes one from names and regions.

    Attributes:
        values: every value but 0, which is background.
        tasks: what these values can answer, of `paper.TASKS`.
        source: who says so, as messages name it.
        stated: does the user say so, in cohort.yaml, rather than the layout?
        hints: (value, sentence) about values that masks of this kind may hold and that have no meaning here.
    """

    values: tuple[LabelValue, ...]
    tasks: tuple[str, ...] = paper.TASKS
    source: str = "this layout"
    stated: bool = False
    hints: tuple[tuple[int, str], ...] = ()

    def legend(self, task: str) -> list[LabelValue]:
        """The value that each predicted class 1..K-1 of `task` has in a mask of this cohort, in the order of classes.

        A region is written as the one value that means it; where several make it up, as 1.
        """
        if task == "multiclass":
            return [next(label for label in self.values if label.meaning == meaning) for meaning in paper.CLASSES]
        members = [label.value for label in self.values if label.meaning in paper.REGIONS[task]]
        return [LabelValue(members[0] if len(members) == 1 else 1, 1, task)]


PAPER_LABELS = Labels(tuple(LabelValue(value, value, name) for value, name in paper.CLASSES.items()))
"""The values 1, 2 and 3 for the paper's classes 1, 2 and 3."""


@dataclass(frozen=True)
class Patient(ABC):
    """Where one patient's files lie. Nothing has been read.

    Attributes:
        folder: the cohort folder; messages name files relative to it.
        image_files: all files the images come from.
        mask_files: () where there is no mask: such a patient can only be weakly annotated.
        sequences: names of the C sequences, in the paper's order.
        labels: what the values in the mask mean.
        intensity_range: None where the scale is the paper's median; otherwise see `Case`.
    """

    id: str
    folder: Path
    image_files: tuple[Path, ...]
    mask_files: tuple[Path, ...]
    sequences: tuple[str, ...]
    labels: Labels = PAPER_LABELS
    intensity_range: tuple[float, float] | None = None

    @abstractmethod
    def missing(self) -> list[tuple[str, str]]:
        """(file, sentence) for each image file that should be there and is not, from file names alone."""

    @abstractmethod
    def load_volumes(self, report: Report) -> dict[str, Volume]:
        """The sequences that could be read; every fault goes to `report`. Never opens a mask."""

    @abstractmethod
    def load_labels(self, report: Report) -> np.ndarray | None:
        """The label map (X, Y, Z) uint8, or None after a fault, which went to `report`."""

    def read_images(self, *, joined: bool = True) -> Case:
        """The images as a `Case` whose labels are None. Never opens a mask. Raises `DataError` at the first fault.

        `joined=False` saves a copy of all voxels: `images` is then a list of C arrays (X, Y, Z).
        """
        for file, sentence in self.missing():
            refuse(file, sentence)
        loaded = self.load_volumes(refuse)
        volumes = [loaded[name] for name in self.sequences]
        first, images = volumes[0], [volume.array for volume in volumes]
        return Case(
            patient=self.id,
            sequences=self.sequences,
            images=np.stack(images) if joined else images,  # (C, X, Y, Z)
            labels=None,
            affine=first.affine,
            voxel_size_mm=first.voxel_size_mm,
            source_affine=first.source_affine,
            intensity_range=self.intensity_range,
        )

    def read_labels(self) -> np.ndarray:
        """The label map (X, Y, Z) uint8, axes LPS, of the paper's classes 0..3.

        Opens the mask, and of the images at most a header. Raises `DataError` at the first fault, also where the
        patient has no mask.
        """
        if not self.mask_files:
            raise DataError(
                f"{self.id}: has no mask, but one is needed of a fully annotated or test patient; "
                "add the mask or use the patient as weakly annotated."
            )
        return self.load_labels(refuse)

    def read(self) -> Case:
        """Images and labels. Raises `DataError` at the first fault."""
        return replace(self.read_images(), labels=self.read_labels())

    @property
    def place(self) -> str:
        """Where the patient lies, as messages name it: its folder, or its first file where it has none of its own."""
        first = (self.image_files + self.mask_files)[0]
        own = next(
            (place for place in first.parents if composed(place.name) == self.id and self.folder in place.parents),
            first,
        )
        return self.relative(own)

    def relative(self, path: Path) -> str:
        """`path` as messages name it: relative to the cohort folder."""
        return Path(path).relative_to(self.folder).as_posix()


@dataclass(frozen=True, eq=False)
class Case:
    """One patient's volumes in memory. Axes are LPS: x to the patient's left, y to the back, z to the head.

    Attributes:
        sequences: names of the C sequences, in the paper's order.
        images: (C, X, Y, Z) float32.
        labels: (X, Y, Z) uint8 of the paper's classes 0..3 (section 4.1), or None where no mask was read.
        affine: (4, 4) from voxel indices of these arrays to NIfTI's world, in mm; identity where unknown.
        voxel_size_mm: None where the files do not tell it.
        source_affine: (4, 4) of the file on disk, whose axes may be others (`nifti.from_lps` goes back).
        intensity_range: the two intensities between which the images are used as they are, as CT or images that were
            normalised before; None: they are divided by the median of the head, as in the paper.
    """

    patient: str
    sequences: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray | None
    affine: np.ndarray
    voxel_size_mm: tuple[float, float, float] | None
    source_affine: np.ndarray
    intensity_range: tuple[float, float] | None = None


class Volume(NamedTuple):
    """One sequence of a case: array (X, Y, Z) float32 with axes LPS; the rest as in `Case`."""

    array: np.ndarray
    affine: np.ndarray
    source_affine: np.ndarray
    voxel_size_mm: tuple[float, float, float] | None


@dataclass(frozen=True)
class Cohort:
    """The patients of one folder, as paths. Nothing has been read.

    Attributes:
        layout: name of the data set that the folder was recognised as.
        sequences: names of the C sequences every patient has, in the paper's order.
        labels: what the values in the masks mean.
        patients: sorted by ID; unique unless the cohort was found with `strict=False`.
        has_empty_ends: whether the outermost slices show no brain, so that the paper's training slices 15..130
            of 155 apply as a fraction; otherwise all slices are training slices.
        problems: what file names alone show to be wrong: warnings, and with `strict=False` errors too.
    """

    folder: Path
    layout: str
    sequences: tuple[str, ...]
    labels: Labels
    patients: tuple[Patient, ...]
    has_empty_ends: bool
    problems: tuple[Problem, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the cohort's labels can answer, of `paper.TASKS`."""
        return self.labels.tasks

    def __getitem__(self, patient_id: str) -> Patient:
        for patient in self.patients:
            if patient.id == patient_id:
                return patient
        hint = nearest(patient_id, [patient.id for patient in self.patients])
        raise DataError(f"{self.folder}: has no patient {patient_id!r} among its {len(self.patients)}.{hint}")


@dataclass(frozen=True)
class Problem:
    """One fault. file: relative to the cohort folder; severity: "error" (unusable), "warning" or "note"."""

    patient: str
    file: str
    problem: str
    severity: str = "error"

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}"


Report = Callable[[str, str], None]
"""Takes each fault as (file, sentence): `refuse` stops at the first one, check-data collects them all."""


def refuse(file: str, sentence: str) -> None:
    """The `Report` of ordinary reading: the first fault is a `DataError`."""
    raise DataError(f"{file}: {sentence}")
