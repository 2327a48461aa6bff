"""Put what was run or measured into the repository, so that others read it without training.

    python workflow/record.py runs RUNS [RUNS ...] NAME [--folders] [--tuning-fold K] [--paper-tables] [--no-picture]
    python workflow/record.py batch-norm RUNFOLDER [RUNFOLDER ...]
    python workflow/record.py speed

`runs`: RUNS are folders with run folders, an experiment's for example, or recorded tables. Writes data/results/NAME.csv
(a row per run, test patient and region, with its provenance), the table between the markers `results:NAME` of a page
below docs, and docs/experiments/NAME.png. An experiment that compares variants has its table and pictures beside its
runs: these are taken. Else standard is compared with mixed supervision; `--paper-tables` adds the paper's tables and
draws its figure 7. `--folders` (phantoms only) also copies what notebook 09 reads of each run folder to
data/results/runs.

`batch-norm` tests runs with torch's running averages, `speed` shows the tables of `make bench` in docs/performance.md.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import evaluate
from mixsup_lib.experiments import pictures, runs, statistics
from mixsup_lib.experiments.tables import caption, comparison_table, format_table, paper_tables
from mixsup_lib.files import atomic_path, write_text
from mixsup_lib.training import read_checkpoint, set_up

RESULTS, DOCS = Path("data/results"), Path("docs")
PICTURES = DOCS / "experiments"
HEADINGS = {
    "table1": "Table 1, binary: ours, where these were run, beside the paper's",
    "table2": "Table 2, binary at 15 FA, fold by fold",
    "table3": "Table 3, multiclass",
    "table4": "Table 4, multiclass at 15 FA, fold by fold",
}
LIGHT = ("config.json", "metrics.json", "provenance.json", "per_patient.csv", "examples.npz")
"""What is recorded of a run folder as it is; its history is thinned."""


def record(name: str, text: str) -> None:
    """Replace what stands between `<!-- results:NAME -->` and its end marker, on whichever page has them."""
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    for page in sorted(DOCS.rglob("*.md")):
        before, _, rest = page.read_text(encoding="utf-8").partition(start)
        _, found, after = rest.partition(end)
        if found:
            return write_text(page, f"{before}{start}\n\n{text}\n\n{end}{after}")
    raise SystemExit(f"No page below {DOCS} has the markers {start} and {end}; put them where the table belongs.")


# Runs


def record_runs(call: argparse.Namespace) -> None:
    tables = [path for path in call.runs if path.suffix == ".csv"]
    frames = [runs.read_recorded(path) for path in tables]
    if folders := [path for path in call.runs if path not in tables]:
        frames.append(runs.collect(folders))
    frame = pd.concat(frames)
    with atomic_path(RESULTS / f"{call.name}.csv") as temporary:
        frame.drop(columns="folder").to_csv(temporary, index=False, float_format="%.4f")
    for folder in sorted(set(frame["folder"])) if call.folders else []:
        record_folder(Path(folder))
    drawn = sorted(call.runs[0].glob("*.png"))
    if drawn and (call.runs[0] / "table.md").exists():
        text = (call.runs[0] / "table.md").read_text(encoding="utf-8").strip()
        for picture in drawn:
            shutil.copy(picture, PICTURES / f"{call.name}{'' if len(drawn) == 1 else f'-{picture.stem}'}.png")
    else:
        reported = frame[frame["fold"] != call.tuning_fold]
        heading = caption(frame["cohort"].iloc[0])
        below = papers_tables(reported) if call.paper_tables else by_fold(frame, call.tuning_fold)
        text = f"{heading}\n\n{format_table(comparison_table(reported), 'markdown')}\n\n{below}"
        if not call.no_picture:
            draw(reported, heading, PICTURES / f"{call.name}.png", call.paper_tables)
    record(call.name, text)


def record_folder(folder: Path) -> None:
    target = RESULTS / "runs" / Path(*folder.parts[-7:])  # cohort/preset/task/scenario/fold/supervision/seed
    target.mkdir(parents=True, exist_ok=True)
    for name in LIGHT:
        shutil.copyfile(folder / name, target / name)
    thinned(runs.read_history(folder)).to_csv(target / "history.csv", index=False, float_format="%.5g")


def thinned(history: pd.DataFrame, every: int = 5) -> pd.DataFrame:
    """One row for so many iterations: the last iteration, and the mean of all else."""
    groups = history.groupby((history["iteration"] - 1) // every)
    return groups.mean().assign(iteration=groups["iteration"].last())


def by_fold(frame: pd.DataFrame, tuning_fold: int | None) -> str:
    """Every fold by itself, in Markdown."""
    pairs = statistics.pairs(frame)
    keys = ["fold"] if len(pairs.groupby(["task", "region"])) == 1 else ["task", "region", "fold"]
    means = pairs.groupby(keys, sort=False)[["standard", "mixed"]].mean()
    table = means.assign(difference=means["mixed"] - means["standard"]).reset_index().astype({"fold": str})
    table.loc[table["fold"] == str(tuning_fold), "fold"] += " (tuning, not in the table above)"
    return format_table(table, "markdown")


def papers_tables(frame: pd.DataFrame) -> str:
    """The paper's tables with ours beside them, in Markdown."""
    tables = paper_tables(frame)
    return "\n\n".join(f"*{HEADINGS[name]}*\n\n{format_table(tables[name], 'markdown')}" for name in HEADINGS)


