"""The notebooks' own figures, a file per notebook; `show` puts a figure into a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixsup_lib.experiments.style import alt_text, as_png, html_caption

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(figure: Figure) -> None:
    """Display a figure in a notebook as PNG, its summary as the image's alternative text and as caption below it."""
    from IPython.display import Image, display

    display(Image(as_png(figure, dpi=100), format="png", alt=alt_text(figure)))
    display({"text/html": html_caption(figure), "text/plain": alt_text(figure)}, raw=True)
