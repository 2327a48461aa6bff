"""The paper's tables 1 to 4 from recorded runs, ours beside the printed numbers; what has not been run stays empty."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from mixsup_lib.config import RunConfig
from mixsup_lib.experiments.runs import collect, read_examples, read_history, read_recorded
from mixsup_lib.experiments.statistics import (
    ARMS,
    SCENARIO,
    PairedDifference,
    holm,
    mean_over_folds,
    paired_difference,
    pairs,
    refuse_mixtures,
    select,
)
from mixsup_lib.files import DataError, atomic_path, write_text
from mixsup_lib.paper import N_FOLDS, REGIONS, TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLES, TASKS


def caption(cohort: str) -> str:
    """What a table or figure of this cohort must say about its data."""
    if cohort == "phantom-tiny":
        return f"{cohort}: phantom, for trying out, not calibrated"
    if cohort.startswith("phantom"):
        return f"{cohort}: phantom, calibrated to the paper's standard curve"
    return f"cohort {cohort}"


def region_name(region: str) -> str:
    """Name of a region in prose: "whole_tumor" -> "whole tumour"."""
    return region.replace("_", " ").replace("tumor", "tumour")


def conclusion(row: pd.Series) -> str:
    """One row of the comparison table in plain language: mixed is ahead, is behind, or cannot tell."""
    kind = "multiclass, " if row["task"] == "multiclass" else ""
    where = f"{kind}{region_name(row['region'])}, {row['n_fa']} FA + {row['n_wa']} WA"
    if math.isnan(row["difference"]):
        return f"{where}: {row['note']}"
    basis = f"95 % interval {row['low']:+.1f} to {row['high']:+.1f}, {row['n_patients']} patients, "
    basis += f"{row['n_folds']} fold" + ("s" if row["n_folds"] > 1 else "")
    if row["low"] > 0 or row["high"] < 0:
        side = "ahead of" if row["low"] > 0 else "behind"
        text = f"mixed supervision is {side} standard by {abs(row['difference']):.1f} Dice points ({basis})."
    else:
        text = (
            f"these runs cannot tell. The difference is {row['difference']:+.1f} Dice points, "
            f"and its interval includes 0 ({basis})."
        )
    return f"{where}: {text} {row['note']}".strip()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison table as text for people: rounded, and the interval beside the difference."""
    several = [name for name in ("cohort", "preset") if table[name].nunique() > 1]
    paper = "paper_standard" in table.columns
    rows = []
    for _, row in table.iterrows():
        text = {name: row[name] for name in several}
        text["task: region"] = (
            f"{row['task']}: {row['region']}" if row["task"] == "multiclass" else row["region"]
        )
        text["scenario"] = f"{row['n_fa']} FA + {row['n_wa']} WA"
        text |= {arm: _number(row[arm]) for arm in ARMS}
        interval = f" [{row['low']:+.1f}, {row['high']:+.1f}]" if not math.isnan(row["difference"]) else ""
        text["difference [95 %]"] = _number(row["difference"], "+.1f") + interval
        if paper:
            text["paper: standard, mixed"] = _both(row["paper_standard"], row["paper_mixed"])
        text["median: standard, mixed"] = _both(row["standard_median"], row["mixed_median"])
        text["failed: standard, mixed"] = _both(row["standard_failed"], row["mixed_failed"], ".0f")
        text["patients (folds)"] = f"{row['n_patients']} ({row['n_folds']})"
        rows.append(text)
    return pd.DataFrame(rows)


def to_markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, columns aligned. A comparison table is made `readable`, its notes follow below."""
    notes: list[str] = []
    if "difference" in table.columns and "note" in table.columns:
        notes = [f"{row.n_fa} FA + {row.n_wa} WA: {row.note}" for row in table.itertuples() if row.note]
        table = readable(table)
    cells = [
        [str(name) for name in table.columns],
        *([_cell(x) for x in row] for row in table.itertuples(index=False)),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = ["| " + " | ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*lines, *(f"\n{note}" for note in dict.fromkeys(notes))])


def _number(value: float, form: str = ".1f") -> str:
    return "" if pd.isna(value) else format(value, form)


def _both(first: float, second: float, form: str = ".1f") -> str:
    return f"{_number(first, form) or 'none'}, {_number(second, form) or 'none'}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return _number(value)
    return html.escape(str(value), quote=False).replace(
        "|", r"\|"
    )  # names of folders end up in an HTML report


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


FOLDS_AT = 15
"""Number of annotated patients whose folds the paper prints (tables 2 and 4)."""


def scenario_means(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Table 1 (`kind` binary) or 3 (multiclass): mean Dice by supervision and scenario, ours and the paper's.

    `table` is `results.comparison_table` of one cohort and preset. Rows are the paper's, then scenarios of our own; the
    paper's upper line of 228 FA stands beside the standard runs without weak patients. Columns: `scenario`, the
    number of `folds`, and for every region our mean and `paper: ` its own; NaN where there is none.
    """
    ours = {}
    for row in table[table["task"].eq("multiclass") == (kind == "multiclass")].to_dict("records"):
        for arm in ARMS:
            if not math.isnan(row[arm]):
                key = (arm, 228 if arm == "standard" and row["n_wa"] == 0 else row["n_fa"])
                ours.setdefault(key, {})[row["region"]] = row
    printed = TABLES[kind][0]
    rows = []
    for arm, n_fa in (*printed, *sorted(set(ours) - set(printed))):
        found = ours.get((arm, n_fa), {})
        any_row = next(iter(found.values()), None)
        words = f"{arm}, {any_row['n_fa'] if any_row else n_fa} FA"
        words += f" + {any_row['n_wa']} WA" if any_row and arm == "mixed" else ""
        folds = sorted({row["n_folds"] for row in found.values()})
        row = {"scenario": words, "folds": ", ".join(map(str, folds))}
        for index, region in enumerate(REGIONS):
            row[region_name(region)] = found[region][arm] if region in found else math.nan
            row[f"paper: {region_name(region)}"] = printed.get((arm, n_fa), (math.nan,) * 3)[index]
        rows.append(row)
    return pd.DataFrame(rows)


