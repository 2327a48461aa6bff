"""Typical wrong answers to the exercises of notebook 03, each with words of its diagnosis."""

import torch


def counts(labels, target_weights):
    return torch.bincount(labels.flatten(), minlength=len(target_weights))


def infinite_when_absent(labels, target_weights):
    return torch.tensor(target_weights) / counts(labels, target_weights)


def absent_as_one_pixel(labels, target_weights):
    return torch.tensor(target_weights) / counts(labels, target_weights).clamp(min=1)


def mean_weight_one(labels, target_weights):
    return labels.numel() * infinite_when_absent(labels, target_weights)


def divided_by_all(labels, target_weights):
    return torch.tensor(target_weights) / labels.numel()


def image_by_image(labels, target_weights):
    found = torch.stack([absent_as_one_pixel(image, target_weights) for image in labels])
    return found.mean(dim=0)


def classes_that_occur_only(labels, target_weights):
    return torch.tensor([target_weights[c] / (labels == c).sum() for c in labels.unique()])


def inverse_frequency(labels, target_weights):
    return 1 / counts(labels, target_weights)


def threshold(combine):
    return lambda t0, t1, share: combine(t0 / (1 - share), t1 / share)


WRONG = {
    "exercise_3_1": [
        (infinite_when_absent, "not all finite"),
        (absent_as_one_pixel, "a class that does not occur has weight"),
        (mean_weight_one, "go with its 1/P"),
        (divided_by_all, "you divide every t by the 8 pixels"),
        (image_by_image, "image by image"),
        (classes_that_occur_only, "expected an array of shape (2,)"),
        (inverse_frequency, "weigh (1, 1) together"),
    ],
    "exercise_3_2": [
        (lambda t0, t1, share: t0 / (t0 + t1), "total weight of its class"),
        (threshold(lambda w0, w1: w1 / (w0 + w1)), "more reluctant"),
        (threshold(lambda w0, w1: w0 / w1), "which is the odds"),
        (lambda t0, t1, share: 0.5, "the threshold of p"),
        (lambda t0, t1, share: share, "expected another share"),
    ],
    "exercise_3_3": [
        (lambda a, P: a * P, "which is no share"),
        (lambda a, P: a, "you return a itself"),
        (lambda a, P: a / (a + P * (1 - a)), "shorter still"),
        (lambda a, P: a * P / (a * P + 1), "the two parts stand as"),
    ],
}
