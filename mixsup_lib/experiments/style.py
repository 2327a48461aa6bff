"""One style for all figures: the same colours for the same things everywhere, and a summary in words.

Colours are those of Okabe and Ito (jfly.uni-koeln.de/color), told apart with any colour vision; line style or
marker always says the same thing once more.
"""

from __future__ import annotations

import functools
import html
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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

WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
"""The box behind a number that stands on a bar or that a line may cross."""

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


def new_figure(
    rows: int, columns: int, *, width: float, height: float, places: Sequence[Sequence[float]] = (), **kwargs
) -> tuple[Figure, np.ndarray]:
    """Figure and axes (rows, columns). It is closed for pyplot, so that a notebook shows it once, when asked.

    `width`, `height`: inches of one panel. `places`: left, bottom, width and height of each panel as shares of the
    figure. An explorer gives them, because finding places takes as long as all the rest.
    """
    from matplotlib import pyplot

    size, layout = (width * columns + 0.4, height * rows), "none" if places else "constrained"
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout=layout, **kwargs)
    pyplot.close(figure)
    for axis, place in zip(axes.flat, places, strict=False):
        axis.set_position(place)
        axis.set_title("", y=1.0)
    return figure, axes


def described(figure: Figure, words: str, title: str = "") -> Figure:
    """Give a figure its title and the summary that `alt_text` returns."""
    if title:
        figure.suptitle(textwrap.fill(title, int(13 * figure.get_figwidth())), fontsize=10)
        words = f"{title}. {words}"
    figure.set_label(words)
    return figure


def alt_text(figure: Figure) -> str:
    """What a figure shows, in one or two sentences with its main numbers."""
    return figure.get_label()


def html_caption(figure: Figure) -> str:
    """The summary as HTML that stands below the figure, in italics and wrapped at words."""
    words = html.escape(alt_text(figure))
    return f'<p style="max-width: 60em; margin: 0.3em 0 1em; line-height: 1.4"><em>{words}</em></p>'


def as_png(figure: Figure, *, dpi: int, quick: bool = False) -> bytes:
    """The figure as a PNG of at most 256 colours: it looks the same in a third of the bytes.

    The picture is cut to what the figure shows. `quick`, for an explorer, takes a third of the time: the whole canvas
    is drawn once, letters without hinting.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    if quick:
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        with matplotlib.rc_context({"text.hinting": "none"}):
            canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba()))
    else:
        figure.savefig(full, format="png", dpi=dpi, bbox_inches="tight")
        image = Image.open(full)
    few = image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(small, format="png", optimize=not quick)  # the default, median cut, would turn thin lines grey
    return small.getvalue()


def halo(width: float = 2.4) -> list:
    """A black edge of `width` points around a line or a letter, as `path_effects`: it is seen on any image."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="black")]


def note(axis: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **style) -> None:
    """Write `text` beside the point `at`, `offset` points to the right and up."""
    axis.annotate(text, at, offset, textcoords="offset points", **style)


def log_ticks(axis: Axes, ticks: Sequence[float]) -> None:
    """A logarithmic x axis with these ticks alone, written as plain numbers."""
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
