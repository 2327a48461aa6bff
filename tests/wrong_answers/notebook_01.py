"""Typical wrong answers to the exercises of notebook 01, each with words of its diagnosis."""

import numpy as np


def by_index(mask, affine):
    return "left" if np.argwhere(mask)[:, 0].mean() > mask.shape[0] / 2 else "right"


def array_as_seen(mask, affine):
    return "right" if np.argwhere(mask)[:, 0].mean() > mask.shape[0] / 2 else "left"


def always_left(mask, affine):
    return "left"


def without_shift(mask, affine):
    x = affine[0, 0] * (np.argwhere(mask)[:, 0].mean() - (mask.shape[0] - 1) / 2)
    return "right" if x > 0 else "left"


def first_axis_only(mask, affine):
    x = affine[0, 0] * np.argwhere(mask)[:, 0].mean() + affine[0, 3]
    return "right" if x > 0 else "left"


def first_voxel(mask, affine):
    return "right" if (affine @ [*np.argwhere(mask)[0], 1])[0] > 0 else "left"


def rise(volume, with_tumor, without, scale=100):
    pairs = [(s(volume[with_tumor]), s(volume[without])) for s in (np.mean, np.median)]
    return tuple(scale * (first / max(second, 1e-9) - 1) for first, second in pairs)


def rows(text, patient="Brats18_PHANTOM_006_1"):
    return f"patient,class,first_z,last_z\n{patient},{text}\n"


WRONG = {
    "exercise_1_1": [
        (always_left, "opposite sides get the same answer"),
        (array_as_seen, "Left and right are exchanged"),
        (by_index, "an index alone does not tell the side"),
        (without_shift, "x = 0 is the midline"),
        (first_axis_only, "looks at the wrong axis"),
        (first_voxel, "the mean over all its voxels"),
    ],
    "exercise_1_2": [
        (lambda v, t: rise(v, v == v, ~t), "the background is counted"),
        (lambda v, t: rise(v, v != 0, (v != 0) & ~t)[::-1], "exchanged"),
        (lambda v, t: rise(v, v != 0, (v != 0) & ~t, scale=1), "fractions"),
        (lambda v, t: rise(v, (v != 0) & ~t, v != 0), "*without* the tumour"),
        (lambda v, t: rise(v, t, (v != 0) & ~t), "the tumour itself"),
        (lambda v, t: rise(v, v != 0, t), "`head & ~tumor`"),
    ],
    "exercise_1_3": [
        ("patient,first_z,last_z\nBrats18_PHANTOM_006_1,28,54\n", "has the columns"),
        (rows("whole_tumor,28,54", patient="Brats18_PHANTOM_6_1"), "No row is for"),
        (rows("whole_tumour,28,54"), "Did you mean 'whole_tumor'?"),
        (rows("oedema,28,54"), "name the class oedema"),
        (rows("whole_tumor,54,28"), "swap them"),
        (rows("whole_tumor,28,62"), "slices count 0 to 61"),
        (rows("whole_tumor,7,33"), "read from the other end"),
        (rows("whole_tumor,24,54"), "You begin 4 slices too low"),
        (rows("whole_tumor,29,61"), "slices are labelled tumour and show none"),
        (rows("whole_tumor,33,50"), "slices that show tumour"),
    ],
}
