import numpy as np


def tumor_side(mask, affine):
    indices = np.argwhere(mask)  # (N, 3): i, j, k of each tumour voxel
    centre = affine @ [*indices.mean(axis=0), 1]  # x, y, z in mm, and 1
    return "right" if centre[0] > 0 else "left"
