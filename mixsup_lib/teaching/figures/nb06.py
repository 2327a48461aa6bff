"""How a segmentation is wrong: distances between outlines, errors slice by slice, and the spread over patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mixsup_lib.experiments.pictures import contour_slice
from mixsup_lib.experiments.statistics import ARMS
from mixsup_lib.experiments.style import COLORS, DASHES, MARKERS, described, new_figure, styled
from mixsup_lib.teaching.figures.panels import head_box

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def surface_distances(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    distances: Mapping[str, np.ndarray],
    *,
    supervision: str,
) -> Figure:
    """One slice (H, W) with both outlines, and how far surface voxels are from the other surface.

    `distances`: direction, for example "prediction to truth" -> distance in mm of every surface voxel of the volume.
    """
    figure, axes = new_figure(1, 2, width=3.9, height=3.6)
    head = head_box(image[..., None])
    contour_slice(axes[0, 0], image[head], truth[head], prediction[head], supervision=supervision)
    axes[0, 0].set_title("ground truth (solid), prediction (dashed)")
    axis, words = axes[0, 1], []
    styles = ({"color": COLORS[supervision], "ls": "--"}, {"color": "black", "ls": "-"})
    for (name, values), style in zip(distances.items(), styles, strict=False):
        share, limit = np.linspace(0, 100, len(values)), float(np.percentile(values, 95))
        axis.plot(np.sort(values), share, lw=1.6, label=name, **style)
        axis.plot(limit, 95, marker="o", ms=7, color=style["color"])
        words.append(f"{name}: 95 % are within {limit:.1f} mm, the farthest is at {values.max():.1f} mm")
    axis.axhline(95, color="black", lw=0.8, ls=":")
    axis.set(xlabel="distance to the other surface (mm)", ylabel="surface voxels within it (%)")
    axis.set_ylim(0, 102)
    axis.legend(fontsize=8, loc="lower right")
    return described(figure, f"Distances between the two surfaces. {'; '.join(words)}.")


@styled
def error_profile(
    truth: np.ndarray, errors: Mapping[str, tuple[np.ndarray, np.ndarray]], presence: np.ndarray, *, title: str = ""
) -> Figure:
    """Slice by slice: tumour volume, what each arm missed and what it drew too much, and the branch's probability.

    `truth` (Z,) in ml; `errors`: arm -> missed (Z,) and extra (Z,), both in ml; `presence` (Z,): probability of tumour.
    """
    figure, axes = new_figure(len(errors) + 1, 1, width=7.4, height=1.9, sharex=True)
    z, words = np.arange(len(truth)), []
    highest = 1.08 * max(float(np.max(values)) for values in (truth, *sum(errors.values(), ())))
    tumor = {"step": "mid", "color": COLORS["patients"], "alpha": 0.45, "label": "tumour", "lw": 0}
    for axis, (arm, (missed, extra)) in zip(axes[:, 0], errors.items(), strict=False):
        axis.fill_between(z, truth, **tumor)
        bars = {"width": 0.8, "edgecolor": "black", "linewidth": 0.4, "color": COLORS[arm]}
        axis.bar(z, missed, label="missed", **bars)
        axis.bar(z, -extra, label="too much", hatch="////", alpha=0.6, **bars)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(ylabel=f"{arm}\nvolume (ml)", ylim=(-highest, highest))
        words.append(f"{arm} misses {missed.sum():.1f} ml and draws {extra.sum():.1f} ml too much")
    axes[-1, 0].fill_between(z, truth > 0, **tumor)
    axes[-1, 0].plot(z, presence, color=COLORS["mixed"], marker=MARKERS["mixed"], ms=3, lw=1, label="branch")
    axes[-1, 0].set(ylabel="probability\nof tumour", ylim=(-0.05, 1.05))
    for axis in axes[:, 0]:
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[-1, 0].set(xlabel="slice z (0 is the lowest)", xlim=(-0.6, len(truth) - 0.4))
    return described(figure, f"Of {truth.sum():.1f} ml tumour {'; '.join(words)}.", title)


@styled
def spread_of_dice(frame: pd.DataFrame, *, title: str = "") -> Figure:
    """Dice of all test patients: each arm ranked, with its mean and median; and against the size of the tumour.

    `frame`: columns supervision, dice (%), truth_voxels; a row per patient, of one region. Patients without the region
    (NaN) are left out.
    """
    figure, axes = new_figure(1, 2, width=4.4, height=4.2, sharey=True)
    words = []
    for arm in ARMS:
        part = frame[(frame["supervision"] == arm) & frame["dice"].notna()].sort_values("dice")
        values, style = part["dice"].to_numpy(), {"color": COLORS[arm], "marker": MARKERS[arm]}
        axes[0, 0].plot(values, ms=4, lw=0.6, label=f"{arm}, one patient", **style)
        for value, name, dashes in ((values.mean(), "mean", DASHES[arm]), (np.median(values), "median", ":")):
            label = f"{arm}, {name} {value:.1f}"
            axes[0, 0].axhline(value, color=COLORS[arm], lw=1.5, ls=dashes, label=label)
        axes[0, 1].scatter(part["truth_voxels"], values, s=18, alpha=0.8, linewidths=0, **style)
        found = f"mean {values.mean():.1f}, median {np.median(values):.1f}, worst {values[0]:.1f}"
        words.append(f"{arm}: {found}")
    axes[0, 0].set(xlabel="patients, worst first", ylabel="Dice (%)", ylim=(-3, 103))
    axes[0, 1].set(xlabel="tumour in the ground truth (voxels)", xlim=(0, None))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    return described(figure, f"Dice of {len(values)} test patients per arm. {'; '.join(words)}.", title)
