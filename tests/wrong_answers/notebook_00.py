"""Typical wrong answers to the exercises of notebook 00, each with words of its diagnosis."""


def roles(tested, full, weak):
    return {"tested": tested, "fully annotated": full, "weakly annotated": weak}


WRONG = {
    "exercise_0_1": [
        (roles(5, 15, 265), "each of the 5 folds tests the same share"),
        (roles(57, 5, 223), "in the scenario with 15 FA"),
        (roles(57, 15, 270), "those tested are among them"),
        (roles(57, 15, 228), "the fully annotated ones included"),
        (roles(57, 15, 223), "make 295 patients"),
        ((57, 15, 213), "expected a dict"),
    ],
    "exercise_0_2": [
        (lambda n_fa, n_wa, minutes: n_fa * 45 + n_wa * minutes, "these are minutes"),
        (lambda n_fa, n_wa, minutes: n_fa * 45 / 60, "cheap, not free"),
        (lambda n_fa, n_wa, minutes: (n_fa * 45 + n_wa * 155 * minutes) / 60, "each of 155 slices"),
        (lambda n_fa, n_wa, minutes: (n_fa * 45 + n_wa * 1.5) / 60, "the third argument"),
        (lambda n_fa, n_wa, minutes: (5 * 45 + n_wa * minutes) / 60, "the first argument"),
        (lambda n_fa, n_wa, minutes: n_fa * 0.75 + n_wa * minutes, "60 minutes in an hour"),
        (lambda n_fa, n_wa, minutes: print((n_fa * 45 + n_wa * minutes) / 60), "`return`, not `print`"),
    ],
}
