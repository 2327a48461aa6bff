"""Batches on the device: the sampler's own bit for bit, exact resume whatever was read ahead, no wait per batch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from test_sampling import sampler, synthetic
from test_training import assert_same, trainer, weights

from mixsup_lib.config import make_config
from mixsup_lib.experiments.runs import load_network, run
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.sampling import (
    BatchSampler,
    TrainingSlices,
    choose_feed,
    feed_batches,
    select_training_slices,
)

CPU = torch.device("cpu")
WAYS = ("resident", "prefetch")
FIELDS = ("images", "labels", "presence")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def run_settings(run_settings, stores):
    """Those of other tests, shorter, and with slices that are prepared once."""
    return {**run_settings, "stores": stores, "iterations": 6, "batch_norm_batches": 2}


def assert_same_batch(batch, expected):
    assert np.array_equal(batch.rows, expected.rows)
    for name in FIELDS:
        found, wanted = getattr(batch, name), torch.as_tensor(getattr(expected, name))
        assert found.dtype == wanted.dtype and torch.equal(found, wanted), name


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", ["whole_tumor", "multiclass"])
@pytest.mark.parametrize("n", [4, 0])
def test_batches_are_those_of_the_sampler_bit_for_bit(store, split, way, task, n):
    data = select_training_slices(store, split, task, use_weak=bool(n))
    plain, inner = (BatchSampler(data, k=4, m=2, n=n, flip_fraction=0.3, seed=5) for _ in range(2))
    batches = feed_batches(inner, CPU, way, n_classes=4)
    assert batches.feed == way
    mirrored = 0
    for _ in range(60):
        expected = plain.draw()
        assert_same_batch(batches.draw(), expected)
        stored = np.asarray(data.images[expected.rows], np.float32)
        mirrored += (expected.images != stored).any(axis=(1, 2, 3)).sum()
    assert mirrored > 60  # or mirroring would not have been tested
    assert expected.labels.any() and len(set(expected.presence[:, 0])) == 2


@pytest.mark.parametrize("way", WAYS)
def test_the_saved_state_is_that_of_the_batches_handed_out(way):
    plain, batches = sampler(seed=3), feed_batches(sampler(seed=3), CPU, way, n_classes=2)
    for drawn in range(25):
        assert batches.state_dict() == plain.state_dict(), drawn
        assert_same_batch(batches.draw(), plain.draw())
    state = batches.state_dict()
    expected = [plain.draw() for _ in range(15)]
    for other in (batches, *(feed_batches(sampler(seed=9), CPU, name, n_classes=2) for name in WAYS)):
        other.draw()
        other.load_state_dict(state)
        for batch in expected:
            assert_same_batch(other.draw(), batch)


def test_only_slices_that_batches_can_show_stay_on_the_device(store, split):
    data = select_training_slices(store, split, "whole_tumor")
    inner = BatchSampler(data, k=4, m=2, n=4, flip_fraction=0.3, seed=0)
    kept = feed_batches(inner, CPU, "resident", n_classes=2)
    training = store.table["training"] & ~store.table["patient"].isin(split.test)
    assert len(kept.images) == training.sum() < len(store)
    assert kept.images.dtype == torch.float16


def test_a_gpu_keeps_slices_that_take_at_most_half_of_its_free_memory():
    assert choose_feed("auto", needed=12, free=24) == "resident"
    assert choose_feed("auto", needed=13, free=24) == "prefetch"
    assert choose_feed("auto", needed=1, free=None) == "direct"
    assert [choose_feed(name, needed=99, free=1) for name in (*WAYS, "direct")] == [*WAYS, "direct"]
    assert feed_batches(plain := sampler(), CPU, n_classes=2) is plain


def test_slices_that_cannot_stay_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 80_000))
    with pytest.raises(SettingError, match="'resident', but the training slices take 0.0 GB and the GPU has"):
        feed_batches(sampler(), torch.device("cuda"), "resident", n_classes=2)


@pytest.mark.parametrize("way", ["direct", *WAYS])
def test_labels_out_of_range_are_refused_once_for_all_batches(way):
    data = synthetic()
    data.label_maps[7, 0, 0] = 2
    wrong = BatchSampler(data, k=4, m=2, n=4, flip_fraction=0.3, seed=0)
    with pytest.raises(DataError, match=r"Labels range from 0 to 2, expected 0\.\.1"):
        feed_batches(wrong, CPU, way, n_classes=2)
    assert feed_batches(wrong, CPU, way, n_classes=3).feed == way


def test_a_fault_of_the_thread_reaches_the_training():
    data = synthetic()
    broken = TrainingSlices(**{**data.__dict__, "images": data.images[:60]})
    batches = feed_batches(sampler(), CPU, "prefetch", n_classes=2)
    batches.data = broken
    with pytest.raises(IndexError):
        batches.draw()


@pytest.mark.parametrize("changes", [{}, {"task": "multiclass", "batches_per_iteration": 2}], ids=str)
def test_weights_are_bit_identical_whatever_the_feed(run_settings, changes):
    expected = trainer(run_settings, feed="direct", **changes)
    expected.run()
    for way in WAYS:
        other = trainer(run_settings, feed=way, **changes)
        other.run()
        assert other.sampler.feed == way and other.history == expected.history
        assert_same(weights(expected), weights(other))


@pytest.mark.parametrize(
    ("before", "after"), [("prefetch", "prefetch"), ("prefetch", "resident"), ("direct", "prefetch")]
)
def test_a_killed_run_resumes_exactly_in_any_feed(run_settings, tmp_path, before, after):
    whole = trainer(run_settings)
    whole.run()
    killed = trainer(run_settings, checkpoint_seconds=1e-9, feed=before)
    killed.checkpoint = tmp_path / "checkpoint.pt"

    def kill(iteration, _):
        if iteration == 4:
            raise RuntimeError("killed")

    killed.report = kill
    with pytest.raises(RuntimeError):
        killed.run()
    resumed = trainer(run_settings, feed=after)
    resumed.checkpoint = killed.checkpoint
    assert resumed.run() == whole.history
    assert_same(weights(whole), weights(resumed))


@pytest.mark.parametrize("changes", [{}, {"task": "multiclass"}, {"supervision": "standard"}], ids=str)
def test_no_batch_waits_for_the_device(run_settings, changes):
    """On the meta device values do not exist, so whatever would wait for one raises."""
    with pytest.raises(RuntimeError):
        torch.zeros(1, device="meta").tolist()
    trained = trainer(run_settings, **changes)
    inner = BatchSampler(trained.sampler.data, k=4, m=2, n=trained.config.n, flip_fraction=0.3, seed=0)
    trained.device = torch.device("meta")
    trained.sampler = feed_batches(inner, trained.device, "resident", n_classes=4)
    trained.network.to("meta")
    trained.target_weights = trained.target_weights.to("meta")
    losses = trained.losses(trained.sampler.draw())
    losses[0].backward()
    assert all(loss.device.type == "meta" and loss.shape == () for loss in losses)
    assert all(p.grad is not None for p in trained.network.parameters())


def test_compile_and_feed_leave_a_run_its_name(run_settings):
    configs = [make_config(**run_settings, **c) for c in ({}, {"compile": True}, {"feed": "prefetch"})]
    assert len({config.settings_hash() for config in configs}) == 1


def test_a_network_that_cannot_be_compiled_runs_as_it_is_and_says_so_once(run_settings, monkeypatch):
    plain = trainer(run_settings)
    plain.run()

    def broken(network, dynamic):
        def forward(*args, **options):
            network(*args, **options)  # leaves its traces in the batch-norm statistics
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found.\nmore\nlines")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fallen = trainer(run_settings, compile=True)
    (line,) = [str(warning.message) for warning in caught if "compile" in str(warning.message)]
    assert "No working C++ compiler found); it runs as it is" in line and "\n" not in line
    assert fallen.forward is fallen.network
    fallen.run()
    assert fallen.history == plain.history
    assert_same(weights(plain), weights(fallen))


def test_a_compiled_network_keeps_its_names_and_its_first_loss(run_settings, monkeypatch, tmp_path):
    """Without a compiler's minutes: the backend that runs the captured graph as it is."""
    real = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda network, dynamic: real(network, backend="eager", fullgraph=True, dynamic=dynamic),
    )
    short = {**run_settings, "iterations": 2}
    plain = run(make_config(**short))
    fast = run(make_config(**{**short, "compile": True, "out": tmp_path / "compiled"}))
    assert fast.name == plain.name
    assert '"compiled": true' in (fast / "provenance.json").read_text()
    assert '"compiled": false' in (plain / "provenance.json").read_text()
    one, two = (load_network(folder, 4, (48, 48)).state_dict() for folder in (plain, fast))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor.float(), two[name].float(), rtol=1e-3, atol=1e-4), name
