"""Row: how cost grows with the store: time of a batch and of a step, and memory, at 10, 100 and 285 patients."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.sizes import Sizes
from bench.table import COST, Figure, compare, compare_memory
from bench.turns import Way, take_turns
from mixsup_lib import paper
from mixsup_lib.cohort import Cohort
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.files import write_json
from mixsup_lib.sampling import BatchSampler, TrainingSlices
from mixsup_lib.slices import SliceStore, checksum
from mixsup_lib.training import Trainer, build_network, network_input, set_up

ROW = "a growing store"
ANNOTATED = 5


def write_store(folder: Path, patients: int, sizes: Sizes) -> Path:
    """A store of made-up patients, each of the same slices; kept if it is there."""
    if folder.exists():
        return folder
    window = make_config(cohort="none", preset="workshop", **sizes.preset).window
    one = np.random.default_rng(0).normal(100, 30, (sizes.grown_slices, 4, *window)).astype(np.float16)
    frame = {"source": window, "resampled": window, "corner": (0, 0), "window": window}
    record = {
        "settings": {},
        "shape": one.shape,
        "frame": frame,
        "voxel_size_mm": (2.5, 2.5, 2.5),
        "digest": "",
    }
    folder.mkdir(parents=True)
    for number in range(patients):
        np.save(folder / f"patient{number:03d}.npy", one)
        write_json(folder / f"patient{number:03d}.json", {"record": record, "checksum": checksum(record)})
    return folder


def opened(folder: str | Path) -> SliceStore:
    """The store of `write_store`; its patients have no other files."""
    patients = tuple(SimpleNamespace(id=file.stem) for file in sorted(Path(folder).glob("*.npy")))
    return SliceStore(
        folder, Cohort(Path(folder), "made up", paper.SEQUENCES, paper.TASKS, patients, has_empty_ends=True)
    )


def training_slices(store: SliceStore) -> TrainingSlices:
    """Half of the training slices show tumour; five patients are annotated, all others weak."""
    z, training = store.table["z"].to_numpy(), store.table["training"].to_numpy()
    names = store.table["patient"].unique()[:ANNOTATED]
    annotated = store.table["patient"].isin(names).to_numpy()
    shows = training & (z % 2 == 1)
    positive = np.flatnonzero(shows & annotated)
    index = np.full(len(z), -1)
    index[positive] = np.arange(len(positive))
    maps = np.zeros((len(positive), *store.shape[2:]), np.uint8)
    maps[:, :8, :8] = 1
    return TrainingSlices(
        images=store,
        presence=shows[:, None].astype(np.uint8),
        label_index=index,
        label_maps=maps,
        positive=(positive,),
        negative=np.flatnonzero(training & ~shows),
        weak=np.flatnonzero(shows & ~annotated),
    )


def _sampler(config: RunConfig, folder: Path) -> BatchSampler:
    data = training_slices(opened(folder))
    return BatchSampler(data, k=config.k, m=config.m, n=config.n, flip_fraction=config.flip_fraction, seed=0)


def drawing(config: RunConfig, folder: Path, batches: int) -> Callable[[], int]:
    """Draw so many batches; returns how many slices there are to draw from."""
    sampler = _sampler(config, folder)

    def once() -> int:
        for _ in range(batches):
            sampler.draw()
        return len(sampler.data.images)

    return once


def stepping(config: RunConfig, folder: Path) -> Callable[[], float]:
    """One training step; returns the loss."""
    device, precision = set_up(config)
    network = build_network(config, 4, config.window)
    frames = network_input(config, config.window)[1]
    trainer = Trainer(network, _sampler(config, folder), config, frames, device, precision)
    return lambda: trainer.step()[1]


def measure(sizes: Sizes, folder: Path, *, apart: bool = True) -> Iterator[Figure]:
    config = make_config(cohort="none", preset="workshop", device="cpu", progress=False, **sizes.preset)
    stores = {n: write_store(folder / f"grown{n}", n, sizes) for n in sizes.grown_patients}
    kinds = {
        "a batch": (drawing, {"batches": sizes.batches}, sizes.batches),
        "a training step": (stepping, {}, 1),
    }
    for what, (make, rest, items) in kinds.items():
        ways = [
            Way(f"{n} patients", make, {"config": config, "folder": store, **rest}, items=items)
            for n, store in stores.items()
        ]
        turns = take_turns(ways, sizes.step_turns, apart=apart)
        for way in ways[1:]:
            yield compare(turns, f"{ROW}, {what}", way.name, ways[0].name, COST, reach=1.1)
        row, note = f"{ROW}, memory of {what}", "without the mapped file"
        yield compare_memory(turns, row, ways[-1].name, ways[0].name, "own", reach=1.1, note=note)
    for store in stores.values():
        shutil.rmtree(store)
