"""The LGG segmentation data set of Kaggle ("kaggle_3m"): one folder per patient, one TIFF per axial slice.

`<ID>/<ID>_<n>.tif` holds T1, FLAIR and T1c as the channels of an 8-bit picture, `<ID>/<ID>_<n>_mask.tif` the FLAIR
abnormality as 0/255: one class, so whole tumour is the only task. Neither spacing nor affine; n rises from the neck
to the head, rows run to the back, columns to the patient's left. Buda et al., Comput Biol Med 109 (2019).
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixsup_lib.cohort import Cohort, Labels, LabelValue, Patient, Problem, Report, Volume
from mixsup_lib.datasets.labels import map_labels
from mixsup_lib.datasets.reading import check_intensities, no_patient, visible_folders

SEQUENCES = ("FLAIR", "T1", "T1c")
CHANNELS = {"FLAIR": 1, "T1": 0, "T1c": 2}
"""Channel of the TIFF that holds each sequence."""

LABELS = Labels((LabelValue(255, 2, "abnormality in FLAIR"),), ("whole_tumor",))
"""The mask's one value counts as the paper's class 2: with one class, any class of the whole tumour does."""

ENDINGS = (".tif", ".tiff")
FORMATS = ("TIFF",)
"""Pillow goes by content: what is no TIFF inside is not handed to another decoder."""

COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, ORIENTATION, STRIP_BYTES = 259, 262, 273, 274, 279
"""TIFF tags."""

DEFLATE = (8, 32946)
"""Values of COMPRESSION: packed by zlib, as the data set is."""

_NAME = re.compile(r"(?P<id>.+)_(?P<slice>\d+)(?P<mask>_mask)?\.tiff?", re.IGNORECASE)


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
        if bare := sorted(images - masks):
            report(folder, f"slice {_some(bare)} has no mask file; add it, all 0 where there is no tumour.")
            return None
        if extra := sorted(masks - images):
            report(folder, f"mask {_some(extra)} belongs to no slice; delete it or add the slice.")
            return None
        stack = self._stack(self.mask_files, 1, report)
        if stack is None:
            return None
        image = _read_slice(self.image_files[0], "", 3, lambda *_: None)
        if image is not None and image.shape[:2] != stack.shape[1:3]:
            found, expected = _pixels(stack.shape[1:3]), _pixels(image.shape)
            report(folder, f"has masks of {found} for slices of {expected}; correct the masks.")
            return None
        return map_labels(stack[..., 0].transpose(2, 1, 0), self.labels, f"{folder} (masks)", report)  # (X, Y, Z)

    def _stack(self, files: tuple[Path, ...], channels: int, report: Report) -> np.ndarray | None:
        """The slices as (Z, Y, X, channels) uint8; None after a fault."""
        slices = {file: _read_slice(file, self.relative(file), channels, report) for file in files}
        shapes = Counter(array.shape for array in slices.values() if array is not None)
        usual = shapes.most_common(1)[0][0] if shapes else None
        for file, array in slices.items():
            if array is not None and array.shape != usual:
                expected = f"the patient's other slices {_pixels(usual)}"
                report(self.relative(file), f"has {_pixels(array.shape)}, {expected}; export it again.")
        arrays = list(slices.values())
        if any(array is None or array.shape != usual for array in arrays):
            return None
        return np.stack(arrays)  # (Z, Y, X, channels)


def find(folder: Path, inside: Sequence[Path] | None = None, labels: Labels | None = None) -> Cohort | None:
    """The LGG cohort in `folder`, or None if this is none.

    `inside`: the subfolders to look at (None: all). `labels`: what the values mean, where cohort.yaml says so.
    """
    labels = labels or LABELS
    inside = visible_folders(folder) if inside is None else inside
    if not any(_NAME.fullmatch(file.name) for path in inside for file in path.iterdir()):
        return None
    patients, problems = [], []
    for path in inside:
        if passed_over := no_patient(path, path.name, ENDINGS):
            problems.append(passed_over)
            continue
        images, masks = [], []
        for file in path.iterdir():
            if file.name.startswith(".") or not file.name.lower().endswith(ENDINGS):
                continue
            named = _NAME.fullmatch(file.name)
            if named and named["id"] == path.name:
                (masks if named["mask"] else images).append(file)
            else:
                sentence = f"is not named {path.name}_<n>.tif after its folder; rename it if it belongs there."
                problems.append(Problem(path.name, f"{path.name}/{file.name}", sentence))
        for kind, group in (("slice", images), ("mask", masks)):
            group.sort(key=_number)
            twice = [number for number, count in Counter(map(_number, group)).items() if count > 1]
            if twice:
                sentence = f"holds {kind} {_some(twice)} twice; keep one."
                problems.append(Problem(path.name, path.name, sentence))
        if images or masks:
            patients.append(LggPatient(path.name, folder, tuple(images), tuple(masks), SEQUENCES, labels))
    return Cohort(folder, "LGG Kaggle", SEQUENCES, labels, tuple(patients), False, tuple(problems))


def _number(file: Path) -> int:
    return int(_NAME.fullmatch(file.name)["slice"])


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"


def _read_slice(path: Path, file: str, channels: int, report: Report) -> np.ndarray | None:
    """One TIFF as (Y, X, channels) uint8; None after a fault."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                fault = _tiff_fault(image, path)
                if fault is None:
                    array = np.asarray(image).reshape(image.height, image.width, -1)  # (Y, X, channels)
    except Exception as error:  # Pillow fails in a dozen ways on what is no TIFF file
        text = (str(error).splitlines() or [""])[0].replace(str(path), path.name)
        fault = f"is not a readable TIFF file ({text}); copy or download it again."
    if fault is None and (array.shape[2] != channels or array.dtype != np.uint8):
        found = f"{array.shape[2]} channels of type {array.dtype}"
        fault = f"has {found}, expected {channels} of type uint8; export it again."
    if fault:
        report(file, fault)
        return None
    return array


def _tiff_fault(image, path: Path) -> str | None:
    """Is an opened TIFF turned, mirrored or inverted, or damaged where its decoder compares no checksum?"""
    turned, meaning = image.tag_v2.get(ORIENTATION, 1), image.tag_v2.get(PHOTOMETRIC)
    if turned != 1:
        return f"is stored turned or mirrored (TIFF orientation {turned}, expected 1); export it again."
    if meaning not in (1, 2):
        return f"does not say that 0 is black (TIFF photometric interpretation {meaning}); export it again."
    if image.tag_v2.get(COMPRESSION) in DEFLATE:
        content = path.read_bytes()
        for offset, count in zip(image.tag_v2[STRIP_OFFSETS], image.tag_v2[STRIP_BYTES], strict=True):
            zlib.decompress(content[offset : offset + count])  # compares the strip's checksum
    return None
