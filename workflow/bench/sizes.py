"""How large the measured things are: FULL for the table, TINY to try every row in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Of networks, scans and cohorts, and how many turns each row gets.

    preset: settings that differ from the preset workshop. coarse_mm: voxels of the phantoms batches come from, equal to
    the preset's pixels; fine_mm: voxels of the scan that is prepared and segmented (1 mm: 240x240x155, as BraTS).
    paper: width and training size of the paper's network, and the pixels along a side of the slice it segments.
    """

    preset: dict
    coarse_mm: float
    fine_mm: float
    patients: int
    memory_patients: tuple[int, int]
    grown_patients: tuple[int, ...]
    grown_slices: int
    threads: tuple[int, ...]
    batches: int
    step_turns: int
    turns: int
    notebook: bool
    paper: tuple[int, int, int]


FULL = Sizes(
    preset={},
    coarse_mm=2.5,
    fine_mm=1.0,
    patients=10,
    memory_patients=(10, 40),
    grown_patients=(10, 100, 285),
    grown_slices=62,
    threads=(1, 2),
    batches=50,
    step_turns=15,
    turns=7,
    notebook=True,
    paper=(64, 300, 240),
)
TINY = Sizes(
    preset={"width": 4, "depth": 2, "pixel_mm": 5.0, "window": (48, 48)},
    coarse_mm=5.0,
    fine_mm=5.0,
    patients=10,
    memory_patients=(1, 2),
    grown_patients=(6, 8),
    grown_slices=12,
    threads=(1,),
    batches=3,
    step_turns=1,
    turns=1,
    notebook=False,
    paper=(2, 300, 80),
)
