"""Exercises of notebook 10: what a convolution costs, what the whole grid costs, and what a sum of gradients needs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, cases, close


def _gflop(maps_in: int, maps_out: int, kernel: int, size: int) -> float:
    return 2 * maps_in * maps_out * kernel**2 * size**2 / 1e9


exercise_10_1 = Exercise(
    right=_gflop,
    cases=cases("{0} -> {1} maps, kernel {2}, output {3}x{3}", (4, 64, 3, 298), (64, 64, 3, 296), (1024, 512, 2, 21)),
    same=functools.partial(close, tolerance=0.02),  # biases may be counted, 1.4 % of the first layer
    mistakes=(
        Mistake(
            lambda *layer: _gflop(*layer) / 2,
            "{case}: {found:.4g} is half of what is asked for.",
            "what one multiply-add counts: a multiplication and an addition.",
        ),
        Mistake(
            lambda maps_in, maps_out, kernel, size: _gflop(maps_in, maps_out, kernel, size) / size,
            "{case}: {found:.4g} counts one row of the output.",
            "the number of output pixels; the kernel is applied at each of them.",
        ),
        Mistake(
            lambda *layer: 1e9 * _gflop(*layer),
            "{case}: {found:.4g} is in FLOP, not in GFLOP.",
            "the unit: 1 GFLOP is 10^9 operations.",
        ),
    ),
    says="{case}: {found:.4g}, expected another number.",
    look="2 x maps in x maps out x kernel area x output pixels; biases may be left out.",
    praise="Layers at full resolution with many maps dominate: that is where the time goes.",
)


def _days(standard: int = 6, batches: int = 10, seconds: float = 86_400) -> Callable[[float], float]:
    """Days for 60 runs of each arm, with so many images in a batch of standard supervision."""
    return lambda rate: 60 * 10_000 * batches * (10 + standard) / rate / seconds


exercise_10_2 = Exercise(
    right=_days(),
    cases=cases("At {:g} images/s", (100.0,), (1500.0,)),
    same=functools.partial(close, tolerance=1e-3),
    mistakes=(
        Mistake(
            _days(batches=1),
            "{case} this counts one batch in an iteration.",
            "the gradients of ten batches are summed before each step.",
        ),
        Mistake(
            _days(standard=0),
            "{case} this counts the mixed runs alone.",
            "that every mixed run has a partner that sees 6 images a batch.",
        ),
        Mistake(_days(seconds=3600), "{case} this counts hours.", "the unit: days."),
    ),
    says="{case} you get {found:.4g} days, expected another number.",
    look="runs x iterations x batches per iteration x images in a batch, for each arm, over images a second.",
    praise="96 million images. At 100 images a second that is 11 days, at 1 500 less than one.",
)


def _gradient(accumulate: Callable) -> np.ndarray:
    """The gradient in one row, and behind it how many graphs were alive at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
        batches = [torch.randn(5, 6, dtype=torch.float64) for _ in range(4)]
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)  # what the step before has left
    alive = [0]

    def loss(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        alive.append(alive[-1] + 1)
        value = network(batch).square().mean()
        value.register_hook(lambda gradient: alive.append(alive[-1] - 1))  # backward() reached it
        return value

    accumulate(network, batches, loss)
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in network.parameters()]
    return np.concatenate([*(gradient.flatten() for gradient in gradients), [max(alive)]])


def _accumulate(network: torch.nn.Module, batches: list[torch.Tensor], loss: Callable) -> None:
    network.zero_grad()
    for batch in batches:
        loss(network, batch).backward()


exercise_10_3 = Exercise(
    right=_accumulate,
    cases={"Four batches": ()},
    attempt=_gradient,
    mistakes=(
        Mistake(
            lambda network, batches, loss: [loss(network, batch).backward() for batch in batches],
            "The gradient still holds that of the step before.",
            "what must happen to `.grad` before the first batch: `network.zero_grad()`.",
        ),
        Mistake(
            lambda network, batches, loss: _accumulate(network, batches, lambda *one: loss(*one) / len(batches)),
            "The gradient is the mean over the batches.",
            "section 3.1: gradients are summed; the norm is divided out afterwards.",
        ),
        Mistake(
            lambda network, batches, loss: _accumulate(
                network, [batches], lambda *_: sum([loss(network, batch) for batch in batches])
            ),
            "Right sum, but the graphs of all four batches were alive at once.",
            "where `backward()` stands: inside the loop it frees the graph of its batch.",
        ),
    ),
    says="The gradient is not that of the summed loss.",
    look="whether every batch is used exactly once, and whether `.grad` is cleared between them.",
    praise="The same gradient as that of the summed loss, in the memory of one batch.",
)
