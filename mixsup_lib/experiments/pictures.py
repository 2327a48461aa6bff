"""Results in the form of the paper's figures, beside the paper's own numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.experiments.statistics import ARMS, mean_over_folds
from mixsup_lib.experiments.style import (
    COLORS,
    DASHES,
    MARKERS,
    ON_IMAGE,
    WHITE,
    described,
    halo,
    log_ticks,
    new_figure,
    note,
    styled,
)
from mixsup_lib.experiments.tables import FAILED_BELOW, region_name
from mixsup_lib.files import DataError
from mixsup_lib.paper import REGIONS, TABLE_1, TABLE_3

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

DASHED = (0, (4, 1.5))
"""The line of a prediction on an image."""


# Slices with outlines


@styled
def contour_slice(
    axis: Axes,
    image: np.ndarray,
    truth: np.ndarray | None = None,
    prediction: np.ndarray | None = None,
    *,
    supervision: str = "mixed",
) -> None:
    """Draw one slice (H, W) in grey with the outlines of ground truth (solid) and prediction (dashed).

    Every value but 0 is inside. Rows run to the patient's back, columns to the patient's left, so the
    patient's left is on the right, as radiologists look at it. The grey scale ends at the 99.5th percentile
    of the non-zero pixels.
    """
    bright = image[image != 0]
    top = np.percentile(bright, 99.5) if bright.size else 1.0
    axis.imshow(image, vmin=min(0.0, float(image.min())), vmax=top)
    for mask, color, line in ((truth, COLORS["truth"], "-"), (prediction, ON_IMAGE[supervision], DASHED)):
        if mask is not None and np.any(mask):
            outline(axis, np.asarray(mask) != 0, color, line).set_path_effects(halo())
    height, width = image.shape
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])  # ticks would take time
    axis.set_axis_off()


def outline(
    axis: Axes,
    mask: np.ndarray,
    color: str,
    line: str | tuple = "-",
    *,
    level: float = 0.5,
    width: float = 1.4,
    origin: Sequence[float] = (0, 0),
    step: Sequence[float] = (1, 1),
) -> QuadContourSet:
    """Outline a mask (H, W) of bool, closed where it reaches the border; `level` near 1 keeps inside the mask's pixels.

    `origin`, `step`: where pixel 0 lies and how far the next one is, along x and y.
    """
    places = [o + s * np.arange(-1, n + 1) for o, s, n in zip(origin, step, mask.shape[::-1], strict=True)]
    style = {"colors": color, "linestyles": [line], "linewidths": width}
    lines = axis.contour(*places, np.pad(mask, 1), levels=[level], **style)
    lines.set_in_layout(False)  # it lies within the axis; to measure it takes time
    return lines


def outline_legend(figure: Figure, truth: str, predictions: Mapping[str, str]) -> None:
    """A legend below the figure: the words for the truth's outline, and label -> arm of each prediction's."""
    from matplotlib.lines import Line2D

    lines = [(truth, COLORS["truth"], "-"), *((name, ON_IMAGE[a], DASHED) for name, a in predictions.items())]
    style = {"lw": 1.4, "path_effects": halo()}
    handles = [Line2D([], [], color=color, ls=line, label=name, **style) for name, color, line in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(lines), fontsize=8)


def words_below(axis: Axes, words: str, fontsize: float = 9) -> None:
    """Write words below a slice."""
    axis.text(0.5, -0.03, words, transform=axis.transAxes, ha="center", va="top", fontsize=fontsize)


@styled
def case_panel(
    images: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str] = (),
    cell_labels: np.ndarray | None = None,
    supervision: str | Sequence[Sequence[str]] = "mixed",
    title: str = "",
) -> Figure:
    """A grid of slices with outlines: rows are cases or runs, columns sequences or examples.

    `images` is (rows, columns, H, W); `truth` and `prediction` are broadcast to it, so (rows, 1, H, W) draws
    the same outline on each column. `supervision` (one name, or broadcast to (rows, columns)) colours the
    predictions, `cell_labels` (rows, columns) are written below the slices; an empty slice (all NaN) stays
    blank.
    """
    rows, columns = images.shape[:2]
    truth, prediction = (np.broadcast_to(mask, images.shape) for mask in (truth, prediction))
    arms = np.broadcast_to(np.asarray(supervision), (rows, columns))
    figure, axes = new_figure(rows, columns, width=2.3, height=2.3 * images.shape[2] / images.shape[3] + 0.45)
    for (r, c), axis in np.ndenumerate(axes):
        if np.isnan(images[r, c]).all():
            axis.set_axis_off()
            continue
        contour_slice(axis, images[r, c], truth[r, c], prediction[r, c], supervision=str(arms[r, c]))
        if cell_labels is not None:
            words_below(axis, cell_labels[r, c], fontsize=8)
    for axis, label in zip(axes[:, 0], row_labels, strict=True):
        axis.text(-0.04, 0.5, label, transform=axis.transAxes, ha="right", va="center", rotation=90)
    for axis, label in zip(axes[0], column_labels, strict=False):
        axis.set_title(label)
    kinds = {f"prediction, {arm} supervision": arm for arm in ARMS if arm in arms}
    outline_legend(figure, "ground truth", kinds)
    words = f"Slices with the outlines of ground truth and prediction; rows: {'; '.join(row_labels)}"
    if len(column_labels):
        words += f"; columns: {'; '.join(column_labels)}"
    if cell_labels is not None:
        shown = [str(label).replace("\n", ", ") for label in np.ravel(cell_labels) if label]
        words += f". Shown: {'; '.join(shown)}"
    return described(figure, f"{words}.", title)


def example_panel(
    examples: Mapping[str, Mapping[str, np.ndarray]],
    dice: Mapping[tuple[str, str], float],
    *,
    arms: Mapping[str, str] | None = None,
    title: str = "",
) -> Figure:
    """The recorded slices of several runs: a row per run, its best, median and worst test patient.

    `examples`: name of a run -> what `runs.read_examples` returns; `dice`: (name, patient) -> Dice (%) of the whole
    volume; `arms`: name -> supervision, None where the names are that themselves. A run with fewer than three examples
    leaves cells blank. Raises DataError if slice sizes differ.
    """
    sizes = {run["image"].shape[1:] for run in examples.values()}
    if len(sizes) != 1:
        raise DataError(f"example slices have sizes {sorted(sizes)}, expected one size; compare runs of one preset.")
    columns = max(len(run["image"]) for run in examples.values())
    shape = (len(examples), columns, *sizes.pop())
    cells = {"image": np.full(shape, np.nan, np.float32)}
    cells |= {key: np.zeros(shape, np.uint8) for key in ("truth", "prediction")}
    labels = np.full(shape[:2], "", dtype=object)
    for row, (name, run) in enumerate(examples.items()):
        for key, cell in cells.items():
            cell[row, : len(run[key])] = run[key]
        for column, (patient, z) in enumerate(zip(run["patient"], run["z"], strict=True)):
            labels[row, column] = f"{patient}\nslice {z}, Dice {dice[name, patient]:.0f}"
    return case_panel(
        *cells.values(),
        row_labels=[name if arms else f"{name} supervision" for name in examples],
        column_labels=("best", "median", "worst") if columns == 3 else (),
        cell_labels=labels,
        supervision=[[arms[name] if arms else name] for name in examples],
        title=title,
    )


# Training


def loss_curve(axis: Axes, history: pd.DataFrame, column: str, smooth: int, **style) -> None:
    """The running mean of a loss over `smooth` rows; nothing where the run has no such loss."""
    values = history[column].rolling(smooth, min_periods=1).mean()
    if (values > 0).any():
        axis.plot(history["iteration"], values, **style)
    axis.set(xlabel="iteration", ylabel=f"{column.replace('_', ' ')} (nats)")


def say_if_empty(axis: Axes) -> None:
    """Say why there is no classification loss, or make the axis logarithmic."""
    if axis.lines:
        axis.set_yscale("log")
    else:
        axis.set_axis_off()
        axis.text(0.5, 0.5, "no classification branch", transform=axis.transAxes, ha="center")


@styled
def learning_curves(histories: Mapping[tuple[str, str], pd.DataFrame], *, smooth: int = 25) -> Figure:
    """Segmentation loss, classification loss and learning rate against the iteration, one line per run.

    `histories`: (supervision, label) -> history of the run. Losses are running means over `smooth`
    iterations, on a logarithmic axis. Standard supervision has no classification loss.
    """
    figure, axes = new_figure(1, 3, width=3.6, height=3.0)
    names: dict[str, list[str]] = {arm: [] for arm in ARMS}
    last = []
    for (arm, name), history in histories.items():
        style = {"color": COLORS[arm], "ls": DASHES[arm], "lw": 1.2, "alpha": 0.85}
        loss_curve(axes[0, 0], history, "segmentation_loss", smooth, **style)
        loss_curve(axes[0, 1], history, "classification_loss", smooth, **style)
        axes[0, 2].plot(history["iteration"], history["learning_rate"], **style)
        names[arm].append(name)
        last.append(f"{arm} {name}: {history['segmentation_loss'].tail(smooth).mean():.3g}")
    axes[0, 2].set(xlabel="iteration", ylabel="learning rate")
    for axis in axes[0]:
        say_if_empty(axis)
    for arm in filter(names.get, ARMS):
        axes[0, 0].plot([], [], color=COLORS[arm], ls=DASHES[arm], label=f"{arm} ({', '.join(names[arm])})")
    if histories:
        figure.legend(loc="outside lower center", ncols=len(ARMS), fontsize=8)
    words = f"Losses and learning rate of {len(last)} run{'s' * (len(last) != 1)}"
    return described(figure, f"{words}. Final segmentation loss: {'; '.join(last)}.")


# Patients and folds


def _panel_per_region(pairs: pd.DataFrame, **size: float) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]]]:
    """Axes for Dice (%), with the name and the rows of each region. Raises DataError where there is none."""
    if pairs.empty:
        raise DataError("no patient was scored in both arms, so there is nothing to draw; run both arms first.")
    parts = list(pairs.groupby("region", sort=False))
    figure, axes = new_figure(1, len(parts), **size, sharey=True)
    for axis, (region, _) in zip(axes[0], parts, strict=True):
        axis.set(ylim=(-3, 103), title=region_name(region))
    panels = zip(axes[0], parts, strict=True)
    return figure, [(axis, region_name(region), part) for axis, (region, part) in panels]


@styled
def paired_dots(pairs: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice of every test patient under standard and mixed supervision, joined by a line; one panel per region.

    `pairs` is that of `statistics.pairs`, for one scenario. The large markers are the means over folds.
    """
    figure, panels = _panel_per_region(pairs, width=3.8, height=4.2)
    words = []
    for axis, region, part in panels:
        lines = {"color": COLORS["patients"], "lw": 0.7, "alpha": 0.6, "zorder": 1}
        axis.plot([0, 1], part[list(ARMS)].to_numpy().T, **lines)
        for x, (arm, side) in enumerate(zip(ARMS, (-0.14, 1.14), strict=True)):
            style = {"marker": MARKERS[arm], "color": COLORS[arm]}
            axis.scatter(np.full(len(part), x), part[arm], s=14, alpha=0.7, zorder=2, linewidths=0, **style)
            mean = mean_over_folds(part[arm].to_numpy(), part["fold"].to_numpy())
            axis.scatter(side, mean, s=90, zorder=3, edgecolors="black", **style)
            note(axis, f"{mean:.1f}", (side, mean), (0, 10), ha="center", weight="bold")
        axis.axhline(FAILED_BELOW, color="black", lw=0.8, ls=":")
        axis.text(-0.38, FAILED_BELOW - 1, f"below {FAILED_BELOW:.0f}:\nfailed", va="top", fontsize=8)
        axis.set(xticks=[0, 1], xticklabels=ARMS, xlim=(-0.4, 1.4))
        gained, lost = int((part["difference"] > 0).sum()), int((part["difference"] < 0).sum())
        words.append(f"{region}: {gained} of {len(part)} patients gain with mixed, {lost} lose")
    panels[0][0].set_ylabel("Dice of a test patient (%)")
    return described(figure, f"Dice per test patient, standard against mixed. {'; '.join(words)}.", title)


