"""The sound inputs that the fuzzer damages, and how each kind is read through the library."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import nibabel as nib  # noqa: E402
from cohorts import patient_id, write_cohort  # noqa: E402
from nibabel import aff2axcodes  # noqa: E402
from PIL import Image  # noqa: E402

from mixsup_lib.__main__ import read_settings  # noqa: E402
from mixsup_lib.check_data import check_cohort  # noqa: E402
from mixsup_lib.cohort import Case, find_cohort  # noqa: E402
from mixsup_lib.config import make_config  # noqa: E402
from mixsup_lib.errors import MixsupError  # noqa: E402
from mixsup_lib.examples import read_examples  # noqa: E402
from mixsup_lib.protocol import read_split  # noqa: E402
from mixsup_lib.run_records import collect, read_history  # noqa: E402
from mixsup_lib.runs import load_network, load_run, make_trainer, run, split_of  # noqa: E402
from mixsup_lib.scenario import read_scenario  # noqa: E402
from mixsup_lib.slice_labels import derive_rows, read_slice_labels, slice_presence, write_slice_labels  # noqa: E402
from mixsup_lib.slices import prepare  # noqa: E402

RUN = {
    "preset": "tiny", "n_fa": 3, "iterations": 3, "batch_norm_batches": 2, "pixel_mm": 1.0, "window": [24, 24],
    "depth": 2, "width": 4, "progress": False, "precision": "float32", "device": "cpu",
}  # fmt: skip
SCENARIO = """name: trial
compare: first
settings: {preset: tiny, iterations: 5}
axes: {n_fa: [3, 5], supervision: [standard, mixed]}
variants:
  other: {supervision: mixed, branch: shallow, n_fa: 7, target_weights: [0.5, 0.5]}
folds: [1, 2]
seeds: [0]
"""
SETTINGS = (
    "cohort: scans\npreset: tiny\nn_fa: 4\nwindow: [32, 48]\na: 0.5\ntask: multiclass\nsplit_lists: null\n"
)


class Missing(AssertionError):
    """Reading refused what check-data finds nothing wrong with."""


def write_material(root: Path) -> None:
    """Every sound input, once."""
    for layout, suffix in (
        ("brats2021", ".nii.gz"),
        ("brats2023", ".nii"),
        ("decathlon", ".nii.gz"),
        ("lgg", ""),
    ):
        write_cohort(root / layout, layout, patients=2, suffix=suffix)
    for path in (root / "lgg").rglob("*.tif"):  # packed, as the data set is
        Image.fromarray(np.asarray(Image.open(path))).save(path, compression="tiff_adobe_deflate")
    for layout in ("brats2021", "lgg"):
        cohort = find_cohort(root / layout)
        rows = [derive_rows(patient.id, patient.read_labels(), cohort.tasks) for patient in cohort.patients]
        write_slice_labels(root / layout, pd.concat(rows, ignore_index=True))
    weak = write_cohort(root / "weak", "decathlon", patients=3)
    shutil.rmtree(root / "weak" / "labelsTr")
    frame = pd.DataFrame(
        [(name, "oedema", 3, 6) for name in weak], columns=["patient", "class", "first_z", "last_z"]
    )
    write_slice_labels(root / "weak", frame)
    cohort = root / "ten"
    write_cohort(cohort, "brats2021", patients=10, shape=(24, 24, 12))
    names = [patient_id("brats2021", i) for i in range(10)]
    lists = {"fully_annotated": names[:3], "weak": names[3:7], "test": names[7:9]}
    (root / "lists").mkdir()
    for name, ids in lists.items():
        text = "".join(f"/data/BraTS/{patient}\n" for patient in ids)
        (root / "lists" / f"{name}.txt").write_text(text)
    (root / "yaml").mkdir()
    (root / "yaml" / "scenario.yaml").write_text(SCENARIO)
    (root / "yaml" / "settings.yaml").write_text(SETTINGS)
    made = run(make_config(cohort=cohort, out=root / "out", stores=root / "stores", **RUN))
    shutil.copytree(made, root / "run" / made.name)
    shutil.copytree(made, root / "old" / made.name, ignore=shutil.ignore_patterns("SHA256SUMS"))
    prepare(cohort, root / "store", progress=False)
    with (
        mock.patch("mixsup_lib.slices.write_description", side_effect=InterruptedError),
        suppress(InterruptedError),
    ):
        prepare(cohort, root / "parts", progress=False)


# How each kind is read: folder -> what a user gets. MixsupError is a refusal.


def read_cohort(folder: Path) -> dict[str, Any]:
    """Patient -> its case, and under "" what check-data says beyond notes."""
    table = check_cohort(folder)
    found: dict[str, Any] = {"": [tuple(row) for row in table[["severity", "patient", "problem"]].to_numpy()]}
    try:
        for patient in find_cohort(folder).patients:
            found[patient.id] = patient.read() if patient.mask_files else patient.read_images()
        if (labels := read_slice_labels(folder)) is not None:
            n_slices = {name: case.images.shape[3] for name, case in found.items() if name}
            found |= {f"{name} slices": slice_presence(labels, name, n) for name, n in n_slices.items()}
    except MixsupError as error:
        if not (table["severity"] == "error").any():
            raise Missing(f"refused ({error}), but check-data finds no error") from error
        raise
    return found


def read_lists(folder: Path):
    return read_split(folder, [patient_id("brats2021", i) for i in range(10)], n_fa=3)


def read_yaml(folder: Path):
    scenario = read_scenario(folder / "scenario.yaml")
    return scenario.model_dump(), scenario.configs(), make_config(**read_settings(folder / "settings.yaml"))


def read_run(folder: Path) -> list:
    (place,) = folder.iterdir()
    config, metrics = load_run(place)
    history, examples = read_history(place), read_examples(place)
    weights = load_network(place, 4, (24, 24)).state_dict()
    return [config, metrics, collect(folder).drop(columns="folder"), history, examples, weights]


def read_store(folder: Path) -> list:
    store = prepare(folder.with_name("ten").resolve(), folder, progress=False)
    patients = [patient.id for patient in store.cohort.patients]
    verify = getattr(store, "verify", lambda patients: None)
    verify(patients)
    return [
        np.array(store.images), store.table, store.fingerprint(), [store.label_maps(name) for name in patients[:2]],
        [(store.frame(name), store.voxel_size_mm(name), store.rows(name)) for name in patients],
        store.presence(patients, "multiclass"),
    ]  # fmt: skip


def read_checkpoint(folder: Path) -> list:
    (place,) = folder.iterdir()
    config, _ = load_run(place)
    cohort = find_cohort(config.cohort)
    store = prepare(cohort, config.stores / "ten" / "1mm-24x24", labels_folder=config.stores / "ten", pixel_mm=1.0,
                    window=(24, 24), progress=False)  # fmt: skip
    trainer = make_trainer(config, store, split_of(config, cohort), torch.device("cpu"), "float32")
    trainer.checkpoint = place / "checkpoint.pt"
    trainer.load()
    states = [trainer.network, trainer.optimizer, trainer.schedule, trainer.sampler]
    return [trainer.history, *(part.state_dict() for part in states)]


# Is what was read right?


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
