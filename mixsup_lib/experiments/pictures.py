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
    alt_text,
    described,
    new_figure,
    styled,
)
from mixsup_lib.experiments.tables import FAILED_BELOW, region_name
from mixsup_lib.files import DataError
from mixsup_lib.paper import REGIONS, TABLE_1, TABLE_3

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
if TYPE_CHECKING:
    from matplotlib.figure import Figure
if TYPE_CHECKING:
    from matplotlib.figure import Figure
if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    from matplotlib.patheffects import withStroke

    bright = image[image != 0]
    axis.imshow(
        image, vmin=min(0.0, float(image.min())), vmax=np.percentile(bright, 99.5) if bright.size else 1.0
    )
    outlines = ((truth, COLORS["truth"], "solid"), (prediction, ON_IMAGE[supervision], (0, (4, 1.5))))
    for mask, color, dashes in outlines:
        if mask is not None and np.any(mask):
            padded = np.pad(np.asarray(mask) != 0, 1)  # (H + 2, W + 2): closes outlines at the border
            places = [np.arange(-1, size + 1) for size in image.shape[::-1]]
            lines = axis.contour(
                *places, padded, levels=[0.5], colors=color, linestyles=[dashes], linewidths=1.4
            )
            lines.set_path_effects([withStroke(linewidth=2.4, foreground="black")])
    axis.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    axis.set_axis_off()


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
        below = "" if cell_labels is None else cell_labels[r, c]
        axis.text(0.5, -0.03, below, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    for axis, label in zip(axes[:, 0], row_labels, strict=True):
        axis.text(-0.04, 0.5, label, transform=axis.transAxes, ha="right", va="center", rotation=90)
    for axis, label in zip(axes[0], column_labels, strict=False):
        axis.set_title(label)
    _outline_legend(figure, sorted(set(arms.ravel()), key=ARMS.index))
    shown = (
        [str(label).replace("\n", ", ") for label in np.ravel(cell_labels)] if cell_labels is not None else []
    )
    words = f"Slices with the outlines of ground truth and prediction; rows: {'; '.join(row_labels)}"
    words += f"; columns: {'; '.join(column_labels)}" if len(column_labels) else ""
    return described(figure, words + (f". Shown: {'; '.join(filter(None, shown))}." if shown else "."), title)


def example_panel(
    examples: Mapping[str, Mapping[str, np.ndarray]],
    dice: Mapping[tuple[str, str], float],
    *,
    title: str = "",
) -> Figure:
    """The recorded slices of one run per arm: a row per arm, its best, median and worst test patient.

    `examples`: supervision -> what `results.read_examples` returns; `dice`: (supervision, patient) -> Dice (%) of the
    whole volume. An arm with fewer than three examples leaves cells blank. Raises DataError if slice sizes differ.
    """
    sizes = {run["image"].shape[1:] for run in examples.values()}
    if len(sizes) != 1:
        raise DataError(
            f"example slices have sizes {sorted(sizes)}, expected one size; compare runs of one preset."
        )
    columns = max(len(run["image"]) for run in examples.values())
    shape = (len(examples), columns, *sizes.pop())
    images = np.full(shape, np.nan, np.float32)
    truth, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    labels = np.full(shape[:2], "", dtype=object)
    for row, (arm, run) in enumerate(examples.items()):
        count = len(run["image"])
        images[row, :count], truth[row, :count] = run["image"], run["truth"]
        prediction[row, :count] = run["prediction"]
        for column, (patient, z) in enumerate(zip(run["patient"], run["z"], strict=True)):
            labels[row, column] = f"{patient}\nslice {z}, Dice {dice[arm, patient]:.0f}"
    return case_panel(
        images,
        truth,
        prediction,
        row_labels=[f"{arm} supervision" for arm in examples],
        column_labels=("best", "median", "worst") if columns == 3 else (),
        cell_labels=labels,
        supervision=[[arm] for arm in examples],
        title=title,
    )


def _outline_legend(figure: Figure, arms: Sequence[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=2.4, foreground="black")]
    lines = [Line2D([], [], color=COLORS["truth"], lw=1.4, label="ground truth", path_effects=effects)]
    for arm in arms:
        style = {"color": ON_IMAGE[arm], "ls": (0, (4, 1.5)), "lw": 1.4, "path_effects": effects}
        lines.append(Line2D([], [], label=f"prediction, {arm} supervision", **style))
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8)


