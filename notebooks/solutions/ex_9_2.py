import numpy as np


def bootstrap(differences, folds, rng, n):
    parts = [differences[folds == fold] for fold in np.unique(folds)]
    means = np.empty(n)
    for i in range(n):
        drawn = rng.integers(len(parts), size=len(parts))
        means[i] = np.mean([rng.choice(parts[fold], parts[fold].size).mean() for fold in drawn])
    return means
