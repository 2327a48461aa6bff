"""The losses of section 3.1: weighted pixelwise, image-level, and their convex combination.

Shapes: A annotated images, K classes, H' x W' output pixels, B images, R branches. Losses are computed in
float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mixsup_lib.files import DataError, SettingError


def class_weights(labels: Tensor, target_weights: Sequence[float]) -> Tensor:
    """Weight of a pixel of each class, t_c / N_c: (A, H', W') integer labels 0..K-1 -> (K,) float32.

    N_c counts the pixels of class c in the annotated part of the batch, inside the output window. So all pixels
    of a class together weigh t_c (section 3.1: t = (0.7, 0.3); section 3.2: (0.7, 0.1, 0.1, 0.1)). A class that
    does not occur gets weight 0.

    Raises DataError for a label that has no target weight, on a CPU. On a GPU every batch would have to wait for
    this check; there a run's labels are checked once, by `sampling.feed_batches`.
    """
    targets = torch.as_tensor(target_weights, dtype=torch.float32, device=labels.device)  # (K,)
    if labels.device.type == "cpu" and labels.numel():
        lowest, highest = torch.stack(labels.aminmax()).tolist()
        if lowest < 0 or highest >= len(targets):
            raise DataError(
                f"Labels range from {lowest} to {highest}, expected 0..{len(targets) - 1}: "
                "there must be one target weight for each class."
            )
    counts = torch.stack([(labels == c).sum() for c in range(len(targets))])  # (K,)
    return torch.where(counts > 0, targets / counts.clamp(min=1), 0.0)


def segmentation_loss(pixel_scores: Tensor, labels: Tensor, target_weights: Sequence[float]) -> Tensor:
    """Equation (1), weighted pixelwise cross-entropy: (A, K, H', W') logits, (A, H', W') labels -> scalar.

    It is the sum over all annotated pixels of -w log p, with w = t_c / N_c from `class_weights` and p from the
    softmax of the scores. It is not divided by the number of pixels P again: the weights of all pixels already
    sum to t_0 + t_1 + ... = 1 (less where a class is absent). Equation (1) with its 1/P holds for weights
    P * t_c / N_c.

    Raises SettingError if scores and labels do not fit together, DataError for a label without target weight.
    """
    expected = (pixel_scores.shape[0], *pixel_scores.shape[2:])
    if tuple(labels.shape) != expected or pixel_scores.shape[1] != len(target_weights):
        raise SettingError(
            f"Pixel scores {tuple(pixel_scores.shape)}, labels {tuple(labels.shape)} and "
            f"{len(target_weights)} target weights do not fit together, "
            "expected (A, K, H, W), (A, H, W) and K."
        )
    pixel_scores = _at_least_float32(pixel_scores)
    weights = class_weights(labels, target_weights).to(pixel_scores.dtype)  # (K,)
    return F.cross_entropy(pixel_scores, labels.long(), weight=weights, reduction="sum")


def classification_loss(image_scores: Tensor, presence: Tensor) -> Tensor:
    """Mean cross-entropy over all images and branches: (B, R, 2) logits, (B, R) presence (0 or 1) -> scalar.

    This is Loss_c of section 3.1 for one branch, and the average across all branches of section 3.2. Fully and
    weakly annotated images count alike.

    Raises SettingError if scores and labels do not fit together.
    """
    if image_scores.ndim != 3 or tuple(presence.shape) != tuple(image_scores.shape[:2]):
        raise SettingError(
            f"Image scores {tuple(image_scores.shape)} and presence {tuple(presence.shape)} do not fit "
            "together, expected (B, R, 2) and (B, R)."
        )
    scores = _at_least_float32(image_scores).flatten(0, 1)  # (B * R, 2)
    return F.cross_entropy(scores, presence.flatten().long())  # labels (B * R,)


def joint_loss(loss_s: Tensor, loss_c: Tensor, a: float) -> Tensor:
    """The total loss, a * Loss_s + (1 - a) * Loss_c (section 3.1: a = 0.7; section 3.2: a = 0.3).

    Raises SettingError unless 0 <= a <= 1.
    """
    if not 0 <= a <= 1:
        raise SettingError(f"The share a of the segmentation loss is {a}, expected a number from 0 to 1.")
    return a * loss_s + (1 - a) * loss_c


def _at_least_float32(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
