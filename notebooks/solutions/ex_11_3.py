import numpy as np


def best_plan(surface, hours):
    best, highest = None, -1.0
    for n_fa in range(surface.n_fa[0], surface.n_fa[-1] + 1):
        most = min(int((60 * hours - 45 * n_fa) // 1.5), int(surface.n_wa[-1]))
        if most < 0:
            break
        n_wa = np.arange(most + 1)
        dice = surface.at(np.full(most + 1, n_fa), n_wa)[:, 0]
        if dice.max() > highest:
            best, highest = (n_fa, int(dice.argmax())), dice.max()
    return best
