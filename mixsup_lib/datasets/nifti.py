"""NIfTI files: reading with one clear sentence per fault, and the way to the LPS axes and back."""

from __future__ import annotations

import gzip
import io
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

from mixsup_lib.cohort import Report, Volume

ENDINGS = (".nii.gz", ".nii")
LPS = axcodes2ornt(("L", "P", "S"))
AFFINE_TOLERANCE = 0.1
"""Two affines agree if no corner of the volume is further apart than this, in voxels."""

VOXEL_MM = (0.01, 100)
"""Smallest and largest side of a voxel that a header may have, mm."""

SIZE_TOLERANCE = 0.02
"""The voxel size of the affine and that of pixdim may differ by this share."""

HEADER_BYTES = 348
MOST_BYTES, MOST_RATIO = 2**28, 100
"""A file may take this much memory, or so many times its own size, if that is more."""

_FAULTS = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    TypeError,
    KeyError,
    zlib.error,
    nib.orientations.OrientationError,
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

    A gzip file is unpacked as a whole, so that its checksum is verified, but never beyond what its header says. Refused
    too is a header that contradicts itself or the length of the file (`header_fault`).
    """
    try:
        packed = path.suffix == ".gz"
        with (gzip.open if packed else open)(path, "rb") as stream:
            start = stream.read(HEADER_BYTES)
        header, as_stored = (
            nib.Nifti1Header.from_fileobj(io.BytesIO(start), check=check) for check in (True, False)
        )
        fault = header_fault(header, as_stored) or _size_fault(header, path.stat().st_size)
        if fault:
            report(file, fault)
            return None
        length = _file_length(header)
        with open(path, "rb") as stream:
            content = _gunzip(stream.read(), length + 1) if packed else stream.read(length + 1)
        if len(content) < length:
            raise EOFError
        if len(content) > length:
            shape = _shape(header.get_data_shape())
            report(file, f"goes on after the {shape} voxels that its header tells; export it again.")
            return None
        with np.errstate(all="ignore"):  # a scaling that leaves float32 shows as infinite voxels
            array = np.asarray(nib.Nifti1Image.from_bytes(content).dataobj, dtype=np.float32)
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except _FAULTS as error:
        report(file, _sentence(error))
        return None
    while array.ndim > n_axes and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != n_axes:
        report(file, f"has shape {_shape(array.shape)}, expected {n_axes} axes; export it again.")
        return None
    return array, affine


def header_fault(header: nib.Nifti1Header, as_stored: nib.Nifti1Header) -> str | None:
    """What makes a header contradict itself in the kind of its values, the voxel size or the axes, or None.

    Beside the affine that counts (sform, else qform) a header tells the voxel size as pixdim, and the axes often a
    second time as qform; a header damaged in one of them is noticed here. Where the volume lies, and small rotations,
    are not compared: sform and qform may mean different spaces. `as_stored`: before nibabel's silent corrections.
    """
    if min(shape := header.get_data_shape(), default=0) < 1:
        return f"has shape {_shape(shape)}, expected at least 1 voxel along each axis; export it again."
    dtype, bits = header.get_data_dtype(), int(as_stored["bitpix"])
    if dtype.kind not in "biuf":
        return f"holds values of type {dtype}, expected plain numbers; export it again."
    if bits != 8 * dtype.itemsize:
        return f"has {bits} bits a voxel by its header, but values of type {dtype}; export it again."
    if (unit := int(header["xyzt_units"]) & 7) not in (0, 2):
        known = {1: "metres", 3: "micrometres"}.get(unit, f"unknown (code {unit})")
        return f"has a header in {known}, expected millimetres; correct the header."
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "has a header whose affine is not invertible, so its orientation is unknown; export it again."
    size, pixdim = nib.affines.voxel_sizes(affine), np.asarray(as_stored["pixdim"][1:4], dtype=np.float64)
    if not (size.min() >= VOXEL_MM[0] and size.max() <= VOXEL_MM[1]):
        return f"has voxels of {_mm(size)} mm, expected {VOXEL_MM[0]} to {VOXEL_MM[1]}; correct the header."
    if not np.allclose(pixdim, size, rtol=SIZE_TOLERANCE):
        return f"has voxels of {_mm(size)} mm by its affine, but {_mm(pixdim)} by pixdim; correct the header."
    if header["qform_code"] > 0:
        if abs(qfac := float(as_stored["pixdim"][0])) not in (0, 1):
            return f"has {qfac:g} as its handedness (qfac), expected 1 or -1; correct the header."
        axes, other = (nib.aff2axcodes(form) for form in (affine, header.get_qform()))
        if axes != other:
            axes, other = "".join(axes), "".join(map(str, other))
            return f"has axes {axes} by its sform, but {other} by its qform; correct the header."
    return None


def _file_length(header: nib.Nifti1Header) -> int:
    """Bytes of the unpacked file that belongs to a header."""
    return (
        int(header.get_data_offset()) + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    )


def _size_fault(header: nib.Nifti1Header, on_disk: int) -> str | None:
    """Would this take far more memory than the size of the file can account for? Scans shrink 3 to 20 times."""
    needed = _file_length(header) + 4 * math.prod(header.get_data_shape())
    if needed <= max(MOST_BYTES, MOST_RATIO * on_disk):
        return None
    return (
        f"claims {_shape(header.get_data_shape())} voxels, {needed / 1e9:.3g} GB, in a file of {on_disk / 1e6:.3g} MB; "
        "that is no scan: copy or download it again."
    )


def _gunzip(packed: bytes, most: int) -> bytes:
    """The first `most` bytes of a gzip file of one or several members; what ends before is verified."""
    parts, left = [], most
    while packed and left:
        unpacker = zlib.decompressobj(wbits=31)
        parts.append(unpacker.decompress(packed, left))
        left -= len(parts[-1])
        if left and not unpacker.eof:
            raise EOFError
        packed = unpacker.unused_data.lstrip(b"\0")
    return b"".join(parts)


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


def _mm(size: np.ndarray) -> str:
    return "x".join(f"{length:.3g}" for length in size)


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
