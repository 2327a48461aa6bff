"""The network of section 3: the U-Net extended by image-level classification branches.

The paper's branch comes with the variants that it can be compared with. Shapes: B images, C sequences, H x W
input pixels, H' x W' output pixels, K classes, R branches, A annotated images. Comments give the shapes of the
paper's network (300x300, width 64, depth 4, padding "valid").
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.files import SettingError, nearest
from mixsup_lib.unet import ConvBlock, Geometry, UNet, he_init


class MixedSupervisionUNet(nn.Module):
    """U-Net with image-level classification branches on its second to last layer (sections 3.1 and 3.2).

    All scores are logits in float32, also under autocast. Weights are He-initialised, biases zero. The U-Net is
    built before the branches: one torch seed gives the same U-Net with and without them, so both arms start
    alike.

    Args:
        in_channels: C sequences.
        n_maps: K pixel classes, 2 for a binary task and 4 for multiclass.
        n_branches: R; 0 for standard supervision, 1 for a binary task, 3 for multiclass (one per subclass).
        width: maps of the first level; every one of the `depth` poolings doubles them.
        padding: "valid" (the paper: 300 -> 101) or "same".
        input_shape: (H, W) of training images, which fixes the branch's first fully-connected layer.
        branch: the kind of branch, a key of `BRANCHES`.
        pooling: at the branch's entry, a key of `POOLINGS`; None is the paper's mean.

    Raises SettingError for a size that does not fit the network, a number out of range, an unknown branch or
    pooling, or a trunk shared by fewer than two branches.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        n_maps: int,
        n_branches: int,
        width: int,
        depth: int,
        padding: str,
        input_shape: tuple[int, int],
        branch: str = "deep_skip",
        pooling: str | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("in_channels", in_channels, 1),
            ("n_maps", n_maps, 2),
            ("n_branches", n_branches, 0),
            ("width", width, 1),
        ):
            if value < least:
                raise SettingError(f"{name} is {value}, expected at least {least}.")
        self.geometry = Geometry(depth=depth, padding=padding)
        self.in_channels = in_channels
        self.input_shape = (int(input_shape[0]), int(input_shape[1]))
        map_shape = tuple(self.geometry.output_size(n) for n in self.input_shape)
        self.unet = UNet(in_channels, width, self.geometry)
        self.segmentation_layer = nn.Conv2d(width, n_maps, 1)
        he_init(self.segmentation_layer, "linear")
        self.branches = image_head(branch, n_branches, width, map_shape, pooling)

    def forward(self, images: Tensor, n_annotated: int | None = None) -> tuple[Tensor, Tensor | None]:
        """One training pass: (B, C, H, W) -> pixel scores (A, K, H', W') and image scores (B, R, 2).

        Only the first A = `n_annotated` images (None: all) go through the segmentation layer; all B images go
        through the branches. A network without branches gives None for the image scores.

        Raises SettingError if the images do not have `input_shape` (R = 0: a size that does not fit the
        network), or n_annotated is not within 0..B.
        """
        n_annotated = len(images) if n_annotated is None else n_annotated
        if not 0 <= n_annotated <= len(images):
            raise SettingError(
                f"n_annotated is {n_annotated}, expected 0 to {len(images)} (the batch has that many images)."
            )
        self._check(images, self.input_shape if self.branches else None)
        features = self.unet(images)  # (B, 64, 101, 101)
        pixel_scores = self.segmentation_layer(features[:n_annotated])  # (A, K, 101, 101)
        return pixel_scores.float(), self.branches(features).float() if self.branches else None

    def pixel_scores(self, images: Tensor) -> Tensor:
        """Pixel scores alone, (B, C, H, W) -> (B, K, H', W'), at any size the geometry admits (444 -> 245)."""
        self._check(images)
        return self.segmentation_layer(self.unet(images)).float()

    def image_scores(self, images: Tensor) -> Tensor:
        """Image scores alone, (B, C, H, W) of `input_shape` -> (B, R, 2).

        Raises SettingError if the network has no branch.
        """
        if not self.branches:
            raise SettingError(
                "This network has no classification branch (n_branches=0): it gives `pixel_scores` only."
            )
        self._check(images, self.input_shape)
        return self.branches(self.unet(images)).float()

    def _check(self, images: Tensor, shape: tuple[int, int] | None = None) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise SettingError(
                f"Images have shape {tuple(images.shape)}, expected (B, C, H, W) with C = {self.in_channels} sequences."
            )
        if shape is not None and tuple(images.shape[2:]) != shape:
            raise SettingError(
                f"Images are {images.shape[2]}x{images.shape[3]}, expected {shape[0]}x{shape[1]}: the branch's "
                "first fully-connected layer fixes the size; `pixel_scores` takes other sizes."
            )
        for n in images.shape[2:]:
            self.geometry.output_size(n)


