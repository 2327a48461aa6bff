"""The layer calculator: from input size, padding, depth and width to the size and parameters of every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mixsup_lib.experiments.style import COLORS, described, new_figure, styled
from mixsup_lib.teaching.figures.nb02 import layer_table
from mixsup_lib.teaching.figures.panels import patches
from mixsup_lib.teaching.widgets.panel import panel
from mixsup_lib.unet import Geometry

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure


@styled
def draw(input_size: int, padding: str, depth: int, width: int) -> Figure:
    """Two rows of bars, one bar per layer of `layer_table`: its side in pixels and its number of parameters.

    Grey is the U-Net, blue the branch. Raises SettingError for a network that cannot be built.
    """
    from matplotlib.collections import PolyCollection

    table = layer_table(Geometry(depth, padding), input_size=input_size, width=width)
    rows = [(0.075, bottom, 0.915, 0.31) for bottom in (0.66, 0.3)]
    figure, axes = new_figure(2, 1, width=9.6, height=2.4, sharex=True, places=rows)
    parts = {"U-Net": COLORS["patients"], "branch": COLORS["mixed"]}
    for axis, column, least in zip(axes[:, 0], ("side", "parameters"), (2, 1), strict=True):
        bars = table[column][table[column] >= least]  # its index is the place
        low = np.full(len(bars), 1e-9)  # above 0, as one axis is log
        left, right = bars.index - 0.4, bars.index + 0.4
        corners = np.stack([[left, left, right, right], [low, bars, bars, low]]).transpose(2, 1, 0)  # (bars, 4, 2)
        colors = table["part"][bars.index].map(parts)
        axis.add_collection(PolyCollection(corners, facecolors=colors))  # in a tenth of the time of `Axes.bar`
        for place, height in bars.items():
            axis.text(place, height, _short(height), ha="center", va="bottom", fontsize=7)
        axis.grid(False, axis="x")
    axes[0, 0].set(ylabel="side (pixels)", ylim=(0, 1.15 * table["side"].max()))
    axes[1, 0].set(ylabel="parameters (log)", yscale="log", ylim=(1, 8 * table["parameters"].max()))
    axes[1, 0].set_yticks([1, 1e2, 1e4, 1e6], ["1", "100", "10k", "1M"])
    axes[1, 0].minorticks_off()
    below = {"transform": axes[1, 0].get_xaxis_transform(), "ha": "center", "va": "top"}
    for place, (layer, maps) in enumerate(zip(table["layer"], table["maps"], strict=True)):
        text = f"{layer} ({maps})"  # no tick label: that would take twice as long
        axes[1, 0].text(place, -0.04, text, rotation=90, fontsize=7, **below)
    axes[1, 0].set(xlim=(-0.6, len(table) - 0.4), xticks=[])
    axes[1, 0].text(len(table) / 2, -0.86, "layer (number of maps, or of outputs)", **below)
    names = {"U-Net": "U-Net", "classification branch": "branch"}
    handles = patches({name: {"facecolor": parts[part], "edgecolor": "none"} for name, part in names.items()})
    axes[0, 0].legend(handles=handles, fontsize=8, loc="upper right")
    sums, side = table.groupby("part")["parameters"].sum(), table.set_index("layer")["side"]
    output, bottom = (f"{side[layer]}x{side[layer]}" for layer in ("decoder 0", "bottom"))
    words = f"Input {side['input']}x{side['input']} pixels, padding {padding!r}, depth {depth}, width {width}: output "
    words += f"{output}, bottom {bottom}. Parameters: U-Net {sums['U-Net']:,}, one branch {sums['branch']:,}."
    return described(figure, words)


def _short(value: int) -> str:
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if value >= unit:
            return f"{value / unit:.{int(value < 10 * unit)}f}{name}"
    return str(value)


def layer_calculator() -> VBox:
    """The explorer: input size, padding, depth and width above the picture of `draw`."""
    import ipywidgets as widgets

    controls = {
        "input_size": widgets.BoundedIntText(300, min=1, max=2000, description="input size (pixels)"),
        "padding": widgets.ToggleButtons(options=["valid", "same"], description="padding"),
        "depth": widgets.IntSlider(4, 1, 6, description="depth (poolings)"),
        "width": widgets.IntSlider(64, 2, 128, description="width (maps)"),
    }
    return panel(draw, controls)
