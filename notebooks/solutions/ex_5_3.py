import numpy as np


def statistics(batches):
    means = [batch.mean(axis=(0, 2, 3)) for batch in batches]
    variances = [batch.var(axis=(0, 2, 3), ddof=1) for batch in batches]
    return np.mean(means, axis=0), np.mean(variances, axis=0)
