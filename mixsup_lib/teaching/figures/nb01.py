"""Scans and their annotation: planes, classes, grey values, what a weak annotator sees, what labels cost (4.1, 4.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.cohort import Case
from mixsup_lib.experiments.pictures import contour_slice, outline
from mixsup_lib.experiments.statistics import ARMS
from mixsup_lib.experiments.style import (
    CLASS_COLORS,
    COLORS,
    DASHES,
    MARKERS,
    described,
    halo,
    log_ticks,
    new_figure,
    note,
    styled,
)
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.files import DataError
from mixsup_lib.paper import CLASSES, INTENSITY_CONSTANT, SCENARIOS, TABLE_1
from mixsup_lib.teaching.figures.panels import (
    CLASS_NAMES,
    class_legend,
    head_box,
    outline_classes,
    slice_ranges,
    slice_rows,
)
from mixsup_lib.teaching.planner import MINUTES_WA, annotation_hours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
"""Plane -> the axes of an LPS volume along its columns and its rows."""

ENDS = ("RL", "AP", "FH")
"""Letters at the beginning and the end of each LPS axis: right and left, front (anterior) and back, foot and head."""


@styled
def three_planes(case: Case, voxel: tuple[int, int, int]) -> Figure:
    """Axial, coronal and sagittal plane of FLAIR through `voxel` (i, j, k), axes in mm of NIfTI, tumour outlined.

    The millimetres are those of an affine without rotation, as every cohort here has it.
    """
    volume = case.images[case.sequences.index("FLAIR")]  # (X, Y, Z)
    step, origin = np.diag(case.affine)[:3], case.affine[:3, 3]
    edges = [(origin[a] - step[a] / 2, origin[a] + (volume.shape[a] - 0.5) * step[a]) for a in range(3)]  # mm
    place = step * voxel + origin  # (3,) mm
    figure, axes = new_figure(1, 3, width=3.5, height=3.7)
    for axis, (plane, (column, row)) in zip(axes[0], PLANES.items(), strict=True):
        through, flip = 3 - column - row, 1 if plane == "axial" else -1
        image = np.take(volume, voxel[through], axis=through).T  # (rows, columns)
        axis.imshow(image[::flip], extent=(*edges[column], *edges[row][::-flip]))
        labels = np.zeros_like(volume) if case.labels is None else case.labels
        if (mask := np.take(labels, voxel[through], axis=through).T != 0).any():
            axes_mm = {"origin": origin[[column, row]], "step": step[[column, row]]}
            outline(axis, mask, COLORS["truth"], **axes_mm)
            axis.set(xlim=edges[column], ylim=edges[row][::-flip])
        axis.axvline(place[column], color="white", lw=0.7, ls=":")
        axis.axhline(place[row], color="white", lw=0.7, ls=":")
        style = {"color": "white", "ha": "center", "va": "center", "weight": "bold", "path_effects": halo()}
        letters = (*ENDS[column], *ENDS[row][::flip])
        for x, y, letter in zip((0.05, 0.95, 0.5, 0.5), (0.5, 0.5, 0.95, 0.05), letters, strict=True):
            axis.text(x, y, letter, transform=axis.transAxes, **style)
        axis.set(xlabel=f"{'xyz'[column]} (mm)", ylabel=f"{'xyz'[row]} (mm)")
        axis.set_title(f"{plane}, {'xyz'[through]} = {place[through]:.1f} mm")
        axis.grid(False)
    words = f"Three planes of {case.patient}, FLAIR, through voxel {tuple(voxel)}, that is x, y, z = "
    words += ", ".join(f"{mm:.1f}" for mm in place) + " mm. "
    words += "On the axial and coronal plane the patient's right, where x is positive, is on the left of the picture."
    return described(figure, words)


@styled
def sequences_and_classes(case: Case, z: int) -> Figure:
    """One slice in every sequence: above as recorded, below the tumour enlarged, with the outlines of its classes."""
    if case.labels is None:
        raise DataError(f"{case.patient}: has no mask, so there are no classes; choose another one.")
    boxes = head_box(case.images[0]), head_box(case.labels[:, :, z : z + 1], margin=5)
    head, labels = (case.labels[*box, z].T for box in boxes)  # (H, W) each
    ratios = [shown.shape[0] / shown.shape[1] for shown in (head, labels)]
    size = {"width": 1.9, "height": sum(ratios) + 0.3, "height_ratios": ratios}
    figure, axes = new_figure(2, len(case.sequences), **size)
    for (above, below), volume, name in zip(axes.T, case.images, case.sequences, strict=True):
        contour_slice(above, volume[*boxes[0], z].T)
        above.set_title(name)
        contour_slice(below, volume[*boxes[1], z].T)
        outline_classes(below, labels)
    class_legend(figure)
    counts = [f"{name} {np.count_nonzero(labels == value)}" for value, name in CLASS_NAMES.items()]
    words = f"Slice {z} of {case.patient} in {', '.join(case.sequences)}; below with the outlines of the classes. "
    return described(figure, f"{words}Pixels in this slice: {', '.join(counts)}.")


@styled
def intensity_ridges(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], *, title: str = "") -> Figure:
    """Histograms of the non-zero voxels of several scans, one below the other: as recorded and normalised.

    `before`, `after`: patient -> volume of one sequence (X, Y, Z). A dashed line marks each median.
    """
    figure, axes = new_figure(len(before), 2, width=4.6, height=0.8, sharex="col")
    medians: list[list[str]] = [[], []]
    for column, scans in enumerate((before, after)):
        values = [volume[volume != 0] for volume in scans.values()]
        last = max(np.percentile(part, 99.5) for part in values)
        for axis, part in zip(axes[:, column], values, strict=True):
            counts, places = np.histogram(part, bins=90, range=(0, last))
            axis.stairs(counts, places, fill=True, color=COLORS["patients"])
            median = float(np.median(part))
            axis.axvline(median, color="black", lw=1.2, ls="--")
            axis.text(0.99, 0.8, f"median {median:.0f}", transform=axis.transAxes, ha="right", fontsize=8)
            axis.set(yticks=[], xlim=(0, last))
            axis.spines["left"].set_visible(False)
            medians[column].append(f"{median:.0f}")
    for axis, patient in zip(axes[:, 0], before, strict=True):
        name = patient.removeprefix("Brats18_").removesuffix("_1")
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    axes[-1, 0].set_xlabel("grey value as recorded (arbitrary units)")
    axes[-1, 1].set_xlabel(f"normalised (the non-zero median is {INTENSITY_CONSTANT:.0f})")
    words = f"Histograms of the non-zero voxels of {len(before)} scans. Medians as recorded: {', '.join(medians[0])}; "
    return described(figure, f"{words}normalised: {', '.join(medians[1])}.", title)


@styled
def slice_bars(rows: Mapping[str, np.ndarray], *, training: tuple[int, int]) -> Figure:
    """Which slices show what: one row of bars per label.

    `rows`: name of the row -> (Z,) bool; a class of the paper gets its colour. `training`: first and last training
    slice, both included, marked by dotted lines.
    """
    figure, axes = new_figure(1, 1, width=8.5, height=0.36 * len(rows) + 0.9)
    axis = axes[0, 0]
    colors = {name: CLASS_COLORS[value] for value, name in CLASSES.items()}
    names = [region_name(name).replace("non enhancing", "non-enhancing") for name in rows]
    bars = [(shown, colors.get(name, COLORS["patients"])) for name, shown in rows.items()]
    slice_rows(axis, dict(zip(names, bars, strict=True)), numbered=True)
    pairs = [[f"{first} to {last}" for first, last in slice_ranges(shown)] for shown in rows.values()]
    words = "; ".join(f"{name} {', '.join(p) or 'nowhere'}" for name, p in zip(names, pairs, strict=True))
    for end in (training[0] - 0.5, training[1] + 0.5):
        axis.axvline(end, color="black", lw=1, ls=":")
    axis.set_xlabel(f"{axis.get_xlabel()}; dotted: training slices")
    text = f"Which of {len(bars[0][0])} slices show each label: {words}."
    return described(figure, f"{text} Training slices: {training[0]} to {training[1]}.")


@styled
def contact_sheet(volume: np.ndarray, *, title: str = "") -> Figure:
    """The axial slices of a volume (X, Y, Z) that show head, with their numbers: what a weak annotator looks at.

    The grey scale ends at the 99.5th percentile of the non-zero voxels.
    """
    slices = volume[head_box(volume, margin=1)].transpose(2, 1, 0)  # (Z, H, W)
    seen = np.flatnonzero(slices.any(axis=(1, 2)))
    first, last, columns = int(seen[0]), int(seen[-1]), 12
    _, height, width = slices.shape
    rows = math.ceil((last - first + 1) / columns)
    sheet = np.zeros((rows * height, columns * width), np.float32)
    figure, axes = new_figure(1, 1, width=9.5, height=9.5 * sheet.shape[0] / sheet.shape[1])
    axis = axes[0, 0]
    for z in range(first, last + 1):
        upper, left = (z - first) // columns * height, (z - first) % columns * width
        sheet[upper : upper + height, left : left + width] = slices[z]
        style = {"color": "white", "fontsize": 8, "ha": "left", "va": "top", "path_effects": halo(2)}
        axis.text(left + 2, upper + 2, str(z), **style)
    top = np.percentile(volume[volume != 0], 99.5)
    axis.imshow(np.round(np.clip(sheet / top, 0, 1) * 15), vmin=0, vmax=15)  # few greys: a small file
    axis.set_axis_off()
    text = f"Axial slices {first} (lowest) to {last} (highest) in rows of {columns}; slices 0 to {len(slices) - 1} "
    text += "exist, the others show no head."
    return described(figure, text, title)


@styled
def dice_by_hours() -> Figure:
    """The paper's table 1, whole tumour, against the hours its training labels take by the minutes of section 4.3.

    A bar along the hours spans 1 to 2 minutes for each weakly annotated scan.
    """
    figure, axes = new_figure(1, 1, width=7.2, height=4.0)
    axis, words = axes[0, 0], []
    for arm in ARMS:
        points = []
        for n_fa in sorted(n for a, n in TABLE_1 if a == arm):
            n_wa, dice = (SCENARIOS[n_fa] if arm == "mixed" else 0), TABLE_1[arm, n_fa][0]
            low, high = (annotation_hours(n_fa, n_wa, minutes_wa=minutes) for minutes in MINUTES_WA)
            label = f"{n_fa} FA" + (f" + {n_wa} WA" if n_wa else "")
            axis.plot([low, high], [dice, dice], color=COLORS[arm], lw=4, alpha=0.4, solid_capstyle="butt")
            points.append(((low + high) / 2, dice))
            above = dice == max(TABLE_1[a, n][0] for a, n in TABLE_1 if n == n_fa)
            side, align = ((-6, 5), ("right", "bottom")) if above else ((6, -5), ("left", "top"))
            note(axis, label, points[-1], side, fontsize=8, ha=align[0], va=align[1])
            words.append(f"{label} {points[-1][0]:.1f} hours, Dice {dice:.1f}")
        style = {"color": COLORS[arm], "ls": DASHES[arm], "marker": MARKERS[arm]}
        axis.plot(*zip(*points, strict=True), lw=1.2, label=f"{arm} supervision", **style)
    log_ticks(axis, [4, 8, 16, 32, 64, 128])
    axis.set(xlabel="hours of annotation (logarithmic)", ylabel="mean Dice (%), the paper's table 1")
    axis.set_title("whole tumour")
    axis.margins(x=0.1, y=0.12)
    axis.legend(loc="lower right", fontsize=9)
    return described(figure, f"Dice against hours of annotation, whole tumour: {'; '.join(words)}.")
