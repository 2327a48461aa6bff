"""What a classification branch costs: time of a training step with 0, 1, 2 and 3 branches on the same batch.

    python workflow/branch_cost.py [--rounds 100]

Steps of the preset workshop (multiclass, a batch of 10 images, float32, one thread), the four networks in turn and in
random order, so that whatever else the machine does touches all of them alike. Time is that of the thread on the CPU.
Writes the median difference per added branch, in per cent of the step with one branch, with its 95 % bootstrap interval
to data/results/branch-cost.csv.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from mixsup_lib.config import make_config
from mixsup_lib.files import atomic_path
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.sampling import Batch
from mixsup_lib.training import Trainer, network_input

TABLE = Path("data/results/branch-cost.csv")
BRANCHES = (0, 1, 2, 3)


class SameBatch:
    """A sampler that always draws the same made-up batch."""

    def __init__(self, shape: tuple[int, int], branches: int) -> None:
        rng = np.random.default_rng(0)
        images = rng.normal(100, 30, (10, 4, *shape)).astype(np.float32)
        labels, presence = rng.integers(0, 4, (6, *shape)), rng.integers(0, 2, (10, branches))
        self.batch = Batch(images, labels, presence, np.arange(10))

    def draw(self) -> Batch:
        return self.batch


def make_trainer(branches: int) -> Trainer:
    config = make_config(cohort="none", preset="workshop", task="multiclass")
    input_shape, frames = network_input(config, config.window)
    torch.manual_seed(0)
    sizes = {"width": config.width, "depth": config.depth, "padding": config.padding}
    network = MixedSupervisionUNet(
        in_channels=4, n_maps=config.n_maps, n_branches=branches, input_shape=input_shape, **sizes
    ).to(memory_format=torch.channels_last)
    sampler = SameBatch(config.window, branches)
    trainer = Trainer(network, sampler, config, frames, torch.device("cpu"), "float32")
    trainer.network.train()
    return trainer


def measure(rounds: int) -> pd.DataFrame:
    """Seconds of each step: a row per round, a column per number of branches."""
    torch.set_num_threads(1)
    trainers = {branches: make_trainer(branches) for branches in BRANCHES}
    for trainer in trainers.values():
        trainer.step()
    rng, rows = np.random.default_rng(0), []
    for _ in tqdm(range(rounds), unit="round"):
        row = {}
        for branches in rng.permutation(BRANCHES):
            started = time.thread_time()
            trainers[branches].step()
            row[branches] = time.thread_time() - started
        rows.append(row)
    return pd.DataFrame(rows)[list(BRANCHES)]


def summarise(seconds: pd.DataFrame) -> pd.DataFrame:
    step, rng, rows = seconds[1].median(), np.random.default_rng(0), []
    for fewer, more in ((0, 1), (1, 2), (2, 3), (1, 3)):
        percent = (100 * (seconds[more] - seconds[fewer]) / (more - fewer) / step).to_numpy()
        medians = np.median(rng.choice(percent, (2000, len(percent))), axis=1)
        low, high = np.percentile(medians, (2.5, 97.5))
        rows.append((f"{fewer} to {more}", np.median(percent), low, high))
    table = pd.DataFrame(rows, columns=["branches", "percent_per_branch", "low", "high"])
    return table.assign(step_ms=1000 * step, rounds=len(seconds), torch=torch.__version__, machine=_cpu())


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    table = summarise(measure(parser.parse_args().rounds))
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(TABLE) as temporary:
        table.to_csv(temporary, index=False, float_format="%.2f")
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
