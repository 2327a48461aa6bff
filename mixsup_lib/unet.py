"""The U-Net of section 3.1, up to its second to last layer, and the sizes it works with.

Shapes: B images, C sequences, H x W input pixels, H' x W' output pixels. Comments give the shapes of the
paper's network (300x300, width 64, depth 4, padding "valid").
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mixsup_lib.files import SettingError, nearest


class UNet(nn.Module):
    """All layers of the U-Net up to the second to last (section 3.1): (B, C, H, W) -> (B, width, H', W').

    Encoder maps are cropped where they align with the deep path (`Geometry.skip_crops`) and concatenated with
    it. The max-pools round their output size up, so `forward` takes every size that leaves a pixel; sizes that
    leave nothing to round are those of `Geometry.output_size`.
    """

    def __init__(self, in_channels: int, width: int, geometry: Geometry) -> None:
        super().__init__()
        padding = geometry.padding
        *widths, bottom = [width * 2**level for level in range(geometry.depth + 1)]  # 64, 128, 256, 512; 1024
        inputs = [in_channels, *widths[:-1]]
        self.crops = geometry.skip_crops()
        self.encoder = nn.ModuleList(DoubleConv(n, m, padding) for n, m in zip(inputs, widths, strict=True))
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.bottom = DoubleConv(widths[-1], bottom, padding)
        self.up = nn.ModuleList(Up(n, padding) for n in reversed(widths))
        self.decoder = nn.ModuleList(DoubleConv(2 * n, n, padding) for n in reversed(widths))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in self.encoder:
            x = level(x)  # (B, 64, 296, 296), (B, 128, 144, 144), (B, 256, 68, 68), (B, 512, 30, 30)
            skips.append(x)
            x = self.pool(x)  # (B, 64, 148, 148), (B, 128, 72, 72), (B, 256, 34, 34), (B, 512, 15, 15)
        x = self.bottom(x)  # (B, 1024, 11, 11)
        for up, decoder, crop in zip(self.up, self.decoder, self.crops, strict=True):
            x = up(x)  # (B, 512, 21, 21), (B, 256, 33, 33), (B, 128, 57, 57), (B, 64, 105, 105)
            skip = skips.pop()[:, :, crop : crop + x.shape[2], crop : crop + x.shape[3]]  # the size of x
            x = torch.cat([skip, x], dim=1)  # (B, 1024, 21, 21), ..., (B, 128, 105, 105)
            x = decoder(x)  # (B, 512, 17, 17), (B, 256, 29, 29), (B, 128, 53, 53), (B, 64, 101, 101)
        return x


class DoubleConv(nn.Sequential):
    """The two 3x3 convolutions of a level.

    (B, in_channels, H, W) -> (B, out_channels, H - 4, W - 4), or H x W with padding "same".
    """

    def __init__(self, in_channels: int, out_channels: int, padding: str) -> None:
        super().__init__(
            ConvBlock(in_channels, out_channels, 3, padding), ConvBlock(out_channels, out_channels, 3, padding)
        )


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU (section 3.1: in all convolutional layers but the final one).

    (B, in_channels, H, W) -> (B, out_channels, H - kernel + 1, W - kernel + 1), or H x W with padding "same".
    He initialisation of the kernel: normal, fan-in, gain sqrt(2); bias 0.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, padding: str) -> None:
        border = kernel // 2 if padding == "same" else 0
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, padding=border),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
        he_init(self[0], "relu")


def without_batch_norms(network: nn.Module) -> nn.Module:
    """A copy for evaluation alone, with every batch norm folded into the convolution before it.

    Its scores are those of `network` in evaluation mode but for rounding, and come a tenth sooner on a CPU.
    """
    network = copy.deepcopy(network).eval()
    for block in network.modules():
        if isinstance(block, ConvBlock):
            block[0] = fuse_conv_bn_eval(block[0].double(), block[1].double()).float()
            block[1] = nn.Identity()
    return network


class Up(nn.Module):
    """Upsampling to twice the size, then the up-convolution (2x2, batch normalisation, ReLU).

    (B, 2 n, H, W) -> (B, n, 2 H - 1, 2 W - 1), or 2 H x 2 W with padding "same".

    Not a transposed convolution: with one, 300 would become 116 instead of the paper's 101. With padding
    "same" the up-convolution is 3x3: a 2x2 one would shift the deep path.
    """

    def __init__(self, out_channels: int, padding: str) -> None:
        super().__init__()
        self.padding = padding
        self.conv = ConvBlock(2 * out_channels, out_channels, 2 if padding == "valid" else 3, padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding == "valid":
            x = upsample_exact(x)  # (B, 1024, 11, 11) -> (B, 1024, 22, 22)
        else:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)  # (B, 2 n, 2 H, 2 W)
        return self.conv(x)  # (B, 512, 21, 21)


def upsample_exact(x: Tensor) -> Tensor:
    """The authors' upsampling, (B, n, H, W) -> (B, n, 2 H, 2 W).

    In both directions out[2i] = x[i] and out[2i+1] = (x[i] + x[i+1]) / 2; the last row and column are repeated.
    Unlike half-pixel interpolation this lets every skip connection align exactly.
    """
    height, width = x.shape[-2:]
    x = F.interpolate(x, size=(2 * height - 1, 2 * width - 1), mode="bilinear", align_corners=True)  # 2 H - 1
    return F.pad(x, (0, 1, 0, 1), mode="replicate")  # (B, n, 2 H, 2 W)


def he_init(layer: nn.Conv2d | nn.Linear, nonlinearity: str) -> None:
    """He initialisation: normal, fan-in, gain sqrt(2) before a ReLU ("relu") or 1 ("linear"); bias zero."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity=nonlinearity)
    nn.init.zeros_(layer.bias)


