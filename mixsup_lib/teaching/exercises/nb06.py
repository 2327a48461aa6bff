"""Checks of notebook 06: Dice from counts, errors per slice in millilitres, false findings."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixsup_lib.evaluation import dice
from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect


@check
def exercise_6_1(dice_from_counts: Any) -> str:
    """Numbers of hit, missed and extra voxels -> Dice in percent, NaN without tumour in the ground truth."""
    for hit, missed, extra in ((60, 20, 40), (0, 50, 10), (30, 0, 0), (1, 99, 0)):
        mask = np.zeros(200, bool)
        truth, prediction = mask.copy(), mask.copy()
        truth[: hit + missed] = True
        prediction[missed : hit + missed + extra] = True
        right = dice(prediction, truth)
        found = float(as_array(call(dice_from_counts, hit, missed, extra), ()))
        where = f"{hit} hit, {missed} missed, {extra} extra"
        union = hit + missed + extra
        expect(
            np.isclose(right, 0) or not np.isclose(found, right / 100),
            f"{where}: {found:g} is Dice as a fraction.",
            "the unit the paper prints, and the exercise asks for.",
        )
        expect(
            hit in (0, union) or not np.isclose(found, 100 * hit / union),
            f"{where}: {found:.1f} is the Jaccard index, the overlap divided by the union.",
            "the denominator of equation (2): the sizes of the two masks, in which a hit is counted twice.",
        )
        expect(
            extra == 0 or hit == 0 or not np.isclose(found, 100 * hit / (hit + missed)),
            f"{where}: {found:.1f} is the sensitivity; the {extra} extra voxels cost nothing.",
            "the size of the prediction in equation (2).",
        )
        expect(
            np.isclose(found, right),
            f"{where}: you return {found:.4g}, expected {right:.4g}.",
            "equation (2) with |prediction| = hit + extra and |truth| = hit + missed.",
        )
    for extra in (0, 5):
        answer = call(dice_from_counts, 0, 0, extra, or_none=True)
        where = f"No tumour in the ground truth, {extra} extra voxels"
        expect(
            answer is not None,
            f"{where}: you return None, which is no number.",
            "`math.nan`, the number that stands for 'not defined'.",
        )
        found = float(as_array(answer, ()))
        expect(
            np.isnan(found),
            f"{where}: you return {found:g}.",
            "the rule for a patient without the region: not 0, not 100, but left out (NaN).",
        )
    return "The fourth count, voxels in neither mask, does not occur: Dice does not depend on how much air is scanned."


@check
def exercise_6_2(errors_by_slice: Any) -> str:
    """Masks (X, Y, Z) and voxel size in mm -> missed (Z,) and extra (Z,) in ml."""
    rng = np.random.default_rng(6)
    truth, prediction = (rng.random((7, 6, 5)) < share for share in (0.5, 0.3))
    size = (2.0, 2.5, 4.0)
    answer = call(errors_by_slice, prediction.copy(), truth.copy(), size)
    expect(
        isinstance(answer, list | tuple | np.ndarray) and len(answer) == 2,
        "The answer is not a pair of arrays.",
        "the exercise's text: missed first, extra second.",
    )
    missed_voxels, extra_voxels = truth & ~prediction, prediction & ~truth
    wrong_axis = [part.sum(axis=(1, 2)) for part in (missed_voxels, extra_voxels)]
    expect(
        np.shape(answer[0]) != np.shape(wrong_axis[0]),
        "Your arrays have one entry for each x.",
        "the order of the axes, (X, Y, Z): sum over the first two, `axis=(0, 1)`.",
    )
    missed, extra = as_array(answer[0], (5,)), as_array(answer[1], (5,))
    right_missed, right_extra = (part.sum(axis=(0, 1)) * 20 / 1000 for part in (missed_voxels, extra_voxels))
    expect(
        not (np.allclose(missed, right_extra) and np.allclose(extra, right_missed)),
        "Missed and extra are exchanged.",
        "which mask a missed voxel belongs to: the ground truth.",
    )
    for name, found, right in (("missed", missed, right_missed), ("extra", extra, right_extra)):
        for factor, unit in ((50, "voxels"), (1000, "mm³")):
            expect(
                not np.allclose(found, right * factor),
                f"The {name} volume is in {unit}.",
                "the volume of a voxel, the product of its three sides in mm, and 1 ml = 1000 mm³.",
            )
        cubes = [side for side in size if np.allclose(found, right * side**3 / 20)]
        expect(
            not cubes,
            f"The {name} volume takes a voxel for a cube of {sum(cubes[:1]):g} mm, but its sides differ.",
            "the volume of a voxel: the product of three sides, not a cube.",
        )
        expect(
            not np.allclose(found, abs(right_missed - right_extra)),
            f"The {name} volume is a difference of the two masks' areas, which lets errors cancel.",
            "voxels that are in one mask and not in the other: `a & ~b`.",
        )
        expect(
            np.allclose(found, right),
            f"The {name} volume of slice 0 is {found[0]:.4g} ml, expected {right[0]:.4g}.",
            "the voxels that are counted (`a & ~b`), and the volume of each: the product of its three sides.",
        )
    return "Missed and invented volume do not cancel, as they would in a comparison of total volumes."


def _example() -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Prediction, truth, and what several ways of counting make of them."""
    truth, prediction = np.zeros((16, 12, 6), bool), np.zeros((16, 12, 6), bool)
    truth[2:6, 2:6, 1:4] = truth[9:11, 2:5, 1:3] = True
    prediction[3:7, 3:7, 1:5] = True  # a part on the first tumour, one outside piece
    prediction[8:12, 3, 1] = True  # a part through the second tumour: two outside pieces
    prediction[13:15, 1:3, 0:4] = True  # island through four slices
    prediction[range(8, 12), range(7, 11), 3] = True  # four islands: corners do not connect
    prediction[2, 9, 2] = True  # one more, of one voxel
    prediction[1, 2:4, 2] = prediction[9, 5, 2] = True  # two islands directly beside a tumour
    counts = {
        "islands": 8,
        "parts": 8 + 2,
        "touching": 2,
        "by slice": (4 + 4 + 1 + 2) + 1,
        "pieces": 8 + 1 + 2,
        "beside": 8 - 2,
        "background": 8 - 1,
        "corners": 8 - 3,
    }
    return prediction, truth, counts


