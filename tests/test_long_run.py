"""The rule of the long run: what is flat, what grows, and what cannot be told."""

from __future__ import annotations

import long_run
import numpy as np
import pandas as pd
import psutil
import pytest

SECONDS = np.arange(0, 1800, 3.0)


def judge(values) -> str:
    table = long_run.spans(pd.DataFrame({"seconds": SECONDS, "memory_mb": values}))
    assert len(table) == long_run.SPANS
    return long_run.verdict(*long_run.growth(table["seconds"].to_numpy(), table["memory_mb"].to_numpy())[1:])


def sawtooth(seed: int = 0) -> np.ndarray:
    """Runs of 25 s that climb by a third and fall again, with noise."""
    rng = np.random.default_rng(seed)
    return 900 + 300 * (SECONDS % 25) / 25 + rng.normal(0, 30, len(SECONDS))


@pytest.mark.parametrize("seed", range(5))
def test_runs_that_come_and_go_are_flat_and_a_leak_under_them_is_seen(seed):
    assert judge(sawtooth(seed)) == "flat"
    assert judge(sawtooth(seed) * (1 + 0.15 * SECONDS / 1800)) == "grows"


def test_a_start_that_loads_packages_is_no_leak_and_a_burst_is_none_either():
    start = np.minimum(SECONDS / 100, 1.0)
    assert judge(sawtooth() * start) == "flat"
    burst = np.where((SECONDS > 1500) & (SECONDS < 1530), 5000, 0)
    assert judge(sawtooth() + burst) == "flat"


def test_noise_that_hides_the_answer_is_said():
    rng = np.random.default_rng(0)
    walk = 1000 + 60 * rng.standard_normal(len(SECONDS)).cumsum()
    table = long_run.spans(pd.DataFrame({"seconds": SECONDS, "memory_mb": np.abs(walk)}))
    _, low, high = long_run.growth(table["seconds"].to_numpy(), table["memory_mb"].to_numpy())
    assert long_run.verdict(-0.2, 0.3).startswith("cannot tell") and low < high


def test_a_process_and_its_files_are_counted(tmp_path):
    before = long_run.sample(psutil.Process())
    files = [open(tmp_path / str(i), "w") for i in range(7)]  # noqa: SIM115
    after = long_run.sample(psutil.Process())
    for file in files:
        file.close()
    assert after["files"] - before["files"] == after["lasting_files"] - before["lasting_files"] == 7
    assert before["lasting_memory_mb"] > 20
