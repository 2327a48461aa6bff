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

from mixsup_lib.experiments.pictures import contour_slice
from mixsup_lib.experiments.runs import collect, read_examples, read_history
from mixsup_lib.experiments.style import COLORS, MARKERS, described, new_figure, styled
from mixsup_lib.experiments.tables import region_name
from mixsup_lib.files import DataError, SettingError, nearest
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure


VIEWS = ("learning curves", "patients", "slices, worst first")
SMOOTH = 5
"""Rows of a recorded history in each mean of a curve; recorded runs keep one row for five iterations."""


_PARTNERS = ("cohort", "preset", "task", "n_fa", "n_wa", "fold", "seed")


class Runs:
    """The finished runs below one folder, or several; what a run recorded is read once.

    Attributes:
        table: what `run_records.collect` returns; `runs`: one row of it for each run.
        folders: name of a run, for example "5 FA, fold 1, mixed, seed 0" -> its folder.
        regions: regions that were scored.
    """

    def __init__(self, folders: str | Path | Iterable[str | Path]) -> None:
        """Raises DataError where no run has finished or a folder is damaged."""
        self.table = collect(folders)
        self.regions = tuple(dict.fromkeys(self.table["region"]))
        self.runs = self.table.drop_duplicates("folder").sort_values([*_PARTNERS, "supervision"])
        names = [
            f"{row.n_fa} FA, fold {row.fold}, {row.supervision}, seed {row.seed}"
            for row in self.runs.itertuples()
        ]
        if len(set(names)) < len(names):
            further = [name for name in (*_PARTNERS[:3], "n_wa") if self.runs[name].nunique() > 1]
            if self.runs.groupby([*_PARTNERS, "supervision"])["settings_hash"].nunique().max() > 1:
                further.append("settings_hash")
            values = self.runs[further].astype(str).itertuples(index=False)
            names = [", ".join([name, *more]) for name, more in zip(names, values, strict=True)]
        self.folders = dict(zip(names, self.runs["folder"], strict=True))
        self.history = functools.cache(lambda name: read_history(self.folders[name]))
        self.examples = functools.cache(lambda name: read_examples(self.folders[name]))

    def patients(self, name: str, region: str) -> pd.Series:
        """Dice (%) of the run's test patients who have the region."""
        of_run = (self.table["folder"] == self.folders[name]) & (self.table["region"] == region)
        return self.table[of_run].set_index("patient")["dice"].dropna()

    def arm(self, name: str) -> str:
        """Supervision of the run."""
        return self._row(name)["supervision"]

    def partner(self, name: str) -> str:
        """A run of the same fold and seed under the other supervision, or the run itself where there is none."""
        here = self._row(name)
        for other in self.folders:
            there = self._row(other)
            if here["supervision"] != there["supervision"] and all(
                here[key] == there[key] for key in _PARTNERS
            ):
                return other
        return name

    def _row(self, name: str) -> pd.Series:
        return self.runs[self.runs["folder"] == self.folders[name]].iloc[0]


def draw_runs(runs: Runs, *, first: str, second: str, view: str = "patients", region: str = "") -> Figure:
    """Two runs (names in `runs.folders`) in one of `VIEWS`; `region` "": the first one scored.

    Raises SettingError for an unknown name, DataError where the two runs cannot be compared.
    """
    for name, known, what in (
        (first, runs.folders, "run"),
        (second, runs.folders, "run"),
        (view, VIEWS, "view"),
        (region or runs.regions[0], runs.regions, "region"),
    ):
        if name not in known:
            raise SettingError(
                f"unknown {what} {name!r}; known are {', '.join(known)}.{nearest(name, known)}"
            )
    draw = {"learning curves": _curves, "patients": _patients, VIEWS[2]: _slices}[view]
    return draw(runs, first, second, region or runs.regions[0])


def run_explorer(runs: Runs) -> VBox:
    """`draw_runs` with controls: two runs, what to look at, and the region where several were scored."""
    import ipywidgets as widgets

    names = list(runs.folders)
    wide = {"layout": widgets.Layout(width="26em")}
    first = next((name for name in names if runs.arm(name) == "standard"), names[0])
    controls = {
        "first": widgets.Dropdown(options=names, value=first, description="run", **wide),
        "second": widgets.Dropdown(options=names, value=runs.partner(first), description="against", **wide),
        "view": widgets.ToggleButtons(options=VIEWS, value="patients", description="show"),
    }
    if len(runs.regions) > 1:
        options = [(region_name(region), region) for region in runs.regions]
        controls["region"] = widgets.Dropdown(options=options, description="region")
    return panel(functools.partial(draw_runs, runs), controls)


