"""Exercises of notebook 00: who is annotated how, and what it costs."""

from __future__ import annotations

from mixsup_lib.paper import N_FOLDS, N_PATIENTS, SCENARIOS
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake

N_FA, TESTED = 15, N_PATIENTS // N_FOLDS
ROLES = ("tested", "fully annotated", "weakly annotated")


def _roles(*numbers: int) -> dict[str, int]:
    return dict(zip(ROLES, numbers, strict=True))


exercise_0_1 = Exercise(
    right=_roles(TESTED, N_FA, SCENARIOS[N_FA]),
    cases={"The scenario with 15 FA": ()},
    attempt=lambda roles: [roles.get(name) for name in ROLES],
    mistakes=(
        Mistake(_roles(0, 15, 270), "Nobody is tested yet.", when=lambda found, wanted: found[0] == 0),
        Mistake(
            _roles(57, 15, 270),
            "{found[2]:g} weak patients: those tested are among them.",
            "who may not take part in training in any way.",
        ),
        Mistake(
            _roles(57, 15, 228),
            "{found[2]:g} weak patients: these are all training patients, the fully annotated ones included.",
            "the letters w in the rows above: F and T are taken away.",
        ),
    ),
    says="{found[0]:g} tested, {found[1]:g} fully and {found[2]:g} weakly annotated: these are not the 285 patients "
    "with 15 FA.",
    look="the paragraph above the five folds; 285 patients, 5 folds, 15 FA.",
    praise=f"{TESTED} tested, and 228 for training: {N_FA} with outlines, {SCENARIOS[N_FA]} with slice labels.",
)


exercise_0_2 = Exercise(
    right=lambda n_fa, n_wa, minutes: (45 * n_fa + minutes * n_wa) / 60,
    cases={
        "5 FA + 223 WA at 1.5 minutes": (5, 223, 1.5),
        "5 FA + 223 WA at 2 minutes": (5, 223, 2),
        "15 FA alone": (15, 0, 2),
    },
    mistakes=(
        Mistake(lambda *_: 0.0, "Your function still returns 0.", "the minutes of the two kinds of annotation."),
        Mistake(
            lambda n_fa, n_wa, minutes: 45 * n_fa + minutes * n_wa,
            "{case} give {found:g}: these are minutes.",
            "the unit that the exercise asks for.",
        ),
        Mistake(
            lambda n_fa, n_wa, minutes: 45 * n_fa / 60,
            "{case} give {found:g} hours, as many as 5 FA alone.",
            "the second argument: weak labels are cheap, not free.",
        ),
        Mistake(
            lambda n_fa, n_wa, minutes: (45 * n_fa + 155 * minutes * n_wa) / 60,
            "{case} give {found:g} hours: you count the minutes once for each of 155 slices.",
            "what 1 to 2 minutes are for: the range of slices of a whole scan.",
        ),
    ),
    says="{case} give {found:g} hours, expected another number.",
    look="45 minutes for each of `n_fa`, `minutes_weak` for each of `n_wa`, and 60 minutes in an hour.",
    praise="5 FA + 223 WA: 7.5 to 11.2 hours; 15 FA alone: 11.2; everybody outlined: 171.",
)
