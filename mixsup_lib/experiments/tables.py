"""Result tables: standard beside mixed, variants, the paper's tables 1 to 4; and how a table is shown."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from tabulate import SEPARATING_LINE, tabulate

from mixsup_lib.config import RunConfig
from mixsup_lib.experiments.statistics import ARMS, SCENARIO, holm, mean_over_folds, paired_difference, pairs
from mixsup_lib.files import DataError, write_text
from mixsup_lib.paper import N_FOLDS, REGIONS, TABLES, TASKS

FAILED_BELOW = 20.0
"""A patient with a lower Dice counts as failed: the tumour was missed."""

FOLDS_AT = 15
"""Number of annotated patients whose folds the paper prints (tables 2 and 4)."""

WIDTH = 79
"""Characters in a line of a table in the terminal."""


def comparison_table(frame: pd.DataFrame, *, resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Standard against mixed, one row per scenario and region, in the paper's order.

    `frame` is that of `collect`. Columns beside scenario and region: `standard`, `mixed` (mean Dice), `difference` with
    its 95 % interval `low`, `high` and `p_wilcoxon`, `standard_median`, `mixed_median`, `n_patients`, `n_folds`,
    `standard_failed`, `mixed_failed` (patients with Dice below 20), `n_seeds`, `note`. Where both arms have runs, both
    columns are over the patients, folds and seeds they share; what only one arm has run is left empty on the other
    side (NaN).

    Raises DataError where runs of different settings, data or test patients would be compared.
    """
    rows = []
    for key, part in frame.groupby([*SCENARIO, "region"], sort=False):
        row = dict(zip([*SCENARIO, "region"], key, strict=True))
        shared = pairs(part)
        if shared.empty:
            rows.append(row | _unpaired(part))
            continue
        arms = part.groupby(["fold", "seed"])["supervision"].nunique()
        row |= paired_difference(shared, resamples=resamples, seed=seed)._asdict()
        row |= _arm("standard", shared) | _arm("mixed", shared)
        row["n_seeds"] = arms[arms == len(ARMS)].index.get_level_values("seed").nunique()
        if alone := (arms < len(ARMS)).sum():
            left_out = f"{alone} run(s) without a partner in the other arm are left out."
            row["note"] = f"{row['note']} {left_out}".strip()
        rows.append(row)
    numbers = "difference low high p_wilcoxon standard_median mixed_median n_patients n_folds standard_failed"
    columns = [*SCENARIO, "region", *ARMS, *numbers.split(), "mixed_failed", "n_seeds", "note"]
    order = {name: place for place, name in enumerate(TASKS)}
    return (
        pd.DataFrame(rows)
        .reindex(columns=columns)
        .sort_values(
            [*SCENARIO, "region"],
            key=lambda column: column.map(order) if column.name in ("task", "region") else column,
            ignore_index=True,
        )
    )


def _arm(arm: str, scores: pd.DataFrame, column: str | None = None) -> dict[str, float]:
    """Mean, median and failed patients of one arm; `scores` has a row per patient, with its fold."""
    values = scores[column or arm]
    mean = mean_over_folds(values, scores["fold"]) if len(values) else math.nan
    return {arm: mean, f"{arm}_median": values.median(), f"{arm}_failed": int((values < FAILED_BELOW).sum())}


def _unpaired(part: pd.DataFrame) -> dict[str, object]:
    """What can be said of a scenario and region where no patient was scored in both arms."""
    scored = part[part["dice"].notna()]
    arms = part["supervision"].unique()
    row: dict[str, object] = {
        "n_patients": len(scored.drop_duplicates(["fold", "patient"])),
        "n_folds": scored["fold"].nunique(),
        "n_seeds": scored["seed"].nunique(),
    }
    for arm in arms:
        own = scored[scored["supervision"] == arm]
        row |= _arm(arm, own.groupby(["fold", "patient"], as_index=False)["dice"].mean(), "dice")
    only = f"only the {arms[0]} arm has been run"
    why = only if len(arms) == 1 else "no fold and seed was scored in both arms"
    return row | {"note": f"Nothing to compare: {why}."}