@styled
def _curves(runs: Runs, first: str, second: str, region: str) -> Figure:
    """Losses against the iteration; the first run thin and solid, the second dashed."""
    from matplotlib.ticker import LogLocator, NullLocator

    figure, axes = new_figure(1, 2, width=4.2, height=3.4)
    _place(figure, axes, bottom=0.27)
    words = []
    for name, style in zip((first, second), ({"ls": "-", "lw": 1.1}, {"ls": "--", "lw": 1.7}), strict=True):
        history = runs.history(name)
        for axis, column in zip(axes[0], ("segmentation_loss", "classification_loss"), strict=True):
            values = history[column].rolling(SMOOTH, min_periods=1).mean()
            if (values > 0).any():
                axis.plot(history["iteration"], values, color=COLORS[runs.arm(name)], label=name, **style)
            axis.set(xlabel="iteration", ylabel=f"{column.replace('_', ' ')} (nats)", yscale="log")
            axis.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), minor_locator=NullLocator())
            axis.yaxis.set_major_formatter("{x:g}")  # a typeset power of ten takes as long as all the rest
        last = history[["segmentation_loss", "classification_loss"]].tail(SMOOTH).mean()
        words.append(
            f"{name}: segmentation {last.iloc[0]:.3g}"
            + (f", classification {last.iloc[1]:.3g}" * bool(last.iloc[1]))
        )
    if not axes[0, 1].lines:
        axes[0, 1].set_axis_off()
        axes[0, 1].text(0.5, 0.5, "no classification branch", transform=axes[0, 1].transAxes, ha="center")
    axes[0, 0].legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2), ncols=2)
    return described(figure, f"Losses at the end of training. {'; '.join(words)}.")


@styled
def _patients(runs: Runs, first: str, second: str, region: str) -> Figure:
    """Dice of each patient under both runs, ordered by the first; and the differences, ordered."""
    dice = pd.DataFrame(
        {"first": runs.patients(first, region), "second": runs.patients(second, region)}
    ).dropna()
    if dice.empty:
        raise DataError(
            f"{first} and {second} tested no patient in common, so there is no difference within a patient; "
            "choose two runs of one fold."
        )
    dice = dice.sort_values("first")
    figure, axes = new_figure(1, 2, width=4.2, height=3.8)
    _place(figure, axes, bottom=0.24)
    x = np.arange(len(dice))
    axes[0, 0].vlines(x, dice["first"], dice["second"], color=COLORS["patients"], lw=1)
    for name, column, face in ((first, "first", "none"), (second, "second", None)):
        style = {
            "marker": MARKERS[runs.arm(name)],
            "s": 26,
            "zorder": 3,
            "edgecolors": COLORS[runs.arm(name)],
        }
        axes[0, 0].scatter(x, dice[column], facecolors=face or COLORS[runs.arm(name)], label=name, **style)
    axes[0, 0].set(
        xlabel="patients, by Dice of the first run", ylabel=f"Dice, {region_name(region)} (%)", ylim=(-3, 103)
    )
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


@styled
def _slices(runs: Runs, first: str, second: str, region: str) -> Figure:
    """The slices that each run kept of its worst, its median and its best test patient."""
    kept = [runs.examples(name) for name in (first, second)]
    columns = max(len(examples["z"]) for examples in kept)
    height, width = max(examples["image"].shape[1:] for examples in kept)
    figure, axes = new_figure(2, columns, width=2.3, height=2.3 * height / width + 0.5)
    figure.set_layout_engine("none")
    words = []
    for row, (name, examples) in enumerate(zip((first, second), kept, strict=True)):
        dice, shown = runs.patients(name, region), []
        for column, axis in enumerate(axes[row]):
            axis.set_position(((column + 0.04) / columns, 0.52 - 0.5 * row, 0.92 / columns, 0.38))
            axis.set_axis_off()
            if column >= len(examples["z"]):
                continue
            i = len(examples["z"]) - 1 - column  # kept from best to worst
            patient, z = str(examples["patient"][i]), int(examples["z"][i])
            masks = (examples[key][i] for key in ("image", "truth", "prediction"))
            contour_slice(axis, *masks, supervision=runs.arm(name))
            label = f"{patient}, slice {z}, Dice {dice.get(patient, np.nan):.0f}"
            axis.set_title(label.replace(", ", "\n", 1), fontsize=8, y=1.01)
            shown.append(label)
        figure.text(0.01, 0.995 - 0.5 * row, name, va="top", weight="bold", fontsize=9)
        words.append(f"{name}: {'; '.join(shown)}")
    kinds = " Ground truth solid, prediction dashed; from worst to best."
    return described(figure, f"Slices of three test patients of each run. {'. '.join(words)}.{kinds}")


def _place(figure: Figure, axes: np.ndarray, *, bottom: float) -> None:
    """Fixed places for two axes and their titles: finding places would take longer than the drawing."""
    figure.set_layout_engine("none")
    for axis, left in zip(axes[0], (0.09, 0.59), strict=True):
        axis.set_position((left, bottom, 0.39, 0.9 - bottom))
        axis.set_title("", y=1.0)
