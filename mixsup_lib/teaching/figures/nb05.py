"""What an optimiser step does, how the learning rate falls, and what batch norm remembers (section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.experiments.statistics import ARMS
from mixsup_lib.experiments.style import COLORS, MARKERS, described, new_figure, styled
from mixsup_lib.files import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


LINES = (
    {"color": COLORS["patients"], "ls": "-", "lw": 3.0},
    {"color": "black", "ls": "--", "lw": 1.5},
    {"color": "black", "ls": ":", "lw": 2.0},
    {"color": "black", "ls": "-", "lw": 0.8},
)
"""Lines that belong to no arm: told apart by width and dashes, so that colours keep their meaning."""


@styled
def toy_descent(*, rate: float = 0.05, steps: int = 150, title: str = "") -> Figure:
    """Distance to the minimum of f(x, y) = (x^2 + 10 y^2) / 2, started at (3, 1), under two rules of gradient descent.

    Left: step = rate * gradient; right: step = rate * gradient / norm. The lines multiply f by 0.1, 1 and 10; one more
    on the right lets the rate fall along half a cosine.
    """

    def walk(step: Callable[[np.ndarray, float], np.ndarray]) -> np.ndarray:
        place, distances = np.array([3.0, 1.0]), [np.hypot(3, 1)]
        for i in range(steps):
            place = place - step(place * [1, 10], i / steps)  # (x, 10 y) is the gradient
            distances.append(np.hypot(*place))
        return np.array(distances)

    def falling(share: float) -> float:
        return rate * (1 + np.cos(np.pi * share)) / 2

    scales = (0.1, 1, 10)
    panels = {
        "plain: rate x gradient": {f"f x {c:g}": walk(lambda g, _, c=c: rate * c * g) for c in scales},
        "divided by the norm": {
            f"f x {c:g}": walk(lambda g, _, c=c: rate * c * g / np.hypot(*(c * g))) for c in scales
        },
    }
    panels["divided by the norm"]["f x 1, falling rate"] = walk(lambda g, t: falling(t) * g / np.hypot(*g))
    figure, axes = new_figure(1, 2, width=4.0, height=3.4, sharey=True)
    words = []
    for axis, (name, lines) in zip(axes[0], panels.items(), strict=True):
        for (label, distances), style in zip(lines.items(), LINES, strict=False):
            axis.plot(distances, label=label, **style)
        axis.set(title=name, xlabel="step", yscale="log", ylim=(1e-3, 1e2))
        axis.legend(fontsize=8, loc="upper right")
        words.append(f"{name}: {', '.join(f'{label}: {_distance(d[-1])}' for label, d in lines.items())}")
    axes[0, 0].set_ylabel("distance to the minimum")
    return described(figure, f"Distance to the minimum after {steps} steps. {'; '.join(words)}.", title)


def _distance(value: float) -> str:
    return f"{value:.2g}" if np.isfinite(value) and value < 1e3 else "diverged"


@styled
def gradient_agreement(cosines: Mapping[int, Sequence[float]], *, title: str = "") -> Figure:
    """How far two independent estimates of the gradient agree, against the number of batches summed in each.

    `cosines`: number of batches -> cosines of the angle between pairs of estimates. A dot is a pair, the line the mean.
    """
    figure, axes = new_figure(1, 1, width=5.4, height=3.3)
    axis, numbers = axes[0, 0], list(cosines)
    for number in numbers:
        values = cosines[number]
        axis.scatter([number] * len(values), values, s=22, color=COLORS["patients"], alpha=0.8, linewidths=0)
    means = [float(np.mean(cosines[number])) for number in numbers]
    axis.plot(numbers, means, color="black", marker="o", lw=1.4, label="mean of the pairs")
    axis.axhline(1, color="black", lw=0.8, ls=":")
    axis.set(
        xscale="log",
        xticks=numbers,
        xticklabels=numbers,
        ylim=(min(0.0, *map(min, cosines.values())) - 0.03, 1.04),
    )
    axis.minorticks_off()
    axis.set(xlabel="batches summed in each estimate", ylabel="cosine between two estimates")
    axis.legend(loc="lower right", fontsize=8)
    found = "; ".join(f"{number}: {mean:.2f}" for number, mean in zip(numbers, means, strict=True))
    return described(
        figure, f"Mean cosine between two estimates of the gradient by number of batches: {found}.", title
    )


@styled
def schedules(
    losses: np.ndarray,
    rates: Mapping[str, np.ndarray],
    checks: Mapping[int, tuple[float, bool]],
    *,
    title: str = "",
) -> Figure:
    """A loss per iteration with the plateau rule's checks, and below the learning rates of several schedules.

    `losses` and each of `rates` are (n,); `checks`: iteration -> mean loss of the check's last window, passed or not.
    """
    figure, axes = new_figure(2, 1, width=7.2, height=2.5, sharex=True)
    axes[0, 0].plot(np.arange(1, len(losses) + 1), losses, color=COLORS["patients"], lw=0.5)
    for verdict, marker, label in ((True, "o", "check passed"), (False, "X", "check failed")):
        points = {at: mean for at, (mean, passed) in checks.items() if passed == verdict}
        style = {"color": "white" if verdict else "black", "edgecolors": "black", "zorder": 3}
        axes[0, 0].scatter(list(points), list(points.values()), marker=marker, s=50, label=label, **style)
    for (name, values), style in zip(rates.items(), LINES[1:], strict=False):
        axes[1, 0].plot(np.arange(1, len(values) + 1), values, label=name, **style)
    axes[0, 0].set(ylabel="loss (nats)", yscale="log")
    axes[1, 0].set(ylabel="learning rate", yscale="log", xlabel="iteration")
    for axis in axes[: 1 + bool(rates), 0]:
        axis.legend(fontsize=8, loc="upper right")
    failed = [iteration for iteration, (_, passed) in checks.items() if not passed]
    last = ", ".join(f"{name} {values[-1]:.3g}" for name, values in rates.items())
    words = f"{len(checks)} checks of the plateau rule, {len(failed)} failed"
    words += f" (at iterations {', '.join(map(str, failed))})" if failed else ""
    return described(figure, f"{words}. Learning rates at iteration {len(losses)}: {last}.", title)


@styled
def seen_and_unseen(dice: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice of the patients whose masks a network was trained on, beside that of test patients; one panel per arm.

    `dice`: columns supervision, group ("annotated" or "test"), dice (%). Lines are the means.
    """
    arms = [arm for arm in ARMS if arm in set(dice["supervision"])]
    if not arms:
        raise DataError("there is no Dice to draw; evaluate a network first.")
    figure, axes = new_figure(1, len(arms), width=3.0, height=3.4, sharey=True)
    words = []
    for axis, arm in zip(axes[0], arms, strict=True):
        means = {}
        for x, group in enumerate(("annotated", "test")):
            values = dice.loc[(dice["supervision"] == arm) & (dice["group"] == group), "dice"].to_numpy()
            means[group] = float(np.nanmean(values))
            style = {
                "marker": MARKERS[arm],
                "facecolors": COLORS[arm] if x else "none",
                "edgecolors": COLORS[arm],
            }
            axis.scatter(np.full(len(values), x), values, s=34, **style)
            axis.plot([x - 0.25, x + 0.25], [means[group]] * 2, color="black", lw=1.6)
            axis.annotate(f"{means[group]:.0f}", (x + 0.29, means[group]), va="center", weight="bold")
        axis.set(
            xticks=[0, 1], xticklabels=["annotated\n(trained on)", "test\n(never seen)"], xlim=(-0.5, 1.6)
        )
        axis.set(ylim=(-3, 103), title=f"{arm} supervision")
        words.append(f"{arm}: {means['annotated']:.0f} on annotated, {means['test']:.0f} on test patients")
    axes[0, 0].set_ylabel("Dice of a patient (%)")
    return described(figure, f"Mean Dice. {'; '.join(words)}.", title)


