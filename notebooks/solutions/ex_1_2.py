import numpy as np


def effect_of_tumor(volume, tumor):
    head = volume != 0

    def rise(statistic):
        return 100 * (statistic(volume[head]) / statistic(volume[head & ~tumor]) - 1)

    return rise(np.mean), rise(np.median)
