"""Figures of the protocol and of batches: folds, a slice under three tasks, draws from a pool, a whole batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.experiments.pictures import contour_slice
from mixsup_lib.experiments.style import COLORS, described, new_figure, styled
from mixsup_lib.paper import N_FOLDS, REGIONS
from mixsup_lib.protocol import fold_bounds
from mixsup_lib.sampling import Batch, task_labels
from mixsup_lib.teaching.figures.panels import patches

if TYPE_CHECKING:
    from matplotlib.figure import Figure


KINDS = {
    "positive annotated": {"facecolor": COLORS["truth"], "hatch": ""},
    "negative": {"facecolor": COLORS["patients"], "hatch": ".."},
    "positive weak": {"facecolor": COLORS["mixed"], "hatch": "//"},
}
"""The three kinds of training images of section 3.1 and how they look in every figure of a batch."""

ROLES = {
    "test": {"facecolor": "white", "hatch": ""},
    "fully annotated": KINDS["positive annotated"],
    "weak": KINDS["positive weak"],
}


@styled
def fold_strips(n_patients: int, n_fa: int) -> Figure:
    """Who is tested, fully annotated and weak in each fold, along the scenario's permutation (section 4.2)."""
    figure, axes = new_figure(1, 1, width=8.0, height=0.4 * N_FOLDS + 1.1)
    axis, words = axes[0, 0], []
    for fold in range(1, N_FOLDS + 1):
        start, stop = fold_bounds(n_patients, fold, N_FOLDS)
        stretches = {"weak": (0, n_patients), "test": (start, stop - start), "fully annotated": (stop, n_fa)}
        for role, (first, length) in stretches.items():
            pieces = _around(first, length, n_patients)
            axis.broken_barh(pieces, (fold - 0.4, 0.8), edgecolor="black", lw=0.8, label=role, **ROLES[role])
        words.append(f"fold {fold} tests positions {start} to {stop - 1}")
    axis.set(yticks=range(1, N_FOLDS + 1), ylabel="fold", xlim=(0, n_patients), ylim=(N_FOLDS + 0.6, 0.4))
    axis.set_xlabel("position in the scenario's permutation of the patients")
    axis.grid(False)
    figure.legend(handles=patches(ROLES), loc="outside lower center", ncols=3, fontsize=9)
    title = f"{n_patients} patients, {n_fa} of them fully annotated in each fold"
    return described(figure, f"{'; '.join(words)}; the next {n_fa} are annotated, the others weak.", title)


def _around(first: int, length: int, n: int) -> list[tuple[int, int]]:
    """A stretch of a circle of `n` positions as (first, length) of one or two pieces."""
    first %= n
    inside = min(length, n - first)
    return [piece for piece in ((first, inside), (0, length - inside)) if piece[1]]


@styled
def one_slice_three_tasks(image: np.ndarray, labels: np.ndarray) -> Figure:
    """One slice (H, W) with the outline of its target under each binary task; labels (H, W): classes 0..3."""
    figure, axes = new_figure(1, len(REGIONS), width=2.4, height=2.6)
    words = []
    for axis, (task, classes) in zip(axes[0], REGIONS.items(), strict=True):
        target = task_labels(labels, task)  # (H, W)
        contour_slice(axis, image, target)
        kind = "positive" if target.any() else "negative"
        listed = f"class{'es' if len(classes) > 1 else ''} {', '.join(map(str, classes))}"
        axis.set_title(f"{task}\n{listed}: {kind}")
        words.append(f"{task}: {kind}, {target.sum()} pixels")
    return described(figure, f"One slice under three tasks. {'; '.join(words)}.")


