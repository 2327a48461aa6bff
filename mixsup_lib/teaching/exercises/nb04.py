"""Exercises of notebook 04: the roles of a fold, the walk through a pool, and a detector of leaking masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mixsup_lib.protocol import fold_bounds
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, cases


def _roles(n: int, n_fa: int, fold: int) -> tuple[list[int], list[int], list[int]]:
    start, stop = fold_bounds(n, fold)
    circle = [position % n for position in range(stop, start + n)]
    return list(range(start, stop)), circle[:n_fa], circle[n_fa:]


def _but(change: Callable) -> Callable:
    """The right roles, changed: change(test, annotated, weak)."""
    return lambda *arguments: change(*_roles(*arguments))


def _parts(test: list[int], annotated: list[int], weak: list[int]) -> dict[str, list[int]]:
    return {"test": sorted(test), "annotated": sorted(annotated), "weak": sorted(weak)}


def _ends(positions: list[int]) -> str:
    return f"{positions[0]}..{positions[-1]}" if positions else "nobody"


def _other(part: str) -> Callable:
    """Whether a part is another one than wanted, in words."""
    return lambda found, wanted, *_: (
        found[part] != wanted[part] and f"{_ends(found[part])}, expected {_ends(wanted[part])}"
    )


exercise_4_1 = Exercise(
    right=_roles,
    cases=cases("{} patients, {} FA, fold {}", (285, 5, 1), (285, 15, 2), (285, 5, 5), (285, 60, 4), (12, 3, 3)),
    attempt=lambda roles, *about: _parts(*roles(*about)),
    mistakes=(
        Mistake(
            _but(lambda test, annotated, weak: (test[:-1], annotated, weak)),
            "{case}: you test {seen}.",
            "the formula for the block; `//` divides and drops the rest.",
            when=_other("test"),
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test, [test[-1] + 1 + i for i in range(len(annotated))], weak)),
            "{case}: there is no position {seen}.",
            "the circle: what comes after the last patient? `%` helps.",
            when=lambda found, wanted, n, *_: found["annotated"][-1] >= n and n,
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test, sorted(annotated + weak)[: len(annotated)], weak)),
            "{case}: you annotate {seen}, those that follow the tested block.",
            "the sentence of section 4.2 on 'the next few images', and the circle.",
            when=_other("annotated"),
        ),
        Mistake(
            _but(lambda test, annotated, weak: (test, annotated, annotated + weak)),
            "{case}: fully annotated positions are weak too.",
            when=lambda found, *_: {*found["weak"]} & {*found["annotated"]},
        ),
    ),
    says="{case}: the weak positions are not all others, each of them once.",
    look="who is left when tested and annotated patients are taken away, and that nobody is counted twice.",
    praise="Every patient has one role in a fold, and over the five folds every patient is tested once.",
)


POOL = 100 + 3 * np.arange(20)


def _walks(drawn: np.ndarray) -> list[list[int]]:
    return [walk.tolist() for walk in np.split(drawn, range(len(POOL), len(drawn), len(POOL)))]


def _is_walk(found: np.ndarray, wanted: np.ndarray) -> bool:
    walks = _walks(found)
    shuffled = len(found) == 0 or walks[0] != POOL[: len(walks[0])].tolist()
    once = all({*walk} <= {*POOL} and len({*walk}) == len(walk) for walk in walks)
    return found.shape == wanted.shape and shuffled and once and walks[0] not in walks[1:]


exercise_4_2 = Exercise(
    right=lambda rows, count, rng: np.concatenate([rng.permutation(rows) for _ in range(count // len(rows) + 1)])[
        :count
    ],
    cases={f"{count} draws from a pool of 20": (POOL, count, np.random.default_rng(1)) for count in (8, 20, 50, 0)},
    same=_is_walk,
    mistakes=(
        Mistake(
            lambda rows, count, rng: rng.permutation(20)[:count],
            "{case}: you return positions in the pool (0 to 19), its rows are 100, 103, ... 157.",
            "what `rng.permutation` shuffles, and how a position becomes a row.",
            when=lambda found, *_: {*found} <= {*range(20)},
        ),
        Mistake(
            lambda rows, count, rng: rng.choice(rows, count),
            "{case}: a row comes twice before every row has come once.",
            "the difference between drawing and walking; `rng.integers` and `rng.choice` put rows back by themselves.",
            when=lambda found, *_: any(len({*walk}) < len(walk) for walk in _walks(found)),
        ),
        Mistake(
            lambda rows, count, rng: rows[np.arange(count) % 20],
            "{case}: the pool comes in its own order.",
            "where `rng` comes in: the pool is shuffled at the start.",
            when=lambda found, *_: (found[:20] == POOL[: len(found)]).all(),
        ),
        Mistake(
            lambda rows, count, rng: np.resize(rng.permutation(rows), count),
            "{case}: the second walk has the order of the first.",
            "when to shuffle: anew whenever the pool is used up.",
            when=lambda found, *_: (found[:20] == found[20:40]).all(),
        ),
    ),
    look="which rows the walk gives, and how many; `count` may be 0, and an empty array is right then.",
    praise="Every row once before any row twice, each walk in an order of its own, and repeatable from its seed.",
)

WEAK = ("W1", "W2", "W3")
LABELLED = [(patient, z) for patient in WEAK for z in range(1, 5)]
"""What the slice labels say, without any mask."""


def _masks() -> dict[str, np.ndarray]:
    """Two annotated and three weak patients, 6 slices of 4x4; the tumour grows from slice 1 to slice 4."""
    masks = {patient: np.zeros((6, 4, 4), np.uint8) for patient in ("A1", "A2", *WEAK)}
    for number, mask in enumerate(masks.values()):
        for z in range(1, 5):
            mask[z].flat[: 2 * z + number - 1] = 1
    return masks


def _shown(masks: dict[str, np.ndarray], *patients: str) -> list[tuple[str, int]]:
    return [(patient, z) for patient in patients for z in range(6) if masks[patient][z].any()]


def _honest(masks: dict[str, np.ndarray], weak: list[tuple[str, int]] = LABELLED) -> list[tuple[str, int]]:
    """The slices of annotated patients by their masks, and those of weak ones."""
    return _shown(masks, "A1", "A2") + weak


SELECTIONS = {
    "by slice labels": _honest,
    "without weak patients": lambda masks: _honest(masks, []),
    "by weak masks": lambda masks: _honest(masks, _shown(masks, *WEAK)),
    "by one weak mask": lambda masks: _honest(masks, LABELLED[:8] + _shown(masks, "W3")),
    "not small": lambda masks: _honest(masks, [(p, z) for p, z in LABELLED if masks[p][z].sum() >= 4]),
    "largest": lambda masks: _honest(masks, [(p, int(masks[p].sum(axis=(1, 2)).argmax())) for p in WEAK]),
    "in an order": lambda masks: sorted(_honest(masks), key=lambda one: -int(masks[one[0]][one[1]].sum())),
}


def _leaks(*changes: Callable, compare: Callable = set) -> Callable[..., bool]:
    """A detector that changes the masks of weak patients in one way after the other: change(mask, patient)."""

    def leaks(select: Callable, masks: dict[str, np.ndarray], weak: list[str]) -> bool:
        tried = [{p: change(mask, p) if p in weak else mask for p, mask in masks.items()} for change in changes]
        return any(compare(select(changed)) != compare(select(masks)) for changed in tried)

    return leaks


SPOILED = (lambda mask, _: 0 * mask, lambda mask, _: 0 * mask + 1)

exercise_4_3 = Exercise(
    right=_leaks(*SPOILED),
    cases={f"A selection {name}": (name, _masks()) for name in SELECTIONS},
    attempt=lambda leaks, name, masks: leaks(SELECTIONS[name], masks, list(WEAK)),
    mistakes=(
        Mistake(
            lambda select, masks, weak: _leaks(*SPOILED)(select, masks, list(masks)),
            "You accuse a selection that uses weak patients' slice labels and fully annotated patients' masks only.",
            "whose masks you change, and with what you compare.",
        ),
        Mistake(
            _leaks(lambda mask, _: mask[:, :, ::-1]),
            "You let through a selection that takes weak patients' slices from their masks instead of the slice "
            "labels.",
            "how you change a mask: a mirrored or shuffled one shows tumour in the same slices, so nothing changes "
            "here.",
        ),
        Mistake(
            _leaks(SPOILED[0], compare=len),
            "You let through a selection that takes from each weak patient the slice with most tumour.",
            "what you compare: the number of slices stays the same here, the slices do not.",
        ),
        Mistake(
            _leaks(*SPOILED, compare=list),
            "You accuse a selection that always takes the same slices, only in an order that depends on the masks.",
            "what you compare: the exercise asks for the slices, in whatever order.",
        ),
    ),
    look="which masks you change, how far, and with what you compare.",
    praise="Four selections that leak are caught, and three honest ones are let through: your test can pass and "
    "can fail.",
)
