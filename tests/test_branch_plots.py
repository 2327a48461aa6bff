"""The branch's pictures: what pooling keeps, what survives the layers, and that the numbers behind them are right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mixsup_lib.experiments.style import alt_text
from mixsup_lib.model import DeepSkipBranch
from mixsup_lib.teaching.figures.nb02 import (
    difference,
    follow,
    pooled_separation,
    pooling,
    roc_area,
    surviving_difference,
)

SIZES = (1, 4, 16, 64)


def test_the_area_under_the_roc_curve():
    assert roc_area(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])) == 1
    assert roc_area(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.5])) == 0.5
    assert roc_area(torch.tensor([2.0]), torch.tensor([1.0])) == 0


def test_the_mean_wins_for_weak_and_spread_evidence_the_maximum_for_strong_and_narrow():
    weak, strong = pooled_separation(SIZES, 0.5), pooled_separation(SIZES, 3.0)
    assert weak["mean"][2] > weak["max"][2] + 0.1
    assert strong["max"][0] > strong["mean"][0] + 0.1
    for areas in (*weak.values(), *strong.values()):
        assert areas == sorted(areas) and 0.49 < areas[0]


def test_evidence_of_the_mean_is_what_the_formula_says():
    """n pixels of evidence e move the mean by n e / 64; its noise is 1 / 8."""
    for size, area in zip(SIZES, pooled_separation(SIZES, 0.5, windows=20_000)["mean"], strict=True):
        shift = size * 0.5 / 64 / (2**0.5 / 8)
        assert area == pytest.approx(float(torch.special.ndtr(torch.tensor(shift))), abs=0.01)


def test_the_difference_does_not_depend_on_scale_and_vanishes_for_equal_vectors():
    x = torch.rand(5, 3, 2)
    assert difference(x) == pytest.approx(difference(7 * x)) and difference(x[:1].expand(4, 3, 2)) == 0
    assert difference(torch.eye(2)) == pytest.approx(2**0.5)


@pytest.fixture
def branch():
    torch.manual_seed(0)
    return DeepSkipBranch(8, (101, 101))


def test_following_a_branch_is_running_it(branch):
    features, seen = torch.rand(4, 8, 101, 101), {}
    layers = {f"FC {i}": layer for i, layer in enumerate(branch.first_to_fifth, start=1)} | {
        "skip": branch.sixth
    }
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: F.relu(output)}))
    with torch.no_grad():
        branch(features)
        expected = {name: difference(output) for name, output in seen.items()}
    chain, joined, ratio = follow(branch, features)
    assert list(chain) == ["conv", *(f"FC {i}" for i in range(1, 7))]
    for i in range(1, 6):
        assert chain[f"FC {i}"] == pytest.approx(expected[f"FC {i}"], rel=1e-4)
    assert joined == pytest.approx(expected["skip"], rel=1e-4) and ratio > 0


def test_without_the_skips_weights_the_gradient_takes_the_chain_alone(branch):
    branch.sixth.weight.data[:, :300] = 0
    chain, joined, ratio = follow(branch, torch.rand(4, 8, 101, 101))
    assert ratio == 0 and joined == pytest.approx(chain["FC 6"], rel=1e-4)


def test_the_pooling_figure_in_words():
    gradients = {"mean": np.full((16, 16), 1 / 64), "max": np.eye(16)[:, ::-1] * (np.arange(16) % 8 == 0)}
    separation = {"weak": {"mean": [0.5, 0.6, 0.7, 0.8], "max": [0.5, 0.5, 0.6, 0.6]}}
    figure = pooling(SIZES, separation, gradients)
    words = alt_text(figure)
    assert "weak, 64 tumour pixels: 0.80 with mean-pooling and 0.60 with max-pooling" in words
    assert "mean-pooling reaches 100 % of the pixels" in words and "max-pooling reaches 0.781 %" in words
    assert len(figure.axes) == 3 and figure.axes[0].get_xlabel() == "tumour pixels of 64"
    styles = {(line.get_linestyle(), line.get_marker()) for line in figure.axes[0].lines[:2]}
    assert len(styles) == 2  # colour is not the only sign


def test_the_surviving_difference_in_words():
    followed = [
        ({"conv": 1.2, "FC 1": 1.0, "FC 6": 0.6}, 0.8, 1.5),
        ({"conv": 1.0, "FC 1": 0.8, "FC 6": 0.4}, 0.6, 1.9),
    ]
    words = alt_text(surviving_difference(followed))
    for part in (
        "2 untrained",
        "0.90 after the first",
        "0.50 after the sixth without",
        "0.70 with it",
        "1.5 to 1.9",
    ):
        assert part in words
