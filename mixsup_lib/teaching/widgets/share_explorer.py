"""Share explorer: `a`, t0 and the number of branches -> what share of the joint loss every kind of label has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixsup_lib.paper import CLASSES, SEGMENTATION_SHARE, TARGET_WEIGHTS
from mixsup_lib.teaching.figures.nb07 import loss_shares
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure


PAPER = {
    "binary (3.1)": (TARGET_WEIGHTS["binary"], SEGMENTATION_SHARE["binary"], 1),
    "multiclass (3.2)": (TARGET_WEIGHTS["multiclass"], SEGMENTATION_SHARE["multiclass"], len(CLASSES)),
}


def share_picture(a: float, t0: float, branches: int) -> Figure:
    """The paper's two settings above one of your own: a, t0 (subclasses share 1 - t0 alike), number of branches."""
    targets = (t0, *[(1 - t0) / len(CLASSES)] * len(CLASSES))
    return loss_shares({**PAPER, f"yours: a = {a:.2f}": (targets, a, branches)})


def share_explorer() -> VBox:
    """Sliders for `a`, t0 and the number of branches, at first the binary `a` with three branches."""
    import ipywidgets as widgets

    step = {"min": 0.05, "max": 0.95, "step": 0.05}
    controls = {
        "a": widgets.FloatSlider(SEGMENTATION_SHARE["binary"], description="a", **step),
        "t0": widgets.FloatSlider(TARGET_WEIGHTS["multiclass"][0], description="t0", **step),
        "branches": widgets.IntSlider(len(CLASSES), 1, 5, description="branches"),
    }
    return panel(share_picture, controls)
