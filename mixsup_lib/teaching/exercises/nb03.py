"""Exercises of notebook 03: the class weights, the probability from which a pixel is called tumour, the share `a`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from mixsup_lib.losses import class_weights
from mixsup_lib.paper import TARGET_WEIGHTS
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, cases, close

BINARY, MULTICLASS = TARGET_WEIGHTS["binary"], TARGET_WEIGHTS["multiclass"]


def _batch(counts: list[list[int]]) -> torch.Tensor:
    """One image (1, P) per entry of `counts`, which says how many pixels each class has: (A, 1, P) labels."""
    return torch.stack([torch.repeat_interleave(image)[None] for image in torch.tensor(counts)])


def _counts(labels: torch.Tensor, t: tuple[float, ...]) -> torch.Tensor:
    return torch.bincount(labels.flatten(), minlength=len(t))


exercise_3_1 = Exercise(
    right=class_weights,
    cases={
        f"One image with 6 healthy and 2 tumour pixels, t = {BINARY}": (_batch([[6, 2]]), BINARY),
        f"Two images, with 2 and 6 tumour pixels of 8, t = {BINARY}": (_batch([[6, 2], [2, 6]]), BINARY),
        f"Four classes, t = {MULTICLASS}": (_batch([[10, 3, 5, 2], [14, 1, 1, 4]]), MULTICLASS),
        f"A batch without tumour, t = {BINARY}": (_batch([[8, 0], [8, 0]]), BINARY),
        f"Class 2 of four missing, t = {MULTICLASS}": (_batch([[10, 3, 0, 2]]), MULTICLASS),
    },
    mistakes=(
        Mistake(lambda labels, t: torch.zeros(len(t)), "{case}: all weights are 0."),
        Mistake(
            lambda labels, t: torch.tensor(t) / _counts(labels, t),
            "{case}: your weights {found} are not all finite.",
            "what t / N becomes for a class with N = 0, and which weight the exercise asks for there.",
        ),
        Mistake(
            lambda labels, t: labels.numel() * class_weights(labels, t),
            "{case}: your weights are too large; those of all pixels sum to the number of pixels, not 1.",
            "the three readings of equation (1): these weights go with its 1/P, the exercise asks for t / N.",
        ),
        Mistake(
            lambda labels, t: torch.tensor(t) / labels.numel(),
            "{case}: you divide every t by all pixels of the batch.",
            "N_c, the number of pixels of that class.",
        ),
        Mistake(
            lambda labels, t: torch.stack([class_weights(image, t) for image in labels]).mean(dim=0),
            "{case}: your weights are counted image by image and then put together.",
            "which pixels N_c counts: those of the whole batch.",
        ),
    ),
    says="{case}: your weights are {found}, expected others.",
    look="the equation N_c w_c = t_c above.",
    praise="Each class weighs its t in every batch, however few its pixels, and absent ones weigh nothing.",
)


def _threshold(combine: Callable[[float, float], float]) -> Callable[[float, float, float], float]:
    return lambda t0, t1, share: combine(t0 / (1 - share), t1 / share)


exercise_3_2 = Exercise(
    right=_threshold(lambda w0, w1: w0 / (w0 + w1)),
    cases={
        f"t = ({t0:g}, {t1:g}), {100 * share:g} % tumour": (t0, t1, share)
        for t0, t1, share in ((0.98, 0.02, 0.02), (0.7, 0.3, 0.3), (0.7, 0.3, 0.016), (0.2, 0.8, 0.5))
    },
    mistakes=(
        Mistake(
            lambda t0, t1, share: t0 / (t0 + t1),
            "{case}: you return t0 / (t0 + t1), as if a pixel's weight were the total weight of its class.",
            "the weights w0 and w1 of one pixel: each t is spread over the pixels of its class.",
        ),
        Mistake(
            _threshold(lambda w0, w1: w1 / (w0 + w1)),
            "{case}: you return {found:.3g}, so heavier tumour pixels would make the network more reluctant.",
            "which of the two weights belongs to which logarithm; at the best p the derivative is 0.",
        ),
        Mistake(
            _threshold(lambda w0, w1: w0 / w1),
            "{case}: you return w0 / w1 = {found:.3g}, which is the odds pi / (1 - pi).",
            "how odds become a share.",
        ),
    ),
    says="{case}: you return {found:.3g}, expected another share.",
    look="the case without weights, t0 = 1 - share and t1 = share, which must give 1/2; and the derivative "
    "of the crowd's loss by p.",
    praise="With 1.6 % tumour in the batch, t = (0.5, 0.5) calls a pixel tumour from 1.6 % on, the paper's (0.7, 0.3) "
    "from 3.7 % on, a loss without weights from 50 %.",
)


exercise_3_3 = Exercise(
    right=lambda a, P: a * P / (a * P + 1 - a),
    cases=cases("a = {:g}, P = {}", (0.5, 4), (0.7, 100), (0.3, 61206), (1.0, 10), (0.0, 10)),
    same=functools.partial(close, tolerance=1e-7),
    mistakes=(
        Mistake(
            lambda a, P: a * P,
            "{case}: you return {found:.4g}, which is no share.",
            "the ratio of the two factors, a' / P to 1 - a': both change with a'.",
        ),
        Mistake(
            lambda a, P: a,
            "{case}: you return a itself; the segmentation part would still be {seen} times too short.",
            "the ratio of the two factors in each of the two losses.",
            when=lambda found, wanted, a, P: close(found, a) and P,
        ),
        Mistake(
            lambda a, P: a / (a + P * (1 - a)),
            "{case}: you return {found:.4g}, which makes the segmentation part shorter still, P times.",
            "on which side of the equation the P stands.",
        ),
    ),
    says="{case}: you return {found:.6g}, expected another number.",
    look="the equation a' / P : (1 - a') = a : (1 - a), solved for a'.",
    praise="For the paper's batch a' = 0.999993. Who writes 1.0 instead switches the branch off: the 1/P is no detail.",
)
