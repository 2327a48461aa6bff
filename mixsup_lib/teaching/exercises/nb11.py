"""Exercises of notebook 11: what hours buy, when weak scans pay, and the best plan for a budget."""

from __future__ import annotations

import functools

import numpy as np

from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, cases, close
from mixsup_lib.teaching.planner import Surface, plans

FA, WA = 45.0, 1.5

exercise_11_1 = Exercise(
    right=lambda hours, n_fa: max((60 * hours - FA * n_fa) // WA, 0),
    cases=cases("{:g} hours, {} mask(s)", (10, 5), (4, 5), (4.015, 5), (3.75, 5), (3, 5), (8, 9), (1, 1)),
    mistakes=(
        Mistake(
            lambda hours, n_fa: (60 * hours - FA * n_fa) // WA,
            "{case}: {found:g} scans, fewer than none.",
            "what happens when the masks alone take longer than the hours.",
        ),
        Mistake(
            lambda hours, n_fa: 60 * hours // WA,
            "{case}: {found:g} scans, but the masks have not been paid for.",
            "what is left of the hours after n_fa masks.",
        ),
        Mistake(
            lambda hours, n_fa: max((60 * hours - FA * n_fa) / WA, 0),
            "{case}: {found:g} scans; a scan that is labelled in part does not count.",
            "how to round down to a whole number of scans.",
        ),
    ),
    says="{case}: {found:g} scans, expected another number.",
    look="45 minutes a mask, 1.5 minutes a scan with slice labels, rounded down.",
    praise="One mask costs as much as the slice labels of 30 scans.",
)

exercise_11_2 = Exercise(
    right=lambda n_fa, n_wa, masks: FA * (masks - n_fa) / n_wa,
    cases=cases("{} FA + {} WA against {} FA", (5, 223, 15), (5, 50, 6), (2, 10, 12)),
    same=functools.partial(close, tolerance=1e-3),
    mistakes=(
        Mistake(
            lambda n_fa, n_wa, masks: FA * masks / n_wa,
            "{case}: {found:.3g} minutes pays for all masks of the other plan, but some are needed either way.",
            "what the weak scans replace: the masks that only the other plan needs.",
        ),
        Mistake(
            lambda n_fa, n_wa, masks: FA / 60 * (masks - n_fa) / n_wa,
            "{case}: {found:.3g} is in hours, asked are minutes.",
            "the unit of the 45.",
        ),
        Mistake(
            lambda n_fa, n_wa, masks: n_wa / (FA * (masks - n_fa)),
            "{case}: {found:.3g} is the inverse of the answer.",
            "which of the two you solve for: n_wa x minutes = 45 x masks saved.",
        ),
    ),
    says="{case}: {found:.3g} minutes, expected another number.",
    look="equal costs: 45 n_fa + minutes x n_wa = 45 masks.",
    praise="Above that many minutes a scan, outlining is the cheaper way to the same Dice.",
)


def _surface() -> Surface:
    """A made-up surface on which slice labels help beside few masks and harm beside many."""
    n_fa, n_wa = np.array([2, 5, 12]), np.array([0, 15, 65])
    masks = np.log(n_fa)[:, None]
    dice = 40 + 9 * masks + (4 - 1.9 * masks) * np.log1p(n_wa)
    return Surface(n_fa, n_wa, dice, dice[None], "made-up", 2)


PLAN = "{case}: {found[0]:g} FA + {found[1]:g} WA"

exercise_11_3 = Exercise(
    right=lambda surface, hours: plans(surface, hours).nlargest(1, "dice")[["n_fa", "n_wa"]].to_numpy()[0],
    cases={f"{hours:g} hours": (_surface(), hours) for hours in (9.5, 5.0, 2.0, 20.0)},
    mistakes=(
        Mistake(
            lambda surface, hours: (12, 65),
            PLAN + " take {seen:.1f} hours.",
            "the budget: masks and slice labels together.",
            when=lambda found, wanted, surface, hours: (
                FA * found[0] + WA * found[1] > 60 * hours + 1e-6 and (FA * found[0] + WA * found[1]) / 60
            ),
        ),
        Mistake(
            lambda surface, hours: (2, 320),
            PLAN + " lie outside what was measured.",
            "the ends of `surface.n_fa` and `surface.n_wa`; nothing is known beyond them.",
            when=lambda found, wanted, surface, hours: (
                found[1] > surface.n_wa[-1] or not surface.n_fa[0] <= found[0] <= surface.n_fa[-1]
            ),
        ),
        Mistake(
            lambda surface, hours: (2, 65),
            PLAN + ": as few masks as possible, although more of them would raise the Dice.",
            "every number of masks that the hours allow, not only the first.",
            when=lambda found, wanted, surface, hours: found[0] == surface.n_fa[0] != wanted[0],
        ),
        Mistake(
            lambda surface, hours: (11, 50),
            PLAN + ": these slice labels lower the Dice, and the hours need not all be spent.",
            "beside many masks: the Dice with slice labels, and without.",
            when=lambda found, wanted, *_: found[1] > 0 and wanted[1] == 0,
        ),
    ),
    says=PLAN + " is not the best plan: another one has a higher Dice.",
    look="every pair of numbers that the hours pay for, and `surface.at` of it.",
    praise="Try what the hours pay for, keep the highest Dice: that is the planner.",
)
