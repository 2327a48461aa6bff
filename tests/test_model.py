"""The network with its branches, sections 3.1 and 3.2: sizes, counts, layers, and what the other branches compute."""

from __future__ import annotations

import math

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
    mean_pool,
)
from mixsup_lib.training import build_network
from mixsup_lib.unet import Geometry

PAPER = {
    "in_channels": 4,
    "n_maps": 2,
    "n_branches": 1,
    "width": 64,
    "depth": 4,
    "padding": "valid",
    "input_shape": (300, 300),
}
SMALL = {**PAPER, "n_branches": 3, "n_maps": 4, "width": 4, "depth": 2, "padding": "same", "input_shape": (48, 48)}
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Linear)
PAPER_MAPS, WORKSHOP = (64, (101, 101)), (16, (80, 64))
"""Width and shape of the maps that a branch reads."""


def build(seed=0, **settings):
    torch.manual_seed(seed)
    return MixedSupervisionUNet(**settings)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def record(network, images, keep=torch.clone, **settings):
    """Layers in the order in which they run, (layer, its input, its output), and what the network returns."""
    calls, handles = [], []
    for layer in network.modules():
        if isinstance(layer, LAYERS):

            def note(layer, arguments, output):
                calls.append((layer, keep(arguments[0]), keep(output)))

            handles.append(layer.register_forward_hook(note))
    with torch.no_grad():
        result = network(images, **settings)
    for handle in handles:
        handle.remove()
    return calls, result


@pytest.fixture(scope="module")
def paper():
    """The paper's network, and what a pass of one random image gave: shapes in and out of every layer."""
    network = build(**PAPER).eval()
    images = torch.randn(1, 4, 300, 300, generator=torch.Generator().manual_seed(0))
    shapes, (pixel_scores, image_scores) = record(network, images, keep=lambda tensor: tuple(tensor.shape))
    return network, shapes, pixel_scores, image_scores


# Sizes and counts


@pytest.mark.claim("C3.1-01", "The network takes an image of 300x300", ours="300 for the preset paper")
@pytest.mark.claim("C3.1-05", "The branch takes the second to last layer: 64 maps of 101x101", ours="64 x 101 x 101")
@pytest.mark.claim("F-01")
def test_300_becomes_101_in_the_network_layer_by_layer(paper):
    _, shapes, pixel_scores, _ = paper
    convolutions = [out[1:3] for layer, _, out in shapes if isinstance(layer, nn.Conv2d)]
    expected = [(64, 298), (64, 296), (128, 146), (128, 144), (256, 70), (256, 68), (512, 32), (512, 30)]
    expected += [(1024, 13), (1024, 11)]
    expected += [(512, 21), (512, 19), (512, 17), (256, 33), (256, 31), (256, 29)]
    expected += [(128, 57), (128, 55), (128, 53), (64, 105), (64, 103), (64, 101), (2, 101), (32, 11)]
    assert convolutions == expected
    assert [out[2] for layer, _, out in shapes if isinstance(layer, nn.MaxPool2d)] == [148, 72, 34, 15]
    assert pixel_scores.shape == (1, 2, 101, 101)
    told = {size for name, size in Geometry(4, "valid").layer_sizes(300)[1:] if "upsample" not in name}
    assert told <= {out[2] for _, _, out in shapes if len(out) == 4}


@pytest.mark.claim(
    "C4.2-01",
    "The comparison is with the standard U-Net trained on fully annotated images only",
    ours="the same network without branch, the same batches without weak images",
)
def test_standard_supervision_is_the_same_unet_without_branch():
    network = build(**{**PAPER, "n_branches": 0})
    assert parameters(network) == 31_046_082 and len(network.branches) == 0


@pytest.mark.claim("F-02", "31 046 082 parameters in the U-Net, 1 371 280 in a branch", ours="the same")
def test_unet_has_31_046_082_parameters_and_a_branch_1_371_280(paper):
    network, _, _, _ = paper
    assert parameters(network.unet) + parameters(network.segmentation_layer) == 31_046_082
    assert parameters(network.branches[0]) == parameters(network.branches) == 1_371_280


