"""All measurements on a GPU, in commands of under ten minutes each.

    python workflow/gpu_bench.py rows [ceiling steps memory resident segmentation] [--patients 285] [--scratch FOLDER]
    python workflow/gpu_bench.py train COHORT [--folds 1 2 3 4 5] [--minutes 9] [--set width=32 iterations=2000 ...]
    python workflow/gpu_bench.py correctness PHANTOM [--seeds 12] [--minutes 9]

`rows` writes data/results/bench-gpu-<device>.csv; parts measured later replace theirs. `train` runs standard against
mixed supervision with the preset `paper`, fold by fold, into runs/gpu, and writes train-<cohort>-<device>.csv; stopped
after `--minutes` it goes on with the next call. `correctness` is workflow/equal_dice.py.

Beside torch these need numpy, pandas, nibabel, pydantic, pyyaml, safetensors, filelock and tqdm; `train` and
`correctness` also scipy, `train` on LGG scikit-image and Pillow. MONAI's rows are measured where MONAI is installed.
Without a GPU `rows --rehearse` goes through everything at tiny size and writes the rows without values, as unmeasured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import equal_dice
import numpy as np
import pandas as pd
import torch
import yaml
from bench_file import code_version, device_name, slug
from gpu_measure import REHEARSAL, Sizes, unmeasured
from gpu_rows import PARTS

from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import collect, run
from mixsup_lib.experiments.statistics import ARMS, pairs
from mixsup_lib.experiments.tables import comparison_table
from mixsup_lib.files import MixsupError, SettingError, atomic_path

RESULTS = Path("data/results")
REHEARSED = "unmeasured: no GPU; rehearsed at tiny size on a CPU"


def measure_rows(parts: Sequence[str], sizes: Sizes, table: Path) -> pd.DataFrame:
    """Measure the parts and put their rows into `table`, in place of those an earlier call measured; returns it.

    In a rehearsal the values are printed and not written.
    """
    rehearsal = sizes.device != "cuda"
    for part in parts:
        rows, started = [], time.monotonic()
        torch.compiler.reset()  # each part compiles for its own sizes
        try:
            for row in PARTS[part](sizes):
                print(_line(row), flush=True)
                rows.append(row)
        except torch.OutOfMemoryError as error:
            rows.append(unmeasured(part, "the rest", "", error))
        frame = pd.DataFrame(rows).assign(part=part, **code_version())
        if rehearsal:
            frame = frame.assign(value=np.nan, ratio=np.nan, note=REHEARSED, device="none")
        if table.exists():
            before = pd.read_csv(table, keep_default_na=False, na_values={"value": "", "ratio": ""})
            frame = pd.concat([before[before["part"] != part], frame], ignore_index=True)
        with atomic_path(table) as temporary:
            frame.to_csv(temporary, index=False, float_format="%.5g")
        print(f"-- {part}: {time.monotonic() - started:.0f} s, {table}", flush=True)
    return frame


def _line(row: dict) -> str:
    ratio = f"  {row['ratio']:.2f} x {row['against']}" if row["ratio"] == row["ratio"] else ""
    note = f"  ({row['note']})" if row["note"] else ""
    return f"{row['row']}: {row['way']}: {row['value']:.5g} {row['unit']}{ratio}{note}"


def train(cohort: Path, folds: Sequence[int], minutes: float, settings: dict, table: Path) -> bool:
    """Both arms of every fold, until `minutes` have passed; the comparison of what is finished goes to `table`.

    Returns whether all runs are finished. A run that the time cuts off keeps its checkpoint and goes on with the next
    call.
    """
    deadline = time.monotonic() + 60 * minutes
    configs = [
        make_config(
            **{"preset": "paper", "out": "runs/gpu", **settings}, cohort=cohort, fold=fold, supervision=arm
        )
        for fold in folds
        for arm in ARMS
    ]

    def stop_in_time(iteration: int, loss: float) -> None:
        if time.monotonic() > deadline:
            raise KeyboardInterrupt

    finished = []
    for config in configs:
        try:
            finished.append(run(config, stop_in_time))
        except KeyboardInterrupt:
            break
        print(f"{config.supervision}, fold {config.fold}: {finished[-1]}", flush=True)
        if time.monotonic() > deadline:
            break
    _compare(finished, table)
    if len(finished) < len(configs):
        print(f"{len(finished)} of {len(configs)} runs are finished; the same command goes on.")
    return len(finished) == len(configs)


def _compare(folders: Sequence[Path], table: Path) -> None:
    """Dice of every test patient in both arms, to `table`, and the comparison on screen."""
    if not folders:
        return
    frame = collect(folders)
    with atomic_path(table) as temporary:
        frame.drop(columns="folder").to_csv(temporary, index=False, float_format="%.4f")
    if not pairs(frame).empty:
        columns = ["region", *ARMS, "difference", "low", "high", "n_patients", "n_folds"]
        print(comparison_table(frame).reindex(columns=columns).round(2).to_string(index=False))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    modes = parser.add_subparsers(dest="mode", required=True)
    rows = modes.add_parser("rows", help="training steps, memory, slices on the GPU, segmentation")
    rows.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[], help="all, if none is named")
    rows.add_argument("--patients", type=int, help="of the slices on the GPU (285: 15 GB on disk meanwhile)")
    rows.add_argument("--rounds", type=int, help="steps that are timed")
    rows.add_argument("--scratch", type=Path, help="folder for the made-up slices; default: the system's")
    rows.add_argument("--rehearse", action="store_true", help="at tiny size on the CPU, nothing is measured")
    rows.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    training = modes.add_parser("train", help="standard against mixed supervision with the preset paper")
    training.add_argument("cohort", type=Path)
    training.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    training.add_argument("--minutes", type=float, default=9)
    training.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all runs")
    training.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    modes.add_parser("correctness", add_help=False, help="Dice of faster ways, paired over seeds")
    call, rest = parser.parse_known_args(arguments)
    if call.mode == "correctness":
        return equal_dice.main(rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _rows(call) if call.mode == "rows" else _train(call)
    except MixsupError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _rows(call: argparse.Namespace) -> int:
    if not call.rehearse and not torch.cuda.is_available():
        raise SettingError(
            "PyTorch sees no GPU, so there is nothing to measure; `rows --rehearse` goes through it on the CPU."
        )
    given = {name: getattr(call, name) for name in ("patients", "rounds", "scratch")}
    sizes = replace(
        REHEARSAL if call.rehearse else Sizes(), **{k: v for k, v in given.items() if v is not None}
    )
    name = "bench-gpu-unmeasured" if call.rehearse else f"bench-gpu-{slug(device_name())}"
    measure_rows(call.parts or list(PARTS), sizes, call.out / f"{name}.csv")
    return 0


def _train(call: argparse.Namespace) -> int:
    settings = {name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in call.set)}
    table = call.out / f"train-{call.cohort.resolve().name}-{slug(device_name())}.csv"
    train(call.cohort, call.folds, call.minutes, settings, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
