"""NIfTI files: read with one clear sentence per fault, and turned to the LPS axes and back."""

from __future__ import annotations

import gzip
import logging
import math
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip, igzip_lib
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from mixsup_lib.cohort import Patient, Report, Volume
from mixsup_lib.datasets.labels import map_labels
from mixsup_lib.datasets.reading import check_intensities

nib.imageglobals.logger.setLevel(logging.CRITICAL)  # it prints which fields of a header it mends

ENDINGS = (".nii.gz", ".nii")
GZIP = b"\x1f\x8b"
"""How a packed file begins. A file is read by its content, whatever its ending."""
LPS = axcodes2ornt(("L", "P", "S"))
AFFINE_TOLERANCE = 0.1
"""Two affines agree if no corner of the volume is further apart than this, in voxels."""

VOXEL_MM = (0.01, 100)
"""Smallest and largest side of a voxel that a header may have, mm."""

SIZE_TOLERANCE = 0.02
"""The voxel size of the affine and that of pixdim may differ by this share."""


@dataclass(frozen=True)
class NiftiPatient(Patient):
    """A patient with one NIfTI file per sequence, and one for the mask, all on one grid.

    image_files has one path per sequence, whether it exists or not.
    """

    def missing(self) -> list[tuple[str, str]]:
        faults = []
        for name, path in zip(self.sequences, self.image_files, strict=True):
            if is_broken_link(path):
                faults.append((self.relative(path), "is a broken link; get the file it points to, or correct it."))
            elif path.is_dir():
                sentence = f"is a folder, expected the file of sequence {name}; move the file out of the folder."
                faults.append((self.relative(path), sentence))
            elif not path.is_file():
                sentence = f"sequence {name} is missing; add this file (or the same as .nii)."
                faults.append((self.relative(path), sentence))
        return faults

    def load_volumes(self, report: Report) -> dict[str, Volume]:
        files = dict(zip(self.sequences, map(self.relative, self.image_files), strict=True))
        volumes = {}
        for name, path in zip(self.sequences, self.image_files, strict=True):
            read = read_nifti(path, files[name], report) if path.is_file() else None
            if read is not None:
                volumes[name] = lps_volume(*read)
        return {
            name: volume
            for name, volume in _on_one_grid(volumes, files, report).items()
            if check_intensities(volume.array, files[name], f"sequence {name}", report)
        }

    def load_labels(self, report: Report) -> np.ndarray | None:
        """The label map; the mask must lie on the grid of the first image whose header can be read."""
        mask = self.relative(self.mask_files[0])
        read = read_nifti(self.mask_files[0], mask, report)
        if read is None:
            return None
        values, affine = to_lps(*read)
        for image in self.image_files:
            if grid := read_grid(image):
                if fault := grid_fault(values.shape, affine, *grid, image.name):
                    report(mask, fault)
                    return None
                break
        return map_labels(values, self.labels, mask, report)


def _on_one_grid(volumes: dict[str, Volume], files: dict[str, str], report: Report) -> dict[str, Volume]:
    """The volumes on the grid that most of them share; each other one is reported."""
    against = [
        {
            name: grid_fault(
                volume.array.shape, volume.affine, other.array.shape, other.affine, f"sequence {reference}"
            )
            for name, volume in volumes.items()
        }
        for reference, other in volumes.items()
    ]
    faults = min(against, key=lambda faults: sum(map(bool, faults.values())), default={})
    for name, sentence in faults.items():
        if sentence:
            report(files[name], f"sequence {name} {sentence}")
    return {name: volume for name, volume in volumes.items() if not faults[name]}


def is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def existing(stem: Path) -> list[Path]:
    """The NIfTI files `stem`.nii.gz and `stem`.nii that exist."""
    return [path for path in (stem.with_name(stem.name + ending) for ending in ENDINGS) if path.is_file()]


def read_nifti(path: Path, file: str, report: Report, *, n_axes: int = 3) -> tuple[np.ndarray, np.ndarray] | None:
    """Array (X, Y, Z) or (X, Y, Z, C) float32 on the file's own axes and its affine (4, 4); None after a fault.

    A file is refused where it is damaged, and where its header contradicts the file's length or itself.
    """
    try:
        content = path.read_bytes()
        fault = _no_scan(content)
        if content.startswith(GZIP):
            content = igzip.decompress(content)  # compares gzip's checksum, which nibabel does not
        if fault is None:
            image = (nib.Nifti2Image if _is_nifti2(content) else nib.Nifti1Image).from_bytes(content)
            shape = image.shape
            while len(shape) > n_axes and shape[-1] == 1:
                shape = shape[:-1]
            fault = _header_fault(image.header, shape, n_axes, len(content) - image.dataobj.offset)
        if fault is None:
            with np.errstate(all="ignore"):  # a scaling that leaves float32 shows as infinite voxels
                array = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except Exception as error:  # nibabel fails in a dozen ways on what is no NIfTI file
        fault = _unreadable(error)
    if fault:
        report(file, fault)
        return None
    return array, np.asarray(image.affine, dtype=np.float64)


