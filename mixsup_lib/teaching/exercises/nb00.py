"""Checks of notebook 00: who is annotated how, and what it costs."""

from __future__ import annotations

from typing import Any

from mixsup_lib.paper import N_FOLDS, N_PATIENTS, SCENARIOS
from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect

N_FA = 15
ROLES = ("tested", "fully annotated", "weakly annotated")


@check
def exercise_0_1(roles: Any) -> str:
    """How many patients of a fold play which part, in the scenario with 15 FA."""
    where = "the paragraph above the five folds; 285 patients, 5 folds, 15 FA."
    expect(
        isinstance(roles, dict) and set(roles) == set(ROLES),
        f"The answer is {roles!r}, expected a dict with {', '.join(ROLES)}.",
        "the stub: keep its three names and replace the zeros.",
    )
    tested, full, weak = (float(as_array(roles[name], ())) for name in ROLES)
    expect(tested != 0, "Nobody is tested yet.", where)
    expect(
        tested == N_PATIENTS // N_FOLDS,
        f"{tested:g} patients are tested, but each of the {N_FOLDS} folds tests the same share of {N_PATIENTS}.",
        "the letters T in the rows above: what share of the patients is it?",
    )
    expect(full == N_FA, f"{full:g} patients are fully annotated in the scenario with {N_FA} FA.", where)
    expect(
        weak != N_PATIENTS - N_FA,
        f"{weak:g} weak patients: those tested are among them.",
        "who may not take part in training in any way.",
    )
    expect(
        weak != N_PATIENTS - tested,
        f"{weak:g} weak patients: these are all training patients, the fully annotated ones included.",
        "the letters w in the rows above: F and T are taken away.",
    )
    expect(
        weak == SCENARIOS[N_FA],
        f"Tested, fully and weakly annotated make {tested + full + weak:g} patients, expected {N_PATIENTS}.",
        "the sum: everybody plays exactly one part.",
    )
    return f"{tested:g} tested, and 228 for training: {full:g} with outlines, {weak:g} with slice labels."


@check
def exercise_0_2(hours: Any) -> str:
    """(n_fa, n_wa, minutes_weak) -> hours of annotation."""
    found = float(as_array(call(hours, 5, 223, 1.5), ()))
    right = (5 * 45 + 223 * 1.5) / 60
    expect(found != 0, "Your function still returns 0.", "the minutes of the two kinds of annotation.")
    expect(
        abs(found - 60 * right) > 1e-6,
        f"5 FA + 223 WA at 1.5 minutes give {found:g}: these are minutes.",
        "the unit that the exercise asks for.",
    )
    expect(
        abs(found - 5 * 45 / 60) > 1e-6,
        f"5 FA + 223 WA give {found:g} hours, as many as 5 FA alone.",
        "the second argument: weak labels are cheap, not free.",
    )
    expect(
        abs(found - (5 * 45 + 223 * 155 * 1.5) / 60) > 1e-6,
        f"5 FA + 223 WA give {found:g} hours: you count the minutes once for each of 155 slices.",
        "what 1 to 2 minutes are for: the range of slices of a whole scan.",
    )
    expect(
        abs(found - right) < 1e-6,
        f"5 FA + 223 WA at 1.5 minutes give {found:g} hours, expected another number.",
        "45 minutes for each of `n_fa`, `minutes_weak` for each of `n_wa`, and 60 minutes in an hour.",
    )
    low, high = (float(as_array(call(hours, 5, 223, minutes), ())) for minutes in (1, 2))
    expect(
        abs(low - 448 / 60) + abs(high - 671 / 60) < 1e-6,
        f"With 1 and 2 minutes a weak scan, 5 FA + 223 WA give {low:.1f} and {high:.1f} hours; one is wrong.",
        "the third argument: your function has to use it.",
    )
    alone = float(as_array(call(hours, 15, 0, 2), ()))
    expect(
        abs(alone - 11.25) < 1e-6,
        f"15 FA alone give {alone:g} hours, expected another number.",
        "the first argument: your function has to use it.",
    )
    return f"5 FA + 223 WA: {low:.1f} to {high:.1f} hours; 15 FA alone: {alone:.1f}; everybody outlined: 171."
