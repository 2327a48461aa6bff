"""Tiny cohorts for tests, written exactly as each public data set lies on disk. Blobs, not brains: 16x16x12 voxels.

`write_cohort(folder, layout)` returns what a correct reader must find: {patient ID: Truth}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SHAPE = (16, 16, 12)
LAYOUTS = ("brats2018", "brats2021", "brats2023", "decathlon", "nnunet_v1", "nnunet_v2", "lgg")
NAMES = dict(
    zip(
        LAYOUTS,
        ("BraTS 2017/2018", "BraTS 2019-2021", "BraTS 2023+", "Decathlon Task01", "nnU-Net", "nnU-Net", "LGG Kaggle"),
        strict=True,
    )
)
ENDINGS = {
    "brats2018": ("_flair", "_t1", "_t1ce", "_t2", "_seg"),
    "brats2021": ("_flair", "_t1", "_t1ce", "_t2", "_seg"),
    "brats2023": ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"),
}
ON_DISK = {
    "brats2018": np.array([0, 1, 2, 4], np.uint8),
    "brats2021": np.array([0, 1, 2, 4], np.uint8),
    "brats2023": np.array([0, 1, 2, 3], np.uint8),
    "decathlon": np.array([0, 2, 1, 3], np.uint8),
    "nnunet_v1": np.array([0, 2, 1, 3], np.uint8),
    "nnunet_v2": np.array([0, 2, 1, 3], np.uint8),
}
"""Label value on disk of the paper's classes 0..3."""


NNUNET = {
    "nnunet_v1": {},
    "nnunet_v2": {
        "channel_names": {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"},
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
        "regions_class_order": [1, 2, 3],
        "file_ending": ".nii.gz",
    },
}
"""What dataset.json says otherwise than the Decathlon's."""


class Truth(NamedTuple):
    """images (C, X, Y, Z), whole numbers in float32, and labels (X, Y, Z) of the paper's classes; axes LPS."""

    images: np.ndarray
    labels: np.ndarray


def patient_id(layout: str, index: int) -> str:
    """ID of patient `index` (from 0) in the data set's own style."""
    return {
        "brats2018": f"Brats18_TEST_{index + 1:03d}_1",
        "brats2021": f"BraTS2021_{index + 1:05d}",
        "brats2023": f"BraTS-GLI-{index + 1:05d}-000",
        "decathlon": f"BRATS_{index + 1:03d}",
        "nnunet_v1": f"BRATS_{index + 1:03d}",
        "nnunet_v2": f"BRATS_{index + 1:03d}",
        "lgg": f"TCGA_XX_{index + 1:04d}_20000101",
    }[layout]


def make_truth(seed: int, shape: tuple[int, int, int] = SHAPE) -> Truth:
    """A smooth random head with background 0 and a tumour of three classes in about half of the slices."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))  # (3, X, Y, Z)
    head = np.linalg.norm(grid, axis=0) < 0.95
    centre = rng.uniform(-0.25, 0.25, 3)[:, None, None, None]
    radius = np.linalg.norm(grid - centre, axis=0) + 0.05 * gaussian_filter(rng.standard_normal(shape), 1)
    labels = np.select([~head, radius < 0.15, radius < 0.3, radius < 0.5], [0, 1, 3, 2], 0).astype(np.uint8)
    contrast = np.array([[60, 50, 110, 80], [90, 60, 65, 70], [85, 50, 60, 120], [70, 60, 100, 90]])  # (C, K)
    noise = gaussian_filter(rng.standard_normal((4, *shape)), (0, 1, 1, 1)) * 20
    images = np.clip(np.round(contrast[:, labels] + noise), 1, 250) * head  # (C, X, Y, Z)
    return Truth(images.astype(np.float32), labels)


def write_cohort(
    folder: str | Path,
    layout: str,
    *,
    patients: int = 4,
    shape: tuple[int, int, int] = SHAPE,
    seed: int = 0,
    suffix: str = ".nii.gz",
) -> dict[str, Truth]:
    """Write a cohort in one of `LAYOUTS` and return its truth. `suffix` is for the NIfTI layouts."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    truths = {patient_id(layout, i): make_truth(1000 * seed + i, shape) for i in range(patients)}
    if layout == "lgg":
        truths = {name: Truth(truth.images[:3], (truth.labels > 0) * np.uint8(2)) for name, truth in truths.items()}
    for index, (name, truth) in enumerate(truths.items()):
        if layout == "lgg":
            _write_lgg(folder / name, truth)
        elif layout == "decathlon":
            _write_decathlon(folder, name, truth, suffix)
        elif layout in NNUNET:
            for channel, image in enumerate(truth.images):
                save(folder / "imagesTr" / f"{name}_{channel:04d}{suffix}", image.astype(np.int16))
            save(folder / "labelsTr" / f"{name}{suffix}", ON_DISK[layout][truth.labels])
        else:
            grade = ("HGG", "LGG")[index % 2] if layout == "brats2018" else "."
            _write_brats(folder / grade / name, truth, layout, suffix)
    if layout == "decathlon":
        write_dataset_json(folder, list(truths), suffix)
    if layout in NNUNET:
        write_dataset_json(folder, list(truths), suffix, **NNUNET[layout])
    return truths


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write a NIfTI file; without an affine, BraTS' own: LPS at 1 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    brats = np.diag([-1.0, -1.0, 1.0, 1.0])
    brats[1, 3] = array.shape[1] - 1
    nib.save(nib.Nifti1Image(array, brats if affine is None else affine), path)
    return path


def change(path: Path, function) -> None:
    """Replace the voxels of a NIfTI file by `function` of them, keeping the affine."""
    image = nib.load(path)
    save(path, np.asarray(function(np.asanyarray(image.dataobj))), image.affine)


def write_dataset_json(folder: Path, names: list[str], suffix: str = ".nii.gz", **changes) -> None:
    """The Decathlon's description; `changes` replace whole entries."""
    content = {
        "name": "BRATS",
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [{"image": f"./imagesTr/{name}{suffix}", "label": f"./labelsTr/{name}{suffix}"} for name in names],
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content | changes), encoding="utf-8")


def _write_brats(folder: Path, truth: Truth, layout: str, suffix: str) -> None:
    *images, mask = ENDINGS[layout]
    for ending, image in zip(images, truth.images, strict=True):
        save(folder / f"{folder.name}{ending}{suffix}", image.astype(np.int16))
    save(folder / f"{folder.name}{mask}{suffix}", ON_DISK[layout][truth.labels])


def _write_decathlon(folder: Path, name: str, truth: Truth, suffix: str) -> None:
    """On disk the axes are RAS, so that a reader has to turn them."""
    affine = np.eye(4)
    save(folder / "imagesTr" / f"{name}{suffix}", np.moveaxis(truth.images, 0, 3)[::-1, ::-1].copy(), affine)
    save(folder / "labelsTr" / f"{name}{suffix}", ON_DISK["decathlon"][truth.labels][::-1, ::-1].copy(), affine)


def _write_lgg(folder: Path, truth: Truth) -> None:
    folder.mkdir(parents=True)
    flair, t1, t1c = truth.images.astype(np.uint8)
    for z in range(flair.shape[2]):
        rgb = np.stack([t1[:, :, z].T, flair[:, :, z].T, t1c[:, :, z].T], axis=-1)  # (Y, X, 3)
        mask = (truth.labels[:, :, z].T > 0) * np.uint8(255)  # (Y, X)
        Image.fromarray(rgb).save(folder / f"{folder.name}_{z + 1}.tif")
        Image.fromarray(mask).save(folder / f"{folder.name}_{z + 1}_mask.tif")
