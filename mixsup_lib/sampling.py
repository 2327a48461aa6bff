"""How batches reach the device: slices that stay there, or slices fetched ahead. The batches are those of the sampler.

Every way draws the same rows, mirrors the same images and yields the same numbers bit for bit, and the state it saves
is that of the batches handed out, so a run resumes exactly and may go on in another way than it began.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from mixsup_lib import paper
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.protocol import Split
from mixsup_lib.slices import SliceStore

ERRORS, ORDER = 1, 2
"""Streams of random numbers, beside each other and beside that of the batches."""


@dataclass(frozen=True)
class WeakLabels:
    """How the slice labels of the weak patients' training slices are disturbed; both leave everything else alone.

    Attributes:
        order: "shuffled" deals the labels out anew; None leaves them with their slices.
        noise: share of wrong labels, above 0 and at most 1; None: none.
        seed: of the run: one seed always disturbs the same slices.
    """

    order: str | None = None
    noise: float | None = None
    seed: int = 0

    def with_errors(self, presence: np.ndarray) -> np.ndarray:
        """Labels (N, R) with round(noise * N) entries of every column flipped, as if an annotator had erred.

        Made before slices are sorted into negative and positive ones: a tumour slice called negative becomes a negative
        image whose pixels are all called healthy, a healthy one called positive a positive weak image.
        """
        if self.noise is None:
            return presence
        rng = np.random.default_rng((self.seed, ERRORS))
        presence = presence.copy()
        for column in presence.T:
            wrong = rng.permutation(len(column))[: round(self.noise * len(column))]
            column[wrong] = 1 - column[wrong]
        return presence

    def as_targets(self, presence: np.ndarray) -> np.ndarray:
        """Labels (N, R) that the branches are trained on: the given ones, or their rows in a random but fixed order.

        Made after sorting: the slices of every batch and their pixel labels stay as they are. The branches see each
        label as often as before, on a slice that has nothing to do with it.
        """
        if self.order is None:
            return presence
        return np.random.default_rng((self.seed, ORDER)).permutation(presence)


AS_GIVEN = WeakLabels()
"""The paper's: labels as they are."""


def task_classes(task: str) -> list[tuple[int, ...]]:
    """Label values behind each classification branch: one group for a binary task, one per subclass for multiclass."""
    return [(value,) for value in paper.CLASSES] if task == "multiclass" else [paper.REGIONS[task]]


def task_columns(task: str) -> list[str]:
    """Columns of the slice labels behind each branch: "positive" is relative to the task."""
    if task == "multiclass":
        return list(paper.CLASSES.values())
    return ["enhancing" if task == "enhancing_core" else task]


def task_labels(labels: np.ndarray, task: str) -> np.ndarray:
    """Label maps of the paper's classes 0..3 -> uint8 targets of the task (0/1, or 0..3 for multiclass)."""
    if task == "multiclass":
        return labels
    return np.isin(labels, paper.REGIONS[task]).astype(np.uint8)


@dataclass(frozen=True)
class TrainingSlices:
    """The training slices of one split and task, with exactly the labels the supervision grants.

    Attributes:
        images: (N, C, H, W), indexable by rows.
        presence: (N, R) uint8, does class r occur in the slice; only rows of the pools are filled in.
        label_index: (N,) position in `label_maps` of an annotated positive slice, -1 elsewhere.
        label_maps: (L, H, W) uint8 targets of the annotated positive slices. Negatives need none: they are all zero.
        positive: rows of annotated positive slices, one array per class that every batch must show.
        negative, weak: rows of negative slices and of positive slices of weak patients.
    """

    images: np.ndarray
    presence: np.ndarray
    label_index: np.ndarray
    label_maps: np.ndarray
    positive: tuple[np.ndarray, ...]
    negative: np.ndarray
    weak: np.ndarray

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        """Targets (A, H, W) uint8 of annotated rows (A,): their label maps, all zero for negatives."""
        labels = np.zeros((len(rows), *self.label_maps.shape[1:]), self.label_maps.dtype)  # (A, H, W)
        index = self.label_index[rows]
        labels[index >= 0] = self.label_maps[index[index >= 0]]
        return labels


