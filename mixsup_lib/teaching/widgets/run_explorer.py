"""The run explorer: two finished runs side by side, by their curves, patient by patient, and in the slices they kept.

`draw_runs` is the picture, `run_explorer` the same with controls.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.experiments.pictures import example_panel, loss_curve, say_if_empty
from mixsup_lib.experiments.runs import collect, read_examples, read_history
from mixsup_lib.experiments.style import COLORS, MARKERS, described, new_figure, styled
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.files import DataError
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure

SMOOTH = 5
"""Rows of a recorded history in each mean of a curve; recorded runs keep one row for five iterations."""

_PARTNERS = ["cohort", "preset", "task", "n_fa", "n_wa", "fold", "seed"]


class Runs:
    """The finished runs below one folder, or several; what a run recorded is read once.

    table: what `runs.collect` returns; runs: one row of it for each run; folders: name of a run, for example "5 FA,
    fold 1, mixed, seed 0" -> its folder; regions: regions that were scored.
    """

    def __init__(self, folders: str | Path | Iterable[str | Path]) -> None:
        """Raises DataError where no run has finished or a folder is damaged."""
        self.table = collect(folders)
        self.regions = tuple(dict.fromkeys(self.table["region"]))
        self.runs = self.table.drop_duplicates("folder").sort_values([*_PARTNERS, "supervision"])
        form = "{n_fa} FA, fold {fold}, {supervision}, seed {seed}"
        names = [form.format(**run) for run in self.runs.to_dict("records")]
        if len(set(names)) < len(names):
            further = self.runs[["preset", "task", "n_wa", "settings_hash", "cohort"]].astype(str)
            names = [", ".join([name, *more]) for name, more in zip(names, further.to_numpy(), strict=True)]
        self.runs.index = names
        self.folders = self.runs["folder"].to_dict()
        self.history = functools.cache(lambda name: read_history(self.folders[name]))
        self.examples = functools.cache(lambda name: read_examples(self.folders[name]))

    def patients(self, name: str, region: str) -> pd.Series:
        """Dice (%) of the run's test patients, NaN for those without the region."""
        of_run = (self.table["folder"] == self.folders[name]) & (self.table["region"] == region)
        return self.table[of_run].set_index("patient")["dice"]

    def arm(self, name: str) -> str:
        """Supervision of the run."""
        return self.runs.at[name, "supervision"]

    def partner(self, name: str) -> str:
        """A run of the same fold and seed under the other supervision, or the run itself where there is none."""
        here = self.runs.loc[name]
        alike = (self.runs[_PARTNERS] == here[_PARTNERS]).all(axis=1)
        return next(iter(self.runs.index[alike & (self.runs["supervision"] != here["supervision"])]), name)


def draw_runs(runs: Runs, *, first: str, second: str, view: str = "patients", region: str = "") -> Figure:
    """Two runs (names in `runs.folders`) in one of `VIEWS`; `region` "": the first one scored.

    Raises DataError where the two runs cannot be compared.
    """
    return VIEWS[view](runs, first, second, region or runs.regions[0])


def run_explorer(runs: Runs) -> VBox:
    """`draw_runs` with controls: two runs, what to look at, and the region where several were scored."""
    import ipywidgets as widgets

    names, choose = list(runs.folders), widgets.Dropdown
    wide = {"options": names, "layout": widgets.Layout(width="26em")}
    first = next((name for name in names if runs.arm(name) == "standard"), names[0])
    controls = {
        "first": choose(value=first, description="run", **wide),
        "second": choose(value=runs.partner(first), description="against", **wide),
        "view": widgets.ToggleButtons(options=list(VIEWS), value="patients", description="show"),
    }
    if len(runs.regions) > 1:
        options = [(region_name(region), region) for region in runs.regions]
        controls["region"] = choose(options=options, description="region")
    return panel(functools.partial(draw_runs, runs), controls)


