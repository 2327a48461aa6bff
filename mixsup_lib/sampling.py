"""Prepared slices -> batches (sections 3.1 and 3.2): three kinds of images, the batch sampler, ways to the device."""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
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

# Labels of a task


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
        rng = np.random.default_rng((self.seed, 1))  # streams beside each other and beside that of the batches
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
        return np.random.default_rng((self.seed, 2)).permutation(presence)


# The three kinds of training images


@dataclass(frozen=True)
class TrainingSlices:
    """The training slices of one split and task, with exactly the labels the supervision grants.

    `select_training_slices` makes them from a `SliceStore`, `TrainingSlices.from_arrays` from arrays of your own.

    Attributes:
        images: (N, C, H, W), indexable by rows: a `SliceStore` or an array.
        presence: (N, R) uint8, does class r occur in the slice; only rows of the pools are filled in.
        label_index: (N,) position in `label_maps` of an annotated positive slice, -1 elsewhere.
        label_maps: (L, H, W) uint8 targets of the annotated positive slices. Negatives need none: they are all zero.
        positive: rows of annotated positive slices, one array per class that every batch must show.
        negative, weak: rows of negative slices and of positive slices of weak patients.
    """

    images: SliceStore | np.ndarray
    presence: np.ndarray
    label_index: np.ndarray
    label_maps: np.ndarray
    positive: tuple[np.ndarray, ...]
    negative: np.ndarray
    weak: np.ndarray

    @classmethod
    def from_arrays(cls, images, annotated, labels, presence=None) -> TrainingSlices:
        """Training slices from arrays, for a loader of your own.

        Args:
            images: (N, C, H, W), an array or anything else that has a `shape` and is indexed by rows; not copied.
            annotated: (N,) bool, does the image have a label map? All others are weak.
            labels: (A, H, W) integers 0..R, the label maps of the annotated images in their order; 0 is background.
            presence: (N - A, R) 0 or 1, does class r + 1 occur in the image? A row per weak image, in their order. With
                one class it may be (N - A,); None where no image is weak.

        Raises DataError where the arrays do not fit each other, or no annotated image shows one of the classes.

        For example, 100 images of which the first 20 have label maps of tumour (1) and background (0):

            data = TrainingSlices.from_arrays(images, np.arange(100) < 20, labels[:20], shows_tumour[20:])
            sampler = BatchSampler(data, k=4, m=2, n=4, flip_fraction=0.3, seed=0)
            batch = sampler.draw()
        """
        annotated, labels = np.asarray(annotated), np.asarray(labels)
        _check_array("annotated", annotated, "b", images.shape[:1], "a bool per image")
        rows, weak = np.flatnonzero(annotated), np.flatnonzero(~annotated)
        shape = (len(rows), *images.shape[2:])
        _check_array("labels", labels, "iub", shape, "a label map of integers per annotated image")
        highest = int(labels.max(initial=1))
        given = np.zeros((0, highest), bool) if presence is None else np.asarray(presence)
        given = given[:, None] if given.ndim == 1 else given  # (N - A, R)
        shape = (len(weak), given.shape[-1])
        _check_array("presence", given, "iubf", shape, "a row of 0 and 1 per image without label map")
        if not np.isin(given, (0, 1)).all():
            raise DataError("presence: found other values than 0 and 1; write 1 where a class occurs and 0 elsewhere.")
        if labels.min(initial=0) < 0 or highest > given.shape[1]:
            raise DataError(
                f"labels: found values from {labels.min()} to {highest}, expected 0 to {given.shape[1]}: background "
                "and a class per column of presence."
            )
        known = np.zeros((len(annotated), given.shape[1]), np.uint8)  # (N, R)
        known[rows], known[weak] = _shown(labels, given.shape[1]), given
        if not (there := known[rows].any(axis=0)).all():
            raise DataError(
                f"labels: no annotated image shows class {there.argmin() + 1}, which every batch must show; annotate "
                "one that does."
            )
        shows = known.any(axis=1)  # (N,)
        return cls._sorted(images, known, shows, rows, weak, labels[shows[rows]].astype(np.uint8))

    @classmethod
    def _sorted(cls, images, presence, shows, annotated, weak, label_maps) -> TrainingSlices:
        """Sort rows of annotated and of weak images into the three kinds; `shows` (N,): is the row positive?"""
        chosen = annotated[shows[annotated]]
        label_index = np.full(len(presence), -1)
        label_index[chosen] = np.arange(len(chosen))
        positive = [chosen[column[chosen] == 1] for column in presence.T]
        return cls(
            images=images,
            presence=presence,
            label_index=label_index,
            label_maps=label_maps,
            positive=(*positive, chosen) if len(positive) > 1 else (chosen,),
            negative=np.concatenate([annotated[~shows[annotated]], weak[~shows[weak]]]),
            weak=weak[shows[weak]],
        )

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        """Targets (A, H, W) uint8 of annotated rows (A,): their label maps, all zero for negatives."""
        labels = np.zeros((len(rows), *self.label_maps.shape[1:]), self.label_maps.dtype)  # (A, H, W)
        index = self.label_index[rows]
        labels[index >= 0] = self.label_maps[index[index >= 0]]
        return labels