@check
def exercise_6_3(islands: Any) -> str:
    """Prediction and truth (X, Y, Z) -> number of connected parts of the prediction without a tumour voxel."""
    prediction, truth, counts = _example()
    found = float(as_array(call(islands, prediction.copy(), truth.copy()), ()))
    voxels = int((prediction & ~truth).sum())
    for count, message, look in (
        (
            counts["parts"],
            "all parts are counted, also those with tumour in them.",
            "the condition: no voxel of the part is tumour.",
        ),
        (
            counts["touching"],
            "this counts the parts that do touch the tumour.",
            "the condition: it is the other way round.",
        ),
        (
            counts["by slice"],
            "parts are counted in each slice anew.",
            "`ndimage.label` on the whole volume, not slice by slice.",
        ),
        (
            counts["pieces"],
            "where a part reaches out of the tumour, its pieces outside are counted.",
            "what goes into `ndimage.label`: the prediction, with nothing cut off.",
        ),
        (
            counts["beside"],
            "parts directly beside a tumour are taken for findings of it.",
            "the condition: only a tumour voxel *in* the part counts, not one next to it.",
        ),
        (
            counts["background"],
            "part 0 is the background, no part.",
            "part numbers 1 to n: `range(1, n + 1)`; most missed tumour voxels have part number 0.",
        ),
        (
            counts["corners"],
            "voxels that only meet at a corner were taken for connected.",
            "the default of `ndimage.label`: faces.",
        ),
        (
            voxels,
            "these are the extra voxels, not the parts they form.",
            "what the exercise counts: parts without any tumour voxel.",
        ),
    ):
        expect(
            found != count,
            f"You find {found:g} in a volume with {counts['islands']} islands: {message}",
            look,
        )
    expect(
        found == counts["islands"],
        f"You find {found:g} in a volume with {counts['islands']} islands.",
        "part numbers 1 to n: for each, is any voxel of `truth` in it?",
    )
    empty = float(as_array(call(islands, prediction, np.zeros_like(truth)), ()))
    expect(
        empty == counts["parts"],
        f"Without any tumour all {counts['parts']} parts are islands, but you find {empty:g}.",
        "a patient without tumour: every part is a false finding, and part 0 is no part.",
    )
    expect(
        float(as_array(call(islands, truth, truth), ())) == 0,
        "A perfect prediction has islands in your count.",
        "parts that hold a tumour voxel; part 0 is the background, no part.",
    )
    return "Dice hardly notices a small island; a radiologist would."