@styled
def dice_by_fold(pairs: pd.DataFrame, *, title: str = "") -> Figure:
    """Mean Dice of each fold under both supervisions (columns of the paper's tables 2 and 4), and the mean over folds.

    `pairs` is that of `statistics.pairs`, for one scenario; one panel per region. Small dots are patients.
    """
    folds = sorted(pairs["fold"].unique())
    figure, panels = _panel_per_region(pairs, width=max(3.4, 0.75 * len(folds) + 1.4), height=3.6)
    words = []
    for axis, region, part in panels:
        means = part.groupby("fold")[list(ARMS)].mean()
        for arm, shift in zip(ARMS, (-0.16, 0.16), strict=True):
            style = {"marker": MARKERS[arm], "color": COLORS[arm]}
            axis.scatter(
                [folds.index(fold) + shift for fold in part["fold"]], part[arm], s=7, alpha=0.35, lw=0, **style
            )
            style |= {"s": 60, "zorder": 3, "edgecolors": "black", "label": f"{arm}, mean of the fold"}
            axis.scatter([folds.index(fold) + shift for fold in means.index], means[arm], **style)
            label = f"{arm}, mean over folds: {means[arm].mean():.1f}"
            axis.axhline(means[arm].mean(), color=COLORS[arm], ls=DASHES[arm], lw=1.2, label=label)
        axis.set(xticks=range(len(folds)), xticklabels=folds, xlabel="fold", xlim=(-0.6, len(folds) - 0.4))
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        ahead = int((means["mixed"] > means["standard"]).sum())
        words.append(f"{region}: mixed is ahead in {ahead} of {len(means)} folds")
    panels[0][0].set_ylabel("Dice (%)")
    return described(figure, f"Mean Dice by fold. {'; '.join(words)}.", title)