PADDINGS = ("valid", "same")


@dataclass(frozen=True)
class Geometry:
    """Sizes and alignment of a U-Net with `depth` poolings and "valid" (unpadded) or "same" convolutions.

    All sizes are pixels along one axis: height and width are treated alike. Every level has two 3x3
    convolutions. The way down is a 2x2 max-pool whose output size is rounded up; the way up is an upsampling to
    twice the size and an up-convolution (section 3.1). The paper's network is `Geometry(depth=4,
    padding="valid")`: 300 -> 101.

    Departure: small networks use padded convolutions and an odd (3x3) up-convolution, which keeps every path
    aligned.
    Departure: skips are cropped where they align with the deep path; the authors' own crops are up to 15
    pixels off.

    Raises SettingError for a depth below 1 or an unknown padding.
    """

    depth: int
    padding: str

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise SettingError(
                f"padding is {self.padding!r}, expected one of {', '.join(PADDINGS)}." + nearest(self.padding, PADDINGS)
            )
        if self.depth < 1:
            raise SettingError(f"depth is {self.depth}, expected at least 1 pooling.")

    def layer_sizes(self, n: int) -> list[tuple[str, int]]:
        """Name and output size of every layer that an input of size `n` passes, from input to output.

        It also answers for sizes that `output_size` refuses, where the last pooling window is only partly
        filled: the authors tested at 350 -> 165. An input too small for the network gives negative sizes.
        """
        valid = self.padding == "valid"
        convolutions = 4 if valid else 0  # pixels that two 3x3 convolutions take off
        sizes = [("input", n)]
        for level in range(self.depth):
            n -= convolutions
            sizes.append((f"encoder {level}", n))
            n = -(-n // 2)
            sizes.append((f"pool {level}", n))
        n -= convolutions
        sizes.append(("bottom", n))
        for level in reversed(range(self.depth)):
            n *= 2
            sizes.append((f"upsample {level}", n))
            n -= 1 if valid else 0
            sizes.append((f"up-convolution {level}", n))
            n -= convolutions
            sizes.append((f"decoder {level}", n))
        return sizes

    def smallest_input(self, output: int) -> int:
        """The smallest input size whose output has at least `output` >= 1 pixels (valid, depth 4: 240 -> 444)."""
        step = 2**self.depth
        if self.padding == "same":
            return step * -(-output // step)
        bottom = 4 - -(output + 5 * (step - 1)) // step  # output = step * (bottom - 4) - 5 * (step - 1)
        return step * bottom + 4 * (step - 1)

    def output_size(self, n: int) -> int:
        """Size of the output for an input of size `n`.

        Valid, depth 4: 16b + 60 -> 16b - 139, always 199 less (300 -> 101, 444 -> 245); same: n, a multiple
        of 2^depth.

        Raises SettingError for a size at which some pooling would meet an odd number of pixels or nothing
        would be left, and names the admissible sizes around it.
        """
        step, smallest = 2**self.depth, self.smallest_input(1)
        if n < smallest or (n - smallest) % step:
            below = smallest + (n - smallest) // step * step
            choices = f"{smallest} or more" if n < smallest else f"{below} or {below + step}"
            raise SettingError(
                f"Input size {n} does not fit the network (depth {self.depth}, padding {self.padding!r}): "
                f"sizes are {smallest} plus a multiple of {step}, use {choices}."
            )
        return self.layer_sizes(n)[-1][1]

    def _alignment(self) -> tuple[tuple[int, ...], int]:
        """Skip crops (deep to shallow) and the input pixel of output pixel 0, of an unpadded network.

        Two numbers are followed through all layers: `position`, the input pixel on which the receptive field of
        a map's pixel 0 is centred, and `stride`, the distance of two neighbouring pixels of that map.
        """
        stride, position, encoder, crops = 1, 0.0, [], []
        for _ in range(self.depth):
            position += 2 * stride  # two unpadded 3x3 convolutions
            encoder.append(position)
            position += stride / 2  # max-pool: the middle of two pixels
            stride *= 2
        position += 2 * stride
        for skip in reversed(encoder):
            stride //= 2  # upsampling: pixel 0 stays where it is
            position += stride / 2  # unpadded 2x2 up-convolution
            crops.append(int((position - skip) / stride))
            position += 2 * stride
        return tuple(crops), int(position)

    def skip_crops(self) -> tuple[int, ...]:
        """Pixels cut off before each concatenated encoder map, deep to shallow (paper: 5, 19, 47, 103)."""
        return (0,) * self.depth if self.padding == "same" else self._alignment()[0]

    def window_start(self) -> int:
        """The input pixel on which output pixel 0 is centred: 107 (valid, depth 4), 0 (same)."""
        return 0 if self.padding == "same" else self._alignment()[1]

    def training_frame(self, slice_size: int, input_size: int) -> Frame:
        """Centre the network's output on the slice: 240 in 300 is padded by 38 and 22, output on 69..169.

        Departure: the authors pad by 30 on each side; with aligned skips the output is centred by 38 before
        and 22 after.

        Raises SettingError if the network does not take `input_size` or the slice does not fit into it.
        """
        output, start = self.output_size(input_size), self.window_start()
        first = (slice_size - output) // 2
        frame = Frame(start - first, input_size - slice_size - start + first, first, first + output)
        if min(frame.pad_before, frame.pad_after) < 0:
            raise SettingError(
                f"A slice of {slice_size} pixels does not fit into an input of {input_size} "
                f"(depth {self.depth}, padding {self.padding!r}): use an input of at least "
                f"{self._smallest_training_input(slice_size)}."
            )
        return frame

    def _smallest_training_input(self, slice_size: int) -> int:
        size = self.smallest_input(1)
        while True:
            first = (slice_size - self.output_size(size)) // 2
            if 0 <= self.window_start() - first <= size - slice_size:
                return size
            size += 2**self.depth

    def whole_slice_frame(self, slice_size: int) -> Frame:
        """The smallest input whose output covers the whole slice (paper: 444 for 240; same: next multiple).

        Departure: the authors test at 350, which covers 165x165 pixels only; here every pixel of the slice is
        predicted.
        """
        return self.training_frame(slice_size, self.smallest_input(slice_size))


@dataclass(frozen=True)
class Frame:
    """How a slice lies in the network along one axis (lengths in pixels).

    `pad_before` and `pad_after` zeros around the slice make the network's input. The network's output covers the
    slice pixels `first` .. `last - 1`. Where it is larger than the slice, `first` is negative and `last` exceeds
    the slice's size: output index `-first` is slice pixel 0, and what lies outside the slice is background.
    """

    pad_before: int
    pad_after: int
    first: int
    last: int


def padded(images: Tensor, frames: Sequence[Frame]) -> Tensor:
    """Slices (B, C, H, W) with the zeros of their frames (rows, columns) around them, in channels-last memory."""
    rows, columns = frames
    border = (columns.pad_before, columns.pad_after, rows.pad_before, rows.pad_after)
    return F.pad(images, border).contiguous(memory_format=torch.channels_last)  # (B, C, H + pads, W + pads)
