"""Typical wrong answers to the exercises of notebook 04, each with words of its diagnosis."""

import numpy as np


def block(n_patients, fold):
    return (fold - 1) * n_patients // 5, fold * n_patients // 5


def past_the_end(n_patients, n_fa, fold):
    start, stop = block(n_patients, fold)
    return (
        list(range(start, stop)),
        list(range(stop, stop + n_fa)),
        [p for p in range(n_patients) if p < start or p >= stop + n_fa],
    )


def cut_off(n_patients, n_fa, fold):
    start, stop = block(n_patients, fold)
    rest = list(range(stop, n_patients))
    return list(range(start, stop)), rest[:n_fa], [*rest[n_fa:], *range(start)]


def folds_from_zero(n_patients, n_fa, fold):
    start, stop = block(n_patients, fold + 1)
    circle = [p % n_patients for p in range(stop, start + n_patients)]
    return list(range(start, stop)), circle[:n_fa], circle[n_fa:]


def last_one_twice(n_patients, n_fa, fold):
    start, stop = block(n_patients, fold)
    circle = [p % n_patients for p in range(stop - 1, start + n_patients)]
    return list(range(start, stop)), circle[:n_fa], circle[n_fa:]


def always_the_first(n_patients, n_fa, fold):
    start, stop = block(n_patients, fold)
    others = [*range(start), *range(stop, n_patients)]
    return list(range(start, stop)), others[:n_fa], others[n_fa:]


def annotated_are_weak_too(n_patients, n_fa, fold):
    start, stop = block(n_patients, fold)
    circle = [p % n_patients for p in range(stop, start + n_patients)]
    return list(range(start, stop)), circle[:n_fa], circle


def with_replacement(rows, count, rng):
    return rng.choice(rows, count)


def positions(rows, count, rng):
    order = [rng.permutation(len(rows)) for _ in range(count // len(rows) + 1)]
    return np.concatenate(order)[:count]


def same_order_again(rows, count, rng):
    return np.tile(rng.permutation(rows), count // len(rows) + 1)[:count]


def never_shuffled(rows, count, rng):
    return np.tile(rows, count // len(rows) + 1)[:count]


def own_generator(rows, count, rng):
    rng = np.random.default_rng()
    order = [rng.permutation(rows) for _ in range(count // len(rows) + 1)]
    return np.concatenate(order)[:count]


def one_walk_only(rows, count, rng):
    return rng.permutation(rows)[:count]


def fails_without_draws(rows, count, rng):
    return np.concatenate([rng.permutation(rows) for _ in range(-(-count // len(rows)))])[:count]


def replaced(masks, patients, change):
    return {**masks, **{patient: change(masks[patient]) for patient in patients}}


def mirrored(select, masks, weak):
    return select(replaced(masks, weak, lambda mask: mask[:, :, ::-1])) != select(masks)


def emptied_in_place(select, masks, weak):
    expected = select(masks)
    for patient in weak:
        masks[patient][:] = 0
    return select(masks) != expected


def everybody(select, masks, weak):
    return select(replaced(masks, masks, lambda mask: 0 * mask)) != select(masks)


def first_only(select, masks, weak):
    return select(replaced(masks, weak[:1], lambda mask: 0 * mask)) != select(masks)


def counts_only(select, masks, weak):
    return len(select(replaced(masks, weak, lambda mask: 0 * mask))) != len(select(masks))


def deleted(select, masks, weak):
    return select({p: mask for p, mask in masks.items() if p not in weak}) != select(masks)


def no_arrays(select, masks, weak):
    return select(replaced(masks, weak, lambda mask: None)) != select(masks)


def tumour_in_the_first_slice(select, masks, weak):
    first = np.arange(6)[:, None, None] == 0
    return select(replaced(masks, weak, lambda mask: np.maximum(mask, first))) != select(masks)


WRONG = {
    "exercise_4_1": [
        (past_the_end, "does not exist"),
        (cut_off, "0 fully annotated patients"),
        (folds_from_zero, "you test the block of fold 2"),
        (last_one_twice, "tested and trained on"),
        (always_the_first, "that follow the tested block"),
        (annotated_are_weak_too, "fully annotated too"),
    ],
    "exercise_4_2": [
        (with_replacement, "twice before every row has come once"),
        (positions, "positions in the pool"),
        (same_order_again, "the second walk has the order of the first"),
        (never_shuffled, "two seeds give the same order"),
        (own_generator, "same seed give different draws"),
        (fails_without_draws, "standard supervision draws no weak slices"),
        (one_walk_only, "has shape (20,), expected an array of shape (50,)"),
    ],
    "exercise_4_3": [
        (mirrored, "from their masks instead"),
        (emptied_in_place, "are changed when your function is done"),
        (everybody, "You accuse a selection"),
        (first_only, "one weak patient, the last"),
        (deleted, "change the arrays, keep the patients"),
        (no_arrays, "`select` needs every patient's mask, and stopped with TypeError"),
        (counts_only, "the slice with most tumour"),
        (tumour_in_the_first_slice, "fewer than four tumour pixels"),
    ],
}
