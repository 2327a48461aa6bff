"""Medical Segmentation Decathlon, Task01_BrainTumour: 4D images in `imagesTr`, masks in `labelsTr`.

The order of the channels and the meaning of the label values are read from `dataset.json` by name: there oedema
comes before non-enhancing tumour. http://medicaldecathlon.com
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixsup_lib import paper
from mixsup_lib.cohort import Cohort, Patient, Problem, Report, Volume
from mixsup_lib.datasets import nifti
from mixsup_lib.datasets.reading import check_intensities
from mixsup_lib.files import DataError, read_json, shown

CHANNEL_NAMES = {"FLAIR": ("flair",), "T1": ("t1w", "t1"), "T1c": ("t1gd", "t1c", "t1ce"), "T2": ("t2w", "t2")}
LABEL_NAMES = {
    0: ("background",),
    1: ("nonenhancingtumor", "nonenhancingtumour"),
    2: ("edema", "oedema"),
    3: ("enhancingtumor", "enhancingtumour"),
}


@dataclass(frozen=True)
class DecathlonPatient(Patient):
    """A patient of Task01. channels: where each of `sequences` is in the file; classes: (value, class) pairs."""

    channels: tuple[int, ...] = ()
    classes: tuple[tuple[int, int], ...] = ()

    def missing(self) -> list[tuple[str, str]]:
        path = self.image_files[0]
        sentence = "the image named in dataset.json is missing; add the file or remove the entry."
        return [] if path.is_file() else [(self.relative(path), sentence)]

    def load_volumes(self, report: Report) -> dict[str, Volume]:
        path = self.image_files[0]
        file = self.relative(path)
        read = nifti.read_nifti(path, file, report, n_axes=4) if path.is_file() else None
        if read is None:
            return {}
        array, affine = read
        if array.shape[3] != len(self.channels):
            wanted = f"expected the {len(self.channels)} of dataset.json"
            report(file, f"has {array.shape[3]} channels, {wanted}; a sequence is missing or one too many.")
            return {}
        volumes = {}
        for name, channel in zip(self.sequences, self.channels, strict=True):
            volume = nifti.lps_volume(array[..., channel], affine)  # (X, Y, Z)
            if check_intensities(volume.array, file, f"sequence {name} (channel {channel})", report):
                volumes[name] = volume
        return volumes

    def load_labels(self, report: Report) -> np.ndarray | None:
        return nifti.load_labels(self, dict(self.classes), report, "dataset.json")


def find(folder: Path) -> Cohort | None:
    """The Decathlon cohort in `folder`, or None if this is none. `DataError` where dataset.json is at fault."""
    path = folder / "dataset.json"
    if not path.is_file() or not (folder / "imagesTr").is_dir():
        return None
    try:
        content = read_json(path)
        modality = {int(key): str(name) for key, name in content["modality"].items()}
        labels = {int(key): str(name) for key, name in content["labels"].items()}
        entries = [(_path(entry["image"]), _path(entry.get("label"))) for entry in content["training"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = "expected modality, labels and training as the Decathlon writes them"
        raise DataError(f"{path}: cannot be used ({shown(error)}), {wanted}; download it again.") from None
    channel_of = {_meaning(name, CHANNEL_NAMES, path, "channel"): key for key, name in modality.items()}
    class_of = {key: _meaning(name, LABEL_NAMES, path, "label") for key, name in labels.items()}
    sequences = tuple(name for name in paper.SEQUENCES if name in channel_of)
    channels = tuple(channel_of[name] for name in sequences)
    if sorted(channels) != list(range(len(modality))):
        raise DataError(f"{path}: modality is {shown(modality)}, expected each channel from 0 once; correct it.")
    if sorted(class_of.values()) != [0, 1, 2, 3] or class_of.get(0) != 0:
        raise DataError(
            f"{path}: labels are {shown(labels)}, expected background as 0 and three tumour classes; correct it."
        )
    classes = tuple((value, name) for value, name in sorted(class_of.items()) if value)
    patients, problems, owner = [], [], {}
    names = {Path(image).name for image, _ in entries}
    for image, label in entries:
        name = re.sub(r"\.nii(\.gz)?$", "", Path(image).name)
        outside = [entry for entry in (image, label) if entry and not _is_inside(folder, entry)]
        if outside:
            sentence = f"names {shown(outside[0])}, which lies outside the cohort folder; correct the entry."
            problems.append(Problem(shown(name)[1:-1], path.name, sentence))
            continue
        if label and (other := owner.setdefault(label, name)) != name:
            sentence = f"names the mask {label} for {other} and for {name}; correct one entry."
            problems.append(Problem(name, path.name, sentence))
        elif label and Path(label).name != Path(image).name and Path(label).name in names:
            sentence = f"names the mask {label} for {name}, though it is called as another image; check the entry."
            problems.append(Problem(name, path.name, sentence, "warning"))
        masks = (folder / label,) if label and (folder / label).is_file() else ()
        patients.append(DecathlonPatient(name, folder, (folder / image,), masks, sequences, channels, classes))
    named = {path for patient in patients for path in patient.image_files}
    there = {path for ending in nifti.ENDINGS for path in (folder / "imagesTr").glob(f"[!.]*{ending}")}
    if (unnamed := sorted(there - named)) and all(problem.severity == "warning" for problem in problems):
        sentence = f"does not name {len(unnamed)} images of imagesTr, such as {unnamed[0].name}; they are passed over."
        problems.append(Problem("", path.name, sentence, "warning"))
    return Cohort(folder, "Decathlon Task01", sequences, paper.TASKS, tuple(patients), True, tuple(problems))


def _meaning(name: str, names: dict, path: Path, kind: str):
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for meaning, spellings in names.items():
        if plain in spellings:
            return meaning
    known = ", ".join(spellings[0] for spellings in names.values())
    raise DataError(f"{path}: unknown {kind} name {shown(name)}, expected one of {known}; correct it.")


def _path(entry: object) -> str:
    """A path of dataset.json in its plain form, "" where there is none."""
    return os.path.normpath(str(entry).replace("\\", "/")) if entry else ""


def _is_inside(folder: Path, entry: str) -> bool:
    """Does an entry name a file of the cohort folder, not by an absolute path, by `..` or by a link that leads out?"""
    try:
        (folder / entry).is_file()
        inside = (folder / entry).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # the name is too long, or no file system's text
        return False
    return inside and entry.isprintable() and not os.path.isabs(entry) and not entry.startswith("..")