def fold_means(shared: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Table 2 (`kind` binary) or 4 (multiclass): mean Dice of each fold at 15 FA, ours and the paper's.

    `shared` is `results.pairs` of one cohort and preset. Folds that were not run are NaN, and so is a mean that would
    lack one.
    """
    part = shared[shared["task"].eq("multiclass") == (kind == "multiclass")]
    part = part[part["n_fa"] == FOLDS_AT]
    rows = []
    for region in REGIONS:
        for arm in ARMS:
            means = part[part["region"] == region].groupby("fold")[arm].mean().reindex(range(1, N_FOLDS + 1))
            for source, values in (
                ("", (*means, means.mean(skipna=False))),
                ("paper: ", TABLES[kind][1][arm, region]),
            ):
                row = {"": f"{source}{arm}, {region_name(region)}"}
                row |= {f"fold {fold}": values[fold - 1] for fold in range(1, N_FOLDS + 1)}
                rows.append(row | {"mean": values[-1]})
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Mixed minus standard per scenario and region, with `p_holm`: Wilcoxon's p corrected for all rows of the table.

    Holm's correction keeps the chance of any false alarm among the comparisons below the level of one test. Wilcoxon
    takes patients as independent, which those of one fold are not (see `paired_difference`): the interval is the safer
    guide. Rows without a difference are left out.
    """
    there = table[table["difference"].notna()].copy()
    there["p_holm"] = holm(there["p_wilcoxon"].to_numpy())
    names = ["task", "region", "n_fa", "n_wa", "standard", "mixed", "difference", "low", "high"]
    return there[[*names, "p_wilcoxon", "p_holm", "n_patients", "n_folds"]].reset_index(drop=True)


def paper_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Name -> table: table1 to table4 and differences, from `results.collect` of one cohort and preset.

    Raises DataError where the runs are of several cohorts, presets or numbers of weak patients, or mix settings.
    """
    for name in ("cohort", "preset"):
        if len(found := sorted(frame[name].unique())) > 1:
            raise DataError(
                f"the runs are of {len(found)} {name}s ({', '.join(found)}), expected one; choose one."
            )
    mixed = frame[frame["supervision"] == "mixed"].groupby(["task", "n_fa"])["n_wa"].unique()
    for (task, n_fa), found in mixed.items():
        if len(found) > 1:
            raise DataError(
                f"{task}, {n_fa} FA: the runs have {len(found)} numbers of weak patients "
                f"({', '.join(map(str, sorted(found)))}), but the paper's tables have one; choose one."
            )
    table, shared = comparison_table(frame), pairs(frame)
    made = {}
    for (first, second), kind in zip((("table1", "table2"), ("table3", "table4")), TABLES, strict=True):
        made[first], made[second] = scenario_means(table, kind), fold_means(shared, kind)
    return made | {"differences": differences(table)}


def in_markdown(table: pd.DataFrame) -> str:
    """A table of `paper_tables` in Markdown; p-values keep two digits."""
    shown = {column: table[column].map("{:.2g}".format) for column in table if column.startswith("p_")}
    return to_markdown(table.assign(**shown))


def write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Every table as .md, .csv and .tex in `folder`, each written whole or not at all; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_text(folder / f"{name}.md", in_markdown(table) + "\n")
        with atomic_path(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")
        text = table.to_latex(index=False, na_rep="", float_format="%.2f", escape=True)
        write_text(folder / f"{name}.tex", text)
    return [folder / f"{name}.{kind}" for name in tables for kind in ("md", "csv", "tex")]
