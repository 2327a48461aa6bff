"""Compare: every run of an experiment through papermill, several at a time, then one table and a report or pictures."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from mixsup_lib.cohort import Cohort
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments import tables
from mixsup_lib.experiments.experiment import Cell, Experiment, cells_of, read_experiment
from mixsup_lib.experiments.runs import collect, open_store, store_folder
from mixsup_lib.files import DataError, SettingError, atomic_path, locked, read_json, usable_cores, write_text
from mixsup_lib.phantom import make_phantom

MAIN = Experiment(
    name="main",
    compare="supervision",
    settings={"preset": "workshop", "n_fa": 5},
    axes={"supervision": ["mixed", "standard"]},
    folds=[1, 2],
)
"""The main job: standard against mixed supervision."""

PHANTOMS = {"data/phantom-tiny": {"patients": 12, "voxel_mm": 5.0}, "data/phantom-seed1": {"seed": 1}}
"""Cohorts that are made where they are missing. Results are reported on seed 1; seed 0 is for tuning."""

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAMED = tuple("cohort out stores preset task n_fa n_wa fold supervision seed device".split())
"""Settings that are parameters of the run notebook; all others go into its parameter `settings`."""

PASSING = ("Kernel died before replying", "Address already in use", "another process works on this run")
"""What papermill prints where kernels race for ports, or where a killed run is not quite gone: worth another try."""

ATTEMPTS = 3
KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**30)}
"""glibc keeps freed memory instead of asking the system for it again, as in the Makefile: a step takes a tenth less."""


def compare(
    file: str | Path | None = None,
    data: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    out: str | Path = "runs",
    stores: str | Path = "data/stores",
    jobs: int | None = None,
    dry_run: bool = False,
    execute: Callable[[list[Cell], Cohort, int | None], None] | None = None,
) -> Path | None:
    """Run what is missing of an experiment, write its table and show it; returns the report or the table.

    Finished runs are used as they are, interrupted ones continue, and one that fails stops no other.

    Args:
        file: experiment file, or the name of one in scenarios/; None: the main job.
        data: cohort folder; None: a phantom, made where it is missing.
        settings, folds, seeds: instead of those of the experiment, for all its runs.
        out: receives a folder COHORT (main job) or EXPERIMENT-COHORT with the runs, the table and the report.
        jobs: runs at a time; None: one a GPU, or without GPUs as many as there are cores for.
        dry_run: show what would run, and write nothing.
        execute: trains the cells that have not finished (cells, cohort, jobs); None: `run_here`.

    Raises:
        SettingError: the experiment, a setting or the choice of cells is at fault.
        DataError: the data are at fault, or runs failed; what has finished is kept.
    """
    began = time.monotonic()
    experiment = (MAIN if file is None else read_experiment(file)).changed(settings or {}, folds, seeds)
    if data is None:
        tiny = all(config.preset == "tiny" for config in experiment.configs().values())
        data = "data/phantom-tiny" if tiny else "data/phantom-seed1"
    if str(data) in PHANTOMS and not dry_run:
        make_phantom(data, **PHANTOMS[str(data)], workers=jobs)
    cohort = find_cohort(data)
    name = cohort.folder.resolve().name
    place = Path(out, name if file is None else f"{experiment.name}-{name}")
    if any(config.test for config in experiment.configs().values()):
        raise SettingError("Setting 'test': a comparison needs test patients; use `run` for a training without them.")
    cells, left_out = cells_of(experiment, cohort, out if file is None else place, stores)
    experiment = experiment.model_copy(
        update={"variants": {key: own for key, own in experiment.variants.items() if key not in left_out}}
    )
    without_mask = sum(not patient.mask_files for patient in cohort.patients)
    print(f"1/3  {cohort.folder}: {cohort.layout}, {len(cohort.patients)} patients, {without_mask} without a mask")
    for problem in cohort.problems:
        print(f"     {problem.severity}: {problem.problem}")
    for why, count in Counter(left_out.values()).items():
        print(f"     left out, {count} of {count + len(experiment.variants)} variants: {why}")
    missing = [cell for cell in cells if not cell.finished()]
    print(f"2/3  {len(cells)} runs, {len(cells) - len(missing)} finished, {len(missing)} to run", flush=True)
    if dry_run:
        for cell in missing:
            print(f"     {cell.name}")
        return None
    place.mkdir(parents=True, exist_ok=True)
    with locked(place / "compare.lock", place):
        if missing := [cell for cell in cells if not cell.finished()]:
            (execute or run_here)(missing, cohort, jobs)
        failed = [cell for cell in missing if not cell.finished()]
        for cell in failed:
            print(f"     failed: {cell.name}: {_reason(cell.printed())}")
            print(f"             {cell.notebook}")
        print("3/3  Table", flush=True)
        try:
            result = write_results(experiment, cells, place)
        except DataError as error:
            if not failed:
                raise
            print(f"     no table yet: {error}")
    if failed:
        raise DataError(
            f"{len(failed)} of {len(cells)} runs failed ({'; '.join(cell.name for cell in failed[:5])}"
            f"{'; ...' if len(failed) > 5 else ''}); the same command runs what is missing."
        )
    print(f"{result}   ({(time.monotonic() - began) / 60:.1f} min)", flush=True)
    return result


def run_here(cells: list[Cell], cohort: Cohort, jobs: int | None) -> None:
    """Execute the cells on this machine, several at a time, after preparing the slices that they share."""
    from tqdm.auto import tqdm

    cores = usable_cores()
    for config in {store_folder(cell.config): cell.config for cell in cells}.values():
        open_store(config, cohort, workers=jobs or cores)
    free = places(cells, jobs, cores)
    waiting, running, attempts = list(cells), {}, Counter()
    total, seconds = sum(cell.config.iterations for cell in cells), 0.5 if sys.stderr.isatty() else 30
    bar = tqdm(total=total, unit="it", desc="starting", miniters=1, mininterval=seconds)
    try:
        while waiting or running:
            while waiting and free:
                cell, place = waiting.pop(0), free.pop(0)
                attempts[cell] += 1
                cell.log.parent.mkdir(parents=True, exist_ok=True)
                environment = (
                    KEEP_FREED_MEMORY | os.environ | ({} if place is None else {"CUDA_VISIBLE_DEVICES": place})
                )
                with open(cell.log, "w") as log:
                    program = subprocess.Popen(
                        run_command(cell), env=environment, stdout=log, stderr=log, stdin=DEVNULL
                    )
                running[cell] = place, program
            time.sleep(0.2)
            for cell, (place, program) in list(running.items()):
                if program.poll() is None:
                    continue
                del running[cell]
                free.append(place)
                if program.returncode == 0 and cell.finished():
                    os.replace(cell.notebook, cell.folder / "run.ipynb")
                    cell.log.unlink()
                elif attempts[cell] < ATTEMPTS and any(words in cell.printed() for words in PASSING):
                    waiting.insert(0, cell)
            done = {cell: _progress(cell) for cell in cells}
            if now := {done[cell][0] for cell in running}:
                doing = next((word for word in ("training", "evaluating") if word in now), "starting")
                bar.set_description(doing, refresh=doing not in bar.desc)
            bar.update(sum(iteration for _, iteration in done.values()) - bar.n)
    finally:
        bar.close()
        for _, program in running.values():
            program.terminate()
        for _, program in running.values():
            program.wait()


def places(cells: Sequence[Cell], jobs: int | None, cores: int) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each run at a time; None: as it is, for runs on CPUs.

    Every GPU gets its first run before any gets a second. Names that the environment gives to GPUs are kept.
    """
    import torch

    count = torch.cuda.device_count() if any(cell.config.device != "cpu" for cell in cells) else 0
    if not count:
        return [None] * (jobs or max(1, cores // max(cell.config.threads for cell in cells)))
    names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    return [names[number % count].strip() for number in range(jobs or count)]


def run_command(cell: Cell) -> list[str]:
    """The command that executes a cell's run and writes its notebook."""
    settings = cell.config.settings()
    values = {name: settings[name] for name in NAMED}
    values["settings"] = {name: settings[name] for name in cell.given if name not in NAMED}
    return papermill(NOTEBOOKS / "08_scenario_run.ipynb", cell.notebook, values)


def papermill(notebook: Path, executed: Path, parameters: Mapping[str, Any]) -> list[str]:
    """The command that executes `notebook` with these parameters and writes it to `executed`."""
    import yaml

    values = base64.b64encode(yaml.safe_dump(dict(parameters)).encode()).decode()
    options = "--kernel python3 --start-timeout 300 --no-progress-bar --log-level WARNING".split()
    files = [str(notebook), str(executed), "--cwd", str(NOTEBOOKS)]
    return [sys.executable, "-m", "papermill", *files, "-b", values, *options]


def _progress(cell: Cell) -> tuple[str, int]:
    """What a run is doing, and how many iterations it has done."""
    partial = cell.folder.with_name(f"{cell.folder.name}.partial")
    if cell.finished() or (partial / "metrics.json").exists():
        return "evaluating", cell.config.iterations
    try:
        progress = read_json(partial / "progress.json")
        return progress["doing"], progress["iteration"]
    except (OSError, ValueError, KeyError):
        return "starting", 0


def _reason(printed: str) -> str:
    """The last line of what a program printed, which says why it stopped."""
    return next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "no output")


def write_results(experiment: Experiment, cells: Sequence[Cell], place: Path) -> Path:
    """Print the table of the cells that have finished, and write it to `place` as table.md and table.csv.

    Standard against mixed supervision also gets the paper's tables 1 to 4 in `tables` and a report; other experiments
    get a picture per region. Returns the path of the report or of the last picture.
    """
    from mixsup_lib.experiments import pictures

    finished = [cell.folder for cell in cells if cell.finished()]
    frame = collect(finished)
    two_arms = experiment.compare == "supervision"
    if two_arms:
        table = tables.beside_paper(tables.comparison_table(frame))
    else:
        dice = tables.dice_by_variant(frame, experiment.configs())
        table = tables.variant_table(dice, experiment.against())
    caption = tables.caption(frame["cohort"].iloc[0])
    if len(finished) < len(cells):
        caption += f"; {len(finished)} of {len(cells)} runs have finished"
    write_text(place / "table.md", f"{caption}\n\n{tables.format_table(table, 'markdown')}\n")
    write_text(place / "table.csv", tables.format_table(table, "csv"))
    print(f"\n{caption}\n\n{tables.format_table(table)}\n", flush=True)
    if two_arms:
        try:
            tables.write_tables(tables.paper_tables(frame), place / "tables")
        except DataError as error:
            print(f"     no tables like the paper's: {error}")
        return _report(finished, place)
    for region, rows in table.groupby("region", sort=False):
        of_region = dice.xs(region, level="region")
        figure = pictures.variant_ladder(of_region, rows.reset_index(drop=True), title=caption)
        picture = place / f"{region}.png"
        with atomic_path(picture) as temporary:
            figure.savefig(temporary, dpi=110, bbox_inches="tight")
    return picture


def _report(folders: list[Path], place: Path) -> Path:
    """Execute the comparison notebook on these runs, without what it says of recorded ones, and turn it into HTML."""
    import nbformat

    notebook = place / "report.ipynb"
    book = nbformat.read(NOTEBOOKS / "09_scenario_comparison.ipynb", as_version=4)
    book.cells = [cell for cell in book.cells if "recorded" not in cell.metadata.get("tags", [])]
    nbformat.write(book, notebook)
    convert = [sys.executable, "-m", "nbconvert", "--to", "html", "--template", "classic", "--no-input"]
    for step in (
        papermill(notebook, notebook, {"run_folders": [str(folder.resolve()) for folder in folders]}),
        [*convert, "--log-level", "ERROR", str(notebook)],
    ):
        done = subprocess.run(step, capture_output=True, text=True, stdin=DEVNULL)
        if done.returncode:
            raise DataError(f"{notebook}: the report could not be made: {_reason(done.stderr)}")
    return notebook.with_suffix(".html")
