"""Annotation: which slices carry which label, what a weak annotator sees, what labels cost (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.cohort import Case
from mixsup_lib.experiments.pictures import contour_slice
from mixsup_lib.experiments.statistics import ARMS
from mixsup_lib.experiments.style import (
    CLASS_COLORS,
    CLASS_DASHES,
    COLORS,
    DASHES,
    MARKERS,
    ON_IMAGE,
    described,
    new_figure,
    styled,
)
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.files import DataError
from mixsup_lib.paper import CLASSES, INTENSITY_CONSTANT, REGIONS, SCENARIOS, TABLE_1
from mixsup_lib.teaching.planner import MINUTES_WA, annotation_hours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
if TYPE_CHECKING:
    from matplotlib.figure import Figure


PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
"""Plane -> the axes of an LPS volume along its columns and its rows."""

ENDS = ("RL", "AP", "FH")
"""Letters at the beginning and the end of each LPS axis: right and left, front (anterior) and back, foot and head."""


def head_box(volume: np.ndarray, margin: int = 3) -> tuple[slice, slice]:
    """Ranges along x and y that hold every non-zero voxel of a volume (X, Y, Z), `margin` voxels wider."""
    seen = [np.flatnonzero((volume != 0).any(axis=others)) for others in ((1, 2), (0, 2))]
    if not seen[0].size:
        raise DataError("the volume is 0 everywhere, so there is no head to cut out; read the scan again.")
    return tuple(slice(max(int(i[0]) - margin, 0), int(i[-1]) + 1 + margin) for i in seen)


@styled
def three_planes(
    case: Case, voxel: tuple[int, int, int], *, sequence: str = "FLAIR", title: str = ""
) -> Figure:
    """Axial, coronal and sagittal plane through `voxel` (i, j, k), axes in mm of NIfTI's world, tumour outlined.

    The millimetres are those of an affine without rotation, as every cohort here has it.
    """
    volume = case.images[case.sequences.index(sequence)]  # (X, Y, Z)
    step, origin = np.diag(case.affine)[:3], case.affine[:3, 3]
    edges = [(origin[a] - step[a] / 2, origin[a] + (volume.shape[a] - 0.5) * step[a]) for a in range(3)]  # mm
    place = step * voxel + origin  # (3,) mm
    figure, axes = new_figure(1, 3, width=3.5, height=3.7)
    for axis, (plane, (column, row)) in zip(axes[0], PLANES.items(), strict=True):
        through = 3 - column - row
        image = np.take(volume, voxel[through], axis=through).T  # (rows, columns)
        top = edges[row] if plane == "axial" else edges[row][::-1]
        extent = (*edges[column], *top[::-1])
        axis.imshow(image if plane == "axial" else image[::-1], extent=extent)
        if case.labels is not None:
            mask = np.take(case.labels, voxel[through], axis=through).T != 0
            if mask.any():
                places = [origin[a] + step[a] * np.arange(volume.shape[a]) for a in (column, row)]
                axis.contour(*places, mask, levels=[0.5], colors=COLORS["truth"], linewidths=1.4)
        style = {"color": "white", "lw": 0.7, "ls": ":"}
        axis.axvline(place[column], **style)
        axis.axhline(place[row], **style)
        _letters(axis, ENDS[column], ENDS[row] if plane == "axial" else ENDS[row][::-1])
        axis.set(xlabel=f"{'xyz'[column]} (mm)", ylabel=f"{'xyz'[row]} (mm)")
        axis.set_title(f"{plane}, {'xyz'[through]} = {place[through]:.1f} mm")
        axis.grid(False)
    words = f"Three planes of {case.patient}, {sequence}, through voxel {tuple(voxel)}, that is x, y, z = "
    words += (
        f"{', '.join(f'{mm:.1f}' for mm in place)} mm. On the axial and coronal plane the patient's right, "
    )
    return described(figure, f"{words}where x is positive, is on the left of the picture.", title)


@styled
def sequences_and_classes(case: Case, z: int, *, title: str = "") -> Figure:
    """One slice in every sequence: above as recorded, below the tumour enlarged, with the outlines of its classes."""
    if case.labels is None:
        raise DataError(
            f"{case.patient}: has no mask, so there are no classes to outline; choose another one."
        )
    head, tumor = head_box(case.images[0]), head_box(case.labels[:, :, z : z + 1], margin=5)
    labels = case.labels[*tumor, z].T  # (H, W)
    shapes = [case.labels[*box, z].T.shape for box in (head, tumor)]
    ratios = [height / width for height, width in shapes]
    figure, axes = new_figure(
        2, len(case.sequences), width=1.9, height=sum(ratios) + 0.3, height_ratios=ratios
    )
    for column, volume, name in zip(axes.T, case.images, case.sequences, strict=True):
        contour_slice(column[0], volume[*head, z].T)
        column[0].set_title(name)
        contour_slice(column[1], volume[*tumor, z].T)
        for value in CLASSES:
            _outline(column[1], labels == value, value)
    _class_legend(figure)
    counts = [
        f"{name.replace('_', '-')} {np.count_nonzero(labels == value)}" for value, name in CLASSES.items()
    ]
    words = f"Slice {z} of {case.patient} in {', '.join(case.sequences)}; below with the outlines of the classes. "
    return described(figure, f"{words}Pixels in this slice: {', '.join(counts)}.", title)


@styled
def intensity_ridges(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], *, title: str = ""
) -> Figure:
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
        axis.set_ylabel(
            patient.removeprefix("Brats18_").removesuffix("_1"), rotation=0, ha="right", va="center"
        )
    axes[-1, 0].set_xlabel("grey value as recorded (arbitrary units)")
    axes[-1, 1].set_xlabel(f"normalised (the non-zero median is {INTENSITY_CONSTANT:.0f})")
    words = f"Histograms of the non-zero voxels of {len(before)} scans. Medians as recorded: {', '.join(medians[0])}; "
    return described(figure, f"{words}normalised: {', '.join(medians[1])}.", title)


def _outline(axis: Axes, mask: np.ndarray, value: int) -> None:
    """Outline of one class, a little inside its pixels, so that the outlines of neighbours lie side by side."""
    if mask.any():
        places = [np.arange(-1, size + 1) for size in mask.shape[::-1]]
        style = {"colors": CLASS_COLORS[value], "linestyles": [CLASS_DASHES[value]], "linewidths": 1.8}
        axis.contour(*places, np.pad(mask, 1), levels=[0.8], **style)


def _letters(axis: Axes, columns: str, rows: str) -> None:
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=2.4, foreground="black")]
    style = {
        "color": "white",
        "transform": axis.transAxes,
        "ha": "center",
        "va": "center",
        "weight": "bold",
        "path_effects": effects,
    }
    for x, y, letter in (
        (0.05, 0.5, columns[0]),
        (0.95, 0.5, columns[1]),
        (0.5, 0.95, rows[0]),
        (0.5, 0.05, rows[1]),
    ):
        axis.text(x, y, letter, **style)


def _class_legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D(
            [],
            [],
            color=CLASS_COLORS[value],
            ls=CLASS_DASHES[value],
            lw=2,
            label=f"{value} {name.replace('_', '-')}",
        )
        for value, name in CLASSES.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=9)


@styled
def slice_bars(
    rows: Mapping[str, np.ndarray], *, training: tuple[int, int] | None = None, title: str = ""
) -> Figure:
    """Which slices show what: one row of bars per label.

    `rows`: name of the row -> (Z,) bool; a class of the paper gets its colour. `training`: first and last training
    slice, both included, marked by dotted lines.
    """
    figure, axes = new_figure(1, 1, width=8.5, height=0.36 * len(rows) + 0.9)
    axis, words = axes[0, 0], []
    colors = {name: CLASS_COLORS[value] for value, name in CLASSES.items()}
    for y, (name, shown) in enumerate(rows.items()):
        ranges = _ranges(shown)
        bars = [(first - 0.5, last - first + 1) for first, last in ranges]
        axis.broken_barh(bars, (y - 0.35, 0.7), color=colors.get(name, COLORS["patients"]), edgecolor="black")
        for first, last in ranges:
            axis.text((first + last) / 2, y, f"{first}–{last}", ha="center", va="center", fontsize=8)
        words.append(f"{_name(name)} {_words(shown) or 'nowhere'}")
    for edge in () if training is None else (training[0] - 0.5, training[1] + 0.5):
        axis.axvline(edge, color="black", lw=1, ls=":")
    n_slices = len(next(iter(rows.values())))
    axis.set(yticks=range(len(rows)), yticklabels=[_name(name) for name in rows])
    axis.set(xlim=(-0.5, n_slices - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axis.set_xlabel("slice z (0 is the lowest)" + ("" if training is None else "; dotted: training slices"))
    words_training = "" if training is None else f" Training slices: {training[0]} to {training[1]}."
    text = f"Which of {n_slices} slices show each label: {'; '.join(words)}.{words_training}"
    return described(figure, text, title)


@styled
def contact_sheet(
    volume: np.ndarray, *, columns: int = 12, framed: np.ndarray | None = None, title: str = ""
) -> Figure:
    """The axial slices of a volume (X, Y, Z) that show head, with their numbers: what a weak annotator looks at.

    `framed`: (Z,) bool; these slices get a frame. The grey scale ends at the 99.5th percentile of the non-zero voxels.
    """
    from matplotlib.patheffects import withStroke

    x, y = head_box(volume, margin=1)
    slices = volume[x, y].transpose(2, 1, 0)  # (Z, H, W)
    seen = np.flatnonzero(slices.any(axis=(1, 2)))
    first, last = int(seen[0]), int(seen[-1])
    _, height, width = slices.shape
    rows = math.ceil((last - first + 1) / columns)
    sheet = np.zeros((rows * height, columns * width), np.float32)
    figure, axes = new_figure(1, 1, width=9.5, height=9.5 * sheet.shape[0] / sheet.shape[1])
    axis = axes[0, 0]
    for z in range(first, last + 1):
        upper, left = (z - first) // columns * height, (z - first) % columns * width
        sheet[upper : upper + height, left : left + width] = slices[z]
        number = axis.text(left + 2, upper + 2, str(z), color="white", fontsize=8, ha="left", va="top")
        number.set_path_effects([withStroke(linewidth=2, foreground="black")])
        if framed is not None and framed[z]:
            corner = [left + 1, left + width - 2], [upper + 1, upper + height - 2]
            axis.plot(*_frame(*corner), color=ON_IMAGE["mixed"], lw=1.6)
    top = np.percentile(volume[volume != 0], 99.5)
    axis.imshow(np.round(np.clip(sheet / top, 0, 1) * 15), vmin=0, vmax=15)  # few greys: a small file
    axis.set_axis_off()
    text = f"Axial slices {first} (lowest) to {last} (highest) in rows of {columns}; slices 0 to {len(slices) - 1} "
    text += "exist, the others show no head."
    if framed is not None:
        text += f" Framed: slices {_words(framed) or 'none'}."
    return described(figure, text, title)


@styled
def dice_by_hours(*, region: str = "whole_tumor", title: str = "") -> Figure:
    """The paper's table 1 against the hours that its training labels take, from the minutes of section 4.3.

    A bar along the hours spans 1 to 2 minutes for each weakly annotated scan.
    """
    column = list(REGIONS).index(region)
    figure, axes = new_figure(1, 1, width=7.2, height=4.0)
    axis, words = axes[0, 0], []
    for arm in ARMS:
        points = []
        for n_fa in sorted(n for a, n in TABLE_1 if a == arm):
            n_wa, dice = (SCENARIOS[n_fa] if arm == "mixed" else 0), TABLE_1[arm, n_fa][column]
            low, high = (annotation_hours(n_fa, n_wa, minutes_wa=minutes) for minutes in MINUTES_WA)
            label = f"{n_fa} FA" + (f" + {n_wa} WA" if n_wa else "")
            axis.plot([low, high], [dice, dice], color=COLORS[arm], lw=4, alpha=0.4, solid_capstyle="butt")
            above = dice == max(TABLE_1[a, n][column] for a, n in TABLE_1 if n == n_fa)
            side = {"ha": "right", "va": "bottom"} if above else {"ha": "left", "va": "top"}
            offset = (-6, 5) if above else (6, -5)
            axis.annotate(
                label, ((low + high) / 2, dice), offset, textcoords="offset points", fontsize=8, **side
            )
            points.append(((low + high) / 2, dice))
            words.append(f"{label} {(low + high) / 2:.1f} hours, Dice {dice:.1f}")
        style = {"color": COLORS[arm], "ls": DASHES[arm], "marker": MARKERS[arm]}
        axis.plot(*zip(*points, strict=True), lw=1.2, label=f"{arm} supervision", **style)
    ticks = [4, 8, 16, 32, 64, 128]
    axis.set(
        xscale="log", xlabel="hours of annotation (logarithmic)", ylabel="mean Dice (%), the paper's table 1"
    )
    axis.set_xticks(ticks, ticks)
    axis.minorticks_off()
    axis.set_title(region_name(region))
    axis.margins(x=0.1, y=0.12)
    axis.legend(loc="lower right", fontsize=9)
    return described(
        figure, f"Dice against hours of annotation, {region_name(region)}: {'; '.join(words)}.", title
    )


def _ranges(shown: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True in (Z,) bool as (first, last), both included."""
    steps = np.diff(np.asarray(shown, bool).astype(np.int8), prepend=0, append=0)  # (Z + 1,)
    pairs = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1, strict=True)
    return [(int(first), int(last)) for first, last in pairs]


def _words(shown: np.ndarray) -> str:
    return ", ".join(f"{first} to {last}" for first, last in _ranges(shown))


def _frame(x: list[int], y: list[int]) -> tuple[list[int], list[int]]:
    """Corner points of a rectangle, in drawing order."""
    return [x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]]


def _name(row: str) -> str:
    return region_name(row).replace("non enhancing", "non-enhancing")