@pytest.mark.claim("C3.1-06")
@pytest.mark.claim("C3.1-07", "One convolution of 3x3 with ReLU reduces 64 maps to 32", ours="64 -> 32, 13 -> 11")
@pytest.mark.claim("C3.1-08", "32 maps of 11x11 are the input of the first fully-connected layer", ours="3872 inputs")
@pytest.mark.claim(
    "C3.1-09", "7 fully-connected layers, ReLU on all but the last", ours="300, 250, 200, 150, 100, 50, 2"
)
@pytest.mark.claim(
    "C3.1-11", "The branch outputs two image-level scores: tumour absent, tumour present", ours="(B, R, 2) with R = 1"
)
def test_the_branch_goes_from_101_to_13_to_11_to_3872_and_by_seven_layers_to_2(paper):
    network, shapes, _, image_scores = paper
    branch = shapes[-10:]
    assert branch[0][1:] == ((1, 64, 13, 13), (1, 32, 11, 11))
    assert branch[3][1] == (1, 3872) and image_scores.shape == (1, 1, 2)
    widths = [(m.in_features, m.out_features) for m in network.branches.modules() if isinstance(m, nn.Linear)]
    assert widths == [(3872, 300), (300, 250), (250, 200), (200, 150), (150, 100), (400, 50), (50, 2)]


@pytest.mark.claim("C3.2-01", "The number of final maps is the number of classes, 4 for BraTS", ours="4")
@pytest.mark.claim("C3.2-03", "One image-level output per tumour subclass", ours="(B, 3, 2)")
@pytest.mark.claim(
    "C3.2-04", "Every subclass has its own entire branch", ours="own 3x3 convolution and own 7 layers each"
)
def test_multiclass_has_4_maps_and_three_whole_branches():
    network = build(**SMALL)
    pixel_scores, image_scores = network(torch.randn(2, 4, 48, 48))
    assert pixel_scores.shape == (2, 4, 48, 48) and image_scores.shape == (2, 3, 2)
    one = build(**{**SMALL, "n_branches": 1})
    assert parameters(network.branches) == 3 * parameters(one.branches)
    owners = [{id(p) for p in branch.parameters()} for branch in network.branches]
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]


# Layers


@pytest.mark.claim(
    "C3.1-04",
    "Batch normalisation in all convolutional layers except the final one",
    ours="between convolution and ReLU, the branch's 3x3 included",
)
def test_batch_norm_stands_between_every_convolution_and_its_relu_but_not_in_the_last(paper):
    network, shapes, _, _ = paper
    order = [type(layer).__name__ for layer, _, _ in shapes]
    convolutions = [i for i, (layer, _, _) in enumerate(shapes) if isinstance(layer, nn.Conv2d)]
    for i in convolutions:
        if shapes[i][0] is network.segmentation_layer:
            assert order[i + 1] != "BatchNorm2d"
        else:
            assert order[i : i + 3] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert order.count("BatchNorm2d") == len(convolutions) - 1 == 23
    assert order[-7:] == ["Linear"] * 7


@pytest.mark.claim("C3.1-09")
@pytest.mark.claim(
    "C3.1-10",
    "The outputs of the first and of the fifth fully-connected layer are concatenated",
    ours="100 + 300 = 400 inputs of the sixth",
)
def test_relu_follows_each_fully_connected_layer_but_the_last_and_the_first_skips_to_the_sixth():
    network = build(**SMALL).eval()
    calls, (_, image_scores) = record(network, torch.randn(8, 4, 48, 48))
    layers = [call for call in calls if isinstance(call[0], nn.Linear)][:7]  # of the first branch
    for (_, _, output), (_, following, _) in zip(layers[:4], layers[1:5], strict=True):
        assert float(output.min()) < 0 and torch.equal(following, output.clamp(min=0))
    first, fifth, sixth, seventh = layers[0][2], layers[4][2], layers[5], layers[6]
    assert torch.equal(sixth[1], torch.cat([first, fifth], dim=1).clamp(min=0))
    assert torch.equal(seventh[1], sixth[2].clamp(min=0))
    assert torch.equal(image_scores[:, 0], seventh[2]) and float(image_scores.min()) < 0


