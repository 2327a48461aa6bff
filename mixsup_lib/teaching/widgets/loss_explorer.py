"""Loss explorer: t0, t1, the share of tumour pixels and `a` -> weights, best constant answer, pulls on the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.experiments.style import COLORS, described, new_figure, styled
from mixsup_lib.paper import SEGMENTATION_SHARE, TARGET_WEIGHTS
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


KINDS = {
    "healthy pixels": COLORS["patients"],
    "tumour pixels": COLORS["truth"],
    "image labels": COLORS["mixed"],
}


def relative_weights(t0: float, t1: float, share: float) -> tuple[float, float]:
    """P * w_c of a healthy and of a tumour pixel: 1 is its weight in an unweighted mean; share of tumour 0..1."""
    return t0 / (1 - share), t1 / share


def constant_answer_loss(q: np.ndarray, t0: float, t1: float) -> np.ndarray:
    """Loss_s of a network that gives every pixel the tumour probability q; lowest at q = t1 / (t0 + t1)."""
    return -(t0 * np.log1p(-q) + t1 * np.log(q))


def pulls(t0: float, t1: float, a: float) -> np.ndarray:
    """Share of healthy pixels, tumour pixels and image labels in the gradient of the joint loss, (3,), sum 1.

    The gradient is that by the scores, summed without its sign over all scores of a kind, for an undecided
    network (p = 1/2 everywhere): a * t0 / 2, a * t1 / 2 and (1 - a) / 2.
    """
    parts = np.array([a * t0, a * t1, 1 - a])
    return parts / parts.sum()


@styled
def loss_picture(t0: float, t1: float, tumor_percent: float, a: float) -> Figure:
    """Weights of a pixel, loss of constant answers and shares of the gradient, each with and without weights.

    t0, t1: target weights, above 0; tumor_percent: share of tumour pixels in the annotated part of the batch
    (%), between 0 and 100; a: weight of the segmentation loss, 0..1 (section 3.1).
    """
    share = tumor_percent / 100
    weights = relative_weights(t0, t1, share)
    best = 100 * t1 / (t0 + t1)
    rows = {"target\nweights": pulls(t0, t1, a), "no\nweights": pulls(1 - share, share, a)}
    figure, axes = new_figure(1, 3, width=3.3, height=3.0)
    figure.set_layout_engine("none")  # the constrained layout takes as long as all the rest
    for axis, left in zip(axes[0], (0.068, 0.385, 0.735), strict=True):
        axis.set_position((left, 0.31, 0.24, 0.59))
    _draw_weights(axes[0, 0], weights)
    q = np.linspace(0.001, 0.999, 400)
    for (healthy, tumor), style in (
        ((t0, t1), {"color": "black", "ls": "-", "label": "target weights"}),
        ((1 - share, share), {"color": COLORS["patients"], "ls": "--", "label": "no weights"}),
    ):
        lowest = tumor / (healthy + tumor)
        axes[0, 1].plot(100 * q, constant_answer_loss(q, healthy, tumor), lw=1.6, **style)
        axes[0, 1].plot(100 * lowest, constant_answer_loss(lowest, healthy, tumor), "o", color=style["color"])
    axes[0, 1].set(xlabel="tumour probability in every pixel (%)", ylabel="segmentation loss (nats)")
    axes[0, 1].set(xticks=(0, 25, 50, 75, 100), yticks=(0, 0.5, 1, 1.5), ylim=(0, 1.6))
    axes[0, 1].set_title("loss of a constant answer")
    axes[0, 1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), **_LEGEND)
    _draw_pulls(axes[0, 2], rows)
    (pull, plain) = (100 * row for row in rows.values())
    return described(
        figure,
        f"t0 = {t0:.2f}, t1 = {t1:.2f}, {tumor_percent:.2g} % tumour, a = {a:.2f}. Weight of a healthy pixel "
        f"{weights[0]:.2f}, of a tumour pixel {weights[1]:.1f} times that in an unweighted mean. The best constant "
        f"answer is a tumour probability of {best:.0f} % (no weights: {tumor_percent:.2g} %). Gradient at the start: "
        f"healthy pixels {pull[0]:.1f} %, tumour pixels {pull[1]:.1f} %, image labels {pull[2]:.1f} % "
        f"(no weights: {plain[0]:.1f}, {plain[1]:.1f}, {plain[2]:.1f} %).",
    )


_LEGEND = {"fontsize": 8, "ncols": 3, "columnspacing": 0.8, "handletextpad": 0.4}


def _draw_weights(axis: Axes, weights: tuple[float, float]) -> None:
    from matplotlib.ticker import NullLocator

    names = list(KINDS)[:2]
    heights = np.array(weights) - 1  # bars start at 1, the weight of every pixel in an unweighted mean
    axis.set(yscale="log", ylim=(0.03, 2000), xlim=(-0.6, 1.6))
    axis.bar(range(2), heights, bottom=1, width=0.6, color=[KINDS[name] for name in names], edgecolor="black")
    for x, weight in enumerate(weights):
        above = {"xytext": (0, 4), "va": "bottom"} if weight > 1 else {"xytext": (0, -4), "va": "top"}
        text = f"{weight:.2f}" if weight < 10 else f"{weight:.0f}"
        axis.annotate(f"x {text}", (x, weight), textcoords="offset points", ha="center", fontsize=9, **above)
    axis.axhline(1, color="black", lw=0.8)
    axis.set_xticks(range(2), names)
    axis.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1000"])
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set(ylabel="weight (plain mean: 1)")
    axis.set_title("weight of one pixel")


def _draw_pulls(axis: Axes, rows: dict[str, np.ndarray]) -> None:
    left = np.zeros(len(rows))
    hatches = ("", "..", "//")
    for (kind, color), hatch, values in zip(
        KINDS.items(), hatches, 100 * np.stack([*rows.values()]).T, strict=True
    ):
        axis.barh(list(rows), values, left=left, color=color, edgecolor="black", hatch=hatch, label=kind)
        for y, (value, start) in enumerate(zip(values, left, strict=True)):
            if value > 9:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axis.text(
                    start + value / 2, y, f"{value:.0f}", ha="center", va="center", fontsize=9, bbox=box
                )
        left = left + values
    axis.invert_yaxis()
    axis.set(xlabel="share of the gradient at the start (%)", xlim=(0, 100), xticks=(0, 25, 50, 75, 100))
    axis.set_title("who pulls on the scores")
    axis.grid(False)
    axis.legend(loc="upper right", bbox_to_anchor=(1.06, -0.24), **_LEGEND)


def loss_explorer(tumor_percent: float = 1.6) -> VBox:
    """Sliders for t0, t1, the share of tumour pixels and `a`, at first the paper's, above `loss_picture`."""
    import ipywidgets as widgets

    t0, t1 = TARGET_WEIGHTS["binary"]
    step = {"min": 0.05, "max": 1.0, "step": 0.05}
    controls = {
        "t0": widgets.FloatSlider(t0, description="t0 (healthy)", **step),
        "t1": widgets.FloatSlider(t1, description="t1 (tumour)", **step),
        "tumor_percent": widgets.FloatLogSlider(
            tumor_percent, min=-1, max=1.5, step=0.05, description="tumour (%)", readout_format=".2g"
        ),
        "a": widgets.FloatSlider(SEGMENTATION_SHARE["binary"], min=0, max=1, step=0.05, description="a"),
    }
    return panel(loss_picture, controls)
