"""Differences between two ways of training: paired within patients, with an interval over folds and patients."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mixsup_lib.config import RunConfig
from mixsup_lib.files import DataError, SettingError, nearest

ARMS = ("standard", "mixed")
SCENARIO = ("cohort", "preset", "task", "n_fa", "n_wa")
"""Columns that say which experiment a run belongs to; fold, seed and supervision tell its runs apart."""

RESAMPLES = 10_000
ONE_PATIENT = "One patient only: there is no interval."
FEW_FOLDS = {
    1: "One fold only: the interval covers the choice of test patients, not how much a result depends on which "
    "patients were annotated.",
    2: "Two folds only: the spread between folds is barely sampled, so trust the interval little.",
}


def select(frame: pd.DataFrame, **wanted: Hashable | Sequence) -> pd.DataFrame:
    """Rows whose columns have the wanted value, or one of a list of values; None and "" keep everything.

    Raises SettingError for an unknown column, DataError naming what there is where nothing is left.
    """
    for name, value in wanted.items():
        if name not in frame.columns:
            raise SettingError(f"results have no column {name!r}.{nearest(name, frame.columns)}")
        if value is None or value == "":
            continue
        values = list(value) if isinstance(value, list | tuple | set) else [value]
        kept = frame[frame[name].isin(values)]
        if kept.empty:
            there = ", ".join(str(item) for item in sorted(frame[name].unique()))
            raise DataError(f"no finished run has {name} {value!r}; finished runs have {there}.")
        frame = kept
    return frame


def pairs(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per scenario, region, fold and test patient: Dice `standard`, `mixed` and their `difference`.

    `frame` is that of `runs.collect`. Only folds and seeds finished in both arms enter; seeds are averaged. A patient
    without the region is left out. Raises DataError if an arm mixes settings, if the arms stem from different data or
    tested different patients.
    """
    _refuse_mixtures(frame)
    run = [*SCENARIO, "region", "fold", "seed"]
    both = frame.groupby(run)["supervision"].transform("nunique") == len(ARMS)
    index = [*SCENARIO, "region", "fold", "patient"]
    if not both.any():
        return pd.DataFrame(columns=[*index, *ARMS, "difference"])
    runs_of_patient = frame[both].groupby([*run, "patient"])["supervision"].nunique()
    if (lonely := runs_of_patient[runs_of_patient < len(ARMS)]).size:
        raise DataError(
            f"patient {lonely.index[0][-1]} was tested in one arm only (fold {lonely.index[0][-3]}); "
            "both arms of a fold must test the same patients: run both again on the same cohort."
        )
    scored = frame[both & frame["dice"].notna()]
    wide = scored.pivot_table(index=index, columns="supervision", values="dice", aggfunc="mean").reset_index()
    wide = wide.rename_axis(columns=None)[[*index, *ARMS]]
    return wide.assign(difference=wide["mixed"] - wide["standard"])


def _refuse_mixtures(frame: pd.DataFrame) -> None:
    """DataError where an arm of a scenario has runs of different settings, or a scenario different data."""
    for columns, name in (([*SCENARIO, "supervision"], "settings_hash"), (list(SCENARIO), "data_fingerprint")):
        counts = frame.groupby(columns)[name].nunique()
        if (mixed := counts[counts > 1]).size:
            where = dict(zip(columns, mixed.index[0], strict=True))
            kinds = select(frame, **where).groupby(name)["folder"].first()
            listed = "; ".join(f"{kind} ({folder})" for kind, folder in kinds.items())
            raise DataError(
                f"runs of one comparison differ in their {name}: {listed}; keep the runs of one of them "
                f"(`statistics.select(frame, {name}=...)`), or compare them in tables of their own."
            )


class PairedDifference(NamedTuple):
    """Mixed minus standard, in Dice points.

    `difference` is the mean over folds of the fold's mean over patients, as in the paper's tables; `low` and `high`
    bound its 95 % interval; `p_wilcoxon` is two-sided (NaN where every difference is 0). One patient has neither.
    `note` says where patients or folds are too few.
    """

    difference: float
    low: float
    high: float
    p_wilcoxon: float
    n_patients: int
    n_folds: int
    note: str