@pytest.mark.claim(
    "C3.1-06",
    "Mean-pooling with kernels of 8x8 and a stride of 8x8",
    ours="101 -> 13, the last window averages what exists",
)
def test_mean_pool_averages_what_exists_in_the_last_window():
    branch = DeepSkipBranch(2, (101, 101)).eval()
    rows = torch.arange(101.0)
    maps = rows.reshape(1, 1, -1, 1) + 1000 * rows.reshape(1, 1, 1, -1)  # (1, 1, 101, 101)
    calls, _ = record(branch, maps.expand(1, 2, 101, 101))
    pooled = calls[0][1][0, 0]
    means = torch.tensor([rows[8 * i : 8 * i + 8].mean() for i in range(13)])
    assert float(means[-1]) == 98  # 96..100, five rows
    assert torch.allclose(pooled, means[:, None] + 1000 * means[None, :])


@pytest.mark.claim("F-08", "He initialisation, gain sqrt 2 before a ReLU and 1 elsewhere, biases 0", ours="the same")
def test_weights_are_he_initialised_and_biases_zero(paper):
    network, _, _, _ = paper
    linear = {id(network.segmentation_layer), id(network.branches[0].seventh)}
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == 24 + 7
    for layer in layers:
        weight = layer.weight.detach()
        fan_in = weight[0].numel()
        gain = 1 if id(layer) in linear else math.sqrt(2)
        ratio = float(weight.std(unbiased=False)) * math.sqrt(fan_in) / gain
        assert abs(ratio - 1) < 3.5 / math.sqrt(2 * weight.numel()), layer
        assert not layer.bias.any()


def test_unet_starts_alike_with_and_without_branches():
    states = [build(**{**SMALL, "n_branches": n}).state_dict() for n in (0, 1, 3)]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) and torch.equal(value, states[2][name])
    for name, value in states[1].items():
        assert torch.equal(value, states[2][name])  # and the first branch too
    other = build(seed=1, **{**SMALL, "n_branches": 0}).state_dict()
    name = "unet.encoder.0.0.0.weight"
    assert not torch.equal(states[0][name], other[name])


# Behaviour


@pytest.mark.claim("C3.1-15")
@pytest.mark.claim("F-11", "Only annotated images pass the 1x1 segmentation layer in training", ours="the first k + m")
def test_only_annotated_images_go_through_the_segmentation_layer():
    network = build(**SMALL)
    calls, (pixel_scores, image_scores) = record(network, torch.randn(10, 4, 48, 48), n_annotated=6)
    (seen,) = [arguments for layer, arguments, _ in calls if layer is network.segmentation_layer]
    assert len(seen) == len(pixel_scores) == 6 and len(image_scores) == 10


@pytest.mark.claim("C3.1-05")
def test_the_branch_reads_the_second_to_last_layer():
    network = build(**SMALL).eval()
    images = torch.randn(2, 4, 48, 48)
    with torch.no_grad():
        features = network.unet(images)
        pixel_scores, image_scores = network(images)
        assert torch.equal(pixel_scores, network.segmentation_layer(features))
        assert torch.equal(image_scores, torch.stack([b(features) for b in network.branches], dim=1))
        assert torch.equal(pixel_scores, network.pixel_scores(images))
        assert torch.equal(image_scores, network.image_scores(images))


