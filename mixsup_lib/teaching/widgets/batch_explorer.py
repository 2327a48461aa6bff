"""Batch explorer: k, m, n -> which image of a batch is labelled how, and how fast its pools are walked through."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from mixsup_lib import paper
from mixsup_lib.experiments.style import WHITE, described, new_figure, note, styled
from mixsup_lib.files import DataError
from mixsup_lib.teaching.figures.nb04 import KINDS
from mixsup_lib.teaching.widgets.panel import panel

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = ("image shows tumour", "pixel labels", "segmentation loss", "classification loss")
GRANTED = {
    "positive annotated": ("yes", "outline", "yes", "yes"),
    "negative": ("no", "all 0", "yes", "yes"),
    "positive weak": ("yes", "unknown", "-", "yes"),
}
"""What each kind of image brings to a batch, in the order of ROWS (section 3.1)."""


def passes(counts: Mapping[str, int], pools: Mapping[str, int], batches: int = 100) -> dict[str, float]:
    """How often each pool is walked through from end to end in `batches` batches.

    counts: kind -> images of that kind in a batch; pools: kind -> slices in its pool. Raises DataError where images
    are asked for from an empty pool.
    """
    for kind, count in counts.items():
        if count and not pools[kind]:
            raise DataError(
                f"Batches need {count} {kind} slices, but the pool holds none; set their number to 0."
            )
    return {kind: batches * count / pools[kind] if count else 0.0 for kind, count in counts.items()}


@styled
def batch_picture(k: int, m: int, n: int, *, pools: Mapping[str, int]) -> Figure:
    """A batch of k + m + n images as columns, how each is labelled, and the walks through the pools in 100 batches.

    pools: number of slices by kind of image, in the order of `nb04.KINDS`.
    """
    counts = dict(zip(KINDS, (k, m, n), strict=True))
    walked, size = passes(counts, pools), k + m + n
    places = [(0.17, 0.08, 0.48, 0.8), (0.79, 0.2, 0.19, 0.68)]
    figure, axes = new_figure(1, 2, width=4.9, height=2.7, places=places)
    _draw_batch(axes[0, 0], counts)
    _draw_passes(axes[0, 1], walked, pools)
    flipped = round(paper.FLIP_FRACTION * size)
    words = [f"{kind}: {pools[kind]} slices, {walked[kind]:.1f} times" for kind in KINDS if counts[kind]]
    text = (
        f"k = {k}, m = {m}, n = {n}: a batch of {size} images, {flipped} of them mirrored. The segmentation loss sees "
        f"{k + m}, the classification loss {size}; {k + n} of {size} show tumour. Pools walked in 100 batches: "
        f"{'; '.join(words)}."
    )
    if m == 0:
        text += ' Every image shows tumour: the branch need only ever answer "yes".'
    return described(figure, text)


def _draw_batch(axis: Axes, counts: Mapping[str, int]) -> None:
    first = 0
    for name, (kind, count) in zip("kmn", counts.items(), strict=True):
        if count == 0:
            continue
        columns = [(first + number + 0.05, 0.9) for number in range(count)]
        axis.broken_barh(columns, (-0.9, 0.8), edgecolor="black", **KINDS[kind])
        style = {"ha": "center", "va": "center", "fontsize": 8}
        axis.text(first + count / 2, -0.5, f"{name} = {count}", bbox=WHITE, **style)
        for row, word in enumerate(GRANTED[kind]):
            axis.text(first + count / 2, row + 0.5, word, **style)
        first += count
        axis.axvline(first, color="black", lw=0.8)
    axis.set_yticks([row + 0.5 for row in range(len(ROWS))], ROWS)
    axis.set(xlim=(0, first), ylim=(len(ROWS), -1), xticks=[])
    axis.set_title(f"a batch of {first} images")
    axis.grid(False)


def _draw_passes(axis: Axes, walked: Mapping[str, float], pools: Mapping[str, int]) -> None:
    for place, (kind, times) in enumerate(walked.items()):
        axis.barh(place, times, edgecolor="black", **KINDS[kind])
        note(axis, f"{times:.1f}", (times, place), (3, 0), va="center", fontsize=8)
    names = [f"{kind.replace(' ', chr(10))}\n{pools[kind]} slices" for kind in walked]
    axis.set_yticks(range(len(walked)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlim=(0, max(1.0, 1.25 * max(walked.values()))), xlabel="times in 100 batches")
    axis.set_title("pool walked through")
    axis.grid(False, axis="y")


def batch_explorer(pools: Mapping[str, int]) -> VBox:
    """Sliders for k, m and n, at first those of mixed supervision, above `batch_picture` of these pools."""
    import ipywidgets as widgets

    k, m, n = paper.BATCH["mixed"]
    controls = {
        "k": widgets.IntSlider(k, min=1, max=8, description="k (positive annotated)"),
        "m": widgets.IntSlider(m, min=0, max=8, description="m (negative)"),
        "n": widgets.IntSlider(n, min=0, max=8, description="n (positive weak)"),
    }
    return panel(partial(batch_picture, pools=pools), controls)
