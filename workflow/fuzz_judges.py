"""Is what was read from a damaged file right? One judge for each kind of input."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch
import yaml
from nibabel import aff2axcodes

from mixsup_lib.cohort import Case


def same(one: Any, other: Any) -> bool:
    """Equal, down to the last bit of every array."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, torch.Tensor):
        return same(one.numpy(), other.numpy())
    if isinstance(one, pd.DataFrame):
        return one.equals(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or repr(one) == repr(other) == "nan"


def plain_nifti(content: bytes) -> np.ndarray | None:
    """The voxels of an unpacked NIfTI-1 file by the book, float64, without nibabel; None where it has none."""
    order = "<" if 1 <= int.from_bytes(content[40:42], "little") <= 7 else ">"

    def field(code: str, offset: int):
        return np.frombuffer(content, f"{order}{code}", 1, offset)[0]

    codes = {
        2: "u1",
        4: "i2",
        8: "i4",
        16: "f4",
        64: "f8",
        256: "i1",
        512: "u2",
        768: "u4",
        1024: "i8",
        1280: "u8",
    }
    shape = [int(n) for n in np.frombuffer(content, f"{order}i2", field("i2", 40), 42)]
    dtype = np.dtype(f"{order}{codes[int(field('i2', 70))]}")
    values = np.frombuffer(content, dtype, int(np.prod(shape)), int(field("f4", 108))).astype(float)
    slope, intercept = float(field("f4", 112)), float(field("f4", 116))
    if np.isfinite(slope) and slope != 0:
        values = values * slope + intercept
    return values.reshape([*shape], order="F")


def unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def judge_cohort(found: dict, sound: dict, path: Path) -> str | None:
    """What is silently wrong with the patients that were read, or None."""
    said = [row for row in found[""] if row not in sound[""]]
    patients = {name for name, case in sound.items() if name and not name.endswith(" slices")}
    for name in patients:
        case, right = found.get(name), sound[name]
        if case is None:
            fault = "the patient is gone"
        elif path.parent.name == name and (fault := _place(path, right)):
            pass
        elif (fault := _geometry(case, right)) is None:
            fault = _content(case, right, path)
        if fault and not any(name in row or not row[1] for row in said):
            return f"{name}: {fault}, and check-data says nothing about it"
    if extra := [name for name in found if name and name.split(" ")[0] not in patients and not said]:
        return f"a patient {extra[0]} that is not there"
    return None


def _geometry(case, right) -> str | None:
    if case.images.shape != right.images.shape:
        return f"shape {case.images.shape} instead of {right.images.shape}"
    if aff2axcodes(case.source_affine) != aff2axcodes(right.source_affine):
        return f"axes {aff2axcodes(case.source_affine)}"
    if (case.voxel_size_mm is None) != (right.voxel_size_mm is None):
        return "another voxel size"
    if case.voxel_size_mm and not np.allclose(case.voxel_size_mm, right.voxel_size_mm, rtol=0.02):
        return f"voxels of {case.voxel_size_mm} mm"
    return None


def _place(path: Path, right) -> str | None:
    """Does the damaged file, one of four and a mask, lie elsewhere by more than a tenth of a voxel?"""
    if not path.name.endswith((".nii", ".nii.gz")):
        return None
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(unpacked(path)[:348]), check=False)
    change = header.get_best_affine() - right.source_affine
    corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(right.images.shape[1:])[:, None] - 1)
    moved = float(np.linalg.norm(change[:3, :3] @ corners + change[:3, 3:], axis=0).max())
    return f"a file that lies {moved:.2g} mm elsewhere" if moved > 0.1 else None  # voxels are of 1 mm


def _content(case, right, path: Path) -> str | None:
    """Voxels are those of the sound file, or what the damaged one holds by the book."""
    for i, (image, expected) in enumerate(zip(case.images, right.images, strict=True)):
        if not np.array_equal(image, expected) and not _by_the_book(image, path, i):
            return f"other intensities in {case.sequences[i]}"
    if case.labels is None:
        return "its mask is gone" if right.labels is not None else None
    if not np.array_equal(case.labels, right.labels):
        return "other labels"
    return None


