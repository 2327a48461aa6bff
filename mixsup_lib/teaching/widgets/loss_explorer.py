"""Loss explorer: t0, t1, the share of tumour pixels and `a` -> weights, best constant answer, pulls on the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.experiments.style import COLORS, described, new_figure, note, styled
from mixsup_lib.paper import SEGMENTATION_SHARE, TARGET_WEIGHTS
from mixsup_lib.teaching.figures.panels import patches, share_bar
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = {
    "healthy pixels": {"facecolor": COLORS["patients"], "hatch": ""},
    "tumour pixels": {"facecolor": COLORS["truth"], "hatch": ".."},
    "image labels": {"facecolor": COLORS["mixed"], "hatch": "//"},
}
QUARTERS = (0, 25, 50, 75, 100)
_LEGEND = {"fontsize": 8, "ncols": 3, "columnspacing": 0.8, "handletextpad": 0.4}


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
    places = [(left, 0.31, 0.24, 0.59) for left in (0.068, 0.385, 0.735)]
    figure, axes = new_figure(1, 3, width=3.3, height=3.0, places=places)
    _draw_weights(axes[0, 0], weights)
    q, pulled = np.linspace(0.001, 0.999, 400), {}
    for name, (healthy, tumor), style in (
        ("target weights", (t0, t1), {"color": "black", "ls": "-"}),
        ("no weights", (1 - share, share), {"color": COLORS["patients"], "ls": "--"}),
    ):
        lowest = tumor / (healthy + tumor)
        axes[0, 1].plot(100 * q, constant_answer_loss(q, healthy, tumor), lw=1.6, label=name, **style)
        axes[0, 1].plot(100 * lowest, constant_answer_loss(lowest, healthy, tumor), "o", color=style["color"])
        pulled[name.replace(" ", "\n")] = 100 * pulls(healthy, tumor, a)
    axes[0, 1].set(title="loss of a constant answer", ylabel="segmentation loss (nats)", ylim=(0, 1.6))
    axes[0, 1].set(xlabel="tumour probability in every pixel (%)", xticks=QUARTERS, yticks=(0, 0.5, 1, 1.5))
    axes[0, 1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), **_LEGEND)
    _draw_pulls(axes[0, 2], pulled)
    pull, plain = pulled.values()
    return described(
        figure,
        f"t0 = {t0:.2f}, t1 = {t1:.2f}, {tumor_percent:.2g} % tumour, a = {a:.2f}. Weight of a healthy pixel "
        f"{weights[0]:.2f}, of a tumour pixel {weights[1]:.1f} times that in an unweighted mean. The best constant "
        f"answer is a tumour probability of {100 * t1 / (t0 + t1):.0f} % (no weights: {tumor_percent:.2g} %). Gradient "
        f"at the start: healthy pixels {pull[0]:.1f} %, tumour pixels {pull[1]:.1f} %, image labels {pull[2]:.1f} % "
        f"(no weights: {plain[0]:.1f}, {plain[1]:.1f}, {plain[2]:.1f} %).",
    )


def _draw_weights(axis: Axes, weights: tuple[float, float]) -> None:
    axis.set(yscale="log", ylim=(0.03, 2000), xlim=(-0.6, 1.6))
    for x, (weight, (name, style)) in enumerate(zip(weights, KINDS.items(), strict=False)):
        bar = {"facecolor": style["facecolor"], "width": 0.6, "edgecolor": "black"}
        axis.bar(name, weight - 1, bottom=1, **bar)  # from 1, a pixel's weight in an unweighted mean
        side, align = (4, "bottom") if weight > 1 else (-4, "top")
        text = f"x {weight:.{2 * (weight < 10)}f}"
        note(axis, text, (x, weight), (0, side), va=align, ha="center", fontsize=9)
    axis.axhline(1, color="black", lw=0.8)
    axis.set_yticks([0.1, 1, 10, 100, 1000], ["0.1", "1", "10", "100", "1000"])
    axis.minorticks_off()
    axis.set(title="weight of one pixel", ylabel="weight (plain mean: 1)")


def _draw_pulls(axis: Axes, rows: dict[str, np.ndarray]) -> None:
    for y, values in enumerate(rows.values()):
        share_bar(axis, y, zip(values, KINDS.values(), strict=True), least=9, number="{:.0f}".format)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.invert_yaxis()
    axis.set(xlabel="share of the gradient at the start (%)", xlim=(0, 100), xticks=QUARTERS)
    axis.set_title("who pulls on the scores")
    axis.grid(False)
    axis.legend(handles=patches(KINDS), loc="upper right", bbox_to_anchor=(1.06, -0.24), **_LEGEND)


def loss_explorer() -> VBox:
    """Sliders for t0, t1, the share of tumour pixels and `a`, at first the paper's, above `loss_picture`."""
    import ipywidgets as widgets

    t0, t1 = TARGET_WEIGHTS["binary"]
    step, percent = {"min": 0.05, "max": 1.0, "step": 0.05}, {"min": -1, "max": 1.5, "step": 0.05}
    tumor = widgets.FloatLogSlider(1.6, description="tumour (%)", readout_format=".2g", **percent)
    controls = {
        "t0": widgets.FloatSlider(t0, description="t0 (healthy)", **step),
        "t1": widgets.FloatSlider(t1, description="t1 (tumour)", **step),
        "tumor_percent": tumor,
        "a": widgets.FloatSlider(SEGMENTATION_SHARE["binary"], **step | {"min": 0}, description="a"),
    }
    return panel(loss_picture, controls)
