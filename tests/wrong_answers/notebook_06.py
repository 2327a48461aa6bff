"""Typical wrong answers to the exercises of notebook 06, each with words of its diagnosis."""

import numpy as np
from scipy import ndimage


def percent_dice(hit, missed, extra):
    return 100 * 2 * hit / max(2 * hit + missed + extra, 1)


def fraction(hit, missed, extra):
    return 2 * hit / (2 * hit + missed + extra)


def jaccard(hit, missed, extra):
    return 100 * hit / (hit + missed + extra)


def sensitivity(hit, missed, extra):
    return 100 * hit / (hit + missed)


def missing_is_perfect(hit, missed, extra):
    return percent_dice(hit, missed, extra) if hit + missed + extra else 100.0


def missing_is_none(hit, missed, extra):
    return percent_dice(hit, missed, extra) if hit + missed else None


def both(prediction, truth, axis, unit):
    return tuple((a & ~b).sum(axis=axis) * unit for a, b in ((truth, prediction), (prediction, truth)))


def along_x(prediction, truth, size):
    return both(prediction, truth, (1, 2), np.prod(size) / 1000)


def in_voxels(prediction, truth, size):
    return both(prediction, truth, (0, 1), 1)


def in_mm3(prediction, truth, size):
    return both(prediction, truth, (0, 1), np.prod(size))


def exchanged(prediction, truth, size):
    return both(prediction, truth, (0, 1), np.prod(size) / 1000)[::-1]


def of_areas(prediction, truth, size):
    difference = (truth.sum(axis=(0, 1)) - prediction.sum(axis=(0, 1))) * np.prod(size) / 1000
    return np.maximum(difference, 0), np.maximum(-difference, 0)


def of_cubes(prediction, truth, size):
    return both(prediction, truth, (0, 1), size[0] ** 3 / 1000)


def all_parts(prediction, truth):
    return ndimage.label(prediction)[1]


def touching(prediction, truth):
    parts, n = ndimage.label(prediction)
    return sum(truth[parts == part].any() for part in range(1, n + 1))


def slice_by_slice(prediction, truth):
    return sum(without_tumour(prediction[..., z], truth[..., z]) for z in range(truth.shape[2]))


def without_tumour(prediction, truth, structure=None):
    parts, n = ndimage.label(prediction, structure)
    return sum(not truth[parts == part].any() for part in range(1, n + 1))


def over_corners(prediction, truth):
    return without_tumour(prediction, truth, np.ones((3, 3, 3)))


def background_too(prediction, truth):
    parts, n = ndimage.label(prediction)
    return n - len(np.unique(parts[truth]))


def from_part_0(prediction, truth):
    parts, n = ndimage.label(prediction)
    return sum(not truth[parts == part].any() for part in range(n + 1))


def outside_pieces(prediction, truth):
    return ndimage.label(prediction & ~truth)[1]


def away_from_tumour(prediction, truth):
    return without_tumour(prediction, ndimage.binary_dilation(truth))


def extra_voxels(prediction, truth):
    return (prediction & ~truth).sum()


WRONG = {
    "exercise_6_1": [
        (fraction, "Dice as a fraction"),
        (jaccard, "the Jaccard index"),
        (sensitivity, "is the sensitivity"),
        (percent_dice, "0 extra voxels: you return 0"),
        (missing_is_none, "you return None, which is no number"),
        (missing_is_perfect, "0 extra voxels: you return 100"),
    ],
    "exercise_6_2": [
        (along_x, "one entry for each x"),
        (in_voxels, "is in voxels"),
        (in_mm3, "is in mm³"),
        (exchanged, "exchanged"),
        (of_cubes, "the product of three sides, not a cube"),
        (of_areas, "lets errors cancel"),
    ],
    "exercise_6_3": [
        (all_parts, "also those with tumour in them"),
        (touching, "parts that do touch the tumour"),
        (slice_by_slice, "in each slice anew"),
        (over_corners, "only meet at a corner"),
        (background_too, "part 0 is the background"),
        (from_part_0, "you find 11"),
        (outside_pieces, "its pieces outside are counted"),
        (away_from_tumour, "directly beside a tumour"),
        (extra_voxels, "not the parts they form"),
    ],
}
