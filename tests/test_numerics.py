"""Training that meets a number that is not finite, the smallest batches, and a network that is compiled."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from test_training import assert_same, trainer, weights

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import open_store, run
from mixsup_lib.files import MixsupError
from mixsup_lib.slices import SliceStore
from mixsup_lib.training import TrainingDivergedError


def test_constant_images_and_the_smallest_batches_train(run_settings):
    for smallest in (
        {"k": 1, "m": 0, "n": 1},
        {"k": 1, "m": 0, "supervision": "standard"},
        {"k": 3, "m": 0, "n": 0, "task": "multiclass"},
    ):
        trained = trainer(run_settings, **smallest)
        draw = trained.sampler.draw

        def constant(draw=draw):
            batch = draw()
            batch.images[:] = 100
            return batch

        trained.step()
        trained.sampler.draw = constant
        assert np.isfinite([trained.step() for _ in range(2)]).all()
        trained.estimate_batch_norm()
        assert all(bool(value.isfinite().all()) for value in weights(trained).values())


def test_a_gradient_that_is_not_finite_stops_adam_before_the_step(run_settings):
    """The loss of this iteration is finite; without the check Adam would write NaN into every weight."""
    broken = trainer(run_settings)
    broken.step()
    first = next(broken.network.parameters())
    first.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: p.detach().clone() for name, p in broken.network.named_parameters()}
    with pytest.raises(TrainingDivergedError, match="norm of the gradient became nan at iteration 2") as caught:
        broken.step()
    assert_same(before, dict(broken.network.named_parameters()))
    assert len(caught.value.rows) == len(broken.sampler.draw().rows)


def test_a_state_that_is_not_finite_is_neither_saved_nor_finished(run_settings, tmp_path):
    broken = trainer(run_settings)
    broken.checkpoint = tmp_path / "checkpoint.pt"
    broken.step()
    broken.save()
    good = broken.checkpoint.read_bytes()
    with torch.no_grad():
        next(broken.network.parameters())[0, 0, 0, 0] = float("inf")
    with pytest.raises(TrainingDivergedError, match="holds NaN or infinity after iteration 1"):
        broken.save()
    assert broken.checkpoint.read_bytes() == good


def test_batch_norm_statistics_that_are_not_finite_are_no_result(run_settings):
    broken = trainer(run_settings)
    draw = broken.sampler.draw

    def broken_after_training():
        batch = draw()
        if broken.iteration == broken.config.iterations:
            batch.images[0] = np.nan
        return batch

    broken.sampler.draw = broken_after_training
    with pytest.raises(TrainingDivergedError, match="NaN or infinity"):
        broken.run()


def test_nan_in_the_data_stops_the_run_with_its_batch_saved_and_the_last_good_state_goes_on(run_settings, monkeypatch):
    monkeypatch.setattr(SliceStore, "verify", lambda self, patients: None)  # which would see it first
    settings = {**run_settings, "checkpoint_seconds": 1e-9}
    whole = run(make_config(**{**settings, "out": run_settings["out"].with_name("whole")}))
    sampler = trainer(settings).sampler
    batches = [sampler.draw().rows for _ in range(5)]
    row = next(row for row in batches[4] if row not in np.concatenate(batches[:4]))  # first seen in iteration 5
    store = open_store(make_config(**settings), find_cohort(settings["cohort"]))
    patient, z, _ = store.table.loc[row]
    (images_file,) = run_settings["stores"].rglob(f"{patient}.npy")
    images = np.load(images_file, mmap_mode="r+", allow_pickle=False)
    sound = images[z].copy()
    images[z, 1, 20, 20] = np.nan
    images.flush()

    config = make_config(**settings)
    for _ in range(2):  # the second start continues from the last good state, and meets the same batch
        shown = open_store(config, find_cohort(config.cohort)).table.loc[row]
        with pytest.raises(MixsupError, match=f"became nan at iteration 5.*{shown['patient']} z = {shown['z']}[,.]"):
            run(config)
        assert not list(config.out.rglob("metrics.json")) and not list(config.out.rglob("weights*"))
        (partial,) = config.out.rglob("*.partial")
        state = torch.load(partial / "checkpoint.pt", weights_only=True)
        assert len(state["history"]) == 4
        assert all(bool(value.isfinite().all()) for value in state["network"].values())

    images[z] = sound
    images.flush()
    mended = run(config)
    assert (mended / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert (mended / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()


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


def test_a_compiled_network_keeps_its_names_and_its_losses(run_settings, monkeypatch):
    """Without a compiler's minutes: the backend that runs the captured graph as it is."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: real(network, backend="eager", dynamic=dynamic))
    plain, fast = trainer(run_settings), trainer(run_settings, compile=True)
    assert fast.config.settings_hash() == plain.config.settings_hash()
    assert fast.forward is not fast.network and weights(fast).keys() == weights(plain).keys()
    np.testing.assert_allclose([fast.step() for _ in range(2)], [plain.step() for _ in range(2)], rtol=1e-3)
