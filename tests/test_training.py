"""The training loop: what a step does, exact resume, and that weak means weak."""

from __future__ import annotations

import os
import shutil
import signal

import numpy as np
import pytest
import torch

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import make_trainer, open_store, split_of
from mixsup_lib.files import DataError, MixsupError
from mixsup_lib.training import network_input

CPU = torch.device("cpu")


def trainer(settings, **changes):
    config = make_config(**{**settings, **changes})
    cohort = find_cohort(config.cohort)
    store = open_store(config, cohort)
    return make_trainer(config, store, split_of(config, cohort), CPU, "float32")


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.claim("C3.1-22")
def test_the_joint_loss_is_a_times_segmentation_plus_rest_classification(run_settings):
    row = trainer(run_settings).step()
    assert row[1] == pytest.approx(0.7 * row[2] + 0.3 * row[3], rel=1e-5)


@pytest.mark.claim("C4.2-01")
def test_standard_supervision_minimises_the_segmentation_loss_alone(run_settings):
    row = trainer(run_settings, supervision="standard").step()
    assert row[1] == row[2] and row[3] == 0


@pytest.mark.parametrize("optimizer", ["adam", "normalized_sgd"])
def test_with_a_of_1_the_unet_learns_from_the_segmentation_loss_alone_and_the_branch_stays(run_settings, optimizer):
    whole, alone = (trainer(run_settings, a=1.0, optimizer=optimizer) for _ in range(2))
    before = [p.detach().clone() for p in whole.network.branches.parameters()]
    whole.step()
    alone.losses(alone.sampler.draw())[1].backward()
    for part in ("unet", "segmentation_layer"):
        both = (getattr(trained.network, part).parameters() for trained in (whole, alone))
        assert all(torch.equal(one.grad, other.grad) for one, other in zip(*both, strict=True))
    after = list(whole.network.branches.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "variant",
    [
        {"branch": "deep"},
        {"branch": "shared_trunk", "task": "multiclass"},
        {"branch": "shallow", "task": "multiclass"},
        {"pooling": "max"},
        {"pooling": "lse", "precision": "bfloat16"},
        {"weak_labels": "shuffled", "weak_label_noise": 0.2},
    ],
    ids=str,
)
def test_every_variant_trains_and_its_branch_gets_a_gradient(run_settings, variant):
    trained = trainer(run_settings, **variant)
    trained.precision = trained.config.precision
    rows = [trained.step() for _ in range(2)]
    assert np.isfinite(rows).all()
    gradients = {name: p.grad for name, p in trained.network.branches.named_parameters()}
    reached = {name for name, gradient in gradients.items() if gradient.any()}
    assert {name for name in gradients if name.endswith("conv.0.weight")} <= reached
    assert {name for name in gradients if name.endswith(("seventh.weight", "last.weight"))} <= reached
    assert all(bool(gradient.isfinite().all()) for gradient in gradients.values())


@pytest.mark.claim("C3.1-25")
def test_gradients_of_several_batches_are_summed_before_one_step(run_settings):
    ten = trainer(run_settings, batches_per_iteration=3, optimizer="normalized_sgd", learning_rate=0.1)
    by_hand = trainer(run_settings)
    batches = [by_hand.sampler.draw() for _ in range(3)]
    losses = [by_hand.losses(batch)[0] for batch in batches]
    gradients = torch.autograd.grad(sum(losses), list(by_hand.network.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    before = [p.detach().clone() for p in ten.network.parameters()]
    row = ten.step()
    assert row[1] == pytest.approx(float(sum(losses).detach()) / 3, rel=1e-5)
    for old, new, gradient in zip(before, ten.network.parameters(), gradients, strict=True):
        assert torch.allclose(old - 0.1 * gradient / norm, new, atol=1e-6)


def test_the_loss_falls(run_settings):
    history = np.array(trainer(run_settings, iterations=80).run())
    assert history[-20:, 1].mean() < 0.8 * history[:5, 1].mean()


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "normalized_sgd", "schedule": "plateau"}])
def test_resume_after_a_kill_gives_bit_identical_weights(run_settings, tmp_path, optimizer):
    whole, killed, resumed = (trainer(run_settings, checkpoint_seconds=1e-9, **optimizer) for _ in range(3))
    whole.run()
    killed.checkpoint = resumed.checkpoint = tmp_path / "checkpoint.pt"

    def kill(iteration, _):
        if iteration == 5:
            raise RuntimeError("killed")  # between the step and its checkpoint

    killed.report = kill
    with pytest.raises(RuntimeError):
        killed.run()
    assert resumed.run() == whole.history
    assert_same(weights(whole), weights(resumed))