def beside_paper(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison table with the paper's means (tables 1 and 3) for the same number of annotated patients.

    NaN where the paper has no such scenario. The paper's cohort is BraTS 2018, with more weak patients than most.
    """

    def printed(row: pd.Series, arm: str) -> float:
        means = TABLES["multiclass" if row["task"] == "multiclass" else "binary"][0].get((arm, row["n_fa"]))
        return means[list(REGIONS).index(row["region"])] if means else math.nan

    return table.assign(**{f"paper_{arm}": [printed(row, arm) for _, row in table.iterrows()] for arm in ARMS})


def dice_by_variant(frame: pd.DataFrame, configs: Mapping[str, RunConfig]) -> pd.DataFrame:
    """Dice of the test patients, a column per variant; rows are (region, fold, patient).

    `frame` is that of `collect`, `configs` names the variants; runs of other settings are passed over. Only folds and
    seeds that every variant has finished enter, so that all columns are over the same patients; seeds are averaged. A
    patient without the region is left out.

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
    wide = shared.pivot_table(index=["region", "fold", "patient"], columns="variant", values="dice", aggfunc="mean")[
        list(configs)
    ]
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

    Columns: region, variant, `mean` (over folds of the fold's mean), `lowest_fold`, `highest_fold`, `median`, the
    paired `difference` with its 95 % interval `low`, `high` (folds, then patients resampled), the variant it is
    `against`, `note` (where patients or folds are too few for an interval), `failed` (patients below 20 Dice),
    `n_patients`, `n_folds`.
    """
    rows = []
    for region, part in dice.groupby(level="region", sort=False):
        folds = part.index.get_level_values("fold").to_numpy()
        for variant in dice.columns:
            values = part[variant].to_numpy()
            by_fold = part[variant].groupby(level="fold").mean()
            row = {"region": region, "variant": variant, "mean": mean_over_folds(values, folds)}
            row |= {"lowest_fold": by_fold.min(), "highest_fold": by_fold.max(), "median": np.median(values)}
            row |= {
                "difference": np.nan,
                "low": np.nan,
                "high": np.nan,
                "against": against.get(variant, ""),
                "note": "",
            }
            if variant in against:
                change = values - part[against[variant]].to_numpy()
                found = paired_difference(pd.DataFrame({"fold": folds, "difference": change}))
                row |= {"difference": found.difference, "low": found.low, "high": found.high}
                row["note"] = found.note
            row |= {"failed": int((values < FAILED_BELOW).sum())}
            rows.append(row | {"n_patients": len(values), "n_folds": len(by_fold)})
    return pd.DataFrame(rows)


def paper_tables(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The paper's tables from runs of one cohort and preset, ours beside the printed numbers.

    `frame` is that of `collect`. Table 1 (binary) and 3 (multiclass) are `scenario_means`, 2 and 4 `fold_means` at 15
    FA. `differences` has the comparison's differences with `p_holm`, Wilcoxon's p corrected for the number of rows:
    Holm's correction keeps the chance of any false alarm among them below the level of one test. Wilcoxon takes
    patients as independent, which those of one fold are not, so the interval is the safer guide.

    Raises DataError where the runs are of several cohorts, presets or numbers of weak patients, or mix settings.
    """
    for name in ("cohort", "preset"):
        if len(found := sorted(frame[name].unique())) > 1:
            raise DataError(f"the runs are of {len(found)} {name}s ({', '.join(found)}), expected one; choose one.")
    mixed = frame[frame["supervision"] == "mixed"].groupby(["task", "n_fa"])["n_wa"].unique()
    for (task, n_fa), found in mixed.items():
        if len(found) > 1:
            raise DataError(
                f"{task}, {n_fa} FA: the runs have {len(found)} numbers of weak patients "
                f"({', '.join(map(str, sorted(found)))}), but the paper's tables have one; choose one."
            )
    table, shared = comparison_table(frame), pairs(frame)
    made = {}
    for (by_scenario, by_fold), (kind, printed) in zip(
        (("table1", "table2"), ("table3", "table4")), TABLES.items(), strict=True
    ):
        own = table["task"].eq("multiclass") == (kind == "multiclass")
        made[by_scenario] = scenario_means(table[own], printed[0])
        own = shared["task"].eq("multiclass") == (kind == "multiclass")
        made[by_fold] = fold_means(shared[own & shared["n_fa"].eq(FOLDS_AT)], printed[1])
    there = table[table["difference"].notna()]
    there = there.assign(p_holm=holm(there["p_wilcoxon"].to_numpy()))
    names = [*SCENARIO, "region", *ARMS, "difference", "low", "high", "p_holm", "p_wilcoxon", "n_patients", "n_folds"]
    return made | {"differences": there[names].reset_index(drop=True)}


def scenario_means(table: pd.DataFrame, printed: Mapping[tuple[str, int], tuple]) -> pd.DataFrame:
    """Mean Dice by supervision and scenario, in the layout of the paper's tables 1 and 3.

    `table` is the comparison table of binary or of multiclass runs, `printed` the paper's. Rows are the paper's, then
    scenarios of our own; the paper's upper line of 228 FA stands beside the standard runs without weak patients.
    Columns: `scenario`, the number of `folds`, and for every region our mean and `paper: ` its own; NaN where there is
    none.
    """
    ours: dict[tuple[str, int], dict[str, dict]] = {}
    for row in table.to_dict("records"):
        for arm in ARMS:
            if not math.isnan(row[arm]):
                key = (arm, 228 if arm == "standard" and row["n_wa"] == 0 else row["n_fa"])
                ours.setdefault(key, {})[row["region"]] = row
    rows = []
    for arm, n_fa in (*printed, *sorted(set(ours) - set(printed))):
        found = ours.get((arm, n_fa), {})
        n_wa = {f" + {row['n_wa']} WA" for row in found.values() if arm == "mixed"}
        annotated = {row["n_fa"] for row in found.values()} or {n_fa}
        folds = ", ".join(map(str, sorted({row["n_folds"] for row in found.values()})))
        line = {"scenario": f"{arm}, {annotated.pop()} FA{''.join(n_wa)}", "folds": folds}
        for place, region in enumerate(REGIONS):
            line[region_name(region)] = found[region][arm] if region in found else math.nan
            line[f"paper: {region_name(region)}"] = printed.get((arm, n_fa), (math.nan,) * 3)[place]
        rows.append(line)
    return pd.DataFrame(rows)


def fold_means(shared: pd.DataFrame, printed: Mapping[tuple[str, str], tuple] | None = None) -> pd.DataFrame:
    """Mean Dice of each fold and their mean, a row per region and arm, in the layout of the paper's tables 2 and 4.

    `shared` is that of `pairs`, for one scenario. With 15 fully annotated patients, the only scenario whose folds the
    paper prints, its rows follow ours, and a fold that was not run is NaN. With `printed`, the paper's table, so are
    regions that were not run.
    """
    regions = REGIONS if printed else shared["region"].unique()
    if printed is None and shared["n_fa"].eq(FOLDS_AT).all():
        printed = TABLES["multiclass" if shared["task"].eq("multiclass").all() else "binary"][1]
    folds = range(1, N_FOLDS + 1) if printed else sorted(shared["fold"].unique())
    names = ["", *(f"fold {fold}" for fold in folds), "mean"]
    rows = []
    for region in regions:
        for arm in ARMS:
            means = shared[shared["region"] == region].groupby("fold")[arm].mean().reindex(folds)
            own = f"{arm}, {region_name(region)}"
            rows.append([own, *means, means.mean(skipna=printed is None)])
            if printed:
                rows.append([f"paper: {own}", *printed[arm, region]])
    return pd.DataFrame(rows, columns=names)


def format_table(table: pd.DataFrame, form: Literal["terminal", "markdown", "latex", "csv"] = "terminal") -> str:
    """Any table of this file, or another frame, as text; the only way a table is shown.

    The first three forms show the same rounded text (`readable`), with the notes of a comparison table below. In the
    terminal a line has at most 79 characters: long text is wrapped, and if that is not enough, the last columns are
    left out and named. CSV is for programs: the columns of the frame, numbers with six digits.
    """
    if form == "csv":
        return table.to_csv(index=False, float_format="%.6g")
    cells = readable(table)
    if form == "latex":
        return tabulate(cells, list(cells), "latex_booktabs", showindex=False, disable_numparse=True)
    notes = [note for note in table.get("note", []) if note]
    if notes and {"n_fa", "n_wa"} <= {*table}:
        notes = [f"{row.n_fa} FA + {row.n_wa} WA: {row.note}" for row in table.itertuples() if row.note]
    if form == "terminal":
        return "\n".join([_fitted(cells), *(textwrap.fill(note, WIDTH) for note in dict.fromkeys(notes))])
    head, *rows = [list(cells), *cells.itertuples(index=False)]  # names of folders end up in an HTML report:
    rows = [[html.escape(cell, quote=False).replace("|", r"\|") for cell in row] for row in rows]
    text = tabulate([head, SEPARATING_LINE, *rows], tablefmt="github", disable_numparse=True)
    text = text.split("\n", 1)[1]  # without the rule above the names
    return "\n\n".join([text, *dict.fromkeys(notes)])


def _fitted(cells: pd.DataFrame) -> str:
    """The table of text between rules, in at most `WIDTH` columns."""
    for kept in range(cells.shape[1], 0, -1):
        for width in (40, 20, 16, 13):
            columns = []
            for name in cells.columns[:kept]:
                column = [cell if "[" in cell or "(" in name else textwrap.fill(cell, width) for cell in cells[name]]
                widest = max([1, *(len(line) for cell in column for line in cell.split("\n"))])
                columns.append([textwrap.fill(name, widest, break_long_words=False), *column])
            head, *rows = zip(*columns, strict=True)
            text = tabulate([head, SEPARATING_LINE, *rows], tablefmt="simple", disable_numparse=True)
            if len(text.split("\n")[0]) <= WIDTH:
                out = textwrap.fill(f"Columns that did not fit: {'; '.join(cells.columns[kept:])}.", WIDTH)
                return text if kept == cells.shape[1] else f"{text}\n{out}"
    return ""


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text for people: rounded, columns that belong together in one, the least interesting last.

    Dice has one decimal, a p-value two digits; NaN is empty. A comparison leaves out the cohort and preset, and of
    variants the region, where they are the same in all rows: its caption names them.
    """
    joined = {names[0]: (header, *_JOINED[header]) for header, (names, _) in _JOINED.items() if {*names} <= {*table}}
    once = {"cohort", "preset", "region"} if "variant" in table else {"cohort", "preset"}
    hidden = {name for name in once & {*table} if "low" in table and table[name].nunique() <= 1}
    hidden |= {"n_seeds", "note"}
    hidden |= {"p_wilcoxon"} if "p_holm" not in table else set()
    hidden |= {name for _, names, _ in joined.values() for name in names[1:]}
    cells = {}
    for column in table:
        if column in joined:
            header, names, cell = joined[column]
            cells[header] = [cell(*row) for row in table[[*names]].itertuples(index=False)]
        elif column not in hidden:
            header = _HEADERS.get(column, column.replace("_", " "))
            cells[header] = [_cell(column, value) for value in table[column]]
    return pd.DataFrame(cells, dtype=str)


def _number(value: float, form: str = ".1f") -> str:
    return "" if pd.isna(value) else format(value, form)


def _cell(column: str, value: object) -> str:
    if isinstance(value, float):
        return _number(value, ".2g" if column.startswith("p_") else ".1f")
    return region_name(value) if column == "region" else str(value)


def _interval(difference: float, low: float, high: float) -> str:
    if math.isnan(difference):
        return ""
    return f"{difference:+.1f}" + ("" if math.isnan(low) else f" [{low:+.1f}, {high:+.1f}]")


def _both(form: str) -> Callable[[float, float], str]:
    return lambda standard, mixed: f"{_number(standard, form) or 'none'}, {_number(mixed, form) or 'none'}"


def _task_region(task: str, region: str) -> str:
    return f"multiclass: {region_name(region)}" if task == "multiclass" else region_name(region)


_JOINED: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "region": (("task", "region"), _task_region),
    "scenario": (("n_fa", "n_wa"), "{} FA + {} WA".format),
    "Dice (folds)": (("mean", "lowest_fold", "highest_fold"), "{:.1f} ({:.1f} to {:.1f})".format),
    "difference [95 %]": (("difference", "low", "high"), _interval),
    "median: standard, mixed": (("standard_median", "mixed_median"), _both(".1f")),
    "patients (folds)": (("n_patients", "n_folds"), "{} ({})".format),
    "failed: standard, mixed": (("standard_failed", "mixed_failed"), _both(".0f")),
    "paper: standard, mixed": (("paper_standard", "paper_mixed"), _both(".1f")),
}
"""Header -> the columns that one cell shows together, and how."""

_HEADERS = {"n_fa": "FA", "n_wa": "WA", "p_wilcoxon": "p (Wilcoxon)", "p_holm": "p (Holm)"}


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Every table as .md, .csv and .tex in `folder`, each written whole or not at all; the paths."""
    written = []
    for name, table in tables.items():
        for form, ending in (("markdown", "md"), ("csv", "csv"), ("latex", "tex")):
            written.append(folder / f"{name}.{ending}")
            write_text(written[-1], format_table(table, form).rstrip("\n") + "\n")
    return written


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
    where = f"{_task_region(row['task'], row['region'])}, {row['n_fa']} FA + {row['n_wa']} WA"
    if math.isnan(row["difference"]):
        return f"{where}: {row['note']}"
    if math.isnan(row["low"]):
        return f"{where}: the difference is {row['difference']:+.1f} Dice points. {row['note']}"
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


def outcomes(table: pd.DataFrame) -> str:
    """What the rows of `beside_paper` show, as a Markdown list with an item for every number of annotated patients.

    An item names the regions in which mixed supervision is ahead, behind, or cannot be told from standard, and counts
    the rows in which the paper's mixed mean is the higher one.
    """
    compared = table[table["difference"].notna()]
    lines = []
    for n_fa, rows in compared.groupby("n_fa"):
        ahead, behind = rows["low"] > 0, rows["high"] < 0
        said = []
        for words, side in (
            ("mixed supervision is ahead in", ahead),
            ("mixed supervision is behind in", behind),
            ("these runs cannot tell for", ~(ahead | behind)),
        ):
            if side.any():
                said.append(f"{words} {', '.join(map(_task_region, rows['task'][side], rows['region'][side]))}")
        folds = ", ".join(map(str, sorted(set(rows["n_folds"]))))
        higher, printed = (rows["paper_mixed"] > rows["paper_standard"]).sum(), rows["paper_mixed"].count()
        paper = f"in the paper the mean of mixed is higher in {higher} of {printed}" if printed else "not in the paper"
        lines.append(f"- **{n_fa} FA**: {'; '.join(said)} (folds: {folds}; {paper}).")
    notes = dict.fromkeys(note for note in compared["note"] if note)
    return "\n\n".join(["\n".join(lines) or "No scenario has been run in both arms.", *notes])


def difference_in_words(dice: pd.DataFrame, variant: str, against: str) -> str:
    """The paired difference of two variants of `dice_by_variant`, one region, as "+9.7 [+1.2, +18.7]" Dice points.

    What the interval does not cover, where patients or folds are few, is said behind it in parentheses.
    """
    row = variant_table(dice, {variant: against}).set_index("variant").loc[variant]
    found = _interval(row["difference"], row["low"], row["high"])
    return f"{found} ({row['note']})" if row["note"] else found
