"""Finished run folders -> one table of patients -> the comparison of standard and mixed supervision.

All Dice scores are in percent. A patient's Dice is first averaged over the seeds of a fold; means are then
taken over the patients of a fold and over folds, as in the paper's tables.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import pandas as pd

from mixsup_lib.examples import read_examples
from mixsup_lib.paired import (
    ARMS,
    SCENARIO,
    PairedDifference,
    mean_over_folds,
    paired_difference,
    pairs,
    refuse_mixtures,
    select,
)
from mixsup_lib.paper import N_FOLDS, REGIONS, TABLE_1, TABLE_2, TABLE_3, TABLE_4, TASKS
from mixsup_lib.run_records import collect, read_history, read_recorded
from mixsup_lib.wording import caption, conclusion, readable, region_name, to_markdown

__all__ = [
    "FAILED_BELOW",
    "SCENARIO",
    "PairedDifference",
    "beside_paper",
    "caption",
    "collect",
    "comparison_table",
    "conclusion",
    "fold_table",
    "paired_difference",
    "pairs",
    "read_examples",
    "read_history",
    "read_recorded",
    "readable",
    "region_name",
    "select",
    "summary",
    "to_markdown",
]

FAILED_BELOW = 20.0
"""A patient with a lower Dice counts as failed: the tumour was missed."""


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Dice per scenario, region, supervision and settings: mean, median, failed patients and counts.

    The mean is over folds of the fold's mean; the median and the failed patients (Dice below 20) are over
    all test patients of all folds.
    """
    keys = [*SCENARIO, "region", "supervision", "settings_hash"]
    rows = []
    for key, part in frame.groupby(keys, sort=False):
        scores = _average_seeds(part)
        counts = {
            "n_patients": len(scores),
            "n_folds": part["fold"].nunique(),
            "n_seeds": part["seed"].nunique(),
        }
        rows.append({**dict(zip(keys, key, strict=True)), **_arm(scores), **counts})
    return _ordered(pd.DataFrame(rows))


