"""Pictures of what annotation buys: Dice against the number of weak scans, and of both kinds of scans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.config import RunConfig
from mixsup_lib.experiments.style import COLORS, described, log_ticks, new_figure, note, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mixsup_lib.teaching.planner import Surface


LINES = ("-", "--", "-.", ":", (0, (9, 3)))


@styled
def weak_scans(dice: pd.DataFrame, configs: Mapping[str, RunConfig], *, title: str = "") -> Figure:
    """Mean Dice against the number of weak scans (blue, single folds thin); standard supervision as dashed levels.

    `dice` is that of `variants.dice_by_variant` for one region, `configs` names its columns. The standard variant with
    as many annotated scans as the mixed ones stands at 0 weak scans.
    """
    mixed = {config.n_wa: name for name, config in configs.items() if config.supervision == "mixed"}
    n_fa = {configs[name].n_fa for name in mixed.values()}.pop()
    standard = {config.n_fa: name for name, config in configs.items() if config.supervision == "standard"}
    curve = {0: standard.pop(n_fa), **dict(sorted(mixed.items()))}
    by_fold = dice.groupby(level="fold").mean()  # (folds, variants)
    means, n_wa = by_fold.mean(), list(curve)
    right = 1.2 * n_wa[-1]
    figure, axes = new_figure(1, 1, width=6.4, height=4.2)
    axis = axes[0, 0]
    names, thin = list(curve.values()), {"color": COLORS["patients"], "lw": 0.9, "marker": "o", "ms": 3}
    for fold, row in by_fold.iterrows():
        axis.plot(n_wa, row[names], **thin)
        note(axis, f"{fold}", (n_wa[-1], row[names[-1]]), (5, -3), fontsize=8)
    thick = {"color": COLORS["mixed"], "lw": 2, "marker": "D", "label": f"{n_fa} FA + weak scans"}
    axis.plot(n_wa, means[names], **thick)
    for (count, name), line in zip(sorted(standard.items()), LINES[1:], strict=False):
        axis.axhline(means[name], color=COLORS["standard"], lw=1.3, ls=line)
        level = f"{count} FA: {means[name]:.1f}"
        note(axis, level, (right, means[name]), (-2, 2), ha="right", fontsize=8)
    axis.plot([], [], color=COLORS["standard"], ls="--", label="standard supervision with more masks")
    axis.plot([], [], label="single folds, numbered", **thin)
    axis.set(xlabel="weakly annotated scans (WA)", ylabel="mean Dice of the folds (%)", xlim=(-3, right))
    axis.legend(fontsize=8, loc="lower right")
    found = (f"{name}: {means[name]:.1f}" for name in [*names, *standard.values()])
    return described(figure, f"Mean Dice, {'; '.join(found)}. {len(by_fold)} folds.", title)


@styled
def surface_lines(surface: Surface, *, title: str = "") -> Figure:
    """Dice of every measured point: a line per number of weak scans, against the number of annotated scans (log)."""
    figure, axes = new_figure(1, 1, width=6.0, height=3.8)
    axis = axes[0, 0]
    low, high = np.quantile(surface.samples, [0.025, 0.975], axis=0)  # (F, W)
    shades = (COLORS["standard"], "#56B4E9", COLORS["mixed"])
    for index, n_wa in enumerate(surface.n_wa):
        shift = 1 + 0.03 * (index - 1)  # so that the intervals do not cover each other
        spread = np.abs(np.stack([low[:, index], high[:, index]]) - surface.dice[:, index])
        label = f"{n_wa} weak scans" if n_wa else "no weak scans (standard)"
        style = {"color": shades[index % 3], "ls": LINES[index % len(LINES)], "marker": "oDs"[index % 3]}
        style |= {"yerr": spread, "capsize": 3, "label": label}
        axis.errorbar(surface.n_fa * shift, surface.dice[:, index], **style)
    log_ticks(axis, surface.n_fa)
    axis.set(xlabel="masks (fully annotated scans, log)", ylabel="mean Dice (%), 95 % interval")
    axis.legend(fontsize=8, loc="lower right")
    each = np.ndenumerate(surface.dice)
    points = [f"{surface.n_fa[i]} FA + {surface.n_wa[j]} WA: {dice:.1f}" for (i, j), dice in each]
    return described(figure, f"Mean Dice, {'; '.join(points)}. {surface.n_folds} folds.", title)
