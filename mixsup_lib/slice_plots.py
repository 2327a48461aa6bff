"""Slices with the outlines of ground truth and prediction: an outline hides nothing of the image, a mask does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.errors import DataError
from mixsup_lib.paired import ARMS
from mixsup_lib.plot_style import COLORS, ON_IMAGE, described, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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
