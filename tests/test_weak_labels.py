"""Wrong and shuffled slice labels of weak patients: what changes, exactly how much, and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import make_trainer
from mixsup_lib.sampling import BatchSampler, WeakLabels, select_training_slices, task_columns
from mixsup_lib.slices import SliceStore

TASKS = ["whole_tumor", "tumor_core", "multiclass"]
tasks = pytest.mark.parametrize("task", TASKS)
SHUFFLED = WeakLabels(order="shuffled", seed=1)


def noisy(share, seed=1):
    return WeakLabels(noise=share, seed=seed)


def training_rows(store, patients):
    table = store.table
    return np.flatnonzero(table["patient"].isin(patients) & table["training"])


def given(store, split, task):
    """Labels (N, R) of the weak patients' training slices as slice_labels.csv has them."""
    tables = store.presence(list(split.weak), task)
    labels = np.zeros((len(store.table), len(task_columns(task))), np.uint8)
    for patient, table in tables.items():
        labels[store.rows(patient)] = table[task_columns(task)]
    return labels[training_rows(store, split.weak)]


def drawn(data, batches=50):
    sampler = BatchSampler(data, k=4, m=2, n=4, flip_fraction=0.3, seed=0)
    return [sampler.draw() for _ in range(batches)]


def in_order(labels):
    return sorted(map(tuple, labels.tolist()))


# Shuffled


@tasks
def test_shuffled_labels_leave_pools_drawn_rows_images_and_pixel_labels_as_they_are(store, split, task):
    true, shuffled = (
        select_training_slices(store, split, task, weak_labels=w) for w in (WeakLabels(), SHUFFLED)
    )
    for one, other in zip(
        (*true.positive, true.negative, true.weak, true.label_index, true.label_maps),
        (*shuffled.positive, shuffled.negative, shuffled.weak, shuffled.label_index, shuffled.label_maps),
        strict=True,
    ):
        assert np.array_equal(one, other)
    for one, other in zip(drawn(true), drawn(shuffled), strict=True):
        assert np.array_equal(one.rows, other.rows) and np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.presence[:4], other.presence[:4])  # positive annotated


@tasks
def test_shuffled_labels_are_the_same_labels_on_other_slices(store, split, task):
    found = select_training_slices(store, split, task, weak_labels=SHUFFLED).presence
    weak, annotated = (training_rows(store, group) for group in (split.weak, split.fully_annotated))
    labels = given(store, split, task)
    assert in_order(found[weak]) == in_order(labels) and (found[weak] != labels).any()
    assert np.array_equal(
        found[annotated], select_training_slices(store, split, task, use_weak=False).presence[annotated]
    )


def test_a_shuffled_label_says_nothing_about_its_slice(store, split):
    """Over many seeds a slice with tumour is called positive as often as one without."""
    labels = given(store, split, "whole_tumor")
    called = np.mean([WeakLabels("shuffled", seed=seed).as_targets(labels) for seed in range(400)], axis=0)
    share = labels.mean()
    assert called[labels == 1].mean() == pytest.approx(share, abs=0.02)
    assert called[labels == 0].mean() == pytest.approx(share, abs=0.02)


# Noise


@tasks
@pytest.mark.parametrize("share", [0.003, 0.1, 0.5, 1.0])
def test_exactly_the_share_of_weak_labels_is_wrong_in_every_column(store, split, task, share):
    found = select_training_slices(store, split, task, weak_labels=noisy(share)).presence
    labels = given(store, split, task)
    wrong = found[training_rows(store, split.weak)] != labels
    assert wrong.sum(axis=0).tolist() == [round(share * len(labels))] * labels.shape[1]


@tasks
def test_labels_of_fully_annotated_patients_are_never_wrong(store, split, task):
    true, wrong = (
        select_training_slices(store, split, task, weak_labels=w) for w in (WeakLabels(), noisy(0.5))
    )
    rows = training_rows(store, split.fully_annotated)
    assert np.array_equal(true.presence[rows], wrong.presence[rows])
    assert all(np.array_equal(one, two) for one, two in zip(true.positive, wrong.positive, strict=True))
    assert np.array_equal(true.label_index, wrong.label_index)
    assert np.array_equal(true.label_maps, wrong.label_maps)
    assert set(true.negative) & set(rows) == set(wrong.negative) & set(rows)


