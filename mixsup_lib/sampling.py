"""Store + protocol -> training batches: k positive annotated, m negative and n positive weak images (section 3.1)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from mixsup_lib import paper
from mixsup_lib.errors import DataError
from mixsup_lib.protocol import Split
from mixsup_lib.store import SliceStore


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


def select_training_slices(
    store: SliceStore, split: Split, task: str, *, use_weak: bool = True
) -> TrainingSlices:
    """The three kinds of training images of section 3.1.

    Fully annotated patients: what a slice shows is read from their masks. Weak patients (only if `use_weak`): from
    `slice_labels.csv` alone, their masks are never opened. A negative slice of either kind is a fully labelled image:
    none of its pixels is tumour. Only training slices (z = 15..130 of 155, as a fraction) take part.

    Raises DataError if the fully annotated patients lack a class that every batch must show; warns if the weak patients
    do. Both say who lacks which class, and what to do.
    """
    columns, groups = task_columns(task), task_classes(task)
    training = store.table["training"].to_numpy()
    presence = np.zeros((len(training), len(columns)), np.uint8)
    label_index = np.full(len(training), -1)
    positive, negative, weak, maps = [], [], [], []
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
    for patient, seen in store.presence(list(split.weak), task).items() if use_weak and split.weak else ():
        rows = np.arange(len(training))[store.rows(patient)]
        presence[rows] = seen[columns].to_numpy()
        has_any = presence[rows].any(axis=1)
        weak.append(rows[has_any & training[rows]])
        negative.append(rows[~has_any & training[rows]])
    rows = _joined(positive)
    pools = [rows[presence[rows, branch] == 1] for branch in range(len(columns))]
    if lacking := [name for name, pool in zip(columns, pools, strict=True) if not len(pool)]:
        _refuse(store, split, task, lacking)
    weak_rows = _joined(weak)
    shown = presence[weak_rows].any(axis=0)  # (R,)
    if use_weak and split.weak and not shown.all():
        _warn(store, split, [name for name, seen in zip(columns, shown, strict=True) if not seen])
    if task == "multiclass":
        pools.append(rows)
    return TrainingSlices(
        images=store.images,
        presence=presence,
        label_index=label_index,
        label_maps=np.concatenate(maps),
        positive=tuple(pools),
        negative=_joined(negative),
        weak=weak_rows,
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


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


@dataclass(frozen=True)
class Batch:
    """One training batch of B = k + m + n images; the first k + m are annotated.

    images: (B, C, H, W) float32; labels: (k + m, H, W) int64; presence: (B, R) int64; rows: (B,) rows in the store.
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
        drawn = []
        while count > 0:
            if self.position == len(self.order):
                self.order, self.position = self.rng.permutation(len(self.rows)), 0
            taken = self.order[self.position : self.position + count]
            self.position += len(taken)
            count -= len(taken)
            drawn.append(self.rows[taken])
        return _joined(drawn)


class BatchSampler:
    """Draws batches of k positive annotated, m negative and n positive weak images.

    For multiclass the k images are drawn from one list per subclass first, so that each subclass is present at least
    once among the annotated images of every batch, then from all positives (section 3.2).

    Raises:
        DataError: a pool that the batch needs is empty.
    """

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
        return _joined([*drawn, negative.draw(self.m), weak.draw(self.n)])

    def draw(self) -> Batch:
        """The next batch; 30 % of its images are mirrored left-right together with their labels."""
        rows = self._draw_rows()
        flipped = self.rng.permutation(len(rows))[: self.n_flipped]
        images = np.asarray(self.data.images[rows], np.float32)  # (B, C, H, W)
        annotated = rows[: self.k + self.m]
        labels = np.zeros((len(annotated), *images.shape[2:]), np.int64)  # (k + m, H, W)
        index = self.data.label_index[annotated]
        labels[index >= 0] = self.data.label_maps[index[index >= 0]]
        images[flipped] = images[flipped, :, :, ::-1]
        both = flipped[flipped < len(annotated)]
        labels[both] = labels[both, :, ::-1]
        return Batch(images, labels, self.data.presence[rows].astype(np.int64), rows)

    def state_dict(self) -> dict:
        """Everything the next batches depend on, as plain Python values."""
        return {
            "rng": self.rng.bit_generator.state,
            "pools": [{"order": pool.order.tolist(), "position": pool.position} for pool in self.pools],
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.rng.bit_generator.state = state["rng"]
        for pool, saved in zip(self.pools, state["pools"], strict=True):
            pool.order, pool.position = np.array(saved["order"], np.int64), saved["position"]
