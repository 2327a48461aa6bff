"""What all explorers share: controls, the picture that a plain function draws from their values, and its words."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mixsup_lib.experiments.style import alt_text, as_png, html_caption
from mixsup_lib.files import MixsupError

if TYPE_CHECKING:
    from ipywidgets import ValueWidget, VBox
    from matplotlib.figure import Figure


def panel(draw: Callable[..., Figure], controls: Mapping[str, ValueWidget]) -> VBox:
    """Controls in a row above the figure `draw(**values)` and its words, redrawn whenever one of them changes.

    `controls`: name of an argument of `draw` -> widget, which carries its own description. `draw` returns a described
    figure (`style.described`); a MixsupError that it raises is shown as its sentence.
    """
    import ipywidgets as widgets

    picture = widgets.HTML()

    def redraw(_: object = None) -> None:
        try:
            figure = draw(**{name: control.value for name, control in controls.items()})
            source = base64.b64encode(as_png(figure, dpi=80, quick=True)).decode("ascii")
            image = f'<img src="data:image/png;base64,{source}" alt="{html.escape(alt_text(figure))}"'
            picture.value = f'{image} style="max-width: 100%">{html_caption(figure)}'
        except MixsupError as error:
            picture.value = f'<p role="alert">{html.escape(str(error))}</p>'

    for control in controls.values():
        control.style.description_width = "initial"
        control.observe(redraw, names="value")
    redraw()
    row = widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
    return widgets.VBox([row, picture])
