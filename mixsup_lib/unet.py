"""The U-Net of section 3.1, up to its second to last layer, and the layers it is made of.

Shapes: B images, C sequences, H x W input pixels, H' x W' output pixels. Comments give the shapes of the
paper's network (300x300, width 64, depth 4, padding "valid").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.geometry import Geometry


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


class DoubleConv(nn.Sequential):
    """The two 3x3 convolutions of a U-Net level.

    (B, in_channels, H, W) -> (B, out_channels, H - 4, W - 4), or H x W with padding "same".
    """

    def __init__(self, in_channels: int, out_channels: int, padding: str) -> None:
        super().__init__(
            ConvBlock(in_channels, out_channels, 3, padding),
            ConvBlock(out_channels, out_channels, 3, padding),
        )


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

    out[2i] = x[i], out[2i+1] = (x[i] + x[i+1]) / 2, in both directions.

    The last row and column are replicated. The same as bilinear interpolation to 2 H - 1 with aligned
    corners, and one more row and column. Unlike half-pixel interpolation it lets every skip connection align
    exactly.
    """
    height, width = x.shape[-2:]
    x = F.interpolate(x, size=(2 * height - 1, 2 * width - 1), mode="bilinear", align_corners=True)
    return F.pad(x, (0, 1, 0, 1), mode="replicate")  # (B, n, 2 H, 2 W)


class UNet(nn.Module):
    """All layers of U-Net up to the second to last: (B, C, H, W) -> (B, width, H', W').

    The max-pools round their output size up, so `forward` takes every size that leaves a pixel; the sizes at
    which they need not are those of `Geometry.output_size`. Encoder maps are cropped where they align with
    the deep path (`Geometry.skip_crops`) and concatenated.
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


def he_init(layer: nn.Conv2d | nn.Linear, nonlinearity: str) -> None:
    """He initialisation: normal, fan-in, gain sqrt(2) before a ReLU ("relu") or 1 ("linear"); bias zero."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity=nonlinearity)
    nn.init.zeros_(layer.bias)
