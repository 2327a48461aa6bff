"""Row: batches of k/m/n slices with flips from the store, against MONAI's CacheDataset and against reading NIfTI."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from bench.scans import phantom
from bench.sizes import Sizes
from bench.table import FASTER, SHARE, Figure, compare
from bench.turns import Way, take_turns
from mixsup_lib import paper
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.files import write_json
from mixsup_lib.protocol import Split, make_split
from mixsup_lib.sampling import Batch, BatchSampler, TrainingSlices, select_training_slices
from mixsup_lib.slices import SliceStore, prepare
from mixsup_lib.training import Trainer, build_network, network_input, set_up

ROW = "batches served"


def opened(config: RunConfig, store_folder: Path) -> tuple[SliceStore, Split, TrainingSlices]:
    """The store on the preset's grid, a split with 3 annotated patients, and its training slices."""
    store = prepare(
        config.cohort, store_folder, pixel_mm=config.pixel_mm, window=config.window, progress=False
    )
    split = make_split([patient.id for patient in store.cohort.patients], n_fa=3)
    return store, split, select_training_slices(store, split, config.task)


def sampler(config: RunConfig, data: TrainingSlices) -> BatchSampler:
    return BatchSampler(
        data, k=config.k, m=config.m, n=config.n, flip_fraction=config.flip_fraction, seed=config.seed
    )


def ours(config: RunConfig, store_folder: Path, batches: int) -> Callable[[], Batch]:
    """Draw so many batches; returns the last."""
    drawn = sampler(config, opened(config, store_folder)[2])

    def once() -> Batch:
        for _ in range(batches):
            batch = drawn.draw()
        return batch

    return once


def cached(config: RunConfig, store_folder: Path, batches: int, workers: int = 2) -> Callable[[], dict]:
    """MONAI: every training slice in a CacheDataset, the same rows in the same order, mirrored with the same chance.

    What is cached are the store's slices, ready made: only what MONAI does for each batch is timed.
    """
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose, EnsureTyped, RandFlipd

    torch.set_num_threads(1)
    data = opened(config, store_folder)[2]
    rows = np.unique(np.concatenate([*data.positive, data.negative, data.weak]))
    place = {row: number for number, row in enumerate(rows.tolist())}
    keys = ["image", "label"]
    transform = Compose(
        [EnsureTyped(keys), RandFlipd(keys, prob=config.flip_fraction, spatial_axis=1)]  # (C, H, W): W
    )
    items = [_item(data, row) for row in rows]
    dataset = CacheDataset(items, transform, num_workers=1, progress=False)
    drawn = sampler(config, data)
    order = [[place[row] for row in drawn.draw().rows.tolist()] for _ in range(batches)]
    loader = DataLoader(
        dataset, batch_sampler=order, num_workers=workers, persistent_workers=workers > 0, pin_memory=False
    )

    def once() -> dict:
        batch = {}
        for served in loader:
            batch = served
        return {key: value.numpy() for key, value in batch.items()}

    return once


def _item(data: TrainingSlices, row: int) -> dict:
    """One slice as MONAI takes it: image (C, H, W) float32, label (1, H, W) int64, presence (R,)."""
    image = np.asarray(data.images[row], np.float32)
    number = data.label_index[row]
    label = data.label_maps[number] if number >= 0 else np.zeros(image.shape[1:])
    return {"image": image, "label": label[None].astype(np.int64), "presence": data.presence[row].astype(int)}


def from_nifti(config: RunConfig, store_folder: Path, batches: int) -> Callable[[], Batch]:
    """nibabel: each slice is read out of its patient's files when it is wanted, normalised and cut. Not mirrored."""
    store, _, data = opened(config, store_folder)
    drawn, factors = sampler(config, data), {}
    for patient in store.cohort.patients:
        for file, volume in zip(patient.image_files, patient.read_images().images, strict=True):
            factors[file] = paper.INTENSITY_CONSTANT / np.median(volume[volume != 0])

    def once() -> Batch:
        for _ in range(batches):
            batch = drawn.draw()
            images = np.stack([_read_slice(store, row, factors) for row in batch.rows])  # (B, C, H, W)
            batch = Batch(images, batch.labels, batch.presence, batch.rows)
        return batch

    return once


