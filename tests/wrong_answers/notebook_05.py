"""Typical wrong answers to the exercises of notebook 05, each with words of its diagnosis."""

import numpy as np
import torch


def summed(gradients):
    return [torch.stack(tensors).sum(dim=0) for tensors in zip(*gradients, strict=True)]


def per_tensor(gradients):
    return [tensor / tensor.norm() for tensor in summed(gradients)]


def per_batch(gradients):
    norms = [torch.stack([tensor.norm() for tensor in batch]).norm() for batch in gradients]
    return summed([[t / norm for t in batch] for batch, norm in zip(gradients, norms, strict=True)])


def in_place(gradients):
    for batch in gradients[1:]:
        for total, tensor in zip(gradients[0], batch, strict=True):
            total += tensor
    return gradients[0]


def downhill(gradients):
    total = summed(gradients)
    norm = torch.stack([tensor.norm() for tensor in total]).norm()
    return [-tensor / norm for tensor in total]


def halve_always(ok, failed_before, rate, interval, ratio):
    return not ok, rate if ok else max(rate / 2, 0.001), interval, ratio


def no_minimum(ok, failed_before, rate, interval, ratio):
    if ok:
        return False, rate, interval, ratio
    if not failed_before:
        return True, rate / 2, interval, ratio
    return False, rate, interval + 100, min(ratio + 0.001, 0.995)


def no_limit(ok, failed_before, rate, interval, ratio):
    if ok or not failed_before:
        return not ok, rate if ok else max(rate / 2, 0.001), interval, ratio
    return False, rate, interval + 100, ratio + 0.001


def never_anew(ok, failed_before, rate, interval, ratio):
    if not ok and failed_before:
        return True, rate, interval + 100, min(ratio + 0.001, 0.995)
    return not ok, rate if ok else max(rate / 2, 0.001), interval, ratio


def remembers(ok, failed_before, rate, interval, ratio):
    return failed_before or not ok, rate if ok else max(rate / 2, 0.001), interval, ratio


def mean_of(batches):
    return np.mean([batch.mean(axis=(0, 2, 3)) for batch in batches], axis=0)


def pooled(batches):
    return mean_of(batches), np.concatenate(batches).var(axis=(0, 2, 3), ddof=1)


def biased(batches):
    return mean_of(batches), np.mean([batch.var(axis=(0, 2, 3)) for batch in batches], axis=0)


def deviations(batches):
    return mean_of(batches), np.mean([batch.std(axis=(0, 2, 3), ddof=1) for batch in batches], axis=0)


def running(batches):
    mean, variance = np.zeros(batches[0].shape[1]), np.ones(batches[0].shape[1])
    for batch in batches:
        mean = 0.9 * mean + 0.1 * batch.mean(axis=(0, 2, 3))
        variance = 0.9 * variance + 0.1 * batch.var(axis=(0, 2, 3), ddof=1)
    return mean, variance


WRONG = {
    "exercise_5_1": [
        (per_tensor, "one length over all weights together"),
        (per_batch, "first the sum over batches, then the norm"),
        (in_place, "changed the gradients"),
        (summed, "expected 1"),
        (downhill, "the minus sign belongs to the step"),
    ],
    "exercise_5_2": [
        (halve_always, "a second time in a row"),
        (no_minimum, "the lower limit of the rate"),
        (no_limit, "the upper limit of the ratio"),
        (never_anew, "counting starts anew"),
        (remembers, "a passed check forgets"),
    ],
    "exercise_5_3": [
        (pooled, "how much their means differ"),
        (biased, "`ddof`"),
        (deviations, "You average standard deviations"),
        (running, "the last batch counts most"),
    ],
}
