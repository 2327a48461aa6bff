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
    from matplotlib.figure import Figure

ROWS = ("image shows tumour", "pixel labels", "segmentation loss", "classification loss")
GRANTED = {
    "positive annotated": ("yes", "outline", "yes", "yes"),
    "negative": ("no", "all 0", "yes", "yes"),
    "positive weak": ("yes", "unknown", "-", "yes"),
}
"""What each kind of image brings to a batch, in the order of ROWS (section 3.1)."""


@styled
def batch_picture(k: int, m: int, n: int, *, pools: Mapping[str, int]) -> Figure:
    """A batch of k + m + n images as columns, how each is labelled, and the walks through the pools in 100 batches.

    pools: number of slices by kind of image, in the order of `nb04.KINDS`. Raises DataError where images are asked for
    from an empty pool.
    """
    counts, size = dict(zip(KINDS, (k, m, n), strict=True)), k + m + n
    if lacking := [kind for kind, count in counts.items() if count and not pools[kind]]:
        raise DataError(
            f"Batches need {counts[lacking[0]]} {lacking[0]} slices, but the pool holds none; set their number to 0."
        )
    walked = {kind: 100 * count / pools[kind] if count else 0.0 for kind, count in counts.items()}
    places = [(0.17, 0.08, 0.48, 0.8), (0.79, 0.2, 0.19, 0.68)]
    figure, axes = new_figure(1, 2, width=4.9, height=2.7, places=places)
    batch, walks = axes[0]
    first, style = 0, {"ha": "center", "va": "center", "fontsize": 8}
    for place, (name, (kind, count)) in enumerate(zip("kmn", counts.items(), strict=True)):
        walks.barh(place, walked[kind], edgecolor="black", **KINDS[kind])
        note(walks, f"{walked[kind]:.1f}", (walked[kind], place), (3, 0), va="center", fontsize=8)
        if count == 0:
            continue
        columns = [(first + number + 0.05, 0.9) for number in range(count)]
        batch.broken_barh(columns, (-0.9, 0.8), edgecolor="black", **KINDS[kind])
        batch.text(first + count / 2, -0.5, f"{name} = {count}", bbox=WHITE, **style)
        for row, word in enumerate(GRANTED[kind]):
            batch.text(first + count / 2, row + 0.5, word, **style)
        first += count
        batch.axvline(first, color="black", lw=0.8)
    batch.set_yticks([row + 0.5 for row in range(len(ROWS))], ROWS)
    batch.set(xlim=(0, size), ylim=(len(ROWS), -1), xticks=[])
    batch.set_title(f"a batch of {size} images")
    batch.grid(False)
    names = [f"{kind.replace(' ', chr(10))}\n{pools[kind]} slices" for kind in KINDS]
    walks.set_yticks(range(len(KINDS)), names, fontsize=8)
    walks.invert_yaxis()
    walks.set(xlim=(0, max(1.0, 1.25 * max(walked.values()))), xlabel="times in 100 batches")
    walks.set_title("pool walked through")
    walks.grid(False, axis="y")
    flipped = round(paper.FLIP_FRACTION * size)
    words = [f"{kind}: {pools[kind]} slices, {walked[kind]:.1f} times" for kind in KINDS if counts[kind]]
    text = f"k = {k}, m = {m}, n = {n}: a batch of {size} images, {flipped} of them mirrored. The segmentation loss "
    text += f"sees {k + m}, the classification loss {size}; {k + n} of {size} show tumour. Pools walked in 100 "
    text += f"batches: {'; '.join(words)}."
    if m == 0:
        text += ' Every image shows tumour: the branch need only ever answer "yes".'
    return described(figure, text)


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
