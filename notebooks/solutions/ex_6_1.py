import math


def dice_from_counts(hit, missed, extra):
    if hit + missed == 0:
        return math.nan
    return 100 * 2 * hit / (2 * hit + missed + extra)
