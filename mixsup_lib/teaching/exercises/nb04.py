"""Exercises of notebook 04: the roles of a fold, the walk through a pool, and a detector of leaking masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mixsup_lib.protocol import fold_bounds
from mixsup_lib.teaching.exercises.exercise import RETURN, Exercise, Mistake


def _roles(n: int, n_fa: int, fold: int) -> tuple[list[int], list[int], list[int]]:
    start, stop = fold_bounds(n, fold)
    circle = [position % n for position in range(stop, start + n)]
    return list(range(start, stop)), circle[:n_fa], circle[n_fa:]


def _but(change: Callable) -> Callable:
    """The right roles, changed: change(test, annotated, weak)."""
    return lambda n, n_fa, fold: change(*_roles(n, n_fa, fold))


def _sorted(roles: Callable, *arguments: int) -> Any:
    """The three lists, each sorted, or the words for what is not three lists."""
    found = roles(*arguments)
    if not isinstance(found, tuple | list) or len(found) != 3:
        return repr(found)
    return dict(zip(("test", "annotated", "weak"), (sorted(map(int, part)) for part in found), strict=True))


def _ends(positions: list[int]) -> str:
    return f"{positions[0]}..{positions[-1]}" if positions else "nobody"


def _other(part: str) -> Callable:
    """Whether a part is another one than wanted, in words."""
    return lambda found, wanted, *_: (
        found[part] != wanted[part] and f"{_ends(found[part])}, expected {_ends(wanted[part])}"
    )


exercise_4_1 = Exercise(
    right=_roles,
    cases={
        f"{n} patients, {n_fa} FA, fold {fold}": (n, n_fa, fold)
        for n, n_fa, fold in ((285, 5, 1), (285, 15, 2), (285, 5, 5), (285, 60, 4), (12, 3, 3), (12, 3, 5))
    },
    attempt=_sorted,
    mistakes=(
        Mistake(
            _but(lambda test, annotated, weak: (test, annotated)),
            "{case}: the answer is {found}, expected three lists.",
            RETURN,
            when=lambda found, *_: isinstance(found, str),
        ),
        Mistake(
            _but(
                lambda test, annotated, weak: (test, [test[-1] + 1 + i for i in range(len(annotated))], weak)
            ),
            "{case}: position {seen} does not exist.",
            "the circle: what comes after the last patient? `%` helps.",
            when=lambda found, wanted, n, *_: max(
                p for part in found.values() for p in part if not 0 <= p < n
            ),
        ),
        Mistake(
            lambda n, n_fa, fold: _roles(n, n_fa, fold % 5 + 1),
            "{case}: you test the block of fold {seen}.",
            "where folds start counting: at 1, so that fold 1 begins at position 0.",
            when=lambda found, wanted, n, n_fa, fold: (
                found["test"] == _roles(n, n_fa, fold + 1)[0] and fold + 1
            ),
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test[:-1], annotated, weak)),
            "{case}: you test {seen}.",
            "the formula for the block; `//` divides and drops the rest.",
            when=_other("test"),
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test, [test[-1], *annotated[:-1]], weak)),
            "{case}: position {seen} is tested and trained on.",
            "the first position after the block.",
            when=lambda found, *_: str(min({*found["test"]} & {*found["annotated"], *found["weak"]})),
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test, [p for p in annotated if p > test[-1]], weak)),
            "{case}: {seen} fully annotated patients.",
            "the circle: when the end of the list is reached, the next few stand at its beginning.",
            when=lambda found, wanted, n, n_fa, _: (
                len(found["annotated"]) != n_fa and str(len(found["annotated"]))
            ),
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test, sorted(annotated + weak)[: len(annotated)], weak)),
            "{case}: you annotate {seen}, those that follow the tested block.",
            "the sentence of section 4.2 on 'the next few images'.",
            when=_other("annotated"),
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test, annotated, annotated + weak)),
            "{case}: {seen} weak positions are fully annotated too.",
            "who is left when tested and annotated patients are taken away.",
            when=lambda found, *_: len({*found["weak"]} & {*found["annotated"]}),
        ),
    ),
    says="{case}: the weak positions are not all others, each of them once.",
    look="who is left when tested and annotated patients are taken away, and that nobody is counted twice.",
    praise="Every patient has one role in a fold, and over the five folds every patient is tested once.",
)


def _walk(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.permutation(rows) for _ in range(count // len(rows) + 1)])[:count]


def _three_walks(walk: Callable, rows: np.ndarray, count: int) -> list:
    """The draws (count,) with a seed, again, and with another seed."""
    return [walk(rows.copy(), count, np.random.default_rng(seed)) for seed in (1, 1, 2)]


exercise_4_2 = Exercise(
    right=_walk,
    cases={f"{count} draws from a pool of 20": (100 + 3 * np.arange(20), count) for count in (8, 20, 50, 0)},
    attempt=_three_walks,
    same=lambda found, wanted: found.shape == wanted.shape,
    mistakes=(
        Mistake(
            lambda rows, count, rng: np.concatenate([rng.permutation(rows) for _ in range(-(-count // 20))])[
                :count
            ],
            "8, 20 and 50 draws are right, 0 draws are not: {found}",
            "`count` may be 0 (standard supervision draws no weak slices): an empty array is right then.",
            when=lambda found, wanted, rows, count: count == 0 and np.shape(found) != wanted.shape,
        ),
        Mistake(
            lambda rows, count, rng: rng.permutation(rows)[:count],
            "{case}: the answer has shape {seen}.",
            RETURN,
            when=lambda found, wanted, rows, count: (
                found.shape[1:] != (count,) and f"{found.shape[1:]}, expected an array of shape {(count,)}"
            ),
        ),
        Mistake(
            lambda rows, count, rng: _walk(np.arange(20), count, rng),
            "{case}: you return positions in the pool (0 to 19), its rows are 100, 103, ... 157.",
            "what `rng.permutation` shuffles, and how a position becomes a row.",
            when=lambda found, wanted, rows, count: count and {*found[0]} <= {*range(20)},
        ),
        Mistake(
            lambda rows, count, rng: _walk(rows + 1, count, rng),
            "{case}: {seen} is no row of the pool.",
            "what the function draws from.",
            when=lambda found, wanted, rows, count: next(f"{row:g}" for row in found[0] if row not in rows),
        ),
        Mistake(
            lambda rows, count, rng: rng.choice(rows, count),
            "{case}: a row comes twice before every row has come once.",
            "the difference between drawing and walking; `rng.integers` and `rng.choice` put rows back by themselves.",
            when=lambda found, *_: any(
                len({*walk}) < len(walk) for walk in np.split(found[0], range(20, len(found[0]), 20))
            ),
        ),
        Mistake(
            lambda rows, count, rng: _walk(rows, count, np.random.default_rng()),
            "{case}: two generators with the same seed give different draws.",
            "a generator of your own: only `rng` may decide, or no run can be repeated.",
            when=lambda found, *_: (found[0] != found[1]).any(),
        ),
        Mistake(
            lambda rows, count, rng: np.resize(rows, count),
            "{case}: two seeds give the same order.",
            "where `rng` comes in: the pool is shuffled at the start.",
            when=lambda found, wanted, rows, count: count and (found[0] == found[2]).all(),
        ),
        Mistake(
            lambda rows, count, rng: np.resize(rng.permutation(rows), count),
            "{case}: the second walk has the order of the first.",
            "when to shuffle: anew whenever the pool is used up.",
            when=lambda found, wanted, rows, count: count >= 40 and (found[0][:20] == found[0][20:40]).all(),
        ),
    ),
    praise="Every row once before any row twice, each walk in an order of its own, and repeatable from its seed.",
)

WEAK = ("W1", "W2", "W3")
LABELLED = [(patient, z) for patient in WEAK for z in range(1, 5)]
"""What the slice labels say, without any mask."""

Masks = dict[str, np.ndarray]


def _masks() -> Masks:
    """Two annotated and three weak patients, 6 slices of 4x4; the tumour grows from slice 1 to slice 4."""
    masks = {patient: np.zeros((6, 4, 4), np.uint8) for patient in ("A1", "A2", *WEAK)}
    for number, mask in enumerate(masks.values()):
        for z in range(1, 5):
            mask[z].flat[: 2 * z + number - 1] = 1
    return masks


def _shown(masks: Masks, *patients: str) -> list:
    return [(patient, z) for patient in patients for z in range(6) if masks[patient][z].any()]


def _honest(masks: Masks, weak: list = LABELLED) -> list:
    """The slices of annotated patients by their masks, and those of weak ones."""
    return _shown(masks, "A1", "A2") + weak


SELECTIONS = {
    "by slice labels": _honest,
    "without weak patients": lambda masks: _honest(masks, []),
    "by weak masks": lambda masks: _honest(masks, _shown(masks, *WEAK)),
    "by one weak mask": lambda masks: _honest(masks, LABELLED[:8] + _shown(masks, "W3")),
    "largest": lambda masks: _honest(masks, [(p, int(masks[p].sum(axis=(1, 2)).argmax())) for p in WEAK]),
    "not small": lambda masks: _honest(masks, [(p, z) for p, z in LABELLED if masks[p][z].sum() >= 4]),
    "in an order": lambda masks: sorted(_honest(masks), key=lambda one: -int(masks[one[0]][one[1]].sum())),
}


class _MaskMissing(Exception):
    """What a selection raises if it is handed something else than every patient's mask."""


