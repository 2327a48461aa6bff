"""The annotation planner: hours, minutes per scan and scans at hand -> how many masks, how many slice labels.

`draw_plans` is the picture, `annotation_planner` the same with controls.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.experiments.style import COLORS, described, new_figure, styled
from mixsup_lib.experiments.tables import caption
from mixsup_lib.teaching.planner import MINUTES_FA, MINUTES_WA, Surface, advice, annotation_hours, plans
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure


@styled
def draw_plans(
    surface: Surface,
    *,
    hours: float,
    minutes_fa: float = MINUTES_FA,
    minutes_wa: float = sum(MINUTES_WA) / 2,
    scans: int | None = None,
) -> Figure:
    """Dice that may be expected of each way to spend the hours (left), and how many scans it annotates (right).

    Raises SettingError as `planner.plans` does.
    """
    table = plans(surface, hours, minutes_fa=minutes_fa, minutes_wa=minutes_wa, scans=scans)
    best = table.loc[table["dice"].idxmax()]
    places = [(left, 0.16, 0.39, 0.68) for left in (0.08, 0.58)]
    figure, axes = new_figure(1, 2, width=4.2, height=3.7, places=places)
    for axis in axes[0]:
        axis.set(xlabel="masks (fully annotated scans)", xlim=(0, surface.n_fa[-1] + 1))
    dice, scans_axis = axes[0]
    n_fa, level, color = table["n_fa"], table[~table["worse"]], COLORS["mixed"]
    dice.fill_between(n_fa, table["low"], table["high"], color=color, alpha=0.25, label="95 % interval")
    dice.plot(n_fa, table["dice"], color=color, lw=1.6, marker="." if len(table) < 3 else "")
    style = {"color": "black", "lw": 3, "alpha": 0.7}
    dice.plot(level["n_fa"], level["dice"], label="cannot be told from the best", **style)
    dice.scatter(best["n_fa"], best["dice"], s=70, color="black", zorder=3, label="best")
    dice.set(ylabel="Dice that may be expected (%)", ylim=(surface.dice.min() - 8, surface.dice.max() + 8))
    dice.legend(fontsize=8, loc="lower right")
    scans_axis.bar(n_fa, table["n_wa"], color=COLORS["patients"], edgecolor="black", lw=0.4)
    scans_axis.axvline(best["n_fa"], color="black", lw=1)
    scans_axis.set(ylabel="slice-labelled scans besides", ylim=(0, 1.1 * max(surface.n_wa[-1], 1)))
    given = f"{hours:g} hours, {minutes_fa:g} min a mask, {minutes_wa:g} min a scan's slice labels"
    given += "" if scans is None else f", {scans} scans"
    return described(figure, advice(surface, table), f"{caption(surface.cohort)}; {given}")


def annotation_planner(surface: Surface) -> VBox:
    """Sliders for the hours, the minutes that a mask and a scan's slice labels take, and the scans at hand."""
    import ipywidgets as widgets

    fewest, most, weak = (int(number) for number in (*surface.n_fa[[0, -1]], surface.n_wa[-1]))
    least, longest = np.ceil(annotation_hours(fewest)), np.ceil(annotation_hours(most, weak))
    slider, minutes_wa = widgets.FloatSlider, {"min": 0.5, "max": 10, "step": 0.5}
    controls = {
        "hours": slider(10.0, min=least, max=longest, step=0.5, description="hours"),
        "minutes_fa": slider(MINUTES_FA, min=15, max=90, step=5, description="minutes a mask"),
        "minutes_wa": slider(sum(MINUTES_WA) / 2, description="minutes a scan's slice labels", **minutes_wa),
        "scans": widgets.IntSlider(most + weak, min=5, max=most + weak, description="scans at hand"),
    }
    return panel(functools.partial(draw_plans, surface), controls)
