"""Kinds of classification branch and of pooling: sizes by hand, a plain reference, and that each one learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mixsup_lib.config import make_config
from mixsup_lib.files import SettingError
from mixsup_lib.model import (
    BRANCHES,
    POOLINGS,
    DeepBranch,
    DeepSkipBranch,
    MixedSupervisionUNet,
    ShallowBranch,
    SharedTrunk,
    image_head,
    lse_pool,
    max_pool,
    mean_pool,
)
from mixsup_lib.training import build_network

PAPER, WORKSHOP = (64, (101, 101)), (16, (80, 64))
CONV = 64 * 32 * 3 * 3 + 32 + 2 * 32  # kernel, bias, batch norm: 64 maps -> 32
FC = {(n, m): n * m + m for n, m in [(3872, 300), (300, 250), (250, 200), (200, 150), (150, 100), (300, 2)]}
TO_FIFTH = sum(FC[pair] for pair in [(3872, 300), (300, 250), (250, 200), (200, 150), (150, 100)])


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def linear_sizes(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


# Sizes


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("deep_skip", CONV + TO_FIFTH + 400 * 50 + 50 + 50 * 2 + 2),
        ("deep", 1_371_280 - 300 * 50),
        ("shallow", CONV + FC[3872, 300] + FC[300, 2]),
    ],
)
def test_parameters_of_one_branch_at_the_papers_size(kind, expected):
    assert parameters(BRANCHES[kind](*PAPER)) == expected
    assert kind != "deep_skip" or expected == 1_371_280


def test_a_shared_trunk_has_one_branch_and_three_last_layers():
    trunk = SharedTrunk(3, *PAPER)
    assert parameters(trunk) == CONV + TO_FIFTH + 400 * 50 + 50 + 3 * (50 * 2 + 2)
    assert parameters(trunk) == 1_371_280 + 2 * (50 * 2 + 2)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("deep_skip", [384, 300, 250, 200, 150, 400, 50]),
        ("deep", [384, 300, 250, 200, 150, 100, 50]),
        ("shallow", [384, 300]),
        ("shared_trunk", [384, 300, 250, 200, 150, 400, 50]),
    ],
)
def test_fully_connected_layers_at_the_size_of_the_workshop(kind, inputs):
    head = image_head(kind, 3, *WORKSHOP, None)  # 80x64 -> 10x8 -> 8x6, 8 maps
    sizes = linear_sizes(head)
    assert [n for n, _ in sizes[: len(inputs)]] == inputs
    assert len(sizes) == len(inputs) * (1 if kind == "shared_trunk" else 3)


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize("size", [PAPER, WORKSHOP], ids=["paper", "workshop"])
def test_every_kind_gives_two_scores_per_subclass(kind, size):
    width, shape = size
    head = image_head(kind, 3, width, shape, None)
    assert len(head) == 3
    assert head(torch.randn(2, width, *shape)).shape == (2, 3, 2)


@pytest.mark.parametrize("kind", ["deep_skip", "deep", "shallow"])
def test_a_binary_task_has_one_branch_of_any_kind_but_the_shared_trunk(kind):
    assert image_head(kind, 1, *WORKSHOP, None)(torch.randn(2, 16, 80, 64)).shape == (2, 1, 2)


def test_without_branches_the_head_is_empty():
    assert all(len(image_head(kind, 0, *WORKSHOP, None)) == 0 for kind in BRANCHES)


# What each kind computes


def test_the_deep_branch_is_the_papers_with_its_skip_cut():
    torch.manual_seed(0)
    features = torch.randn(4, 16, 80, 64)
    paper, deep = DeepSkipBranch(*WORKSHOP), DeepBranch(*WORKSHOP)
    state = paper.state_dict()
    state["sixth.weight"] = state["sixth.weight"].clone()
    state["sixth.weight"][:, :300] = 0  # the weights of the first layer's outputs
    paper.load_state_dict(state)
    deep.load_state_dict({**state, "sixth.weight": state["sixth.weight"][:, 300:]})
    assert torch.allclose(paper(features), deep(features), atol=1e-6)


def test_the_shallow_branch_is_pool_convolution_and_two_layers():
    torch.manual_seed(0)
    features, branch = torch.randn(4, 16, 80, 64), ShallowBranch(*WORKSHOP)
    x = branch.conv(mean_pool(features, 8)).flatten(1)
    x = (x @ branch.hidden.weight.T + branch.hidden.bias).clamp(min=0)
    assert torch.allclose(branch(features), x @ branch.last.weight.T + branch.last.bias, atol=1e-5)


def test_a_shared_trunk_equals_three_branches_that_differ_in_the_last_layer_only():
    torch.manual_seed(0)
    features, trunk = torch.randn(4, 16, 80, 64), SharedTrunk(3, *WORKSHOP)
    scores = trunk(features)
    for r in range(3):
        branch, own = DeepSkipBranch(*WORKSHOP), trunk.state_dict()
        own |= {name: own[name][2 * r : 2 * r + 2] for name in ("seventh.weight", "seventh.bias")}
        branch.load_state_dict(own)
        assert torch.allclose(branch(features), scores[:, r], atol=1e-5)


def test_one_subclass_trains_the_shared_trunk_and_its_own_last_layer():
    trunk = SharedTrunk(3, *WORKSHOP)
    trunk(torch.randn(4, 16, 80, 64))[:, 1].square().sum().backward()
    assert all(bool(p.grad.any()) for name, p in trunk.named_parameters() if name.endswith("weight"))
    rows = trunk.seventh.weight.grad.any(dim=1)
    assert rows.tolist() == [False, False, True, True, False, False]


def test_the_names_of_the_papers_weights_stay_so_that_recorded_weights_load():
    config = make_config(cohort="x", preset="tiny", task="multiclass")
    names = set(build_network(config, 4, (48, 48)).state_dict())
    assert {
        "branches.0.conv.0.weight",
        "branches.2.first_to_fifth.4.bias",
        "branches.1.sixth.weight",
    } <= names
    assert {name.split(".")[2] for name in names if name.startswith("branches.")} == {
        "conv",
        "first_to_fifth",
        "sixth",
        "seventh",
    }


@pytest.mark.parametrize("kind", BRANCHES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_kind_starts_from_the_same_unet(kind, pooling):
    shared = {"cohort": "x", "preset": "tiny", "task": "multiclass"}
    paper = build_network(make_config(**shared), 4, (48, 48))
    other = build_network(make_config(**shared, branch=kind, pooling=pooling), 4, (48, 48))
    for part in ("unet", "segmentation_layer"):
        pairs = zip(getattr(paper, part).parameters(), getattr(other, part).parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)


# Pooling

SHAPES = [(101, 101), (17, 23), (8, 16), (80, 64), (5, 33)]


def reference(maps: np.ndarray, value, window: int = 8) -> np.ndarray:
    """`value` of every window of (H, W), cut out one after the other."""
    rows, columns = (range(0, size, window) for size in maps.shape)
    return np.array([[value(maps[r : r + window, c : c + window]) for c in columns] for r in rows])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "value"), [(None, np.mean), ("max", np.max), ("lse", lambda part: np.log(np.exp(part).mean()))]
)
def test_pooling_equals_a_plain_reference_with_a_ragged_last_window(shape, name, value):
    maps = np.random.default_rng(0).normal(0, 2, (2, 3, *shape))
    found = POOLINGS[name](torch.from_numpy(maps).float(), 8)
    expected = np.array([[reference(channel, value) for channel in image] for image in maps])
    assert found.shape == expected.shape == (2, 3, -(-shape[0] // 8), -(-shape[1] // 8))
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_log_sum_exp_lies_between_the_mean_and_the_maximum(shape):
    maps = 3 * torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    mean, lse, largest = (pool(maps, 8) for pool in (mean_pool, lse_pool, max_pool))
    assert bool((mean < lse).all()) and bool((lse < largest).all())
    level = torch.full((1, 1, *shape), 1.5)
    assert torch.allclose(lse_pool(level, 8), mean_pool(level, 8), atol=1e-6)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_sum_exp_and_its_gradient_stay_finite_for_values_of_1000(sign):
    maps = torch.full((1, 2, 17, 23), sign * 1e3) + torch.randn(1, 2, 17, 23)
    maps.requires_grad_()
    pooled = lse_pool(maps, 8)
    pooled.sum().backward()
    assert bool(pooled.isfinite().all()) and bool(maps.grad.isfinite().all())
    assert float(maps.grad.sum()) == pytest.approx(
        pooled.numel(), rel=1e-3
    )  # the weights of a window sum to 1


def test_log_sum_exp_is_computed_in_float32_under_autocast():
    maps = torch.randn(1, 2, 17, 23, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = lse_pool(maps, 8)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, lse_pool(maps.float(), 8))


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_is_the_same_in_either_memory_layout(name):
    maps = torch.randn(2, 3, 17, 23)
    there = maps.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(POOLINGS[name](maps, 8), POOLINGS[name](there, 8), atol=1e-6)


# Impossible ones


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: image_head("shalow", 1, *WORKSHOP, None), "Did you mean 'shallow'"),
        (lambda: image_head("deep", 1, *WORKSHOP, "mxa"), "pooling is 'mxa'.*Did you mean 'max'"),
        (lambda: image_head("shared_trunk", 1, *WORKSHOP, None), "found n_branches=1.*'deep_skip': use that"),
        (lambda: image_head("shallow", 1, 16, (16, 80), None), "at least 17 pixels a side, found 16x80"),
        (lambda: image_head("shallow", 1, 1, (80, 80), None), "needs width >= 2"),
    ],
)
def test_an_impossible_branch_gets_one_clear_sentence(call, sentence):
    with pytest.raises(SettingError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_shared_trunk_of_one_branch_is_refused_by_the_network_too():
    with pytest.raises(SettingError, match="shared_trunk"):
        MixedSupervisionUNet(
            in_channels=4,
            n_maps=2,
            n_branches=1,
            width=4,
            depth=2,
            padding="same",
            input_shape=(48, 48),
            branch="shared_trunk",
        )
