"""Results in words: captions, sentences and Markdown tables for people."""

from __future__ import annotations

import html
import math

import pandas as pd

from mixsup_lib.paired import ARMS


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