__all__ = [
    "alt_text",
    "case_panel",
    "contour_slice",
    "dice_by_fold",
    "example_panel",
    "learning_curves",
    "paired_dots",
]


@styled
def learning_curves(histories: Mapping[tuple[str, str], pd.DataFrame], *, smooth: int = 25) -> Figure:
    """Segmentation loss, classification loss and learning rate against the iteration, one line per run.

    `histories`: (supervision, label) -> history of the run. Losses are running means over `smooth`
    iterations, on a logarithmic axis. Standard supervision has no classification loss.
    """
    figure, axes = new_figure(1, 3, width=3.6, height=3.0)
    panels = {
        "segmentation_loss": "segmentation loss (nats)",
        "classification_loss": "classification loss (nats)",
        "learning_rate": "learning rate",
    }
    for axis, (column, label) in zip(axes[0], panels.items(), strict=True):
        for (supervision, _), history in histories.items():
            values = history[column].rolling(smooth if "loss" in column else 1, min_periods=1).mean()
            if values.notna().any():
                style = {"color": COLORS[supervision], "ls": DASHES[supervision]}
                axis.plot(history["iteration"], values, lw=1.2, alpha=0.85, **style)
        axis.set(xlabel="iteration", ylabel=label, yscale="log" if axis.lines else "linear")
    if not axes[0, 1].lines:
        axes[0, 1].set_axis_off()
        axes[0, 1].text(0.5, 0.5, "no classification branch", transform=axes[0, 1].transAxes, ha="center")
    for arm in ARMS:
        if names := [name for supervision, name in histories if supervision == arm]:
            axes[0, 0].plot([], [], color=COLORS[arm], ls=DASHES[arm], label=f"{arm} ({', '.join(names)})")
    if histories:
        figure.legend(loc="outside lower center", ncols=len(ARMS), fontsize=8)
    last = [
        f"{supervision} {name}: {history['segmentation_loss'].tail(smooth).mean():.3g}"
        for (supervision, name), history in histories.items()
    ]
    return described(
        figure,
        f"Losses and learning rate of {len(last)} run{'s' * (len(last) != 1)}. Final segmentation loss: {_join(last)}.",
    )


