"""How batches reach the device: slices that stay there, or slices fetched ahead. The batches are those of the sampler.

Every way draws the same rows, mirrors the same images and yields the same numbers bit for bit, and the state it saves
is that of the batches handed out, so a run resumes exactly and may go on in another way than it began.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from mixsup_lib.errors import DataError, SettingError
from mixsup_lib.sampling import Batch, BatchSampler, Draw, plain_values

ROWS_AT_A_TIME = 256
"""Slices copied to the device at once when they are to stay there (about 120 MB of BraTS)."""


def feed_batches(
    sampler: BatchSampler, device: torch.device, feed: str = "auto", *, n_classes: int
) -> BatchSampler | DeviceBatches:
    """The sampler itself or, with the same batches, one that has them on the device.

    Args:
        feed: "resident" keeps the training slices on the device; "prefetch" reads the next batches in a thread
            and copies from pinned memory; "direct" reads each batch when it is needed; "auto" as `choose_feed`.
        n_classes: number of classes K of the labels, checked here once: on a GPU the loss does not check them.

    Raises DataError for a label outside 0..K-1, SettingError where slices that are to stay do not fit.
    """
    maps = sampler.data.label_maps
    if maps.size and maps.max() >= n_classes:  # unsigned
        raise DataError(
            f"Labels range from {maps.min()} to {maps.max()}, expected 0..{n_classes - 1}: "
            "the masks hold a class that the task does not have."
        )
    rows = resident_rows(sampler)
    needed = rows.size * sampler.data.images[:1].nbytes + maps.nbytes
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    chosen = choose_feed(feed, needed, free)
    if chosen == "resident" and free is not None and needed > free:
        raise SettingError(
            f"Setting 'feed': found 'resident', but the training slices take {needed / 1e9:.1f} GB and the GPU "
            f"has {free / 1e9:.1f} GB free; use 'auto' or 'prefetch'."
        )
    if chosen == "direct":
        return sampler
    return ResidentBatches(sampler, device, rows) if chosen == "resident" else FetchedBatches(sampler, device)


def choose_feed(feed: str, needed: int, free: int | None) -> str:
    """What "auto" means: on a GPU slices stay there if they take at most half of what is free, so that the other half
    is left to training, else they are fetched ahead; on a CPU (`free` None) each batch is read when it is needed.

    `needed` and `free` are in bytes.
    """
    if feed != "auto":
        return feed
    if free is None:
        return "direct"
    return "resident" if needed <= free / 2 else "prefetch"


def resident_rows(sampler: BatchSampler) -> np.ndarray:
    """Rows of the store that batches can show, in order: those of the training slices (N,)."""
    return np.unique(np.concatenate([pool.rows for pool in sampler.pools]))


class DeviceBatches:
    """A sampler whose batches hold tensors on the device; the fields of `Batch` keep their shapes and types."""

    feed = ""

    def __init__(self, sampler: BatchSampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device
        self.data = sampler.data

    def state_dict(self) -> dict:
        """That of the sampler after the batches handed out so far."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.sampler.load_state_dict(state)

    def _pinned(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _batch(self, images: Tensor, labels: Tensor, mirrored: Tensor, presence: Tensor, rows) -> Batch:
        """Slices (B, C, H, W) and label maps (A, H, W) as they are stored -> the batch."""
        mirrored = mirrored.bool()
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)  # (B, C, H, W)
        labels = torch.where(mirrored[: len(labels), None, None], labels.flip(2), labels)  # (A, H, W)
        return Batch(images.float(), labels.long(), presence, rows)


class ResidentBatches(DeviceBatches):
    """Training slices and their label maps lie on the device; per batch only row numbers are sent there.

    BraTS 2018 without the 57 test patients of a fold: 12 GB in float16.
    """

    feed = "resident"

    def __init__(self, sampler: BatchSampler, device: torch.device, rows: np.ndarray) -> None:
        super().__init__(sampler, device)
        self.place = np.full(len(self.data.images), -1)  # of a row of the store among those kept
        self.place[rows] = np.arange(len(rows))
        first = torch.from_numpy(np.asarray(self.data.images[rows[:1]]))
        self.images = torch.empty((len(rows), *first.shape[1:]), dtype=first.dtype, device=device)
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            part = np.asarray(self.data.images[rows[start : start + ROWS_AT_A_TIME]])
            self.images[start : start + len(part)] = self._sent(self._pinned(part))
        negative = np.zeros_like(self.data.label_maps[:1])
        maps = np.concatenate([self.data.label_maps, negative])  # a negative's label index is -1: the last
        self.label_maps = self._sent(self._pinned(maps))  # (L + 1, H, W)

    def draw(self) -> Batch:
        """The next batch, gathered on the device."""
        plan = self.sampler.plan()
        annotated = self.sampler.k + self.sampler.m
        index = self.data.label_index[plan.rows] % len(self.label_maps)
        table = [self.place[plan.rows], index, plan.mirrored, *self.data.presence[plan.rows].T]
        sent = self._sent(self._pinned(np.stack(table).astype(np.int64)))  # (3 + R, B), a few hundred bytes
        images = self.images.index_select(0, sent[0])  # (B, C, H, W)
        labels = self.label_maps.index_select(0, sent[1, :annotated])  # (A, H, W)
        return self._batch(images, labels, sent[2], sent[3:].T, plan.rows)


class FetchedBatches(DeviceBatches):
    """The next batches are read from the store in a thread, into pinned memory on a GPU, while the device computes."""

    feed = "prefetch"
    AHEAD = 3

    def __init__(self, sampler: BatchSampler, device: torch.device) -> None:
        super().__init__(sampler, device)
        self.thread = ThreadPoolExecutor(1, "slices")
        self.waiting: deque = deque()  # the sampler's state before a batch was planned, and the batch to come

    def draw(self) -> Batch:
        """The next batch, read before it was asked for; a later one is planned in its place."""
        while len(self.waiting) <= self.AHEAD:
            state, plan = self.sampler.snapshot(), self.sampler.plan()
            self.waiting.append((state, plan, self.thread.submit(self._fetch, plan)))
        _, plan, parts = self.waiting.popleft()
        return self._batch(*[self._sent(part) for part in parts.result()], plan.rows)

    def _fetch(self, plan: Draw) -> tuple[Tensor, ...]:
        labels = self.data.labels_of(plan.rows[: self.sampler.k + self.sampler.m])
        presence = self.data.presence[plan.rows].astype(np.int64)
        images = np.asarray(self.data.images[plan.rows])
        return tuple(self._pinned(part) for part in (images, labels, plan.mirrored, presence))

    def state_dict(self) -> dict:
        """That of the sampler before it planned the batches that wait."""
        return plain_values(self.waiting[0][0]) if self.waiting else super().state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict` was taken; batches read ahead are dropped."""
        self.waiting.clear()
        super().load_state_dict(state)