def _no_scan(content: bytes) -> str | None:
    """What a file is that stands in the place of a scan, and what to do; None where it may be a scan."""
    if not content:
        return "is an empty file; copy or download it again."
    if content.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the scan itself; run `git lfs pull` where it comes from."
    if content[:200].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not a scan, so the download was refused; sign in there and download it again."
    return None


def _is_nifti2(content: bytes) -> bool:
    return content[:4] in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))


def _header_fault(header: nib.Nifti1Header, shape: tuple[int, ...], n_axes: int, n_bytes: int) -> str | None:
    """What makes a header unusable, or None. n_bytes: length of what follows it in the unpacked file.

    A header tells the voxel size twice, in its affine and as pixdim, and the axes often too, as sform and qform. Where
    the volume lies, and small rotations, are not compared: sform and qform may mean different spaces.
    """
    if len(shape) != n_axes:
        return f"has shape {_shape(shape)}, expected {n_axes} axes; export it again."
    dtype = header.get_data_dtype()
    if dtype.kind not in "biuf":
        return f"holds values of type {dtype}, expected plain numbers; export it again."
    if n_bytes < (needed := math.prod(shape) * dtype.itemsize):
        return "is cut off before its end; copy or download it again."
    if n_bytes > needed:
        return f"goes on after the {_shape(shape)} voxels that its header tells; export it again."
    affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        return "has a header whose affine is not invertible, so its orientation is unknown; export it again."
    size, pixdim = nib.affines.voxel_sizes(affine), header["pixdim"][1:4]
    if size.min() < VOXEL_MM[0] or size.max() > VOXEL_MM[1]:
        return f"has voxels of {_mm(size)} mm, expected {VOXEL_MM[0]} to {VOXEL_MM[1]}; correct the header."
    if not np.allclose(pixdim, size, rtol=SIZE_TOLERANCE):
        return f"has voxels of {_mm(size)} mm by its affine, but {_mm(pixdim)} by pixdim; correct the header."
    if header["qform_code"] > 0:
        axes, other = ("".join(map(str, nib.aff2axcodes(form))) for form in (affine, header.get_qform()))
        if axes != other:
            return f"has axes {axes} by its sform, but {other} by its qform; correct the header."
    return None


def _unreadable(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "cannot be opened (no permission); change its permissions."
    if isinstance(error, EOFError):
        return "is cut off before its end; copy or download it again."
    kind = "an intact gzip" if isinstance(error, gzip.BadGzipFile | igzip_lib.IsalError) else "a readable NIfTI"
    text = (str(error).splitlines() or [""])[0]
    return f"is not {kind} file ({text}); copy or download it again."


def to_lps(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip and reorder the first three axes of `array` (X, Y, Z, ...) to LPS; returns it with its affine."""
    transform = ornt_transform(io_orientation(affine), LPS)
    return apply_orientation(array, transform), affine @ inv_ornt_aff(transform, array.shape[:3])


def from_lps(array: np.ndarray, source_affine: np.ndarray) -> np.ndarray:
    """Put an LPS array (X, Y, Z, ...) back on the axes of the file whose affine is `source_affine`."""
    return apply_orientation(array, ornt_transform(LPS, io_orientation(source_affine)))


def lps_volume(array: np.ndarray, affine: np.ndarray) -> Volume:
    """`Volume` of an array (X, Y, Z) on a file's own axes."""
    lps, lps_affine = to_lps(array, affine)
    size = tuple(float(v) for v in nib.affines.voxel_sizes(lps_affine))
    return Volume(lps, lps_affine, affine, size)


def read_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Shape (X, Y, Z) and affine of a NIfTI file on LPS axes, from its header alone; None if it is unreadable."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == GZIP
        with (gzip.open if packed else open)(path, "rb") as file:
            kind = nib.Nifti2Header if _is_nifti2(file.read(4)) else nib.Nifti1Header
            file.seek(0)
            header = kind.from_fileobj(file)
        # No voxel is read: the array only has the right shape.
        array, affine = to_lps(np.broadcast_to(np.uint8(0), header.get_data_shape()[:3]), header.get_best_affine())
    except Exception:  # what makes it unreadable is told where its voxels are read
        return None
    return array.shape, affine


def grid_fault(
    shape: tuple[int, ...], affine: np.ndarray, other_shape: tuple[int, ...], other_affine: np.ndarray, other: str
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