# Variants and scenarios


@styled
def variant_ladder(dice: pd.DataFrame, table: pd.DataFrame, *, title: str = "") -> Figure:
    """Variants from top to bottom: mean Dice (left), and the paired difference to `against` with its interval (right).

    `dice` and `table` are those of `tables.dice_by_variant` and `tables.variant_table`, for one region. Thin lines
    on the left are folds.
    """
    places = np.arange(len(table))
    figure, axes = new_figure(1, 2, width=4.4, height=0.62 * len(table) + 1.3, sharey=True)
    left, right = axes[0]
    by_fold = dice.groupby(level="fold").mean()
    for fold, means in by_fold.iterrows():
        left.plot(means, places, color=COLORS["patients"], lw=0.9, marker="o", ms=3)
        left.annotate(f"{fold}", (means.iloc[0], -0.18), ha="center", va="bottom", fontsize=8)
    left.scatter(table["mean"], places, s=70, color=COLORS["mixed"], edgecolors="black", zorder=3)
    for place, mean in zip(places, table["mean"], strict=True):
        note(left, f"{mean:.1f}", (mean, place), (0, -14), ha="center", weight="bold", bbox=WHITE)
    left.set_yticks(places, [_in_two_lines(name) for name in table["variant"]])
    left.set(xlabel="Dice (%): mean, and single folds (thin, numbered)", ylim=(len(table) - 0.4, -0.7))
    steps = table[table["against"] != ""]
    gain = steps["difference"]
    style = {"fmt": "o", "color": "black", "ecolor": COLORS["patients"], "capsize": 3}
    right.errorbar(gain, steps.index, xerr=np.stack([gain - steps["low"], steps["high"] - gain]), **style)
    for place, value in gain.items():
        note(right, f"{value:+.1f}", (value, place), (0, 6), ha="center")
    right.axvline(0, color="black", lw=0.8)
    compared = "the line above" if steps["against"].nunique() > 1 else steps["against"].iloc[0]
    folds = f", {len(by_fold)} fold{'s'[: len(by_fold) - 1]} only" if len(by_fold) < 3 else ""
    right.set_xlabel(f"difference to {compared} (Dice points, 95 %{folds})")
    words = []
    for row in table.itertuples():
        found = f" ({row.difference:+.1f}, {row.low:+.1f} to {row.high:+.1f})" if row.against else ""
        words.append(f"{row.variant}: {row.mean:.1f}{found}")
    counted = f"{table['n_patients'].iloc[0]} test patients of {len(by_fold)} folds"
    text = f"Mean Dice of each variant, and the difference to {compared}. {counted}. {'; '.join(words)}."
    return described(figure, text, title)