def _check_array(name: str, array: np.ndarray, kinds: str, shape: tuple[int, ...], meaning: str) -> None:
    if array.dtype.kind not in kinds or array.shape != shape:
        raise DataError(f"{name}: found {array.dtype} {array.shape}, expected {meaning}: {shape}.")


def _shown(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Which of the classes 1..R occur in each label map (N, H, W): bool (N, R)."""
    return np.stack([(labels == value).any(axis=(1, 2)) for value in range(1, n_classes + 1)], axis=1)


def select_training_slices(
    store: SliceStore,
    split: Split,
    task: str,
    *,
    use_weak: bool = True,
    weak_negatives: bool = True,
    weak_labels: WeakLabels | None = None,
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
    names, training = np.array(task_columns(task)), store.table["training"].to_numpy()
    presence, maps = np.zeros((len(store), len(names)), np.uint8), []  # (N, R)

    def training_rows(patients: Iterable[str]) -> np.ndarray:
        rows = np.concatenate([np.arange(0), *(np.arange(len(store))[store.rows(name)] for name in patients)])
        return rows[training[rows]]

    values: set[int] = set()
    for patient in split.fully_annotated:
        labels = store.label_maps(patient)  # (Z, H, W)
        values |= set(np.unique(labels).tolist())
        labels = task_labels(labels, task)
        shown = _shown(labels, len(names))
        presence[store.rows(patient)] = shown
        maps.append(labels[shown.any(axis=1) & training[store.rows(patient)]])
    annotated = training_rows(split.fully_annotated)
    _refuse_one_value(store, values - {0}, task)
    if lacking := names[~presence[annotated].any(axis=0)].tolist():
        _refuse(store, split, task, lacking)
    seen = store.presence(list(split.weak), task) if use_weak and split.weak else {}
    for patient, table in seen.items():
        presence[store.rows(patient)] = table[names].to_numpy()
    weak = training_rows(seen)
    if seen and (lacking := names[~presence[weak].any(axis=0)].tolist()):
        warnings.warn(
            f"{store.cohort.folder}: by slice_labels.csv no training slice of the {_named(split.weak, 'weak')} shows "
            f"{' or '.join(lacking)}, so these patients only teach what its absence looks like. Add its rows if they "
            "do have it; otherwise choose more weak patients, another fold or another task.",
            stacklevel=2,
        )
    weak_labels = weak_labels or WeakLabels()
    presence[weak] = weak_labels.with_errors(presence[weak])
    shows = presence.any(axis=1)  # (N,)
    presence[weak] = weak_labels.as_targets(presence[weak])
    if not weak_negatives:
        weak = weak[shows[weak]]
    return TrainingSlices._sorted(store, presence, shows, annotated, weak, np.concatenate(maps))


def _refuse_one_value(store: SliceStore, classes: set[int], task: str) -> None:
    """Raise `SettingError` where all masks hold one value, which may well be the whole tumour, for another task."""
    labels = store.cohort.labels
    if task == "whole_tumor" or len(classes) != 1 or labels.stated:
        return
    value = next(label.value for label in labels.values if label.meaning in classes)
    raise SettingError(
        f"Setting 'task': found {task!r}, but the masks of {store.cohort.folder} hold the single value {value}, which "
        "may mean the whole tumour; use task=whole_tumor, or say in cohort.yaml what it means (data/README.md)."
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
    some = min(counts.values()) > 0
    advice = "raise n_fa, or choose another fold or scenario_seed" if some else "choose another task"
    raise DataError(f"{fault}. slice_labels.csv has {found}: {advice}.")


def _named(patients: Sequence[str], kind: str) -> str:
    """For example "5 weak patients (A, B, C, ...)"."""
    names = ", ".join([*patients[:3], *(["..."] if len(patients) > 3 else [])])
    return f"{len(patients)} {kind} patient{'s' if len(patients) > 1 else ''} ({names})"


# Batches


@dataclass(frozen=True)
class Batch:
    """One training batch of B = k + m + n images; the first k + m are annotated.

    images: (B, C, H, W) float32; labels: (k + m, H, W) int64; presence: (B, R) int64; rows: (B,) rows in the store.
    Those of `feed_batches` may hold tensors on the device instead of arrays, all but the rows.
    """

    images: np.ndarray
    labels: np.ndarray
    presence: np.ndarray
    rows: np.ndarray


class Pool:
    """Rows walked in random order without replacement, reshuffled when used up."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        self.rows, self.rng = rows, rng
        self.order, self.position = rng.permutation(len(rows)), 0

    def draw(self, count: int) -> np.ndarray:
        """The next `count` rows."""
        drawn = [self.rows[:0]]
        while count > 0:
            if self.position == len(self.order):
                self.order, self.position = self.rng.permutation(len(self.rows)), 0
            taken = self.order[self.position : self.position + count]
            self.position += len(taken)
            count -= len(taken)
            drawn.append(self.rows[taken])
        return np.concatenate(drawn)


class BatchSampler:
    """Draws batches of k positive annotated, m negative and n positive weak images.

    For multiclass the k images are drawn from one list per subclass first, so that each subclass is present at least
    once among the annotated images of every batch, then from all positives (section 3.2).

    Raises DataError where a pool that the batch needs is empty, SettingError where k is too small for all classes.
    """

    feed = "direct"

    def __init__(self, data: TrainingSlices, *, k: int, m: int, n: int, flip_fraction: float, seed: int) -> None:
        self.data, self.k, self.m, self.n = data, k, m, n
        self.n_flipped = round(flip_fraction * (k + m + n))
        self.rng = np.random.default_rng(seed)
        if k < (least := max(len(data.positive) - 1, 1)):
            raise SettingError(f"k = {k}: every batch must show all {least} classes; choose k from {least} up.")
        for name, pool, count in (("negative", data.negative, m), ("positive weak", data.weak, n)):
            if count and len(pool) == 0:
                raise DataError(f"Batches need {count} {name} slices, but the split holds none; set their number to 0.")
        self.pools = [Pool(rows, self.rng) for rows in (*data.positive, data.negative, data.weak)]

    def plan(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (B,) of the next batch, and which of them are mirrored left-right (B,) bool; no image is read."""
        *classes, positive, negative, weak = self.pools
        shown = [pool.draw(1) for pool in classes]
        counts = {positive: self.k - len(shown), negative: self.m, weak: self.n}
        rows = np.concatenate([*shown, *(pool.draw(count) for pool, count in counts.items())])  # (B,)
        mirrored = np.zeros(len(rows), bool)
        mirrored[self.rng.permutation(len(rows))[: self.n_flipped]] = True
        return rows, mirrored

    def draw(self) -> Batch:
        """The next batch; mirrored images are mirrored together with their labels."""
        rows, mirrored = self.plan()
        images = np.asarray(self.data.images[rows], np.float32)  # (B, C, H, W)
        labels = self.data.labels_of(rows[: self.k + self.m]).astype(np.int64)  # (k + m, H, W)
        images[mirrored] = images[mirrored, :, :, ::-1]
        both = mirrored[: len(labels)]
        labels[both] = labels[both, :, ::-1]
        return Batch(images, labels, self.data.presence[rows].astype(np.int64), rows)

    def state_dict(self) -> dict:
        """Everything the next batches depend on, as plain Python values."""
        pools = [{"order": pool.order.tolist(), "position": pool.position} for pool in self.pools]
        return {"rng": self.rng.bit_generator.state, "pools": pools}

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.rng.bit_generator.state = state["rng"]
        for pool, saved in zip(self.pools, state["pools"], strict=True):
            pool.order, pool.position = np.array(saved["order"], np.int64), saved["position"]


# Ways to the device: every way draws the same rows and yields the same numbers bit for bit. The state it saves is that
# of the batches handed out, so a run resumes exactly and may go on in another way than it began.


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
    rows = np.unique(np.concatenate([pool.rows for pool in sampler.pools]))  # all that batches can show
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


class DeviceBatches:
    """A sampler whose batches hold tensors on the device; the fields of `Batch` keep their shapes and types."""

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
    AT_ONCE = 256  # slices copied to the device at a time, about 120 MB of BraTS

    def __init__(self, sampler: BatchSampler, device: torch.device, rows: np.ndarray) -> None:
        super().__init__(sampler, device)
        self.place = np.full(len(self.data.images), -1)  # of a row of the store among those kept
        self.place[rows] = np.arange(len(rows))
        first = torch.from_numpy(np.asarray(self.data.images[rows[:1]]))
        self.images = torch.empty((len(rows), *first.shape[1:]), dtype=first.dtype, device=device)
        for start in range(0, len(rows), self.AT_ONCE):
            part = np.asarray(self.data.images[rows[start : start + self.AT_ONCE]])
            self.images[start : start + len(part)] = self._sent(self._pinned(part))
        negative = np.zeros_like(self.data.label_maps[:1])
        maps = np.concatenate([self.data.label_maps, negative])  # a negative's label index is -1: the last
        self.label_maps = self._sent(self._pinned(maps))  # (L + 1, H, W)

    def draw(self) -> Batch:
        """The next batch, gathered on the device."""
        rows, mirrored = self.sampler.plan()
        annotated = self.sampler.k + self.sampler.m
        index = self.data.label_index[rows] % len(self.label_maps)
        table = [self.place[rows], index, mirrored, *self.data.presence[rows].T]
        sent = self._sent(self._pinned(np.stack(table).astype(np.int64)))  # (3 + R, B), a few hundred bytes
        images = self.images.index_select(0, sent[0])  # (B, C, H, W)
        labels = self.label_maps.index_select(0, sent[1, :annotated])  # (A, H, W)
        return self._batch(images, labels, sent[2], sent[3:].T, rows)


class FetchedBatches(DeviceBatches):
    """The next batches are read from the store in a thread, into pinned memory on a GPU, while the device computes."""

    feed = "prefetch"
    AHEAD = 3

    def __init__(self, sampler: BatchSampler, device: torch.device) -> None:
        super().__init__(sampler, device)
        self.ahead = copy.deepcopy(sampler, {id(self.data): self.data})  # plans the batches that wait
        self.thread, self.waiting = ThreadPoolExecutor(1, "slices"), deque()

    def draw(self) -> Batch:
        """The next batch, read before it was asked for; a later one is planned in its place."""
        while len(self.waiting) <= self.AHEAD:
            self.waiting.append(self.thread.submit(self._fetch, *self.ahead.plan()))
        rows, _ = self.sampler.plan()
        return self._batch(*[self._sent(part) for part in self.waiting.popleft().result()], rows)

    def _fetch(self, rows: np.ndarray, mirrored: np.ndarray) -> list[Tensor]:
        labels = self.data.labels_of(rows[: self.sampler.k + self.sampler.m])
        presence = self.data.presence[rows].astype(np.int64)
        images = np.asarray(self.data.images[rows])
        return [self._pinned(part) for part in (images, labels, mirrored, presence)]

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict` was taken; batches read ahead are dropped."""
        self.waiting.clear()
        super().load_state_dict(state)
        self.ahead.load_state_dict(state)
