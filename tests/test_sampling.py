"""The three kinds of training images and the k/m/n batches of sections 3.1 and 3.2."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixsup_lib.files import DataError, SettingError
from mixsup_lib.protocol import Split
from mixsup_lib.sampling import (
    BatchSampler,
    TrainingSlices,
    feed_batches,
    select_training_slices,
    task_labels,
)

H, W = 6, 8


def synthetic(branches: int = 1, seed: int = 0) -> TrainingSlices:
    """40 annotated positives, 30 negatives, 50 weak positives; each image is filled with its row number."""
    rng = np.random.default_rng(seed)
    images = np.broadcast_to(np.arange(120.0)[:, None, None, None], (120, 2, H, W)).astype(np.float16).copy()
    images[:, :, :, 0] += 0.5  # marks the left side
    presence = np.zeros((120, branches), np.uint8)
    presence[:40] = presence[70:] = 1
    if branches > 1:
        presence[:40] = rng.random((40, branches)) < 0.6
        presence[:3] = np.eye(branches)
    maps = np.zeros((40, H, W), np.uint8)
    maps[:, :, 0] = 1
    positive = [np.flatnonzero(presence[:40, r]) for r in range(branches)]
    if branches > 1:
        positive.append(np.flatnonzero(presence[:40].any(axis=1)))
    index = np.full(120, -1)
    index[:40] = np.arange(40)
    return TrainingSlices(
        images, presence, index, maps, tuple(positive), np.arange(40, 70), np.arange(70, 120)
    )


def sampler(**changes) -> BatchSampler:
    return BatchSampler(synthetic(), **{"k": 4, "m": 2, "n": 4, "flip_fraction": 0.3, "seed": 0, **changes})


def test_a_mixed_batch_is_4_positive_2_negative_4_weak():
    for _ in range(50):
        rows = (draws := sampler(seed=_).draw()).rows
        assert len(rows) == 10 and len(draws.labels) == 6
        assert (
            (rows[:4] < 40).all() and ((40 <= rows[4:6]) & (rows[4:6] < 70)).all() and (rows[6:] >= 70).all()
        )
        assert draws.presence[:, 0].tolist() == [1] * 4 + [0] * 2 + [1] * 4


def test_a_standard_batch_is_4_positive_2_negative():
    batch = sampler(n=0).draw()
    assert len(batch.images) == len(batch.labels) == 6


def test_negatives_have_an_all_zero_mask_and_positives_their_own():
    batch = sampler().draw()
    assert (batch.labels[:4].sum(axis=(1, 2)) == H).all() and not batch.labels[4:].any()


def test_pools_are_walked_without_replacement_and_reshuffled():
    s = sampler()
    first = np.concatenate([s.draw().rows[:4] for _ in range(10)])
    second = np.concatenate([s.draw().rows[:4] for _ in range(10)])
    assert sorted(first) == sorted(second) == list(range(40))
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(("n", "flipped"), [(4, 3), (0, 2)])
def test_30_percent_of_a_batch_is_mirrored_with_its_mask(n, flipped):
    s = sampler(n=n)
    for _ in range(20):
        batch = s.draw()
        mirrored = batch.images[:, 0, 0, -1] % 1 == 0.5
        assert mirrored.sum() == flipped
        assert (batch.labels[:4, 0, -1] == mirrored[:4]).all()


def test_same_seed_same_batches_and_state_continues_exactly():
    s, other = sampler(), sampler()
    for _ in range(7):
        s.draw(), other.draw()
    resumed = sampler(seed=99)
    resumed.load_state_dict(s.state_dict())
    for _ in range(30):
        expected = other.draw()
        for continued in (s.draw(), resumed.draw()):
            assert np.array_equal(continued.rows, expected.rows) and np.array_equal(
                continued.images, expected.images
            )


def test_multiclass_batches_show_every_subclass_among_the_annotated_images():
    s = BatchSampler(synthetic(branches=3), k=4, m=2, n=4, flip_fraction=0.3, seed=1)
    for _ in range(50):
        assert s.draw().presence[:4].any(axis=0).all()


def test_an_empty_pool_is_a_clear_error():
    data = synthetic()
    empty = TrainingSlices(**{**data.__dict__, "weak": np.zeros(0, int)})
    with pytest.raises(DataError, match="4 positive weak slices"):
        BatchSampler(empty, k=4, m=2, n=4, flip_fraction=0.3, seed=0)


def own_arrays(n_classes: int = 1, seed: int = 0) -> dict:
    """40 annotated and 60 weak images, in mixed order, with random labels; each image is filled with its row number."""
    rng = np.random.default_rng(seed)
    images = np.broadcast_to(np.arange(100)[:, None, None, None], (100, 2, H, W)).astype(np.float32).copy()
    annotated = np.isin(np.arange(100), rng.permutation(100)[:40])
    labels = rng.integers(n_classes + 1, size=(40, H, W)) * (rng.random((40, 1, 1)) < 0.6)
    presence = (rng.random((60, n_classes)) < 0.5).astype(int)
    return {"images": images, "annotated": annotated, "labels": labels, "presence": presence}


@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("feed", ["direct", "resident", "prefetch"])
def test_batches_from_plain_arrays(n_classes, feed):
    """Somebody with a loader of their own gets the same kinds of images, each with its own labels."""
    own = own_arrays(n_classes)
    data = TrainingSlices.from_arrays(**own)
    inner = BatchSampler(data, k=4, m=2, n=4, flip_fraction=0.0, seed=0)
    batches = feed_batches(inner, torch.device("cpu"), feed, n_classes=n_classes + 1)
    maps = np.zeros((100, H, W), int)
    maps[own["annotated"]] = own["labels"]
    shows = np.stack(
        [(maps == value).any(axis=(1, 2)) for value in range(1, n_classes + 1)], axis=1
    )  # (N, R)
    shows[~own["annotated"]] = own["presence"]
    seen = set()
    for _ in range(60):
        batch = batches.draw()
        rows, labels, presence = batch.rows, np.asarray(batch.labels), np.asarray(batch.presence)
        assert (np.asarray(batch.images) == rows[:, None, None, None]).all()
        assert own["annotated"][rows[:4]].all() and not own["annotated"][rows[6:]].any()
        assert (presence == shows[rows]).all() and presence[:4].any(axis=0).all()
        assert presence[:4].any(axis=1).all() and presence[6:].any(axis=1).all() and not presence[4:6].any()
        assert (labels[:4] == maps[rows[:4]]).all() and not labels[4:].any()
        seen |= set(rows.tolist())
    assert seen == set(range(100))  # each image can be drawn: negative ones come from both groups


def test_plain_arrays_without_weak_images():
    own = own_arrays(3)
    everything = TrainingSlices.from_arrays(own["images"][:40], np.ones(40, bool), own["labels"])
    assert everything.presence.shape == (40, 3) and len(everything.weak) == 0
    with pytest.raises(SettingError, match="k = 2: every batch must show all 3 classes"):
        BatchSampler(everything, k=2, m=2, n=0, flip_fraction=0.3, seed=0)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"annotated": np.arange(100)},
            r"annotated: found int64 \(100,\), expected a bool per image: \(100,\)",
        ),
        ({"annotated": np.ones(100, bool)}, r"labels: found int64 \(40, 6, 8\), expected .*\(100, 6, 8\)"),
        ({"labels": np.zeros((40, H, W))}, "labels: found float64"),
        ({"labels": np.full((40, H, W), 2)}, "labels: found values from 2 to 2, expected 0 to 1"),
        ({"labels": np.full((40, H, W), -1)}, "labels: found values from -1 to 1"),
        ({"labels": np.zeros((40, H, W), int)}, "no annotated image shows class 1"),
        ({"presence": None}, r"presence: found bool \(0, 1\), expected .*\(60, 1\)"),
        ({"presence": np.full((60, 1), 2)}, "presence: found other values than 0 and 1"),
    ],
)
def test_plain_arrays_that_do_not_fit_are_one_sentence(wrong, sentence):
    with pytest.raises(DataError, match=sentence):
        TrainingSlices.from_arrays(**{**own_arrays(), **wrong})


def test_oedema_only_is_negative_for_tumour_core():
    labels = np.array([[[0, 1, 2, 3]]], np.uint8)
    assert task_labels(labels, "whole_tumor").tolist() == [[[0, 1, 1, 1]]]
    assert task_labels(labels, "tumor_core").tolist() == [[[0, 1, 0, 1]]]
    assert task_labels(labels, "enhancing_core").tolist() == [[[0, 0, 0, 1]]]
    assert task_labels(labels, "multiclass").tolist() == [[[0, 1, 2, 3]]]


def test_kinds_of_images_on_a_cohort(store, split):
    data = select_training_slices(store, split, "tumor_core")
    patient = store.table["patient"].to_numpy()
    training = store.table["training"].to_numpy()
    assert set(patient[data.positive[0]]) <= set(split.fully_annotated)
    assert set(patient[data.weak]) <= set(split.weak)
    assert set(patient[data.negative]) == {*split.fully_annotated, *split.weak}
    everything = np.concatenate([data.positive[0], data.negative, data.weak])
    assert training[everything].all()
    expected = np.isin(patient, [*split.fully_annotated, *split.weak]) & training
    assert len(everything) == len(set(everything)) == expected.sum()
    assert (data.label_maps.reshape(len(data.label_maps), -1).any(axis=1)).mean() > 0.9


def test_standard_supervision_uses_annotated_patients_only(store, split):
    data = select_training_slices(store, split, "whole_tumor", use_weak=False)
    patient = store.table["patient"].to_numpy()
    assert len(data.weak) == 0
    assert set(patient[data.negative]) == set(split.fully_annotated)


def test_test_patients_are_never_drawn(store, split):
    data = select_training_slices(store, split, "whole_tumor")
    drawn = BatchSampler(data, k=4, m=2, n=4, flip_fraction=0.3, seed=0)
    patient = store.table["patient"].to_numpy()
    seen = {p for _ in range(200) for p in patient[drawn.draw().rows]}
    assert seen.isdisjoint(split.test) and seen >= set(split.fully_annotated)


def test_a_class_that_never_occurs_is_a_clear_error(store, split):
    only = Split(split.fully_annotated[:1], (), split.test)
    real = type(store).label_maps
    try:
        type(store).label_maps = lambda self, patient: np.zeros_like(real(self, patient))
        with pytest.raises(DataError, match="shows whole_tumor"):
            select_training_slices(store, only, "whole_tumor")
    finally:
        type(store).label_maps = real
