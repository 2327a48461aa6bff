import torch


def class_weights(labels, target_weights):
    weights = torch.zeros(len(target_weights))
    for c, t in enumerate(target_weights):
        n = (labels == c).sum()  # over the whole batch
        if n > 0:
            weights[c] = t / n
    return weights