@styled
def _curves(runs: Runs, first: str, second: str, region: str) -> Figure:
    """Losses against the iteration; the first run thin and solid, the second dashed."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = new_figure(1, 2, width=4.2, height=3.4, places=_places(0.27))
    words = []
    for name, style in zip((first, second), ({"ls": "-", "lw": 1.1}, {"ls": "--", "lw": 1.7}), strict=True):
        history, style = runs.history(name), style | {"color": COLORS[runs.arm(name)], "label": name}
        loss_curve(axes[0, 0], history, "segmentation_loss", SMOOTH, **style)
        loss_curve(axes[0, 1], history, "classification_loss", SMOOTH, **style)
        last = history[["segmentation_loss", "classification_loss"]].tail(SMOOTH).mean()
        classified = f", classification {last.iloc[1]:.3g}" if last.iloc[1] else ""
        words.append(f"{name}: segmentation {last.iloc[0]:.3g}{classified}")
    for axis in axes[0]:
        say_if_empty(axis)
        axis.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
        axis.yaxis.set_major_formatter("{x:g}")  # a typeset power of ten takes as long as all the rest
    axes[0, 0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    return described(figure, f"Losses at the end of training. {'; '.join(words)}.")


@styled
def _patients(runs: Runs, first: str, second: str, region: str) -> Figure:
    """Dice of each patient under both runs, ordered by the first; and the differences, ordered."""
    both = {"first": runs.patients(first, region), "second": runs.patients(second, region)}
    dice = pd.DataFrame(both).dropna().sort_values("first")
    if dice.empty:
        raise DataError(
            f"{first} and {second} tested no patient in common, so there is no difference within a patient; "
            "choose two runs of one fold."
        )
    figure, axes = new_figure(1, 2, width=4.2, height=3.8, places=_places(0.24))
    x = np.arange(len(dice))
    axes[0, 0].vlines(x, dice["first"], dice["second"], color=COLORS["patients"], lw=1)
    for name, column in ((first, "first"), (second, "second")):
        color = COLORS[runs.arm(name)]
        style = {"marker": MARKERS[runs.arm(name)], "s": 26, "zorder": 3, "edgecolors": color, "label": name}
        axes[0, 0].scatter(x, dice[column], facecolors="none" if column == "first" else color, **style)
    axes[0, 0].set(xlabel="patients, by Dice of the first run", ylabel=f"Dice, {region_name(region)} (%)")
    axes[0, 0].set_ylim(-3, 103)
    axes[0, 0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.17), ncols=2)
    gains = np.sort(dice["second"] - dice["first"])
    axes[0, 1].bar(x, gains, color=COLORS["patients"], edgecolor="black", linewidth=0.5)
    axes[0, 1].axhline(gains.mean(), color="black", ls="--", lw=1.4)
    axes[0, 1].axhline(0, color="black", lw=0.8)
    axes[0, 1].set(xlabel="patients, by difference", ylabel="second minus first (Dice points)")
    axes[0, 1].set_title(f"mean difference {gains.mean():+.1f} (dashed)", y=1.0)
    words = f"{second} minus {first}, {len(dice)} patients: mean {gains.mean():+.1f} Dice points, "
    words += f"{(gains > 0).sum()} gain, {(gains < 0).sum()} lose, from {gains[0]:+.1f} to {gains[-1]:+.1f}."
    return described(figure, words)


def _slices(runs: Runs, first: str, second: str, region: str) -> Figure:
    """The slices that each run kept of its best, its median and its worst test patient."""
    examples = {name: runs.examples(name) for name in (first, second)}
    dice = {(name, who): score for name in examples for who, score in runs.patients(name, region).items()}
    return example_panel(examples, dice, arms={name: runs.arm(name) for name in examples})


def _places(bottom: float) -> list[tuple[float, float, float, float]]:
    return [(left, bottom, 0.39, 0.9 - bottom) for left in (0.09, 0.59)]


VIEWS = {"learning curves": _curves, "patients": _patients, "slices": _slices}
