"""Checks of notebook 10: what a convolution costs, what the whole grid costs, and what a sum of gradients needs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect


@check
def exercise_10_1(gflop: Any) -> str:
    """(maps in, maps out, kernel, output size) -> GFLOP of one convolution."""
    for maps_in, maps_out, kernel, size in ((4, 64, 3, 298), (64, 64, 3, 296), (1024, 512, 2, 21)):
        right = 2 * maps_in * maps_out * kernel**2 * size**2 / 1e9
        found = float(as_array(call(gflop, maps_in, maps_out, kernel, size), ()))
        where = f"{maps_in} -> {maps_out} maps, kernel {kernel}, output {size}x{size}"
        expect(
            not np.isclose(found, right / 2),
            f"{where}: {found:.4g} is half of what is asked for.",
            "what one multiply-add counts: a multiplication and an addition.",
        )
        expect(
            not np.isclose(found, right / kernel),
            f"{where}: {found:.4g} counts a kernel of {kernel} numbers.",
            "how many numbers a square kernel has for each pair of maps.",
        )
        expect(
            not np.isclose(found, right / size),
            f"{where}: {found:.4g} counts one row of the output.",
            "the number of output pixels; the kernel is applied at each of them.",
        )
        expect(
            not np.isclose(found, right * 1e9),
            f"{where}: {found:.4g} is in FLOP, not in GFLOP.",
            "the unit: 1 GFLOP is 10^9 operations.",
        )
        expect(
            np.isclose(found, right, rtol=1e-3),
            f"{where}: {found:.4g}, expected another number.",
            "2 x maps in x maps out x kernel area x output pixels; biases may be left out.",
        )
    return "Layers at full resolution with many maps dominate: that is where the time goes."


@check
def exercise_10_2(days: Any) -> str:
    """images/s -> days for the paper's 60 mixed runs and their 60 partners."""
    right = 60 * 10_000 * 10 * (10 + 6) / 86_400
    for rate in (100.0, 1500.0):
        found = float(as_array(call(days, rate), ())) * rate
        for factor, message, look in (
            (
                1 / 10,
                "one batch in an iteration",
                "the gradients of ten batches are summed before each step.",
            ),
            (
                10 / 16,
                "the mixed runs alone",
                "that every mixed run has a partner that sees 6 images a batch.",
            ),
            (20 / 16, "ten images in every batch", "the batch of standard supervision: k + m = 6 images."),
            (24, "hours", "the unit: days."),
            (86_400, "seconds", "the unit: days."),
        ):
            expect(
                not np.isclose(found, right * factor), f"At {rate:g} images/s this counts {message}.", look
            )
        expect(
            np.isclose(found, right, rtol=1e-3),
            f"At {rate:g} images/s you get {found / rate:.4g} days, expected another number.",
            "runs x iterations x batches per iteration x images in a batch, for each arm, over images a second.",
        )
    return "96 million images. At 100 images a second that is 11 days, at 1 500 less than one."


@check
def exercise_10_3(accumulate: Any) -> str:
    """(network, batches, loss) -> gradient of the summed loss in .grad, one graph alive at a time."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)  # left over from the step before
    reference = copy.deepcopy(network)
    batches = [torch.randn(5, 6) for _ in range(4)]
    reference.zero_grad()
    sum(reference(batch).square().mean() for batch in batches).backward()
    alive, most = 0, 0

    def loss(net: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        value = net(batch).square().mean()

        def released(gradient: torch.Tensor) -> None:
            nonlocal alive
            alive -= 1

        value.register_hook(released)
        return value

    call(accumulate, network, batches, loss, or_none=True)
    found = [parameter.grad for parameter in network.parameters()]
    expect(
        all(gradient is not None for gradient in found),
        "Some parameters have no gradient.",
        "which call fills `.grad`: `backward()`.",
    )
    right = [parameter.grad for parameter in reference.parameters()]
    off = [gradient - exact for gradient, exact in zip(found, right, strict=True)]
    expect(
        not all(
            torch.allclose(difference, torch.full_like(difference, 7.0), atol=1e-4) for difference in off
        ),
        "The gradient still holds that of the step before.",
        "what must happen to `.grad` before the first batch: `network.zero_grad()`.",
    )
    expect(
        not all(torch.allclose(4 * g, r, atol=1e-5) for g, r in zip(found, right, strict=True)),
        "The gradient is the mean over the batches.",
        "section 3.1: gradients are summed; the norm is divided out afterwards.",
    )
    expect(
        all(torch.allclose(g, r, atol=1e-5) for g, r in zip(found, right, strict=True)),
        "The gradient is not that of the summed loss.",
        "whether every batch is used exactly once, and whether `.grad` is cleared between them.",
    )
    expect(
        most == 1,
        f"Right sum, but the graphs of {most} batches were alive at once.",
        "where `backward()` stands: inside the loop it frees the graph of its batch.",
    )
    return "The same gradient as that of the summed loss, in the memory of one batch."
