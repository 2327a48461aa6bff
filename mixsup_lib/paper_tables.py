"""The paper's tables 1 to 4 from recorded runs, ours beside the printed numbers; what has not been run stays empty."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from mixsup_lib.errors import DataError
from mixsup_lib.files import atomic_path, write_text
from mixsup_lib.paired import ARMS, holm
from mixsup_lib.paper import N_FOLDS, REGIONS, TABLES
from mixsup_lib.results import comparison_table, pairs
from mixsup_lib.wording import region_name, to_markdown

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