def image_head(
    kind: str, n_branches: int, width: int, map_shape: tuple[int, int], pooling: str | None
) -> OwnBranches | SharedTrunk:
    """From the maps (B, width, H', W') to the image scores (B, R, 2); without branches it is empty.

    Raises SettingError for an unknown kind, and what the kind itself raises.
    """
    if kind not in BRANCHES:
        raise SettingError(f"branch is {kind!r}, expected one of {', '.join(BRANCHES)}." + nearest(kind, BRANCHES))
    if kind == "shared_trunk" and n_branches:
        return SharedTrunk(n_branches, width, map_shape, pooling)
    return OwnBranches(BRANCHES[kind](width, map_shape, pooling) for _ in range(n_branches))


class OwnBranches(nn.ModuleList):
    """R whole branches side by side, as in the paper (section 3.2): (B, width, H', W') -> (B, R, 2)."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([branch(features) for branch in self], dim=1)  # R times (B, 2) -> (B, R, 2)


class Entry(nn.Module):
    """What every branch begins with: pool 8x8, one 3x3 convolution to half the maps, all in one row.

    `pooling` is a key of `POOLINGS`; the paper's, None, is the mean.

    Raises SettingError if the maps are fewer than 17 pixels a side, the width is below 2, or pooling is unknown.
    """

    POOL = 8

    def __init__(self, width: int, map_shape: tuple[int, int], pooling: str | None = None) -> None:
        super().__init__()
        rows, columns = (-(-n // self.POOL) - 2 for n in map_shape)  # 101 -> 13 -> 11
        if min(rows, columns) < 1:
            raise SettingError(
                f"The classification branch needs output maps of at least {2 * self.POOL + 1} pixels a side, "
                f"found {map_shape[0]}x{map_shape[1]}: use a larger input (in a run a larger window), or no branch "
                "(supervision=standard)."
            )
        if width < 2:
            raise SettingError(
                f"The classification branch halves the number of maps and needs width >= 2, found {width}."
            )
        if pooling not in POOLINGS:
            raise SettingError(
                f"pooling is {pooling!r}, expected {', '.join(map(str, POOLINGS))} (None is the mean)."
                + nearest(pooling, filter(None, POOLINGS))
            )
        self.pooling = POOLINGS[pooling]
        self.conv = ConvBlock(width, width // 2, 3, "valid")
        self.n_outputs = width // 2 * rows * columns  # 3872

    def enter(self, features: Tensor) -> Tensor:
        """(B, width, H', W') -> (B, n_outputs)."""
        x = self.pooling(features, self.POOL)  # (B, 64, 13, 13)
        return self.conv(x).flatten(1)  # (B, 32, 11, 11) -> (B, 3872)


class DeepSkipBranch(Entry):
    """The paper's classification branch (section 3.1): (B, width, H', W') -> (B, 2), absent and present.

    Mean-pool 8x8 (the last window averages what exists), one 3x3 convolution to half the maps, then seven
    fully-connected layers with ReLU after each but the last. The sixth sees the first's outputs beside the
    fifth's.
    """

    WIDTHS = (300, 250, 200, 150, 100)
    SKIP = True

    def __init__(self, width: int, map_shape: tuple[int, int], pooling: str | None = None, outputs: int = 2) -> None:
        super().__init__(width, map_shape, pooling)
        inputs = (self.n_outputs, *self.WIDTHS)  # 3872, 300, 250, 200, 150, 100
        pairs = zip(inputs[:-1], self.WIDTHS, strict=True)
        self.first_to_fifth = nn.ModuleList(nn.Linear(n, m) for n, m in pairs)
        self.sixth = nn.Linear(self.WIDTHS[-1] + (self.WIDTHS[0] if self.SKIP else 0), 50)
        self.seventh = nn.Linear(50, outputs)
        for layer in (*self.first_to_fifth, self.sixth):
            he_init(layer, "relu")
        he_init(self.seventh, "linear")

    def forward(self, features: Tensor) -> Tensor:
        x = self.enter(features)  # (B, 3872)
        outputs = []
        for layer in self.first_to_fifth:
            x = F.relu(layer(x))  # (B, 300), (B, 250), (B, 200), (B, 150), (B, 100)
            outputs.append(x)
        if self.SKIP:
            x = torch.cat([outputs[0], x], dim=1)  # (B, 400)
        x = F.relu(self.sixth(x))  # (B, 50)
        return self.seventh(x)  # (B, 2)


class DeepBranch(DeepSkipBranch):
    """The paper's branch without its skip: the sixth layer sees the fifth alone."""

    SKIP = False


