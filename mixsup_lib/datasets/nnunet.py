"""nnU-Net raw data, versions 1 and 2: `imagesTr/<ID>_<channel>` in one file per channel, masks `labelsTr/<ID>`.

dataset.json names the channels (`modality` in version 1, `channel_names` in 2) and the label values, in version 2
also as regions (lists of values). https://github.com/MIC-DKFZ/nnUNet
"""

from __future__ import annotations

import re
from pathlib import Path

from mixsup_lib import paper
from mixsup_lib.cohort import Cohort, Labels
from mixsup_lib.datasets import nifti
from mixsup_lib.datasets.labels import labels_by_name, labels_by_region, region_named
from mixsup_lib.datasets.reading import sequence_named
from mixsup_lib.files import DataError, read_json, shown

_FILE = re.compile(r"(?P<id>.+)_(?P<channel>\d{4})(?P<ending>\.\w+(\.gz)?)")


def find(folder: Path, labels: Labels | None = None) -> Cohort | None:
    """The nnU-Net data set in `folder`, or None if this is none. `DataError` where dataset.json is at fault.

    `labels`: what the values mean, where cohort.yaml says so.
    """
    path, images = folder / "dataset.json", folder / "imagesTr"
    if not path.is_file() or not images.is_dir():
        return None
    found = [named for file in images.iterdir() if (named := _FILE.fullmatch(file.name))]
    if not found:
        return None
    if not any(named["ending"] in nifti.ENDINGS for named in found):
        raise DataError(f"{images}: holds {found[0]['ending']} files, but only NIfTI is read (.nii.gz); convert them.")
    names = {named["id"] for named in found}
    sequences, channels, labels = _description(path, labels)
    patients = [_patient(folder, images, name, sequences, channels, labels) for name in sorted(names)]
    return Cohort(folder, "nnU-Net", sequences, labels, tuple(patients), False)


def open_file(path: Path, labels: Labels | None = None) -> nifti.NiftiPatient | None:
    """The patient of whom this file is one channel, also one of `imagesTs`; None if it is none."""
    folder, named = path.parent.parent, _FILE.fullmatch(path.name)
    if not named or not (folder / "dataset.json").is_file():
        return None
    sequences, channels, labels = _description(folder / "dataset.json", labels)
    return _patient(folder, path.parent, named["id"], sequences, channels, labels)


def _patient(
    folder: Path, images: Path, name: str, sequences: tuple[str, ...], channels: tuple[int, ...], labels: Labels
) -> nifti.NiftiPatient:
    stems = [images / f"{name}_{channel:04d}" for channel in channels]
    files = [next(iter(nifti.existing(stem)), stem.with_name(f"{stem.name}.nii.gz")) for stem in stems]
    masks = nifti.existing(folder / "labelsTr" / name)
    return nifti.NiftiPatient(name, folder, tuple(files), tuple(masks[:1]), sequences, labels)


def _description(path: Path, labels: Labels | None) -> tuple[tuple[str, ...], tuple[int, ...], Labels]:
    """Sequences, the paper's first, the channel of each, and what the label values mean."""
    try:
        content = read_json(path)
        named = content.get("channel_names") or content["modality"]
        channel_of = {sequence_named(str(name)) or str(name): int(key) for key, name in named.items()}
        pairs = list(content["labels"].items())
        ending = str(content.get("file_ending", ".nii.gz"))
        if not channel_of or len(channel_of) != len(named):
            raise ValueError(f"channels {named}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = "expected channel_names and labels as nnU-Net writes them"
        raise DataError(f"{path}: cannot be used ({shown(error)}), {wanted}; correct it.") from None
    if ending not in nifti.ENDINGS:
        raise DataError(f"{path}: file_ending is {ending}, but only NIfTI is read (.nii.gz, .nii); convert the files.")
    ordered = [name for name in paper.SEQUENCES if name in channel_of]
    ordered += sorted(set(channel_of) - set(ordered), key=channel_of.get)
    return tuple(ordered), tuple(channel_of[name] for name in ordered), labels or _labels(pairs, path)


def _labels(pairs: list[tuple], path: Path) -> Labels:
    """What dataset.json says of the label values: {"0": name} in version 1, {name: value or values} in version 2."""
    if all(str(key).isdecimal() for key, _ in pairs):
        return labels_by_name({int(value): str(name) for value, name in pairs}, str(path))
    values = {}
    for name, value in pairs:
        values[str(name)] = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) for item in values[str(name)]):
            raise DataError(f"{path}: the label {shown(name)} is {shown(value)}, expected whole numbers; correct it.")
    values = {name: items for name, items in values.items() if items != [0]}
    if any(len(items) > 1 for items in values.values()):
        regions = {region_named(name): items for name, items in values.items()}
        if None in regions or len(regions) != len(values):
            odd = next((name for name in values if region_named(name) is None), next(iter(values)))
            raise DataError(
                f"{path}: the region {shown(odd)} could mean several things; write a cohort.yaml whose `regions` say "
                "which values make which region (data/README.md)."
            )
        return labels_by_region(regions, {}, str(path))
    return labels_by_name({items[0]: name for name, items in values.items()}, str(path))