def comparison_table(frame: pd.DataFrame, *, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Standard against mixed, one row per scenario and region.

    Columns beside scenario and region: `standard`, `mixed` (mean Dice), `difference` with its 95 % interval
    `low`, `high` and `p_wilcoxon`, `standard_median`, `mixed_median`, `standard_failed`, `mixed_failed`
    (patients with Dice below 20), `n_patients`, `n_folds`, `n_seeds`, `note`. Where both arms have runs, both
    columns are over the patients, folds and seeds they share; what only one arm has run is left empty on the
    other side (NaN).
    """
    refuse_mixtures(frame)
    keys = [*SCENARIO, "region"]
    rows = []
    for key, part in frame.groupby(keys, sort=False):
        shared = pairs(part)
        row = dict(zip(keys, key, strict=True))
        if shared.empty:
            row |= _unpaired(part)
        else:
            found = paired_difference(shared, resamples=resamples, seed=seed)
            row |= _columns(shared, "standard") | _columns(shared, "mixed") | asdict(found)
            row |= {"difference": found.mean, "n_seeds": _shared_seeds(part)}
            row["note"] = " ".join(filter(None, [found.note, _left_out(part)]))
        rows.append(row)
    return _ordered(pd.DataFrame(rows).reindex(columns=[*keys, *_COMPARISON]))


def beside_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison table with the paper's means (tables 1 and 3) for the same number of annotated patients.

    NaN where the paper has no such scenario. The paper's cohort is BraTS 2018, with more weak patients than
    most.
    """
    names = list(REGIONS)

    def value(row: pd.Series, arm: str) -> float:
        printed = (TABLE_3 if row["task"] == "multiclass" else TABLE_1).get((arm, row["n_fa"]))
        return printed[names.index(row["region"])] if printed else math.nan

    return table.assign(**{f"paper_{arm}": [value(row, arm) for _, row in table.iterrows()] for arm in ARMS})


def fold_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of each fold and their mean, in the layout of the paper's tables 2 and 4.

    `pairs` is that of `pairs`, for one scenario: a row per arm and region. With 15 fully annotated patients, the only
    scenario whose folds the paper prints, its rows follow ours.
    """
    rows = []
    for (task, n_fa, region), part in pairs.groupby(["task", "n_fa", "region"], sort=False):
        for arm in ARMS:
            means = part.groupby("fold")[arm].mean()
            folds = {f"fold {fold}": mean for fold, mean in means.items()}
            rows.append({"": f"{arm}, {region_name(region)}", **folds, "mean": means.mean()})
        printed = TABLE_4 if task == "multiclass" else TABLE_2
        for arm in ARMS if n_fa == 15 else ():
            *folds, mean = printed[arm, region]
            columns = {f"fold {i + 1}": folds[i] for i in range(N_FOLDS)}
            rows.append({"": f"paper: {arm}, {region_name(region)}", **columns, "mean": mean})
    return pd.DataFrame(rows)


_COMPARISON = (
    *ARMS,
    "difference",
    "low",
    "high",
    "p_wilcoxon",
    *(f"{arm}_{name}" for name in ("median", "failed") for arm in ARMS),
    "n_patients",
    "n_folds",
    "n_seeds",
    "note",
)


def _average_seeds(part: pd.DataFrame) -> pd.DataFrame:
    """One row (fold, patient, dice) per patient of one arm and region, without those who lack the region."""
    return part[part["dice"].notna()].groupby(["fold", "patient"], as_index=False)["dice"].mean()


def _arm(scores: pd.DataFrame, column: str = "dice") -> dict[str, float]:
    values = scores[column]
    mean = mean_over_folds(values, scores["fold"]) if len(values) else math.nan
    return {"mean": mean, "median": values.median(), "failed": int((values < FAILED_BELOW).sum())}


def _columns(scores: pd.DataFrame, arm: str, column: str | None = None) -> dict[str, float]:
    found = _arm(scores, column or arm)
    return {arm: found["mean"], f"{arm}_median": found["median"], f"{arm}_failed": found["failed"]}


def _unpaired(part: pd.DataFrame) -> dict[str, object]:
    """What can be said of a scenario and region where no patient was scored in both arms."""
    row: dict[str, object] = {}
    for arm in part["supervision"].unique():
        row |= _columns(_average_seeds(part[part["supervision"] == arm]), arm, "dice")
    scored = part[part["dice"].notna()]
    row |= {"n_patients": scored.groupby("fold")["patient"].nunique().sum()}
    row |= {"n_folds": scored["fold"].nunique(), "n_seeds": scored["seed"].nunique()}
    arms = part["supervision"].unique()
    why = (
        "no fold and seed was scored in both arms"
        if len(arms) > 1
        else f"only the {arms[0]} arm has been run"
    )
    return row | {"note": f"Nothing to compare: {why}."}


def _runs(part: pd.DataFrame) -> pd.Series:
    """Number of arms finished, per (fold, seed)."""
    return part.groupby(["fold", "seed"])["supervision"].nunique()


def _shared_seeds(part: pd.DataFrame) -> int:
    runs = _runs(part)
    return runs[runs == len(ARMS)].index.get_level_values("seed").nunique()


def _left_out(part: pd.DataFrame) -> str:
    alone = int((_runs(part) < len(ARMS)).sum())
    return f"{alone} run(s) without a partner in the other arm are left out." if alone else ""


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by scenario, then regions and arms in the paper's order."""
    order = {name: i for i, name in enumerate((*TASKS, *ARMS))}
    names = [name for name in (*SCENARIO, "region", "supervision", "settings_hash") if name in table.columns]
    return table.sort_values(
        names,
        key=lambda column: column.map(order) if column.name in ("task", "region", "supervision") else column,
        ignore_index=True,
    )
