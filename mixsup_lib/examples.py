"""The example slices that a finished run left on disk, read back."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import numpy as np

from mixsup_lib.errors import DataError
from mixsup_lib.files import check_sums

_ARCHIVE_FAULTS = (EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, TokenError)
MOST_BYTES = 2**26
"""Three example slices take far less; an archive can claim, or unpack to, any size."""


def read_examples(folder: str | Path) -> dict[str, np.ndarray]:
    """examples.npz of a run: its best, median and worst test patient (N = 3), in the slice with most tumour.

    `image` (N, H, W) float32, `truth` and `prediction` (N, H, W) uint8, `patient` (N,) str, `z` (N,) int.
    Rows run to the patient's back, columns to the patient's left.
    """
    path = Path(folder) / "examples.npz"
    check_sums(folder, path.name)
    try:
        examples = _read_arrays(path, ("image", "truth", "prediction", "patient", "z"))
    except (*_ARCHIVE_FAULTS, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: cannot be read as example slices ({reason}); run it again.") from None
    shapes = {examples[name].shape for name in ("image", "truth", "prediction")}
    if (
        len(shapes) != 1
        or len({len(array) for array in examples.values()}) != 1
        or examples["image"].ndim != 3
    ):
        raise DataError(f"{path}: its arrays do not fit together, expected (N, H, W) thrice; run it again.")
    return examples


def _read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz archive that take at most `MOST_BYTES` together, as claimed and as unpacked."""
    with zipfile.ZipFile(path) as archive:
        sizes = [archive.getinfo(f"{name}.npy").file_size for name in names]
        if sum(sizes) > MOST_BYTES:
            raise ValueError(f"it unpacks to {sum(sizes) / 1e9:.2g} GB")
        return {name: _read_array(archive.read(f"{name}.npy")) for name in names}


def _read_array(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy version {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"it claims {shape} values of type {dtype}")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)
