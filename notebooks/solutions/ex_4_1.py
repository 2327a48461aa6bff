def roles(n_patients, n_fa, fold):
    start, stop = (fold - 1) * n_patients // 5, fold * n_patients // 5
    test = list(range(start, stop))
    circle = [position % n_patients for position in range(stop, start + n_patients)]  # all others, from stop on
    return test, circle[:n_fa], circle[n_fa:]