def select_training_slices(
    store: SliceStore,
    split: Split,
    task: str,
    *,
    use_weak: bool = True,
    weak_negatives: bool = True,
    weak_labels: WeakLabels = AS_GIVEN,
) -> TrainingSlices:
    """The three kinds of training images of section 3.1.

    Fully annotated patients: what a slice shows is read from their masks. Weak patients (only if `use_weak`): from
    `slice_labels.csv` alone, their masks are never opened. A negative slice of either kind is a fully labelled image:
    none of its pixels is tumour; without `weak_negatives`, a departure, those of weak patients are left out. Only
    training slices (z = 15..130 of 155, as a fraction) take part. `weak_labels` may disturb what the weak patients'
    labels say.

    Raises DataError if the fully annotated patients lack a class that every batch must show; warns if the weak patients
    do. Both say who lacks which class, and what to do.
    """
    columns, groups = task_columns(task), task_classes(task)
    training = store.table["training"].to_numpy()
    presence = np.zeros((len(training), len(columns)), np.uint8)
    label_index = np.full(len(training), -1)
    positive, negative, maps = [], [], []
    labelled = 0
    for patient in split.fully_annotated:
        rows = np.arange(len(training))[store.rows(patient)]
        labels = store.label_maps(patient)
        presence[rows] = np.stack([np.isin(labels, group).any(axis=(1, 2)) for group in groups], axis=1)
        has_any = presence[rows].any(axis=1)
        chosen = rows[has_any & training[rows]]
        positive.append(chosen)
        negative.append(rows[~has_any & training[rows]])
        label_index[chosen] = labelled + np.arange(len(chosen))
        labelled += len(chosen)
        maps.append(task_labels(labels[has_any & training[rows]], task))
    rows = joined_rows(positive)
    pools = [rows[presence[rows, branch] == 1] for branch in range(len(columns))]
    if lacking := [name for name, pool in zip(columns, pools, strict=True) if not len(pool)]:
        _refuse(store, split, task, lacking)
    if task == "multiclass":
        pools.append(rows)
    seen = store.presence(list(split.weak), task) if use_weak and split.weak else {}
    for patient, table in seen.items():
        presence[store.rows(patient)] = table[columns].to_numpy()
    rows = joined_rows([np.arange(len(training))[store.rows(patient)] for patient in seen])
    rows = rows[training[rows]]  # the training slices of all weak patients
    shown = presence[rows].any(axis=0)  # (R,)
    if seen and not shown.all():
        _warn(store, split, [name for name, found in zip(columns, shown, strict=True) if not found])
    presence[rows] = weak_labels.with_errors(presence[rows])
    has_any = presence[rows].any(axis=1)
    presence[rows] = weak_labels.as_targets(presence[rows])
    return TrainingSlices(
        images=store.images,
        presence=presence,
        label_index=label_index,
        label_maps=np.concatenate(maps),
        positive=tuple(pools),
        negative=joined_rows([*negative, rows[~has_any]] if weak_negatives else negative),
        weak=rows[has_any],
    )


def _refuse(store: SliceStore, split: Split, task: str, lacking: list[str]) -> NoReturn:
    """Say which classes the annotated patients lack, who has them, and what to do."""
    fault = (
        f"{store.cohort.folder}: no training slice of the {_named(split.fully_annotated, 'fully annotated')} shows "
        f"{' or '.join(lacking)}, which every batch of task {task} must show"
    )
    try:
        tables = list(store.presence([*split.weak, *split.test], task).values())
    except DataError:  # patients with a mask need no slice labels
        raise DataError(f"{fault}; choose another fold, a larger n_fa or another task.") from None
    counts = {name: sum(table[name].any() for table in tables) for name in lacking}
    found = " and ".join(f"{name} in {count} of the {len(tables)} others" for name, count in counts.items())
    advice = (
        "raise n_fa, or choose another fold or scenario_seed"
        if min(counts.values())
        else "choose another task"
    )
    raise DataError(f"{fault}. slice_labels.csv has {found}: {advice}.")


def _warn(store: SliceStore, split: Split, lacking: list[str]) -> None:
    """Say which classes no weak patient shows: training goes on, but it may not be what was meant."""
    warnings.warn(
        f"{store.cohort.folder}: by slice_labels.csv no training slice of the {_named(split.weak, 'weak')} shows "
        f"{' or '.join(lacking)}, so these patients only teach what its absence looks like. Add its rows if they do "
        "have it; otherwise choose more weak patients, another fold or another task.",
        stacklevel=3,
    )


def _named(patients: Sequence[str], kind: str) -> str:
    """For example "5 weak patients (A, B, C, ...)"."""
    names = ", ".join([*patients[:3], *(["..."] if len(patients) > 3 else [])])
    return f"{len(patients)} {kind} patient{'s' if len(patients) > 1 else ''} ({names})"


