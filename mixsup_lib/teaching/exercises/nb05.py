"""Exercises of notebook 05: the direction of an iteration, the plateau rule's reaction, statistics of batch norm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from mixsup_lib.optim import NormalizedSGD, PlateauSchedule
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, close

Tensors = list[torch.Tensor]


def _gradients() -> list[Tensors]:
    """Three batches whose gradients differ in length, and so do those of their weight tensors."""
    generator, sizes = torch.Generator().manual_seed(5), {(4, 3): 1.0, (5,): 10.0, (2, 2, 2): 0.1}
    weights = [size * torch.randn(3, *shape, generator=generator) for shape, size in sizes.items()]
    return [[scale * tensor[i] for tensor in weights] for i, scale in enumerate((1.0, 4.0, 0.5))]


def _sum(gradients: list[Tensors]) -> Tensors:
    return [torch.stack(tensors).sum(dim=0) for tensors in zip(*gradients, strict=True)]


def _unit(tensors: Tensors) -> Tensors:
    norm = torch.stack([tensor.norm() for tensor in tensors]).norm()
    return [tensor / norm for tensor in tensors]


exercise_5_1 = Exercise(
    right=lambda gradients: _unit(_sum(gradients)),
    cases={"Three batches": (_gradients(),)},
    same=lambda found, wanted: all(
        close(np.asarray(one), np.asarray(other), 1e-3) for one, other in zip(found, wanted, strict=True)
    ),
    mistakes=(
        Mistake(
            lambda gradients: gradients[0],
            "This is the gradient of the first batch.",
            "the sum over all entries of `gradients`, tensor by tensor: `zip(*gradients)` groups them.",
        ),
        Mistake(
            lambda gradients: [tensor / tensor.norm() for tensor in _sum(gradients)],
            "Every weight tensor is divided by its own norm: a layer with a small gradient moves as far as any other.",
            "which norm the paper's optimiser takes: one length over all weights together.",
        ),
        Mistake(
            lambda gradients: _sum([_unit(batch) for batch in gradients]),
            "Every batch is normalised before the sum: a batch with a tiny gradient has as much to say as any other.",
            "the order of the two operations: first the sum over batches, then the norm.",
        ),
        Mistake(
            _sum,
            "The length of your direction over all tensors is not 1.",
            "the norm: the square root of the sum of all squares, over all tensors.",
        ),
    ),
    says="Your answer is not the direction of the summed gradients, a list with one tensor per weight tensor.",
    look="signs and weights: every batch enters with weight 1, and the minus sign belongs to the step.",
    praise="Sum first, then one norm: three batches, one direction, and its length is 1.",
)


def _reaction(ok: bool, failed_before: bool, rate: float, interval: int, ratio: float) -> tuple:
    """What the library's rule makes of a check with this outcome."""
    optimizer = NormalizedSGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = PlateauSchedule(optimizer, interval=interval, ratio=ratio)
    schedule.failed_before = failed_before
    for i in range(interval):
        schedule.step(1.0 if i < interval // 2 else 0.5 if ok else 2.0)
    return schedule.failed_before, optimizer.param_groups[0]["lr"], schedule.interval, schedule.ratio


def _without_limits(ok: bool, failed_before: bool, rate: float, interval: int, ratio: float) -> tuple:
    if ok:
        return False, rate, interval, ratio
    return (False, rate, interval + 100, ratio + 0.001) if failed_before else (True, rate / 2, interval, ratio)


exercise_5_2 = Exercise(
    right=_reaction,
    cases={
        f"This check {'passed' if case[0] else 'failed'}, the one before {'failed' if case[1] else 'passed'}, "
        f"rate {case[2]:g}, interval {case[3]}, ratio {case[4]:g}": case
        for case in (
            (True, False, 0.25, 500, 0.99),
            (False, False, 0.25, 500, 0.99),
            (True, True, 0.125, 500, 0.99),
            (False, True, 0.125, 500, 0.99),
            (False, False, 0.0015, 500, 0.99),
            (False, True, 0.01, 900, 0.995),
        )
    },
    mistakes=(
        Mistake(
            lambda ok, failed_before, *numbers: _reaction(ok, False, *numbers),
            "{case}: you lower the rate a second time in a row.",
            "the table's last row: after two failures it is the patience that grows.",
        ),
        Mistake(
            _without_limits,
            "{case}: rate {found[1]:g} or ratio {found[3]:g} is beyond its limit.",
            "the limits of the rate in the table's second row and of the ratio in its last.",
        ),
        Mistake(
            lambda ok, failed_before, *numbers: (failed_before, *_reaction(ok, failed_before, *numbers)[1:]),
            "{case}: you return failed_before = {seen}.",
            "what the next check has to know about this one: a passed check forgets, a first failure is remembered.",
            when=lambda found, wanted, *_: (
                bool(found[0]) != bool(wanted[0]) and f"{bool(found[0])}, expected {bool(wanted[0])}"
            ),
        ),
    ),
    says="{case}: you return {found}, expected {wanted}.",
    look="the row of the table for this case, and the order of the four values returned.",
    praise="Halve once, then wait longer: the rate falls only where waiting alone does not help.",
)


PIXELS = (0, 2, 3)
"""Axes of images, rows and columns."""


RNG = np.random.default_rng(3)
BATCHES = [RNG.normal(3 * i, 1 + i, (2, 3, 2, 2)) * [[[[1]], [[2]], [[5]]]] for i in range(4)]
"""Arrays (B, C, H, W) whose means and variances differ."""


def _by_torch(batches: list[np.ndarray], momentum: float | None = None) -> list[np.ndarray]:
    layer = torch.nn.BatchNorm2d(3, momentum=momentum, dtype=torch.float64).train()
    for batch in batches:
        layer(torch.from_numpy(batch))
    return [layer.running_mean.numpy(), layer.running_var.numpy()]


def _mean_and(variance: Callable) -> Callable:
    """The right mean, and another variance."""
    return lambda batches: (_by_torch(batches)[0], variance(batches))


exercise_5_3 = Exercise(
    right=_by_torch,
    cases={"Four batches": (BATCHES,)},
    mistakes=(
        Mistake(
            lambda batches: _by_torch(batches, momentum=0.1),
            "This is a running average: the last batch counts most, and the start at 0 is still in it.",
            "the sentence on what `estimate_batch_norm` takes: every batch has the same weight.",
        ),
        Mistake(
            lambda batches: (np.zeros(3), _by_torch(batches)[1]),
            "The mean is not the mean over batches of the channel's mean.",
            "the axes: images, rows and columns are averaged (0, 2, 3), channels are kept.",
            when=lambda found, wanted, _: found.shape == wanted.shape and not close(found[0], wanted[0]),
        ),
        Mistake(
            _mean_and(lambda batches: np.concatenate(batches).var(PIXELS, ddof=1)),
            "This is the variance of all batches thrown together: it also holds how much their means differ.",
            "the order: one variance per batch, then the mean of these.",
        ),
        Mistake(
            _mean_and(lambda batches: np.mean([batch.var(PIXELS) for batch in batches], axis=0)),
            "The variance of each batch is divided by the number of its values.",
            "the sentence on the unbiased variance; numpy's `var` has an argument for it, `ddof`.",
        ),
    ),
    says="The variance of the first channel is {found[1][0]:.3g}, expected {wanted[1][0]:.3g}.",
    look="one variance per batch and channel, over images, rows and columns, then their mean.",
    praise="Mean of the means, mean of the unbiased variances: what the trained network is tested with.",
)
