"""Exercises of notebook 05: the direction of an iteration, the plateau rule's reaction, statistics of batch norm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mixsup_lib.optim import NormalizedSGD, PlateauSchedule
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, close

SHAPES = ((4, 3), (5,), (2, 2, 2))
Tensors = list[torch.Tensor]


def _gradients() -> list[Tensors]:
    """Three batches whose gradients differ in length, and so do those of their weight tensors."""
    generator = torch.Generator().manual_seed(5)
    sizes = dict(zip(SHAPES, (1.0, 10.0, 0.1), strict=True))
    return [
        [torch.randn(shape, generator=generator) * scale * sizes[shape] for shape in SHAPES]
        for scale in (1.0, 4.0, 0.5)
    ]


def _sum(gradients: list[Tensors]) -> Tensors:
    return [torch.stack(tensors).sum(dim=0) for tensors in zip(*gradients, strict=True)]


def _unit(tensors: Tensors) -> Tensors:
    norm = torch.stack([tensor.norm() for tensor in tensors]).norm()
    return [tensor / norm for tensor in tensors]


def _norm_per_tensor(gradients: list[Tensors]) -> Tensors:
    return [tensor / tensor.norm() for tensor in _sum(gradients)]


def _norm_per_batch(gradients: list[Tensors]) -> Tensors:
    return _sum([_unit(batch) for batch in gradients])


def _in_place(gradients: list[Tensors]) -> Tensors:
    for total, *others in zip(*gradients, strict=True):
        total += sum(others)
    return _unit(gradients[0])


def _flat(direction: Callable, gradients: list[Tensors]) -> Any:
    """All numbers of the direction in one row, or words if it is no list of tensors of these shapes."""
    found = direction(gradients)
    shapes = [getattr(tensor, "shape", None) for tensor in found] if isinstance(found, list | tuple) else []
    if shapes != list(SHAPES):
        return "another form"
    return torch.cat([torch.as_tensor(tensor, dtype=torch.float64).flatten() for tensor in found])


def _along(wrong: Callable) -> Callable:
    """Whether a direction is that of `wrong`, whatever its length."""
    other = _flat(wrong, _gradients()).numpy()
    return lambda found, *_: close(found / np.linalg.norm(found), other / np.linalg.norm(other), 1e-3)


exercise_5_1 = Exercise(
    right=lambda gradients: _unit(_sum(gradients)),
    cases={"Three batches": (_gradients(),)},
    attempt=_flat,
    same=functools.partial(close, tolerance=1e-3),
    mistakes=(
        Mistake(
            lambda gradients: [_unit(batch) for batch in gradients],
            "The answer is not a list with one tensor per weight tensor, of the same shapes.",
            "what the exercise asks for: one list for the whole iteration, whatever the number of batches.",
            when=lambda found, *_: isinstance(found, str),
        ),
        Mistake(
            _in_place,
            "Your function changed the gradients that it was given.",
            "operations that end in an underscore, and `+=` on a tensor: they work in place.",
            when=lambda found, wanted, gradients: str(gradients) != str(_gradients()),
        ),
        Mistake(
            _norm_per_tensor,
            "Every weight tensor is divided by its own norm: a layer with a small gradient moves as far as any other.",
            "which norm the paper's optimiser takes: one length over all weights together.",
            when=_along(_norm_per_tensor),
        ),
        Mistake(
            _norm_per_batch,
            "Every batch is normalised before the sum: a batch with a tiny gradient has as much to say as any other.",
            "the order of the two operations: first the sum over batches, then the norm.",
            when=_along(_norm_per_batch),
        ),
        Mistake(
            lambda gradients: gradients[0],
            "This is the gradient of the first batch.",
            "the sum over all entries of `gradients`, tensor by tensor: `zip(*gradients)` groups them.",
        ),
        Mistake(
            _sum,
            "The length of your direction over all tensors is {seen}, expected 1.",
            "the norm: the square root of the sum of all squares, over all tensors.",
            when=lambda found, *_: abs(np.linalg.norm(found) - 1) > 1e-4 and f"{np.linalg.norm(found):.3g}",
        ),
    ),
    says="The length is 1, but the direction is not that of the summed gradients.",
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


def _rule(minimum: float = 0.001, limit: float = 0.995, longer: int = 100, **remembered: bool) -> Callable:
    """The rule with other numbers, or with other checks that are remembered as failed."""

    def react(ok: bool, failed_before: bool, rate: float, interval: int, ratio: float) -> tuple:
        if ok:
            return failed_before and remembered.get("passed", False), rate, interval, ratio
        if not failed_before:
            return True, max(rate / 2, minimum), interval, ratio
        return remembered.get("twice", False), rate, interval + longer, min(ratio + 0.001, limit)

    return react


def _first_off(found: np.ndarray, wanted: np.ndarray, *_: Any) -> str:
    i = next(i for i in (1, 2, 3) if not close(found[i : i + 1], wanted[i : i + 1]))
    return f"{('rate', 'interval', 'ratio')[i - 1]} is {found[i]:g}, expected {wanted[i]:g}"


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
    same=functools.partial(close, tolerance=1e-5),
    mistakes=(
        Mistake(
            lambda ok, failed_before, rate, interval, ratio: _rule()(ok, False, rate, interval, ratio),
            "{case}: you lower the rate a second time in a row.",
            "the table's last row: after two failures it is the patience that grows.",
            when=lambda found, wanted, ok, failed, rate, *_: not ok and failed and found[1] < rate,
        ),
        Mistake(
            _rule(minimum=0.0),
            "{case}: your rate is {found[1]:g}.",
            "the lower limit of the rate in the table's second row.",
            when=lambda found, *_: found[1] < 0.001,
        ),
        Mistake(
            _rule(limit=1.0),
            "{case}: your ratio is {found[3]:g}.",
            "the upper limit of the ratio in the table's last row.",
            when=lambda found, *_: found[3] > 0.995 + 1e-9,
        ),
        Mistake(
            _rule(twice=True),
            "{case}: your rule still counts the check before as failed.",
            "the end of the table's last row: counting starts anew.",
            when=lambda found, wanted, ok, failed_before, *_: not ok and failed_before and found[0],
        ),
        Mistake(
            _rule(passed=True),
            "{case}: you return failed_before = {seen}.",
            "what the next check has to know about this one: a passed check forgets, a first failure is remembered.",
            when=lambda found, wanted, *_: (
                bool(found[0]) != bool(wanted[0]) and f"{bool(found[0])}, expected {bool(wanted[0])}"
            ),
        ),
        Mistake(
            _rule(longer=50),
            "{case}: your {seen}.",
            "the row of the table for this case, and the order of the four values returned.",
            when=_first_off,
        ),
    ),
    praise="Halve once, then wait longer: the rate falls only where waiting alone does not help.",
)


PIXELS = (0, 2, 3)
"""Axes of images, rows and columns."""


def _batches() -> list[np.ndarray]:
    """Four batches (2, 3, 2, 2) whose means and variances differ."""
    rng = np.random.default_rng(3)
    return [rng.normal(3 * i, 1 + i, (2, 3, 2, 2)) * [[[[1]], [[2]], [[5]]]] for i in range(4)]


def _by_torch(batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    layer = torch.nn.BatchNorm2d(3, momentum=None, dtype=torch.float64).train()
    for batch in batches:
        layer(torch.from_numpy(batch))
    return layer.running_mean.numpy(), layer.running_var.numpy()


def _mean_and(variance: Callable) -> Callable:
    """The right mean, and another variance."""
    return lambda batches: (_by_torch(batches)[0], variance(batches))


def _running(batches: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = np.zeros(3), np.ones(3)
    for batch in batches:
        mean = 0.9 * mean + 0.1 * batch.mean(PIXELS)
        variance = 0.9 * variance + 0.1 * batch.var(PIXELS, ddof=1)
    return mean, variance


def _deviation(batches: list[np.ndarray]) -> np.ndarray:
    return np.mean([batch.std(PIXELS, ddof=1) for batch in batches], axis=0)


def _pooled(batches: list[np.ndarray], ddof: int = 1) -> np.ndarray:
    return np.concatenate(batches).var(PIXELS, ddof=ddof)


exercise_5_3 = Exercise(
    right=_by_torch,
    cases={"Four batches": (_batches(),)},
    same=functools.partial(close, tolerance=1e-5),
    mistakes=(
        Mistake(
            _running,
            "This is a running average: the last batch counts most, and the start at 0 is still in it.",
            "the sentence on what `estimate_batch_norm` takes: every batch has the same weight.",
            when=lambda found, wanted, batches: close(found[0], _running(batches)[0]),
        ),
        Mistake(
            lambda batches: (
                np.sum([batch.mean(PIXELS) for batch in batches], axis=0),
                _by_torch(batches)[1],
            ),
            "The mean is not the mean over batches of the channel's mean.",
            "the axes: images, rows and columns are averaged (0, 2, 3), channels are kept.",
            when=lambda found, wanted, _: found.shape == wanted.shape and not close(found[0], wanted[0]),
        ),
        Mistake(
            _mean_and(_pooled),
            "This is the variance of all batches thrown together: it also holds how much their means differ.",
            "the order: one variance per batch, then the mean of these.",
            when=lambda found, wanted, batches: any(
                close(found[1], _pooled(batches, ddof)) for ddof in (0, 1)
            ),
        ),
        Mistake(
            _mean_and(lambda batches: np.mean([batch.var(PIXELS) for batch in batches], axis=0)),
            "The variance of each batch is divided by the number of its values.",
            "the sentence on the unbiased variance; numpy's `var` has an argument for it, `ddof`.",
        ),
        Mistake(
            _mean_and(_deviation),
            "You average standard deviations.",
            "what PyTorch keeps: variances; the root is taken when they are used.",
            when=lambda found, wanted, batches: any(
                close(found[1], _deviation(batches) ** n) for n in (1, 2)
            ),
        ),
    ),
    says="The variance of the first channel is {found[1][0]:.3g}, expected {wanted[1][0]:.3g}.",
    look="one variance per batch and channel, over images, rows and columns, then their mean.",
    praise="Mean of the means, mean of the unbiased variances: what the trained network is tested with.",
)
