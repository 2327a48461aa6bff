"""Figures of section 3.2: slices and their subclasses, which slices are positive for what, what the loss weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.evaluation import dice, region_mask
from mixsup_lib.experiments.pictures import contour_slice, words_below
from mixsup_lib.experiments.style import CLASS_COLORS, COLORS, described, new_figure, styled
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.paper import CLASSES, REGIONS
from mixsup_lib.teaching.figures.panels import (
    CLASS_NAMES,
    class_legend,
    head_box,
    outline_classes,
    patches,
    share_bar,
    slice_rows,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TASK_ROWS = {"whole_tumor": "whole tumour", "tumor_core": "tumour core", "enhancing": "enhancing core"}
"""Column of a presence table -> the binary task for which it says which slices are positive."""


@styled
def subclass_slices(volume: np.ndarray, labels: np.ndarray, chosen: Sequence[int]) -> Figure:
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
        present = {name: int((mask == value).any()) for value, name in CLASS_NAMES.items()}
        words_below(axis, "".join(f"{name} {flag}\n" for name, flag in present.items()))
        shown.append(f"slice {z}: " + (", ".join(name for name, flag in present.items() if flag) or "none"))
    class_legend(figure)
    text = "Slices with the outlines of the subclasses that they show"
    return described(figure, f"{text}. {'; '.join(shown)}.")


@styled
def positive_slices(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Which slices show each subclass, and which are therefore positive for each binary task; one panel per patient.

    tables: patient -> presence table (`slice_labels.slice_presence`), Z rows.
    """
    figure, axes = new_figure(1, len(tables), width=3.1, height=2.5, sharey=True)
    rows = [(CLASSES[value], f"{name} shown", CLASS_COLORS[value]) for value, name in CLASS_NAMES.items()]
    rows += [(column, f"{task}: positive", COLORS["patients"]) for column, task in TASK_ROWS.items()]
    words = []
    for axis, (patient, table) in zip(axes[0], tables.items(), strict=True):
        slice_rows(axis, {label: (table[column], color) for column, label, color in rows})
        axis.axhline(len(CLASSES) - 0.5, color="black", lw=0.8)
        axis.set_title(patient)
        axis.grid(axis="y", visible=False)
        words.append(f"{patient}: " + ", ".join(f"{label} in {int(table[c].sum())}" for c, label, _ in rows))
    return described(figure, f"Number of slices. {'; '.join(words)}.")


@styled
def loss_shares(rows: Mapping[str, tuple[Sequence[float], float, int]]) -> Figure:
    """What share of the joint loss each kind of label has: a * t_c for the pixels of a class, (1 - a) / R per branch.

    rows: name -> (target weights t_c, a, number of branches R); two target weights stand for the binary problem.
    """
    height = 0.62 * len(rows) + 1.5
    place = (0.2, 1.1 / height, 0.78, 1 - 1.35 / height)
    figure, axes = new_figure(1, 1, width=8.2, height=height, places=[place])
    axis, words = axes[0, 0], []

    def short(share: float) -> str:
        return f"{share:.2f}" if share >= 0.05 else f".{100 * share:02.0f}"

    kinds = {
        f"{name} pixels": {"facecolor": COLORS[k]} for name, k in (("non-tumour", "patients"), ("tumour", "truth"))
    }
    kinds |= {f"{name} pixels": {"facecolor": CLASS_COLORS[value]} for value, name in CLASS_NAMES.items()}
    images = {"facecolor": COLORS["mixed"], "hatch": "//"}
    for y, (name, (targets, a, branches)) in enumerate(rows.items()):
        healthy, tumor, *each_class = kinds.values()
        pixels = [healthy, *(each_class if len(targets) > 2 else [tumor])]
        parts = [(a * target, kind) for target, kind in zip(targets, pixels, strict=True)]
        parts += [((1 - a) / branches, images)] * branches
        share_bar(axis, y, parts, least=0.025, number=short, height=0.66, lw=0.6)
        healthy, tumor, branch = a * targets[0], a * targets[1], (1 - a) / branches
        subclass = "each subclass" if len(targets) > 2 else "tumour"
        each = "the branch" if branches == 1 else f"each of {branches} branches"
        words.append(f"{name}: non-tumour pixels {healthy:.3f}, {subclass} {tumor:.3f}, {each} {branch:.3f}")
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="share of the joint loss")
    axis.grid(False)
    handles = patches(kinds | {"image labels, per branch": images})
    figure.legend(handles=handles, loc="lower center", ncols=3, fontsize=9)
    return described(figure, f"Shares of the joint loss. {'; '.join(words)}.")


@styled
def label_maps(volume: np.ndarray, maps: Mapping[str, np.ndarray], z: int, *, title: str = "") -> Figure:
    """One axial slice, once for each of the label maps (X, Y, Z) in `maps`, with the outlines of the classes.

    The words compare the first map, the truth, with each of the others: Dice in this slice for each region.
    """
    box = head_box(volume)
    image, *drawn = (array[*box, z].T for array in (volume, *maps.values()))  # (H, W) each
    figure, axes = new_figure(1, len(maps), width=2.2, height=2.2 * image.shape[0] / image.shape[1] + 0.6)
    words = []
    for axis, name, labels in zip(axes[0], maps, drawn, strict=True):
        contour_slice(axis, image)
        outline_classes(axis, labels)
        axis.set_title(name)
        pairs = [(region_mask(labels, region), region_mask(drawn[0], region)) for region in REGIONS]
        words.append(f"{name} {', '.join(f'{dice(*pair):.0f}' for pair in pairs)}")
    class_legend(figure)
    text = f"Outlines of the classes in slice {z}. Dice in this slice, {', '.join(map(region_name, REGIONS))} (%)"
    return described(figure, f"{text}: {'; '.join(words[1:])}.", title)
