def break_even(n_fa, n_wa, masks):
    return 45 * (masks - n_fa) / n_wa
