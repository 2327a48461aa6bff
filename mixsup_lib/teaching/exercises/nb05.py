"""Checks of notebook 05: the direction of an iteration, the plateau rule's reaction, statistics of batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixsup_lib.optim import NormalizedSGD, PlateauSchedule
from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect

SHAPES = ((4, 3), (5,), (2, 2, 2))


def _flat(tensors: Any) -> np.ndarray:
    return torch.cat([torch.as_tensor(tensor, dtype=torch.float64).flatten() for tensor in tensors]).numpy()


@check
def exercise_5_1(direction: Any) -> str:
    """Gradients of B batches, each a list of tensors -> one list of tensors: their sum, of total length 1."""
    generator = torch.Generator().manual_seed(5)
    scales = (1.0, 10.0, 0.1)
    batches = [
        [
            torch.randn(shape, generator=generator) * scale * size
            for shape, size in zip(SHAPES, scales, strict=True)
        ]
        for scale in (1.0, 4.0, 0.5)
    ]
    kept = [[tensor.clone() for tensor in batch] for batch in batches]
    found = call(direction, batches)
    expect(
        isinstance(found, list | tuple) and [tuple(np.shape(tensor)) for tensor in found] == list(SHAPES),
        "The answer is not a list with one tensor per weight tensor, of the same shapes.",
        "what the exercise asks for: one list for the whole iteration, whatever the number of batches.",
    )
    untouched = all(
        torch.equal(a, b)
        for one, two in zip(batches, kept, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    expect(
        untouched,
        "Your function changed the gradients that it was given.",
        "operations that end in an underscore, and `+=` on a tensor: they work in place.",
    )
    sums = [sum(tensors) for tensors in zip(*batches, strict=True)]
    flat, right = _flat(found), _flat(sums) / np.linalg.norm(_flat(sums))
    length = np.linalg.norm(flat)
    per_tensor = np.concatenate([_flat([tensor / tensor.norm()]) for tensor in sums])
    expect(
        not np.allclose(flat / length, per_tensor / np.linalg.norm(per_tensor), atol=1e-4),
        "Every weight tensor is divided by its own norm: a layer with a small gradient moves as far as any other.",
        "which norm the paper's optimiser takes: one length over all weights together.",
    )
    per_batch = sum(_flat(batch) / np.linalg.norm(_flat(batch)) for batch in batches)
    expect(
        not np.allclose(flat / length, per_batch / np.linalg.norm(per_batch), atol=1e-4),
        "Every batch is normalised before the sum: a batch with a tiny gradient has as much to say as any other.",
        "the order of the two operations: first the sum over batches, then the norm.",
    )
    expect(
        not np.allclose(flat, _flat(batches[0])),
        "This is the gradient of the first batch.",
        "the sum over all entries of `gradients`, tensor by tensor: `zip(*gradients)` groups them.",
    )
    expect(
        np.isclose(length, 1, atol=1e-4),
        f"The length of your direction over all tensors is {length:.3g}, expected 1.",
        "the norm: the square root of the sum of all squares, over all tensors.",
    )
    expect(
        np.allclose(flat, right, atol=1e-4),
        "The length is 1, but the direction is not that of the summed gradients.",
        "signs and weights: every batch enters with weight 1, and the minus sign belongs to the step.",
    )
    return "Sum first, then one norm: three batches, one direction, and its length is 1."


CASES = (
    (True, False, 0.25, 500, 0.99),
    (False, False, 0.25, 500, 0.99),
    (True, True, 0.125, 500, 0.99),
    (False, True, 0.125, 500, 0.99),
    (False, False, 0.0015, 500, 0.99),
    (False, True, 0.01, 900, 0.995),
)
"""What exercise 2 is tried with: (ok, failed_before, rate, interval, ratio)."""


def _reaction(ok: bool, failed_before: bool, rate: float, interval: int, ratio: float) -> tuple:
    """What the library's rule makes of a check with this outcome."""
    optimizer = NormalizedSGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = PlateauSchedule(optimizer, interval=interval, ratio=ratio)
    schedule.failed_before = failed_before
    for i in range(interval):
        schedule.step(1.0 if i < interval // 2 else 0.5 if ok else 2.0)
    return schedule.failed_before, optimizer.param_groups[0]["lr"], schedule.interval, schedule.ratio


@check
def exercise_5_2(react: Any) -> str:
    """(ok, failed_before, rate, interval, ratio) -> the last four after the reaction."""
    for case in CASES:
        ok, failed_before, rate, interval, ratio = case
        found = as_array(call(react, *case), (4,))
        failed, new_rate, new_interval, new_ratio = _reaction(*case)
        before = "failed" if failed_before else "passed"
        verdict = "passed" if ok else "failed"
        where = f"This check {verdict}, the one before {before}, rate {rate:g}, interval {interval}, ratio {ratio:g}"
        expect(
            not (not ok and failed_before and found[1] < rate),
            f"{where}: you lower the rate a second time in a row.",
            "the table's last row: after two failures it is the patience that grows.",
        )
        expect(
            found[1] >= 0.001,
            f"{where}: your rate is {found[1]:g}.",
            "the lower limit of the rate in the table's second row.",
        )
        expect(
            found[3] <= 0.995 + 1e-9,
            f"{where}: your ratio is {found[3]:g}.",
            "the upper limit of the ratio in the table's last row.",
        )
        expect(
            not (not ok and failed_before and found[0]),
            f"{where}: your rule still counts the check before as failed.",
            "the end of the table's last row: counting starts anew.",
        )
        expect(
            bool(found[0]) == failed,
            f"{where}: you return failed_before = {bool(found[0])}, expected {failed}.",
            "what the next check has to know about this one: a passed check forgets, a first failure is remembered.",
        )
        for name, value, right in zip(
            ("rate", "interval", "ratio"), found[1:], (new_rate, new_interval, new_ratio), strict=True
        ):
            expect(
                np.isclose(value, right),
                f"{where}: your {name} is {value:g}, expected {right:g}.",
                "the row of the table for this case, and the order of the four values returned.",
            )
    return "Halve once, then wait longer: the rate falls only where waiting alone does not help."


@check
def exercise_5_3(statistics: Any) -> str:
    """N arrays (B, C, H, W) -> mean (C,) and variance (C,) as torch's cumulative average leaves them."""
    rng = np.random.default_rng(3)
    batches = [rng.normal(3 * i, 1 + i, (2, 3, 2, 2)) * [[[[1]], [[2]], [[5]]]] for i in range(4)]
    layer = torch.nn.BatchNorm2d(3, momentum=None, dtype=torch.float64).train()
    for batch in batches:
        layer(torch.from_numpy(batch))
    answer = call(statistics, [batch.copy() for batch in batches])
    expect(
        isinstance(answer, list | tuple) and len(answer) == 2,
        "The answer is not a pair of arrays.",
        "the exercise's text: the mean and the variance.",
    )
    mean, variance = as_array(answer[0], (3,)), as_array(answer[1], (3,))
    running = np.zeros(3)
    for batch in batches:
        running = 0.9 * running + 0.1 * batch.mean(axis=(0, 2, 3))
    expect(
        not np.allclose(mean, running),
        "This is a running average: the last batch counts most, and the start at 0 is still in it.",
        "the sentence on what `estimate_batch_norm` takes: every batch has the same weight.",
    )
    expect(
        np.allclose(mean, layer.running_mean),
        "The mean is not the mean over batches of the channel's mean.",
        "the axes: images, rows and columns are averaged (0, 2, 3), channels are kept.",
    )
    pooled = np.concatenate(batches)
    expect(
        not any(np.allclose(variance, pooled.var(axis=(0, 2, 3), ddof=ddof)) for ddof in (0, 1)),
        "This is the variance of all batches thrown together: it also holds how much their means differ.",
        "the order: one variance per batch, then the mean of these.",
    )
    biased = np.mean([batch.var(axis=(0, 2, 3)) for batch in batches], axis=0)
    expect(
        not np.allclose(variance, biased),
        "The variance of each batch is divided by the number of its values.",
        "the sentence on the unbiased variance; numpy's `var` has an argument for it, `ddof`.",
    )
    deviation = np.mean([batch.std(axis=(0, 2, 3), ddof=1) for batch in batches], axis=0)
    expect(
        not np.allclose(variance, deviation**2) and not np.allclose(variance, deviation),
        "You average standard deviations.",
        "what PyTorch keeps: variances; the root is taken when they are used.",
    )
    expect(
        np.allclose(variance, layer.running_var),
        f"The variance of the first channel is {variance[0]:.3g}, expected {float(layer.running_var[0]):.3g}.",
        "one variance per batch and channel, over images, rows and columns, then their mean.",
    )
    return "Mean of the means, mean of the unbiased variances: what the trained network is tested with."
