"""The losses of section 3.1 against independent calculations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixsup_lib.files import DataError, SettingError
from mixsup_lib.losses import class_weights, classification_loss, joint_loss, segmentation_loss
from mixsup_lib.paper import TARGET_WEIGHTS

BINARY, MULTICLASS = TARGET_WEIGHTS["binary"], TARGET_WEIGHTS["multiclass"]


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


@pytest.mark.parametrize("targets", [BINARY, MULTICLASS])
def test_weights_of_each_class_sum_to_t(targets):
    _, labels = make_batch(targets)
    pixel_weights = class_weights(labels, targets)[labels]
    for c, target in enumerate(targets):
        assert float(pixel_weights[labels == c].sum()) == pytest.approx(target, rel=1e-5)
    assert float(pixel_weights.sum()) == pytest.approx(1, rel=1e-5)


def test_each_tumour_pixel_weighs_t1_over_n1():
    labels = torch.zeros(6, 101, 101, dtype=torch.uint8)
    labels[0, 10:20, 10:20] = 1
    assert class_weights(labels, BINARY).tolist() == pytest.approx([0.7 / (6 * 101 * 101 - 100), 0.3 / 100])


def test_an_absent_class_has_weight_0():
    weights = class_weights(torch.tensor([[[0, 0], [2, 0]]]), MULTICLASS)
    assert weights.tolist() == pytest.approx([0.7 / 3, 0, 0.1 / 1, 0])
    no_tumor = torch.zeros(2, 4, 4, dtype=torch.long)
    loss = segmentation_loss(torch.zeros(2, 2, 4, 4), no_tumor, BINARY)
    assert float(loss) == pytest.approx(0.7 * np.log(2))


@pytest.mark.parametrize("targets", [BINARY, MULTICLASS])
def test_segmentation_loss_equals_a_float64_calculation_by_hand(targets):
    scores, labels = make_batch(targets)
    terms = reference_terms(scores, labels)
    expected = sum(t * terms[labels.numpy() == c].mean() for c, t in enumerate(targets))
    assert float(segmentation_loss(scores, labels, targets)) == pytest.approx(expected, rel=1e-6)
    assert float(segmentation_loss(scores.float(), labels, targets)) == pytest.approx(expected, rel=1e-5)


def test_equation_1_with_its_1_over_p_holds_for_weights_p_t_over_n():
    scores, labels = make_batch(BINARY)
    terms, p = reference_terms(scores, labels), labels.numel()
    weights = np.array([p * t / (labels == c).sum().item() for c, t in enumerate(BINARY)])
    equation_1 = (weights[labels.numpy()] * terms).sum() / p
    loss = float(segmentation_loss(scores, labels, BINARY))
    assert loss == pytest.approx(equation_1, rel=1e-6)
    assert loss != pytest.approx(equation_1 / p, rel=0.1)  # the paper's t / N with 1 / P on top


def test_segmentation_loss_of_undecided_scores_does_not_depend_on_the_number_of_pixels():
    for size in (4, 40):
        _, labels = make_batch(BINARY, shape=(2, size, size))
        loss = segmentation_loss(torch.zeros(2, 2, size, size), labels, BINARY)
        assert float(loss) == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize("targets", [BINARY, MULTICLASS])
def test_segmentation_gradient_equals_finite_differences(targets):
    scores, labels = make_batch(targets, shape=(2, 3, 3))
    scores.requires_grad_()
    segmentation_loss(scores, labels, targets).backward()
    step = 1e-5
    for index in np.ndindex(*scores.shape):
        values = []
        for sign in (1, -1):
            moved = scores.detach().clone()
            moved[index] += sign * step
            values.append(float(segmentation_loss(moved, labels, targets)))
        assert float(scores.grad[index]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-8)


def test_classification_gradient_equals_finite_differences():
    scores = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    presence = torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert torch.autograd.gradcheck(classification_loss, (scores.requires_grad_(), presence))


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


def test_joint_loss_is_convex():
    loss_s, loss_c = torch.tensor(2.0), torch.tensor(5.0)
    assert float(joint_loss(loss_s, loss_c, 0.7)) == pytest.approx(0.7 * 2 + 0.3 * 5)
    assert float(joint_loss(loss_s, loss_c, 0.3)) == pytest.approx(0.3 * 2 + 0.7 * 5)
    assert float(joint_loss(loss_s, loss_c, 1)) == 2


def test_losses_of_half_precision_scores_are_float32():
    scores, labels = make_batch(BINARY)
    with torch.autocast("cpu", torch.bfloat16):
        loss_s = segmentation_loss(scores.bfloat16(), labels.to(torch.uint8), BINARY)
        loss_c = classification_loss(torch.randn(4, 1, 2).bfloat16(), torch.tensor([[0], [1], [1], [0]]))
    assert loss_s.dtype == loss_c.dtype == torch.float32
    same = segmentation_loss(scores.bfloat16().float(), labels, BINARY)
    assert float(loss_s) == float(same)


def test_scores_of_any_size_stay_finite():
    scores = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    assert float(segmentation_loss(scores, labels, BINARY)) == pytest.approx(0.3 * 2e4)


def test_no_annotated_image_gives_loss_0():
    empty = torch.zeros(0, 2, 4, 4, requires_grad=True)
    loss = segmentation_loss(empty, torch.zeros(0, 4, 4, dtype=torch.uint8), BINARY)
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: class_weights(torch.tensor([[[0, 2]]]), BINARY),
            DataError,
            "range from 0 to 2, expected 0..1",
        ),
        (lambda: class_weights(torch.tensor([[[-1, 1]]]), BINARY), DataError, "range from -1 to 1"),
        (
            lambda: segmentation_loss(
                torch.zeros(2, 2, 4, 4), torch.zeros(2, 4, 5, dtype=torch.long), BINARY
            ),
            SettingError,
            "do not fit together",
        ),
        (
            lambda: segmentation_loss(
                torch.zeros(2, 4, 4, 4), torch.zeros(2, 4, 4, dtype=torch.long), BINARY
            ),
            SettingError,
            "2 target weights do not fit",
        ),
        (
            lambda: classification_loss(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)),
            SettingError,
            "expected \\(B, R, 2\\)",
        ),
        (lambda: joint_loss(torch.tensor(1.0), torch.tensor(1.0), 1.5), SettingError, "1.5"),
    ],
)
def test_wrong_input_gets_one_clear_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
