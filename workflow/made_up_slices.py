"""Slices of any number of patients that never existed, in one file: what speed is measured on, and quick to learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.sampling import BatchSampler, TrainingSlices, feed_batches
from mixsup_lib.training import Trainer, build_network, network_input

ANNOTATED = 5
"""Fully annotated patients; all others are weak."""


def volume(slices: int, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Slices (Z, 4, H, W) float16 of a noisy head, label maps (Z, H, W) uint8; the middle half shows a bright blob."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]  # (H, W) each
    head = y**2 + x**2 < 0.8
    labels = np.zeros((slices, *shape), np.uint8)
    for z in range(slices // 4, slices - slices // 4):
        top, left = rng.uniform(-0.4, 0.4, 2)
        labels[z] = (y - top) ** 2 + (x - left) ** 2 < rng.uniform(0.05, 0.1)
    images = rng.standard_normal((slices, 4, *shape), np.float32) * 15 + 100  # (Z, 4, H, W)
    images += 60 * labels[:, None]
    return (images * head).astype(np.float16), labels


def write_slices(
    file: Path, patients: int, *, slices: int = 116, shape: tuple[int, int] = (240, 240), seed: int = 0
) -> TrainingSlices:
    """Write the training slices of `patients` to `file` (NumPy) and open them memory-mapped.

    One volume is made and every patient gets it shifted along its rows by another number of pixels, so that writing
    the 15 GB of 285 BraTS patients is a matter of the disk alone. 116 slices are z = 15..130.
    """
    images, labels = volume(slices, shape, np.random.default_rng(seed))
    stored = np.lib.format.open_memmap(file, "w+", np.float16, (patients * slices, *images.shape[1:]))
    for patient in range(patients):
        stored[patient * slices : (patient + 1) * slices] = np.roll(images, patient, axis=3)
    stored.flush()
    del stored
    shows = np.tile(labels.any(axis=(1, 2)), patients)  # (N,)
    annotated = np.arange(patients * slices) < ANNOTATED * slices
    maps = np.concatenate([np.roll(labels, patient, axis=2) for patient in range(ANNOTATED)])
    index = np.full(len(shows), -1)
    index[annotated & shows] = np.arange(np.count_nonzero(annotated & shows))
    return TrainingSlices(
        images=np.load(file, mmap_mode="r", allow_pickle=False),
        presence=shows.astype(np.uint8)[:, None],
        label_index=index,
        label_maps=maps[shows[: len(maps)]],
        positive=(np.flatnonzero(annotated & shows),),
        negative=np.flatnonzero(~shows),
        weak=np.flatnonzero(~annotated & shows),
    )


def trainer_on(data: TrainingSlices, device: str, precision: str, **settings) -> Trainer:
    """A trainer with the preset `paper` on made-up slices; `settings` are those of `RunConfig`."""
    config: RunConfig = make_config(cohort="made-up", preset="paper", progress=False, **settings)
    sampler = BatchSampler(
        data, k=config.k, m=config.m, n=config.n, flip_fraction=config.flip_fraction, seed=config.seed
    )
    place, shape = torch.device(device), data.images.shape[2:]
    network = build_network(config, data.images.shape[1], shape)
    _, frames = network_input(config, shape)
    batches = feed_batches(sampler, place, config.feed, n_classes=config.n_maps)
    return Trainer(network, batches, config, frames, place, precision)
