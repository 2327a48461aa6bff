"""How fast we are beside the field's tools: both do the same by turns on this machine, and their ratio counts.

    python workflow/bench.py [--rows training preparing segmenting batches branch start-up] [--tiny]

A figure is the median over the turns of one time divided by the other, with its quartiles: whatever else the machine
does hits both ways alike. On a machine with a GPU `training` is the paper's network there, with its memory. Prints a
table; all rows at full size also go to data/results/bench-<device>.csv. `--tiny` tries the rows in seconds, at sizes
that say nothing. Everything runs on one thread of the CPU.
"""

from __future__ import annotations

import argparse
import copy
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import label_volume, score_slices
from mixsup_lib.experiments.provenance import commit, cpu_model
from mixsup_lib.experiments.tables import format_table
from mixsup_lib.files import atomic_path, usable_cores
from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.phantom import make_phantom
from mixsup_lib.protocol import make_split
from mixsup_lib.sampling import Batch, BatchSampler, TrainingSlices, select_training_slices
from mixsup_lib.slices import patient_slices, prepare, scores_on_source_grid
from mixsup_lib.teaching import speed
from mixsup_lib.teaching.lessons import read_lessons
from mixsup_lib.training import Trainer, build_network, network_input, set_up

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path("data/results")
FASTER, COST, EQUAL, SHARE, TIME = "times faster", "times the cost", "per cent equal", "per cent", "seconds"
CUDA = torch.cuda.is_available()


class Sizes(NamedTuple):
    """Settings beside those of the preset; voxels of the scans that batches are drawn from (the preset's pixels) and of
    the scan that is prepared and segmented (1 mm: 240x240x155 voxels, as in BraTS); turns; batches of a turn."""

    preset: dict
    coarse_mm: float
    fine_mm: float
    turns: int
    batches: int


FULL = Sizes({}, 2.5, 1.0, turns=15, batches=50)
TINY = Sizes(
    {"width": 4, "depth": 2, "pixel_mm": 5.0, "window": (48, 48)}, 5.0, 5.0, turns=1, batches=3
)  # fmt: skip