def paired_difference(
    pairs: pd.DataFrame, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> PairedDifference:
    """Mixed minus standard over the patients of `pairs` (columns fold, difference; one scenario and region).

    The interval is the bootstrap's percentile interval. On simulated data (10 patients a fold, standard
    deviation 10 points between patients and 3 between folds) it holds the truth in about 95 of 100 cases with
    five folds, in 87 with two and 75 with one; the note says where folds are that few. The Wilcoxon
    signed-rank test looks at patients and does not know of folds. Raises DataError if there is no pair.
    """
    from scipy.stats import wilcoxon

    differences, folds = pairs["difference"].to_numpy(float), pairs["fold"].to_numpy()
    if not differences.size or not np.isfinite(differences).all():
        raise DataError("no patient was scored in both arms, so there is no difference; finish the runs of both arms.")
    low, high, p_value = float("nan"), float("nan"), float("nan")
    n_folds = len(np.unique(folds))
    if differences.size > 1:
        sample = bootstrap_over_folds(differences, folds, resamples=resamples, seed=seed)
        low, high = np.quantile(sample, [(1 - confidence) / 2, (1 + confidence) / 2])
        p_value = wilcoxon(differences).pvalue if differences.any() else p_value
    return PairedDifference(
        difference=mean_over_folds(differences, folds),
        low=float(low),
        high=float(high),
        p_wilcoxon=float(p_value),
        n_patients=differences.size,
        n_folds=n_folds,
        note=ONE_PATIENT if differences.size == 1 else FEW_FOLDS.get(n_folds, ""),
    )


def mean_over_folds(values: np.ndarray, folds: np.ndarray) -> float:
    """Mean over folds of the fold's mean over patients (the paper's tables 1 to 4); folds weigh the same.

    `values` and `folds` are (P,), one entry per patient.
    """
    return float(np.mean([part.mean() for part in _by_fold(values, folds)]))


def bootstrap_over_folds(
    values: np.ndarray, folds: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """`resamples` values of `mean_over_folds` on resampled data: folds, then patients within each drawn fold.

    A fold shares its annotated patients and its training, so patients of one fold are not independent;
    resampling patients alone would give too narrow an interval. Every drawn fold draws its own patients, also
    if drawn twice.
    """
    rng = np.random.default_rng(seed)
    parts = _by_fold(values, folds)
    drawn = rng.integers(len(parts), size=(resamples, len(parts)))  # (resamples, folds)
    means = np.empty(drawn.shape)
    for fold, part in enumerate(parts):
        here = drawn == fold
        patients = rng.integers(part.size, size=(here.sum(), part.size))  # (draws of this fold, patients)
        means[here] = part[patients].mean(axis=1)  # (draws of this fold,)
    return means.mean(axis=1)  # (resamples,)


def _by_fold(values: np.ndarray, folds: np.ndarray) -> list[np.ndarray]:
    values, folds = np.asarray(values, float), np.asarray(folds)
    return [values[folds == fold] for fold in np.unique(folds)]


def holm(p: np.ndarray) -> np.ndarray:
    """p-values of one family of tests, corrected by Holm; NaN stays and does not count."""
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    corrected = np.full(len(p), np.nan)
    steps = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    corrected[order] = np.minimum(steps, 1)
    return corrected


def masks_worth(dice: pd.DataFrame, configs: Mapping[str, RunConfig]) -> pd.DataFrame:
    """Every mixed variant of `dice` (`tables.dice_by_variant`, one region) beside the standard ones.

    Section 4.3 asks it once: 5 FA + 223 WA score as well as standard supervision with 15 FA.

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


def _mean_and_samples(values: pd.Series, folds: np.ndarray) -> np.ndarray:
    found = values.to_numpy()
    return np.concatenate([[mean_over_folds(found, folds)], bootstrap_over_folds(found, folds)])  # (1 + S,)
