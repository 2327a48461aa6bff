import numpy as np


def draw_annotated(lists, everything, k, rng):
    first = [rng.choice(rows) for rows in lists]
    rest = rng.choice(everything, size=k - len(lists))
    return np.concatenate([first, rest])
