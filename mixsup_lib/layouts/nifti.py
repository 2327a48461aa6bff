"""NIfTI files: reading with one clear sentence per fault, and the way to the LPS axes and back."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from mixsup_lib.layouts.base import Report, Volume

ENDINGS = (".nii.gz", ".nii")
LPS = axcodes2ornt(("L", "P", "S"))
AFFINE_TOLERANCE = 0.1
"""Two affines agree if no corner of the volume is further apart than this, in voxels."""

_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    TypeError,
    KeyError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.wrapstruct.WrapStructError,
)


def existing(stem: Path) -> list[Path]:
    """The NIfTI files `stem`.nii.gz and `stem`.nii that exist."""
    return [path for path in (stem.with_name(stem.name + ending) for ending in ENDINGS) if path.is_file()]


def to_lps(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip and reorder the first three axes of `array` (X, Y, Z, ...) to LPS; returns it with its affine."""
    transform = ornt_transform(io_orientation(affine), LPS)
    return apply_orientation(array, transform), affine @ inv_ornt_aff(transform, array.shape[:3])


def from_lps(array: np.ndarray, source_affine: np.ndarray) -> np.ndarray:
    """Put an LPS array (X, Y, Z, ...) back on the axes of the file whose affine is `source_affine`."""
    return apply_orientation(array, ornt_transform(LPS, io_orientation(source_affine)))


def read_nifti(
    path: Path, file: str, report: Report, *, n_axes: int = 3
) -> tuple[np.ndarray, np.ndarray] | None:
    """Array (X, Y, Z) or (X, Y, Z, C) float32 on the file's own axes and its affine; None after a fault.

    A gzip file is unpacked as a whole, so that its checksum is verified.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        image = nib.Nifti1Image.from_bytes(content)
        if image.get_data_dtype().kind not in "biuf":
            report(
                file,
                f"holds values of type {image.get_data_dtype()}, expected plain numbers; export it again.",
            )
            return None
        if len(content) < math.prod(image.shape) * image.get_data_dtype().itemsize:
            raise EOFError
        array = np.asarray(image.dataobj, dtype=np.float32)
    except _FAULTS as error:
        report(file, _sentence(error))
        return None
    while array.ndim > n_axes and array.shape[-1] == 1:
        array = array[..., 0]
    affine = np.asarray(image.affine, dtype=np.float64)
    if array.ndim != n_axes:
        report(file, f"has shape {_shape(array.shape)}, expected {n_axes} axes; export it again.")
    elif not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        report(
            file,
            "has a header whose affine is not invertible, so its orientation is unknown; export it again.",
        )
    else:
        return array, affine
    return None


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Shape (X, Y, Z) and affine of a NIfTI file on LPS axes, from its header alone; None if it is unreadable."""
    try:
        image = nib.Nifti1Image.from_filename(path)
        # No voxel is read: the array only has the right shape.
        array, affine = to_lps(np.broadcast_to(np.uint8(0), image.shape[:3]), image.affine)
    except _FAULTS:
        return None
    return array.shape, affine


def lps_volume(array: np.ndarray, affine: np.ndarray) -> Volume:
    """`Volume` of an array (X, Y, Z) on a file's own axes."""
    lps, lps_affine = to_lps(array, affine)
    size = tuple(float(v) for v in nib.affines.voxel_sizes(lps_affine))
    return Volume(lps, lps_affine, affine, size)


def grid_fault(
    shape: tuple[int, ...],
    affine: np.ndarray,
    other_shape: tuple[int, ...],
    other_affine: np.ndarray,
    other: str,
) -> str | None:
    """The sentence that says how a volume's grid differs from that of `other`, or None if they agree."""
    if shape != other_shape:
        return f"has shape {_shape(shape)}, but {other} has {_shape(other_shape)}; register and resample it."
    corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(shape)[:, None] - 1)  # (3, 8)
    gap = ((affine - other_affine)[:3, :3] @ corners + (affine - other_affine)[:3, 3:]).T  # (8, 3)
    distance = float(np.linalg.norm(gap, axis=1).max())
    if distance > AFFINE_TOLERANCE * nib.affines.voxel_sizes(other_affine).min():
        return (
            f"has an affine that puts it {distance:.3g} mm away from {other}; "
            "register and resample it, or correct the header."
        )
    return None


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def _sentence(error: Exception) -> str:
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, FileNotFoundError):
        return "does not exist (a broken link?); copy it again."
    if isinstance(error, PermissionError):
        return "cannot be opened (no permission); change its permissions."
    if isinstance(error, EOFError) or (isinstance(error, OSError) and text.startswith("Expected")):
        return "is cut off before its end; copy or download it again."
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"is not an intact gzip file ({text}); copy or download it again."
    return f"is not a readable NIfTI file ({text}); copy or download it again."
