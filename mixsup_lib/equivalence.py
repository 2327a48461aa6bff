"""How many masks are weak scans worth? Section 4.3: with 5 FA + 223 WA as good as standard supervision with 15 FA."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mixsup_lib.config import RunConfig
from mixsup_lib.errors import DataError
from mixsup_lib.paired import bootstrap_over_folds, mean_over_folds


def masks_reaching(n_fa: np.ndarray, curve: np.ndarray, dice: np.ndarray) -> np.ndarray:
    """The fewest annotated scans with which standard supervision reaches a Dice; inf where it never does.

    `curve` (S, F) is the Dice of standard supervision at `n_fa` (F,), increasing; between them it is interpolated in
    log(n_fa). `dice` (S,) is to be reached, each by its own row of the curve.
    """
    from scipy.interpolate import make_interp_spline

    asked = np.arange(n_fa[0], n_fa[-1] + 1)
    between = make_interp_spline(np.log(n_fa), curve, k=1, axis=1)(np.log(asked))  # (S, asked)
    reached = between >= dice[:, None]
    return np.where(reached.any(axis=1), asked[reached.argmax(axis=1)], np.inf)


def masks_worth(dice: pd.DataFrame, configs: Mapping[str, RunConfig]) -> pd.DataFrame:
    """Every mixed variant of `dice` (`variants.dice_by_variant`, one region) beside the standard ones.

    Columns: variant, n_fa, n_wa, dice, and `masks`, the fewest annotated scans with which standard supervision reaches
    that Dice, with its 95 % interval `low`, `high` (folds, then patients resampled); inf: not with the most that were
    measured. Raises DataError with fewer than two numbers of annotated scans under standard supervision.
    """
    folds = dice.index.get_level_values("fold").to_numpy()
    standard = {config.n_fa: name for name, config in configs.items() if config.supervision == "standard"}
    if len(standard) < 2:
        raise DataError(
            f"standard supervision was measured with {len(standard)} number(s) of annotated scans, expected at least "
            "2; add variants to the scenario file."
        )
    n_fa = np.array(sorted(standard))
    curve = np.stack([_mean_and_samples(dice[standard[count]], folds) for count in n_fa], axis=1)
    rows = []
    for name, config in configs.items():
        if config.supervision == "mixed":
            values = _mean_and_samples(dice[name], folds)
            masks = masks_reaching(n_fa, curve, values)  # (1 + S,)
            low, high = np.quantile(masks[1:], [0.025, 0.975], method="nearest")
            row = {"variant": name, "n_fa": config.n_fa, "n_wa": config.n_wa, "dice": values[0]}
            rows.append(row | {"masks": masks[0], "low": low, "high": high})
    return pd.DataFrame(rows)


def _mean_and_samples(values: pd.Series, folds: np.ndarray) -> np.ndarray:
    found = values.to_numpy()
    return np.concatenate([[mean_over_folds(found, folds)], bootstrap_over_folds(found, folds)])  # (1 + S,)
