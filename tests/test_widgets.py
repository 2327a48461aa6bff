"""The frame of all explorers: a control moves, the picture and its words follow, a wrong value becomes a sentence."""

from __future__ import annotations

import ipywidgets
import pytest

from mixsup_lib.experiments.style import described, new_figure
from mixsup_lib.files import SettingError
from mixsup_lib.teaching.widgets.panel import as_html, panel


def draw(n):
    if n > 3:
        raise SettingError("n is <4>, expected at most 3.")
    figure, axes = new_figure(1, 1, width=2, height=2)
    axes[0, 0].plot(range(n))
    return described(figure, f'A line of {n} "points".')


@pytest.fixture
def explorer():
    return panel(draw, {"n": ipywidgets.IntSlider(2, 1, 5, description="points")})


def test_a_control_redraws_the_picture_and_its_words(explorer):
    (slider,), picture = explorer.children[0].children, explorer.children[1]
    before = picture.value
    assert "A line of 2" in before
    slider.value = 3
    assert "A line of 3" in picture.value
    assert picture.value.split("base64,")[1][:2000] != before.split("base64,")[1][:2000]


def test_an_error_is_shown_as_its_sentence_and_goes_away(explorer):
    (slider,), picture = explorer.children[0].children, explorer.children[1]
    slider.value = 5
    assert picture.value == '<p role="alert">n is &lt;4&gt;, expected at most 3.</p>'
    slider.value = 1
    assert "A line of 1" in picture.value and "alert" not in picture.value


def test_the_picture_has_an_alternative_text():
    assert 'alt="A line of 1 &quot;points&quot;."' in as_html(draw(1))
