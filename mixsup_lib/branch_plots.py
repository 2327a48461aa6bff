"""Why the classification branch is built as it is: what pooling keeps of a tumour, and what reaches the last layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mixsup_lib.branches import DeepSkipBranch
from mixsup_lib.plot_style import COLORS, described, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {
    "mean": {"color": COLORS["mixed"], "ls": "-", "marker": "D"},
    "max": {"color": "black", "ls": "--", "marker": "o"},
}
"""The paper's choice in blue, what it decided against in black."""

POOLS = {"mean": lambda windows: windows.mean(dim=1), "max": lambda windows: windows.amax(dim=1)}


def roc_area(without: Tensor, with_tumor: Tensor) -> float:
    """Probability that a value of `with_tumor` (N,) is above one of `without` (M,): 0.5 is guessing, 1 never errs."""
    below = torch.searchsorted(without.sort().values, with_tumor)
    return float(below.double().mean()) / len(without)


def pooled_separation(
    sizes: Sequence[int], evidence: float, *, windows: int = 4000, seed: int = 0
) -> dict[str, list[float]]:
    """How well one pooled value separates windows with tumour from windows without: pooling -> `roc_area` per size.

    A window is 8x8 pixels of noise with standard deviation 1; `evidence` is added to as many of them as `sizes` says.
    """
    noise = torch.randn(2, windows, 64, generator=torch.Generator().manual_seed(seed))
    areas: dict[str, list[float]] = {kind: [] for kind in POOLS}
    for size in sizes:
        tumor = noise[1] + evidence * (torch.arange(64) < size)
        for kind, pool in POOLS.items():
            areas[kind].append(roc_area(pool(noise[0]), pool(tumor)))
    return areas


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
    pooled = F.avg_pool2d(features, branch.POOL, ceil_mode=True, count_include_pad=False)
    x = branch.conv(pooled).flatten(1)
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
    sizes: Sequence[int],
    separation: Mapping[str, Mapping[str, Sequence[float]]],
    gradients: Mapping[str, np.ndarray],
) -> Figure:
    """What mean- and max-pooling keep of a small tumour, and which pixels they teach.

    Args:
        sizes: numbers of tumour pixels in a pooling window.
        separation: name of a case -> what `pooled_separation` returns for these sizes.
        gradients: pooling -> gradient of the pooled values with respect to the pixels, (H, W).
    """
    figure, axes = new_figure(1, len(separation) + len(gradients), width=2.75, height=3.2)
    words, middle = [], len(sizes) // 2 + 1
    for axis, (name, curves) in zip(axes[0], separation.items(), strict=False):
        for kind, values in curves.items():
            axis.plot(sizes, values, ms=4, label=f"{kind}-pooling", **STYLE[kind])
        axis.axhline(0.5, color="black", lw=0.8, ls=":")
        axis.set(xscale="log", ylim=(0.32, 1.02), title=name)
        axis.set(xlabel="tumour pixels of 64", ylabel="area under the ROC curve")
        axis.set_xticks(sizes, sizes)
        axis.minorticks_off()
        axis.legend(fontsize=8, loc="lower right")
        parts = " and ".join(f"{values[middle]:.2f} with {kind}-pooling" for kind, values in curves.items())
        words.append(f"{name}, {sizes[middle]} tumour pixels: {parts}")
    for axis, (kind, gradient) in zip(axes[0, len(separation) :], gradients.items(), strict=True):
        reached, (height, width) = float((gradient != 0).mean()), gradient.shape
        axis.imshow(gradient, cmap="Blues", vmin=0, vmax=2 * gradient.max(), extent=(0, width, height, 0))
        axis.set(xlabel="pixel", xticks=range(0, width + 1, 8), yticks=range(0, height + 1, 8))
        axis.grid(color="black", lw=0.5)
        axis.set_axisbelow(False)
        axis.set_title(
            f"{kind}-pooling: gradient\n{gradient.max():.2g} at {100 * reached:.3g} % of the pixels"
        )
        words.append(f"the gradient of {kind}-pooling reaches {100 * reached:.3g} % of the pixels")
    return described(figure, f"Area under the ROC curve for {'; '.join(words)}.")


@styled
def surviving_difference(followed: Sequence[tuple[Mapping[str, float], float, float]]) -> Figure:
    """How different images still are after each layer of the branch, with and without the skip.

    `followed`: what `follow` returns, one entry per branch.
    """
    figure, axes = new_figure(1, 1, width=6.4, height=3.2)
    axis, layers = axes[0, 0], list(followed[0][0])
    chain = np.array([list(differences.values()) for differences, _, _ in followed])  # (branches, layers)
    joined = np.array([with_skip for _, with_skip, _ in followed])
    mean, places, start = chain.mean(axis=0), np.arange(len(layers)), layers.index("FC 1")
    axis.plot(places, chain.T, color=COLORS["patients"], lw=0.7, alpha=0.7)
    axis.plot(places, mean, color="black", marker="o", ls="--", label="layer after layer, without the skip")
    ends = ([start, places[-1]], [mean[start], joined.mean()])
    axis.plot(*ends, color=COLORS["mixed"], marker="D", label="with the skip from FC 1")
    axis.scatter(np.full(len(joined), places[-1]), joined, s=12, color=COLORS["mixed"], alpha=0.6)
    axis.set(
        ylabel="difference of two slices\n(share of the outputs' length)", ylim=(0, None), xlabel="layer"
    )
    axis.set_xticks(places, layers)
    axis.legend(fontsize=8, loc="lower left")
    ratios = [ratio for _, _, ratio in followed]
    return described(
        figure,
        f"Difference of two slices, mean of {len(chain)} untrained branches: {mean[start]:.2f} after the first fully "
        f"connected layer, {mean[-1]:.2f} after the sixth without the skip, {joined.mean():.2f} with it. The gradient "
        f"through the skip is {min(ratios):.1f} to {max(ratios):.1f} times that through the layers between.",
    )