@pytest.mark.claim(
    "C3.1-12",
    "Segmentation and classification share most layers; the image label trains encoder and decoder",
    ours="the classification loss alone reaches encoder, bottom and decoder",
)
def test_weak_images_reach_the_unet_through_the_branch():
    network = build(**SMALL)
    network(torch.randn(4, 4, 48, 48), n_annotated=0)[1].square().sum().backward()
    reached = [name for name, p in network.unet.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert {name.split(".")[0] for name in reached} == {"encoder", "bottom", "up", "decoder"}


@pytest.mark.parametrize(("padding", "shape"), [("valid", (92, 92)), ("same", (48, 48))])
def test_bfloat16_and_channels_last_give_close_float32_scores_and_finite_gradients(padding, shape):
    network = build(**{**SMALL, "padding": padding, "input_shape": shape}).eval()
    images = torch.randn(4, 4, *shape)
    with torch.no_grad():
        full = network(images, n_annotated=2)
    network = network.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(images.to(memory_format=torch.channels_last), n_annotated=2)
    for exact, rounded in zip(full, half, strict=True):
        assert exact.dtype == rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)  # autocast was at work
        assert float((exact - rounded).detach().abs().max()) < 0.05 * float(exact.abs().max())
    sum(scores.square().mean() for scores in half).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_without_a_branch_there_are_no_image_scores_and_other_sizes_are_segmented():
    network = build(**{**SMALL, "n_branches": 0}).eval()
    with torch.no_grad():
        pixel_scores, image_scores = network(torch.zeros(1, 4, 64, 40))
    assert pixel_scores.shape == (1, 4, 64, 40) and image_scores is None
    assert all(len(image_head(kind, 0, *WORKSHOP, None)) == 0 for kind in BRANCHES)


def test_impossible_networks_get_one_clear_sentence():
    for change, sentence in (
        ({"input_shape": (48, 50)}, "Input size 50 .* use 48 or 52"),
        ({"input_shape": (16, 16)}, "at least 17 pixels a side, found 16x16"),
        ({"width": 1}, "needs width >= 2"),
        ({"branch": "shalow"}, "Did you mean 'shallow'"),
        ({"pooling": "mxa"}, "pooling is 'mxa'.*Did you mean 'max'"),
        ({"branch": "shared_trunk", "n_branches": 1}, "shared_trunk.*found n_branches=1.*'deep_skip': use that"),
        ({"padding": "full"}, "padding is 'full'"),
        ({"n_maps": 1}, "n_maps is 1"),
        ({"n_branches": -1}, "n_branches is -1"),
    ):
        with pytest.raises(SettingError, match=sentence) as caught:
            build(**{**SMALL, **change})
        assert "\n" not in str(caught.value)


def test_wrong_images_get_one_clear_sentence():
    network = build(**SMALL).eval()
    for call, sentence in (
        (lambda: network(torch.zeros(1, 3, 48, 48)), "C = 4 sequences"),
        (lambda: network(torch.zeros(1, 4, 64, 64)), "expected 48x48"),
        (lambda: network.image_scores(torch.zeros(1, 4, 64, 64)), "expected 48x48"),
        (lambda: network(torch.zeros(2, 4, 48, 48), n_annotated=3), "expected 0 to 2"),
        (lambda: network.pixel_scores(torch.zeros(1, 4, 50, 48)), "use 48 or 52"),
        (lambda: build(**{**SMALL, "n_branches": 0}).image_scores(torch.zeros(1, 4, 48, 48)), "no classification"),
    ):
        with pytest.raises(SettingError, match=sentence), torch.no_grad():
            call()


# The other branches


CONV = 64 * 32 * 3 * 3 + 32 + 2 * 32  # kernel, bias, batch norm: 64 maps -> 32
FC = {(n, m): n * m + m for n, m in [(3872, 300), (300, 250), (250, 200), (200, 150), (150, 100), (300, 2)]}
TO_FIFTH = sum(FC[pair] for pair in [(3872, 300), (300, 250), (250, 200), (200, 150), (150, 100)])


