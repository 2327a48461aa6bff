"""An .npy array on disk that grows by one patient's slices after the other and survives being killed at any moment."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from mixsup_lib.files import disk_full
from mixsup_lib.store import digest as digest_of

HEADER_BYTES = 128
"""So long NumPy makes the header of an array of four axes, however many rows it has."""


class GrowingArray:
    """float16 rows (N, C, H, W) in the file `path`, which `finish` turns into the .npy array `target`.

    A process that was killed leaves whole patients and perhaps a part of one more. The next one takes over with `keep`
    what is as it should be; the first `append` cuts off the rest. Not flushed before `finish`: after a power failure
    `keep` finds other bytes.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self.target = path, target
        self.rows, self.shape = 0, ()
        self._end = HEADER_BYTES
        self._file = open(path, "r+b" if path.exists() else "w+b", buffering=0)

    def __enter__(self) -> GrowingArray:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def keep(self, shape: tuple[int, ...], digest: str) -> bool:
        """Are the next slices in the file (Z, C, H, W), those with this digest (`store.digest`)? Then they stay."""
        self._file.seek(self._end)
        n_bytes = 2 * int(np.prod(shape))
        if digest_of(np.frombuffer(self._file.read(n_bytes), np.uint8)) != digest:
            return False
        self._grow(shape, n_bytes)
        return True

    def append(self, slices: np.ndarray) -> None:
        """Write slices (Z, C, H, W) float16 behind those that are there. Raises DiskFullError; they are kept then."""
        content = memoryview(np.ascontiguousarray(slices).data).cast("B")
        self._file.truncate(self._end)
        self._file.seek(self._end)
        try:
            written = 0
            while written < len(content):
                written += self._file.write(content[written:])
        except OSError as error:
            self._file.truncate(self._end)
            raise disk_full(error, self.target, 0, len(content)) or error from None
        if hasattr(os, "posix_fadvise"):  # Linux begins to write now, not when `finish` waits for it
            os.posix_fadvise(self._file.fileno(), self._end, len(content), os.POSIX_FADV_DONTNEED)
        self._grow(slices.shape, len(content))

    def _grow(self, shape: tuple[int, ...], n_bytes: int) -> None:
        self.rows += shape[0]
        self.shape = tuple(shape[1:])
        self._end += n_bytes

    def finish(self) -> None:
        """Flush the array to the disk and give it its name. Raises DiskFullError."""
        header = io.BytesIO()
        kind = {"descr": "<f2", "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(header, kind)
        assert header.tell() == HEADER_BYTES, header.tell()
        self._file.truncate(self._end)
        self._file.seek(0)
        try:  # some file systems look for room only now
            self._file.write(header.getvalue())
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_full(error, self.target) or error from None
        os.replace(self.path, self.target)
