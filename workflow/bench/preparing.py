"""Row: preparing a patient of BraTS' size, against decompressing and reading its files and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.scans import copies, phantom
from bench.sizes import Sizes
from bench.table import COST, FASTER, Figure, compare, compare_memory
from bench.turns import Way, take_turns
from mixsup_lib.config import make_config
from mixsup_lib.slices import prepare

ROW = "preparing a patient"


def reading(files: Sequence[Path]) -> Callable[[], int]:
    """Every file decompressed and read with nibabel, its numbers left as they are; returns the number of voxels."""
    import nibabel as nib

    return lambda: sum(np.asanyarray(nib.load(file).dataobj).size for file in files)


def preparing(cohort: Path, store: Path, workers: int = 1, **grid) -> Callable[[], int]:
    """`prepare` from nothing, slice labels included; returns the number of slices."""
    import torch

    torch.set_num_threads(1)

    def once() -> int:
        shutil.rmtree(store, ignore_errors=True)
        return len(prepare(cohort, store, workers=workers, progress=False, **grid))

    return once


def measure(sizes: Sizes, folder: Path, *, apart: bool = True) -> Iterator[Figure]:
    config = make_config(cohort="none", preset="workshop", **sizes.preset)
    grid = {"pixel_mm": config.pixel_mm, "window": config.window}
    cohort = phantom(folder / "fine", 1, sizes.fine_mm)
    files = [*cohort.patients[0].image_files, *cohort.patients[0].mask_files]
    read = Way("reading the five files", reading, {"files": files})
    whole = Way("prepare, whole slices", preparing, {"cohort": cohort.folder, "store": folder / "whole"})
    cut = Way(
        "prepare, preset workshop", preparing, {"cohort": cohort.folder, "store": folder / "cut", **grid}
    )
    turns = take_turns([read, whole, cut], sizes.turns, apart=apart)
    for way in (whole, cut):
        yield compare(
            turns, ROW, way.name, read.name, COST, reach=1.3, note=f"{turns.first[way.name]} slices"
        )
    twelve = copies(cohort, folder / "twelve", 12).folder
    yield _with_cores(sizes, folder, twelve, "whole slices", {}, apart)
    yield _with_cores(sizes, folder, twelve, "preset workshop", grid, apart)
    yield _memory(sizes, folder, grid)


def _with_cores(sizes: Sizes, folder: Path, twelve: Path, which: str, grid: dict, apart: bool) -> Figure:
    ways = [
        Way(
            f"{n} worker{'s' * (n > 1)}",
            preparing,
            {"cohort": twelve, "store": folder / f"by{n}", "workers": n, **grid},
        )
        for n in (1, 2)
    ]
    turns = take_turns(ways, max(1, sizes.turns // 2), apart=apart)
    row = f"{ROW}, twelve of them, {which}"
    return compare(turns, row, ways[1].name, ways[0].name, FASTER, "s", threads=2)


def _memory(sizes: Sizes, folder: Path, grid: dict) -> Figure:
    """Always in processes of their own: memory is a process's."""
    source = phantom(folder / "coarse", sizes.patients, sizes.coarse_mm)
    ways = [
        Way(
            f"{n} patients",
            preparing,
            {"cohort": copies(source, folder / f"of{n}", n).folder, "store": folder / f"store{n}", **grid},
        )
        for n in sizes.memory_patients
    ]
    turns = take_turns(ways, 0)
    return compare_memory(turns, f"{ROW}, memory", ways[1].name, ways[0].name, "peak", reach=1.05)
