"""The picture of a scenario's variants: every fold's mean, the mean over folds, and what each change brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.plot_style import COLORS, described, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
