"""Measure every row of the table of speeds on this machine's CPU, side by side with the field's own tools.

    python workflow/run_bench.py [--rows ROW ...] [--tiny] [--record]

Prints each figure as it comes and writes data/results/bench-<CPU>.csv; nothing else should run meanwhile. `--record`
measures nothing and puts the recorded tables between the markers `results:speed` of README.md and docs/performance.md.
`--tiny` tries every row at a size that says nothing about speed and writes no table.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from bench import batches, growing, preparing, segmenting, starting, training_step
from bench.sizes import FULL, TINY, Sizes
from bench.table import RESULTS, Figure, file_name, in_short, provenance, recorded, to_frame, to_text
from record import record

from mixsup_lib.files import MixsupError, atomic_path

ROWS = {
    "training-step": training_step.measure,
    "batches": batches.measure,
    "preparing": preparing.measure,
    "segmenting": segmenting.measure,
    "start-up": starting.measure,
    "growing": growing.measure,
}
NAME = "speed"


def figures(rows: Sequence[str], sizes: Sizes, *, apart: bool = True) -> Iterator[Figure]:
    """The figures of these rows, one after the other, in a temporary folder on the disk of this one."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as folder:
        for number, row in enumerate(rows, start=1):
            started = time.monotonic()
            print(f"[{number}/{len(rows)}] {row}", flush=True)
            settings = {"sizes": sizes, "folder": Path(folder).resolve(), "apart": apart}
            known = inspect.signature(ROWS[row]).parameters
            for figure in ROWS[row](**{name: value for name, value in settings.items() if name in known}):
                print(f"  {figure.line()}", flush=True)
                yield figure
            print(f"  {time.monotonic() - started:.0f} s", flush=True)


def measure(rows: Sequence[str], sizes: Sizes) -> None:
    """Print the figures; all rows at full size are written down, a part of them is not."""
    where = provenance()
    print(
        f"{where['cpu']}, {where['cores']} cores, torch {where['torch']}, MONAI {where['monai']}", flush=True
    )
    table = to_frame(list(figures(rows, sizes)), where)
    if sizes is FULL and set(rows) == set(ROWS):
        path = RESULTS / file_name(where["cpu"])
        with atomic_path(path) as temporary:
            table.to_csv(temporary, index=False, float_format="%.4g")
        print(f"{path}: {len(table)} figures")


def write_down() -> None:
    """Put the recorded tables into the documents."""
    tables = recorded()
    if not tables:
        raise MixsupError(f"{RESULTS}: holds no bench-*.csv of a CPU; run `make bench` first.")
    for document, text in texts(tables).items():
        record(NAME, text, document)
        print(document)


def texts(tables: list[pd.DataFrame]) -> dict[Path, str]:
    """What stands between the markers of each document: a short table in the README, all figures in docs."""
    whole = "\n\n".join(to_text(table) for table in tables)
    return {Path("README.md"): in_short(tables), Path("docs/performance.md"): whole}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run_bench.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), help="only these; no table is written"
    )
    parser.add_argument("--tiny", action="store_true", help="try every row in seconds; no table is written")
    parser.add_argument(
        "--record", action="store_true", help="put the recorded tables into README.md and docs"
    )
    call = parser.parse_args(arguments)
    try:
        write_down() if call.record else measure(call.rows, TINY if call.tiny else FULL)
    except MixsupError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
