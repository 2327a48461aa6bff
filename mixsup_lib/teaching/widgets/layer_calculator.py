"""The layer calculator: from input size, padding, depth and width to the size and parameters of every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from mixsup_lib.experiments.style import COLORS, described, new_figure, styled
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.paper import SEQUENCES
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure


def layer_table(input_size: int, padding: str, depth: int, width: int) -> pd.DataFrame:
    """Every layer of the binary network with one branch: layer, part, maps (or outputs), side in pixels, parameters.

    Fully connected layers have side 1. The parameters are counted in the network itself (built without storage), sides
    come from its geometry. Raises SettingError, as the network does, for a size that does not fit.
    """
    with torch.device("meta"):
        network = MixedSupervisionUNet(
            in_channels=len(SEQUENCES),
            n_maps=2,
            n_branches=1,
            width=width,
            depth=depth,
            padding=padding,
            input_shape=(input_size, input_size),
        )
    unet, branch = network.unet, network.branches[0]
    owners: dict[str, nn.Module] = {"bottom": unet.bottom}
    owners |= {f"encoder {level}": block for level, block in enumerate(unet.encoder)}
    for index, level in enumerate(reversed(range(depth))):
        owners[f"up-convolution {level}"], owners[f"decoder {level}"] = unet.up[index], unet.decoder[index]
    rows, maps = [], len(SEQUENCES)
    for name, side in network.geometry.layer_sizes(input_size):
        block = owners.get(name)
        maps = _last_convolution(block).out_channels if block else maps
        rows.append((name, "U-Net", maps, side, _count(block)))
    output, pooled = rows[-1][3], -(-rows[-1][3] // branch.POOL)
    rows.append(
        (
            "segmentation",
            "U-Net",
            network.segmentation_layer.out_channels,
            output,
            _count(network.segmentation_layer),
        )
    )
    rows.append(("mean-pool", "branch", width, pooled, 0))
    rows.append(("convolution", "branch", branch.conv[0].out_channels, pooled - 2, _count(branch.conv)))
    for number, layer in enumerate((*branch.first_to_fifth, branch.sixth, branch.seventh), start=1):
        rows.append((f"FC {number}", "branch", layer.out_features, 1, _count(layer)))
    return pd.DataFrame(rows, columns=["layer", "part", "maps", "side", "parameters"])


def _count(block: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in block.parameters()) if block else 0


def _last_convolution(block: nn.Module) -> nn.Conv2d:
    return [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)][-1]


@styled
def draw(input_size: int = 300, padding: str = "valid", depth: int = 4, width: int = 64) -> Figure:
    """Two rows of bars, one bar per layer of `layer_table`: its side in pixels and its number of parameters.

    Grey is the U-Net, blue the branch. Raises SettingError for a network that cannot be built.
    """
    from matplotlib.patches import Patch
    from matplotlib.ticker import NullLocator

    table = layer_table(input_size, padding, depth, width)
    figure, axes = new_figure(2, 1, width=9.6, height=2.4, sharex=True)
    figure.set_layout_engine("none")  # the constrained layout takes as long as all the rest
    for axis, bottom in zip(axes[:, 0], (0.66, 0.3), strict=True):
        axis.set_position((0.075, bottom, 0.915, 0.31))
    places = np.arange(len(table))
    colors = table["part"].map({"U-Net": COLORS["patients"], "branch": COLORS["mixed"]})
    for axis, column, least in zip(axes[:, 0], ("side", "parameters"), (2, 1), strict=True):
        shown = table[column] >= least
        axis.add_collection(_bars(places[shown], table[column][shown].to_numpy(), colors[shown]))
        for place, value in zip(places[shown], table[column][shown], strict=True):
            axis.text(place, value, _short(value), ha="center", va="bottom", fontsize=7)
        axis.grid(False, axis="x")
    axes[0, 0].set(ylabel="side (pixels)", ylim=(0, 1.15 * table["side"].max()))
    axes[1, 0].set(ylabel="parameters (log)", yscale="log", ylim=(1, 8 * table["parameters"].max()))
    axes[1, 0].set_yticks([1, 1e2, 1e4, 1e6], ["1", "100", "10k", "1M"])
    axes[1, 0].yaxis.set_minor_locator(NullLocator())
    labels = [f"{layer} ({maps})" for layer, maps in zip(table["layer"], table["maps"], strict=True)]
    below = {"transform": axes[1, 0].get_xaxis_transform(), "ha": "center", "va": "top"}
    for place, label in zip(places, labels, strict=True):  # texts, as ticks take twice as long
        axes[1, 0].text(place, -0.04, label, rotation=90, fontsize=7, **below)
    axes[1, 0].set(xlim=(-0.6, len(table) - 0.4), xticks=[])
    axes[1, 0].text(len(table) / 2, -0.86, "layer (number of maps, or of outputs)", **below)
    handles = [Patch(color=COLORS[key]) for key in ("patients", "mixed")]
    axes[0, 0].legend(handles, ["U-Net", "classification branch"], fontsize=8, loc="upper right")
    sums = table.groupby("part")["parameters"].sum()
    side = {layer: f"{n}x{n}" for layer, n in zip(table["layer"], table["side"], strict=True)}
    words = (
        f"Input {side['input']} pixels, padding {padding!r}, depth {depth}, width {width}: output {side['decoder 0']}, "
        f"bottom {side['bottom']}. Parameters: U-Net {sums['U-Net']:,}, "
        f"one branch {sums['branch']:,}."
    )
    return described(figure, words)


def _bars(places: np.ndarray, heights: np.ndarray, colors: pd.Series) -> PolyCollection:
    """All bars of a row as one artist: drawn in a tenth of the time of `Axes.bar`."""
    from matplotlib.collections import PolyCollection

    left, right, low = (
        places - 0.4,
        places + 0.4,
        np.full(len(places), 1e-9),
    )  # above 0, for the logarithmic axis
    corners = [(left, low), (left, heights), (right, heights), (right, low)]
    return PolyCollection(np.stack([np.stack(corner, 1) for corner in corners], 1), facecolors=list(colors))


def _short(value: int) -> str:
    for unit, name in ((1_000_000, "M"), (1000, "k")):
        if value >= unit:
            return f"{value / unit:.1f}{name}" if value < 10 * unit else f"{value / unit:.0f}{name}"
    return str(value)


def layer_calculator() -> VBox:
    """The explorer: input size, padding, depth and width above the picture of `draw`."""
    import ipywidgets as widgets

    style = {"description_width": "initial"}
    controls = {
        "input_size": widgets.BoundedIntText(
            300, min=1, max=2000, description="input size (pixels)", style=style
        ),
        "padding": widgets.ToggleButtons(options=["valid", "same"], description="padding", style=style),
        "depth": widgets.IntSlider(4, 1, 6, description="depth (poolings)", style=style),
        "width": widgets.IntSlider(64, 2, 128, description="width (maps)", style=style),
    }
    return panel(draw, controls)
