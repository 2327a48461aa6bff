"""How the weights move (section 3.1): momentum on the normalised gradient, and how the learning rate falls.

An iteration sums the gradients of several batches (call `backward` on each), then takes one `step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mixsup_lib.files import MixsupError, SettingError


class DivergedError(MixsupError, ArithmeticError):
    """A loss or a gradient is not a finite number, so no step can be taken (exit code 1)."""


class NormalizedSGD(torch.optim.Optimizer):
    """SGD with momentum on the gradient divided by its global L2 norm (section 3.1), without weight decay.

    g = gradient / norm over all parameters of all groups; v <- momentum * v - lr * g; theta <- theta + v. The
    first step has length lr whatever the scale of the loss, so summing the gradients of ten batches or
    averaging them is the same. A gradient of exactly zero leaves out g: the step is momentum alone. A parameter
    without gradient counts as zero.

    Raises SettingError for lr <= 0 or momentum outside [0, 1), DivergedError (parameters untouched) for a
    gradient that is NaN or infinite.
    """

    def __init__(self, params: Iterable, lr: float = 0.25, momentum: float = 0.9) -> None:
        if not lr > 0:
            raise SettingError(f"The learning rate is {lr}, expected a number above 0.")
        if not 0 <= momentum < 1:
            raise SettingError(f"momentum is {momentum}, expected a number from 0 to below 1.")
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One iteration from the gradients summed so far; returns the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            raise SettingError("No parameter has a gradient: call backward() on a loss before step().")
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            raise DivergedError(
                f"The norm of the gradient is {norm}: training diverged; check the input for extreme "
                "values or lower the learning rate."
            )
        for group in self.param_groups:
            velocities = [self._velocity(p) for p in group["params"]]
            torch._foreach_mul_(velocities, group["momentum"])
            moving = [p for p in group["params"] if p.grad is not None]
            if norm > 0 and moving:
                torch._foreach_add_(
                    [self._velocity(p) for p in moving], [p.grad for p in moving], alpha=-group["lr"] / norm
                )
            torch._foreach_add_(group["params"], velocities)
        return loss

    def _velocity(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state["velocity"]


class PlateauSchedule:
    """The authors' rule: halve the learning rate when the loss stops falling.

    Every `interval` (500) iterations the mean loss of the last `window` (interval / 2 - 5 = 245) iterations is
    compared with that of the `window` before. If it is not below `ratio` (0.99) of it, the check fails and the
    learning rate is halved, never below `minimum` (0.001). If the next check fails too, the learning rate stays.
    Instead the interval grows by 100, the window with it, the ratio rises by 0.001 (at most 0.995), and counting
    starts anew.

    Raises SettingError for an interval too short to hold two windows of one iteration (12).
    """

    GROWTH, RATIO_STEP, RATIO_LIMIT = 100, 0.001, 0.995

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, interval: int = 500, ratio: float = 0.99, minimum: float = 0.001
    ) -> None:
        if interval < 12:
            raise SettingError(f"The interval of the plateau schedule is {interval}, expected at least 12 iterations.")
        self.optimizer = optimizer
        self.interval, self.ratio, self.minimum = interval, ratio, minimum
        self.failed_before = False
        self.losses: list[float] = []  # since the last check

    @property
    def window(self) -> int:
        """Iterations in each of the two means that a check compares."""
        return self.interval // 2 - 5

    def step(self, loss: float) -> None:
        """Note the loss of a finished iteration; at the end of an interval check, and adapt the rate."""
        self.losses.append(float(loss))
        if len(self.losses) < self.interval:
            return
        recent = sum(self.losses[-self.window :]) / self.window
        before = sum(self.losses[-2 * self.window : -self.window]) / self.window
        self.losses = []
        if recent < self.ratio * before:
            self.failed_before = False
        elif not self.failed_before:
            self.failed_before = True
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"] / 2, self.minimum)
        else:
            self.failed_before = False
            self.interval += self.GROWTH
            self.ratio = max(self.ratio, min(self.ratio + self.RATIO_STEP, self.RATIO_LIMIT))

    def state_dict(self) -> dict:
        """Numbers and a list of numbers; the learning rate itself is part of the optimiser's state."""
        state = {name: value for name, value in vars(self).items() if name != "optimizer"}
        return state | {"losses": list(self.losses)}

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict` was taken."""
        vars(self).update(state, losses=list(state["losses"]))


def cosine_schedule(optimizer: torch.optim.Optimizer, iterations: int, final_fraction: float = 0.01) -> LambdaLR:
    """Half a cosine from the optimiser's learning rate to `final_fraction` of it, over `iterations` >= 1 steps.

    Afterwards the rate stays; a final fraction of 1 keeps it constant from the beginning.

    Departure: short runs fall along a cosine; the authors' plateau rule needs thousands of iterations.
    """

    def share(done: int) -> float:
        progress = min(done / iterations, 1.0)
        return final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, share)