def _in_two_lines(name: str) -> str:
    half = name.find(" ", len(name) // 2)
    return name if len(name) < 22 or half < 0 else f"{name[:half]}\n{name[half + 1 :]}"


@styled
def dice_by_annotation(table: pd.DataFrame, *, task: str = "whole_tumor", title: str = "") -> Figure:
    """Mean Dice against the number of fully annotated scans, the paper's figure 7; one panel per region of `task`.

    `table` is that of `tables.comparison_table`, for one cohort and preset; an empty one gives the paper's curve
    alone. Filled markers and lines are the paper's, open markers ours. The axis is logarithmic.
    """
    regions = list(REGIONS) if task == "multiclass" else [task]
    printed = TABLE_3 if task == "multiclass" else TABLE_1
    figure, axes = new_figure(1, len(regions), width=4.2, height=3.6, sharey=True)
    words = []
    for axis, region in zip(axes[0], regions, strict=True):
        ours = table[(table["task"] == task) & (table["region"] == region)]
        paper = {scenario: row[list(REGIONS).index(region)] for scenario, row in printed.items()}
        for arm in ARMS:
            style = {"color": COLORS[arm], "marker": MARKERS[arm]}
            n_fa = sorted(n for a, n in paper if a == arm)
            axis.plot(n_fa, [paper[arm, n] for n in n_fa], ls=DASHES[arm], label=f"{arm}, the paper", **style)
            shown = ours.dropna(subset=[arm]).sort_values("n_fa")
            if len(shown):
                style |= {"label": f"{arm}, here", "mfc": "none", "ms": 10, "mew": 2, "ls": ":"}
                axis.plot(shown["n_fa"], shown[arm], **style)
        log_ticks(axis, sorted({*(n for _, n in paper), *ours["n_fa"]}))
        axis.set(xlabel="fully annotated scans", title=region_name(region))
        gain = paper["mixed", 5] - paper["standard", 5]
        here = [f"{row.difference:+.1f} at {row.n_fa}" for row in ours.dropna(subset="difference").itertuples()]
        words.append(
            f"{region_name(region)}: mixed is ahead by {gain:.1f} points in the paper at 5 scans"
            + (f", here {', '.join(here)}" if here else "")
        )
    axes[0, 0].set_ylabel("mean Dice (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return described(figure, f"Mean Dice against fully annotated scans. {'; '.join(words)}.", title)
