"""Figures of section 3.2: slices and their subclasses, which slices are positive for what, what the loss weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.evaluation import dice, region_mask
from mixsup_lib.experiments.pictures import contour_slice
from mixsup_lib.experiments.style import CLASS_COLORS, CLASS_DASHES, COLORS, described, new_figure, styled
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.paper import CLASSES, REGIONS
from mixsup_lib.teaching.figures.nb01 import head_box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


NAMES = {value: name.replace("_", "-") for value, name in CLASSES.items()}
TASK_ROWS = {"whole_tumor": "whole tumour", "tumor_core": "tumour core", "enhancing": "enhancing core"}
"""Column of a presence table -> the binary task for which it says which slices are positive."""


@styled
def subclass_slices(
    volume: np.ndarray, labels: np.ndarray, chosen: Sequence[int], *, title: str = ""
) -> Figure:
    """Axial slices with the outlines of their subclasses and, below each, its image-level labels (section 3.2).

    volume, labels: (X, Y, Z), one sequence and the paper's classes 0..3; chosen: numbers of the slices.
    """
    box = head_box(volume)
    images, maps = ([array[*box, z].T for z in chosen] for array in (volume, labels))  # each (H, W)
    ratio = images[0].shape[0] / images[0].shape[1]
    figure, axes = new_figure(1, len(chosen), width=2.1, height=2.1 * ratio + 1.15)
    shown = []
    for axis, z, image, mask in zip(axes[0], chosen, images, maps, strict=True):
        contour_slice(axis, image)
        outline_classes(axis, mask)
        axis.set_title(f"slice {z}")
        present = {NAMES[value]: int((mask == value).any()) for value in CLASSES}
        below = "\n".join([*(f"{name} {flag}" for name, flag in present.items()), ""])
        axis.text(0.5, -0.03, below, transform=axis.transAxes, ha="center", va="top", fontsize=9)
        shown.append(f"slice {z}: " + (", ".join(name for name, flag in present.items() if flag) or "none"))
    class_legend(figure)
    return described(
        figure, f"Slices with the outlines of the subclasses that they show. {'; '.join(shown)}.", title
    )


@styled
def positive_slices(tables: Mapping[str, pd.DataFrame], *, title: str = "") -> Figure:
    """Which slices show each subclass, and which are therefore positive for each binary task; one panel per patient.

    tables: patient -> presence table (`slice_labels.slice_presence`), Z rows.
    """
    figure, axes = new_figure(1, len(tables), width=3.1, height=2.5, sharey=True)
    rows = [(CLASSES[value], f"{NAMES[value]} shown", CLASS_COLORS[value]) for value in CLASSES]
    rows += [(column, f"{task}: positive", COLORS["patients"]) for column, task in TASK_ROWS.items()]
    words = []
    for axis, (patient, table) in zip(axes[0], tables.items(), strict=True):
        for y, (column, _, color) in enumerate(rows):
            z = np.flatnonzero(table[column])
            axis.barh(np.full(len(z), y), 1, left=z - 0.5, height=0.62, color=color)
        axis.set_yticks(range(len(rows)), [label for _, label, _ in rows])
        axis.set(
            xlabel="slice z (0 is the lowest)", xlim=(-0.5, len(table) - 0.5), ylim=(len(rows) - 0.5, -0.5)
        )
        axis.axhline(len(CLASSES) - 0.5, color="black", lw=0.8)
        axis.set_title(patient)
        axis.grid(axis="y", visible=False)
        words.append(f"{patient}: " + ", ".join(f"{label} in {int(table[c].sum())}" for c, label, _ in rows))
    return described(figure, f"Number of slices. {'; '.join(words)}.", title)


@styled
def loss_shares(rows: Mapping[str, tuple[Sequence[float], float, int]], *, title: str = "") -> Figure:
    """What share of the joint loss each kind of label has: a * t_c for the pixels of a class, (1 - a) / R per branch.

    rows: name -> (target weights t_c, a, number of branches R); two target weights stand for the binary problem.
    """
    figure, axes = new_figure(1, 1, width=8.2, height=0.62 * len(rows) + 1.5)
    figure.set_layout_engine("none")  # the constrained layout takes as long as all the rest
    height = figure.get_figheight()
    axes[0, 0].set_position((0.2, 1.1 / height, 0.78, 1 - 1.35 / height))
    axis, words = axes[0, 0], []
    for y, (name, (targets, a, branches)) in enumerate(rows.items()):
        left = 0.0
        for share, style in _shares(targets, a, branches):
            axis.barh(y, share, left=left, height=0.66, edgecolor="black", lw=0.6, **style)
            if share >= 0.025:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
                text = f"{share:.2f}" if share >= 0.05 else f".{100 * share:02.0f}"
                axis.text(left + share / 2, y, text, ha="center", va="center", fontsize=8, bbox=box)
            left += share
        healthy, tumor, branch = a * targets[0], a * targets[1], (1 - a) / branches
        subclass = "each subclass" if len(targets) > 2 else "tumour"
        each = "the branch" if branches == 1 else f"each of {branches} branches"
        words.append(f"{name}: non-tumour pixels {healthy:.3f}, {subclass} {tumor:.3f}, {each} {branch:.3f}")
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="share of the joint loss")
    axis.grid(False)
    _share_legend(figure)
    return described(figure, f"Shares of the joint loss. {'; '.join(words)}.", title)


@styled
def label_maps(volume: np.ndarray, maps: Mapping[str, np.ndarray], z: int, *, title: str = "") -> Figure:
    """One axial slice, once for each of the label maps (X, Y, Z) in `maps`, with the outlines of the classes.

    The words compare the first map, the truth, with each of the others: Dice in this slice for each region.
    """
    box = head_box(volume)
    image = volume[*box, z].T  # (H, W)
    figure, axes = new_figure(1, len(maps), width=2.2, height=2.2 * image.shape[0] / image.shape[1] + 0.6)
    truth, words = next(iter(maps.values()))[*box, z].T, []
    for axis, (name, labels) in zip(axes[0], maps.items(), strict=True):
        contour_slice(axis, image)
        outline_classes(axis, labels[*box, z].T)
        axis.set_title(name)
        pairs = [(region_mask(labels[*box, z].T, region), region_mask(truth, region)) for region in REGIONS]
        words.append(f"{name} {', '.join(f'{dice(*pair):.0f}' for pair in pairs)}")
    class_legend(figure)
    text = f"Outlines of the classes in slice {z}. Dice in this slice, {', '.join(map(region_name, REGIONS))} (%)"
    return described(figure, f"{text}: {'; '.join(words[1:])}.", title)


def outline_classes(axis: Axes, labels: np.ndarray) -> None:
    """Outline each subclass of a label map (H, W), a little inside its pixels, so that neighbours lie side by side."""
    places = [np.arange(-1, size + 1) for size in labels.shape[::-1]]
    for value in CLASSES:
        mask = np.pad(labels == value, 1)  # (H + 2, W + 2)
        if mask.any():
            style = {"colors": CLASS_COLORS[value], "linestyles": [CLASS_DASHES[value]], "linewidths": 1.7}
            axis.contour(*places, mask, levels=[0.8], **style)


def class_legend(figure: Figure) -> None:
    """A legend of the subclasses below the figure."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=CLASS_COLORS[value], ls=CLASS_DASHES[value], lw=2, label=f"{value} {name}")
        for value, name in NAMES.items()
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=9)


def _shares(targets: Sequence[float], a: float, branches: int) -> list[tuple[float, dict]]:
    """(share, style) of every part of the joint loss, from left to right; the shares sum to 1."""
    pixels = [COLORS["patients"], *(CLASS_COLORS.values() if len(targets) > 2 else [COLORS["truth"]])]
    parts = [(a * target, {"color": color}) for target, color in zip(targets, pixels, strict=True)]
    return parts + [((1 - a) / branches, {"color": COLORS["mixed"], "hatch": "//"})] * branches


def _share_legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    kinds = {"non-tumour pixels": COLORS["patients"], "tumour pixels": COLORS["truth"]}
    kinds |= {f"{name} pixels": CLASS_COLORS[value] for value, name in NAMES.items()}
    patches = [Patch(facecolor=color, edgecolor="black", label=label) for label, color in kinds.items()]
    patches.append(
        Patch(facecolor=COLORS["mixed"], edgecolor="black", hatch="//", label="image labels, per branch")
    )
    figure.legend(handles=patches, loc="lower center", ncols=3, fontsize=9)
