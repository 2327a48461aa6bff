"""Runs of a scenario's variants -> a table of means, and of differences within patients, with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mixsup_lib.config import RunConfig
from mixsup_lib.errors import DataError
from mixsup_lib.paired import mean_over_folds, paired_difference
from mixsup_lib.results import FAILED_BELOW


def dice_by_variant(frame: pd.DataFrame, configs: Mapping[str, RunConfig]) -> pd.DataFrame:
    """Dice of the test patients, a column per variant; rows are (region, fold, patient).

    `frame` is that of `run_records.collect`, `configs` names the variants; runs of other settings are passed over. Only
    folds and seeds that every variant has finished enter, so that all columns are over the same patients; seeds are
    averaged. A patient without the region is left out.

    Raises DataError where a variant has no run, no fold is shared by all, or the runs stem from different data or
    tested different patients.
    """
    runs = pd.concat([runs_of(frame, config).assign(variant=name) for name, config in configs.items()])
    if missing := [name for name in configs if name not in set(runs["variant"])]:
        raise DataError(f"no finished run of variant {missing[0]!r}; train it first.")
    if runs["data_fingerprint"].nunique() > 1 or runs["cohort"].nunique() > 1:
        raise DataError(
            f"runs of one comparison stem from different data ({', '.join(sorted(runs['cohort'].unique()))}); "
            "keep those of one cohort, prepared once."
        )
    counts = runs.groupby(["fold", "seed"])["variant"].transform("nunique")
    shared = runs[(counts == len(configs)) & runs["dice"].notna()]
    if shared.empty:
        raise DataError("no fold has been finished by every variant; train the missing ones first.")
    wide = shared.pivot_table(
        index=["region", "fold", "patient"], columns="variant", values="dice", aggfunc="mean"
    )
    wide = wide[list(configs)]
    if (alone := wide.isna().any(axis=1)).any():
        _, fold, patient = wide.index[alone][0]
        there = wide.columns[wide[alone].iloc[0].notna()]
        raise DataError(
            f"patient {patient} was tested in fold {fold} by some variants only ({', '.join(there)}): variants with "
            "other numbers of annotated patients have folds of their own; give them the same `permutation_of`."
        )
    return wide


def runs_of(frame: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
    """Rows of `frame` whose run has the settings of `config`, on whatever cohort, fold and seed.

    A config that takes all remaining patients as weak (n_wa None) means the runs with most of them.
    """
    same = frame["settings_hash"] == config.settings_hash()
    for name in ("preset", "task", "n_fa", "supervision"):
        same &= frame[name] == getattr(config, name)
    found = frame[same]
    n_wa = found["n_wa"].max() if config.n_wa is None else config.n_wa
    return found[found["n_wa"] == n_wa]


def variant_table(dice: pd.DataFrame, against: Mapping[str, str]) -> pd.DataFrame:
    """One row per region and variant of `dice_by_variant`.

    Columns: region, variant, `mean` (over folds of the fold's mean), `lowest_fold`, `highest_fold`, `median`, `failed`
    (patients below 20 Dice), `against` and the paired `difference` to it with its 95 % interval `low`, `high` (folds,
    then patients resampled), `n_patients`, `n_folds`.
    """
    rows = []
    for region, part in dice.groupby(level="region", sort=False):
        folds = part.index.get_level_values("fold").to_numpy()
        for variant in dice.columns:
            values = part[variant].to_numpy()
            by_fold = part[variant].groupby(level="fold").mean()
            row = {"region": region, "variant": variant, "mean": mean_over_folds(values, folds)}
            row |= {"lowest_fold": by_fold.min(), "highest_fold": by_fold.max(), "median": np.median(values)}
            row |= {"failed": int((values < FAILED_BELOW).sum()), "against": against.get(variant, "")}
            row |= {"difference": np.nan, "low": np.nan, "high": np.nan}
            if variant in against:
                change = pd.DataFrame(
                    {"fold": folds, "difference": values - part[against[variant]].to_numpy()}
                )
                found = paired_difference(change)
                row |= {"difference": found.mean, "low": found.low, "high": found.high}
            rows.append(row | {"n_patients": len(values), "n_folds": len(by_fold)})
    return pd.DataFrame(rows)


def difference_in_words(dice: pd.DataFrame, variant: str, against: str) -> str:
    """The paired difference of two variants of `dice_by_variant`, one region, as "+9.7 [+1.2, +18.7]" Dice points."""
    row = variant_table(dice, {variant: against}).set_index("variant").loc[variant]
    return _interval(row)


def _interval(row) -> str:
    return f"{row.difference:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"


def readable_variants(table: pd.DataFrame) -> pd.DataFrame:
    """`variant_table` as text for people: the interval beside the difference, the range of folds beside the mean."""
    rows = []
    for row in table.itertuples():
        text = {"region": row.region} if table["region"].nunique() > 1 else {}
        text["variant"] = row.variant
        text["Dice (folds)"] = f"{row.mean:.1f} ({row.lowest_fold:.1f} to {row.highest_fold:.1f})"
        text |= {"median": f"{row.median:.1f}", "failed": str(row.failed)}
        text |= {"difference [95 %]": _interval(row) if row.against else "", "to": row.against}
        rows.append(text | {"patients (folds)": f"{row.n_patients} ({row.n_folds})"})
    return pd.DataFrame(rows)