def joined_rows(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of rows (N_i,) end to end; of none, an empty one."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """One training batch of B = k + m + n images; the first k + m are annotated.

    images: (B, C, H, W) float32; labels: (k + m, H, W) int64; presence: (B, R) int64; rows: (B,) rows in the store.
    Those of `feed` hold tensors on the device instead of arrays, all but the rows.
    """

    images: np.ndarray
    labels: np.ndarray
    presence: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Draw:
    """What makes a batch: `rows` (B,) in the store, and `mirrored` (B,) bool, which of them are mirrored left-right."""

    rows: np.ndarray
    mirrored: np.ndarray


class Pool:
    """Rows walked in random order without replacement, reshuffled when used up."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        self.rows, self.rng = rows, rng
        self.order, self.position = rng.permutation(len(rows)), 0

    def draw(self, count: int) -> np.ndarray:
        """The next `count` rows."""
        drawn = []
        while count > 0:
            if self.position == len(self.order):
                self.order, self.position = self.rng.permutation(len(self.rows)), 0
            taken = self.order[self.position : self.position + count]
            self.position += len(taken)
            count -= len(taken)
            drawn.append(self.rows[taken])
        return joined_rows(drawn)


class BatchSampler:
    """Draws batches of k positive annotated, m negative and n positive weak images.

    For multiclass the k images are drawn from one list per subclass first, so that each subclass is present at least
    once among the annotated images of every batch, then from all positives (section 3.2).

    Raises:
        DataError: a pool that the batch needs is empty.
    """

    feed = "direct"
    """How batches reach the device; `mixsup_lib.sampling` has faster ways with the same batches."""

    def __init__(
        self, data: TrainingSlices, *, k: int, m: int, n: int, flip_fraction: float, seed: int
    ) -> None:
        self.data, self.k, self.m, self.n = data, k, m, n
        self.n_flipped = round(flip_fraction * (k + m + n))
        self.rng = np.random.default_rng(seed)
        for name, pool, count in (("negative", data.negative, m), ("positive weak", data.weak, n)):
            if count and len(pool) == 0:
                raise DataError(
                    f"Batches need {count} {name} slices, but the split holds none; set their number to 0."
                )
        self.pools = [Pool(rows, self.rng) for rows in (*data.positive, data.negative, data.weak)]

    def _draw_rows(self) -> np.ndarray:
        *positive, negative, weak = self.pools
        counts = [1] * len(positive)
        counts[-1] = self.k - len(positive) + 1
        drawn = [pool.draw(count) for pool, count in zip(positive, counts, strict=True)]
        return joined_rows([*drawn, negative.draw(self.m), weak.draw(self.n)])

    def plan(self) -> Draw:
        """Choose the next batch without reading its images; 30 % of it is mirrored left-right."""
        rows = self._draw_rows()
        mirrored = np.zeros(len(rows), bool)
        mirrored[self.rng.permutation(len(rows))[: self.n_flipped]] = True
        return Draw(rows, mirrored)

    def draw(self) -> Batch:
        """The next batch; mirrored images are mirrored together with their labels."""
        plan = self.plan()
        images = np.asarray(self.data.images[plan.rows], np.float32)  # (B, C, H, W)
        annotated = plan.rows[: self.k + self.m]
        labels = self.data.labels_of(annotated).astype(np.int64)  # (k + m, H, W)
        images[plan.mirrored] = images[plan.mirrored, :, :, ::-1]
        both = plan.mirrored[: len(annotated)]
        labels[both] = labels[both, :, ::-1]
        return Batch(images, labels, self.data.presence[plan.rows].astype(np.int64), plan.rows)

    def snapshot(self) -> dict:
        """`state_dict` that shares its arrays with the sampler, which never changes one in place."""
        pools = [{"order": pool.order, "position": pool.position} for pool in self.pools]
        return {"rng": self.rng.bit_generator.state, "pools": pools}

    def state_dict(self) -> dict:
        """Everything the next batches depend on, as plain Python values."""
        return plain_values(self.snapshot())

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.rng.bit_generator.state = state["rng"]
        for pool, saved in zip(self.pools, state["pools"], strict=True):
            pool.order, pool.position = np.array(saved["order"], np.int64), saved["position"]


def plain_values(snapshot: dict) -> dict:
    """A `BatchSampler.snapshot` with lists in place of arrays, as checkpoints hold it."""
    pools = [pool | {"order": pool["order"].tolist()} for pool in snapshot["pools"]]
    return snapshot | {"pools": pools}


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
