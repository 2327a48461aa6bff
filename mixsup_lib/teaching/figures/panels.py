"""What figures of several notebooks share: the head's place, outlines of classes, bars of slices and of shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.experiments.pictures import outline
from mixsup_lib.experiments.style import CLASS_COLORS, CLASS_DASHES, WHITE
from mixsup_lib.paper import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

CLASS_NAMES = {value: name.replace("_", "-") for value, name in CLASSES.items()}


def head_box(volume: np.ndarray, margin: int = 3) -> tuple[slice, slice]:
    """Ranges along x and y that hold every non-zero voxel of a volume (X, Y, Z), `margin` voxels wider."""
    seen = [np.flatnonzero((volume != 0).any(axis=others)) for others in ((1, 2), (0, 2))]
    return tuple(slice(max(int(i[0]) - margin, 0), int(i[-1]) + 1 + margin) for i in seen)


def outline_classes(axis: Axes, labels: np.ndarray) -> None:
    """Outline each class of a label map (H, W), a little inside its pixels, so that neighbours lie side by side."""
    for value in CLASSES:
        if (labels == value).any():
            outline(axis, labels == value, CLASS_COLORS[value], CLASS_DASHES[value], level=0.8, width=1.8)


def class_legend(figure: Figure) -> None:
    """A legend of the classes below the figure."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=CLASS_COLORS[value], ls=CLASS_DASHES[value], lw=2, label=f"{value} {name}")
        for value, name in CLASS_NAMES.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=9)


def patches(kinds: Mapping[str, Mapping]) -> list[Patch]:
    """Handles of a legend: label -> face colour and hatch; edges are black."""
    from matplotlib.patches import Patch

    return [Patch(label=label, **{"edgecolor": "black", **style}) for label, style in kinds.items()]


def rectangle(axis: Axes, left: float, bottom: float, width: float, height: float, **style) -> None:
    """A rectangle in the axis's units; `style` is that of matplotlib's patches."""
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((left, bottom), width, height, **style))


def slice_ranges(shown: np.ndarray) -> list[tuple[int, int]]:
    """Runs of True in (Z,) bool as (first, last), both included."""
    steps = np.diff(np.asarray(shown, bool).astype(np.int8), prepend=0, append=0)  # (Z + 1,)
    pairs = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1, strict=True)
    return [(int(first), int(last)) for first, last in pairs]


def slice_rows(axis: Axes, rows: Mapping[str, tuple[np.ndarray, str]], *, numbered: bool = False) -> None:
    """A row of bars per label, which holds (Z,) bool and a colour: the slices that show it; numbers: first to last."""
    for y, (shown, color) in enumerate(rows.values()):
        ranges = slice_ranges(shown)
        bars = [(first - 0.5, last - first + 1) for first, last in ranges]
        axis.broken_barh(bars, (y - 0.35, 0.7), facecolor=color, edgecolor="black")
        for first, last in ranges if numbered else ():
            axis.text((first + last) / 2, y, f"{first}–{last}", ha="center", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlim=(-0.5, len(shown) - 0.5), ylim=(len(rows) - 0.5, -0.5), xlabel="slice z (0 is the lowest)")


def share_bar(
    axis: Axes,
    y: float,
    parts: Iterable[tuple[float, Mapping]],
    *,
    least: float,
    number: Callable[[float], str],
    **style,
) -> None:
    """Parts (length, style) from left to right in one bar; those of at least `least` carry their number."""
    left = 0.0
    for length, kind in parts:
        axis.barh(y, length, left=left, edgecolor="black", **kind, **style)
        if length >= least:
            middle = left + length / 2
            axis.text(middle, y, number(length), ha="center", va="center", fontsize=8, bbox=WHITE)
        left += length
