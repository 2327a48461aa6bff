"""Where the network looks: what an output pixel sees on each path, and what the border of the input does to it.

Everything is measured with derivatives: that of an output pixel with respect to the input is 0 where it cannot see.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mixsup_lib.geometry import Geometry
from mixsup_lib.plot_style import COLORS, ON_IMAGE, described, new_figure, styled
from mixsup_lib.slice_plots import contour_slice
from mixsup_lib.unet import UNet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
                centre = torch.zeros(3, 3, dtype=torch.double)
                centre[1, 1] = 9
                layer.weight.data *= centre
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


def field(unet: UNet, pixel: int, size: int = 300) -> Tensor:
    """Derivatives of output pixel (pixel, pixel) with respect to an input of ones, (size, size)."""
    x = torch.ones(1, 1, size, size, dtype=torch.double, requires_grad=True)
    (slope,) = torch.autograd.grad(unet(x)[0, 0, pixel, pixel], x)
    return slope[0, 0]


def centre(field: Tensor) -> float:
    """Row on which a field (N, N) is centred."""
    rows = field.sum(dim=1)
    return float((rows * torch.arange(len(rows))).sum() / rows.sum())


def untrained_gradient(
    geometry: Geometry, pixel: int, size: int = 300, *, width: int = 8, seeds: int = 4
) -> np.ndarray:
    """Mean absolute derivative of the features at output pixel (pixel, pixel) with respect to the input, (size, size).

    The networks are He-initialised and untrained, with their ReLUs and max-pools, the input is noise (where an input
    is 0 over a large area, ReLUs stand at 0 and would hide it); seeds 0, 1, ... are averaged.
    """
    total = torch.zeros(size, size)
    for seed in range(seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet, x = UNet(4, width, geometry).eval(), torch.rand(1, 4, size, size, requires_grad=True)
        (slope,) = torch.autograd.grad(unet(x)[0, :, pixel, pixel].sum(), x)
        total += slope[0].abs().sum(dim=0)
    return (total / seeds).numpy()


def change_at_border(
    geometry: Geometry, size: int, *, margin: int = 16, width: int = 4, seeds: int = 3
) -> np.ndarray:
    """How much the features change when the input grows by `margin` pixels on each side, (H',), from first to last.

    The input is noise of mean 1/2; the change is divided by the standard deviation of the features and averaged over
    maps, the middle third of the rows, and seeds. `margin` must be a multiple of 2^depth, or pooling would shift.
    """
    changes = []
    for seed in range(seeds):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            unet, wide = UNet(4, width, geometry), torch.rand(1, 4, size + 2 * margin, size + 2 * margin)
            for norm in unet.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.momentum = 1.0  # keep the statistics of the one pass that follows
            unet(wide)
            unet.eval()
            cut = unet(wide[:, :, margin:-margin, margin:-margin])
            same = slice(margin, margin + cut.shape[2])
            whole = unet(wide)[:, :, same, same]
        change = (whole - cut).abs().mean(dim=(0, 1)) / whole.std()  # (H', W')
        third = len(change) // 3
        changes.append(change[third:-third].mean(dim=0))
    return torch.stack(changes).mean(dim=0).numpy()


def half_side(gradient: np.ndarray, pixel: int, share: float) -> int:
    """Half side r of the smallest square of 2 r + 1 pixels around (pixel, pixel) that holds `share` of (N, N)."""
    inside = share * gradient.sum()
    for half in range(len(gradient)):
        part = slice(max(pixel - half, 0), pixel + half + 1)
        if gradient[part, part].sum() >= inside:
            return half
    return len(gradient)


@styled
def receptive_field(
    image: np.ndarray, gradient: np.ndarray, *, seen: tuple[int, int], window: tuple[int, int], pixel: int
) -> Figure:
    """What one output pixel sees of the network's input: on the input, and as a profile along one axis.

    Args:
        image: one sequence of the padded input, (N, N).
        gradient: mean absolute derivative of the output pixel with respect to each input pixel, (N, N).
        seen: first and last input pixel that can reach it, along both axes.
        window: first and last input pixel that the output covers.
        pixel: the input pixel on which the output pixel is centred.
    """
    figure, axes = new_figure(1, 2, width=4.4, height=4.2)
    halves = {share: half_side(gradient, pixel, share) for share in (0.5, 0.9)}
    contour_slice(axes[0, 0], image)
    squares = [(f"can be seen: {seen[1] - seen[0] + 1} pixels", seen, "white", "-")]
    squares.append((f"output window: {window[1] - window[0] + 1} pixels", window, COLORS["truth"], ":"))
    for (share, half), line in zip(halves.items(), ("-.", "--"), strict=True):
        ends = (pixel - half, pixel + half)
        squares.append((f"{share:.0%} of the gradient: {2 * half + 1} pixels", ends, ON_IMAGE["mixed"], line))
    for label, ends, color, line in squares:
        _square(axes[0, 0], ends, color, line, label)
    axes[0, 0].plot(pixel, pixel, "+", color="white", ms=9, mew=1.6)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncols": 2, "frameon": True}
    axes[0, 0].legend(fontsize=8, facecolor="0.35", labelcolor="white", **below)
    profile = gradient.sum(axis=0) / gradient.sum() * 100
    axes[0, 1].plot(profile, color=COLORS["mixed"], lw=1.0)
    for ends, line in ((seen, "-"), (window, ":")):
        for end in ends:
            axes[0, 1].axvline(end, color="black", lw=1.0, ls=line)
    axes[0, 1].set(xlabel="input pixel, left to right", ylabel="share of the gradient in this column (%)")
    axes[0, 1].set(xlim=(0, len(image) - 1), ylim=(0, None))
    axes[0, 1].set_title("solid: can be seen; dotted: output window")
    words = (
        f"The output pixel centred on input pixel {pixel} can see input pixels {seen[0]} to {seen[1]}, a square of "
        f"{seen[1] - seen[0] + 1}; half of the gradient lies in a square of {2 * halves[0.5] + 1}, 90 % in one of "
        f"{2 * halves[0.9] + 1}. The output covers input pixels {window[0]} to {window[1]}."
    )
    return described(figure, words)


def _square(axis: Axes, ends: tuple[int, int], color: str, line: str, label: str) -> None:
    from matplotlib.patches import Rectangle

    side = ends[1] - ends[0] + 1
    style = {"fill": False, "edgecolor": color, "linestyle": line, "linewidth": 1.5, "label": label}
    axis.add_patch(Rectangle((ends[0] - 0.5, ends[0] - 0.5), side, side, **style))


@styled
def delivered(cases: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """The same tumour as the shallowest skip and as the deepest path deliver it to the last level, a panel per variant.

    `cases`: name of the variant -> (image, skip, deep), each (H', W') on the output's pixels: the slice and the mask as
    they pass the shallowest skip, the mask as it passes the deepest path. Masks are outlined at half of their maximum.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    figure, axes = new_figure(1, len(cases), width=3.0, height=3.6)
    words = []
    for axis, (name, (image, skip, deep)) in zip(axes[0], cases.items(), strict=True):
        contour_slice(axis, image, skip > skip.max() / 2, deep > deep.max() / 2)
        places = np.indices(skip.shape)
        rows, columns = ((places * (deep / deep.sum() - skip / skip.sum())).sum(axis=(1, 2))).tolist()
        axis.set_title(f"{name}\n{rows:+.1f} rows, {columns:+.1f} columns")
        words.append(f"{name} {rows:+.1f} rows and {columns:+.1f} columns")
    style = {"lw": 1.6, "path_effects": [withStroke(linewidth=2.8, foreground="black")]}
    handles = [
        Line2D([], [], color=COLORS["truth"], label="tumour through the shallowest skip", **style),
        Line2D([], [], color=ON_IMAGE["mixed"], ls=(0, (4, 1.5)), label="through the deepest path", **style),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return described(
        figure, f"Shift of the tumour in the deepest path against the shallowest: {'; '.join(words)}."
    )


@styled
def border_effect(profiles: Mapping[str, np.ndarray]) -> Figure:
    """What `change_at_border` found, one line per network; the x axis is the share of the output's side."""
    figure, axes = new_figure(1, 1, width=6.4, height=3.0)
    words, styles = [], ((COLORS["mixed"], "-"), ("black", "--"), (COLORS["patients"], ":"))
    for (name, values), (color, line) in zip(profiles.items(), styles, strict=False):
        axes[0, 0].plot(np.linspace(0, 100, len(values)), values * 100, ls=line, color=color, label=name)
        changed = int((values > 1e-4).sum())
        words.append(
            f"{name}: {changed} of {len(values)} pixels change, at most by {values.max():.0%} of the spread"
        )
    axes[0, 0].set(
        xlabel="place in the row (% of the output's side)", ylabel="change (% of the features' spread)"
    )
    axes[0, 0].set(xlim=(0, 100), ylim=(0, None))
    axes[0, 0].legend(fontsize=8)
    return described(figure, f"Change of the features when more of the image is shown. {'; '.join(words)}.")