class SharedTrunk(DeepSkipBranch):
    """The paper's branch once for all subclasses, which own its last layer only: (B, width, H', W') -> (B, R, 2).

    The R layers 50 -> 2 are one layer 50 -> 2 R; `len` is R, as for separate branches.

    Raises SettingError for R = 1: that is the paper's branch.
    """

    def __init__(self, n_branches: int, width: int, map_shape: tuple[int, int], pooling: str | None = None) -> None:
        if n_branches < 2:
            raise SettingError(
                f"branch 'shared_trunk' is for several subclasses, found n_branches={n_branches}, where it is "
                "the same network as 'deep_skip': use that, or task multiclass."
            )
        super().__init__(width, map_shape, pooling, outputs=2 * n_branches)
        self.n_branches = n_branches

    def __len__(self) -> int:
        return self.n_branches

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).unflatten(1, (self.n_branches, 2))  # (B, 2 R) -> (B, R, 2)


class ShallowBranch(Entry):
    """One hidden fully-connected layer of 300 with ReLU: (B, width, H', W') -> (B, 2), absent and present."""

    def __init__(self, width: int, map_shape: tuple[int, int], pooling: str | None = None) -> None:
        super().__init__(width, map_shape, pooling)
        self.hidden = nn.Linear(self.n_outputs, 300)
        self.last = nn.Linear(300, 2)
        he_init(self.hidden, "relu")
        he_init(self.last, "linear")

    def forward(self, features: Tensor) -> Tensor:
        x = F.relu(self.hidden(self.enter(features)))  # (B, 3872) -> (B, 300)
        return self.last(x)  # (B, 2)


BRANCHES: dict[str, type[Entry]] = {
    "deep_skip": DeepSkipBranch,
    "deep": DeepBranch,
    "shallow": ShallowBranch,
    "shared_trunk": SharedTrunk,
}
"""What the setting `branch` chooses from; deep_skip is the paper's."""


def mean_pool(maps: Tensor, window: int) -> Tensor:
    """The mean of every window (section 3.1): (B, n, H, W) -> (B, n, H / window, W / window), rounded up.

    Windows do not overlap. The last one of a row or column may reach beyond the maps and pools what exists.
    """
    return F.avg_pool2d(maps, window, ceil_mode=True, count_include_pad=False)  # (B, n, 13, 13)


def max_pool(maps: Tensor, window: int) -> Tensor:
    """The largest value of every window; shapes as in `mean_pool`."""
    return F.max_pool2d(maps, window, ceil_mode=True)  # (B, n, 13, 13)


def lse_pool(maps: Tensor, window: int) -> Tensor:
    """log(mean(exp(x))) of every window, which lies between its mean and its maximum; shapes as in `mean_pool`.

    It is computed in float32 at least, also under autocast, and without overflow for any finite value.
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    height, width = maps.shape[2:]
    maps = F.pad(maps, (0, -width % window, 0, -height % window), value=-math.inf)  # exp(-inf) adds nothing
    windows = maps.unflatten(3, (-1, window)).unflatten(2, (-1, window))  # (B, n, 13, 8, 13, 8)
    rows, columns = (
        maps.new_tensor([min(window, size - start) for start in range(0, size, window)])  # 8, ..., 8, 5
        for size in (height, width)
    )
    return windows.logsumexp(dim=(3, 5)) - (rows[:, None] * columns).log()  # (B, n, 13, 13)


POOLINGS: dict[str | None, Callable[[Tensor, int], Tensor]] = {None: mean_pool, "max": max_pool, "lse": lse_pool}
"""What the setting `pooling` chooses from; None is the paper's."""