@pytest.fixture
def ctrl_c():
    """SIGINT as in a terminal: a process started in the background of a script ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_middle_of_an_iteration_leaves_a_checkpoint_that_resumes_bit_identically(
    run_settings, tmp_path, ctrl_c
):
    whole, stopped, resumed = (trainer(run_settings) for _ in range(3))
    whole.run()
    stopped.checkpoint = resumed.checkpoint = tmp_path / "checkpoint.pt"
    draw = stopped.sampler.draw

    def interrupted():
        if stopped.iteration == 2:  # the sampler moves on, the network has not yet learned
            os.kill(os.getpid(), signal.SIGINT)
        return draw()

    stopped.sampler.draw = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed.load()
    assert resumed.iteration == 3 and resumed.run() == whole.history
    assert_same(weights(whole), weights(resumed))


def test_a_second_ctrl_c_stops_at_once_and_saves_nothing_half_done(run_settings, tmp_path, ctrl_c):
    stopped = trainer(run_settings)
    stopped.checkpoint = tmp_path / "checkpoint.pt"

    def interrupted():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    stopped.sampler.draw = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert stopped.iteration == 0 and not list(tmp_path.glob("checkpoint*"))


def test_the_checkpoint_of_another_run_is_refused(run_settings, tmp_path):
    first, other = trainer(run_settings), trainer(run_settings, a=0.5)
    first.checkpoint = other.checkpoint = tmp_path / "checkpoint.pt"
    first.save()
    with pytest.raises(DataError, match="belongs to other data or settings"):
        other.load()


def test_a_loss_that_is_not_finite_stops_the_run(run_settings):
    broken = trainer(run_settings)
    with torch.no_grad():
        next(broken.network.parameters()).fill_(float("nan"))
    with pytest.raises(MixsupError, match="loss became nan at iteration 1"):
        broken.step()


@pytest.mark.claim(
    "F-09",
    "Test-time batch-norm statistics are recomputed over N training batches, the same N in both arms",
    ours="N = 100 in the presets workshop and paper",
)
def test_batch_norm_statistics_are_means_over_training_batches(run_settings):
    trained = trainer(run_settings, batch_norm_batches=2)
    reference = trainer(run_settings)
    first = next(m for m in trained.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    convolution = trained.network.get_submodule(_name_before(trained.network, first))
    seen = [convolution(trained.inputs(reference.sampler.draw())).mean(dim=(0, 2, 3)) for _ in range(2)]
    trained.estimate_batch_norm()
    assert torch.allclose(first.running_mean, sum(seen) / 2, rtol=1e-4, atol=1e-3)
    assert first.num_batches_tracked == 2 and first.momentum == 0.1


def _name_before(network, layer):
    names = [name for name, module in network.named_modules() if not list(module.children())]
    return names[[network.get_submodule(name) is layer for name in names].index(True) - 1]


@pytest.mark.claim("C3.1-13")
@pytest.mark.claim(
    "C4.2-09", "Weak patients have slice-level labels only", ours="a weak patient's mask is never opened"
)
@pytest.mark.parametrize(
    ("harm", "variant"),
    [
        ("overwritten", {}),
        ("deleted", {}),
        ("broken", {}),
        ("broken", {"weak_labels": "shuffled", "weak_label_noise": 0.2}),
    ],
)
def test_weak_masks_have_no_influence(phantom, run_settings, tmp_path, harm, variant):
    """Overwritten, deleted or unreadable masks of all weak patients: bit-identical weights."""
    copy = tmp_path / "phantom"
    shutil.copytree(phantom, copy)
    settings = {**run_settings, "cohort": copy, **variant}
    original = trainer(settings)
    original.run()
    split = split_of(original.config, find_cohort(copy))
    labels = tmp_path / "stores" / "phantom" / "slice_labels.csv"
    (copy / "slice_labels.csv").write_bytes(labels.read_bytes())
    shutil.rmtree(tmp_path / "stores")
    cohort = find_cohort(copy)
    other_mask = cohort[split.test[0]].mask_files[0].read_bytes()
    for patient in split.weak:
        (mask,) = cohort[patient].mask_files
        mask.unlink()
        if harm == "overwritten":
            mask.write_bytes(other_mask)
        elif harm == "broken":
            mask.write_bytes(b"not a scan")
    harmed = trainer(settings)
    assert split_of(harmed.config, find_cohort(copy)).weak == split.weak
    harmed.run()
    assert len(split.weak) == 5 and harmed.history == original.history
    assert_same(weights(original), weights(harmed))


def test_slice_labels_of_weak_patients_do_have_influence(phantom, run_settings, tmp_path):
    """The counterpart: the proof above could not fail if weak patients took no part at all."""
    copy = tmp_path / "phantom"
    shutil.copytree(phantom, copy)
    settings = {**run_settings, "cohort": copy}
    original = trainer(settings)
    original.run()
    labels = tmp_path / "stores" / "phantom" / "slice_labels.csv"
    weak = split_of(original.config, find_cohort(copy)).weak[0]
    lines = [line for line in labels.read_text().splitlines() if not line.startswith(weak)]
    labels.write_text("\n".join([*lines, f"{weak},whole_tumor,10,12"]) + "\n")
    changed = trainer(settings)
    changed.run()
    assert changed.history != original.history


@pytest.mark.claim("F-05")
def test_the_papers_frame():
    config = make_config(cohort="brats", preset="paper")
    assert (config.iterations, config.batches_per_iteration) == (10_000, 10)
    assert (config.width, config.depth) == (64, 4)
    size, (rows, columns) = network_input(config, (240, 240))
    assert size == (300, 300) and rows == columns
    assert (rows.pad_before, rows.pad_after, rows.first, rows.last) == (38, 22, 69, 170)


def test_the_paper_network_trains_on_the_window_its_output_covers(phantom, run_settings):
    small = {"padding": "valid", "depth": 1, "input_size": 60, "width": 4, "iterations": 1}
    valid = trainer(run_settings, **small)
    batch = valid.sampler.draw()
    frame = valid.frames[0]
    assert valid.inputs(batch).shape[2:] == (60, 60)
    targets = valid.targets(batch)
    assert targets.shape[1:] == (frame.last - frame.first,) * 2
    covered = batch.labels[:, frame.first : frame.last, frame.first : frame.last]
    assert torch.equal(targets, torch.from_numpy(covered))
    assert np.isfinite(valid.step()[1])
