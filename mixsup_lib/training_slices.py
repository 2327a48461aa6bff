"""Store + protocol -> the three kinds of training images, with the labels the supervision grants (section 3.1)."""

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
from mixsup_lib.weak_labels import AS_GIVEN, WeakLabels


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
