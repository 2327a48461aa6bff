"""The network of section 3: sizes, counts, alignment of every path, initialisation and the branches."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mixsup_lib.files import SettingError
from mixsup_lib.model import DeepSkipBranch, MixedSupervisionUNet
from mixsup_lib.unet import Geometry, UNet, upsample_exact

PAPER = {
    "in_channels": 4,
    "n_maps": 2,
    "n_branches": 1,
    "width": 64,
    "depth": 4,
    "padding": "valid",
    "input_shape": (300, 300),
}
SMALL = {
    **PAPER,
    "n_branches": 3,
    "n_maps": 4,
    "width": 4,
    "depth": 2,
    "padding": "same",
    "input_shape": (48, 48),
}
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Linear)


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


def test_the_geometry_tells_the_sizes_of_the_network(paper):
    _, shapes, _, _ = paper
    sizes = {out[2] for _, _, out in shapes if len(out) == 4}
    assert {n for name, n in Geometry(4, "valid").layer_sizes(300)[1:] if "upsample" not in name} <= sizes


def test_a_transposed_convolution_would_give_116():
    unet = UNet(1, 2, Geometry(4, "valid"))
    unet.up = nn.ModuleList(nn.ConvTranspose2d(2 * n, n, 2, stride=2) for n in (16, 8, 4, 2))
    with torch.no_grad():
        assert unet(torch.zeros(1, 1, 300, 300)).shape[2:] == (116, 116)


@pytest.mark.parametrize("b", [9, 10, 15, 24])
def test_an_input_of_16b_plus_60_gives_16b_minus_139_in_the_network(b):
    network = build(**{**PAPER, "width": 2, "n_branches": 0, "in_channels": 1})
    with torch.no_grad():
        scores = network.pixel_scores(torch.zeros(1, 1, 16 * b + 60, 204))
    assert scores.shape == (1, 2, 16 * b - 139, 5)


def test_pools_round_up_so_that_350_gives_165():
    unet = UNet(1, 1, Geometry(4, "valid"))
    with torch.no_grad():
        assert unet(torch.zeros(1, 1, 350, 350)).shape[2:] == (165, 165)


def test_a_half_filled_pooling_window_takes_the_maximum_of_what_exists():
    row = torch.tensor([1.0, 2, 4, 3, -5]).reshape(1, 1, 1, 5).expand(1, 1, 5, 5)
    assert UNet(1, 1, Geometry(1, "valid")).pool(row)[0, 0, 0].tolist() == [2, 4, -5]


def test_unet_has_31_046_082_parameters(paper):
    network, _, _, _ = paper
    assert parameters(network.unet) + parameters(network.segmentation_layer) == 31_046_082


def test_standard_supervision_is_the_same_unet_without_branch():
    network = build(**{**PAPER, "n_branches": 0})
    assert parameters(network) == 31_046_082 and len(network.branches) == 0


def test_one_branch_has_1_371_280_parameters(paper):
    network, _, _, _ = paper
    assert parameters(network.branches[0]) == parameters(network.branches) == 1_371_280


def test_the_branch_goes_from_101_to_13_to_11_to_3872(paper):
    _, shapes, _, image_scores = paper
    branch = shapes[-10:]
    assert branch[0][1:] == ((1, 64, 13, 13), (1, 32, 11, 11))
    assert branch[3][1] == (1, 3872)
    assert image_scores.shape == (1, 1, 2)


def test_fully_connected_widths_are_300_250_200_150_100_then_400_to_50_to_2(paper):
    network, _, _, _ = paper
    widths = [(m.in_features, m.out_features) for m in network.branches.modules() if isinstance(m, nn.Linear)]
    assert widths == [(3872, 300), (300, 250), (250, 200), (200, 150), (150, 100), (400, 50), (50, 2)]


def test_multiclass_has_4_maps_and_three_whole_branches():
    network = build(**SMALL)
    pixel_scores, image_scores = network(torch.randn(2, 4, 48, 48))
    assert pixel_scores.shape == (2, 4, 48, 48) and image_scores.shape == (2, 3, 2)
    one = build(**{**SMALL, "n_branches": 1})
    assert parameters(network.branches) == 3 * parameters(one.branches)
    owners = [{id(p) for p in branch.parameters()} for branch in network.branches]
    assert not owners[0] & owners[1] | owners[0] & owners[2] | owners[1] & owners[2]


@pytest.mark.parametrize(
    ("width", "depth", "padding", "shape", "inputs"),
    [
        (16, 3, "same", (80, 64), 8 * 8 * 6),
        (4, 2, "same", (48, 48), 2 * 4 * 4),
        (8, 2, "valid", (108, 92), 4 * 7 * 5),
    ],
)
def test_small_networks_work_at_any_width_depth_and_shape(width, depth, padding, shape, inputs):
    settings = {**SMALL, "width": width, "depth": depth, "padding": padding, "input_shape": shape}
    network = build(**settings)
    pixel_scores, image_scores = network(torch.randn(3, 4, *shape), n_annotated=2)
    geometry = Geometry(depth, padding)
    assert pixel_scores.shape == (2, 4, *(geometry.output_size(n) for n in shape))
    assert image_scores.shape == (3, 3, 2)
    assert network.branches[0].first_to_fifth[0].in_features == inputs


# Alignment


class OnePath(nn.Module):
    """Stands in front of a decoder and keeps one half of the concatenated maps: skip or deep."""

    def __init__(self, decoder, keep_skip):
        super().__init__()
        self.decoder, self.keep_skip = decoder, keep_skip

    def forward(self, x):
        mask = torch.zeros_like(x)
        half = x.shape[1] // 2
        mask[:, :half] = self.keep_skip
        mask[:, half:] = not self.keep_skip
        return self.decoder(x * mask)


def linear_unet(depth, padding):
    """A U-Net of width 1 whose kernels are uniform and positive and whose pools take means.

    On positive input all ReLUs are open, so the gradient of an output pixel is its receptive field.
    """
    unet = UNet(1, 1, Geometry(depth, padding)).double().eval()
    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    unet.pool = nn.AvgPool2d(2, ceil_mode=True)
    return unet


def centroid(unet, path, size, pixel):
    """Centroid (row, column) of a receptive field through one path: a skip level or "deep"."""
    unet = copy.deepcopy(unet)
    depth = len(unet.decoder)
    for index, decoder in enumerate(unet.decoder):  # deep to shallow
        level = depth - 1 - index
        unet.decoder[index] = OnePath(decoder, keep_skip=level == path)
    images = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    output = unet(images)
    (gradient,) = torch.autograd.grad(output[0, 0, pixel[0], pixel[1]], images)
    field = gradient[0, 0]
    assert float(field.min()) >= 0 and float(field.sum()) > 0
    positions = torch.arange(size, dtype=torch.float64)
    rows = float((field.sum(dim=1) * positions).sum() / field.sum())
    columns = float((field.sum(dim=0) * positions).sum() / field.sum())
    return rows, columns


CASES = [
    (4, "valid", 300, (50, 47)),
    (4, "valid", 300, (53, 56)),
    (3, "valid", 148, (30, 33)),
    (2, "valid", 92, (20, 23)),
    (4, "same", 256, (128, 123)),
    (3, "same", 160, (80, 77)),
    (2, "same", 80, (40, 41)),
]


@pytest.mark.parametrize(("depth", "padding", "size", "pixel"), CASES)
def test_the_receptive_field_of_every_path_is_centred_within_half_a_pixel(depth, padding, size, pixel):
    unet, start = linear_unet(depth, padding), Geometry(depth, padding).window_start()
    for path in (*range(depth), "deep"):
        found = centroid(unet, path, size, pixel)
        offsets = [where - index - start for where, index in zip(found, pixel, strict=True)]
        assert max(map(abs, offsets)) < 0.5, path
        assert max(map(abs, offsets)) < 0.01, path  # in fact every path is exact


def test_the_authors_crops_leave_the_deep_path_15_pixels_off():
    unet = linear_unet(4, "valid")
    unet.crops = (4, 16, 40, 88)
    rows = {path: centroid(unet, path, 300, (50, 50))[0] - 50 for path in (0, 1, 2, 3, "deep")}
    assert rows[0] == pytest.approx(92, abs=0.01)  # the authors' label window
    assert rows["deep"] - rows[0] == pytest.approx(15, abs=0.01)


def test_half_pixel_upsampling_would_put_skips_up_to_4_pixels_off(monkeypatch):
    def half_pixel(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    monkeypatch.setattr("mixsup_lib.unet.upsample_exact", half_pixel)
    unet = linear_unet(4, "valid")
    assert centroid(unet, "deep", 300, (50, 50))[0] - 50 == pytest.approx(99.5, abs=0.01)
    deepest = centroid(unet, 3, 300, (50, 50))[0] - 50
    assert abs(deepest - 99.5) == pytest.approx(4, abs=0.01)


@pytest.mark.parametrize(("depth", "size", "shift"), [(3, 160, 3.5), (4, 256, 7.5)])
def test_a_2x2_up_convolution_padded_on_one_side_would_shift_the_deep_path(depth, size, shift):
    unet = linear_unet(depth, "same")
    for up in unet.up:
        with torch.no_grad():
            up.conv[0].weight[:, :, 0, :] = 0
            up.conv[0].weight[:, :, :, 0] = 0
    found = centroid(unet, "deep", size, (size // 2, size // 2))[0] - size // 2
    assert found == pytest.approx(shift, abs=0.01)


def test_upsampling_is_exactly_the_authors():
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = x
    for axis in (2, 3):
        n = expected.shape[axis]
        following = expected.index_select(axis, torch.tensor([*range(1, n), n - 1]))
        between = (expected + following) / 2  # the last one is replicated
        expected = torch.stack([expected, between], dim=axis + 1).flatten(axis, axis + 1)
    assert torch.allclose(upsample_exact(x), expected, atol=1e-14)
    assert upsample_exact(x[..., :1, :1]).shape == (2, 3, 2, 2)


# Layers


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


def test_mean_pool_averages_what_exists_in_the_last_window():
    branch = DeepSkipBranch(2, (101, 101)).eval()
    rows = torch.arange(101.0)
    maps = rows.reshape(1, 1, -1, 1) + 1000 * rows.reshape(1, 1, 1, -1)  # (1, 1, 101, 101)
    calls, _ = record(branch, maps.expand(1, 2, 101, 101))
    pooled = calls[0][1][0, 0]
    means = torch.tensor([rows[8 * i : 8 * i + 8].mean() for i in range(13)])
    assert float(means[-1]) == 98  # 96..100, five rows
    assert torch.allclose(pooled, means[:, None] + 1000 * means[None, :])


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


def test_only_annotated_images_go_through_the_segmentation_layer():
    network = build(**SMALL)
    calls, (pixel_scores, image_scores) = record(network, torch.randn(10, 4, 48, 48), n_annotated=6)
    (seen,) = [arguments for layer, arguments, _ in calls if layer is network.segmentation_layer]
    assert len(seen) == len(pixel_scores) == 6 and len(image_scores) == 10


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


def test_weak_images_reach_the_unet_through_the_branch():
    network = build(**SMALL)
    network(torch.randn(4, 4, 48, 48), n_annotated=0)[1].square().sum().backward()
    reached = [
        name for name, p in network.unet.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    ]
    assert {name.split(".")[0] for name in reached} == {"encoder", "bottom", "up", "decoder"}


def test_scores_are_float32_under_autocast_and_close_to_full_precision():
    network = build(**SMALL).eval()
    images = torch.randn(2, 4, 48, 48)
    with torch.no_grad():
        full = network(images)
        fast = network.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            half = fast(images.to(memory_format=torch.channels_last))
    for exact, rounded in zip(full, half, strict=True):
        assert exact.dtype == rounded.dtype == torch.float32
        assert not torch.equal(exact, rounded)  # autocast was at work
        assert float((exact - rounded).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_step_in_bfloat16_and_channels_last_gives_finite_gradients(padding):
    shape = (92, 92) if padding == "valid" else (48, 48)
    network = build(**{**SMALL, "padding": padding, "input_shape": shape}).to(
        memory_format=torch.channels_last
    )
    images = torch.randn(4, 4, *shape).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        pixel_scores, image_scores = network(images, n_annotated=2)
    (pixel_scores.square().mean() + image_scores.square().mean()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_image_scores_are_none_without_a_branch():
    network = build(**{**SMALL, "n_branches": 0})
    pixel_scores, image_scores = network(torch.randn(2, 4, 48, 48))
    assert pixel_scores.shape == (2, 4, 48, 48) and image_scores is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"input_shape": (48, 50)}, "Input size 50 .* use 48 or 52"),
        ({"input_shape": (16, 16)}, "at least 17 pixels a side, found 16x16"),
        ({"width": 1}, "needs width >= 2"),
        ({"branch": "deep_skp"}, "Did you mean 'deep_skip'"),
        ({"padding": "full"}, "padding is 'full'"),
        ({"n_maps": 1}, "n_maps is 1"),
        ({"n_branches": -1}, "n_branches is -1"),
    ],
)
def test_impossible_networks_get_one_clear_sentence(change, sentence):
    with pytest.raises(SettingError, match=sentence):
        build(**{**SMALL, **change})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda n: n(torch.zeros(1, 3, 48, 48)), "C = 4 sequences"),
        (lambda n: n(torch.zeros(1, 4, 64, 64)), "expected 48x48"),
        (lambda n: n.image_scores(torch.zeros(1, 4, 64, 64)), "expected 48x48"),
        (lambda n: n(torch.zeros(2, 4, 48, 48), n_annotated=3), "expected 0 to 2"),
        (lambda n: n.pixel_scores(torch.zeros(1, 4, 50, 48)), "use 48 or 52"),
        (
            lambda n: build(**{**SMALL, "n_branches": 0}).image_scores(torch.zeros(1, 4, 48, 48)),
            "no classification",
        ),
    ],
)
def test_wrong_images_get_one_clear_sentence(call, sentence):
    network = build(**SMALL).eval()
    with pytest.raises(SettingError, match=sentence), torch.no_grad():
        call(network)


def test_segment_takes_other_sizes_than_training():
    network = build(**SMALL).eval()
    with torch.no_grad():
        assert network.pixel_scores(torch.zeros(1, 4, 64, 40)).shape == (1, 4, 64, 40)
