def hours(n_fa, n_wa, minutes_weak):
    return (n_fa * 45 + n_wa * minutes_weak) / 60
