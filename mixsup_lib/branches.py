"""The image-level classification branches: the paper's (section 3.1) and those it was chosen from.

Shapes: B images, R branches, width maps of H' x W' pixels. Comments give the paper's (64 maps of 101x101).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.errors import SettingError, nearest
from mixsup_lib.pooling import POOLINGS
from mixsup_lib.unet import ConvBlock, he_init


class Entry(nn.Module):
    """What every branch begins with: pool 8x8, one 3x3 convolution to half the maps, all in one row.

    `pooling` is a key of POOLINGS; the paper's, None, is the mean.

    Raises SettingError if the maps are fewer than 17 pixels a side, the width is below 2, or pooling is unknown.
    """

    POOL = 8

    def __init__(self, width: int, map_shape: tuple[int, int], pooling: str | None = None) -> None:
        super().__init__()
        rows, columns = (-(-n // self.POOL) - 2 for n in map_shape)  # 101 -> 13 -> 11
        if min(rows, columns) < 1:
            raise SettingError(
                f"The classification branch needs output maps of at least {2 * self.POOL + 1} pixels a side, "
                f"found {map_shape[0]}x{map_shape[1]}: use a larger input, or n_branches=0."
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


class DeepBranch(Entry):
    """Seven fully-connected layers, ReLU after each but the last: (B, width, H', W') -> (B, outputs).

    The paper's branch without its skip: the sixth layer sees the fifth alone.
    """

    WIDTHS = (300, 250, 200, 150, 100)
    SKIP = False

    def __init__(
        self, width: int, map_shape: tuple[int, int], pooling: str | None = None, outputs: int = 2
    ) -> None:
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


class DeepSkipBranch(DeepBranch):
    """The paper's classification branch (section 3.1): (B, width, H', W') -> (B, 2), absent and present.

    Mean-pool 8x8 (the last window averages what exists), one 3x3 convolution to half the maps, seven
    fully-connected layers with ReLU after each but the last; the outputs of the first and the fifth are
    concatenated.
    """

    SKIP = True


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


class OwnBranches(nn.ModuleList):
    """R entire branches side by side, as the paper has them (section 3.2): (B, width, H', W') -> (B, R, 2)."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([branch(features) for branch in self], dim=1)


class SharedTrunk(DeepSkipBranch):
    """The paper's branch once for all subclasses, which own its last layer only: (B, width, H', W') -> (B, R, 2).

    The R layers 50 -> 2 are one of 50 -> 2 R; `len` is R, as of separate branches.

    Raises SettingError for R = 1: that is the paper's branch.
    """

    def __init__(
        self, n_branches: int, width: int, map_shape: tuple[int, int], pooling: str | None = None
    ) -> None:
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


BRANCHES: dict[str, type[Entry]] = {
    "deep_skip": DeepSkipBranch,
    "deep": DeepBranch,
    "shallow": ShallowBranch,
    "shared_trunk": SharedTrunk,
}
"""What the setting `branch` chooses from; deep_skip is the paper's."""


def image_head(
    kind: str, n_branches: int, width: int, map_shape: tuple[int, int], pooling: str | None
) -> OwnBranches | SharedTrunk:
    """From the maps (B, width, H', W') to the image scores (B, R, 2); without branches it is empty.

    Raises SettingError for an unknown kind, and what the kind itself raises.
    """
    if kind not in BRANCHES:
        raise SettingError(
            f"branch is {kind!r}, expected one of {', '.join(BRANCHES)}." + nearest(kind, BRANCHES)
        )
    if kind == "shared_trunk" and n_branches:
        return SharedTrunk(n_branches, width, map_shape, pooling)
    return OwnBranches(BRANCHES[kind](width, map_shape, pooling) for _ in range(n_branches))
