"""Exercises of notebook 06: Dice from counts, errors per slice in millilitres, false findings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mixsup_lib.evaluation import dice
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, close

exercise_6_1 = Exercise(
    right=lambda *counts: dice(np.repeat([True, False, True], counts), np.repeat([True, True, False], counts)),
    cases={
        f"{hit} hit, {missed} missed, {extra} extra": (hit, missed, extra)
        for hit, missed, extra in ((60, 20, 40), (0, 50, 10), (30, 0, 0), (1, 99, 0))
    }
    | {f"No tumour in the ground truth, {extra} extra voxels": (0, 0, extra) for extra in (0, 5)},
    mistakes=(
        Mistake(
            lambda hit, missed, extra: 2 * hit / (2 * hit + missed + extra),
            "{case}: {found:g} is Dice as a fraction.",
            "the unit the paper prints, and the exercise asks for.",
        ),
        Mistake(
            lambda hit, missed, extra: 100 * hit / (hit + missed + extra),
            "{case}: {found:.1f} is the Jaccard index, the overlap divided by the union.",
            "the denominator of equation (2): the sizes of the two masks, in which a hit is counted twice.",
        ),
        Mistake(
            lambda hit, missed, extra: 100 * hit / (hit + missed),
            "{case}: {found:.1f} is the sensitivity; the extra voxels cost nothing.",
            "the size of the prediction in equation (2).",
        ),
        Mistake(
            lambda hit, missed, extra: 200 * hit / max(2 * hit + missed + extra, 1),
            "{case}: you return {found:g}.",
            "the rule for a patient without the region: not 0, not 100, but left out (NaN).",
            when=lambda found, wanted, *_: math.isnan(wanted),
        ),
    ),
    says="{case}: you return {found:.4g}, expected {wanted:.4g}.",
    look="equation (2) with |prediction| = hit + extra and |truth| = hit + missed.",
    praise="The fourth count, voxels in neither mask, does not occur: Dice does not depend on how much air is scanned.",
)

MASKS = np.random.default_rng(6).random((2, 7, 6, 5)) < np.reshape([0.5, 0.3], (2, 1, 1, 1))
"""Truth and prediction."""


def _errors(ml: float = 0.02) -> Callable[..., np.ndarray]:
    """Missed and extra volume (2, Z), with the volume of a voxel."""
    return lambda prediction, truth, _: (
        ml * np.array([(truth & ~prediction).sum((0, 1)), (prediction & ~truth).sum((0, 1))])
    )


exercise_6_2 = Exercise(
    right=_errors(),
    cases={"Two volumes of 7x6x5 voxels": (MASKS[1], MASKS[0], (2.0, 2.5, 4.0))},
    mistakes=(
        Mistake(
            _errors(1.0),
            "Your volumes are in voxels.",
            "the volume of a voxel, the product of its three sides in mm, and 1 ml = 1000 mm³.",
        ),
        Mistake(_errors(20.0), "Your volumes are in mm³.", "the unit: 1 ml = 1000 mm³."),
        Mistake(
            lambda *arguments: np.maximum(_errors()(*arguments) - _errors()(*arguments)[::-1], 0),
            "Your volumes are differences of the two masks' areas, which lets errors cancel.",
            "voxels that are in one mask and not in the other: `a & ~b`.",
        ),
        Mistake(
            lambda *arguments: _errors()(*arguments) * [[1], [2]],
            "The extra volume of slice 0 is {found[1][0]:.4g} ml, expected {wanted[1][0]:.4g}.",
            "the voxels that are drawn too much: in the prediction and not in the ground truth.",
            when=lambda found, wanted, *_: close(found[0], wanted[0]),
        ),
    ),
    says="The missed volume of slice 0 is {found[0][0]:.4g} ml, expected {wanted[0][0]:.4g}.",
    look="the voxels that are counted (`a & ~b`), and the volume of each: the product of its three sides.",
    praise="Missed and invented volume do not cancel, as they would in a comparison of total volumes.",
)


def _label(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The connected parts of a mask, numbered from 1, and how many there are."""
    from scipy import ndimage

    return ndimage.label(mask)


def _islands(prediction: np.ndarray, truth: np.ndarray, first: int = 1) -> int:
    parts, n = _label(prediction)
    return sum(not truth[parts == part].any() for part in range(first, n + 1))


def _volumes() -> tuple[np.ndarray, np.ndarray]:
    """A prediction with 8 islands in 10 parts, and a truth of 6 tumours."""
    truth, prediction = np.zeros((2, 16, 12, 6), bool)
    truth[2:6, 2:6, 1:4] = truth[9:11, 2:5, 1:3] = True
    truth[15, 11, ::2] = truth[0, 0, 5] = True  # four tumours that were missed
    prediction[3:7, 3:7, 1:5] = True  # a part on the first tumour, one outside piece
    prediction[8:12, 3, 1] = True  # a part through the second tumour: two outside pieces
    prediction[13:15, 1:3, 0:4] = True  # island through four slices
    prediction[range(8, 12), range(7, 11), 3] = True  # four islands: corners do not connect
    prediction[2, 9, 2] = True  # one more, of one voxel
    prediction[1, 2:4, 2] = prediction[9, 5, 2] = True  # two islands directly beside a tumour
    return prediction, truth


PREDICTION, TRUTH = _volumes()
FOUND = "You find {found:g} in a volume with {wanted:g} islands"

exercise_6_3 = Exercise(
    right=_islands,
    cases={
        "A volume with 8 islands": (PREDICTION, TRUTH),
        "No tumour": (PREDICTION, np.zeros_like(TRUTH)),
        "A perfect prediction": (TRUTH, TRUTH),
    },
    mistakes=(
        Mistake(
            lambda prediction, truth: _label(prediction)[1],
            FOUND + ": all parts are counted, also those with tumour in them.",
            "the condition: no voxel of the part is tumour.",
        ),
        Mistake(
            lambda prediction, truth: _label(prediction)[1] - _label(truth)[1],
            FOUND + ": you take the number of tumours from the number of parts.",
            "which part lies on which tumour: a tumour can be missed, and no part is then taken away for it.",
        ),
        Mistake(
            lambda prediction, truth: _label(prediction & ~truth)[1],
            FOUND + ": where a part reaches out of the tumour, its pieces outside are counted.",
            "what goes into `ndimage.label`: the prediction, with nothing cut off.",
        ),
        Mistake(
            lambda prediction, truth: _islands(prediction, truth, first=0),
            "Without any tumour all 10 parts are islands, but you find {found:g}.",
            "a patient without tumour: every part is a false finding, and part 0 is no part.",
        ),
    ),
    says=FOUND + ".",
    look="part numbers 1 to n: for each, is any voxel of `truth` in it?",
    praise="Dice hardly notices a small island; a radiologist would.",
)
