"""Numbers at their limits: gradients against finite differences in float64, extreme slices, and what is not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_losses import BINARY, MULTICLASS, make_batch
from test_training import assert_same, trainer, weights

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import open_store, run
from mixsup_lib.files import MixsupError
from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.optim import NormalizedSGD
from mixsup_lib.slices import SliceStore, foreground_mask, normalise
from mixsup_lib.training import TrainingDivergedError


@pytest.mark.parametrize("targets", [BINARY, MULTICLASS])
def test_gradients_of_the_losses_equal_finite_differences(targets):
    scores, labels = make_batch(targets, shape=(2, 3, 4))
    image_scores = torch.randn(4, len(targets) - 1, 2, generator=torch.Generator().manual_seed(5)).double()
    presence = torch.randint(0, 2, image_scores.shape[:2], generator=torch.Generator().manual_seed(6))

    def joint(pixels, images):
        loss_s = segmentation_loss(pixels, labels, targets)
        return joint_loss(loss_s, classification_loss(images, presence), 0.7)

    inputs = (scores.requires_grad_(), image_scores.requires_grad_())
    assert torch.autograd.gradcheck(lambda s: segmentation_loss(s, labels, targets), inputs[0])
    assert torch.autograd.gradcheck(lambda s: classification_loss(s, presence), inputs[1])
    assert torch.autograd.gradcheck(joint, inputs)


def small_network(targets, seed=0) -> tuple[MixedSupervisionUNet, callable]:
    """A network in float64 and its joint loss on one batch of 2 annotated and 2 weak images."""
    torch.manual_seed(seed)
    network = MixedSupervisionUNet(
        in_channels=2, n_maps=len(targets), n_branches=len(targets) - 1, width=2, depth=1, padding="same",
        input_shape=(24, 24), branch="deep_skip", pooling=None,
    ).double()  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():  # biases of 0 leave units exactly at the kink of their ReLU
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator).double()
    images = torch.randn(4, 2, 24, 24, generator=generator).double()
    labels = torch.randint(0, len(targets), (2, 24, 24), generator=generator)
    presence = torch.randint(0, 2, (4, len(targets) - 1), generator=generator)

    def loss():
        features = network.unet(images)  # what `forward` does, which ends in float32
        pixels, image_scores = network.segmentation_layer(features[:2]), network.branches(features)
        loss_s, loss_c = (
            segmentation_loss(pixels, labels, targets),
            classification_loss(image_scores, presence),
        )
        return joint_loss(loss_s, loss_c, 0.7)

    return network, loss


def move(network, direction, step):
    with torch.no_grad():
        for parameter, part in zip(network.parameters(), direction, strict=True):
            parameter += step * part


@pytest.mark.parametrize("targets", [BINARY, MULTICLASS])
def test_the_gradient_of_the_whole_network_equals_finite_differences(targets):
    network, loss = small_network(targets)
    gradients = torch.autograd.grad(loss(), list(network.parameters()))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        direction = [torch.randn(g.shape, generator=generator).double() for g in gradients]
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        step, values = 1e-7, []
        for sign in (1, -2):
            move(network, direction, sign * step)
            values.append(float(loss().detach()))
        move(network, direction, step)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_normalised_step_lowers_the_loss_by_its_length_times_the_norm_of_the_gradient():
    network, loss = small_network(BINARY)
    before, rate = loss(), 1e-6
    before.backward()
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in network.parameters()]))
    NormalizedSGD(network.parameters(), lr=rate).step()
    assert (float(before.detach()) - float(loss().detach())) / rate == pytest.approx(norm, rel=1e-3)


def test_float32_losses_of_a_one_pixel_tumour_equal_those_of_float64():
    scores, labels = make_batch(BINARY, shape=(6, 101, 101))
    labels[:] = 0
    labels[2, 50, 50] = 1
    exact = segmentation_loss(scores, labels, BINARY)
    alone = -torch.log_softmax(scores[2, :, 50, 50], 0)[1] * BINARY[1]
    background = segmentation_loss(scores, torch.where(labels == 1, 0, labels), BINARY)
    assert float(exact - alone) == pytest.approx(float(background), rel=1e-3)
    assert float(segmentation_loss(scores.float(), labels, BINARY)) == pytest.approx(float(exact), rel=1e-5)
    gradient = torch.autograd.grad(segmentation_loss(scores.requires_grad_(), labels, BINARY), scores)[0]
    assert gradient.isfinite().all() and float(gradient[2, 1, 50, 50]) < 0


def test_slices_of_tumour_alone_leave_the_background_without_weight():
    scores, labels = make_batch(BINARY)
    labels[:] = 1
    expected = -torch.log_softmax(scores, 1)[:, 1].mean() * BINARY[1]
    assert float(segmentation_loss(scores, labels, BINARY)) == pytest.approx(float(expected), rel=1e-6)


def test_a_constant_head_is_foreground_and_becomes_100():
    volume = np.zeros((12, 12, 5), np.float32)
    volume[3:9, 3:9] = 7
    mask = foreground_mask(volume)
    assert np.array_equal(mask, volume > 0)
    assert np.array_equal(normalise(volume, mask), np.where(volume > 0, np.float32(100), np.float32(0)))


def test_batch_norm_of_constant_images_gives_finite_gradients(run_settings):
    trained = trainer(run_settings)
    draw = trained.sampler.draw

    def constant():
        batch = draw()
        batch.images[:] = 100
        return batch

    trained.sampler.draw = constant
    assert np.isfinite([trained.step() for _ in range(3)]).all()
    trained.estimate_batch_norm()
    assert all(bool(value.isfinite().all()) for value in weights(trained).values())


@pytest.mark.parametrize(
    "smallest",
    [{"k": 1, "m": 0, "n": 1}, {"k": 1, "m": 0, "n": 0}, {"k": 1, "m": 0, "supervision": "standard"},
     {"k": 3, "m": 0, "n": 0, "task": "multiclass"}],
    ids=str,
)  # fmt: skip
def test_the_smallest_batches_train(run_settings, smallest):
    trained = trainer(run_settings, **smallest)
    assert np.isfinite([trained.step() for _ in range(2)]).all()


def test_a_gradient_that_is_not_finite_stops_adam_before_the_step(run_settings):
    """The loss of this iteration is finite; without the check Adam would write NaN into every weight."""
    broken = trainer(run_settings)
    broken.step()
    first = next(broken.network.parameters())
    first.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: p.detach().clone() for name, p in broken.network.named_parameters()}
    with pytest.raises(
        TrainingDivergedError, match="norm of the gradient became nan at iteration 2"
    ) as caught:
        broken.step()
    assert_same(before, dict(broken.network.named_parameters()))
    assert len(caught.value.rows) == len(broken.sampler.draw().rows)


def test_of_several_batches_the_one_with_the_loss_at_fault_is_kept(run_settings):
    broken = trainer(run_settings, batches_per_iteration=3)
    draw, drawn = broken.sampler.draw, []

    def second_is_broken():
        drawn.append(draw())
        if len(drawn) == 2:
            drawn[-1].images[0, 0, 0, 0] = np.inf
        return drawn[-1]

    broken.sampler.draw = second_is_broken
    with pytest.raises(TrainingDivergedError, match="loss became nan at iteration 1") as caught:
        broken.step()
    assert np.array_equal(caught.value.rows, drawn[1].rows)


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


def test_nan_in_the_data_stops_the_run_with_its_batch_saved_and_the_last_good_state_goes_on(
    run_settings, monkeypatch
):
    monkeypatch.setattr(SliceStore, "verify", lambda self, patients: None)  # which would see it first
    settings = {**run_settings, "checkpoint_seconds": 1e-9}
    whole = run(make_config(**{**settings, "out": run_settings["out"].with_name("whole")}))
    sampler = trainer(settings).sampler
    batches = [sampler.draw().rows for _ in range(5)]
    row = next(
        row for row in batches[4] if row not in np.concatenate(batches[:4])
    )  # first seen in iteration 5
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
        with pytest.raises(
            MixsupError, match=f"became nan at iteration 5.*{shown['patient']} z = {shown['z']}[,.]"
        ):
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