@styled
def draws_per_slice(draws: Mapping[str, np.ndarray], pool_size: int) -> Figure:
    """How often each slice of a pool was drawn: one panel per way of drawing, `draws` name -> positions drawn."""
    figure, axes = new_figure(1, len(draws), width=3.7, height=2.6, sharey=True)
    words = []
    for axis, (name, positions) in zip(axes[0], draws.items(), strict=True):
        times = np.bincount(positions, minlength=pool_size)
        never = (times == 0).sum()
        axis.bar(np.arange(pool_size), times, width=1.0, color=COLORS["truth"], ec="black", lw=0.5)
        axis.set(xlabel="slice of the pool", title=f"{name}: {never} never drawn")
        words.append(f"{name}: each slice {times.min()} to {times.max()} times, {never} never")
    axes[0, 0].set_ylabel(f"times drawn in {len(positions)}")
    return described(figure, f"{len(positions)} draws from a pool of {pool_size} slices. {'; '.join(words)}.")


@styled
def batch_composition(batch: Batch, k: int, *, flipped: Sequence[int], sources: Sequence[str]) -> Figure:
    """A batch image by image (section 3.1): its kind, its image-level label, its pixel labels, the losses it enters.

    k: number of positive annotated images; the annotated part of `batch` tells m, the rest are weak. flipped:
    positions of mirrored images. sources: a word for each image, where it comes from.
    """
    from matplotlib.lines import Line2D

    annotated, size = len(batch.labels), len(batch.images)
    counts = dict(zip(KINDS, (k, annotated - k, size - annotated), strict=True))
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    total = 1.1 * size + 0.4  # inches
    left, step = 0.35 / total, (1 - 0.4 / total) / size
    places = [(left + number * step, y, 0.93 * step, 0.3) for y in (0.62, 0.27) for number in range(size)]
    figure, axes = new_figure(2, size, width=1.1, height=1.65, places=places)
    for number, (image, kind) in enumerate(zip(batch.images[:, 0], kinds, strict=True)):
        top, bottom = axes[:, number]
        contour_slice(top, image)
        shows = f"tumour: {'yes' if batch.presence[number].any() else 'no'}"
        top.set_title(f"{sources[number]}\n{shows}", fontsize=9)
        if number in flipped:
            style = {"transform": top.transAxes, "ha": "center", "va": "bottom", "fontsize": 8}
            top.text(0.5, 0.02, "mirrored", color="white", **style)
        mask = batch.labels[number] if number < annotated else np.zeros(image.shape, int)
        contour_slice(bottom, np.zeros(image.shape), mask)
        if not mask.any():
            words, color = ("all 0", "white") if number < annotated else ("unknown", "black")
            bottom.images[0].set_visible(number < annotated)
            style = {"transform": bottom.transAxes, "ha": "center", "va": "center", "fontsize": 8}
            bottom.text(0.5, 0.5, words, color=color, **style)
        for axis in (top, bottom):
            axis.set_axis_on()
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
            for spine in axis.spines.values():
                spine.set(visible=True, color=KINDS[kind]["facecolor"], linewidth=3)
    for axis, name in zip(axes[:, 0], ("image", "pixel labels"), strict=True):
        axis.set_ylabel(name)
    first = np.cumsum([0, *counts.values()])
    stretches = [(0.25, first[at], count, kind) for at, (kind, count) in enumerate(counts.items())]
    stretches += [(0.14, 0, annotated, "$Loss_s$"), (0.05, 0, size, "$Loss_c$")]
    for y, start, count, name in stretches:
        if count:
            ends = left + start * step, left + (start + count - 0.07) * step
            figure.add_artist(Line2D(ends, (y, y), color="black", lw=1.2))
            figure.text(sum(ends) / 2, y - 0.015, f"{name}: {count}", ha="center", va="top", fontsize=9)
    words = f"A batch of {size} images: {k} positive annotated with their outlines, {annotated - k} negative whose "
    words += f"mask is all 0, {size - annotated} positive weak without pixel labels. The segmentation loss sees the "
    words += f"first {annotated}, the classification loss all {size}. Mirrored: {len(set(flipped))}."
    return described(figure, words)