def draw(frame: pd.DataFrame, heading: str, path: Path, figure_7: bool) -> None:
    """Every patient in both arms; or the paper's figure 7, a picture per task that has several scenarios."""
    if figure_7:
        table = comparison_table(frame)
        several = table.groupby("task")["n_fa"].transform("nunique") > 1
        for task, part in table[several].groupby("task", sort=False):
            save(pictures.dice_by_annotation(part, task=task, title=heading), path.with_stem(f"{path.stem}-{task}"))
    else:
        pairs = statistics.pairs(frame)
        title = f"{heading}; {pairs['n_fa'].iloc[0]} FA + {pairs['n_wa'].iloc[0]} WA"
        save(pictures.paired_dots(pairs, title=title), path)


def save(figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight")


# Batch norm


def record_batch_norm(call: argparse.Namespace) -> None:
    """Mean Dice of the test patients: a run's checkpoint still holds torch's running averages."""
    rows = []
    for folder in call.runs:
        config, metrics = runs.load_run(folder)
        device, precision = set_up(config)
        store = runs.open_store(config, find_cohort(config.cohort))
        network = runs.load_network(folder, store.shape[1], store.shape[2:]).to(device)
        network.load_state_dict(read_checkpoint(folder / "checkpoint.pt", device)["network"])
        per_patient, _ = evaluate(
            network, store, metrics.split["test"], config.task, device=device, precision=precision
        )
        region = config.regions[0]
        dice = {
            "running_averages": per_patient.loc[per_patient["region"] == region, "dice"].mean(),
            "recomputed": metrics.mean_dice[region],
        }
        run = {"cohort": config.cohort_name, "fold": config.fold, "supervision": config.supervision}
        rows.append({**run, "seed": config.seed, **dice})
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS / "batch-norm.csv", index=False, float_format="%.2f")
    record("batch-norm", format_table(table, "markdown"))


# Speed


def record_speed(call: argparse.Namespace) -> None:
    from bench import to_text

    tables = [to_text(pd.read_csv(path)) for path in sorted(RESULTS.glob("bench-*.csv"))]
    record("speed", "\n\n".join(tables))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    of_runs = kinds.add_parser("runs", help="finished runs: table, picture, CSV")
    of_runs.set_defaults(record=record_runs)
    of_runs.add_argument("runs", type=Path, nargs="+", help="folders that hold the finished runs")
    of_runs.add_argument("name", help="of the record: data/results/NAME.csv, and its place in docs")
    of_runs.add_argument("--folders", action="store_true", help="the run folders too, without weights")
    of_runs.add_argument("--tuning-fold", type=int, help="fold that settings were chosen on; not in the table")
    of_runs.add_argument("--paper-tables", action="store_true", help="the paper's tables 1 to 4 and figure 7")
    of_runs.add_argument("--no-picture", action="store_true", help="for a few runs beside others")
    batch_norm = kinds.add_parser("batch-norm", help="running averages against recomputed statistics")
    batch_norm.set_defaults(record=record_batch_norm)
    batch_norm.add_argument("runs", type=Path, nargs="+", help="folders that hold the finished runs")
    kinds.add_parser("speed", help="the tables of `make bench`").set_defaults(record=record_speed)
    call = parser.parse_args(arguments)
    call.record(call)


if __name__ == "__main__":
    main()
