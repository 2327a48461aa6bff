"""Exercises of notebook 03: the class weights, the probability from which a pixel is called tumour, the share `a`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from mixsup_lib.losses import class_weights
from mixsup_lib.paper import TARGET_WEIGHTS
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, close

BINARY, MULTICLASS = TARGET_WEIGHTS["binary"], TARGET_WEIGHTS["multiclass"]


def _batch(counts: list[list[int]]) -> torch.Tensor:
    """One image (1, P) per entry of `counts`, which says how many pixels each class has: (A, 1, P) labels."""
    return torch.stack([torch.repeat_interleave(image)[None] for image in torch.tensor(counts)])


def _counts(labels: torch.Tensor, t: tuple[float, ...]) -> torch.Tensor:
    return torch.bincount(labels.flatten(), minlength=len(t))


def _image_by_image(labels: torch.Tensor, t: tuple[float, ...]) -> torch.Tensor:
    return torch.stack([class_weights(image, t) for image in labels]).mean(dim=0)


def _listed(values: np.ndarray) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


exercise_3_1 = Exercise(
    right=class_weights,
    cases={
        f"{name}, t = {t}": (_batch(counts), t)
        for name, counts, t in (
            ("One image with 6 healthy and 2 tumour pixels", [[6, 2]], BINARY),
            ("Two images, with 2 and 6 tumour pixels of 8", [[6, 2], [2, 6]], BINARY),
            ("Four classes", [[10, 3, 5, 2], [14, 1, 1, 4]], MULTICLASS),
            ("A batch without tumour", [[8, 0], [8, 0]], BINARY),
            ("A batch in which only class 2 of four is missing", [[10, 3, 0, 2]], MULTICLASS),
        )
    },
    mistakes=(
        Mistake(
            lambda labels, t: torch.tensor(t) / _counts(labels, t),
            "{case}: your weights {seen} are not all finite.",
            "what t / N becomes for a class with N = 0, and which weight the exercise asks for there.",
            when=lambda found, *_: not np.isfinite(found).all() and _listed(found),
        ),
        Mistake(
            lambda labels, t: torch.tensor(t) / _counts(labels, t).clamp(min=1),
            "{case}: a class that does not occur has weight {seen:g}.",
            "the exercise's sentence about such a class.",
            when=lambda found, wanted, *_: found[wanted == 0].max(),
        ),
        Mistake(
            lambda labels, t: torch.zeros(len(t)),
            "{case}: all weights are 0.",
            "the equation N_c w_c = t_c above.",
        ),
        Mistake(
            lambda labels, t: labels.numel() * class_weights(labels, t),
            "{case}: your weights are too large; those of all pixels sum to the number of pixels, not 1.",
            "the three readings of equation (1): these weights go with its 1/P, the exercise asks for t / N.",
            when=lambda found, wanted, labels, t: close(found, labels.numel() * wanted) and labels.numel(),
        ),
        Mistake(
            lambda labels, t: torch.tensor(t) / labels.numel(),
            "{case}: you divide every t by the {seen} pixels of the batch.",
            "N_c, the number of pixels of that class.",
            when=lambda found, wanted, labels, t: close(found * labels.numel(), t) and labels.numel(),
        ),
        Mistake(
            _image_by_image,
            "{case}: your weights are counted image by image and then put together.",
            "which pixels N_c counts: those of the whole batch.",
        ),
        Mistake(
            lambda labels, t: len(labels) * _image_by_image(labels, t),
            "{case}: your weights are counted image by image and then added up.",
            "which pixels N_c counts: those of all images together.",
        ),
        Mistake(
            lambda labels, t: 1 / _counts(labels, t),
            "{case}: with your weights the pixels of the classes weigh {seen} together.",
            "the equation N_c w_c = t_c above.",
            when=lambda found, wanted, labels, t: (
                found.shape == wanted.shape
                and not close(found, wanted)
                and _listed(found * _counts(labels, t).numpy())
            ),
        ),
    ),
    praise="Each class weighs its t in every batch, however few its pixels, and absent ones weigh nothing.",
)


def _threshold(combine: Callable[[float, float], float]) -> Callable[[float, float, float], float]:
    return lambda t0, t1, share: combine(t0 / (1 - share), t1 / share)


SHARES = ((0.98, 0.02, 0.02), (0.7, 0.3, 0.3), (0.7, 0.3, 0.016), (0.5, 0.5, 0.1), (0.2, 0.8, 0.5))

exercise_3_2 = Exercise(
    right=_threshold(lambda w0, w1: w0 / (w0 + w1)),
    cases={f"t = ({t0:g}, {t1:g}), {100 * share:g} % tumour": (t0, t1, share) for t0, t1, share in SHARES},
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
        Mistake(
            lambda t0, t1, share: 0.5,
            "{case}: you return 1/2, the threshold of p; the crowd's share of tumour is another number.",
            "the p that minimises the crowd's loss, as a function of pi; then set it to 1/2.",
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
    cases={
        f"a = {a:g}, P = {P}": (a, P) for a, P in ((0.5, 4), (0.7, 100), (0.3, 61206), (1.0, 10), (0.0, 10))
    },
    same=functools.partial(close, tolerance=1e-7),
    mistakes=(
        Mistake(
            lambda a, P: a * P,
            "{case}: you return {found:.4g}, which is no share: 1 - a' would be {seen:.4g}.",
            "the ratio of the two factors, a' / P to 1 - a': both change with a'.",
            when=lambda found, *_: not 0 <= found <= 1 and 1 - found,
        ),
        Mistake(
            lambda a, P: a,
            "{case}: you return a itself; the segmentation part would still be {seen} times too short.",
            "the ratio of the two factors in each of the two losses.",
            when=lambda found, wanted, a, P: close(found, a) and not close(found, wanted, 1e-7) and P,
        ),
        Mistake(
            lambda a, P: a / (a + P * (1 - a)),
            "{case}: you return {found:.4g}, which makes the segmentation part shorter still, P times.",
            "on which side of the equation the P stands.",
        ),
        Mistake(
            lambda a, P: a * P / (a * P + 1),
            "{case}: with your a' = {found:.6g} the two parts stand as {seen}.",
            "the equation a' / P : (1 - a') = a : (1 - a), solved for a'.",
            when=lambda found, wanted, a, P: (
                not close(found, wanted, 1e-7)
                and f"{found / P:.3g} : {1 - found:.3g}, in the paper's loss as {a:g} : {1 - a:g}"
            ),
        ),
    ),
    praise="For the paper's batch a' = 0.999993. Who writes 1.0 instead switches the branch off: the 1/P is no detail.",
)
