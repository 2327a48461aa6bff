"""Exercises of notebook 06: Dice from counts, errors per slice in millilitres, false findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixsup_lib.evaluation import dice
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, close


def _dice(hit: int, missed: int, extra: int) -> float:
    """The library's Dice of two masks with so many voxels."""
    truth, prediction = np.zeros((2, hit + missed + extra), bool)
    truth[: hit + missed] = True
    prediction[missed:] = True
    return dice(prediction, truth)


exercise_6_1 = Exercise(
    right=_dice,
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
            lambda hit, missed, extra: 200 * hit / (2 * hit + missed + extra) if hit + missed else None,
            "{case}: you return None, which is no number.",
            "`math.nan`, the number that stands for 'not defined'.",
        ),
        Mistake(
            lambda hit, missed, extra: 200 * hit / max(2 * hit + missed + extra, 1),
            "{case}: you return {found:g}.",
            "the rule for a patient without the region: not 0, not 100, but left out (NaN).",
            when=lambda found, wanted, *_: np.isnan(wanted) and not np.isnan(found),
        ),
    ),
    says="{case}: you return {found:.4g}, expected {wanted:.4g}.",
    look="equation (2) with |prediction| = hit + extra and |truth| = hit + missed.",
    praise="The fourth count, voxels in neither mask, does not occur: Dice does not depend on how much air is scanned.",
)

SIZE = (2.0, 2.5, 4.0)
"""Sides of a voxel in mm: 20 mm³."""


def _two_masks() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    truth, prediction = (rng.random((7, 6, 5)) < share for share in (0.5, 0.3))
    return prediction, truth


def _errors(ml: float = 0.02, axis: tuple[int, int] = (0, 1)) -> Callable:
    """Missed and extra volume (2, Z), with the volume of a voxel and the axes to sum over."""
    return lambda prediction, truth, _: (
        np.array([(truth & ~prediction).sum(axis=axis), (prediction & ~truth).sum(axis=axis)]) * ml
    )


def _of_areas(prediction: np.ndarray, truth: np.ndarray, _: Any) -> np.ndarray:
    difference = 0.02 * (truth.sum(axis=(0, 1)) - prediction.sum(axis=(0, 1)))
    return np.maximum([difference, -difference], 0)


def _either(is_wrong: Callable) -> Callable:
    """Which of the two volumes is wrong in this way: is_wrong(volume, right)."""
    return lambda found, wanted, *_: next(
        name
        for name, one, right in zip(("missed", "extra"), found, wanted, strict=True)
        if is_wrong(one, right)
    )


exercise_6_2 = Exercise(
    right=_errors(),
    cases={"Two volumes of 7x6x5 voxels": (*_two_masks(), SIZE)},
    mistakes=(
        Mistake(
            _errors(axis=(1, 2)),
            "Your arrays have one entry for each x.",
            "the order of the axes, (X, Y, Z): sum over the first two, `axis=(0, 1)`.",
            when=lambda found, wanted, prediction, *_: found.shape == (2, len(prediction)),
        ),
        Mistake(
            lambda *arguments: _errors()(*arguments)[::-1],
            "Missed and extra are exchanged.",
            "which mask a missed voxel belongs to: the ground truth.",
        ),
        Mistake(
            _errors(1.0),
            "The {seen} volume is in voxels.",
            "the volume of a voxel, the product of its three sides in mm, and 1 ml = 1000 mm³.",
            when=_either(lambda volume, right: close(volume, 50 * right)),
        ),
        Mistake(
            _errors(20.0),
            "The {seen} volume is in mm³.",
            "the unit: 1 ml = 1000 mm³.",
            when=_either(lambda volume, right: close(volume, 1000 * right)),
        ),
        Mistake(
            _errors(SIZE[0] ** 3 / 1000),
            "The {seen} volume takes a voxel for a cube, but its sides differ.",
            "the volume of a voxel: the product of three sides, not a cube.",
            when=_either(lambda volume, right: any(close(volume, right * side**3 / 20) for side in SIZE)),
        ),
        Mistake(
            _of_areas,
            "The {seen} volume is a difference of the two masks' areas, which lets errors cancel.",
            "voxels that are in one mask and not in the other: `a & ~b`.",
            when=lambda found, wanted, *_: _either(lambda one, _: close(one, abs(wanted[0] - wanted[1])))(
                found, wanted
            ),
        ),
        Mistake(
            lambda *arguments: _errors()(*arguments) * [[1], [2]],
            "The extra volume of slice 0 is {found[1][0]:.4g} ml, expected {wanted[1][0]:.4g}.",
            "the voxels that are drawn too much: in the prediction and not in the ground truth.",
            when=lambda found, wanted, *_: close(found[0], wanted[0]) and not close(found[1], wanted[1]),
        ),
    ),
    says="The missed volume of slice 0 is {found[0][0]:.4g} ml, expected {wanted[0][0]:.4g}.",
    look="the voxels that are counted (`a & ~b`), and the volume of each: the product of its three sides.",
    praise="Missed and invented volume do not cancel, as they would in a comparison of total volumes.",
)