@styled
def batch_norm_memory(
    means: np.ndarray, running: np.ndarray, *, test: float, what: str, title: str = ""
) -> Figure:
    """Means of one channel over training batches and what two estimates make of them; beside it the test slices' mean.

    `means` (N,): the batches; `running` (N,): torch's running average after each of them. The second estimate, the mean
    over all batches so far, is computed here. `what` names channel and layer.
    """
    figure, axes = new_figure(1, 2, width=4.2, height=3.4)
    number = np.arange(1, len(means) + 1)
    cumulative = np.cumsum(means) / number
    for axis in axes[0]:
        axis.scatter(number, means, s=14, color=COLORS["patients"], label="one training batch", linewidths=0)
        axis.plot(number, running, label="running average", **LINES[3])
        axis.plot(number, cumulative, label="mean over all batches so far", **LINES[1])
        axis.set_xlabel("training batch")
    axes[0, 0].set(title="training batches", ylabel=f"mean of {what}")
    axes[0, 1].axhline(test, color="black", lw=1.0, ls="-.", label="all slices of the test patients")
    axes[0, 1].set_title("the same, with the test slices")
    figure.legend(*axes[0, 1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    spread = [float(np.std(line[len(line) // 2 :])) for line in (means, running, cumulative)]
    names = ("single batches", "running average", "mean over all batches")
    words = ", ".join(f"{name} {value:.2g}" for name, value in zip(names, spread, strict=True))
    words = f"Standard deviation over the second half: {words}. "
    return described(figure, f"{words}Last value {cumulative[-1]:.3g}, on test slices {test:.3g}.", title)
