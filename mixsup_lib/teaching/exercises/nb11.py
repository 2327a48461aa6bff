"""Checks of notebook 11: what hours buy, when weak scans pay, and the best plan for a budget."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixsup_lib.teaching.exercises.verdict import RETURN, as_array, call, check, expect
from mixsup_lib.teaching.planner import Surface, plans

FA, WA = 45.0, 1.5


@check
def exercise_11_1(weak_scans: Any) -> str:
    """(hours, masks) -> scans whose slice labels the rest of the hours pays for."""
    for hours, n_fa in ((10, 5), (4, 5), (3.75, 5), (3, 5), (8, 9), (1, 1)):
        right = max(int((60 * hours - FA * n_fa) // WA), 0)
        found = float(as_array(call(weak_scans, hours, n_fa), ()))
        where = f"{hours:g} hours, {n_fa} mask(s)"
        expect(
            found >= 0,
            f"{where}: {found:g} scans, fewer than none.",
            "what happens when the masks alone take longer than the hours.",
        )
        expect(
            right == 0 or not np.isclose(found, max((hours - FA * n_fa / 60) // WA, 0)),
            f"{where}: {found:g} scans, as if a scan took 1.5 hours.",
            "the units: hours on one side, minutes on the other.",
        )
        expect(
            right == 0 or not np.isclose(found, int(60 * hours / WA)),
            f"{where}: {found:g} scans, but the masks have not been paid for.",
            "what is left of the hours after n_fa masks.",
        )
        expect(
            np.isclose(found, round(found)),
            f"{where}: {found:g} scans; a scan that is labelled in part does not count.",
            "how to round down to a whole number of scans.",
        )
        expect(
            found == right,
            f"{where}: {found:g} scans, expected another number.",
            "45 minutes a mask, 1.5 minutes a scan with slice labels, rounded down.",
        )
    return "One mask costs as much as the slice labels of 30 scans."


@check
def exercise_11_2(break_even: Any) -> str:
    """(masks, weak scans, masks of equal Dice) -> minutes per weak scan at which both cost the same."""
    for n_fa, n_wa, masks in ((5, 223, 15), (5, 50, 6), (2, 10, 12)):
        right = FA * (masks - n_fa) / n_wa
        found = float(as_array(call(break_even, n_fa, n_wa, masks), ()))
        where = f"{n_fa} FA + {n_wa} WA against {masks} FA"
        expect(
            not np.isclose(found, FA * masks / n_wa),
            f"{where}: {found:.3g} minutes pays for all {masks} masks, but {n_fa} are needed either way.",
            "what the weak scans replace: the masks that only the other plan needs.",
        )
        expect(
            not np.isclose(found * 60, right),
            f"{where}: {found:.3g} is in hours, asked are minutes.",
            "the unit of the 45.",
        )
        expect(
            not np.isclose(found, 1 / right),
            f"{where}: {found:.3g} is the inverse of the answer.",
            "which of the two you solve for: n_wa x minutes = 45 x masks saved.",
        )
        expect(
            np.isclose(found, right, rtol=1e-3),
            f"{where}: {found:.3g} minutes, expected another number.",
            "equal costs: 45 n_fa + minutes x n_wa = 45 masks.",
        )
    return "Above that many minutes a scan, outlining is the cheaper way to the same Dice."


def _surface() -> Surface:
    """A made-up surface on which slice labels help beside few masks and harm beside many."""
    n_fa, n_wa = np.array([2, 5, 12]), np.array([0, 15, 65])
    masks = np.log(n_fa)[:, None]
    dice = 40 + 9 * masks + (4 - 1.9 * masks) * np.log1p(n_wa)
    return Surface(n_fa, n_wa, dice, dice[None], "made-up", 2)


@check
def exercise_11_3(best_plan: Any) -> str:
    """(surface, hours) -> (n_fa, n_wa) of the highest Dice that the hours pay for."""
    surface = _surface()
    most_wa = int(surface.n_wa[-1])
    for hours in (9.5, 5.0, 2.0, 20.0):
        table = plans(surface, hours)
        best = table.loc[table["dice"].idxmax()]
        found = as_array(call(best_plan, surface, hours), (2,))
        n_fa, n_wa = found
        where = f"{hours:g} hours: {n_fa:g} FA + {n_wa:g} WA"
        expect(np.allclose(found, found.round()), f"{where} are no whole scans.", RETURN)
        expect(
            FA * n_fa + WA * n_wa <= 60 * hours + 1e-6,
            f"{where} take {(FA * n_fa + WA * n_wa) / 60:.1f} hours.",
            "the budget: masks and slice labels together.",
        )
        expect(
            n_wa <= most_wa and surface.n_fa[0] <= n_fa <= surface.n_fa[-1],
            f"{where} lie outside what was measured.",
            "the ends of `surface.n_fa` and `surface.n_wa`; nothing is known beyond them.",
        )
        expect(
            n_wa or not best["n_wa"],
            f"{where}: no slice labels at all, although some would raise the Dice.",
            "what the minutes left after the masks could buy.",
        )
        expect(
            n_fa != table["n_fa"].iloc[0] or best["n_fa"] == n_fa,
            f"{where}: as few masks as possible, although more of them would raise the Dice.",
            "every number of masks that the hours allow, not only the first.",
        )
        expect(
            best["n_wa"] or not n_wa,
            f"{where}: these slice labels lower the Dice, and the hours need not all be spent.",
            "beside many masks: the Dice with slice labels, and without.",
        )
        expect(
            (n_fa, n_wa) == (best["n_fa"], best["n_wa"]),
            f"{where} is not the best plan: another one has a higher Dice.",
            "every pair of numbers that the hours pay for, and `surface.at` of it.",
        )
    return "Try what the hours pay for, keep the highest Dice: that is the planner."
