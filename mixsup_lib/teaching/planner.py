"""What may be expected of so many hours of annotation? Hours from section 4.3, Dice from recorded runs.

The paper leaves the question open; it compares three scenarios. A `Surface` holds the Dice measured on a grid of fully
(FA) and weakly (WA) annotated scans; between its points Dice is interpolated, outside them nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixsup_lib.config import RunConfig
from mixsup_lib.experiments.statistics import bootstrap_over_folds, mean_over_folds
from mixsup_lib.experiments.tables import dice_by_variant
from mixsup_lib.files import DataError, SettingError

MINUTES_FA = 45.0
"""Minutes to outline the tumour of one scan (section 4.3)."""

MINUTES_WA = (1.0, 2.0)
"""Minutes to find the slices of one scan that show tumour: from, to (section 4.3)."""


def annotation_hours(
    n_fa: int, n_wa: int = 0, *, minutes_fa: float = MINUTES_FA, minutes_wa: float = sum(MINUTES_WA) / 2
) -> float:
    """Hours to annotate `n_fa` scans fully and `n_wa` scans weakly (section 4.3)."""
    return (n_fa * minutes_fa + n_wa * minutes_wa) / 60


@dataclass(frozen=True)
class Surface:
    """Mean Dice (%) on a grid of numbers of scans.

    Attributes:
        n_fa, n_wa: (F,) and (W,), increasing; n_wa begins with 0, standard supervision.
        dice: (F, W), means over folds.
        samples: (S, F, W), the same on resampled folds and patients; one resample draws the same for all points.
        cohort, n_folds: what it was measured on.
    """

    n_fa: np.ndarray
    n_wa: np.ndarray
    dice: np.ndarray
    samples: np.ndarray
    cohort: str
    n_folds: int

    def at(self, n_fa: np.ndarray, n_wa: np.ndarray) -> np.ndarray:
        """Dice and its resamples, (P, 1 + S), for P pairs of numbers, interpolated in log(n_fa) and log(1 + n_wa).

        Raises SettingError where a pair lies outside what was measured.
        """
        from scipy.interpolate import RegularGridInterpolator

        for name, asked, there in (("n_fa", n_fa, self.n_fa), ("n_wa", n_wa, self.n_wa)):
            if np.min(asked) < there[0] or np.max(asked) > there[-1]:
                raise SettingError(
                    f"{name} reaches from {np.min(asked):g} to {np.max(asked):g}, but {self.cohort} was measured from "
                    f"{there[0]} to {there[-1]}; nothing is known outside."
                )
        values = np.concatenate([self.dice[None], self.samples]).transpose(1, 2, 0)  # (F, W, 1 + S)
        grid = (np.log(self.n_fa), np.log1p(self.n_wa))
        return RegularGridInterpolator(grid, values)(np.stack([np.log(n_fa), np.log1p(n_wa)], axis=-1))


def measured_surface(frame: pd.DataFrame, configs: Mapping[str, RunConfig]) -> Surface:
    """The surface of recorded runs, whole tumour: `frame` as from `runs.collect`, `configs` the points of the grid.

    A point of standard supervision counts as n_wa = 0. Raises DataError where a point of the grid is missing, or its
    runs (see `tables.dice_by_variant`).
    """
    dice = dice_by_variant(frame, configs).xs("whole_tumor", level="region")
    points = {(config.n_fa, config.n_wa or 0): name for name, config in configs.items()}
    n_fa, n_wa = (np.array(sorted({point[axis] for point in points})) for axis in (0, 1))
    if missing := [(int(f), int(w)) for f in n_fa for w in n_wa if (f, w) not in points]:
        raise DataError(
            f"the surface lacks {missing[0][0]} FA + {missing[0][1]} WA; every number of fully annotated scans needs "
            "every number of weak ones."
        )
    folds = dice.index.get_level_values("fold").to_numpy()
    columns = [[dice[points[f, w]].to_numpy() for w in n_wa] for f in n_fa]
    means = np.array([[mean_over_folds(values, folds) for values in row] for row in columns])
    drawn = [[bootstrap_over_folds(values, folds, resamples=2000) for values in row] for row in columns]
    return Surface(n_fa, n_wa, means, np.moveaxis(drawn, -1, 0), frame["cohort"].iloc[0], len(np.unique(folds)))


def plans(
    surface: Surface,
    hours: float,
    *,
    minutes_fa: float = MINUTES_FA,
    minutes_wa: float = sum(MINUTES_WA) / 2,
    scans: int | None = None,
    n_test: int = 0,
) -> pd.DataFrame:
    """Ways to spend `hours` of annotation: each number of masks of the surface, with the best number of slice labels.

    With many masks slice labels can cost Dice, so a plan need not spend all it has. Columns: n_fa, n_wa, hours (spent),
    dice with its 95 % interval low, high, and `worse`: whether the plan is behind the one of highest Dice in 97.5 % of
    resamples. `scans`: how many there are to annotate; None: enough. `n_test` masks more are for testing: they cost
    hours like the others and train nothing.

    Raises SettingError where the hours or the scans do not suffice for the fewest masks that were measured.
    """
    fewest, most = int(surface.n_fa[0]), int(surface.n_fa[-1])
    affordable = int(60 * hours / minutes_fa + 1e-9) - n_test
    scans = None if scans is None else scans - n_test
    n_fa = np.arange(fewest, min(most, affordable, most if scans is None else scans) + 1)
    if not n_fa.size:
        least = annotation_hours(fewest + n_test, minutes_fa=minutes_fa)
        there = f"{hours:g} hours" + ("" if scans is None else f" and {scans + n_test} scans")
        tested = f" and {n_test} for testing" if n_test else ""
        fault = f"{there} are too little: {fewest} masks{tested} ({least:.2g} hours) are the fewest that were measured."
        raise SettingError(fault)
    n_wa = np.floor((60 * hours - (n_fa + n_test) * minutes_fa) / minutes_wa + 1e-9)
    left = np.inf if scans is None else scans - n_fa
    most_wa = np.minimum(n_wa, np.minimum(surface.n_wa[-1], left)).astype(int)  # (P,)
    # between two measured numbers Dice is monotonous, so the best of all numbers is a measured one or the last
    choices = np.column_stack([*(np.minimum(count, most_wa) for count in surface.n_wa), most_wa])  # (P, W + 1)
    found = surface.at(np.repeat(n_fa, choices.shape[1]), choices.ravel())[:, 0].reshape(choices.shape)
    n_wa = choices[np.arange(len(n_fa)), found.argmax(axis=1)]
    values = surface.at(n_fa, n_wa)  # (P, 1 + S)
    low, high = np.quantile(values[:, 1:], [0.025, 0.975], axis=1)
    behind = values[values[:, 0].argmax(), 1:] - values[:, 1:]
    spent = annotation_hours(n_fa + n_test, n_wa, minutes_fa=minutes_fa, minutes_wa=minutes_wa)
    table = {"n_fa": n_fa, "n_wa": n_wa, "hours": spent}
    table |= {"dice": values[:, 0], "low": low, "high": high, "worse": np.quantile(behind, 0.025, axis=1) > 0}
    return pd.DataFrame(table)


def advice(surface: Surface, table: pd.DataFrame) -> str:
    """The best of `plans` in words, those that cannot be told from it, and what all this was measured on."""
    best, level = table.loc[table["dice"].idxmax()], table[~table["worse"]]
    phantom = surface.cohort.startswith("phantom")
    kind = "made-up patients (a phantom)" if phantom else f"cohort {surface.cohort}"
    text = f"{best['n_fa']} masks and {best['n_wa']} slice-labelled scans ({best['hours']:.1f} hours): a Dice of "
    text += f"{best['dice']:.0f} % may be expected, 95 % interval {best['low']:.0f} to {best['high']:.0f}. "
    if len(level) > 1:
        text += f"Plans with {level['n_fa'].min()} to {level['n_fa'].max()} masks cannot be told from it. "
    text += f"Measured on {kind}, {surface.n_folds} folds, with the network of the workshop preset: another cohort, "
    return text + "scanner or network may differ by more than the interval says."
