"""The runs of an experiment as jobs of a cluster: Snakemake starts them, by a profile such as workflow/slurm.

    python workflow/grid.py PROFILE EXPERIMENT [--data FOLDER] [...]

The further options are those of `python -m mixsup_lib compare`, which runs the same cells on this machine.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from mixsup_lib.__main__ import in_one_sentence, parser, run_compare
from mixsup_lib.cohort import Cohort
from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.compare import run_command
from mixsup_lib.experiments.experiment import Cell
from mixsup_lib.experiments.runs import open_store, store_folder
from mixsup_lib.files import DataError, SettingError, write_json

SNAKEFILE = Path(__file__).resolve().with_name("Snakefile")


def snakemake() -> str | None:
    """Snakemake of the environment of its own that `make grid` sets up, else one on the PATH."""
    own = Path(sys.prefix, "workflow/bin/snakemake")
    return str(own) if own.exists() else shutil.which("snakemake")


def write_plan(cells: list[Cell], path: Path) -> None:
    """The commands of the cells and of the stores they need, for the Snakefile."""
    plan: dict[str, dict] = {"cells": {}, "stores": {}}
    for cell in cells:
        store = store_folder(cell.config).name
        settings = json.dumps(cell.config.settings())
        plan["stores"][store] = [sys.executable, str(Path(__file__).resolve()), "--prepare", settings]
        plan["cells"][cell.folder.relative_to(cell.config.out).as_posix()] = {
            "store": store,
            "threads": cell.config.threads,
            "folder": str(cell.folder),
            "command": run_command(cell),
        }
    write_json(path, plan)


def prepare(settings: str, workers: str) -> int:
    """The job of the rule `store`: prepare the slices of the runs with these settings (JSON)."""
    config = make_config(**json.loads(settings))
    open_store(config, find_cohort(config.cohort), workers=int(workers))
    return 0


def submit(cells: list[Cell], cohort: Cohort, jobs: int | None, *, profile: Path) -> None:
    """Hand the cells to Snakemake and wait until it is through; Ctrl-C takes its jobs off the cluster."""
    program, root = snakemake(), cells[0].config.out
    if program is None:
        raise DataError("Snakemake is not installed; `make grid` installs it.")
    if not (profile / "config.yaml").is_file():
        raise SettingError(
            f"{profile}: holds no config.yaml of a Snakemake profile; give a folder such as workflow/slurm."
        )
    for rest in (".grid", ".snakemake"):  # the run folders alone say what has finished
        shutil.rmtree(root / rest, ignore_errors=True)
    plan = root / ".grid/plan.json"
    write_plan(cells, plan)
    command = [program, "--snakefile", SNAKEFILE, "--directory", root, "--configfile", plan]
    command += ["--profile", profile.resolve(), *"--keep-going --nolock --drop-metadata --quiet rules".split()]
    command += ["--jobs", str(jobs)] if jobs else []
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def main() -> int:
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    first, *rest = sys.argv[1:]
    if first == "--prepare":
        return in_one_sentence(lambda _: prepare(*rest), None)
    call = parser().parse_args(["compare", *rest])
    return in_one_sentence(partial(run_compare, execute=partial(submit, profile=Path(first))), call)


if __name__ == "__main__":
    sys.exit(main())
