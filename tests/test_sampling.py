"""Sections 3.1 and 3.2: three kinds of images, k/m/n batches, disturbed weak labels, and batches on the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_training import assert_same, trainer, weights

from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import make_trainer
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.protocol import Split
from mixsup_lib.sampling import (
    BatchSampler,
    TrainingSlices,
    WeakLabels,
    choose_feed,
    feed_batches,
    select_training_slices,
    task_columns,
    task_labels,
)
from mixsup_lib.slices import SliceStore

H, W = 6, 8
CPU = torch.device("cpu")
WAYS = ("resident", "prefetch")


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
    return TrainingSlices(images, presence, index, maps, tuple(positive), np.arange(40, 70), np.arange(70, 120))


def sampler(data=None, **changes) -> BatchSampler:
    settings = {"k": 4, "m": 2, "n": 4, "flip_fraction": 0.3, "seed": 0, **changes}
    return BatchSampler(data or synthetic(), **settings)


@pytest.mark.claim(
    "C3.1-14", "A batch holds k = 4 positive annotated, m = 2 negative and n = 4 positive weak images", ours="4, 2, 4"
)
@pytest.mark.claim("C3.1-21", "Fully annotated images train the branch too", ours="all images of a batch reach it")
def test_a_mixed_batch_is_4_positive_2_negative_4_weak():
    for seed in range(50):
        batch = sampler(seed=seed).draw()
        rows = batch.rows
        assert len(rows) == 10 and len(batch.labels) == 6
        assert (rows[:4] < 40).all() and ((40 <= rows[4:6]) & (rows[4:6] < 70)).all() and (rows[6:] >= 70).all()
        assert batch.presence[:, 0].tolist() == [1] * 4 + [0] * 2 + [1] * 4
    standard = sampler(n=0).draw()
    assert len(standard.images) == len(standard.labels) == 6


@pytest.mark.claim(
    "C3.1-13",
    "Three types of training images; that of a negative one is the zero matrix",
    ours="all zero; for a weak patient no mask is read for it",
)
def test_negatives_have_an_all_zero_mask_and_positives_their_own():
    batch = sampler().draw()
    assert (batch.labels[:4].sum(axis=(1, 2)) == H).all() and not batch.labels[4:].any()


@pytest.mark.claim(
    "F-12", "Pools are walked without replacement and reshuffled when used up", ours="each image once per walk"
)
def test_pools_are_walked_without_replacement_and_reshuffled():
    s = sampler()
    first = np.concatenate([s.draw().rows[:4] for _ in range(10)])
    second = np.concatenate([s.draw().rows[:4] for _ in range(10)])
    assert sorted(first) == sorted(second) == list(range(40))
    assert first.tolist() != second.tolist()


@pytest.mark.claim("F-15", "30 % of a batch is mirrored left-right, masks too", ours="3 of 10, 2 of 6")
@pytest.mark.parametrize(("n", "flipped"), [(4, 3), (0, 2)])
def test_30_percent_of_a_batch_is_mirrored_with_its_mask(n, flipped):
    s = sampler(n=n)
    for _ in range(20):
        batch = s.draw()
        mirrored = batch.images[:, 0, 0, -1] % 1 == 0.5
        assert mirrored.sum() == flipped
        assert (batch.labels[:4, 0, -1] == mirrored[:4]).all()


@pytest.mark.claim(
    "C3.2-06",
    "Every tumour subclass is present at least once in each batch",
    ours="among the annotated images, in both arms",
)
def test_multiclass_batches_show_every_subclass_among_the_annotated_images():
    s = sampler(synthetic(branches=3), seed=1)
    for _ in range(50):
        assert s.draw().presence[:4].any(axis=0).all()
    with pytest.raises(SettingError, match="k = 2: every batch must show all 3 classes"):
        sampler(synthetic(branches=3), k=2)


@pytest.mark.claim(
    "C4.2-10",
    "Three binary problems, a model for each, trained for that region",
    ours="task = whole_tumor, tumor_core, enhancing_core",
)
def test_oedema_only_is_negative_for_tumour_core():
    labels = np.array([[[0, 1, 2, 3]]], np.uint8)
    assert task_labels(labels, "whole_tumor").tolist() == [[[0, 1, 1, 1]]]
    assert task_labels(labels, "tumor_core").tolist() == [[[0, 1, 0, 1]]]
    assert task_labels(labels, "enhancing_core").tolist() == [[[0, 0, 0, 1]]]
    assert task_labels(labels, "multiclass").tolist() == [[[0, 1, 2, 3]]]


# From a cohort


@pytest.mark.claim(
    "F-13",
    "Negative slices come from fully annotated and weak patients; standard supervision uses its own only",
    ours="the same",
)
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


@pytest.mark.claim("C4.2-01")
@pytest.mark.claim("F-13")
def test_standard_supervision_uses_annotated_patients_only(store, split):
    data = select_training_slices(store, split, "whole_tumor", use_weak=False)
    patient = store.table["patient"].to_numpy()
    assert len(data.weak) == 0
    assert set(patient[data.negative]) == set(split.fully_annotated)


def test_empty_pools_and_a_class_that_never_occurs_are_clear_errors(store, split, monkeypatch):
    empty = TrainingSlices(**{**synthetic().__dict__, "weak": np.zeros(0, int)})
    with pytest.raises(DataError, match="4 positive weak slices"):
        sampler(empty)
    real = SliceStore.label_maps
    monkeypatch.setattr(SliceStore, "label_maps", lambda self, patient: np.zeros_like(real(self, patient)))
    with pytest.raises(DataError, match="shows whole_tumor"):
        select_training_slices(store, Split(split.fully_annotated[:1], (), split.test), "whole_tumor")


# From arrays of one's own


def own_arrays(n_classes: int = 1, seed: int = 0) -> dict:
    """40 annotated and 60 weak images, in mixed order, with random labels; each image is filled with its row number."""
    rng = np.random.default_rng(seed)
    images = np.broadcast_to(np.arange(100)[:, None, None, None], (100, 2, H, W)).astype(np.float32).copy()
    annotated = np.isin(np.arange(100), rng.permutation(100)[:40])
    labels = rng.integers(n_classes + 1, size=(40, H, W)) * (rng.random((40, 1, 1)) < 0.6)
    presence = (rng.random((60, n_classes)) < 0.5).astype(int)
    return {"images": images, "annotated": annotated, "labels": labels, "presence": presence}


@pytest.mark.parametrize(("n_classes", "feed"), [(1, "direct"), (3, "resident")])
def test_batches_from_plain_arrays(n_classes, feed):
    """Somebody with a loader of their own gets the same kinds of images, each with its own labels."""
    own = own_arrays(n_classes)
    inner = sampler(TrainingSlices.from_arrays(**own), flip_fraction=0.0)
    batches = feed_batches(inner, CPU, feed, n_classes=n_classes + 1)
    maps = np.zeros((100, H, W), int)
    maps[own["annotated"]] = own["labels"]
    shows = np.stack([(maps == value).any(axis=(1, 2)) for value in range(1, n_classes + 1)], axis=1)  # (N, R)
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


def test_plain_arrays_that_do_not_fit_are_one_sentence():
    own = own_arrays()
    alone = TrainingSlices.from_arrays(own["images"][:40], np.ones(40, bool), own["labels"])
    assert alone.presence.shape == (40, 1) and len(alone.weak) == 0
    for wrong, sentence in (
        ({"annotated": np.arange(100)}, r"annotated: found int64 \(100,\), expected a bool per image: \(100,\)"),
        ({"annotated": np.ones(100, bool)}, r"labels: found int64 \(40, 6, 8\), expected .*\(100, 6, 8\)"),
        ({"labels": np.zeros((40, H, W))}, "labels: found float64"),
        ({"labels": np.full((40, H, W), 2)}, "labels: found values from 2 to 2, expected 0 to 1"),
        ({"labels": np.zeros((40, H, W), int)}, "no annotated image shows class 1"),
        ({"presence": None}, r"presence: found bool \(0, 1\), expected .*\(60, 1\)"),
        ({"presence": np.full((60, 1), 2)}, "presence: found other values than 0 and 1"),
    ):
        with pytest.raises(DataError, match=sentence):
            TrainingSlices.from_arrays(**{**own, **wrong})


# Wrong and shuffled labels of weak patients: what changes, exactly how much, and what does not

tasks = pytest.mark.parametrize("task", ["whole_tumor", "multiclass"])
SHUFFLED, NOISY = WeakLabels(order="shuffled", seed=1), WeakLabels(noise=0.2, seed=1)


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


def in_order(labels):
    return sorted(map(tuple, labels.tolist()))


@tasks
def test_shuffled_labels_are_the_same_labels_on_other_slices_and_leave_all_else_as_it_is(store, split, task):
    true, shuffled = (select_training_slices(store, split, task, weak_labels=w) for w in (WeakLabels(), SHUFFLED))
    for name in ("negative", "weak", "label_index", "label_maps"):
        assert np.array_equal(getattr(true, name), getattr(shuffled, name))
    assert all(np.array_equal(one, two) for one, two in zip(true.positive, shuffled.positive, strict=True))
    plain, other = sampler(true), sampler(shuffled)
    for _ in range(50):
        one, two = plain.draw(), other.draw()
        assert np.array_equal(one.rows, two.rows) and np.array_equal(one.labels, two.labels)
        assert np.array_equal(one.images, two.images)
        assert np.array_equal(one.presence[:4], two.presence[:4])  # positive annotated
    weak, annotated = (training_rows(store, group) for group in (split.weak, split.fully_annotated))
    labels = given(store, split, task)
    assert in_order(shuffled.presence[weak]) == in_order(labels) and (shuffled.presence[weak] != labels).any()
    assert np.array_equal(shuffled.presence[annotated], true.presence[annotated])


def test_a_shuffled_label_says_nothing_about_its_slice(store, split):
    """Over many seeds a slice with tumour is called positive as often as one without."""
    labels = given(store, split, "whole_tumor")
    called = np.mean([WeakLabels("shuffled", seed=seed).as_targets(labels) for seed in range(400)], axis=0)
    share = labels.mean()
    assert called[labels == 1].mean() == pytest.approx(share, abs=0.02)
    assert called[labels == 0].mean() == pytest.approx(share, abs=0.02)


@tasks
def test_exactly_the_share_of_weak_labels_is_wrong_in_every_column_and_no_annotated_one(store, split, task):
    labels, true = given(store, split, task), select_training_slices(store, split, task)
    weak, annotated = (training_rows(store, group) for group in (split.weak, split.fully_annotated))
    for share in (0.003, 0.1, 0.5, 1.0):
        wrong = select_training_slices(store, split, task, weak_labels=WeakLabels(noise=share, seed=1))
        differ = wrong.presence[weak] != labels
        assert differ.sum(axis=0).tolist() == [round(share * len(labels))] * labels.shape[1]
        assert np.array_equal(true.presence[annotated], wrong.presence[annotated])
        assert all(np.array_equal(one, two) for one, two in zip(true.positive, wrong.positive, strict=True))
        assert np.array_equal(true.label_index, wrong.label_index)
        assert np.array_equal(true.label_maps, wrong.label_maps)
        shows = wrong.presence[weak].any(axis=1)  # negative only if no subclass is left
        assert set(wrong.weak) == set(weak[shows])
        assert set(wrong.negative) == set(weak[~shows]) | (set(true.negative) & set(annotated))


def test_a_wrong_label_moves_its_slice_to_the_other_pool(store, split):
    true, wrong = (select_training_slices(store, split, "whole_tumor", weak_labels=w) for w in (WeakLabels(), NOISY))
    called_negative, called_positive = set(true.weak) - set(wrong.weak), set(wrong.weak) - set(true.weak)
    assert called_negative and called_positive <= set(true.negative) - set(wrong.negative)
    batches, seen = sampler(wrong), set()
    for _ in range(400):
        batch = batches.draw()
        seen |= set(batch.rows[4:6])
        assert not batch.labels[4:6].any() and not batch.presence[4:6].any()
    assert seen & called_negative  # tumours, every pixel of which is called healthy


@pytest.mark.parametrize("kind", [{"order": "shuffled"}, {"noise": 0.2}], ids=["shuffled", "noisy"])
def test_disturbed_labels_follow_their_seed_open_no_weak_mask_and_do_not_reach_the_standard_arm(
    store, split, kind, monkeypatch
):
    def select(seed, **more):
        return select_training_slices(store, split, "whole_tumor", weak_labels=WeakLabels(**kind, seed=seed), **more)

    opened, real = [], SliceStore.label_maps
    monkeypatch.setattr(SliceStore, "label_maps", lambda self, patient: opened.append(patient) or real(self, patient))
    first = select(1)
    assert opened == list(split.fully_annotated)
    assert np.array_equal(first.presence, select(1).presence)
    assert not np.array_equal(first.presence, select(2).presence)
    plain = select_training_slices(store, split, "whole_tumor", use_weak=False)
    other = select(1, use_weak=False)
    assert np.array_equal(plain.presence, other.presence) and np.array_equal(plain.negative, other.negative)


def test_the_settings_of_a_run_reach_its_sampler(store, split, run_settings):
    def data(**changes):
        config = make_config(**{**run_settings, "seed": 1, **changes})
        return make_trainer(config, store, split, "cpu", "float32").sampler.data

    for changes, kind in (({"weak_labels": "shuffled"}, SHUFFLED), ({"weak_label_noise": 0.2}, NOISY)):
        found = data(**changes)
        expected = select_training_slices(store, split, "whole_tumor", weak_labels=kind)
        assert np.array_equal(found.presence, expected.presence) and np.array_equal(found.weak, expected.weak)
    whole, annotated = data(), data(negatives="annotated")
    standard = select_training_slices(store, split, "whole_tumor", use_weak=False)
    assert np.array_equal(annotated.negative, standard.negative) and len(annotated.negative) < len(whole.negative)
    assert np.array_equal(annotated.weak, whole.weak) and np.array_equal(annotated.positive[0], whole.positive[0])


# On the device: the sampler's own batches bit for bit, exact resume whatever was read ahead


def assert_same_batch(batch, expected):
    assert np.array_equal(batch.rows, expected.rows)
    for name in ("images", "labels", "presence"):
        found, wanted = getattr(batch, name), torch.as_tensor(getattr(expected, name))
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name


@pytest.mark.parametrize(
    ("way", "task", "n"), [("resident", "whole_tumor", 4), ("prefetch", "multiclass", 4), ("resident", "multiclass", 0)]
)
def test_batches_are_those_of_the_sampler_bit_for_bit(store, split, way, task, n):
    data = select_training_slices(store, split, task, use_weak=bool(n))
    plain, batches = sampler(data, n=n), feed_batches(sampler(data, n=n), CPU, way, n_classes=4)
    assert batches.feed == way
    mirrored = 0
    for _ in range(60):
        expected = plain.draw()
        assert_same_batch(batches.draw(), expected)
        stored = np.asarray(data.images[expected.rows], np.float32)
        mirrored += (expected.images != stored).any(axis=(1, 2, 3)).sum()
    assert mirrored > 60  # or mirroring would not have been tested
    assert expected.labels.any() and len(set(expected.presence[:, 0])) == 2


def test_only_slices_that_batches_can_show_stay_on_the_device(store, split):
    data = select_training_slices(store, split, "whole_tumor")
    inner = BatchSampler(data, k=4, m=2, n=4, flip_fraction=0.3, seed=0)
    kept = feed_batches(inner, CPU, "resident", n_classes=2)
    training = store.table["training"] & ~store.table["patient"].isin(split.test)
    assert len(kept.images) == training.sum() < len(store)
    assert kept.images.dtype == torch.float16


def test_a_gpu_keeps_slices_that_take_at_most_half_of_its_free_memory(monkeypatch):
    assert choose_feed("auto", needed=12, free=24) == "resident"
    assert choose_feed("auto", needed=13, free=24) == "prefetch"
    assert choose_feed("auto", needed=1, free=None) == "direct"
    assert [choose_feed(name, needed=99, free=1) for name in (*WAYS, "direct")] == [*WAYS, "direct"]
    assert feed_batches(plain := sampler(), CPU, n_classes=2) is plain
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 80_000))
    with pytest.raises(SettingError, match="'resident', but the training slices take 0.0 GB and the GPU has"):
        feed_batches(plain, torch.device("cuda"), "resident", n_classes=2)


def test_faults_of_labels_and_of_the_reading_thread_reach_the_training():
    data = synthetic()
    data.label_maps[7, 0, 0] = 2
    for way in ("direct", *WAYS):
        with pytest.raises(DataError, match=r"Labels range from 0 to 2, expected 0\.\.1"):
            feed_batches(sampler(data), CPU, way, n_classes=2)
    batches = feed_batches(sampler(), CPU, "prefetch", n_classes=2)
    batches.data = TrainingSlices(**{**data.__dict__, "images": data.images[:60]})
    with pytest.raises(IndexError):
        batches.draw()


def test_weights_are_bit_identical_whatever_the_feed_and_after_a_kill(run_settings, tmp_path):
    changes = {"task": "multiclass", "batches_per_iteration": 2, "iterations": 6}
    whole, resident, killed = (trainer(run_settings, feed=way, **changes) for way in ("direct", *WAYS))
    whole.run()
    resident.run()
    killed.checkpoint = tmp_path / "checkpoint.pt"
    for _ in range(4):
        killed.step()
    killed.save()
    killed.step()  # lost
    resumed = trainer(run_settings, feed="resident", **changes)
    resumed.checkpoint = killed.checkpoint
    assert resumed.config.settings_hash() == killed.config.settings_hash()
    assert resumed.run() == whole.history == resident.history
    assert_same(weights(whole), weights(resident))
    assert_same(weights(whole), weights(resumed))


def test_no_batch_waits_for_the_device(run_settings):
    """On the meta device values do not exist, so whatever would wait for one raises."""
    trained = trainer(run_settings, task="multiclass")
    trained.device = torch.device("meta")
    trained.sampler = feed_batches(sampler(trained.sampler.data), trained.device, "resident", n_classes=4)
    trained.network.to("meta")
    trained.target_weights = trained.target_weights.to("meta")
    losses = trained.losses(trained.sampler.draw())
    losses[0].backward()
    assert all(loss.device.type == "meta" and loss.shape == () for loss in losses)
    assert all(p.grad is not None for p in trained.network.parameters())
