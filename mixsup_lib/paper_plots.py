"""Results in the form of the paper's figures, beside the paper's own numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mixsup_lib.paired import ARMS
from mixsup_lib.paper import REGIONS, TABLE_1, TABLE_3
from mixsup_lib.plot_style import COLORS, DASHES, MARKERS, described, new_figure, styled
from mixsup_lib.wording import region_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
