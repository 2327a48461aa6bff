"""Why the network is built as it is: its layers, what an output pixel sees, and what the branch keeps of a tumour."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixsup_lib.experiments.pictures import contour_slice, outline_legend
from mixsup_lib.experiments.style import COLORS, ON_IMAGE, described, log_ticks, new_figure, styled
from mixsup_lib.model import DeepSkipBranch, MixedSupervisionUNet
from mixsup_lib.paper import SEQUENCES
from mixsup_lib.teaching.figures.panels import patches, rectangle
from mixsup_lib.unet import Geometry, UNet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# The layers: how many maps of which size


SHARED, BRANCH = {"facecolor": COLORS["patients"]}, {"facecolor": COLORS["mixed"]}
"""What both arms have, and what mixed supervision adds."""

STEP, NEAR, WIDE = 1.15, 0.62, 0.22
"""Distance of two levels, of the two boxes of a level, and width of a box, in the drawing's units."""


def layer_table(geometry: Geometry, *, input_size: int, width: int) -> pd.DataFrame:
    """Every layer of the network: layer, part, maps (or outputs), side in pixels (fully connected: 1), parameters.

    The parameters are counted in the network itself, which is built without storage. Raises SettingError, as the
    network does, for a size that does not fit.
    """
    sizes = {"width": width, "depth": geometry.depth, "padding": geometry.padding}
    with torch.device("meta"):
        network = MixedSupervisionUNet(
            in_channels=len(SEQUENCES), n_maps=2, n_branches=1, input_shape=(input_size, input_size), **sizes
        )
    unet, branch, rows, maps = network.unet, network.branches[0], [], len(SEQUENCES)
    blocks: dict[str, nn.Module] = {"bottom": unet.bottom}
    blocks |= {f"encoder {level}": block for level, block in enumerate(unet.encoder)}
    for level, up, decoder in zip(reversed(range(geometry.depth)), unet.up, unet.decoder, strict=True):
        blocks |= {f"up-convolution {level}": up, f"decoder {level}": decoder}
    for name, side in geometry.layer_sizes(input_size):
        block = blocks.get(name, nn.Identity())
        convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
        maps = convolutions[-1].out_channels if convolutions else maps
        rows.append((name, "U-Net", maps, side, block))
    rows.append(("segmentation", "U-Net", 2, side, network.segmentation_layer))
    pooled = -(-side // branch.POOL)
    rows.append(("mean-pool", "branch", width, pooled, nn.Identity()))
    rows.append(("convolution", "branch", branch.conv[0].out_channels, pooled - 2, branch.conv))
    for number, layer in enumerate((*branch.first_to_fifth, branch.sixth, branch.seventh), start=1):
        rows.append((f"FC {number}", "branch", layer.out_features, 1, layer))
    counted = [(*row, sum(weights.numel() for weights in block.parameters())) for *row, block in rows]
    return pd.DataFrame(counted, columns=["layer", "part", "maps", "side", "parameters"])


class Box(NamedTuple):
    """A stack of `maps` feature maps of `side` x `side` pixels; (x, y) is its centre in the drawing."""

    maps: int
    side: int
    x: float
    y: float
    height: float

    @property
    def bottom(self) -> float:
        """The lower edge, with room for the label below it."""
        return self.y - self.height / 2 - 0.33


def place_boxes(table: pd.DataFrame, depth: int) -> dict[str, Box]:
    """Where the layers of the U-Net stand in the drawing; names are those of `layer_table`.

    Encoder to the left, decoder to the right, deeper levels further down.
    """
    layers, y, boxes = table.set_index("layer"), 0.0, {}
    heights = 0.3 + 2.0 * layers["side"] / layers["side"]["input"]
    right = 2 * depth * STEP + NEAR  # x of the last decoder

    def place(name: str, x: float) -> None:
        boxes[name] = Box(layers["maps"][name], layers["side"][name], x, y, heights[name])

    for level in range(depth):
        left = level * STEP
        place(f"pool {level - 1}" if level else "input", left)
        place(f"encoder {level}", left + NEAR)
        place(f"up-convolution {level}", right - left - NEAR)
        place(f"decoder {level}", right - left)
        y -= (heights[f"encoder {level}"] + heights[f"pool {level}"]) / 2 + 0.85
    place(f"pool {depth - 1}", depth * STEP)
    place("bottom", depth * STEP + NEAR)
    return boxes


def branch_rows(table: pd.DataFrame) -> list[tuple[str, int]]:
    """Label and number of outputs of each layer of the branch."""
    pool = DeepSkipBranch.POOL
    forms = {"mean-pool": f"mean-pool {pool}×{pool}: {{0}} × {{1}}²", "convolution": "conv 3×3: {0} × {1}² = {2}"}
    rows = []
    for layer, _, maps, side, _ in table[table["part"] == "branch"].itertuples(index=False):
        form = forms.get(layer, f"{layer.replace('FC', 'fully connected')}: {{2}}")
        rows.append((form.format(maps, side, maps * side**2), maps * side**2))
    return rows


@styled
def architecture(geometry: Geometry, *, input_size: int, width: int) -> Figure:
    """Our own drawing of the paper's figures 2 and 3, for any geometry and width.

    Grey is the U-Net, which both arms have; blue is the classification branch. Above a box stands its number of maps,
    below it their side in pixels, on a skip connection the pixels cropped before the encoder's maps are concatenated.
    Raises SettingError if the network does not take the input's size, or its output does not suit the branch.
    """
    table = layer_table(geometry, input_size=input_size, width=width)
    boxes, rows = place_boxes(table, geometry.depth), branch_rows(table)
    depth, crops, bottom, output = geometry.depth, geometry.skip_crops(), boxes["bottom"], boxes["decoder 0"]
    floor = min(bottom.bottom - 0.1, output.bottom - 0.9 - 0.42 * len(rows))
    figure, axes = new_figure(1, 1, width=0.78 * output.x + 2.4, height=0.62 * (1.6 - floor) + 0.6)
    axis = axes[0, 0]
    for level in range(depth):
        encoder, up, decoder = (boxes[f"{name} {level}"] for name in ("encoder", "up-convolution", "decoder"))
        _across(axis, boxes["input" if level == 0 else f"pool {level - 1}"], encoder, "solid")
        _across(axis, up, decoder, "solid")
        ends, crop = (encoder.x + WIDE / 2, up.x - 1.5 * WIDE), crops[depth - 1 - level]
        _head(axis, (ends[0], encoder.y), (ends[1], up.y), (0, (6, 3)), "#555555")
        label = f"crop {crop}" if crop else "whole"
        axis.text(sum(ends) / 2, encoder.y + 0.05, label, ha="center", va="bottom", fontsize=8)
        pool, below = boxes[f"pool {level}"], bottom if level == depth - 1 else boxes[f"decoder {level + 1}"]
        axis.plot([encoder.x] * 2, [encoder.bottom, pool.y], ls="dashed", color="black", lw=1.0)
        _head(axis, (encoder.x, pool.y), (pool.x - WIDE / 2, pool.y), "dashed")
        axis.plot([below.x + WIDE / 2, up.x], [below.y] * 2, ls="dotted", color="black", lw=1.0)
        _head(axis, (up.x, below.y), (up.x, up.bottom), "dotted")
    _across(axis, boxes[f"pool {depth - 1}"], bottom, "solid")
    scores = Box(2, output.side, output.x + 0.95, output.y, output.height)
    _across(axis, output, scores, "dashdot")
    axis.text(scores.x + 0.2, scores.y, "pixel\nscores", va="center", fontsize=8)
    for name, box in (*boxes.items(), ("scores", scores)):
        _draw_box(axis, box, upsampled=name.startswith("up-"))
    _draw_branch(axis, rows, output)
    _legend(figure, geometry.padding)
    axis.set(xlim=(-0.3, output.x + 2.6), ylim=(floor, 1.6))
    axis.set_axis_off()
    first, sides = boxes["input"], {name: f"{box.side}x{box.side}" for name, box in boxes.items()}
    words = f"U-Net of depth {depth}, padding {geometry.padding!r}: {first.maps} sequences of {sides['input']} pixels "
    words += f"become 2 score maps of {sides['decoder 0']}. {output.maps} maps at the first level, {bottom.maps} maps "
    words += f"of {sides['bottom']} at the bottom. Skip crops, deep to shallow: {', '.join(map(str, crops))} pixels. "
    words += f"Classification branch (times 1) on the {output.maps} maps before the scores: "
    return described(figure, f"{words}{'; '.join(dict(rows))}; the first is concatenated to the fifth.")


def _draw_box(axis: Axes, box: Box, *, upsampled: bool) -> None:
    style = {"edgecolor": "black", "linewidth": 0.8, "zorder": 3}
    left, low, high = box.x - WIDE / 2, box.y - box.height / 2, box.y + box.height / 2
    rectangle(axis, left, low, WIDE, box.height, **SHARED, **style)
    maps, middle = str(box.maps), box.x
    if upsampled:  # the encoder's maps stand beside those from below
        rectangle(axis, left - WIDE, low, WIDE, box.height, facecolor="white", hatch="/////", **style)
        maps, middle = f"{box.maps} + {box.maps}", left
    axis.text(middle, high + 0.06, maps, ha="center", va="bottom", fontsize=8)
    axis.text(middle, low - 0.06, f"{box.side}²", ha="center", va="top", fontsize=8)


def _across(axis: Axes, start: Box, end: Box, line: str) -> None:
    _head(axis, (start.x + WIDE / 2, start.y), (end.x - WIDE / 2, end.y), line)


def _head(axis: Axes, tail: tuple, head: tuple, line: str | tuple, color: str = "black") -> None:
    style = {"arrowstyle": "-|>", "color": color, "lw": 1.0, "ls": line, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", xy=head, xytext=tail, arrowprops=style)


def _draw_branch(axis: Axes, rows: list[tuple[str, int]], output: Box) -> None:
    """The branch as a column of bars below the last decoder, as long as the outputs are many (up to the widest FC)."""
    left, top, row, color = output.x - 0.03, output.bottom - 0.45, 0.42, BRANCH["facecolor"]
    largest, places = rows[2][1], [top - row * number for number in range(len(rows))]
    for y, (label, outputs) in zip(places, rows, strict=True):
        style = {**BRANCH, "edgecolor": "black", "linewidth": 0.8, "zorder": 3}
        rectangle(axis, left, y - 0.1, 0.05 + 0.6 * min(outputs / largest, 1), 0.2, **style)
        axis.text(left + 0.72, y, label, va="center", fontsize=8)
    for above, below in zip((output.bottom, *(y - 0.1 for y in places[:-1])), places, strict=True):
        _head(axis, (output.x, above), (output.x, below + 0.1), "solid", color)
    first, sixth, side = places[2], places[7], left - 0.3
    axis.plot([left, side, side], [first, first, sixth], ls="dashed", color=color, lw=1.0)
    _head(axis, (side, sixth), (left, sixth), "dashed", color)
    axis.text(left, places[-1] - 0.16, "image scores", va="top", fontsize=8)


def _legend(figure: Figure, padding: str) -> None:
    from matplotlib.lines import Line2D

    kernel, kind = ("2×2", "unpadded") if padding == "valid" else ("3×3", "padded")
    lines = (
        ("solid", "black", f"two 3×3 convolutions ({kind}), each with batch norm and ReLU"),
        ("dashed", "black", "max-pool 2×2"),
        ("dotted", "black", f"upsampling ×2, {kernel} convolution, batch norm, ReLU"),
        ((0, (6, 3)), "#555555", "skip connection: cropped and concatenated (hatched)"),
        ("dashdot", "black", "1×1 convolution"),
    )
    handles = [Line2D([], [], ls=line, color=color, lw=1.1, label=words) for line, color, words in lines]
    handles += patches({"U-Net: both arms": SHARED, "branch: mixed supervision only": BRANCH})
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)


# What an output pixel sees


def averaging_unet(
    geometry: Geometry, *, crops: Sequence[int] | None = None, half_pixel: bool = False, sharp: bool = False
) -> UNet:
    """A U-Net of one sequence and width 1 that hides nothing: (B, 1, H, W) -> (B, 1, H', W'), float64.

    Kernels are uniform and positive and pools take means, so that on positive input every ReLU is open and derivatives
    are 0 exactly where a pixel cannot be seen. crops: other skip crops, deep to shallow. half_pixel: PyTorch's own
    bilinear upsampling. sharp: the 3x3 kernels pass on their centre only.
    """
    unet = UNet(1, 1, geometry).double().eval()
    unet.pool = nn.AvgPool2d(2, ceil_mode=True)
    for layer in unet.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            if sharp and layer.kernel_size == (3, 3):
                layer.weight.data *= F.pad(torch.full((1, 1), 9.0), (1, 1, 1, 1))
    if half_pixel:
        upsampling = nn.Upsample(scale_factor=2, mode="bilinear")
        unet.up = nn.ModuleList(nn.Sequential(upsampling, up.conv) for up in unet.up)
    unet.crops = unet.crops if crops is None else tuple(crops)
    return unet


def open_path(unet: UNet, path: int) -> UNet:
    """A copy of the network with one path open: the skip of level `path`, or the deepest path for path = depth."""
    unet = copy.deepcopy(unet)
    for level, decoder in zip(reversed(range(len(unet.decoder))), unet.decoder, strict=True):
        kernel = decoder[0][0].weight.data  # (n, 2 n, 3, 3): maps of the skip first, then those from below
        half = kernel.shape[1] // 2
        kernel[:, half:] *= level != path
        kernel[:, :half] *= level == path
    return unet


def field(unet: UNet, pixel: int) -> Tensor:
    """Derivatives of output pixel (pixel, pixel) with respect to an input of ones, (300, 300)."""
    x = torch.ones(1, 1, 300, 300, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(unet(x)[0, 0, pixel, pixel], x)
    return slope[0, 0]


def centre(field: Tensor) -> float:
    """Row on which a field (N, N) is centred."""
    rows = field.sum(dim=1)
    return float((rows * torch.arange(len(rows))).sum() / rows.sum())


def untrained_gradient(geometry: Geometry, pixel: int) -> np.ndarray:
    """Mean absolute derivative of the features at output pixel (pixel, pixel) with respect to the input, (300, 300).

    The networks are He-initialised and untrained, with their ReLUs and max-pools, the input is noise (where an input
    is 0 over a large area, ReLUs stand at 0 and would hide it); four seeds are averaged.
    """
    total = torch.zeros(300, 300)
    for seed in range(4):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet, x = UNet(4, 8, geometry).eval(), torch.rand(1, 4, 300, 300, requires_grad=True)
        (slope,) = torch.autograd.grad(unet(x)[0, :, pixel, pixel].sum(), x)
        total += slope[0].abs().sum(dim=0)
    return (total / 4).numpy()


def change_at_border(geometry: Geometry, size: int) -> np.ndarray:
    """How much the features change when the input grows by 16 pixels on each side, (H',), from first to last.

    The input is noise of mean 1/2; the change is divided by the standard deviation of the features and averaged over
    maps, the middle third of the rows, and three seeds. Pooling does not shift, as 16 is a multiple of 2^4.
    """
    changes = []
    for seed in range(3):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            unet, wide = UNet(4, 4, geometry), torch.rand(1, 4, size + 32, size + 32)
            for norm in unet.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.momentum = 1.0  # keep the statistics of the one pass that follows
            unet(wide)
            unet.eval()
            cut = unet(wide[:, :, 16:-16, 16:-16])
            same = slice(16, 16 + cut.shape[2])
            whole = unet(wide)[:, :, same, same]
        change = (whole - cut).abs().mean(dim=(0, 1)) / whole.std()  # (H', W')
        third = len(change) // 3
        changes.append(change[third:-third].mean(dim=0))
    return torch.stack(changes).mean(dim=0).numpy()


@styled
def receptive_field(
    image: np.ndarray, gradient: np.ndarray, *, seen: tuple[int, int], window: tuple[int, int], pixel: int
) -> Figure:
    """What one output pixel, centred on input `pixel`, sees of the input: as squares on it, and along one axis.

    image, gradient: (N, N), a sequence of the padded input and what `untrained_gradient` found; seen, window: first
    and last input pixel that can reach the output pixel, and that the whole output covers, along both axes.
    """
    figure, axes = new_figure(1, 2, width=4.4, height=4.2)
    rows, columns = np.abs(np.indices(gradient.shape) - pixel)
    held = np.bincount(np.maximum(rows, columns).ravel(), weights=gradient.ravel()).cumsum()  # by half side
    halves = {share: int((held < share * held[-1]).sum()) for share in (0.5, 0.9)}
    contour_slice(axes[0, 0], image)
    squares = [("can be seen", seen, "white", "-"), ("output window", window, COLORS["truth"], ":")]
    for (share, half), line in zip(halves.items(), ("-.", "--"), strict=True):
        ends = (pixel - half, pixel + half)
        squares.append((f"{share:.0%} of the gradient", ends, ON_IMAGE["mixed"], line))
    for label, (first, last), color, line in squares:
        side = last - first + 1
        style = {"fill": False, "ec": color, "ls": line, "lw": 1.5, "label": f"{label}: {side} pixels"}
        rectangle(axes[0, 0], first - 0.5, first - 0.5, side, side, **style)
    axes[0, 0].plot(pixel, pixel, "+", color="white", ms=9, mew=1.6)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": 2, "frameon": True}
    axes[0, 0].legend(fontsize=8, facecolor="0.35", labelcolor="white", **below)
    profile = gradient.sum(axis=0) / gradient.sum() * 100
    axes[0, 1].plot(profile, color=COLORS["mixed"], lw=1.0)
    for end, line in zip((*seen, *window), "--::", strict=True):
        axes[0, 1].axvline(end, color="black", lw=1.0, ls=line)
    axes[0, 1].set(xlabel="input pixel, left to right", ylabel="share of the gradient in this column (%)")
    axes[0, 1].set(xlim=(0, len(image) - 1), ylim=(0, None))
    axes[0, 1].set_title("solid: can be seen; dotted: output window")
    return described(
        figure,
        f"The output pixel centred on input pixel {pixel} can see input pixels {seen[0]} to {seen[1]}, a square of "
        f"{seen[1] - seen[0] + 1}; half of the gradient lies in a square of {2 * halves[0.5] + 1}, 90 % in one of "
        f"{2 * halves[0.9] + 1}. The output covers input pixels {window[0]} to {window[1]}.",
    )


@styled
def delivered(cases: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """The same tumour as the shallowest skip and as the deepest path deliver it to the last level, a panel per variant.

    `cases`: name of the variant -> (image, skip, deep), each (H', W') on the output's pixels: the slice and the mask as
    they pass the shallowest skip, the mask as it passes the deepest path. Masks are outlined at half of their maximum.
    """
    figure, axes = new_figure(1, len(cases), width=3.0, height=3.6)
    words = []
    for axis, (name, (image, skip, deep)) in zip(axes[0], cases.items(), strict=True):
        contour_slice(axis, image, skip > skip.max() / 2, deep > deep.max() / 2)
        places = np.indices(skip.shape)
        rows, columns = ((places * (deep / deep.sum() - skip / skip.sum())).sum(axis=(1, 2))).tolist()
        axis.set_title(f"{name}\n{rows:+.1f} rows, {columns:+.1f} columns")
        words.append(f"{name} {rows:+.1f} rows and {columns:+.1f} columns")
    outline_legend(figure, "tumour through the shallowest skip", {"through the deepest path": "mixed"})
    shifts = "; ".join(words)
    return described(figure, f"Shift of the tumour in the deepest path against the shallowest: {shifts}.")


@styled
def border_effect(profiles: Mapping[str, np.ndarray]) -> Figure:
    """What `change_at_border` found, one line per network; the x axis is the share of the output's side."""
    figure, axes = new_figure(1, 1, width=6.4, height=3.0)
    words, styles = [], ((COLORS["mixed"], "-"), ("black", "--"), (COLORS["patients"], ":"))
    for (name, values), (color, line) in zip(profiles.items(), styles, strict=False):
        axes[0, 0].plot(np.linspace(0, 100, len(values)), values * 100, ls=line, color=color, label=name)
        changed = f"{(values > 1e-4).sum()} of {len(values)} pixels change"
        words.append(f"{name}: {changed}, at most by {values.max():.0%} of the spread")
    axes[0, 0].set(xlabel="place in the row (% of the output's side)", xlim=(0, 100), ylim=(0, None))
    axes[0, 0].set_ylabel("change (% of the features' spread)")
    axes[0, 0].legend(fontsize=8)
    return described(figure, f"Change of the features when more of the image is shown. {'; '.join(words)}.")


# What the branch keeps


def pooled_separation(sizes: Sequence[int], evidence: float) -> dict[str, list[float]]:
    """Area under the ROC curve of one pooled value, windows with tumour against windows without: pooling -> per size.

    0.5 is guessing, 1 never errs. A window is 8x8 pixels of noise with standard deviation 1, 4,000 of each kind;
    `evidence` is added to as many pixels as `sizes` says.
    """
    from sklearn.metrics import roc_auc_score

    shows = np.repeat([0, 1], 4000)
    noise = torch.randn(2, 4000, 64, generator=torch.Generator().manual_seed(0))
    windows = [torch.cat([noise[0], noise[1] + evidence * (torch.arange(64) < size)]) for size in sizes]
    pooled = {"mean": [each.mean(dim=1) for each in windows], "max": [each.amax(dim=1) for each in windows]}
    return {kind: [roc_auc_score(shows, values) for values in columns] for kind, columns in pooled.items()}


def difference(vectors: Tensor) -> float:
    """Mean distance of two of the vectors (B, ...), divided by their mean length."""
    flat = vectors.detach().flatten(1)
    return float(torch.pdist(flat).mean() / flat.norm(dim=1).mean())


def follow(branch: DeepSkipBranch, features: Tensor) -> tuple[dict[str, float], float, float]:
    """Follow features (B, width, H', W') through a branch with and without its skip.

    Returns the `difference` of the images after each layer of the chain without the skip (its sixth layer gets the
    fifth alone), that after the sixth layer with the skip, and how many times larger the gradient is that the first
    layer's outputs get through the skip than through the layers between (classification loss, all labels "present").
    """
    x = branch.enter(features)
    first = F.relu(branch.first_to_fifth[0](x)).detach()
    skip, chain = first.clone().requires_grad_(), first.clone().requires_grad_()  # equal numbers, two ways
    outputs = {"conv": x, "FC 1": chain}
    for number, layer in enumerate(branch.first_to_fifth[1:], start=2):
        outputs[f"FC {number}"] = F.relu(layer(outputs[f"FC {number - 1}"]))
    fifth = outputs["FC 5"]
    outputs["FC 6"] = F.relu(F.linear(fifth, branch.sixth.weight[:, -fifth.shape[1] :], branch.sixth.bias))
    sixth = F.relu(branch.sixth(torch.cat([skip, fifth], dim=1)))
    loss = F.cross_entropy(branch.seventh(sixth), torch.ones(len(sixth), dtype=torch.long))
    ways = torch.autograd.grad(loss, (skip, chain))
    ratio = float(ways[0].norm() / ways[1].norm())
    return {name: difference(output) for name, output in outputs.items()}, difference(sixth), ratio


@styled
def pooling(
    sizes: Sequence[int], separation: Mapping[str, Mapping[str, Sequence[float]]], gradients: Mapping[str, np.ndarray]
) -> Figure:
    """What mean- and max-pooling keep of a small tumour, and which pixels they teach.

    sizes: numbers of tumour pixels in a window; separation: name of a case -> what `pooled_separation` returns for
    them; gradients: pooling -> gradient of the pooled values with respect to the pixels, (H, W).
    """
    figure, axes = new_figure(1, len(separation) + len(gradients), width=2.75, height=3.2)
    words, middle = [], len(sizes) // 2 + 1
    styles = {"mean": (COLORS["mixed"], "-", "D"), "max": ("black", "--", "o")}
    for axis, (name, curves) in zip(axes[0], separation.items(), strict=False):
        for kind, values in curves.items():
            color, line, marker = styles[kind]
            axis.plot(sizes, values, color=color, ls=line, marker=marker, ms=4, label=f"{kind}-pooling")
        axis.axhline(0.5, color="black", lw=0.8, ls=":")
        axis.set(xlabel="tumour pixels of 64", ylabel="area under the ROC curve", title=name)
        axis.set_ylim(0.32, 1.02)
        log_ticks(axis, sizes)
        axis.legend(fontsize=8, loc="lower right")
        parts = " and ".join(f"{values[middle]:.2f} with {kind}-pooling" for kind, values in curves.items())
        words.append(f"{name}, {sizes[middle]} tumour pixels: {parts}")
    for axis, (kind, gradient) in zip(axes[0, len(separation) :], gradients.items(), strict=True):
        reached, (height, width) = float((gradient != 0).mean()), gradient.shape
        axis.imshow(gradient, cmap="Blues", vmin=0, vmax=2 * gradient.max(), extent=(0, width, height, 0))
        axis.set(xlabel="pixel", xticks=range(0, width + 1, 8), yticks=range(0, height + 1, 8))
        axis.grid(color="black", lw=0.5)
        axis.set_axisbelow(False)
        share = f"{100 * reached:.3g} % of the pixels"
        axis.set_title(f"{kind}-pooling: gradient\n{gradient.max():.2g} at {share}")
        words.append(f"the gradient of {kind}-pooling reaches {share}")
    return described(figure, f"Area under the ROC curve for {'; '.join(words)}.")


@styled
def surviving_difference(followed: Sequence[tuple[Mapping[str, float], float, float]]) -> Figure:
    """How different images still are after each layer of the branch, with and without the skip.

    `followed`: what `follow` returns, one entry per branch.
    """
    figure, axes = new_figure(1, 1, width=6.4, height=3.2)
    axis, layers = axes[0, 0], list(followed[0][0])
    chains, joined, ratios = zip(*followed, strict=True)
    chain = np.array([list(each.values()) for each in chains])  # (branches, layers)
    joint, mean, places, start = (np.mean(joined), chain.mean(axis=0), np.arange(len(layers)), layers.index("FC 1"))
    axis.plot(places, chain.T, color=COLORS["patients"], lw=0.7, alpha=0.7)
    axis.plot(places, mean, color="black", marker="o", ls="--", label="layer after layer, without the skip")
    ends = ([start, places[-1]], [mean[start], joint])
    axis.plot(*ends, color=COLORS["mixed"], marker="D", label="with the skip from FC 1")
    axis.scatter(np.full(len(joined), places[-1]), joined, s=12, color=COLORS["mixed"], alpha=0.6)
    axis.set(xlabel="layer", xticks=places, xticklabels=layers, ylim=(0, None))
    axis.set_ylabel("difference of two slices\n(share of the outputs' length)")
    axis.legend(fontsize=8, loc="lower left")
    return described(
        figure,
        f"Difference of two slices, mean of {len(chain)} untrained branches: {mean[start]:.2f} after the first fully "
        f"connected layer, {mean[-1]:.2f} after the sixth without the skip, {joint:.2f} with it. The gradient "
        f"through the skip is {min(ratios):.1f} to {max(ratios):.1f} times that through the layers between.",
    )
