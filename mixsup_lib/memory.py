"""Freed memory is kept for the next array instead of going back to the system."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory in this process; False where its C library is not glibc, which changes nothing.

    Left alone, glibc returns every large array to the system, which hands it out again page by page and zeroed. What
    that costs a training step and preparing a patient, and how much more memory keeping it needs at most, are rows of
    `make bench`.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
