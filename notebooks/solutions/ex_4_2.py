import numpy as np


def walk(rows, count, rng):
    drawn = []
    while len(drawn) < count:
        order = rng.permutation(len(rows))
        drawn += list(rows[order][: count - len(drawn)])
    return np.array(drawn)
