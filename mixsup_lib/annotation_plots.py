"""Annotation: which slices carry which label, what a weak annotator sees, what labels cost (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.data_plots import head_box
from mixsup_lib.paired import ARMS
from mixsup_lib.paper import CLASSES, REGIONS, SCENARIOS, TABLE_1
from mixsup_lib.planner import MINUTES_WA, annotation_hours
from mixsup_lib.plot_style import (
    CLASS_COLORS,
    COLORS,
    DASHES,
    MARKERS,
    ON_IMAGE,
    described,
    new_figure,
    styled,
)
from mixsup_lib.wording import region_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
