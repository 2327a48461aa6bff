"""Pooling at the entry of a classification branch: the paper's mean, and two that let few pixels speak louder.

Windows do not overlap. The last one of a row or column may reach beyond the maps and then pools what exists. All
functions: (B, n, H, W) -> (B, n, H / window, W / window), rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def mean_pool(maps: Tensor, window: int) -> Tensor:
    """The mean of every window (section 3.1)."""
    return F.avg_pool2d(maps, window, ceil_mode=True, count_include_pad=False)


def max_pool(maps: Tensor, window: int) -> Tensor:
    """The largest value of every window."""
    return F.max_pool2d(maps, window, ceil_mode=True)


def lse_pool(maps: Tensor, window: int) -> Tensor:
    """log(mean(exp(x))) of every window: between its mean and its maximum, nearer to the maximum for larger values.

    Computed in float32 at least, also under autocast, and without overflow for any finite value.
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


POOLINGS: dict[str | None, Callable[[Tensor, int], Tensor]] = {
    None: mean_pool,
    "max": max_pool,
    "lse": lse_pool,
}
"""What the setting `pooling` chooses from; None is the paper's."""
