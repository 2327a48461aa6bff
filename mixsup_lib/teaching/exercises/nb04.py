"""Checks of notebook 04: the roles of a fold, the walk through a pool, and a detector of leaking masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixsup_lib.protocol import fold_bounds
from mixsup_lib.teaching.exercises.verdict import RETURN, Diagnosis, as_array, call, check, expect


@check
def exercise_4_1(roles: Any) -> str:
    """Patients, FA patients, fold -> positions tested, fully annotated, weak."""
    for n_patients, n_fa, fold in (
        (285, 5, 1),
        (285, 15, 2),
        (285, 5, 5),
        (285, 60, 4),
        (12, 3, 3),
        (12, 3, 5),
    ):
        start, stop = fold_bounds(n_patients, fold)
        circle = [position % n_patients for position in range(stop, start + n_patients)]
        found = call(roles, n_patients, n_fa, fold)
        where = f"{n_patients} patients, {n_fa} FA, fold {fold}"
        expect(
            isinstance(found, (tuple, list)) and len(found) == 3,
            f"{where}: the answer is {found!r}, expected three lists.",
            RETURN,
        )
        test, annotated, weak = (list(map(int, part)) for part in found)
        outside = [p for p in (*test, *annotated, *weak) if not 0 <= p < n_patients]
        expect(
            not outside,
            f"{where}: position {max(outside, default=0)} does not exist, they end at {n_patients - 1}.",
            "the circle: what comes after the last patient? `%` helps.",
        )
        expect(
            test != list(range(stop, stop + len(test))) or not test,
            f"{where}: you test the block of fold {fold + 1}.",
            "where folds start counting: at 1, so that fold 1 begins at position 0.",
        )
        expect(
            sorted(test) == list(range(start, stop)),
            f"{where}: you test {_ends(test)}, expected {_ends(range(start, stop))}.",
            "the formula for the block; `//` divides and drops the rest.",
        )
        expect(
            not set(test) & {*annotated, *weak},
            f"{where}: position {min(set(test) & {*annotated, *weak}, default=0)} is tested and trained on.",
            "the first position after the block.",
        )
        expect(
            len(annotated) == n_fa,
            f"{where}: {len(annotated)} fully annotated patients.",
            "the circle: when the end of the list is reached, the next few stand at its beginning.",
        )
        expect(
            set(annotated) == set(circle[:n_fa]),
            f"{where}: you annotate {_ends(annotated)}, expected the {n_fa} that follow the tested block.",
            "the sentence of section 4.2 on 'the next few images'.",
        )
        expect(
            sorted(weak) == sorted(circle[n_fa:]),
            f"{where}: {len(weak)} weak positions, {len(set(weak) & set(annotated))} of them fully annotated too; "
            f"expected {len(circle) - n_fa}.",
            "who is left when tested and annotated patients are taken away.",
        )
    return "Every patient has one role in a fold, and over the five folds every patient is tested once."


def _ends(positions: Any) -> str:
    return f"{min(positions)}..{max(positions)}" if len(positions) else "nobody"


@check
def exercise_4_2(walk: Any) -> str:
    """Rows of a pool, count, generator -> the rows drawn."""
    rows = 100 + 3 * np.arange(20)
    for count in (8, 20, 50, 0):
        where = f"{count} draws from a pool of 20"
        drawn = _drawn(walk, rows, count, seed=1).astype(int)
        walks = [drawn[start : start + 20] for start in range(0, count, 20)]
        expect(
            not count or not set(drawn) <= set(range(20)),
            f"{where}: you return positions in the pool (0 to 19), its rows are 100, 103, ... 157.",
            "what `rng.permutation` shuffles, and how a position becomes a row.",
        )
        expect(
            set(drawn) <= set(rows),
            f"{where}: {sorted(set(drawn) - set(rows))[:1]} is no row of the pool.",
            "what the function draws from.",
        )
        expect(
            all(len(set(one)) == len(one) for one in walks),
            f"{where}: a row comes twice before every row has come once.",
            "the difference between drawing and walking; `rng.integers` and `rng.choice` put rows back by themselves.",
        )
        again, other = (_drawn(walk, rows, count, seed) for seed in (1, 2))
        expect(
            (again == drawn).all(),
            f"{where}: two generators with the same seed give different draws.",
            "a generator of your own: only `rng` may decide, or no run can be repeated.",
        )
        expect(
            count == 0 or not (other == drawn).all(),
            f"{where}: two seeds give the same order.",
            "where `rng` comes in: the pool is shuffled at the start.",
        )
        expect(
            count < 40 or not (walks[0] == walks[1]).all(),
            f"{where}: the second walk has the order of the first.",
            "when to shuffle: anew whenever the pool is used up.",
        )
    return (
        "Every row once before any row twice, each walk in an order of its own, and repeatable from its seed."
    )


def _drawn(walk: Any, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    try:
        return as_array(call(walk, rows.copy(), count, np.random.default_rng(seed)), (count,))
    except Diagnosis as found:
        if count:
            raise
        raise Diagnosis(
            f"8, 20 and 50 draws are right, 0 draws are not: {found.message}",
            "`count` may be 0 (standard supervision draws no weak slices): an empty array is right then.",
        ) from found


@check
def exercise_4_3(leaks: Any) -> str:
    """A detector of leaks against selections that use the masks of weak patients in different ways, or do not."""
    weak = ["W1", "W2", "W3"]
    for name, is_leak, select in _suspects():
        masks = _masks()
        found = call(leaks, _with_every_mask(select), masks, list(weak))
        expect(
            isinstance(found, (bool, np.bool_)),
            f"The answer is {found!r}, expected True or False.",
            RETURN,
        )
        expect(
            set(masks) == set(_masks())
            and all(np.array_equal(masks[p], mask) for p, mask in _masks().items()),
            "The masks you were given are changed when your function is done.",
            "`dict(masks)` copies the dict, not the arrays in it: put new arrays into the copy.",
        )
        missed, hint = _MISSED[name]
        expect(found == is_leak, missed, hint)
    return "Four selections that leak are caught, and two honest ones are let through: your test can pass and can fail."


def _with_every_mask(select: Callable[[dict], list]) -> Callable[[dict], list]:
    """`select`, which says what it needs where it is handed something else."""

    def careful(masks: dict) -> list:
        try:
            return select(masks)
        except Exception as error:  # masks can be anything
            raise Diagnosis(
                f"`select` needs every patient's mask, and stopped with {type(error).__name__}: {error}.",
                "what you hand to `select`: change the arrays, keep the patients.",
            ) from error

    return careful


_MISSED = {
    "honest": (
        "You accuse a selection that uses weak patients' slice labels and fully annotated patients' masks, no more.",
        "whose masks you change, and with what you compare.",
    ),
    "annotated only": (
        "You accuse a selection that uses no weak patient at all.",
        "whose masks you change, and with what you compare.",
    ),
    "presence": (
        "You let through a selection that takes weak patients' slices from their masks instead of the slice labels.",
        "how you change a mask: a mirrored or shuffled one shows tumour in the same slices, so nothing changes here.",
    ),
    "last": (
        "You let through a selection that looks into the mask of one weak patient, the last.",
        "which patients' masks you change.",
    ),
    "largest": (
        "You let through a selection that takes from each weak patient the slice with most tumour.",
        "what you compare: the number of slices stays the same here, the slices do not.",
    ),
    "small": (
        "You let through a selection that drops weak slices with fewer than four tumour pixels.",
        "whether your changed masks cross a threshold on the tumour's size: try none at all and nothing but tumour.",
    ),
}


def _masks() -> dict[str, np.ndarray]:
    """Two annotated and three weak patients, 6 slices of 4x4; the tumour grows from slice 1 to slice 4."""
    masks = {}
    for number, patient in enumerate(("A1", "A2", "W1", "W2", "W3")):
        masks[patient] = np.zeros((6, 4, 4), np.uint8)
        for z in range(1, 5):
            masks[patient][z].flat[: 2 * z + number - 1] = 1
    return masks


def _suspects() -> list[tuple[str, bool, Callable[[dict], list]]]:
    """(name, does it leak, selection)."""
    labels = {patient: range(1, 5) for patient in ("W1", "W2", "W3")}  # the slice labels, without any mask

    def shown(mask: np.ndarray) -> list[int]:
        return [z for z in range(len(mask)) if mask[z].any()]

    def annotated(masks: dict) -> list:
        return [(patient, z) for patient in ("A1", "A2") for z in shown(masks[patient])]

    def honest(masks: dict) -> list:
        return annotated(masks) + [(patient, z) for patient, slices in labels.items() for z in slices]

    def presence(masks: dict) -> list:
        return annotated(masks) + [(patient, z) for patient in labels for z in shown(masks[patient])]

    def last(masks: dict) -> list:
        return [one for one in honest(masks) if one[0] != "W3"] + [("W3", z) for z in shown(masks["W3"])]

    def largest(masks: dict) -> list:
        return annotated(masks) + [(p, int(masks[p].sum(axis=(1, 2)).argmax())) for p in labels]

    def small(masks: dict) -> list:
        return annotated(masks) + [
            (p, z) for p, slices in labels.items() for z in slices if masks[p][z].sum() >= 4
        ]

    found = {
        "honest": honest,
        "annotated only": annotated,
        "presence": presence,
        "last": last,
        "largest": largest,
        "small": small,
    }
    return [(name, name not in ("honest", "annotated only"), select) for name, select in found.items()]