def _label(mask: np.ndarray, structure: Any = None) -> tuple[np.ndarray, int]:
    from scipy import ndimage

    return ndimage.label(mask, structure)


def _grown(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_dilation(mask)


def _islands(prediction: np.ndarray, truth: np.ndarray, first: int = 1, structure: Any = None) -> int:
    parts, n = _label(prediction, structure)
    return sum(not truth[parts == part].any() for part in range(first, n + 1))


def _parts_hit(prediction: np.ndarray, truth: np.ndarray) -> int:
    """How many part numbers are found at tumour voxels, 0 among them where one was missed."""
    return len(np.unique(_label(prediction)[0][truth]))


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
FOUND = "You find {found:g} in a volume with 8 islands"

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
            lambda prediction, truth: _label(prediction)[1] - _islands(prediction, truth),
            FOUND + ": this counts the parts that do touch the tumour.",
            "the condition: it is the other way round.",
        ),
        Mistake(
            lambda prediction, truth: _label(prediction)[1] - _label(truth)[1],
            FOUND + ": you take the number of tumours from the number of parts.",
            "which part lies on which tumour: a tumour can be missed, and no part is then taken away for it.",
        ),
        Mistake(
            lambda prediction, truth: sum(
                _islands(prediction[..., z], truth[..., z]) for z in range(truth.shape[2])
            ),
            FOUND + ": parts are counted in each slice anew.",
            "`ndimage.label` on the whole volume, not slice by slice.",
        ),
        Mistake(
            lambda prediction, truth: _label(prediction & ~truth)[1],
            FOUND + ": where a part reaches out of the tumour, its pieces outside are counted.",
            "what goes into `ndimage.label`: the prediction, with nothing cut off.",
        ),
        Mistake(
            lambda prediction, truth: _islands(prediction, _grown(truth)),
            FOUND + ": parts directly beside a tumour are taken for findings of it.",
            "the condition: only a tumour voxel *in* the part counts, not one next to it.",
        ),
        Mistake(
            lambda prediction, truth: _label(prediction)[1] - _parts_hit(prediction, truth),
            FOUND + ": part 0 is the background, no part.",
            "part numbers 1 to n: `range(1, n + 1)`; most missed tumour voxels have part number 0.",
        ),
        Mistake(
            lambda prediction, truth: _islands(prediction, truth, structure=np.ones((3, 3, 3))),
            FOUND + ": voxels that only meet at a corner were taken for connected.",
            "the default of `ndimage.label`: faces.",
        ),
        Mistake(
            lambda prediction, truth: (prediction & ~truth).sum(),
            FOUND + ": these are the extra voxels, not the parts they form.",
            "what the exercise counts: parts without any tumour voxel.",
        ),
        Mistake(
            lambda prediction, truth: _islands(prediction, truth, first=0),
            "Without any tumour all 10 parts are islands, but you find {found:g}.",
            "a patient without tumour: every part is a false finding, and part 0 is no part.",
            when=lambda found, wanted, prediction, truth: not truth.any() and found != wanted,
        ),
        Mistake(
            lambda prediction, truth: _label(prediction)[1] - _parts_hit(prediction, truth) + truth.any(),
            "A perfect prediction has islands in your count.",
            "parts that hold a tumour voxel; part 0 is the background, no part.",
            when=lambda found, wanted, *_: wanted == 0 and found != 0,
        ),
    ),
    says=FOUND + ".",
    look="part numbers 1 to n: for each, is any voxel of `truth` in it?",
    praise="Dice hardly notices a small island; a radiologist would.",
)
