"""Does a faster way of computing give the same Dice? Paired over seeds, beside the spread of seeds.

    python -m mixsup_lib phantom PHANTOM --patients 40 --voxel-mm 5
    python workflow/equal_dice.py PHANTOM [--seeds 12] [--minutes 9] [--set NAME=VALUE ...]

The first way is strict float32 in the plain layout; the others change layout, precision, where the slices lie, and
compile the network (the last two on a GPU only). Writes a row per way and seed to data/results/equal-dice-<device>.csv;
what stands there is not trained again, so that a call stopped after `--minutes` goes on with the next one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from bench_file import code_version, device_name, slug

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import evaluate
from mixsup_lib.experiments.runs import make_trainer, open_store, split_of
from mixsup_lib.files import MixsupError, SettingError, atomic_path
from mixsup_lib.training import set_up

RESULTS = Path("data/results")
SMALL = {"preset": "tiny", "n_fa": 15, "iterations": 600}


@dataclass(frozen=True)
class Way:
    """Settings of a run that should change its speed alone, and whether images lie in the plain layout."""

    name: str
    settings: dict = field(default_factory=dict)
    plain: bool = False


FAST = {"precision": "bfloat16", "feed": "resident"}
WAYS = (
    Way("float32, plain layout", {"precision": "float32", "feed": "direct"}, plain=True),
    Way("float32, channels_last", {"precision": "float32", "feed": "direct"}),
    Way("bfloat16, channels_last", {"precision": "bfloat16", "feed": "direct"}),
    Way("bfloat16, channels_last, slices on the GPU", FAST),
    Way("bfloat16, channels_last, slices on the GPU, compiled", FAST | {"compile": True}),
)


def ways_of(device: torch.device) -> tuple[Way, ...]:
    """All of `WAYS` on a GPU; on a CPU those that do not need one."""
    return WAYS if device.type == "cuda" else WAYS[:3]


def dice_of(config: RunConfig, way: Way) -> float:
    """Train and test one network: mean Dice (per cent) of the test patients over regions."""
    cohort = find_cohort(config.cohort)
    split, store = split_of(config, cohort), open_store(config, cohort)
    device, precision = set_up(config)
    trainer = make_trainer(config, store, split, device, precision)
    if way.plain:
        trainer.network.to(memory_format=torch.contiguous_format)
        channels_last = trainer.inputs
        trainer.inputs = lambda batch: channels_last(batch).contiguous()
    trainer.run()
    per_patient, _ = evaluate(
        trainer.network, store, split.test, config.task, device=device, precision=precision
    )
    return float(per_patient["dice"].mean())


def measure(
    table: Path, cohort: Path, *, seeds: int, ways: Sequence[Way], minutes: float, settings: dict
) -> pd.DataFrame:
    """Fill `table` with every way and seed that it lacks, seed by seed, until `minutes` have passed; returns it.

    Raises SettingError if the table holds runs of other settings.
    """
    started = time.monotonic()
    base = make_config(cohort=cohort, progress=False, **SMALL | settings)
    version = {"settings": base.settings_hash(), "cohort": base.cohort_name, "preset": base.preset}
    done = pd.read_csv(table).to_dict("records") if table.exists() else []
    if other := [row for row in done if {name: row[name] for name in version} != version]:
        raise SettingError(f"{table}: holds runs of other settings ({other[0]['settings']}); move it away.")
    finished = {(row["way"], row["seed"]) for row in done}
    for seed, way in ((seed, way) for seed in range(seeds) for way in ways):
        if (way.name, seed) in finished or time.monotonic() - started > 60 * minutes:
            continue
        config = make_config(**{**base.settings(), **way.settings, "seed": seed})
        began = time.monotonic()
        dice = dice_of(config, way)
        seconds = time.monotonic() - began
        done.append(
            {"way": way.name, "seed": seed, "dice": dice, "seconds": seconds, **version, **code_version()}
        )
        print(f"{way.name}, seed {seed}: Dice {dice:.2f} in {seconds:.1f} s", flush=True)
        with atomic_path(table) as temporary:
            pd.DataFrame(done).to_csv(temporary, index=False, float_format="%.4f")
    return pd.DataFrame(done)


def paired_over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per way; only seeds that all ways have finished count.

    Columns: way, seeds, `dice` (mean), `sd_of_seeds`, and against the first way: the mean paired `difference`, its 95 %
    interval (t) `low`, `high`, the `largest` difference of a seed, and `within`, whether the mean difference is at most
    the first way's spread of seeds.
    """
    from scipy.stats import t

    wide = frame.pivot(index="seed", columns="way", values="dice")[list(frame["way"].unique())].dropna()
    first, n = wide.iloc[:, 0], len(wide)
    rows = []
    for way in wide:
        change = (wide[way] - first).to_numpy()
        row = {"way": way, "seeds": n, "dice": wide[way].mean(), "sd_of_seeds": wide[way].std()}
        if way != first.name and n > 1:
            half = t.ppf(0.975, n - 1) * change.std(ddof=1) / np.sqrt(n)
            row |= {"difference": change.mean(), "low": change.mean() - half, "high": change.mean() + half}
            row |= {"largest": np.abs(change).max(), "within": bool(abs(change.mean()) <= first.std())}
        rows.append(row)
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, help="folder of a small cohort, a phantom of 5 mm for example")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=9, help="no run begins after that")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of all runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    call = parser.parse_args(arguments)
    try:
        settings = {
            name: yaml.safe_load(value) for name, _, value in (text.partition("=") for text in call.set)
        }
        device, _ = set_up(make_config(cohort=call.cohort, **SMALL | settings))
        table = call.out / f"equal-dice-{slug(device_name())}.csv"
        ways = ways_of(device)
        frame = measure(
            table, call.cohort, seeds=call.seeds, ways=ways, minutes=call.minutes, settings=settings
        )
    except MixsupError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(paired_over_seeds(frame).round(2).to_string(index=False))
    if len(frame) < call.seeds * len(ways):
        print(f"{len(frame)} of {call.seeds * len(ways)} runs are done; the same command goes on.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
