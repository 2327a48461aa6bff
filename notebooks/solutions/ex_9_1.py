import numpy as np


def fold_mean(dice, folds):
    scored = ~np.isnan(dice)
    dice, folds = dice[scored], folds[scored]
    return np.mean([dice[folds == fold].mean() for fold in np.unique(folds)])
