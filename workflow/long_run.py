"""Run a grid for a long time and see whether its memory and its open files grow.

    python workflow/long_run.py [--minutes 30] [--cores N] [--preset tiny]

A grid of tiny runs (standard and mixed, seed after seed, more than fit into the time) on a phantom. Every few seconds
the whole tree of processes is looked at: resident memory, and open files. The grid itself and Snakemake live as long as
the grid; notebooks and kernels come and go with each run. So both are judged, the lasting processes and the whole tree.

The rule: the time, without the first tenth, in which the processes start, is cut into 20 equal spans. Samples within a
span depend on one another and follow the runs, so each span gives one number, its mean. Theil and Sen's slope of
these 20 (the median of all pairwise slopes; a burst moves it little) with its 95 % interval, times the duration, is the
growth. Flat: the whole interval lies below 5 % of the median level. Grows: the whole interval lies above 5 %. Else the
time was too short to tell. Writes data/results/long-run.csv, a row per span.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from mixsup_lib.experiments.provenance import cpu_model
from mixsup_lib.files import atomic_path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "data/results/long-run.csv"
BETWEEN_SAMPLES = 3.0
"""Seconds."""
SPANS = 20
GROWTH = 0.05
"""As much of the level may be gained over the whole time and still be called flat."""
WARM_UP = 0.1
MEASURES = ("memory_mb", "files", "lasting_memory_mb", "lasting_files")


def sample(grid: psutil.Process) -> dict[str, float]:
    """Resident memory (MB) and open files of the tree, and of those processes in it that last as long as the grid."""
    found = dict.fromkeys(MEASURES, 0.0) | {"processes": 0}
    for process in [grid, *grid.children(recursive=True)]:
        with suppress(psutil.Error):  # it may end meanwhile
            memory, files = process.memory_info().rss / 1e6, process.num_fds()
            lasting = process == grid or "snakemake" in " ".join(process.cmdline()[:2])
            found["processes"] += 1
            found["memory_mb"] += memory
            found["files"] += files
            found["lasting_memory_mb"] += memory * lasting
            found["lasting_files"] += files * lasting
    return found


def spans(samples: pd.DataFrame, number: int = SPANS) -> pd.DataFrame:
    """Samples (columns seconds and measures) -> the mean of each measure in `number` equal spans of time.

    The warm-up is left out. `seconds` is the middle of the span.
    """
    end = samples["seconds"].max()
    kept = samples[samples["seconds"] >= WARM_UP * end]
    edges = np.linspace(kept["seconds"].min(), end, number + 1)
    which = np.clip(np.searchsorted(edges, kept["seconds"], side="right") - 1, 0, number - 1)
    table = kept.groupby(which).mean()
    return table.assign(samples=kept.groupby(which).size())


def growth(seconds: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Growth over the whole time as a share of the median level, and its 95 % interval (Theil and Sen)."""
    from scipy.stats import theilslopes

    slope, _, low, high = theilslopes(values, seconds)
    duration, level = seconds[-1] - seconds[0], np.median(values)
    return tuple(float(number * duration / level) for number in (slope, low, high))


def verdict(low: float, high: float) -> str:
    """ "flat", "grows", or "cannot tell"."""
    if high < GROWTH:
        return "flat"
    return "grows" if low > GROWTH else "cannot tell: run longer"


def watch(minutes: float, cores: int, preset: str, folder: Path) -> tuple[pd.DataFrame, int]:
    """Samples of a grid that runs for so long in `folder`, and how many of its runs have finished."""
    seeds = list(range(max(20, round(6 * minutes * cores))))  # 12 runs a minute and core
    scenario = {"name": "long", "compare": "supervision", "folds": [1], "seeds": seeds}
    scenario["settings"] = {"preset": preset, "n_fa": 5, "progress": False}
    scenario["axes"] = {"supervision": ["standard", "mixed"]}
    (folder / "long.yaml").write_text(json.dumps(scenario))
    command = [sys.executable, ROOT / "workflow/run_grid.py", "long.yaml", "--cores", str(cores)]
    samples, started = [], time.monotonic()
    with open(folder / "grid.log", "w") as log:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            grid = psutil.Process(process.pid)
            while (passed := time.monotonic() - started) < 60 * minutes and process.poll() is None:
                samples.append({"seconds": passed, **sample(grid)})
                time.sleep(BETWEEN_SAMPLES)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait()
    if process.returncode != 130:  # 130: still at work when it was told to end
        raise SystemExit(f"the grid ended early: {(folder / 'grid.log').read_text()[-2000:]}")
    return pd.DataFrame(samples), sum(1 for _ in (folder / "runs").rglob("seed*/metrics.json"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--preset", choices=["tiny", "workshop"], default="tiny")
    parser.add_argument("--out", type=Path, default=RESULT, help="table to write")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples, finished = watch(call.minutes, call.cores, call.preset, Path(folder))
    table = spans(samples)
    print(
        f"{finished} runs in {call.minutes:g} min on {call.cores} cores ({cpu_model()}), {len(samples)} samples"
    )
    grows = False
    for name in MEASURES:
        share, low, high = growth(table["seconds"].to_numpy(), table[name].to_numpy())
        found = verdict(low, high)
        grows |= found == "grows"
        print(
            f"{name}: median {table[name].median():.0f}, largest {samples[name].max():.0f}; growth over the time "
            f"{share:+.1%} [{low:+.1%}, {high:+.1%}]: {found}"
        )
    with atomic_path(call.out) as temporary:
        table.round(1).assign(runs=finished, cores=call.cores, cpu=cpu_model()).to_csv(temporary, index=False)
    return int(grows)


if __name__ == "__main__":
    sys.exit(main())
