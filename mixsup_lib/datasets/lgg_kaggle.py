"""The LGG segmentation data set of Kaggle ("kaggle_3m"): one folder per patient, one TIFF per axial slice.

`<ID>/<ID>_<n>.tif` holds T1, FLAIR and T1c as the channels of an 8-bit picture, `<ID>/<ID>_<n>_mask.tif` the FLAIR
abnormality as 0/255: one class, so whole tumour is the only task. Neither spacing nor affine; n rises from the neck
to the head, rows run to the back, columns to the patient's left. Buda et al., Comput Biol Med 109 (2019).
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixsup_lib.cohort import (
    Found,
    Patient,
    Problem,
    Report,
    Volume,
    check_intensities,
    map_labels,
    no_patient,
    visible_folders,
)

SEQUENCES = ("FLAIR", "T1", "T1c")
CHANNELS = {"FLAIR": 1, "T1": 0, "T1c": 2}
"""Channel of the TIFF that holds each sequence."""

CLASSES = {255: 2}
"""The mask's one value -> the paper's class 2: with one class, any class of the whole tumour does."""

ENDINGS = (".tif", ".tiff")
FORMATS = ("TIFF",)
"""Pillow goes by content: what is no TIFF inside is not handed to another decoder."""

MOST_PIXELS = 2**24
COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, STRIP_BYTES = 259, 262, 273, 274, 279
"""TIFF tags."""

DEFLATE = (8, 32946)
"""Values of COMPRESSION: packed by zlib, as the data set is."""

_NAME = re.compile(r"(?P<id>.+)_(?P<slice>\d+)(?P<mask>_mask)?\.tiff?", re.IGNORECASE)
_FAULTS = (OSError, EOFError, ValueError, SyntaxError, KeyError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True)
class LggPatient(Patient):
    """A patient of the LGG data set. image_files and mask_files are ordered by slice number."""

    def missing(self) -> list[tuple[str, str]]:
        numbers = sorted(map(_number, self.image_files))
        gaps = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)) if numbers else []
        if not numbers:
            return [(self.place, "holds masks but no image slice; add the slices.")]
        if gaps:
            between = f"between {numbers[0]} and {numbers[-1]}"
            return [(self.place, f"slice {_some(gaps)} is missing {between}; add the file.")]
        return []

    def load_volumes(self, report: Report) -> dict[str, Volume]:
        stack = self._stack(self.image_files, 3, report)
        if stack is None:
            return {}
        folder, eye = self.relative(self.image_files[0].parent), np.eye(4)
        volumes = {}
        for name in self.sequences:
            array = stack[..., CHANNELS[name]].transpose(2, 1, 0).astype(np.float32)  # (X, Y, Z)
            if check_intensities(array, folder, f"sequence {name}", report):
                volumes[name] = Volume(array, eye, eye, None)
        return volumes

    def load_labels(self, report: Report) -> np.ndarray | None:
        folder = self.relative(self.mask_files[0].parent)
        images, masks = set(map(_number, self.image_files)), set(map(_number, self.mask_files))
        if images - masks:
            slices = _some(sorted(images - masks))
            report(folder, f"slice {slices} has no mask file; add it, all 0 where there is no tumour.")
            return None
        if masks - images:
            report(
                folder,
                f"mask {_some(sorted(masks - images))} belongs to no slice; delete it or add the slice.",
            )
            return None
        stack = self._stack(self.mask_files, 1, report)
        if stack is None:
            return None
        size = _image_size(self.image_files[0])
        if size and size != stack.shape[1:3]:
            found, expected = _pixels(stack.shape[1:3]), _pixels(size)
            report(folder, f"has masks of {found} for slices of {expected}; correct the masks.")
            return None
        return map_labels(stack[..., 0].transpose(2, 1, 0), CLASSES, f"{folder} (masks)", report)  # (X, Y, Z)

    def _stack(self, files: tuple[Path, ...], channels: int, report: Report) -> np.ndarray | None:
        """The slices as (Z, Y, X, channels) uint8; None after a fault."""
        slices = {file: _read_slice(file, self.relative(file), channels, report) for file in files}
        shapes = Counter(array.shape for array in slices.values() if array is not None)
        if not shapes:
            return None
        usual = shapes.most_common(1)[0][0]
        for file, array in slices.items():
            if array is not None and array.shape != usual:
                found, expected = _pixels(array.shape[:2]), _pixels(usual[:2])
                report(
                    self.relative(file),
                    f"has {found}, the patient's other slices {expected}; export it again.",
                )
        arrays = list(slices.values())
        if any(array is None or array.shape != usual for array in arrays):
            return None
        return np.stack(arrays)  # (Z, Y, X, channels)


def find(folder: Path, inside: Sequence[Path] | None = None) -> Found | None:
    """The LGG cohort in `folder`, or None if this is none. `inside`: the subfolders to look at (None: all)."""
    inside = visible_folders(folder) if inside is None else inside
    if not any(_NAME.fullmatch(file.name) for path in inside for file in path.iterdir()):
        return None
    patients, problems = [], []
    for path in inside:
        passed_over = no_patient(path, path.name, ENDINGS)
        if passed_over:
            problems.append(passed_over)
            continue
        files = [file for file in path.iterdir() if _is_tiff(file)]
        named = {
            file: found
            for file in files
            if (found := _NAME.fullmatch(file.name)) and found["id"] == path.name
        }
        for file in files:
            if file not in named:
                sentence = (
                    f"is not named {path.name}_<n>.tif after its folder; rename it if it belongs there."
                )
                problems.append(Problem(path.name, f"{path.name}/{file.name}", sentence))
        images = tuple(sorted((file for file in named if not named[file]["mask"]), key=_number))
        masks = tuple(sorted((file for file in named if named[file]["mask"]), key=_number))
        for kind, group in (("slice", images), ("mask", masks)):
            twice = [number for number, count in Counter(map(_number, group)).items() if count > 1]
            if twice:
                problems.append(
                    Problem(path.name, path.name, f"holds {kind} {_some(twice)} twice; keep one.")
                )
        if named:
            patients.append(LggPatient(path.name, folder, images, masks, SEQUENCES))
    return Found("LGG Kaggle", SEQUENCES, ("whole_tumor",), False, patients, problems)


def _is_tiff(file: Path) -> bool:
    return file.name.lower().endswith(ENDINGS) and not file.name.startswith(".")


def _number(file: Path) -> int:
    return int(_NAME.fullmatch(file.name)["slice"])


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"


def _image_size(file: Path) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as image:
            return image.size[::-1]
    except (*_FAULTS, Image.DecompressionBombError):
        return None


def _tiff_fault(image) -> str | None:
    """Does the header of an opened TIFF claim more than a slice can be, or turn, mirror or invert it?"""
    if image.width * image.height > MOST_PIXELS:
        return f"claims {image.width}x{image.height} pixels, which no slice has; copy or download it again."
    if (turned := image.tag_v2.get(ORIENTATION, 1)) != 1:
        return f"is stored turned or mirrored (TIFF orientation {turned}, expected 1); export it again."
    if (meaning := image.tag_v2.get(PHOTOMETRIC)) not in (1, 2):
        return f"does not say that 0 is black (TIFF photometric interpretation {meaning}); export it again."
    return None


def _packing_fault(image, path: Path) -> str | None:
    """Are the strips of a deflated TIFF damaged? Its decoder does not compare their checksums."""
    if image.tag_v2.get(COMPRESSION) not in DEFLATE:
        return None
    content = path.read_bytes()
    for offset, count in zip(image.tag_v2[STRIP_OFFSETS], image.tag_v2[STRIP_BYTES], strict=True):
        unpacker = zlib.decompressobj()
        unpacker.decompress(content[offset : offset + count], 4 * image.width * image.height)
        if not unpacker.eof:
            return "is cut off before its end; copy or download it again."
    return None


def _read_slice(path: Path, file: str, channels: int, report: Report) -> np.ndarray | None:
    """One TIFF as (Y, X, channels) uint8; None after a fault."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                fault = _tiff_fault(image) or _packing_fault(image, path)
                if fault is None:
                    array = np.asarray(image)
    except (*_FAULTS, Image.DecompressionBombError) as error:
        text = (str(error).splitlines() or [""])[0].replace(str(path), path.name)
        report(file, f"is not a readable TIFF file ({text}); copy or download it again.")
        return None
    if fault:
        report(file, fault)
        return None
    if array.ndim == 2:
        array = array[..., None]  # (Y, X, 1)
    if array.shape[2] != channels or array.dtype != np.uint8:
        found = f"{array.shape[2]} channels of type {array.dtype}"
        report(file, f"has {found}, expected {channels} of type uint8; export it again.")
        return None
    return array
