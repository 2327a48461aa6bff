"""Segmentation in tiles of the training size: what the pass over whole slices is compared with."""

from __future__ import annotations

import numpy as np
import torch

from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.training import autocast
from mixsup_lib.unet import Geometry


def layout(geometry: Geometry, tile: int, size: int) -> tuple[int, int, int, int]:
    """Tiles along an axis of `size` pixels: zeros before the slice, output pixel a tile is used from, stride, number.

    A tile gives the numbers of the whole pass only away from its border, since upsampling repeats the last pixel there,
    and only where its poolings fall on the same pixels. Of the paper's 101 output pixels (tile 300) 64 are used.
    """
    step = 2**geometry.depth
    margin = step - 1
    before = geometry.whole_slice_frame(size).pad_before % step  # where the whole pass has its poolings
    while before < geometry.window_start() + margin:
        before += step
    first = before - geometry.window_start()  # the output pixel on the first pixel of the slice
    stride = (geometry.output_size(tile) - margin - first) // step * step
    return before, first, stride, -(-size // stride)


@torch.inference_mode()
def in_tiles(
    network: MixedSupervisionUNet,
    slices: np.ndarray,
    tile: int,
    device: torch.device,
    precision: str,
    batch: int = 16,
) -> np.ndarray:
    """Slices (Z, C, H, W) -> class probabilities (Z, K, H, W) float32, from tiles of `tile` pixels."""
    network.eval()
    height, width = slices.shape[2:]
    above, top, down, n_rows = layout(network.geometry, tile, height)
    left, side, right, n_columns = layout(network.geometry, tile, width)
    below = (n_rows - 1) * down + tile - above - height
    beyond = (n_columns - 1) * right + tile - left - width
    parts = []
    for start in range(0, len(slices), batch):
        images = torch.from_numpy(np.asarray(slices[start : start + batch], np.float32)).to(device)
        canvas = torch.nn.functional.pad(images, (left, beyond, above, below))  # (B, C, H + pads, W + pads)
        rows = []
        for y in range(0, n_rows * down, down):
            cuts = [canvas[:, :, y : y + tile, x : x + tile] for x in range(0, n_columns * right, right)]
            with autocast(precision, device):
                scores = [
                    network.pixel_scores(cut.contiguous(memory_format=torch.channels_last)) for cut in cuts
                ]
            used = [part[:, :, top : top + down, side : side + right] for part in scores]
            rows.append(torch.cat(used, dim=3))  # (B, K, stride, n_columns * stride)
        scores = torch.cat(rows, dim=2)[:, :, :height, :width]  # (B, K, H, W)
        parts.append(scores.float().softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)
