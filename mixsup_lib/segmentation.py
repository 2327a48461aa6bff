"""Network + case -> label volume on the case's own grid, in one pass per slice, and its NIfTI file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mixsup_lib.cohort import Case
from mixsup_lib.compute import autocast
from mixsup_lib.files import atomic_path
from mixsup_lib.frames import SliceFrame, scores_on_source_grid
from mixsup_lib.layouts.nifti import from_lps
from mixsup_lib.model import MixedSupervisionUNet

BRATS_VALUES = np.array([0, 1, 2, 4], np.uint8)
"""Label values on disk of the paper's classes 0..3."""


@torch.inference_mode()
def score_slices(
    network: MixedSupervisionUNet,
    slices: np.ndarray,
    *,
    device: torch.device,
    precision: str = "float32",
    batch: int = 16,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores of whole slices.

    The segmentation covers the whole slice in one pass (an input of 444 for a 240 slice and the paper's network);
    image-level scores come from a pass at the training size, which the branch's first layer fixes (300). Slices without
    a voxel of the head, one in seven of a BraTS scan, all have the same scores, which are computed once.

    Departure: the authors tested a window of 165x165 pixels and predicted background outside; this covers the slice.

    Args:
        slices: (Z, C, H, W).

    Returns:
        Class probabilities (Z, K, H, W) float32, and the probability of tumour (Z, R) of each branch or None.
    """
    network.eval()
    different, which = _different(slices)
    probabilities, presence = [], []
    for start in range(0, len(different), batch):
        part = np.asarray(slices[different[start : start + batch]], np.float32)
        part = torch.from_numpy(part).to(device)
        with autocast(precision, device):
            scores, image_scores = _score(network, part)
        probabilities.append(scores.float().softmax(dim=1).cpu().numpy())
        if image_scores is not None:
            presence.append(image_scores.float().softmax(dim=2)[:, :, 1].cpu().numpy())  # (B, R, 2) -> (B, R)
    return np.concatenate(probabilities)[which], np.concatenate(presence)[which] if presence else None


def _different(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of (Z, C, H, W) to compute, of all-zero slices the first alone; and which of these stands for each row."""
    empty = ~slices.any(axis=(1, 2, 3))
    different = np.flatnonzero(~empty | (np.cumsum(empty) == 1))
    which = np.searchsorted(different, np.arange(len(slices)))
    which[empty] = np.searchsorted(different, np.argmax(empty))
    return different, which


def _score(network: MixedSupervisionUNet, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pixel scores (B, K, H, W), and image scores (B, R, 2) or None; one pass where both take the same input."""
    if not network.branches:
        return _segment(network, images), None
    geometry, sizes = network.geometry, images.shape[2:]
    frames = [geometry.whole_slice_frame(size) for size in sizes]
    if frames != [geometry.training_frame(s, n) for s, n in zip(sizes, network.input_shape, strict=True)]:
        return _segment(network, images), _classify(network, images)
    pixel_scores, image_scores = network(_padded(images, frames))
    return _cut(pixel_scores, frames, sizes), image_scores


def _padded(images: torch.Tensor, frames) -> torch.Tensor:
    rows, columns = frames
    padding = (columns.pad_before, columns.pad_after, rows.pad_before, rows.pad_after)
    images = torch.nn.functional.pad(images, padding)  # (B, C, H + pads, W + pads)
    return images.contiguous(memory_format=torch.channels_last)


def _segment(network: MixedSupervisionUNet, images: torch.Tensor) -> torch.Tensor:
    sizes = images.shape[2:]
    frames = [network.geometry.whole_slice_frame(size) for size in sizes]
    return _cut(network.segment(_padded(images, frames)), frames, sizes)


def _cut(scores: torch.Tensor, frames, sizes) -> torch.Tensor:
    """The network's output (B, K, H', W') -> the part that is the slice, (B, K, H, W)."""
    (height, width), (top, left) = sizes, (-frame.first for frame in frames)
    return scores[:, :, top : top + height, left : left + width]


def _classify(network: MixedSupervisionUNet, images: torch.Tensor) -> torch.Tensor:
    frames = [
        network.geometry.training_frame(s, n)
        for s, n in zip(images.shape[2:], network.input_shape, strict=True)
    ]
    return network.classify(_padded(images, frames))  # (B, R, 2)


def label_volume(probabilities: np.ndarray, frame: SliceFrame) -> np.ndarray:
    """Class probabilities (Z, K, H, W) of stored slices -> label volume (X, Y, Z) uint8 on the case's own grid.

    Scores are brought to that grid first and the largest wins there, so that resampling does not coarsen the mask.
    A slice in which background wins everywhere stays background: every score is a mean of its neighbours'.
    """
    labels = np.zeros((len(probabilities), *frame.source), np.uint8)  # (Z, Y, X)
    shown = np.flatnonzero((probabilities[:, 1:] > probabilities[:, :1]).any(axis=(1, 2, 3)))
    for first in range(0, len(shown), 16):
        part = shown[first : first + 16]
        scores = scores_on_source_grid(probabilities[part], frame)  # (z, K, Y, X)
        labels[part] = scores.argmax(axis=1)  # (z, Y, X)
    return labels.transpose(2, 1, 0)  # (Z, Y, X) -> (X, Y, Z)


def save_nifti(path: str | Path, labels: np.ndarray, case: Case, *, multiclass: bool) -> None:
    """Write a label volume (X, Y, Z) with the case's geometry, on the axes of the case's own file.

    A multiclass volume gets BraTS' label values (1, 2, 4), a binary one 1. The header carries no text.
    """
    import nibabel as nib

    values = BRATS_VALUES[labels] if multiclass else labels.astype(np.uint8)
    image = nib.Nifti1Image(from_lps(values, case.source_affine), case.source_affine)
    image.header.set_xyzt_units("mm" if case.voxel_size_mm else "unknown")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
