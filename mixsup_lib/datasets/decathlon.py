"""Medical Segmentation Decathlon, Task01_BrainTumour: 4D images in `imagesTr`, masks in `labelsTr`.

The order of the channels and the meaning of the label values are read from `dataset.json` by name: there oedema
comes before non-enhancing tumour. http://medicaldecathlon.com
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mixsup_lib import paper
from mixsup_lib.cohort import Cohort, Labels, Problem, Report, Volume
from mixsup_lib.datasets import nifti
from mixsup_lib.datasets.labels import labels_by_name
from mixsup_lib.datasets.reading import SEQUENCE_NAMES, check_intensities, sequence_named
from mixsup_lib.files import DataError, composed, read_json, shown


@dataclass(frozen=True)
class DecathlonPatient(nifti.NiftiPatient):
    """A patient of Task01. channels: where each of `sequences` is in the file."""

    channels: tuple[int, ...] = ()

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


def find(folder: Path, labels: Labels | None = None) -> Cohort | None:
    """The Decathlon cohort in `folder`, or None if this is none. `DataError` where dataset.json is at fault.

    `labels`: what the values mean, where cohort.yaml says so.
    """
    path = folder / "dataset.json"
    if not path.is_file() or not (folder / "imagesTr").is_dir():
        return None
    content, sequences, channels = _description(path)
    try:
        entries = [(_path(entry["image"]), _path(entry.get("label"))) for entry in content["training"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, error) from None
    labels = labels or labels_by_name(content["labels"], str(path))
    patients, problems, owner = [], [], {}
    names = {Path(image).name for image, _ in entries}
    for image, label in entries:
        name = _name(image)
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
        patients.append(DecathlonPatient(name, folder, (folder / image,), masks, sequences, labels, channels=channels))
    named = {path for patient in patients for path in patient.image_files}
    there = {path for ending in nifti.ENDINGS for path in (folder / "imagesTr").glob(f"[!.]*{ending}")}
    if (unnamed := sorted(there - named)) and all(problem.severity == "warning" for problem in problems):
        sentence = f"does not name {len(unnamed)} images of imagesTr, such as {unnamed[0].name}; they are passed over."
        problems.append(Problem("", path.name, sentence, "warning"))
    return Cohort(folder, "Decathlon Task01", sequences, labels, tuple(patients), True, tuple(problems))


def open_file(path: Path, labels: Labels | None = None) -> DecathlonPatient | None:
    """The patient whose image this file is, also one of `imagesTs` that dataset.json does not name; None if it is none.

    dataset.json, in the folder above, says which channel is which sequence.
    """
    folder = path.parent.parent
    if not (folder / "dataset.json").is_file():
        return None
    content, sequences, channels = _description(folder / "dataset.json")
    labels = labels or labels_by_name(content["labels"], str(folder / "dataset.json"))
    return DecathlonPatient(_name(path), folder, (path,), (), sequences, labels, channels=channels)


def _description(path: Path) -> tuple[dict, tuple[str, ...], tuple[int, ...]]:
    """Content of dataset.json with `labels` as {value: name}, the sequences in the paper's order, their channels."""
    try:
        content = read_json(path)
        modality = {int(key): str(name) for key, name in content["modality"].items()}
        content["labels"] = {int(key): str(name) for key, name in content["labels"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, error) from None
    channel_of = {}
    for key, name in modality.items():
        if (sequence := sequence_named(name)) is None:
            known = ", ".join(spellings[0] for spellings in SEQUENCE_NAMES.values())
            raise DataError(f"{path}: unknown channel name {shown(name)}, expected one of {known}; correct it.")
        channel_of[sequence] = key
    sequences = tuple(name for name in paper.SEQUENCES if name in channel_of)
    channels = tuple(channel_of[name] for name in sequences)
    if sorted(channels) != list(range(len(modality))):
        raise DataError(f"{path}: modality is {shown(modality)}, expected each channel from 0 once; correct it.")
    return content, sequences, channels


def _unusable(path: Path, error: Exception) -> DataError:
    wanted = "expected modality, labels and training as the Decathlon writes them"
    return DataError(f"{path}: cannot be used ({shown(error)}), {wanted}; download it again.")


def _name(path: str | Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", Path(path).name)


def _path(entry: object) -> str:
    """A path of dataset.json in its plain form, "" where there is none."""
    return os.path.normpath(composed(str(entry)).replace("\\", "/")) if entry else ""


def _is_inside(folder: Path, entry: str) -> bool:
    """Does an entry name a file of the cohort folder, not by an absolute path, by `..` or by a link that leads out?"""
    try:
        (folder / entry).is_file()
        inside = (folder / entry).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # the name is too long, or no file system's text
        return False
    return inside and entry.isprintable() and not os.path.isabs(entry) and not entry.startswith("..")