def test_a_wrong_label_moves_its_slice_to_the_other_pool(store, split):
    true, wrong = (
        select_training_slices(store, split, "whole_tumor", weak_labels=w) for w in (WeakLabels(), noisy(0.2))
    )
    rows = training_rows(store, split.weak)
    changed = set(rows[(true.presence[rows] != wrong.presence[rows])[:, 0]])
    called_negative, called_positive = changed & set(true.weak), changed & set(true.negative)
    assert called_negative and called_positive and called_negative | called_positive == changed
    assert set(wrong.negative) == set(true.negative) - called_positive | called_negative
    assert set(wrong.weak) == set(true.weak) - called_negative | called_positive
    seen = {}
    for batch in drawn(wrong, 400):
        for i in (4, 5):  # the negative images
            seen[batch.rows[i]] = batch.labels[i].any() or batch.presence[i].any()
    assert [
        seen[row] for row in called_negative if row in seen
    ]  # tumours, every pixel of which is called healthy
    assert not any(seen.values())


def test_a_multiclass_slice_is_negative_only_if_no_subclass_is_left(store, split):
    data = select_training_slices(store, split, "multiclass", weak_labels=noisy(0.3))
    weak = training_rows(store, split.weak)
    assert set(data.weak) == set(weak[data.presence[weak].any(axis=1)])
    assert set(data.negative) & set(weak) == set(weak[~data.presence[weak].any(axis=1)])


def test_noisy_labels_can_be_shuffled_too(store, split):
    both = WeakLabels("shuffled", 0.2, seed=1)
    noise, mixed = (
        select_training_slices(store, split, "whole_tumor", weak_labels=w) for w in (noisy(0.2), both)
    )
    assert np.array_equal(noise.weak, mixed.weak) and np.array_equal(noise.negative, mixed.negative)
    weak = training_rows(store, split.weak)
    assert in_order(noise.presence[weak]) == in_order(mixed.presence[weak])


# Both


@pytest.mark.parametrize("kind", [{"order": "shuffled"}, {"noise": 0.2}])
def test_one_seed_disturbs_the_same_slices_and_another_seed_others(store, split, kind):
    def labels(seed):
        kinds = WeakLabels(**kind, seed=seed)
        return select_training_slices(store, split, "whole_tumor", weak_labels=kinds).presence

    assert np.array_equal(labels(1), labels(1)) and not np.array_equal(labels(1), labels(2))


@pytest.mark.parametrize("kind", [SHUFFLED, noisy(0.2)])
def test_no_mask_of_a_weak_patient_is_opened(store, split, kind, monkeypatch):
    opened, real = [], SliceStore.label_maps
    monkeypatch.setattr(
        SliceStore, "label_maps", lambda self, patient: opened.append(patient) or real(self, patient)
    )
    select_training_slices(store, split, "whole_tumor", weak_labels=kind)
    assert opened == list(split.fully_annotated)


@pytest.mark.parametrize("kind", [SHUFFLED, noisy(0.2)])
def test_standard_supervision_sees_no_weak_label_that_could_be_disturbed(store, split, kind):
    plain = select_training_slices(store, split, "whole_tumor", use_weak=False)
    other = select_training_slices(store, split, "whole_tumor", use_weak=False, weak_labels=kind)
    assert np.array_equal(plain.presence, other.presence) and np.array_equal(plain.negative, other.negative)


def test_negatives_of_weak_patients_can_be_left_out(store, split, run_settings):
    whole = select_training_slices(store, split, "whole_tumor")
    config = make_config(**{**run_settings, "negatives": "annotated"})
    data = make_trainer(config, store, split, "cpu", "float32").sampler.data
    annotated = select_training_slices(store, split, "whole_tumor", use_weak=False)
    assert np.array_equal(data.negative, annotated.negative) and len(data.negative) < len(whole.negative)
    assert np.array_equal(data.weak, whole.weak) and np.array_equal(data.positive[0], whole.positive[0])


def test_the_settings_of_a_run_reach_its_sampler(store, split, run_settings):
    def data(**changes):
        config = make_config(**{**run_settings, "seed": 1, **changes})
        return make_trainer(config, store, split, "cpu", "float32").sampler.data

    for changes, kind in (
        ({"weak_labels": "shuffled"}, SHUFFLED),
        ({"weak_label_noise": 0.2}, noisy(0.2)),
        ({}, WeakLabels()),
    ):
        expected = select_training_slices(store, split, "whole_tumor", weak_labels=kind)
        assert np.array_equal(data(**changes).presence, expected.presence)
        assert np.array_equal(data(**changes).weak, expected.weak)
