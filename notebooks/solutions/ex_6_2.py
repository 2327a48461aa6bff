import numpy as np


def errors_by_slice(prediction, truth, voxel_size_mm):
    ml = np.prod(voxel_size_mm) / 1000
    missed = (truth & ~prediction).sum(axis=(0, 1))
    extra = (prediction & ~truth).sum(axis=(0, 1))
    return missed * ml, extra * ml
