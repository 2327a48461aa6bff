"""One style for all figures: the same colours for the same things everywhere, and a summary in words.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), told apart with any colour vision; line style or
marker always says the same thing once more.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture


P, R = ParamSpec("P"), TypeVar("R")

COLORS = {"standard": "#D55E00", "mixed": "#0072B2", "truth": "#F0E442", "patients": "#999999"}
"""Vermillion: standard supervision; blue: mixed; yellow: ground truth; grey: single patients."""

ON_IMAGE = {"standard": "#D55E00", "mixed": "#56B4E9"}
"""The same on a grey image, where dark blue would drown."""

CLASS_COLORS = {1: "#CC79A7", 2: "#009E73", 3: "#E69F00"}
"""The paper's classes: purple non-enhancing, green oedema, orange enhancing."""

CLASS_DASHES = {1: ":", 2: "-", 3: "--"}

MARKERS = {"standard": "o", "mixed": "D"}
DASHES = {"standard": "--", "mixed": "-"}

STYLE = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in the library's style, without touching matplotlib's settings outside."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def alt_text(figure: Figure) -> str:
    """What a figure of this module shows, in one or two sentences with its main numbers."""
    return figure.get_label()


def as_png(figure: Figure, *, dpi: int) -> bytes:
    """The figure, cut to what it shows, as a PNG of at most 256 colours: it looks the same in a third of the bytes."""
    from PIL import Image

    full = io.BytesIO()
    figure.savefig(full, format="png", dpi=dpi, bbox_inches="tight")
    return _of_few_colours(Image.open(full), optimize=True)


def as_quick_png(figure: Figure, *, dpi: int) -> bytes:
    """Like `as_png` in a third of the time, for an explorer: the whole canvas, drawn once, letters without hinting."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with matplotlib.rc_context({"text.hinting": "none"}):
        canvas.draw()
    return _of_few_colours(Image.fromarray(np.asarray(canvas.buffer_rgba())))


def _of_few_colours(image: Picture, **options: bool) -> bytes:
    from PIL import Image

    small = io.BytesIO()
    colours = image.convert("RGB").quantize(
        256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )  # median cut would turn thin lines grey
    colours.save(small, format="png", **options)
    return small.getvalue()


def new_figure(
    rows: int, columns: int, *, width: float, height: float, **kwargs
) -> tuple[Figure, np.ndarray]:
    """Figure and axes (rows, columns). It is closed for pyplot, so that a notebook shows it once, when asked."""
    from matplotlib import pyplot

    size = (width * columns + 0.4, height * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **kwargs)
    pyplot.close(figure)
    return figure, axes


def described(figure: Figure, words: str, title: str = "") -> Figure:
    """Give a figure its title and the summary that `alt_text` returns."""
    if title:
        figure.suptitle(textwrap.fill(title, int(13 * figure.get_figwidth())), fontsize=10)
        words = f"{title}. {words}"
    figure.set_label(words)
    return figure