def by_turns(ways: Mapping[str, Callable[[], object]], turns: int) -> pd.DataFrame:
    """Seconds, a row per turn and a column per way; each way did a turn before that is not timed."""

    def seconds(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    for work in ways.values():
        work()
    return pd.DataFrame([{name: seconds(work) for name, work in ways.items()} for _ in range(turns)])


def compared(row: str, times: pd.DataFrame, ours: str, against: str, measure: str, **rest) -> dict:
    """The row of two ways that took turns."""
    ratio = times[against] / times[ours] if measure == FASTER else times[ours] / times[against]
    low, figure, high = ratio.quantile([0.25, 0.5, 0.75])
    values = {name: 1000 * times[way].median() for name, way in (("ours_value", ours), ("against_value", against))}
    return row_of(row, ours, figure, measure, against=against, low=low, high=high, **values, unit="ms", **rest)


def row_of(row: str, ours: str, figure: float, measure: str, *, reach: float = np.nan, **rest) -> dict:
    """A row of the table. `reach`: what was aimed at, at least (FASTER, EQUAL) or at most."""
    enough = figure >= reach if measure in (FASTER, EQUAL) else figure <= reach
    reached = "" if np.isnan(reach) else "yes" if enough else "no"
    found = {"row": row, "ours": ours, "figure": figure, "measure": measure, "against": ""}
    return found | {"reach": reach, "reached": reached} | rest


# Training


class SameBatch:
    """A sampler that always draws the same made-up batch, so that the step alone is timed."""

    def __init__(self, config: RunConfig, shape: tuple[int, int], n_branches: int) -> None:
        rng, size, annotated = np.random.default_rng(0), config.k + config.m + config.n, config.k + config.m
        images = rng.normal(100, 30, (size, 4, *shape)).astype(np.float32)  # (B, C, H, W)
        labels = (rng.random((annotated, *shape)) < 0.02).astype(np.int64)  # (k + m, H, W)
        presence = np.repeat([[1], [0], [1]], [config.k, config.m, config.n], axis=0)  # (B, 1)
        self.batch = Batch(images, labels, presence.repeat(n_branches, axis=1), np.arange(size))

    def draw(self) -> Batch:
        return self.batch

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """There is none."""


def make_trainer(config: RunConfig) -> Trainer:
    """A trainer as a run has it, in training mode, on one made-up batch."""
    device, precision = set_up(config)
    shape = config.window or (240, 240)
    sampler, (_, frames) = SameBatch(config, shape, config.n_branches), network_input(config, shape)
    trainer = Trainer(build_network(config, 4, shape), sampler, config, frames, device, precision)
    trainer.network.train()
    return trainer


def plain_step(network: torch.nn.Module, trainer: Trainer, way: speed.Way) -> Callable[[], float]:
    """The step of `trainer` as PyTorch is written without further thought: eager, float32, NCHW; returns the loss.

    A network without branches is taken for one that gives scores alone.
    """
    network = network.to(trainer.device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    batch, config = trainer.sampler.draw(), trainer.config
    images, labels, presence = (
        torch.as_tensor(part).to(trainer.device) for part in (batch.images, batch.labels, batch.presence)
    )  # (B, C, H, W), (A, H, W), (B, R)
    ours = hasattr(network, "branches")
    if ours:
        images, labels = (trainer.inputs(batch).contiguous(), trainer.targets(batch))  # padded, cut to the output

    def step() -> float:
        optimizer.zero_grad()
        with speed.way_of_computing(way):
            scores, presences = network(images, n_annotated=len(labels)) if ours else (network(images), None)
            loss = segmentation_loss(scores[: len(labels)], labels, trainer.target_weights)
            if ours:
                loss = joint_loss(loss, classification_loss(presences, presence), config.a)
            loss.backward()
        optimizer.step()
        return loss.item()

    return step


def basic_unet(config: RunConfig) -> torch.nn.Module:
    """MONAI's U-Net of the same widths, with batch norm and ReLU. It has four poolings always, and no branch."""
    from monai.networks.nets import BasicUNet

    widths = [config.width * 2**level for level in range(5)]
    return BasicUNet(2, 4, config.n_maps, (*widths, config.width), act="relu", norm="batch")


def training_ways(config: RunConfig) -> dict[str, Callable[[], Callable[[], float]]]:
    """Name -> what makes the function of one step, ours first. All but MONAI's begin with equal weights."""
    device = "cuda" if CUDA else "cpu"

    def ours(**changes) -> Callable[[], float]:
        trainer = make_trainer(config.model_copy(update=changes))
        return lambda: trainer.step()[1]

    def other(make: Callable[[RunConfig], torch.nn.Module], precision: str = "float32") -> Callable[[], float]:
        trainer = make_trainer(config)
        return plain_step(make(config), trainer, speed.Way("", device, precision))

    def same(config: RunConfig) -> torch.nn.Module:
        return build_network(config, 4, config.window or (240, 240))

    ways = {
        "as the preset runs it": ours,
        "plain loop, eager, float32": lambda: other(same),
        "MONAI BasicUNet, float32": lambda: other(basic_unet),
    }
    if CUDA:
        ways["plain loop, eager, TF32"] = lambda: other(same, "tf32")
        ways["MONAI BasicUNet, TF32"] = lambda: other(basic_unet, "tf32")
        ways["as the preset runs it, compiled"] = lambda: ours(compile=True)
    return ways


def training(sizes: Sizes, folder: Path) -> Iterator[dict]:
    """A training step of the preset workshop on a CPU, of the preset paper (one batch) on a GPU."""
    preset, device = ({"preset": "workshop", **sizes.preset}, "cpu")
    if CUDA:
        preset, device = {"preset": "paper", "batches_per_iteration": 1}, "cuda"
    config = make_config(cohort="none", device=device, progress=False, **preset)
    makers = training_ways(config)
    ours = next(iter(makers))
    steps = {name: make() for name, make in makers.items()}
    losses = {name: step() for name, step in steps.items()}
    times = by_turns(steps, sizes.turns)
    row = f"training step, {config.preset}"
    for other in list(steps)[1:]:
        note = f"first loss {losses[ours]:.4f} and {losses[other]:.4f}"
        yield compared(row, times, ours, other, FASTER, reach=1.3, note=note)
    if CUDA:
        peaks = {name: speed.peak_mb("cuda", make, calls=1) for name, make in makers.items()}
        for other in list(steps)[1:]:
            values = {"ours_value": peaks[ours], "against_value": peaks[other], "unit": "MB"}
            figure = peaks[ours] / peaks[other]
            yield row_of(f"{row}, memory", ours, figure, COST, against=other, **values)


def branch(sizes: Sizes, folder: Path) -> Iterator[dict]:
    """What a branch costs: the same multiclass step with 3 branches and with 1."""
    config = make_config(cohort="none", preset="workshop", task="multiclass", device="cpu", **sizes.preset)

    def step(branches: int) -> Callable[[], object]:
        trainer = make_trainer(config)
        batch = trainer.sampler.batch
        trainer.sampler.batch = replace(batch, presence=batch.presence[:, :branches])
        trainer.network.branches = trainer.network.branches[:branches]
        return trainer.step

    times = by_turns({"3 branches": step(3), "1 branch": step(1)}, 4 * sizes.turns)
    yield compared("a branch", times, "3 branches", "1 branch", COST)


# Data


def preparing(sizes: Sizes, folder: Path) -> Iterator[dict]:
    """A patient from nothing to slices, against decompressing and reading the five files and nothing else."""
    cohort = find_cohort(make_phantom(folder / "fine", patients=1, voxel_mm=sizes.fine_mm, progress=False))
    config = make_config(cohort=cohort.folder, preset="workshop", **sizes.preset)
    files = [*cohort.patients[0].image_files, *cohort.patients[0].mask_files]

    def anew(**grid) -> None:
        shutil.rmtree(folder / "anew", ignore_errors=True)
        prepare(cohort.folder, folder / "anew", workers=1, progress=False, **grid)

    read, whole, cut = "reading the five files", "prepare, whole slices", "prepare, preset workshop"
    ways = {
        read: lambda: [np.asanyarray(nib.load(file).dataobj) for file in files],
        whole: anew,
        cut: lambda: anew(pixel_mm=config.pixel_mm, window=config.window),
    }
    times = by_turns(ways, sizes.turns)
    for ours in (whole, cut):
        yield compared("preparing a patient", times, ours, read, COST, reach=1.3)


def batches(sizes: Sizes, folder: Path) -> Iterator[dict]:
    """Batches with flips drawn from prepared slices, against MONAI's CacheDataset; what part of a step they take."""
    cohort = make_phantom(folder / "coarse", patients=10, voxel_mm=sizes.coarse_mm, progress=False)
    config = make_config(cohort=cohort, preset="workshop", device="cpu", progress=False, n_fa=3, **sizes.preset)
    store = prepare(cohort, folder / "store", pixel_mm=config.pixel_mm, window=config.window, progress=False)
    split = make_split([patient.id for patient in store.cohort.patients], n_fa=config.n_fa)
    data = select_training_slices(store, split, config.task)
    names = ("k", "m", "n", "flip_fraction", "seed")
    sampler, same = (BatchSampler(data, **{name: getattr(config, name) for name in names}) for _ in range(2))
    drawn, cached = "BatchSampler", "MONAI CacheDataset, 2 workers"
    served = monai_batches(data, [same.draw().rows for _ in range(sizes.batches)], config.flip_fraction)
    ways = {drawn: lambda: [sampler.draw() for _ in range(sizes.batches)], cached: lambda: list(served)}
    times = by_turns(ways, sizes.turns) / sizes.batches
    yield compared("batches served", times, drawn, cached, FASTER, reach=10.0)
    step = by_turns({"step": make_trainer(config).step}, sizes.turns)["step"].median()
    share = 100 * times[drawn].median() / step
    yield row_of("batches served, of a training step", drawn, share, SHARE, reach=2.0)


def monai_batches(data: TrainingSlices, order: list[np.ndarray], flip_fraction: float, workers: int = 2):
    """The same rows in the same order, mirrored with the same chance, out of a cache that holds every slice."""
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose, EnsureTyped, RandFlipd

    rows = np.unique(np.concatenate(order))
    images, labels = data.images[rows].astype(np.float32), data.labels_of(rows).astype(np.int64)
    presence = data.presence[rows].astype(np.int64)  # (N, C, H, W), (N, H, W), (N, R)
    items = [
        {"image": image, "label": label[None], "presence": shows}
        for image, label, shows in zip(images, labels, presence, strict=True)
    ]
    keys = ["image", "label"]
    flip = Compose([EnsureTyped(keys), RandFlipd(keys, prob=flip_fraction, spatial_axis=1)])
    cache = CacheDataset(items, flip, num_workers=1, progress=False)
    places = [np.searchsorted(rows, batch).tolist() for batch in order]
    return DataLoader(cache, batch_sampler=places, num_workers=workers, persistent_workers=workers > 0)


def segmenting(sizes: Sizes, folder: Path) -> Iterator[dict]:
    """A volume in whole slices, against MONAI's sliding window with the same network; labels must be equal."""
    from monai.inferers import sliding_window_inference

    arm = read_lessons(ROOT / "data/lessons").arms["standard"]
    cohort = find_cohort(make_phantom(folder / "fine", patients=1, voxel_mm=sizes.fine_mm, progress=False))
    case = cohort.patients[0].read_images()
    slices, frame = patient_slices(case, arm.config.pixel_mm, arm.config.window)  # (Z, C, H, W)
    device, precision = set_up(arm.config.model_copy(update={"device": "cpu"}))
    plain = copy.deepcopy(arm.network).to(memory_format=torch.contiguous_format)

    def whole(precision: str) -> np.ndarray:
        return label_volume(score_slices(arm.network, slices, device=device, precision=precision)[0], frame)

    @torch.inference_mode()
    def window() -> np.ndarray:
        images = torch.from_numpy(slices.astype(np.float32))
        scores = sliding_window_inference(images, frame.window, 16, plain.pixel_scores)  # (Z, K, H, W)
        probabilities = scores_on_source_grid(scores.softmax(dim=1).numpy(), frame)  # (Z, K, Y, X)
        return probabilities.argmax(axis=1).astype(np.uint8).transpose(2, 1, 0)

    ours, other = "whole slices", "MONAI sliding_window_inference"
    times = by_turns({ours: lambda: whole(precision), other: window}, sizes.turns)
    yield compared("segmenting a volume", times, ours, other, FASTER, reach=3.0, note=precision)
    equal = 100 * float((whole("float32") == window()).mean())
    yield row_of("segmenting a volume, labels", ours, equal, EQUAL, reach=100.0, against=other, note="float32")


def start_up(sizes: Sizes, folder: Path) -> Iterator[dict]:
    """Seconds of `import mixsup_lib` in an interpreter of its own."""
    code = "import time; t = time.perf_counter(); import mixsup_lib; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    printed = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(sizes.turns)]
    yield row_of("start-up", "import mixsup_lib", float(np.median(list(map(float, printed)))), TIME, reach=0.05)


ROWS = {
    "training": training, "preparing": preparing, "segmenting": segmenting, "batches": batches, "branch": branch,
    "start-up": start_up,
}  # fmt: skip


# The table


def provenance() -> dict[str, str | int]:
    """Code, versions, machine and day, for each line of the table."""
    packages = {name: version(name) for name in ("torch", "monai", "numpy", "nibabel")}
    return {"commit": commit() or "unknown", "python": platform.python_version(), **packages,
            "cpu": torch.cuda.get_device_name() if CUDA else cpu_model(), "cores": usable_cores(),
            "date": datetime.now(UTC).date().isoformat()}  # fmt: skip


def to_text(table: pd.DataFrame) -> str:
    """The table of one machine in Markdown, below a line that says where it was measured."""
    columns = ["row", "ours", "against", "figure", "low", "high", "measure", "reach", "reached"]
    rounded = table[columns].map(lambda cell: f"{cell:.4g}" if isinstance(cell, float) else cell)
    first = table.iloc[0]
    where = f"{first['cpu']}, {first['cores']} cores, torch {first['torch']}, MONAI {first['monai']}"
    text = format_table(rounded.replace("nan", ""), "markdown")
    return f"{where}, {first['date']} (commit {first['commit']}):\n\n{text}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="only these; none is written")
    parser.add_argument("--tiny", action="store_true", help="try the rows in seconds; none is written")
    call = parser.parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as folder:
        for name in call.rows:
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows += ROWS[name](TINY if call.tiny else FULL, Path(folder).resolve())
    table = pd.DataFrame(rows).assign(**provenance())
    print(to_text(table))
    if not call.tiny and set(call.rows) == set(ROWS):
        device = re.sub(r"[^a-z0-9]+", "-", table["cpu"][0].lower()).strip("-")
        with atomic_path(RESULTS / f"bench-{device}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
