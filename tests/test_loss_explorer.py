"""Figures and explorer of notebook 03: their numbers are those of the losses, controls move the picture."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from mixsup_lib import losses
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.teaching.figures.nb03 import batch_weights, first_steps, gradient_balance
from mixsup_lib.teaching.widgets.loss_explorer import (
    constant_answer_loss,
    loss_explorer,
    loss_picture,
    pulls,
    relative_weights,
)


@pytest.fixture
def labels():
    labels = torch.zeros(6, 10, 10, dtype=torch.long)
    labels[:3, 2:4, 3:5] = 1
    return labels


@pytest.mark.parametrize("targets", [(0.7, 0.3), (0.2, 0.9)])
def test_relative_weights_are_p_times_the_weights_of_the_loss(labels, targets):
    weights = labels.numel() * losses.class_weights(labels, targets)
    assert relative_weights(*targets, 12 / 600) == pytest.approx(weights.tolist())


@pytest.mark.parametrize(("t0", "t1"), [(0.7, 0.3), (0.98, 0.02), (1.0, 1.0)])
def test_the_constant_answers_loss_is_the_losses_and_lowest_at_t1(labels, t0, t1):
    probability = torch.tensor([0.8, 0.2])
    scores = probability.log()[None, :, None, None].expand(6, 2, 10, 10)
    loss = float(losses.segmentation_loss(scores, labels, (t0, t1)))
    assert constant_answer_loss(0.2, t0, t1) == pytest.approx(loss, rel=1e-5)
    q = np.linspace(0.001, 0.999, 999)
    assert q[constant_answer_loss(q, t0, t1).argmin()] == pytest.approx(t1 / (t0 + t1), abs=0.001)


@pytest.mark.parametrize("a", [0.0, 0.3, 0.7, 1.0])
def test_pulls_are_the_gradient_of_the_joint_loss_of_an_undecided_network(labels, a):
    targets = (0.6, 0.3)
    pixel_scores = torch.zeros(6, 2, 10, 10, requires_grad=True)
    image_scores = torch.zeros(10, 1, 2, requires_grad=True)
    presence = torch.tensor([[1], [1], [1], [0], [0], [0], [1], [1], [1], [1]])
    loss_s = losses.segmentation_loss(pixel_scores, labels, targets)
    losses.joint_loss(loss_s, losses.classification_loss(image_scores, presence), a).backward()
    by_pixel = pixel_scores.grad[:, 1].abs()
    parts = [by_pixel[labels == 0].sum(), by_pixel[labels == 1].sum(), image_scores.grad[..., 1].abs().sum()]
    assert pulls(*targets, a) == pytest.approx([float(part / sum(parts)) for part in parts], abs=1e-6)


def test_the_pictures_words_hold_its_numbers():
    words = alt_text(loss_picture(0.7, 0.3, 2.0, 0.7))
    for number in (
        "0.71",
        "15.0 times",
        "30 %",
        "healthy pixels 49.0 %, tumour pixels 21.0 %, image labels 30.0 %",
    ):
        assert number in words


def test_every_control_moves_the_picture_and_its_words():
    explorer = loss_explorer()
    picture = explorer.children[1]
    assert [control.description for control in explorer.children[0].children] == [
        "t0 (healthy)",
        "t1 (tumour)",
        "tumour (%)",
        "a",
    ]
    for control in explorer.children[0].children:
        for end in (control.min, control.max):
            before = picture.value
            control.value = 10**end if control.description == "tumour (%)" else end
            assert picture.value != before and "alert" not in picture.value


def test_the_explorer_answers_quickly():
    explorer = loss_explorer()
    slider, times = explorer.children[0].children[0], []
    for value in (0.3, 0.4, 0.5, 0.6):
        start = time.process_time()
        slider.value = value
        times.append(time.process_time() - start)
    assert min(times) < 0.6  # 0.2 s on an idle core; a busy or old one may need longer


def test_the_images_of_a_batch_share_the_weight_of_the_tumour(labels):
    figure = batch_weights(np.ones((6, 10, 10)), labels.numpy(), (0.7, 0.3))
    assert "weigh 0.3, all others 0.7" in alt_text(figure)
    assert alt_text(figure).count("4 tumour pixels weigh 0.100") == 3


def test_the_first_steps_name_both_courses():
    figure = first_steps({"no weights": ([0.7, 0.1], [0, 0]), "weights": ([0.7, 0.3], [5, 40])})
    assert "After 1 steps: no weights: loss 0.100, Dice 0 %; weights: loss 0.300, Dice 40 %." in alt_text(
        figure
    )


def test_the_balance_of_two_gradients_is_that_of_vectors():
    rng = np.random.default_rng(0)
    g_s, g_c = rng.normal(size=9), 3 * rng.normal(size=9)
    norm_s, norm_c = np.linalg.norm(g_s), np.linalg.norm(g_c)
    figure = gradient_balance(norm_s, norm_c, g_s @ g_c / norm_s / norm_c, a=0.7)
    lengths, cosines = figure.axes[:2]
    a, part_s = lengths.lines[0].get_data()
    at = int(np.argmin(abs(a - 0.7)))
    joint = 0.7 * g_s + 0.3 * g_c
    assert part_s[at] == pytest.approx(0.7 * norm_s)
    for line, gradient in zip(cosines.lines[:2], (g_s, g_c), strict=True):
        expected = joint @ gradient / np.linalg.norm(joint) / np.linalg.norm(gradient)
        assert line.get_ydata()[at] == pytest.approx(expected)
    assert f"equal at a = {norm_c / (norm_s + norm_c):.2f}" in alt_text(figure)
