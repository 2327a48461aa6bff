"""Figures of results: learning curves, patients and folds; with those of `slice_plots`, all figures in one place.

Every function takes plain data and returns a matplotlib Figure that carries a summary in words (`alt_text`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.errors import DataError
from mixsup_lib.paired import ARMS, mean_over_folds
from mixsup_lib.plot_style import COLORS, DASHES, MARKERS, alt_text, described, new_figure, show, styled
from mixsup_lib.results import FAILED_BELOW, region_name
from mixsup_lib.slice_plots import case_panel, contour_slice, example_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "alt_text",
    "case_panel",
    "contour_slice",
    "dice_by_fold",
    "example_panel",
    "learning_curves",
    "paired_dots",
    "show",
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
