"""Typical wrong answers to the exercises of notebook 11, each with words of its diagnosis."""

import numpy as np


def below_none(hours, n_fa):
    return (60 * hours - 45 * n_fa) // 1.5


def hours_for_minutes(hours, n_fa):
    return max((hours - 45 * n_fa / 60) // 1.5, 0)


def masks_for_free(hours, n_fa):
    return 60 * hours // 1.5


def part_of_a_scan(hours, n_fa):
    return max((60.5 * hours - 45 * n_fa) / 1.5, 0)


def all_masks(n_fa, n_wa, masks):
    return 45 * masks / n_wa


def in_hours(n_fa, n_wa, masks):
    return 0.75 * (masks - n_fa) / n_wa


def inverse(n_fa, n_wa, masks):
    return n_wa / (45 * (masks - n_fa))


def masks_only(surface, hours):
    return min(int(60 * hours // 45), int(surface.n_fa[-1])), 0


def fewest_masks(surface, hours):
    n_fa = int(surface.n_fa[0])
    return n_fa, min(int((60 * hours - 45 * n_fa) // 1.5), int(surface.n_wa[-1]))


def without_an_end(surface, hours):
    n_fa = int(surface.n_fa[0])
    return n_fa, int((60 * hours - 45 * n_fa) // 1.5)


def beyond_the_budget(surface, hours):
    return int(surface.n_fa[-1]), int(surface.n_wa[-1])


def always_all(surface, hours):
    """The rest of the hours always goes into slice labels."""
    plans = []
    for n_fa in range(surface.n_fa[0], surface.n_fa[-1] + 1):
        n_wa = min(int((60 * hours - 45 * n_fa) // 1.5), int(surface.n_wa[-1]))
        if n_wa >= 0:
            plans.append((surface.at(np.array([n_fa]), np.array([n_wa]))[0, 0], n_fa, n_wa))
    return max(plans)[1:]


WRONG = {
    "exercise_11_1": [
        (below_none, "fewer than none"),
        (hours_for_minutes, "as if a scan took 1.5 hours"),
        (masks_for_free, "the masks have not been paid for"),
        (part_of_a_scan, "labelled in part"),
    ],
    "exercise_11_2": [
        (all_masks, "are needed either way"),
        (in_hours, "is in hours"),
        (inverse, "the inverse"),
    ],
    "exercise_11_3": [
        (masks_only, "no slice labels at all"),
        (fewest_masks, "as few masks as possible"),
        (without_an_end, "outside what was measured"),
        (beyond_the_budget, "hours."),
        (always_all, "lower the Dice"),
    ],
}
