"""The network as a drawing: U-Net and classification branch, every number taken from the network itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mixsup_lib.branches import DeepSkipBranch
from mixsup_lib.errors import SettingError
from mixsup_lib.geometry import Geometry
from mixsup_lib.plot_style import COLORS, described, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHARED, BRANCH = COLORS["patients"], COLORS["mixed"]
"""Colours: what both arms have, and what mixed supervision adds."""

STEP, NEAR, WIDE = 1.15, 0.62, 0.22
"""Distance of two levels, of the two boxes of a level, and width of a box, in the drawing's units."""


@dataclass(frozen=True)
class Box:
    """A stack of `maps` feature maps of `side` x `side` pixels; (x, y) is its centre in the drawing."""

    name: str
    maps: int
    side: int
    x: float
    y: float
    height: float

    @property
    def bottom(self) -> float:
        """The lower edge, with room for the label below it."""
        return self.y - self.height / 2 - 0.33


def place_boxes(geometry: Geometry, *, input_size: int, width: int, in_channels: int) -> dict[str, Box]:
    """Where the layers of the U-Net stand in the drawing; names are those of `Geometry.layer_sizes`.

    Encoder to the left, decoder to the right, deeper levels further down. Raises SettingError if the network does not
    take `input_size` or the width is below 1.
    """
    geometry.output_size(input_size)
    if width < 1:
        raise SettingError(f"width is {width}, expected at least 1.")
    sizes, depth, y = dict(geometry.layer_sizes(input_size)), geometry.depth, 0.0
    boxes: dict[str, Box] = {}
    right = 2 * depth * STEP + NEAR  # x of the last decoder

    def place(name: str, maps: int, x: float) -> Box:
        boxes[name] = Box(name, maps, sizes[name], x, y, _height(sizes[name], input_size))
        return boxes[name]

    for level in range(depth):
        maps, left = width * 2**level, level * STEP
        place(*(("input", in_channels) if level == 0 else (f"pool {level - 1}", maps // 2)), left)
        encoder = place(f"encoder {level}", maps, left + NEAR)
        place(f"up-convolution {level}", maps, right - left - NEAR)
        place(f"decoder {level}", maps, right - left)
        y -= (encoder.height + _height(sizes[f"pool {level}"], input_size)) / 2 + 0.85
    place(f"pool {depth - 1}", width * 2 ** (depth - 1), depth * STEP)
    place("bottom", width * 2**depth, depth * STEP + NEAR)
    return boxes


def _height(side: int, input_size: int) -> float:
    return 0.3 + 2.0 * side / input_size


def branch_rows(width: int, side: int) -> list[tuple[str, int]]:
    """Label and number of outputs of each layer of the branch on `width` maps of `side` x `side` pixels.

    Raises SettingError if the maps are too small or too few for the branch.
    """
    with torch.device("meta"):
        branch = DeepSkipBranch(width, (side, side))
    pooled, maps = -(-side // branch.POOL), branch.conv[0].out_channels
    flat = branch.first_to_fifth[0].in_features
    rows = [
        (f"mean-pool {branch.POOL}×{branch.POOL}: {width} × {pooled}²", width * pooled**2),
        (f"conv 3×3: {maps} × {pooled - 2}² = {flat}", flat),
    ]
    for number, layer in enumerate((*branch.first_to_fifth, branch.sixth, branch.seventh), start=1):
        rows.append((f"fully connected {number}: {layer.out_features}", layer.out_features))
    return rows


@styled
def architecture(
    geometry: Geometry,
    *,
    input_size: int = 300,
    width: int = 64,
    in_channels: int = 4,
    n_maps: int = 2,
    n_branches: int = 1,
) -> Figure:
    """Our own drawing of the paper's figures 2 and 3, for any geometry, width and number of branches.

    Grey is the U-Net, which both arms have; blue is the classification branch. Above a box stands its number of maps,
    below it their side in pixels, on a skip connection the pixels cropped before the encoder's maps are concatenated.
    Raises SettingError if the network does not take `input_size`, or its output does not suit the branch.
    """
    boxes = place_boxes(geometry, input_size=input_size, width=width, in_channels=in_channels)
    depth, crops, bottom, output = geometry.depth, geometry.skip_crops(), boxes["bottom"], boxes["decoder 0"]
    rows = branch_rows(width, output.side) if n_branches else []
    floor = min(bottom.bottom - 0.1, output.bottom - 0.9 - 0.42 * len(rows))
    figure, axes = new_figure(1, 1, width=0.78 * output.x + 2.4, height=0.62 * (1.6 - floor) + 0.6)
    axis = axes[0, 0]
    for level in range(depth):
        encoder, up, decoder = (boxes[f"{name} {level}"] for name in ("encoder", "up-convolution", "decoder"))
        _across(axis, boxes["input" if level == 0 else f"pool {level - 1}"], encoder, "solid")
        _across(axis, up, decoder, "solid")
        _skip(axis, encoder, up, crops[depth - 1 - level])
        _corner(axis, (encoder.x, encoder.bottom), boxes[f"pool {level}"], "dashed")
        deeper = bottom if level == depth - 1 else boxes[f"decoder {level + 1}"]
        _corner(axis, (up.x, up.bottom), deeper, "dotted")
    _across(axis, boxes[f"pool {depth - 1}"], bottom, "solid")
    scores = Box("scores", n_maps, output.side, output.x + 0.95, output.y, output.height)
    _across(axis, output, scores, "dashdot")
    axis.text(scores.x + 0.2, scores.y, "pixel\nscores", va="center", fontsize=8)
    for box in (*boxes.values(), scores):
        _draw_box(axis, box)
    if n_branches:
        _draw_branch(axis, rows, output, n_branches)
    _legend(figure, geometry.padding, n_branches)
    axis.set(xlim=(-0.3, output.x + 2.6), ylim=(floor, 1.6))
    axis.set_axis_off()
    sides = {box.name: f"{box.side}x{box.side}" for box in boxes.values()}
    words = (
        f"U-Net of depth {depth}, padding {geometry.padding!r}: {in_channels} sequences of {sides['input']} pixels "
        f"become {n_maps} score maps of {sides['decoder 0']}. {width} maps at the first level, {bottom.maps} maps of "
        f"{sides['bottom']} at the bottom. Skip crops, deep to shallow: {', '.join(map(str, crops))} pixels. "
    )
    if n_branches:
        words += f"Classification branch (times {n_branches}) on the {width} maps before the scores: "
        words += "; ".join(label for label, _ in rows) + "; the first is concatenated to the fifth."
    else:
        words += "No classification branch: standard supervision."
    return described(figure, words)


def _draw_box(axis: Axes, box: Box) -> None:
    from matplotlib.patches import Rectangle

    style = {"facecolor": SHARED, "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
    corner = (box.x - WIDE / 2, box.y - box.height / 2)
    axis.add_patch(Rectangle(corner, WIDE, box.height, **style))
    maps, middle = str(box.maps), box.x
    if box.name.startswith("up-"):  # the encoder's maps stand beside those from below
        style.update(facecolor="white", hatch="/////")
        axis.add_patch(Rectangle((corner[0] - WIDE, corner[1]), WIDE, box.height, **style))
        maps, middle = f"{box.maps} + {box.maps}", corner[0]
    axis.text(middle, box.y + box.height / 2 + 0.06, maps, ha="center", va="bottom", fontsize=8)
    axis.text(middle, box.y - box.height / 2 - 0.06, f"{box.side}²", ha="center", va="top", fontsize=8)


def _across(axis: Axes, start: Box, end: Box, line: str) -> None:
    _head(axis, (start.x + WIDE / 2, start.y), (end.x - WIDE / 2, end.y), line)


def _corner(axis: Axes, above: tuple[float, float], below: Box, line: str) -> None:
    """A max-pool goes down and right to the box `below`, an upsampling right and up from it."""
    x, y = above
    if x < below.x:
        axis.plot([x, x], [y, below.y], ls=line, color="black", lw=1.0)
        _head(axis, (x, below.y), (below.x - WIDE / 2, below.y), line)
    else:
        axis.plot([below.x + WIDE / 2, x], [below.y, below.y], ls=line, color="black", lw=1.0)
        _head(axis, (x, below.y), (x, y), line)


def _head(
    axis: Axes, tail: tuple[float, float], head: tuple[float, float], line, color: str = "black"
) -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.0, "ls": line, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", xy=head, xytext=tail, arrowprops=style)


def _skip(axis: Axes, encoder: Box, up: Box, crop: int) -> None:
    ends = (encoder.x + WIDE / 2, up.x - 1.5 * WIDE)
    _head(axis, (ends[0], encoder.y), (ends[1], up.y), (0, (6, 3)), "#555555")
    label = f"crop {crop}" if crop else "whole"
    axis.text(sum(ends) / 2, encoder.y + 0.05, label, ha="center", va="bottom", fontsize=8)


def _draw_branch(axis: Axes, rows: list[tuple[str, int]], output: Box, n_branches: int) -> None:
    """The branch as a column of bars below the last decoder, as long as the outputs are many (up to the widest FC)."""
    from matplotlib.patches import Rectangle

    left, top, row = output.x - 0.03, output.bottom - 0.45, 0.42
    largest, places = rows[2][1], [top - row * number for number in range(len(rows))]
    for y, (label, outputs) in zip(places, rows, strict=True):
        length = 0.05 + 0.6 * min(outputs / largest, 1)
        style = {"facecolor": BRANCH, "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
        axis.add_patch(Rectangle((left, y - 0.1), length, 0.2, **style))
        axis.text(left + 0.72, y, label, va="center", fontsize=8)
    for above, below in zip((output.bottom, *(y - 0.1 for y in places[:-1])), places, strict=True):
        _head(axis, (output.x, above), (output.x, below + 0.1), "solid", BRANCH)
    first, sixth, side = places[2], places[7], left - 0.3
    axis.plot([left, side, side], [first, first, sixth], ls="dashed", color=BRANCH, lw=1.0)
    _head(axis, (side, sixth), (left, sixth), "dashed", BRANCH)
    words = "image scores" + (
        f"; {n_branches} such branches,\none per tumour class" if n_branches > 1 else ""
    )
    axis.text(left, places[-1] - 0.16, words, va="top", fontsize=8)


def _legend(figure: Figure, padding: str, n_branches: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kernel, kind = ("2×2", "unpadded") if padding == "valid" else ("3×3", "padded")
    lines = (
        ("solid", "black", f"two 3×3 convolutions ({kind}), each with batch norm and ReLU"),
        ("dashed", "black", "max-pool 2×2"),
        ("dotted", "black", f"upsampling ×2, {kernel} convolution, batch norm, ReLU"),
        ((0, (6, 3)), "#555555", "skip connection: cropped and concatenated (hatched)"),
        ("dashdot", "black", "1×1 convolution"),
    )
    handles = [Line2D([], [], ls=line, color=color, lw=1.1, label=words) for line, color, words in lines]
    handles.append(Patch(facecolor=SHARED, edgecolor="black", label="U-Net: both arms"))
    if n_branches:
        handles.append(Patch(facecolor=BRANCH, edgecolor="black", label="branch: mixed supervision only"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
