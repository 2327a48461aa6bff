"""The losses of section 3.1 against independent calculations, and at the limits of numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixsup_lib.files import DataError, SettingError
from mixsup_lib.losses import class_weights, classification_loss, joint_loss, segmentation_loss
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.optim import NormalizedSGD
from mixsup_lib.paper import TARGET_WEIGHTS

BINARY, MULTICLASS = TARGET_WEIGHTS["binary"], TARGET_WEIGHTS["multiclass"]
binary_and_multiclass = pytest.mark.parametrize("targets", [BINARY, MULTICLASS], ids=["binary", "multiclass"])


def make_batch(targets, *, shape=(3, 7, 5), seed=0, dtype=torch.float64):
    """Random scores (A, K, H, W) and labels (A, H, W) in which class 0 is by far the most frequent."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape[0], len(targets), *shape[1:], generator=generator, dtype=dtype) * 3
    labels = torch.randint(0, 4 * len(targets), shape, generator=generator)
    return scores, torch.where(labels < len(targets), labels, 0)


def reference_terms(scores, labels):
    """-log p of the true class per pixel, float64 numpy, written out."""
    scores, labels = scores.double().numpy(), labels.numpy()
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return -np.log(true)


@pytest.mark.claim(
    "C3.1-16",
    "Healthy pixels have a total weight of t0 = 0.7, tumour pixels of t1 = 0.3",
    ours="0.7, 0.3, over the whole batch",
)
@pytest.mark.claim("C3.2-08", "Target weights t0 = 0.7, t1 = t2 = t3 = 0.1", ours="0.7, 0.1, 0.1, 0.1")
@binary_and_multiclass
def test_weights_of_each_class_sum_to_t(targets):
    _, labels = make_batch(targets)
    pixel_weights = class_weights(labels, targets)[labels]
    for c, target in enumerate(targets):
        assert float(pixel_weights[labels == c].sum()) == pytest.approx(target, rel=1e-5)
    assert float(pixel_weights.sum()) == pytest.approx(1, rel=1e-5)


@pytest.mark.claim(
    "C3.1-17", "Each tumour pixel weighs t1 / N1", ours="t_c / N_c, N_c counted over the annotated part of the batch"
)
def test_each_tumour_pixel_weighs_t1_over_n1():
    labels = torch.zeros(6, 101, 101, dtype=torch.uint8)
    labels[0, 10:20, 10:20] = 1
    assert class_weights(labels, BINARY).tolist() == pytest.approx([0.7 / (6 * 101 * 101 - 100), 0.3 / 100])


@pytest.mark.claim("F-10", "A class absent from the batch has weight 0", ours="0")
def test_an_absent_class_has_weight_0():
    weights = class_weights(torch.tensor([[[0, 0], [2, 0]]]), MULTICLASS)
    assert weights.tolist() == pytest.approx([0.7 / 3, 0, 0.1 / 1, 0])
    no_tumor = torch.zeros(2, 4, 4, dtype=torch.long)
    loss = segmentation_loss(torch.zeros(2, 2, 4, 4), no_tumor, BINARY)
    assert float(loss) == pytest.approx(0.7 * np.log(2))