@styled
def paired_dots(pairs: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice of every test patient under standard and mixed supervision, joined by a line; one panel per region.

    `pairs` is that of `results.pairs`, for one scenario. The large markers are the means over folds.
    """
    _refuse_empty(pairs)
    regions = list(dict.fromkeys(pairs["region"]))
    figure, axes = new_figure(1, len(regions), width=3.8, height=4.2, sharey=True)
    words = []
    for axis, region in zip(axes[0], regions, strict=True):
        part = pairs[pairs["region"] == region]
        axis.plot(
            [0, 1], part[list(ARMS)].to_numpy().T, color=COLORS["patients"], lw=0.7, alpha=0.6, zorder=1
        )
        for x, arm in enumerate(ARMS):
            style = {"marker": MARKERS[arm], "color": COLORS[arm]}
            axis.scatter(np.full(len(part), x), part[arm], s=14, alpha=0.7, zorder=2, linewidths=0, **style)
            mean = mean_over_folds(part[arm].to_numpy(), part["fold"].to_numpy())
            side = -0.14 if x == 0 else 1.14
            axis.scatter(side, mean, s=90, zorder=3, edgecolors="black", **style)
            axis.annotate(
                f"{mean:.1f}", (side, mean), (0, 10), textcoords="offset points", ha="center", weight="bold"
            )
        axis.axhline(FAILED_BELOW, color="black", lw=0.8, ls=":")
        axis.text(-0.38, FAILED_BELOW - 1, f"below {FAILED_BELOW:.0f}:\nfailed", va="top", fontsize=8)
        axis.set(xticks=[0, 1], xticklabels=ARMS, xlim=(-0.4, 1.4), ylim=(-3, 103))
        axis.set_title(region_name(region))
        gained, lost = int((part["difference"] > 0).sum()), int((part["difference"] < 0).sum())
        words.append(f"{region_name(region)}: {gained} of {len(part)} patients gain with mixed, {lost} lose")
    axes[0, 0].set_ylabel("Dice of a test patient (%)")
    return described(figure, f"Dice per test patient, standard against mixed. {_join(words)}.", title)


@styled
def dice_by_fold(pairs: pd.DataFrame, *, title: str = "") -> Figure:
    """Mean Dice of each fold under both supervisions (columns of the paper's tables 2 and 4), and the mean over folds.

    `pairs` is that of `results.pairs`, for one scenario; one panel per region. Small dots are patients.
    """
    _refuse_empty(pairs)
    regions = list(dict.fromkeys(pairs["region"]))
    folds = sorted(pairs["fold"].unique())
    figure, axes = new_figure(
        1, len(regions), width=max(3.4, 0.75 * len(folds) + 1.4), height=3.6, sharey=True
    )
    words = []
    for axis, region in zip(axes[0], regions, strict=True):
        part = pairs[pairs["region"] == region]
        means = part.groupby("fold")[list(ARMS)].mean()
        for arm, shift in zip(ARMS, (-0.16, 0.16), strict=True):
            style = {"marker": MARKERS[arm], "color": COLORS[arm]}
            x = [folds.index(fold) + shift for fold in part["fold"]]
            axis.scatter(x, part[arm], s=7, alpha=0.35, linewidths=0, **style)
            x = [folds.index(fold) + shift for fold in means.index]
            axis.scatter(
                x, means[arm], s=60, zorder=3, edgecolors="black", label=f"{arm}, mean of the fold", **style
            )
            label = f"{arm}, mean over folds: {means[arm].mean():.1f}"
            axis.axhline(means[arm].mean(), color=COLORS[arm], ls=DASHES[arm], lw=1.2, label=label)
        axis.set(xticks=range(len(folds)), xticklabels=folds, xlabel="fold", xlim=(-0.6, len(folds) - 0.4))
        axis.set(ylim=(-3, 103), title=region_name(region))
        axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
        ahead = int((means["mixed"] > means["standard"]).sum())
        words.append(f"{region_name(region)}: mixed is ahead in {ahead} of {len(means)} folds")
    axes[0, 0].set_ylabel("Dice (%)")
    return described(figure, f"Mean Dice by fold. {_join(words)}.", title)


def _refuse_empty(pairs: pd.DataFrame) -> None:
    if pairs.empty:
        raise DataError(
            "no patient was scored in both arms, so there is nothing to draw; run both arms first."
        )


def _join(words: Sequence[str]) -> str:
    return "; ".join(words)


WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
"""Behind a number that a line may cross."""


@styled
def variant_ladder(dice: pd.DataFrame, table: pd.DataFrame, *, title: str = "") -> Figure:
    """Variants from top to bottom: mean Dice (left), and the paired difference to `against` with its interval (right).

    `dice` and `table` are those of `variants.dice_by_variant` and `variants.variant_table`, for one region. Thin lines
    on the left are folds.
    """
    names = [_in_two_lines(name) for name in table["variant"]]
    places = np.arange(len(names))
    figure, axes = new_figure(1, 2, width=4.4, height=0.62 * len(names) + 1.3, sharey=True)
    by_fold = dice.groupby(level="fold").mean()
    for fold, means in by_fold.iterrows():
        axes[0, 0].plot(means, places, color=COLORS["patients"], lw=0.9, marker="o", ms=3)
        axes[0, 0].annotate(f"{fold}", (means.iloc[0], -0.18), ha="center", va="bottom", fontsize=8)
    axes[0, 0].scatter(table["mean"], places, s=70, color=COLORS["mixed"], edgecolors="black", zorder=3)
    for place, mean in zip(places, table["mean"], strict=True):
        axes[0, 0].annotate(
            f"{mean:.1f}",
            (mean, place),
            (0, -14),
            textcoords="offset points",
            ha="center",
            weight="bold",
            bbox=WHITE,
        )
    axes[0, 0].set(
        yticks=places, yticklabels=names, xlabel="Dice (%): mean, and single folds (thin, numbered)"
    )
    axes[0, 0].set_ylim(len(names) - 0.4, -0.7)
    steps = table[table["against"] != ""]
    spread = np.stack([steps["difference"] - steps["low"], steps["high"] - steps["difference"]])
    axes[0, 1].errorbar(
        steps["difference"],
        steps.index,
        xerr=spread,
        fmt="o",
        color="black",
        ecolor=COLORS["patients"],
        capsize=3,
    )
    for place, row in steps.iterrows():
        axes[0, 1].annotate(
            f"{row['difference']:+.1f}",
            (row["difference"], place),
            (0, 6),
            textcoords="offset points",
            ha="center",
        )
    axes[0, 1].axvline(0, color="black", lw=0.8)
    compared = "the line above" if steps["against"].nunique() > 1 else steps["against"].iloc[0]
    axes[0, 1].set(xlabel=f"difference to {compared} (Dice points, 95 %)")
    words = f"{table['n_patients'].iloc[0]} test patients of {len(by_fold)} folds. " + "; ".join(
        f"{row['variant']}: {row['mean']:.1f}"
        + (f" ({row['difference']:+.1f}, {row['low']:+.1f} to {row['high']:+.1f})" if row["against"] else "")
        for _, row in table.iterrows()
    )
    return described(figure, f"Mean Dice of each variant, and the difference to {compared}. {words}.", title)


def _in_two_lines(name: str) -> str:
    half = name.find(" ", len(name) // 2)
    return name if len(name) < 22 or half < 0 else f"{name[:half]}\n{name[half + 1 :]}"


@styled
def dice_by_annotation(table: pd.DataFrame, *, task: str = "whole_tumor", title: str = "") -> Figure:
    """Mean Dice against the number of fully annotated scans, the paper's figure 7; one panel per region of `task`.

    `table` is that of `results.comparison_table`, for one cohort and preset; an empty one gives the paper's curve
    alone. Filled markers and lines are the paper's, open markers ours. The axis is logarithmic.
    """
    regions = list(REGIONS) if task == "multiclass" else [task]
    figure, axes = new_figure(1, len(regions), width=4.2, height=3.6, sharey=True)
    words = []
    for axis, region in zip(axes[0], regions, strict=True):
        ours = table[(table["task"] == task) & (table["region"] == region)]
        printed = _printed(task, region)
        for arm in ARMS:
            style = {"color": COLORS[arm], "marker": MARKERS[arm]}
            n_fa, dice = zip(*sorted(printed[arm].items()), strict=True)
            axis.plot(n_fa, dice, ls=DASHES[arm], label=f"{arm}, the paper", **style)
            shown = ours.dropna(subset=[arm]).sort_values("n_fa")
            if len(shown):
                label, open_marker = f"{arm}, here", {"mfc": "none", "ms": 10, "mew": 2, "ls": ":"}
                axis.plot(shown["n_fa"], shown[arm], label=label, **open_marker, **style)
        ticks = sorted({*printed["standard"], *ours["n_fa"]})
        axis.set(xscale="log", xlabel="fully annotated scans", title=region_name(region))
        axis.set_xticks(ticks, ticks)
        axis.minorticks_off()
        gain = printed["mixed"][5] - printed["standard"][5]
        words.append(
            f"{region_name(region)}: mixed is ahead by {gain:.1f} points in the paper at 5 scans{_ours(ours)}"
        )
    axes[0, 0].set_ylabel("mean Dice (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    return described(figure, f"Mean Dice against fully annotated scans. {'; '.join(words)}.", title)


def _printed(task: str, region: str) -> dict[str, dict[int, float]]:
    """arm -> fully annotated scans -> mean Dice of the paper's table 1 or 3."""
    rows, column = (TABLE_3 if task == "multiclass" else TABLE_1), list(REGIONS).index(region)
    return {arm: {n: row[column] for (a, n), row in rows.items() if a == arm} for arm in ARMS}


def _ours(rows: pd.DataFrame) -> str:
    found = [
        f"{row.difference:+.1f} at {row.n_fa}"
        for row in rows.itertuples()
        if row.difference == row.difference
    ]
    return f", here {', '.join(found)}" if found else ""
