"""What all explorers share: controls, the picture that a plain function draws from their values, and its words."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mixsup_lib.experiments.style import alt_text, as_quick_png
from mixsup_lib.files import MixsupError

if TYPE_CHECKING:
    from ipywidgets import ValueWidget, VBox
    from matplotlib.figure import Figure


DPI = 80


def panel(draw: Callable[..., Figure], controls: Mapping[str, ValueWidget]) -> VBox:
    """Controls in a row above the figure `draw(**values)`, redrawn whenever one of them changes.

    `controls`: name of an argument of `draw` -> widget, which carries its own description. `draw` returns a described
    figure (`plot_style.described`); a MixsupError that it raises is shown as its sentence.
    """
    import ipywidgets as widgets

    picture = widgets.HTML()

    def redraw(_: object = None) -> None:
        try:
            picture.value = as_html(draw(**{name: control.value for name, control in controls.items()}))
        except MixsupError as error:
            picture.value = f'<p role="alert">{html.escape(str(error))}</p>'

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    row = widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
    return widgets.VBox([row, picture])


def as_html(figure: Figure) -> str:
    """The figure as an image with alternative text, and the same text below for everyone."""
    words = html.escape(alt_text(figure), quote=True)
    image = base64.b64encode(as_quick_png(figure, dpi=DPI)).decode("ascii")
    return f'<img src="data:image/png;base64,{image}" alt="{words}" style="max-width: 100%"><p>{words}</p>'
