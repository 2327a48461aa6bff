"""Record finished runs so that others can read them without training.

    python workflow/record_results.py RUNS [RUNS ...] NAME [--folders] [--tuning-fold K] [--no-picture] [--paper-tables]

RUNS are folders with run folders, or recorded tables. Writes data/results/NAME.csv (a row per run, test patient and
region, with its provenance), the comparison table between the markers `results:NAME` of REPRODUCTION.md, and
docs/NAME.png, patient by patient. `--folders` (phantoms only, as examples show slices) also copies what notebook 09
reads of each run folder to data/results/runs. `--paper-tables`: several scenarios, so the paper's tables 1 to 4 with
ours beside them instead of single folds, and its figure 7 instead of patients, a panel per task.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from record import record

from mixsup_lib.experiments import pictures, runs, statistics, style
from mixsup_lib.experiments.tables import caption, comparison_table, format_table, paper_tables
from mixsup_lib.files import atomic_path

RESULTS, PICTURES = Path("data/results"), Path("docs")
HEADINGS = {
    "table1": "Table 1, binary: ours, where these were run, beside the paper's",
    "table2": "Table 2, binary at 15 FA, fold by fold",
    "table3": "Table 3, multiclass",
    "table4": "Table 4, multiclass at 15 FA, fold by fold",
}
LIGHT = ("config.json", "metrics.json", "provenance.json", "per_patient.csv", "history.csv", "examples.npz")
EVERY = 5
"""Recorded histories keep one iteration in five, the mean of the five."""


def record_folder(folder: Path) -> None:
    target = RESULTS / "runs" / Path(*folder.parts[-7:])  # cohort/preset/task/scenario/fold/supervision/seed
    target.mkdir(parents=True, exist_ok=True)
    for name in LIGHT:
        shutil.copyfile(folder / name, target / name)
    history = runs.read_history(folder)
    thinned = history.groupby((history["iteration"] - 1) // EVERY).mean()
    thinned["iteration"] = history["iteration"].groupby((history["iteration"] - 1) // EVERY).last()
    thinned.to_csv(target / "history.csv", index=False, float_format="%.5g")


def tables(frame: pd.DataFrame, reported: pd.DataFrame, tuning_fold: int | None) -> str:
    """The comparison without the tuning fold, and every fold by itself, in Markdown."""
    pairs = statistics.pairs(frame)
    keys = ["fold"] if len(pairs.groupby(["task", "region"])) == 1 else ["task", "region", "fold"]
    means = pairs.groupby(keys, sort=False)[["standard", "mixed"]].mean()
    means["difference"] = means["mixed"] - means["standard"]
    by_fold = means.reset_index().astype({"fold": str})
    if tuning_fold is not None:
        by_fold.loc[by_fold["fold"] == str(tuning_fold), "fold"] += " (tuning, not in the table above)"
    overall = format_table(comparison_table(reported), "markdown")
    return f"{overall}\n\n{format_table(by_fold, 'markdown')}"


def papers_tables(frame: pd.DataFrame) -> str:
    """The comparison of every scenario, then the paper's tables with ours beside them, in Markdown."""
    overall = format_table(comparison_table(frame), "markdown")
    tables = paper_tables(frame)
    parts = [f"*{HEADINGS[name]}*\n\n{format_table(tables[name], 'markdown')}" for name in HEADINGS]
    return "\n\n".join([overall, *parts])


def draw(frame: pd.DataFrame, caption: str, path: Path) -> None:
    pairs = statistics.pairs(frame)
    title = f"{caption}; {pairs['n_fa'].iloc[0]} FA + {pairs['n_wa'].iloc[0]} WA"
    save(pictures.paired_dots(pairs, title=title), path)


def draw_figure_7(frame: pd.DataFrame, caption: str, path: Path) -> None:
    """One picture per task that has several scenarios, its name at the end of the file's."""
    table = comparison_table(frame)
    several = table.groupby("task")["n_fa"].transform("nunique") > 1
    for task, part in table[several].groupby("task", sort=False):
        figure = pictures.dice_by_annotation(part, task=task, title=caption)
        save(figure, path.with_stem(f"{path.stem}-{task}"))


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")
    print(style.alt_text(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("name")
    parser.add_argument("--folders", action="store_true")
    parser.add_argument(
        "--tuning-fold", type=int, help="fold that settings were chosen on; left out of the table"
    )
    parser.add_argument(
        "--no-picture", action="store_true", help="for a few runs beside others: the table is enough"
    )
    parser.add_argument("--paper-tables", action="store_true", help="the paper's tables 1 to 4 and figure 7")
    call = parser.parse_args()
    recorded = [path for path in call.runs if path.suffix == ".csv"]
    frames = [runs.read_recorded(path) for path in recorded]
    if folders := [path for path in call.runs if path not in recorded]:
        frames.append(runs.collect(folders))
    frame = pd.concat(frames)
    with atomic_path(RESULTS / f"{call.name}.csv") as temporary:
        frame.drop(columns="folder").to_csv(temporary, index=False, float_format="%.4f")
    if call.folders:
        for folder in sorted(set(frame["folder"])):
            record_folder(Path(folder))
    heading = caption(frame["cohort"].iloc[0])
    reported = frame if call.tuning_fold is None else frame[frame["fold"] != call.tuning_fold]
    if not call.no_picture:
        (draw_figure_7 if call.paper_tables else draw)(reported, heading, PICTURES / f"{call.name}.png")
    text = papers_tables(reported) if call.paper_tables else tables(frame, reported, call.tuning_fold)
    record(call.name, f"{heading}\n\n{text}")


if __name__ == "__main__":
    main()