def _judged(leaks: Callable, selection: str, masks: Masks) -> Any:
    def select(masks: Masks) -> list:
        try:
            return SELECTIONS[selection](masks)
        except Exception as error:  # masks can be anything
            raise _MaskMissing(f"{type(error).__name__}: {error}") from error

    return leaks(select, masks, list(WEAK))


def _leaks(*changes: Callable, compare: Callable = set) -> Callable:
    """A detector that changes the masks of weak patients in one way after the other: change(mask, patient)."""

    def leaks(select: Callable, masks: Masks, weak: list[str]) -> bool:
        tried = [
            {p: change(mask, p) if p in weak else mask for p, mask in masks.items()} for change in changes
        ]
        return any(compare(select(changed)) != compare(select(masks)) for changed in tried)

    return leaks


def _emptied_in_place(select: Callable, masks: Masks, weak: list[str]) -> bool:
    expected = set(select(masks))
    for patient in weak:
        masks[patient][:] = 0
    return set(select(masks)) != expected


SPOILED = (lambda mask, _: 0 * mask, lambda mask, _: 0 * mask + 1)
_right_detector = _leaks(*SPOILED)
WHOSE = "whose masks you change, and with what you compare."

exercise_4_3 = Exercise(
    right=_right_detector,
    cases={f"A selection {name}": (name, _masks()) for name in SELECTIONS},
    attempt=_judged,
    mistakes=(
        Mistake(
            lambda select, masks, weak: (
                select({p: masks[p] for p in masks if p not in weak}) != select(masks)
            ),
            "`select` needs every patient's mask, and stopped with {found}.",
            "what you hand to `select`: change the arrays, keep the patients.",
            when=lambda found, *_: isinstance(found, _MaskMissing),
        ),
        Mistake(
            _emptied_in_place,
            "The masks you were given are changed when your function is done.",
            "`dict(masks)` copies the dict, not the arrays in it: put new arrays into the copy.",
            when=lambda found, wanted, _, masks: repr(masks) != repr(_masks()),
        ),
        Mistake(
            lambda select, masks, weak: _right_detector(select, masks, list(masks)),
            "You accuse a selection that uses weak patients' slice labels and fully annotated patients' masks only.",
            WHOSE,
        ),
        Mistake(
            lambda select, masks, weak: (
                {p for p, _ in select(masks)} == {"A1", "A2"} or _right_detector(select, masks, weak)
            ),
            "You accuse a selection that uses no weak patient at all.",
            WHOSE,
        ),
        Mistake(
            _leaks(lambda mask, _: mask[:, :, ::-1]),
            "You let through a selection that takes weak patients' slices from their masks instead of the slice "
            "labels.",
            "how you change a mask: a mirrored or shuffled one shows tumour in the same slices, so nothing changes "
            "here.",
        ),
        Mistake(
            _leaks(lambda mask, patient: 0 * mask if patient == "W1" else mask),
            "You let through a selection that looks into the mask of one weak patient, the last.",
            "which patients' masks you change.",
        ),
        Mistake(
            _leaks(SPOILED[0], compare=len),
            "You let through a selection that takes from each weak patient the slice with most tumour.",
            "what you compare: the number of slices stays the same here, the slices do not.",
        ),
        Mistake(
            _leaks(lambda mask, _: np.maximum(mask, np.arange(6)[:, None, None] == 0)),
            "You let through a selection that drops weak slices with fewer than four tumour pixels.",
            "whether your masks cross a threshold on the tumour's size: try none at all and nothing but tumour.",
        ),
        Mistake(
            _leaks(*SPOILED, compare=list),
            "You accuse a selection that always takes the same slices, only in an order that depends on the masks.",
            "what you compare: the exercise asks for the slices, in whatever order.",
        ),
    ),
    says="The answer is {found!r}, expected True or False.",
    praise="Four selections that leak are caught, and three honest ones are let through: your test can pass and "
    "can fail.",
)
