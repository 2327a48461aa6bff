"""The main job: standard against mixed supervision on a cohort, through papermill, to a table and an HTML report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments import runs, tables
from mixsup_lib.experiments.runs import open_store, run_folder, split_of
from mixsup_lib.files import DataError, SettingError, stopped_by_full_disk
from mixsup_lib.phantom import make_phantom

if TYPE_CHECKING:
    from mixsup_lib.config import RunConfig


def gpu_places(environment: Mapping[str, str], count: int, per_gpu: int = 1) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each place for a run: `per_gpu` on each of the `count` GPUs that PyTorch sees.

    All GPUs get their first run before any gets a second. Where the environment restricts the GPUs already, their names
    there are kept.
    """
    restricted = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    names = restricted if restricted != [""] else [str(number) for number in range(count)]
    return names[:count] * per_gpu


@contextmanager
def take_place(places: Sequence[str], folder: str | Path, wait_seconds: float = 1.0) -> Iterator[str]:
    """Wait for a free one of the `places` and hold it; `folder` keeps a lock per place, which dies with its holder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number, place in enumerate(places):
            lock = FileLock(folder / f"place-{number}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield place
            finally:
                lock.release()
            return
        time.sleep(wait_seconds)


NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PATHS = ("cohort", "out", "stores")
NAMED = ("preset", "task", "n_fa", "n_wa", "fold", "supervision", "seed", "device")
"""Settings that are parameters of the run notebook; all others go into its parameter `settings`."""

_PASSING = ("Kernel died before replying", "Address already in use", "another process works on this run")


def papermill_command(config: RunConfig, given: Mapping[str, Any], notebook: str | Path) -> list[str]:
    """The command that executes a run and writes `notebook`; `given` are the settings that were asked for."""
    values = {name: str(getattr(config, name).resolve()) for name in PATHS}
    values |= {name: getattr(config, name) for name in NAMED}
    values["settings"] = {name: value for name, value in given.items() if name not in PATHS + NAMED}
    return execution(NOTEBOOKS / "08_scenario_run.ipynb", notebook, values)


def execution(notebook: str | Path, executed: str | Path, parameters: Mapping[str, Any]) -> list[str]:
    """The command that executes `notebook` with these parameters (JSON values) and writes it to `executed`."""
    module = [sys.executable, "-m", "mixsup_lib.experiments.compare"]
    return [*module, str(notebook), str(executed), json.dumps(parameters)]


def execute(notebook: str, executed: str, parameters: str) -> None:
    """papermill, ready one second sooner than its command and through one second sooner.

    jsonschema would load a grammar of internationalised web addresses, which no notebook holds. The kernel is ended
    where its last cell has ended: all that a run leaves is on the disk by then.
    """
    sys.modules["rfc3987_syntax"] = None  # how Python says that there is no such package
    import papermill

    values = json.loads(parameters)
    papermill.execute_notebook(
        notebook, executed, values, cwd=NOTEBOOKS, progress_bar=False, shutdown_kernel="immediate"
    )


def may_pass(log: str) -> bool:
    """Did papermill print a fault of the moment, such as kernels that race for ports, so that it pays to retry?"""
    return any(sentence in log for sentence in _PASSING)


if __name__ == "__main__":
    execute(*sys.argv[1:])


PHANTOM_SEED = 1
"""The phantom that results are reported on; seed 0 is for tuning."""

OWN = {"cohort", "out", "stores", "preset", "n_fa", "fold", "supervision", "seed"}
"""Settings that `compare` takes as arguments of its own."""


@dataclass
class _Cell:
    """One run of the comparison and the papermill process that works on it."""

    config: RunConfig
    folder: Path
    process: subprocess.Popen | None = None
    attempts: int = 0

    @property
    def name(self) -> str:
        return f"{self.config.supervision}, fold {self.config.fold}, seed {self.config.seed}"

    @property
    def notebook(self) -> Path:
        """Where papermill writes the executed notebook until the run has finished."""
        return self.folder.with_name(self.folder.name + ".ipynb")

    def progress(self) -> tuple[int, float | None]:
        """Iterations done and the latest loss."""
        if self.folder.exists():
            return self.config.iterations, None
        try:
            content = json.loads(
                (self.folder.with_name(self.folder.name + ".partial") / "progress.json").read_text()
            )
            return content["iteration"], content["loss"]
        except (OSError, ValueError):
            return 0, None


def compare(
    data: str | Path | None = None,
    *,
    out: str | Path = "runs",
    stores: str | Path = "data/stores",
    phantom: str | Path = f"data/phantom-seed{PHANTOM_SEED}",
    preset: str = "workshop",
    n_fa: int = 5,
    folds: Sequence[int] = (1, 2),
    seeds: Sequence[int] = (0,),
    jobs: int | None = None,
    settings: dict | None = None,
) -> Path:
    """Run both arms on the given folds, write the report and print the table; returns the report's path.

    Args:
        data: cohort folder; None makes (or reuses) the phantom of 120 patients in `phantom`.
        jobs: runs at a time, one core each; None: as many as there are cores.
        settings: further settings of `RunConfig`, the same for all runs.

    Finished runs are reused, interrupted ones continue.
    """
    started = time.monotonic()
    for name in OWN & set(settings or {}):
        raise SettingError(f"Setting {name!r} is chosen by the comparison itself; leave it out of --set.")
    jobs = jobs or _cores()
    if data is None:
        print(f"1/4  Phantom cohort in {phantom}", flush=True)
        make_phantom(phantom, seed=PHANTOM_SEED, workers=jobs)
        data = phantom
    cohort = find_cohort(data)
    without_mask = sum(not patient.mask_files for patient in cohort.patients)
    print(
        f"     {cohort.folder}: {cohort.layout}, {len(cohort.patients)} patients, {without_mask} without a mask",
        flush=True,
    )
    for problem in cohort.problems:
        print(f"     {problem.severity}: {problem.problem}", flush=True)
    shared = {
        "cohort": data,
        "out": out,
        "stores": stores,
        "preset": preset,
        "n_fa": n_fa,
        **(settings or {}),
    }
    configs = [
        make_config(**shared, fold=fold, supervision=supervision, seed=seed)
        for seed in seeds
        for fold in folds
        for supervision in ("mixed", "standard")
    ]
    print("2/4  Slices", flush=True)
    open_store(configs[0], cohort, workers=jobs)
    cells = [_Cell(config, run_folder(config, split_of(config, cohort))) for config in configs]
    print(f"3/4  {len(cells)} runs, {jobs} at a time", flush=True)
    _run_cells(cells, jobs, settings or {})
    print("4/4  Report", flush=True)
    report = _report([cell.folder for cell in cells], Path(out), configs[0].cohort_name)
    table = tables.comparison_table(runs.collect([cell.folder for cell in cells]))
    print(f"\n{tables.caption(configs[0].cohort_name)}\n\n{tables.format_table(table)}\n")
    print(f"Report: {report}   ({(time.monotonic() - started) / 60:.1f} min)", flush=True)
    return report


def _cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_cells(cells: list[_Cell], jobs: int, settings: dict) -> None:
    waiting = [cell for cell in cells if not cell.folder.exists()]
    if not waiting:
        print("     all finished before", flush=True)
        return
    running: list[_Cell] = []
    total = sum(cell.config.iterations for cell in cells)
    interactive = sys.stderr.isatty()
    bar = tqdm(total=total, unit="it", desc="training", mininterval=0.5 if interactive else 20)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0), settings))
            time.sleep(0.5)
            for cell in [cell for cell in running if cell.process.poll() is not None]:
                running.remove(cell)
                if not _finish(cell):
                    waiting.insert(0, cell)
            states = [(cell, *cell.progress()) for cell in cells]
            bar.n = sum(done for _, done, _ in states)
            losses = [
                f"{c.config.supervision} {c.config.fold}: {x:.3f}" for c, _, x in states if x is not None
            ]
            bar.set_postfix_str("  ".join(losses), refresh=False)
            bar.update(0) if interactive else bar.refresh() if time.monotonic() % 20 < 0.5 else None
    finally:
        bar.close()
        for cell in running:
            cell.process.terminate()


def _start(cell: _Cell, settings: dict) -> _Cell:
    """Start papermill on the run notebook."""
    cell.folder.parent.mkdir(parents=True, exist_ok=True)
    cell.attempts += 1
    command = papermill_command(cell.config, settings, cell.notebook)
    with open(cell.notebook.with_suffix(".log"), "w", encoding="utf-8") as log:
        cell.process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    return cell


def _finish(cell: _Cell) -> bool:
    """Take in a stopped run: True if it is done, False to start it once more (kernels can race for ports)."""
    log = cell.notebook.with_suffix(".log")
    if cell.process.returncode == 0 and cell.folder.exists():
        os.replace(cell.notebook, cell.folder / "run.ipynb")
        log.unlink()
        return True
    text = log.read_text(encoding="utf-8", errors="replace")
    if cell.attempts < 3 and may_pass(text):
        return False
    if full := stopped_by_full_disk(text, cell.notebook):
        raise full
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
    raise DataError(f"Run '{cell.name}' stopped: {last.strip()} The executed notebook is {cell.notebook}.")


def _report(folders: list[Path], out: Path, name: str) -> Path:
    """Execute the comparison notebook on these runs, without what it says of recorded ones, and turn it into HTML."""
    import nbformat

    notebook, report = out / f"report-{name}.ipynb", out / f"report-{name}.html"
    parameters = {"run_folders": [str(folder.resolve()) for folder in folders]}
    book = nbformat.read(NOTEBOOKS / "09_scenario_comparison.ipynb", as_version=4)
    book.cells = [cell for cell in book.cells if "recorded" not in cell.metadata.get("tags", [])]
    nbformat.write(book, notebook)
    convert = [sys.executable, "-m", "nbconvert", "--to", "html", "--template", "classic", "--no-input"]
    for step in (
        execution(notebook, notebook, parameters),
        [*convert, "--log-level", "ERROR", str(notebook)],
    ):
        done = subprocess.run(step, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            if full := stopped_by_full_disk(done.stderr, notebook):
                raise full
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no output")
            raise DataError(f"{notebook}: the report could not be made: {last.strip()}")
    return report
