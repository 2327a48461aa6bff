"""Freed memory is kept, where the C library can be told so; elsewhere nothing happens."""

import ctypes
import subprocess
import sys

import pytest

from mixsup_lib.slices import keep_freed_memory

COUNT_FAULTS = """
import resource, sys
import numpy as np
from mixsup_lib.slices import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    np.full(40_000_000, 1, np.uint8)
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_an_array_of_the_same_size_reuses_the_memory_of_the_last():
    left, kept = (
        int(subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, check=True).stdout)
        for how in ("leave", "keep")
    )
    assert kept < left / 5


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False