@pytest.mark.claim(
    "C3.1-03",
    "The last convolution gives pixelwise class scores, normalised by softmax in training",
    ours="2 maps, cross-entropy of the softmax",
)
@pytest.mark.claim(
    "C3.1-15",
    "Equation (1): weighted pixelwise cross-entropy on the images of types 1 and 2 only",
    ours="the first k + m images of the batch",
)
@binary_and_multiclass
def test_segmentation_loss_equals_a_float64_calculation_by_hand(targets):
    scores, labels = make_batch(targets)
    terms = reference_terms(scores, labels)
    expected = sum(t * terms[labels.numpy() == c].mean() for c, t in enumerate(targets))
    assert float(segmentation_loss(scores, labels, targets)) == pytest.approx(expected, rel=1e-6)
    assert float(segmentation_loss(scores.float(), labels, targets)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.claim(
    "C3.1-18",
    "Equation (1) divides by the number of pixels P",
    ours="the weights already sum to 1, so nothing is divided twice (the authors' code does the same)",
)
def test_equation_1_with_its_1_over_p_holds_for_weights_p_t_over_n():
    scores, labels = make_batch(BINARY)
    terms, p = reference_terms(scores, labels), labels.numel()
    weights = np.array([p * t / (labels == c).sum().item() for c, t in enumerate(BINARY)])
    equation_1 = (weights[labels.numpy()] * terms).sum() / p
    loss = float(segmentation_loss(scores, labels, BINARY))
    assert loss == pytest.approx(equation_1, rel=1e-6)
    assert loss != pytest.approx(equation_1 / p, rel=0.1)  # the paper's t / N with 1 / P on top


@pytest.mark.claim(
    "C3.1-20",
    "The classification loss is the mean cross-entropy over all k + m + n images, without weights",
    ours="mean over B",
)
@pytest.mark.claim("C3.1-21")
@pytest.mark.claim("C3.2-09", "The total classification loss is the average over the branches", ours="mean over R")
def test_classification_loss_is_the_mean_over_images_and_over_branches():
    scores = torch.randn(10, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    presence = torch.randint(0, 2, (10, 3), generator=torch.Generator().manual_seed(3))
    per_branch = []
    for r in range(3):
        exponentials = scores[:, r].exp().numpy()
        true = exponentials[np.arange(10), presence[:, r].numpy()] / exponentials.sum(axis=1)
        per_branch.append(-np.log(true).mean())
        one = classification_loss(scores[:, r : r + 1], presence[:, r : r + 1])
        assert float(one) == pytest.approx(per_branch[-1], rel=1e-12)
    assert float(classification_loss(scores, presence)) == pytest.approx(np.mean(per_branch), rel=1e-12)


@pytest.mark.claim("C3.1-22", "Loss = a * Loss_s + (1 - a) * Loss_c with a = 0.7", ours="0.7")
def test_joint_loss_is_convex():
    loss_s, loss_c = torch.tensor(2.0), torch.tensor(5.0)
    assert float(joint_loss(loss_s, loss_c, 0.7)) == pytest.approx(0.7 * 2 + 0.3 * 5)
    assert float(joint_loss(loss_s, loss_c, 0.3)) == pytest.approx(0.3 * 2 + 0.7 * 5)
    assert float(joint_loss(loss_s, loss_c, 1)) == 2


# Gradients


@binary_and_multiclass
def test_gradients_of_the_losses_equal_finite_differences(targets):
    scores, labels = make_batch(targets, shape=(2, 3, 4))
    image_scores = torch.randn(4, len(targets) - 1, 2, generator=torch.Generator().manual_seed(5)).double()
    presence = torch.randint(0, 2, image_scores.shape[:2], generator=torch.Generator().manual_seed(6))

    def joint(pixels, images):
        loss_s = segmentation_loss(pixels, labels, targets)
        return joint_loss(loss_s, classification_loss(images, presence), 0.7)

    assert torch.autograd.gradcheck(joint, (scores.requires_grad_(), image_scores.requires_grad_()))


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
        loss_s, loss_c = (segmentation_loss(pixels, labels, targets), classification_loss(image_scores, presence))
        return joint_loss(loss_s, loss_c, 0.7)

    return network, loss


def move(network, direction, step):
    with torch.no_grad():
        for parameter, part in zip(network.parameters(), direction, strict=True):
            parameter += step * part


@binary_and_multiclass
def test_the_gradient_of_the_whole_network_equals_finite_differences_and_a_step_follows_it(targets):
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
    before, rate = loss(), 1e-6  # a normalised step lowers the loss by its length times the norm of the gradient
    before.backward()
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in network.parameters()]))
    NormalizedSGD(network.parameters(), lr=rate).step()
    assert (float(before.detach()) - float(loss().detach())) / rate == pytest.approx(norm, rel=1e-3)


# Limits


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


def test_losses_of_half_precision_scores_are_float32():
    scores, labels = make_batch(BINARY)
    with torch.autocast("cpu", torch.bfloat16):
        loss_s = segmentation_loss(scores.bfloat16(), labels.to(torch.uint8), BINARY)
        loss_c = classification_loss(torch.randn(4, 1, 2).bfloat16(), torch.tensor([[0], [1], [1], [0]]))
    assert loss_s.dtype == loss_c.dtype == torch.float32
    same = segmentation_loss(scores.bfloat16().float(), labels, BINARY)
    assert float(loss_s) == float(same)


def test_extreme_scores_and_slices_without_a_class_stay_finite():
    extreme = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert float(segmentation_loss(extreme, torch.ones(1, 4, 4, dtype=torch.long), BINARY)) == pytest.approx(6e3)
    none = torch.zeros(0, 2, 4, 4, requires_grad=True)
    assert segmentation_loss(none, torch.zeros(0, 4, 4, dtype=torch.uint8), BINARY).item() == 0
    scores, labels = make_batch(BINARY)
    labels[:] = 1  # tumour alone
    expected = -torch.log_softmax(scores, 1)[:, 1].mean() * BINARY[1]
    assert float(segmentation_loss(scores, labels, BINARY)) == pytest.approx(float(expected), rel=1e-6)


def test_wrong_input_gets_one_clear_sentence():
    scores, labels = torch.zeros(2, 2, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long)
    for call, error, sentence in (
        (lambda: class_weights(labels + 2, BINARY), DataError, "range from 2 to 2, expected 0..1"),
        (lambda: class_weights(labels - 1, BINARY), DataError, "range from -1 to -1"),
        (lambda: segmentation_loss(scores, labels[:, :, :3], BINARY), SettingError, "do not fit together"),
        (lambda: segmentation_loss(scores, labels, MULTICLASS), SettingError, "4 target weights do not fit"),
        (lambda: classification_loss(torch.zeros(4, 2), labels[0]), SettingError, "expected \\(B, R, 2\\)"),
        (lambda: joint_loss(torch.tensor(1.0), torch.tensor(1.0), 1.5), SettingError, "1.5"),
    ):
        with pytest.raises(error, match=sentence):
            call()
