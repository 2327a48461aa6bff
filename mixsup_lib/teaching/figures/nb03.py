"""Figures of the losses: what each image of a batch weighs, the first steps with and without weights, and `a`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mixsup_lib.experiments.pictures import contour_slice, words_below
from mixsup_lib.experiments.style import COLORS, described, new_figure, note, styled
from mixsup_lib.losses import class_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def batch_weights(images: np.ndarray, labels: np.ndarray, target_weights: Sequence[float]) -> Figure:
    """The annotated images of a batch and what each adds to the total weight of the segmentation loss (section 3.1).

    images: (A, H, W) one sequence; labels: (A, H, W) integer 0..K-1, every class but 0 is outlined and counts
    as tumour.
    """
    weights = class_weights(torch.from_numpy(np.asarray(labels, np.int64)), target_weights).numpy()  # (K,)
    figure, axes = new_figure(1, len(images), width=1.9, height=2.7)
    words = []
    for number, (axis, image, mask) in enumerate(zip(axes[0], images, labels, strict=True), start=1):
        tumor = mask > 0  # (H, W)
        inside, outside = (float(weights[mask[part]].sum()) for part in (tumor, ~tumor))
        contour_slice(axis, image, mask)
        axis.set_title(f"image {number}")
        lines = f"{tumor.sum()} tumour pixels\ntheir weight {inside:.3f}\nweight of the rest {outside:.3f}"
        words_below(axis, lines)
        words.append(f"image {number}: {tumor.sum()} tumour pixels weigh {inside:.3f}")
    title = f"Together the tumour pixels weigh {sum(target_weights[1:]):g}, all others {target_weights[0]:g}"
    return described(figure, f"{len(images)} slices with the tumour's outline; {'; '.join(words)}.", title)


@styled
def first_steps(courses: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Segmentation loss and Dice on the training batch against the step, for two choices of weights.

    courses: name -> (loss of every step, Dice in per cent of every step). The first is drawn in grey.
    """
    figure, axes = new_figure(1, 2, width=3.7, height=2.9)
    styles = [{"color": COLORS["patients"], "ls": "--"}, {"color": "black", "ls": "-"}]
    words = []
    for (name, (losses, dice)), style in zip(courses.items(), styles, strict=True):
        axes[0, 0].plot(losses, lw=1.6, label=name, **style)
        axes[0, 1].plot(dice, lw=1.6, **style)
        words.append(f"{name}: loss {losses[-1]:.3f}, Dice {dice[-1]:.0f} %")
    axes[0, 0].set(xlabel="step", ylabel="segmentation loss (nats)", ylim=(0, None))
    axes[0, 1].set(xlabel="step", ylabel="Dice on this batch (%)", ylim=(-2, 62))
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return described(figure, f"After {len(losses) - 1} steps: {'; '.join(words)}.")


@styled
def gradient_balance(norm_s: float, norm_c: float, cosine: float, a: float) -> Figure:
    """What `a` does to the two gradients of the shared layers (section 3.1: a = 0.7).

    norm_s, norm_c: L2 norms of the gradients of Loss_s and Loss_c; cosine: of the angle between them. Left
    the lengths of the two parts of the joint gradient, right the cosine between each part and the whole.
    """
    shares = np.linspace(0, 1, 201)
    part_s, part_c = shares * norm_s, (1 - shares) * norm_c
    whole = np.sqrt(np.maximum(part_s**2 + part_c**2 + 2 * part_s * part_c * cosine, 1e-30))
    equal = norm_c / (norm_s + norm_c)
    figure, axes = new_figure(1, 2, width=3.7, height=3.1)
    styles = [
        {"color": COLORS["standard"], "ls": "--", "label": "segmentation part, $a\\,g_s$"},
        {"color": COLORS["mixed"], "ls": "-", "label": "classification part, $(1-a)\\,g_c$"},
    ]
    cosines = ((part_s + part_c * cosine) / whole, (part_c + part_s * cosine) / whole)
    for lengths, angles, style in zip((part_s, part_c), cosines, styles, strict=True):
        axes[0, 0].plot(shares, lengths, lw=1.6, **style)
        axes[0, 1].plot(shares, angles, lw=1.6, **{**style, "label": None})
    for axis in axes[0]:
        axis.axvline(a, color="black", lw=0.8, ls=":")
        axis.set(xlabel="$a$, weight of the segmentation loss")
    axes[0, 0].set(ylabel="length of the part", ylim=(0, None))
    axes[0, 1].set(ylabel="cosine between part and whole", ylim=(min(-0.05, cosine - 0.05), 1.05))
    axes[0, 0].plot(equal, equal * norm_s, "o", color="black", ms=5)
    axes[0, 0].set_title(f"equally long at $a$ = {equal:.2f}")
    note(axes[0, 1], f"the paper's {a:g}", (a, 0), (-5, 4), ha="right", fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    words = f"Gradients of the shared layers: length {norm_s:.2f} for the segmentation loss, {norm_c:.2f} for the "
    words += f"classification loss, cosine {cosine:.2f}. At a = {a:g} the parts are {a * norm_s:.2f} and "
    words += f"{(1 - a) * norm_c:.2f} long; they are equal at a = {equal:.2f}."
    return described(figure, words)