def _read_slice(store: SliceStore, row: int, factors: dict[Path, float]) -> np.ndarray:
    """(C, H, W) float32 of one row of the store, out of the files. The phantom's pixels are those of the store."""
    name, z = store.table["patient"].iloc[row], int(store.table["z"].iloc[row])
    files, frame = store.cohort[name].image_files, store.frame(name)
    planes = [np.asarray(nib.load(file).dataobj[..., z], np.float32).T * factors[file] for file in files]
    whole = np.pad(np.stack(planes), ((0, 0), *((size, size) for size in frame.window)))
    top, left = (corner + size for corner, size in zip(frame.corner, frame.window, strict=True))
    return whole[:, top : top + frame.window[0], left : left + frame.window[1]]


class _Watched(BatchSampler):
    """Adds up the seconds that drawing takes."""

    seconds = 0.0

    def draw(self) -> Batch:
        started = time.perf_counter()
        batch = super().draw()
        self.seconds += time.perf_counter() - started
        return batch


def waiting(config: RunConfig, store_folder: Path, steps: int, report: Path) -> Callable[[], None]:
    """Train so many steps; leaves the seconds of training and of waiting for batches in the file `report`."""
    device, precision = set_up(config)
    store, _, data = opened(config, store_folder)
    watched = _Watched(
        data, k=config.k, m=config.m, n=config.n, flip_fraction=config.flip_fraction, seed=config.seed
    )
    network = build_network(config, store.shape[1], store.shape[2:])
    frames = network_input(config, store.shape[2:])[1]
    trainer = Trainer(network, watched, config, frames, device, precision)

    def once() -> None:
        started, watched.seconds = time.perf_counter(), 0.0
        for _ in range(steps):
            trainer.step()
        write_json(report, {"steps": time.perf_counter() - started, "waiting": watched.seconds})

    return once


def measure(sizes: Sizes, folder: Path, *, apart: bool = True) -> Iterator[Figure]:
    cohort = phantom(folder / "coarse", sizes.patients, sizes.coarse_mm)
    config = make_config(
        cohort=cohort.folder, preset="workshop", device="cpu", progress=False, n_fa=3, **sizes.preset
    )
    shared = {"config": config, "store_folder": folder / "served"}
    opened(**shared)
    few = max(1, sizes.batches // 25)
    ways = [
        Way("SliceStore", ours, {**shared, "batches": sizes.batches}, items=sizes.batches),
        Way(
            "MONAI CacheDataset, 2 workers",
            cached,
            {**shared, "batches": sizes.batches, "workers": 2 if apart else 0},
            items=sizes.batches,
        ),
        Way("nibabel, slice by slice", from_nifti, {**shared, "batches": few}, items=few),
    ]
    turns = take_turns(ways, sizes.turns, apart=apart)
    for other in ways[1:]:
        yield compare(turns, ROW, ways[0].name, other.name, FASTER, reach=10.0)
    yield _share(sizes, shared, folder / "waiting.json", apart)


def _share(sizes: Sizes, shared: dict, report: Path, apart: bool) -> Figure:
    steps = max(2, sizes.step_turns)
    way = Way("training from the store", waiting, {**shared, "steps": steps, "report": report})
    take_turns([way], 1, apart=apart)
    seconds = json.loads(report.read_text(encoding="utf-8"))
    return Figure(
        row=f"{ROW}, waiting for them",
        ours=way.name,
        ours_value=1000 * seconds["waiting"] / steps,
        unit="ms",
        figure=100 * seconds["waiting"] / seconds["steps"],
        measure=SHARE,
        reach=2.0,
    )
