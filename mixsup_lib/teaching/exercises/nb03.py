"""Checks of notebook 03: the class weights, the probability from which a pixel is called tumour, the share `a`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixsup_lib import losses
from mixsup_lib.paper import TARGET_WEIGHTS
from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect

BINARY, MULTICLASS = TARGET_WEIGHTS["binary"], TARGET_WEIGHTS["multiclass"]


def _batch(counts: list[list[int]]) -> torch.Tensor:
    """One image (1, P) per entry of `counts`, which says how many pixels each class has: (A, 1, P) labels."""
    return torch.stack([torch.repeat_interleave(image)[None] for image in torch.tensor(counts)])


@check
def exercise_3_1(class_weights: Any) -> str:
    """Labels (A, H, W), target weights -> weight of a pixel of each class."""
    cases = {
        "One image with 6 healthy and 2 tumour pixels": (_batch([[6, 2]]), BINARY),
        "Two images, with 2 and 6 tumour pixels of 8": (_batch([[6, 2], [2, 6]]), BINARY),
        "Four classes": (_batch([[10, 3, 5, 2], [14, 1, 1, 4]]), MULTICLASS),
        "A batch without tumour": (_batch([[8, 0], [8, 0]]), BINARY),
        "A batch in which only class 2 of four is missing": (_batch([[10, 3, 0, 2]]), MULTICLASS),
    }
    for name, (labels, targets) in cases.items():
        right = losses.class_weights(labels, targets).double().numpy()
        pixels = labels.numel()
        found = as_array(call(class_weights, labels, targets), right.shape)
        where = f"{name}, t = {targets}"
        expect(
            np.isfinite(found).all(),
            f"{where}: your weights {_listed(found)} are not all finite.",
            "what t / N becomes for a class with N = 0, and which weight the exercise asks for there.",
        )
        expect(
            right.all() or not found[right == 0].any(),
            f"{where}: a class that does not occur has weight {(found * (right == 0)).max():g}.",
            "the exercise's sentence about such a class.",
        )
        expect(found.any(), f"{where}: all weights are 0.", "the equation N_c w_c = t_c above.")
        expect(
            not _close(found, pixels * right),
            f"{where}: your weights are {pixels} times too large; their pixels' weights sum to {pixels}, not 1.",
            "the three readings of equation (1): these weights go with its 1/P, the exercise asks for t / N.",
        )
        expect(
            not _close(found, np.array(targets) / pixels),
            f"{where}: you divide every t by the {pixels} pixels of the batch.",
            "N_c, the number of pixels of that class.",
        )
        per_image = [losses.class_weights(image[None], targets).double().numpy() for image in labels]
        expect(
            not any(_close(found, scale * np.sum(per_image, axis=0)) for scale in (1, 1 / len(labels)))
            or _close(found, right),
            f"{where}: your weights are counted image by image and then put together.",
            "which pixels N_c counts: those of the whole batch.",
        )
        expect(
            _close(found, right),
            f"{where}: the weights are {_listed(found)}, but then the pixels of the classes weigh "
            f"{_listed(found * np.bincount(labels.flatten(), minlength=len(targets)))} together.",
            "the equation N_c w_c = t_c above.",
        )
    return "Each class weighs its t in every batch, however few its pixels, and absent ones weigh nothing."


@check
def exercise_3_2(calling_threshold: Any) -> str:
    """t0, t1, share of tumour pixels in the batch -> share of a crowd from which on it is called tumour."""
    for t0, t1, share in (
        (0.98, 0.02, 0.02),
        (0.7, 0.3, 0.3),
        (0.7, 0.3, 0.016),
        (0.5, 0.5, 0.1),
        (0.2, 0.8, 0.5),
    ):
        w0, w1 = t0 / (1 - share), t1 / share
        right = w0 / (w0 + w1)
        found = float(as_array(call(calling_threshold, t0, t1, share), ()))
        where = f"t = ({t0:g}, {t1:g}), {100 * share:g} % tumour"
        expect(
            _close(found, right) or not _close(found, t0 / (t0 + t1)),
            f"{where}: you return t0 / (t0 + t1), as if a pixel's weight were the total weight of its class.",
            "the weights w0 and w1 of one pixel: each t is spread over the pixels of its class.",
        )
        expect(
            _close(found, right) or not _close(found, 1 - right),
            f"{where}: you return {found:.3g}, so heavier tumour pixels would make the network more reluctant.",
            "which of the two weights belongs to which logarithm; at the best p the derivative is 0.",
        )
        expect(
            _close(found, right) or not _close(found, w0 / w1),
            f"{where}: you return w0 / w1 = {found:.3g}, which is the odds pi / (1 - pi).",
            "how odds become a share.",
        )
        expect(
            _close(found, right) or not _close(found, 0.5),
            f"{where}: you return 1/2, the threshold of p; the crowd's share of tumour is another number.",
            "the p that minimises the crowd's loss, as a function of pi; then set it to 1/2.",
        )
        expect(
            _close(found, right),
            f"{where}: you return {found:.3g}, expected another share.",
            "the case without weights, t0 = 1 - share and t1 = share, which must give 1/2; and the derivative "
            "of the crowd's loss by p.",
        )
    paper, equal, share = (right_of(0.7, 0.3), right_of(0.5, 0.5), 1.6)
    return (
        f"With {share} % tumour in the batch, t = (0.5, 0.5) calls a pixel tumour from {100 * equal:.1f} % on, the "
        f"paper's (0.7, 0.3) from {100 * paper:.1f} % on, a loss without weights from 50 %."
    )


def right_of(t0: float, t1: float, share: float = 0.016) -> float:
    """w0 / (w0 + w1)."""
    return 1 / (1 + t1 / t0 * (1 - share) / share)


@check
def exercise_3_3(repaired_a: Any) -> str:
    """Paper's a, P -> a' with which a loss divided by P pulls in the same direction."""
    for a, pixels in ((0.5, 4), (0.7, 100), (0.3, 61206), (1.0, 10), (0.0, 10)):
        right = a * pixels / (a * pixels + 1 - a)
        found = float(as_array(call(repaired_a, a, pixels), ()))
        where = f"a = {a:g}, P = {pixels}"
        same = abs(found - right) < 1e-7
        expect(
            0 <= found <= 1,
            f"{where}: you return {found:.4g}, which is no share: 1 - a' would be {1 - found:.4g}.",
            "the ratio of the two factors, a' / P to 1 - a': both change with a'.",
        )
        expect(
            same or not _close(found, a),
            f"{where}: you return a itself; the segmentation part would still be {pixels} times too short.",
            "the ratio of the two factors in each of the two losses.",
        )
        expect(
            same or not _close(found, a / (a + pixels * (1 - a))),
            f"{where}: you return {found:.4g}, which makes the segmentation part {pixels} times shorter still.",
            "on which side of the equation the P stands.",
        )
        expect(
            same,
            f"{where}: with your a' = {found:.6g} the two parts stand as {_ratio(found / pixels, 1 - found)}, "
            f"in the paper's loss as {_ratio(a, 1 - a)}.",
            "the equation a' / P : (1 - a') = a : (1 - a), solved for a'.",
        )
    pixels = 6 * 101 * 101
    a = 0.7 * pixels / (0.7 * pixels + 0.3)
    return f"For the paper's batch a' = {a:.6f}. Who writes 1.0 instead switches the branch off: the 1/P is no detail."


def _close(found: Any, wanted: Any) -> bool:
    return bool(np.allclose(found, wanted, rtol=1e-4, atol=1e-9))


def _listed(values: np.ndarray) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.3g} : 1" if other else f"{one:.3g} : 0"
