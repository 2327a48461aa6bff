"""Where a stored slice lies in the scan: in-plane resampling, a window around the head, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ASSUMED_FIELD_OF_VIEW_MM = 240.0
"""Field of view taken for scans without spacing: that of BraTS (240 pixels of 1 mm)."""


@dataclass(frozen=True)
class SliceFrame:
    """Geometry of one patient's slices; sizes are (rows, columns) in pixels.

    source: of the scan's own slice; resampled: after in-plane resampling; corner: position of the window's first
    pixel in the resampled slice (negative where the window reaches beyond it); window: size of the stored slice.
    """

    source: tuple[int, int]
    resampled: tuple[int, int]
    corner: tuple[int, int]
    window: tuple[int, int]


def foreground_mask(volume: np.ndarray) -> np.ndarray:
    """Voxels of the head, bool of the volume's shape (X, Y, Z).

    Where the rim of the slices and at least half of the volume are exactly 0 (skull-stripped scans) these are the
    non-zero voxels, as in the paper. Elsewhere the background is grey or noisy and Otsu's threshold separates it.

    Departure: the paper's non-zero median needs a background of exactly 0; Otsu's threshold serves cohorts without.
    """
    rim = [volume[0], volume[-1], volume[:, 0], volume[:, -1]]
    nonzero = volume != 0
    if np.mean([(side == 0).mean() for side in rim]) > 0.99 and 2 * np.count_nonzero(nonzero) <= nonzero.size:
        return nonzero
    from skimage.filters import threshold_otsu

    return volume > threshold_otsu(volume)


def fit_window(
    foreground: np.ndarray,
    voxel_size_mm: tuple[float, float, float] | None,
    pixel_mm: float | None,
    window: tuple[int, int] | None,
) -> SliceFrame:
    """The frame for one patient: resampling to `pixel_mm`, then a window centred on the head's bounding box.

    Args:
        foreground: (Y, X) bool, head seen in any slice.
        voxel_size_mm: (x, y, z) of the scan, None if unknown.
        pixel_mm: wanted pixel size, None for the scan's own.
        window: (H, W) in resampled pixels, None for the whole slice.
    """
    source = foreground.shape
    spacing = (
        voxel_size_mm[1::-1] if voxel_size_mm else (ASSUMED_FIELD_OF_VIEW_MM / max(source),) * 2
    )  # (y, x)
    factors = (1.0, 1.0) if pixel_mm is None else tuple(size / pixel_mm for size in spacing)
    resampled = tuple(max(round(n * factor), 1) for n, factor in zip(source, factors, strict=True))
    window = resampled if window is None else tuple(window)
    corner = []
    for axis in range(2):
        seen = np.flatnonzero(foreground.any(axis=1 - axis))
        centre = (seen[0] + seen[-1] + 1) / 2 * resampled[axis] / source[axis]
        whole = window[axis] >= resampled[axis]
        corner.append(-((window[axis] - resampled[axis]) // 2) if whole else round(centre - window[axis] / 2))
    return SliceFrame(tuple(source), resampled, tuple(corner), window)


def resample_in_plane(slices: np.ndarray, frame: SliceFrame, *, nearest: bool = False) -> np.ndarray:
    """Slices (Z, C, Y, X) of the scan on the grid of the store: (Z, C, H, W), zero outside the scan.

    Intensities are interpolated linearly with anti-aliasing; label maps (`nearest`) keep their values. Where the store
    keeps the scan's own grid this is `slices` itself.
    """
    if frame.window == frame.resampled == frame.source:
        return slices
    if frame.resampled != frame.source:
        import torch
        from torch.nn.functional import interpolate

        options = {"mode": "nearest-exact"} if nearest else {"mode": "bilinear", "antialias": True}
        resized = interpolate(torch.from_numpy(slices), size=frame.resampled, **options)  # (Z, C, Yr, Xr)
        slices = resized.numpy()
    stored = np.zeros((*slices.shape[:2], *frame.window), slices.dtype)  # (Z, C, H, W)
    inside, outside = _overlap(frame)
    stored[:, :, inside[0], inside[1]] = slices[:, :, outside[0], outside[1]]
    return stored


def scores_on_source_grid(scores: np.ndarray, frame: SliceFrame) -> np.ndarray:
    """Class probabilities (Z, K, H, W) of stored slices on the scan's own grid: (Z, K, Y, X) float32.

    Linear interpolation; outside the window the scan is background (probability 1 of class 0).
    """
    import torch
    from torch.nn.functional import interpolate

    whole = np.zeros((*scores.shape[:2], *frame.resampled), np.float32)  # (Z, K, Yr, Xr)
    whole[:, 0] = 1
    inside, outside = _overlap(frame)
    whole[:, :, outside[0], outside[1]] = scores[:, :, inside[0], inside[1]]
    if frame.resampled == frame.source:
        return whole
    return interpolate(torch.from_numpy(whole), size=frame.source, mode="bilinear").numpy()  # (Z, K, Y, X)


def _overlap(frame: SliceFrame) -> tuple[list[slice], list[slice]]:
    """The common part of window and resampled slice, as index ranges (rows, columns) in each of the two."""
    inside, outside = [], []
    for corner, size, whole in zip(frame.corner, frame.window, frame.resampled, strict=True):
        first, last = max(corner, 0), min(corner + size, whole)
        inside.append(slice(first - corner, last - corner))
        outside.append(slice(first, last))
    return inside, outside
