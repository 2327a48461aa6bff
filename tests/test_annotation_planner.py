"""The planner's explorer: what `plans` says, drawn and in words; every control moves it."""

import numpy as np
import pytest

from mixsup_lib.experiments.style import alt_text
from mixsup_lib.teaching.planner import Surface, advice, plans
from mixsup_lib.teaching.widgets.annotation_planner import annotation_planner, draw_plans


@pytest.fixture(scope="module")
def surface():
    n_fa, n_wa = np.array([2, 5, 12, 30]), np.array([0, 15, 65])
    dice = 50 + 8 * np.log(n_fa)[:, None] + 3 * np.log1p(n_wa)
    samples = dice + np.random.default_rng(0).normal(0, 2, (200, 1, 1))
    return Surface(n_fa, n_wa, dice, samples, "phantom-x", 2)


def test_the_pictures_words_are_the_advice(surface):
    assert alt_text(draw_plans(surface, hours=10.0)).endswith(advice(surface, plans(surface, 10.0)))


def test_the_bars_are_the_slice_labels_of_each_plan(surface):
    figure = draw_plans(surface, hours=10.0)
    table = plans(surface, 10.0)
    assert [bar.get_height() for bar in figure.axes[1].patches] == table["n_wa"].tolist()


@pytest.mark.parametrize(
    ("control", "value"), [("hours", 20.0), ("minutes_fa", 30.0), ("minutes_wa", 5.0), ("scans", 20)]
)
def test_every_control_moves_the_picture_and_its_words(surface, control, value):
    explorer = annotation_planner(surface)
    row, picture = explorer.children
    names = ("hours", "minutes_fa", "minutes_wa", "scans")
    before = picture.value
    assert all(widget.description for widget in row.children)
    row.children[names.index(control)].value = value
    assert picture.value != before and "alert" not in picture.value


def test_too_little_is_a_sentence(surface):
    explorer = annotation_planner(surface)
    row, picture = explorer.children
    row.children[0].value = row.children[0].min
    row.children[1].value = 90
    assert 'role="alert"' in picture.value and "too little" in picture.value
