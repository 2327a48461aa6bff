from scipy import ndimage


def islands(prediction, truth):
    parts, n = ndimage.label(prediction)
    return sum(not truth[parts == part].any() for part in range(1, n + 1))
