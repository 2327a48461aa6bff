"""The method in one picture: two kinds of scans, one network with two outputs, two losses (sections 1 and 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.experiments.pictures import contour_slice
from mixsup_lib.experiments.style import COLORS, DASHES, described, new_figure, styled
from mixsup_lib.paper import SCENARIOS
from mixsup_lib.teaching.figures.panels import rectangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 112.0, 61.0
"""Size of the drawing; the unit is a tenth of an inch."""

UPPER, LOWER = 59.0, 33.0
"""Top of the upper path, which standard supervision uses alone, and of the lower, which mixed supervision adds."""


@styled
def mixed_supervision_idea(
    annotated: Sequence[tuple[np.ndarray, np.ndarray]], weak: Sequence[tuple[np.ndarray, bool]]
) -> Figure:
    """Mixed supervision from the scans to the loss; its part that standard supervision uses alone is set apart.

    annotated: three slices (H, W) of fully annotated scans with their masks (H, W), the first one with tumour; weak:
    three slices (H, W) of weakly annotated scans, and whether each shows tumour.

    The picture of the pixel scores is the first mask made soft: no network is run.
    """
    figure, axes = new_figure(1, 1, width=WIDTH / 10, height=HEIGHT / 10)
    axis, n_fa, n_wa = axes[0, 0], 5, SCENARIOS[5]
    axis.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
    axis.set_axis_off()
    for top, title, below in (
        (UPPER, f"{n_fa} scans, fully annotated (FA)", "each tumour outlined: 45 minutes a scan"),
        (LOWER, f"{n_wa} scans, weakly annotated (WA)", "one word a slice: 1 to 2 minutes a scan"),
    ):
        _heading(axis, 0.5, top, title, below, ha="left")
    for x, (image, mask), (other, shows_tumor) in zip((0.5, 11.5, 22.5), annotated, weak, strict=True):
        _thumbnail(axis, x, UPPER, image, mask)
        _thumbnail(axis, x, LOWER, other)
        style = {"ha": "center", "va": "top", "fontsize": 9}
        axis.text(x + 5, UPPER - 18.7, "outline" if np.any(mask) else "no tumour", **style)
        word = "“tumour”" if shows_tumor else "“no tumour”"
        axis.text(x + 5, LOWER - 18.7, word, color=COLORS["mixed"], weight="bold", **style)
    _arrow(axis, (33.5, 46), (39.5, 42), "standard")
    _arrow(axis, (33.5, 23), (39.5, 31), "mixed")
    _network(axis)
    _outputs(axis, *annotated[0])
    _losses(axis)
    legend = {"standard": "standard supervision: this part alone", "mixed": "what mixed supervision adds"}
    for y, (arm, words) in zip((6.5, 2.5), legend.items(), strict=True):
        _arrow(axis, (0.5, y), (7.5, y), arm)
        axis.text(8.5, y, words, va="center", fontsize=10)
    return described(
        figure,
        f"From left to right: {n_fa} fully annotated scans, whose slices carry the outline of the tumour, and {n_wa} "
        "weakly annotated scans, whose slices carry one of two words, tumour or no tumour, feed one U-Net. It has two "
        "outputs: a score of every pixel, judged by the segmentation loss on slices whose mask is known, and a score "
        "of the whole slice, judged by the classification loss on all slices. The total loss is a times the first "
        "plus (1 - a) times the second. Standard supervision is the upper path alone, without the weak scans and "
        "without the second output.",
    )


def _network(axis: Axes) -> None:
    """A U-Net as columns of feature maps, lower and wider with depth, and its skip connections."""
    x, middle, tops = 41.0, 36.5, []
    for depth in (0, 1, 2, 3, 4, 3, 2, 1, 0):
        width, height = 1.1 + 0.35 * depth, 23 * 0.7**depth
        rectangle(axis, x, middle - height / 2, width, height, facecolor="#E5E5E5", edgecolor="black", lw=1)
        tops.append((x + width / 2, middle + height / 2 - 0.7))
        x += width + 0.75
    for start, end in zip(tops[:4], tops[:4:-1], strict=True):
        axis.annotate("", end, start, arrowprops={"arrowstyle": "-", "ls": ":", "lw": 0.9, "color": "black"})
    _heading(axis, 51, 53.5, "one U-Net for both tasks", "most layers are shared")


def _outputs(axis: Axes, image: np.ndarray, mask: np.ndarray) -> None:
    from scipy.ndimage import gaussian_filter

    _arrow(axis, (62, 42), (71, 46), "standard")
    _heading(axis, 77, UPPER, "score of every pixel", "is it tumour?")
    soft = gaussian_filter((np.asarray(mask) != 0).astype(float), 1.2)  # (H, W)
    _thumbnail(axis, 72, UPPER, soft * float(np.max(image)) + 0.15 * (np.asarray(image) != 0))
    _arrow(axis, (62, 33), (69.5, 21.5), "mixed")
    axis.text(63.5, 22.5, "branch", ha="center", va="top", fontsize=9, color=COLORS["mixed"])
    _heading(axis, 77, LOWER, "score of the slice", "does it show tumour?")
    for y, word, share in ((22.5, "yes", 0.9), (18, "no", 0.1)):
        axis.text(73.5, y, word, ha="right", va="center", fontsize=9)
        axis.barh(y, 9 * share, height=2.6, left=74.2, color=COLORS["mixed"])
        axis.barh(y, 9, height=2.6, left=74.2, facecolor="none", edgecolor="black", lw=0.8)


def _losses(axis: Axes) -> None:
    _arrow(axis, (83.5, 47), (89, 47), "standard")
    _arrow(axis, (84.5, 20.5), (89, 20.5), "mixed")
    known = "on slices whose mask is known:\noutlined, or without tumour\n(there the mask is all 0)"
    _box(axis, 41.5, 11.5, "segmentation loss $Loss_s$", known, "standard")
    every = "on all slices, since an outline\nimplies the word"
    _box(axis, 15.5, 10, "classification loss $Loss_c$", every, "mixed")
    _arrow(axis, (100.5, 41), (100.5, 37), "standard")
    _arrow(axis, (100.5, 26), (100.5, 30), "mixed")
    total = r"$Loss = a\,Loss_s + (1-a)\,Loss_c$"
    axis.text(100.5, 33.5, total, ha="center", va="center", fontsize=11)


def _thumbnail(axis: Axes, x: float, top: float, image: np.ndarray, mask: np.ndarray | None = None) -> None:
    inset = axis.inset_axes((x, top - 17.5, 10, 12), transform=axis.transData)
    contour_slice(inset, np.asarray(image, float), mask)
    inset.set(anchor="C", facecolor="black")


def _heading(axis: Axes, x: float, y: float, title: str, below: str, ha: str = "center") -> None:
    axis.text(x, y, title, ha=ha, va="center", fontsize=11, weight="bold")
    axis.text(x, y - 2.6, below, ha=ha, va="center", fontsize=9)


def _box(axis: Axes, y: float, height: float, title: str, text: str, arm: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": COLORS[arm], "ls": DASHES[arm]}
    axis.add_patch(FancyBboxPatch((89.5, y), 22, height, lw=1.8, **style))
    axis.text(100.5, y + height - 1.2, title, ha="center", va="top", fontsize=10, weight="bold")
    axis.text(100.5, y + height - 4.2, text, ha="center", va="top", fontsize=9)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], arm: str) -> None:
    arrow = {"color": COLORS[arm], "lw": 2.2, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-", "ls": DASHES[arm], **arrow})
    back = np.subtract(start, end) / np.hypot(*np.subtract(start, end))
    axis.annotate("", end, np.add(end, 1.6 * back), arrowprops={"arrowstyle": "-|>", **arrow})