def _by_the_book(image: np.ndarray, path: Path, channel: int) -> bool:
    if not path.name.endswith((".nii", ".nii.gz")):
        return False
    values = np.squeeze(plain_nifti(unpacked(path)))
    values = values[..., channel] if values.ndim == 4 else values
    flips = [values, values[::-1, ::-1]]  # the cohorts are written LPS and RAS
    return any(np.allclose(image, v.astype(np.float32), rtol=1e-5, equal_nan=True) for v in flips)


def judge_dataset(found: dict, sound: dict, path: Path) -> str | None:
    """Channels and labels are those that dataset.json now names."""
    content = json.loads(path.read_text(encoding="utf-8"))
    words = {"flair": "FLAIR", "t1w": "T1", "t1": "T1", "t1gd": "T1c", "t2w": "T2", "t2": "T2"}
    channel = {words.get(name.lower(), ""): int(number) for number, name in content["modality"].items()}
    meaning = [("background", 0), ("non-enhancing", 1), ("edema", 2), ("enhancing", 3)]
    on_disk = np.array([0, 2, 1, 3])  # class -> the value that cohorts.py writes
    classes = np.zeros(4, np.uint8)
    for value, name in content["labels"].items():
        classes[int(value)] = next(number for word, number in meaning if name.lower().startswith(word))
    said = {}
    for name, case in sound.items():
        if isinstance(case, Case):
            images = (
                case.images[[channel[sequence] for sequence in found[name].sequences]]
                if name in found
                else None
            )
            said[name] = replace(case, images=images, labels=classes[on_disk[case.labels]])
        else:
            said[name] = case
    return judge_cohort(found, said, path)


def judge_same(found: Any, sound: Any, path: Path) -> str | None:
    """Nothing may differ."""
    return None if same(found, sound) else "something else was read, silently"


def judge_nothing(found: Any, sound: Any, path: Path) -> str | None:
    """A file without a checksum says what it says; that it is read at all without a fault is the claim."""
    return None


def judge_slice_labels(found: dict, sound: dict, path: Path) -> str | None:
    """The slices of every patient are those that a plain reading of the rows gives, or check-data says something."""
    said = [row for row in found[""] if row not in sound[""]]
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig", errors="replace"), newline="")))
    for name, table in ((name, table) for name, table in found.items() if name.endswith(" slices")):
        mine = [
            [field.strip() for field in row] for row in rows if row and row[0].strip() == name.split(" ")[0]
        ]
        for column in ("non_enhancing", "oedema", "enhancing"):
            slices = {z for row in mine if row[1] == column for z in range(int(row[2]), int(row[3]) + 1)}
            if slices != set(np.flatnonzero(table[column])):
                return f"{name}: {column} in other slices than the rows say"
        if not table.equals(sound.get(name)) and not said:
            return f"{name}: other slices, and check-data says nothing"
    return None


def judge_lists(found, sound, path: Path) -> str | None:
    """The names on the lists, each in its group."""
    for group in ("fully_annotated", "weak", "test"):
        lines = (path.parent / f"{group}.txt").read_text(encoding="utf-8").splitlines()
        names = [
            line.strip().rstrip("/\\").replace("\\", "/").split("/")[-1].lower()
            for line in lines
            if line.strip()
        ]
        own = [name.lower() for name in getattr(found, group)]
        if [n.split("_")[-1] for n in names] != [n.split("_")[-1] for n in own]:
            return f"{group} is {own}, the list has {names}"
    return None


def judge_yaml(found, sound, path: Path) -> str | None:
    """Every setting that the file gives arrived."""
    scenario, configs, config = found
    given = [(yaml.safe_load((path.parent / "settings.yaml").read_text(encoding="utf-8")), config)]
    given += [({**scenario["settings"], **own}, configs[name]) for name, own in scenario["variants"].items()]
    for settings, made in given:
        values = made.settings()
        for name, value in settings.items():
            if value is not None and values[name] != value and str(values[name]) != str(value) and (
                not isinstance(value, int | float | bool) or float(values[name]) != float(value)
            ):  # fmt: skip
                return f"{name} is {values[name]!r}, the file says {value!r}"
    return None
