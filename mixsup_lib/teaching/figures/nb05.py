"""What an optimiser step does, how the learning rate falls, and what batch norm remembers (section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.experiments.statistics import ARMS
from mixsup_lib.experiments.style import COLORS, MARKERS, described, log_ticks, new_figure, styled

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
def toy_descent() -> Figure:
    """Distance to the minimum of f(x, y) = (x^2 + 10 y^2) / 2, started at (3, 1), under two rules of gradient descent.

    Left: step = 0.05 * gradient; right: step = 0.05 * gradient / norm. The lines multiply f by 0.1, 1 and 10; one more
    on the right lets the rate fall along half a cosine.
    """

    def walk(scale: float, rates: np.ndarray, normalised: bool) -> list[float]:
        place = np.array([3.0, 1.0])
        distances = [np.hypot(*place)]
        for now in rates:
            gradient = scale * place * [1, 10]
            place = place - now * gradient / (np.hypot(*gradient) if normalised else 1)
            distances.append(np.hypot(*place))
        return distances

    steps, rate, scales = 150, 0.05, (0.1, 1, 10)
    constant = np.full(steps, rate)
    plain, normalised = ({f"f x {k:g}": walk(k, constant, divide) for k in scales} for divide in (False, True))
    falling = rate * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    normalised["f x 1, falling rate"] = walk(1, falling, True)
    panels = {"plain: rate x gradient": plain, "divided by the norm": normalised}
    figure, axes = new_figure(1, 2, width=4.0, height=3.4, sharey=True)
    words = []
    for axis, (name, lines) in zip(axes[0], panels.items(), strict=True):
        for (label, distances), style in zip(lines.items(), LINES, strict=False):
            axis.plot(distances, label=label, **style)
        axis.set(title=name, xlabel="step", yscale="log", ylim=(1e-3, 1e2))
        axis.legend(fontsize=8, loc="upper right")
        ends = {label: f"{d[-1]:.2g}" if d[-1] < 1e3 else "diverged" for label, d in lines.items()}
        words.append(f"{name}: {', '.join(f'{label}: {end}' for label, end in ends.items())}")
    axes[0, 0].set_ylabel("distance to the minimum")
    return described(figure, f"Distance to the minimum after {steps} steps. {'; '.join(words)}.")


@styled
def gradient_agreement(cosines: Mapping[int, Sequence[float]]) -> Figure:
    """How far two independent estimates of the gradient agree, against the number of batches summed in each.

    `cosines`: number of batches -> cosines of the angle between pairs of estimates. A dot is a pair, the line the mean.
    """
    figure, axes = new_figure(1, 1, width=5.4, height=3.3)
    axis, means = axes[0, 0], {number: float(np.mean(values)) for number, values in cosines.items()}
    for number, values in cosines.items():
        axis.scatter([number] * len(values), values, s=22, color=COLORS["patients"], alpha=0.8, linewidths=0)
    axis.plot(list(means), list(means.values()), color="black", marker="o", lw=1.4, label="mean of the pairs")
    axis.axhline(1, color="black", lw=0.8, ls=":")
    log_ticks(axis, list(means))
    axis.set_ylim(min(0.0, *map(min, cosines.values())) - 0.03, 1.04)
    axis.set(xlabel="batches summed in each estimate", ylabel="cosine between two estimates")
    axis.legend(loc="lower right", fontsize=8)
    found = "; ".join(f"{number}: {mean:.2f}" for number, mean in means.items())
    text = "Mean cosine between two estimates of the gradient by number of batches"
    return described(figure, f"{text}: {found}.")


@styled
def schedules(losses: np.ndarray, rates: Mapping[str, np.ndarray], checks: Mapping[int, tuple[float, bool]]) -> Figure:
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
    for axis in axes[:, 0]:
        axis.legend(fontsize=8, loc="upper right")
    failed = [iteration for iteration, (_, passed) in checks.items() if not passed]
    last = ", ".join(f"{name} {values[-1]:.3g}" for name, values in rates.items())
    words = f"{len(checks)} checks of the plateau rule, {len(failed)} failed"
    words += f" (at iterations {', '.join(map(str, failed))})" if failed else ""
    return described(figure, f"{words}. Learning rates at iteration {len(losses)}: {last}.")


@styled
def seen_and_unseen(dice: pd.DataFrame) -> Figure:
    """Dice of the patients whose masks a network was trained on, beside that of test patients; one panel per arm.

    `dice`: columns supervision, group ("annotated" or "test"), dice (%). Lines are the means.
    """
    figure, axes = new_figure(1, 2, width=3.0, height=3.4, sharey=True)
    words = []
    for axis, arm in zip(axes[0], ARMS, strict=True):
        means = []
        for x, (group, face) in enumerate((("annotated", "none"), ("test", COLORS[arm]))):
            values = dice.loc[(dice["supervision"] == arm) & (dice["group"] == group), "dice"].to_numpy()
            means.append(float(np.nanmean(values)))
            style = {"marker": MARKERS[arm], "facecolors": face, "edgecolors": COLORS[arm]}
            axis.scatter(np.full(len(values), x), values, s=34, **style)
            axis.plot([x - 0.25, x + 0.25], [means[x]] * 2, color="black", lw=1.6)
            axis.text(x + 0.29, means[x], f"{means[x]:.0f}", va="center", weight="bold")
        axis.set_xticks([0, 1], ["annotated\n(trained on)", "test\n(never seen)"])
        axis.set(xlim=(-0.5, 1.6), ylim=(-3, 103), title=f"{arm} supervision")
        words.append(f"{arm}: {means[0]:.0f} on annotated, {means[1]:.0f} on test patients")
    axes[0, 0].set_ylabel("Dice of a patient (%)")
    return described(figure, f"Mean Dice. {'; '.join(words)}.")


@styled
def batch_norm_memory(means: np.ndarray, running: np.ndarray, *, test: float, what: str) -> Figure:
    """Means of one channel over training batches and what two estimates make of them; beside it the test slices' mean.

    `means` (N,): the batches; `running` (N,): torch's running average after each of them. The second estimate, the mean
    over all batches so far, is computed here. `what` names channel and layer.
    """
    figure, axes = new_figure(1, 2, width=4.2, height=3.4)
    number = np.arange(1, len(means) + 1)
    cumulative = np.cumsum(means) / number
    for axis in axes[0]:
        axis.scatter(number, means, s=14, color=COLORS["patients"], label="one training batch", lw=0)
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
    return described(figure, f"{words}Last value {cumulative[-1]:.3g}, on test slices {test:.3g}.")