def test_parameters_of_each_kind_of_branch_at_the_papers_size():
    paper = CONV + TO_FIFTH + 400 * 50 + 50 + 50 * 2 + 2
    assert paper == parameters(BRANCHES["deep_skip"](*PAPER_MAPS)) == 1_371_280
    assert parameters(BRANCHES["deep"](*PAPER_MAPS)) == paper - 300 * 50
    assert parameters(BRANCHES["shallow"](*PAPER_MAPS)) == CONV + FC[3872, 300] + FC[300, 2]
    assert parameters(SharedTrunk(3, *PAPER_MAPS)) == paper + 2 * (50 * 2 + 2)


@pytest.mark.parametrize("kind", BRANCHES)
def test_every_kind_gives_two_scores_per_subclass_and_starts_from_the_same_unet(kind):
    head = image_head(kind, 3, *WORKSHOP, None)  # 80x64 -> 10x8 -> 8x6, 8 maps
    assert len(head) == 3 and head(torch.randn(2, 16, 80, 64)).shape == (2, 3, 2)
    linear = [layer.in_features for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert linear[0] == 384 and len(linear) == {"shallow": 6, "shared_trunk": 7}.get(kind, 21)
    shared = {"cohort": "x", "preset": "tiny", "task": "multiclass"}
    paper = build_network(make_config(**shared), 4, (48, 48))
    for pooling in POOLINGS:
        other = build_network(make_config(**shared, branch=kind, pooling=pooling), 4, (48, 48))
        for part in ("unet", "segmentation_layer"):
            pairs = zip(getattr(paper, part).parameters(), getattr(other, part).parameters(), strict=True)
            assert all(torch.equal(one, two) for one, two in pairs)


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


def test_the_names_of_the_papers_weights_stay_so_that_recorded_weights_load():
    names = build(**SMALL).branches.state_dict()
    assert {"0.conv.0.weight", "2.first_to_fifth.4.bias", "1.sixth.weight"} <= names.keys()
    assert {name.split(".")[1] for name in names} == {"conv", "first_to_fifth", "sixth", "seventh"}


# Pooling


def reference(maps: np.ndarray, value, window: int = 8) -> np.ndarray:
    """`value` of every window of (H, W), cut out one after the other."""
    rows, columns = (range(0, size, window) for size in maps.shape)
    return np.array([[value(maps[r : r + window, c : c + window]) for c in columns] for r in rows])


@pytest.mark.parametrize("shape", [(101, 101), (5, 33)])
def test_pooling_equals_a_plain_reference_with_a_ragged_last_window(shape):
    maps = np.random.default_rng(0).normal(0, 2, (2, 3, *shape))
    values = {None: np.mean, "max": np.max, "lse": lambda part: np.log(np.exp(part).mean())}
    assert values.keys() == POOLINGS.keys()
    for name, value in values.items():
        there = torch.from_numpy(maps).float()
        found = POOLINGS[name](there, 8)
        expected = np.array([[reference(channel, value) for channel in image] for image in maps])
        assert found.shape == expected.shape == (2, 3, -(-shape[0] // 8), -(-shape[1] // 8))
        assert np.allclose(found, expected, atol=1e-5)
        turned = POOLINGS[name](there.contiguous(memory_format=torch.channels_last), 8)
        assert torch.allclose(turned, found, atol=1e-6)


def test_log_sum_exp_is_float32_under_autocast_and_finite_with_its_gradient_for_values_of_1000():
    maps = torch.randn(1, 2, 17, 23, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = lse_pool(maps, 8)
    assert pooled.dtype == torch.float32 and torch.equal(pooled, lse_pool(maps.float(), 8))
    for level in (1e3, -1e3):
        large = (level + torch.randn(1, 2, 17, 23)).requires_grad_()
        pooled = lse_pool(large, 8)
        pooled.sum().backward()
        assert bool(pooled.isfinite().all()) and bool(large.grad.isfinite().all())
        assert float(large.grad.sum()) == pytest.approx(pooled.numel(), rel=1e-3)  # a window's weights sum to 1
