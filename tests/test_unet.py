"""The U-Net of section 3.1: sizes as whole numbers and in the network, counts, and the alignment of every path."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mixsup_lib.files import SettingError
from mixsup_lib.unet import Frame, Geometry, UNet, upsample_exact, without_batch_norms

PAPER = Geometry(depth=4, padding="valid")


@pytest.mark.claim(
    "F-01",
    "Sizes down and up for 300: bottom 15 -> 11, then 22-21-17, 34-33-29, 58-57-53, 106-105-101",
    ours="the same; a transposed convolution would give 116",
)
def test_300_becomes_101_layer_by_layer():
    names, sizes = zip(*PAPER.layer_sizes(300), strict=True)
    assert sizes[:11] == (300, 296, 148, 144, 72, 68, 34, 30, 15, 11, 22)
    assert sizes[11:] == (21, 17, 34, 33, 29, 58, 57, 53, 106, 105, 101)
    assert names[:3] == ("input", "encoder 0", "pool 0") and names[-12:-10] == ("upsample 3", "up-convolution 3")


@pytest.mark.claim(
    "F-03", "Valid inputs are 16b + 60, the output is 199 smaller; 444 covers the whole slice with 245", ours="the same"
)
def test_valid_sizes_are_16b_plus_60_and_give_16b_minus_139():
    valid = {16 * b + 60: 16 * b - 139 for b in range(9, 60)}
    for size, output in valid.items():
        assert PAPER.output_size(size) == output == size - 199
    for size in set(range(-20, 1000)) - valid.keys():
        with pytest.raises(SettingError):
            PAPER.output_size(size)
    unet = UNet(1, 2, PAPER)
    for b in (9, 10, 15):
        with torch.no_grad():
            assert unet(torch.zeros(1, 1, 16 * b + 60, 204)).shape == (1, 2, 16 * b - 139, 5)


@pytest.mark.claim(
    "F-04", "Skip crops 5, 19, 47, 103 align every path; the output starts at padded pixel 107", ours="the same"
)
def test_skip_crops_are_5_19_47_103_and_the_output_window_of_300_is_107_to_207():
    assert PAPER.skip_crops() == (5, 19, 47, 103)
    assert (PAPER.window_start(), PAPER.window_start() + PAPER.output_size(300) - 1) == (107, 207)


@pytest.mark.claim(
    "F-05", "A slice of 240 is padded by 38 before and 22 after, the loss sees pixels 69 to 169", ours="the same"
)
def test_240_in_300_is_padded_by_38_and_22():
    assert PAPER.training_frame(240, 300) == Frame(pad_before=38, pad_after=22, first=69, last=170)


@pytest.mark.claim("F-03")
def test_one_pass_at_444_covers_the_whole_slice():
    frame = PAPER.whole_slice_frame(240)
    assert frame.pad_before + 240 + frame.pad_after == 444
    assert 107 <= frame.pad_before <= 112
    assert frame.first <= 0 and frame.last >= 240


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_frames_are_consistent_at_every_slice_size(padding):
    for depth in range(1, 6):
        geometry = Geometry(depth, padding)
        for slice_size in (17, 64, 155, 240, 256, 301):
            frame = geometry.whole_slice_frame(slice_size)
            size = frame.pad_before + slice_size + frame.pad_after
            assert min(frame.pad_before, frame.pad_after) >= 0
            assert frame.last - frame.first == geometry.output_size(size)
            assert frame.first + frame.pad_before == geometry.window_start()  # first output pixel, in input pixels
            assert frame.first <= 0 and frame.last >= slice_size
            assert abs(-frame.first - (frame.last - slice_size)) <= 1  # centred
            assert size == geometry.smallest_input(slice_size)
            smaller = size - 2**depth
            if smaller >= geometry.smallest_input(1):
                assert geometry.output_size(smaller) < slice_size


def test_same_padding_keeps_the_size_crops_nothing_and_pads_symmetrically():
    geometry = Geometry(4, "same")
    assert [geometry.output_size(n) for n in (16, 64, 80, 96)] == [16, 64, 80, 96]
    assert geometry.skip_crops() == (0, 0, 0, 0) and geometry.window_start() == 0
    assert geometry.whole_slice_frame(240) == Frame(0, 0, 0, 240)
    assert geometry.whole_slice_frame(90) == Frame(pad_before=3, pad_after=3, first=-3, last=93)
    assert geometry.training_frame(90, 128) == Frame(pad_before=19, pad_after=19, first=-19, last=109)


def test_impossible_sizes_get_one_clear_sentence():
    for call, sentence in (
        (lambda: Geometry(4, "vaild"), "Did you mean 'valid'"),
        (lambda: Geometry(0, "same"), "depth is 0"),
        (lambda: PAPER.output_size(301), "Input size 301 .* use 300 or 316"),
        (lambda: PAPER.output_size(188), "use 204 or more"),
        (lambda: Geometry(3, "same").output_size(100), "use 96 or 104"),
        (lambda: Geometry(3, "same").training_frame(100, 96), "at least 104"),
        (lambda: PAPER.training_frame(320, 300), "at least 348"),
        (lambda: PAPER.training_frame(240, 310), "use 300 or 316"),
        (lambda: PAPER.training_frame(320, 332), "at least 348"),
    ):
        with pytest.raises(SettingError, match=sentence):
            call()
    assert PAPER.training_frame(320, 348).pad_after >= 0  # the size the sentence names


# The network


@pytest.mark.claim("F-01")
def test_a_transposed_convolution_would_give_116():
    unet = UNet(1, 2, Geometry(4, "valid"))
    unet.up = nn.ModuleList(nn.ConvTranspose2d(2 * n, n, 2, stride=2) for n in (16, 8, 4, 2))
    with torch.no_grad():
        assert unet(torch.zeros(1, 1, 300, 300)).shape[2:] == (116, 116)


def test_pools_round_up_and_take_the_maximum_of_what_exists():
    row = torch.tensor([1.0, 2, 4, 3, -5]).reshape(1, 1, 1, 5).expand(1, 1, 5, 5)
    assert UNet(1, 1, Geometry(1, "valid")).pool(row)[0, 0, 0].tolist() == [2, 4, -5]
    with torch.no_grad():
        assert UNet(1, 1, PAPER)(torch.zeros(1, 1, 350, 350)).shape[2:] == (165, 165)  # the authors' 350
    assert PAPER.layer_sizes(350)[-1] == ("decoder 0", 165)


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


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_network_without_batch_norms_gives_the_same_maps(padding):
    torch.manual_seed(0)
    unet = UNet(2, 4, Geometry(2, padding)).eval()
    norms = [module for module in unet.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
            values.uniform_(0.5, 2)
    folded, images = without_batch_norms(unet), torch.rand(2, 2, 60, 60)
    with torch.inference_mode():
        maps = unet(images)
        assert torch.allclose(folded(images), maps, rtol=1e-5, atol=1e-5) and maps.std() > 0.1
    assert len(norms) == 12 and not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


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


@pytest.mark.claim(
    "C3.1-02",
    "It extends U-Net: an encoder and a decoder, joined by concatenations at the same scale",
    ours="4 poolings, 4 concatenations, every path aligned to within half a pixel",
)
@pytest.mark.claim("F-04")
@pytest.mark.claim("F-06", "Padded small networks are aligned too", ours="centroid of every path within half a pixel")
@pytest.mark.parametrize(
    ("depth", "padding", "size", "pixel"),
    [(4, "valid", 300, (50, 47)), (2, "valid", 92, (20, 23)), (4, "same", 256, (128, 123)), (2, "same", 80, (40, 41))],
)
def test_the_receptive_field_of_every_path_is_centred_within_half_a_pixel(depth, padding, size, pixel):
    unet, start = linear_unet(depth, padding), Geometry(depth, padding).window_start()
    for path in (*range(depth), "deep"):
        found = centroid(unet, path, size, pixel)
        offsets = [where - index - start for where, index in zip(found, pixel, strict=True)]
        assert max(map(abs, offsets)) < 0.01, path  # half a pixel is allowed, every path is exact


def test_the_authors_crops_leave_the_deep_path_15_pixels_off():
    unet = linear_unet(4, "valid")
    unet.crops = (4, 16, 40, 88)
    rows = {path: centroid(unet, path, 300, (50, 50))[0] - 50 for path in (0, 1, 2, 3, "deep")}
    assert rows[0] == pytest.approx(92, abs=0.01)  # the authors' label window
    assert rows["deep"] - rows[0] == pytest.approx(15, abs=0.01)


@pytest.mark.claim("F-06")
def test_a_2x2_up_convolution_padded_on_one_side_would_shift_the_deep_path():
    unet = linear_unet(3, "same")
    for up in unet.up:
        with torch.no_grad():
            up.conv[0].weight[:, :, 0, :] = 0
            up.conv[0].weight[:, :, :, 0] = 0
    assert centroid(unet, "deep", 160, (80, 80))[0] - 80 == pytest.approx(3.5, abs=0.01)
