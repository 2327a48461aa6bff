"""Figures and explorer of notebook 04: their numbers are those of the protocol and of the sampler."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import DataError
from mixsup_lib.protocol import make_split, permutation
from mixsup_lib.sampling import Batch, Pool
from mixsup_lib.teaching.figures.nb04 import (
    KINDS,
    batch_composition,
    draws_per_slice,
    fold_strips,
    one_slice_three_tasks,
)
from mixsup_lib.teaching.widgets.batch_explorer import batch_explorer, batch_picture, passes

POOLS = {"positive annotated": 40, "negative": 100, "positive weak": 80}


def test_passes_are_those_of_the_samplers_pools():
    walked = passes(dict(zip(KINDS, (4, 2, 4), strict=True)), POOLS)
    assert walked == {"positive annotated": 10, "negative": 2, "positive weak": 5}
    pool = Pool(np.arange(40), np.random.default_rng(0))
    drawn = np.concatenate([pool.draw(4) for _ in range(100)])
    assert (np.bincount(drawn) == walked["positive annotated"]).all()


def test_an_empty_pool_is_a_sentence_unless_nothing_is_asked_of_it():
    empty = {**POOLS, "positive weak": 0}
    assert passes(dict(zip(KINDS, (4, 2, 0), strict=True)), empty)["positive weak"] == 0
    with pytest.raises(DataError, match="4 positive weak slices"):
        batch_picture(4, 2, 4, pools=empty)


def test_the_pictures_words_hold_its_numbers():
    words = alt_text(batch_picture(4, 2, 4, pools=POOLS))
    for part in (
        "batch of 10 images, 3 of them mirrored",
        "loss sees 6",
        "loss 10; 8 of 10",
        "40 slices, 10.0 times",
    ):
        assert part in words
    assert "mirrored" in words and "only ever answer" not in words
    assert "only ever answer" in alt_text(batch_picture(4, 0, 4, pools=POOLS))


def test_every_control_moves_the_picture_and_its_words():
    explorer = batch_explorer(POOLS)
    controls, picture = explorer.children[0].children, explorer.children[1]
    assert [control.description[0] for control in controls] == ["k", "m", "n"]
    for control in controls:
        for end in (control.min, control.max):
            before = picture.value
            control.value = end
            assert picture.value != before and "alert" not in picture.value


def test_the_explorer_answers_quickly():
    explorer, times = batch_explorer(POOLS), []
    for value in (1, 2, 3, 5):
        start = time.process_time()
        explorer.children[0].children[0].value = value
        times.append(time.process_time() - start)
    assert min(times) < 0.6  # 0.2 s on an idle core; a busy or old one may need longer


@pytest.mark.parametrize(("n_patients", "n_fa"), [(285, 5), (285, 60), (12, 3)])
def test_the_strips_are_the_splits(n_patients, n_fa):
    figure = fold_strips(n_patients, n_fa)
    patients = [f"{i:03d}" for i in range(n_patients)]
    order = permutation(patients, n_fa)
    strips = figure.axes[0].collections
    for fold in range(1, 6):
        role = {}
        for strip in strips[3 * (fold - 1) : 3 * fold]:
            for path in strip.get_paths():
                first, last = path.vertices[:, 0].min(), path.vertices[:, 0].max()
                role.update({order[i]: strip.get_label() for i in range(round(first), round(last))})
        split = make_split(patients, n_fa=n_fa, fold=fold)
        assert {p for p in role if role[p] == "test"} == set(split.test)
        assert {p for p in role if role[p] == "fully annotated"} == set(split.fully_annotated)
        assert {p for p in role if role[p] == "weak"} == set(split.weak)


@pytest.mark.parametrize("n", [0, 4])
def test_the_composition_says_who_enters_which_loss(n):
    labels = np.zeros((6, 8, 8), int)
    labels[:4, 2:4, 2:4] = 1
    presence = np.array([1, 1, 1, 1, 0, 0, *[1] * n])[:, None]
    batch = Batch(np.ones((6 + n, 4, 8, 8), np.float32), labels, presence, np.arange(6 + n))
    figure = batch_composition(batch, 4, flipped=[0, 5], sources=["FA"] * 6 + ["WA"] * n)
    words = alt_text(figure)
    assert f"{n} positive weak" in words and f"sees the first 6, the classification loss all {6 + n}" in words
    titles = [axis.get_title() for axis in figure.axes]
    assert titles.count("FA\ntumour: yes") == 4 and titles.count("WA\ntumour: yes") == n
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts.count("all 0") == 2 and texts.count("unknown") == n and texts.count("\nmirrored") == 2


def test_a_slice_with_oedema_only_is_positive_for_the_whole_tumour_alone():
    labels = np.zeros((8, 8), np.uint8)
    labels[2:4, 2:5] = 2
    words = alt_text(one_slice_three_tasks(np.ones((8, 8)), labels))
    assert (
        "whole_tumor: positive, 6 pixels; tumor_core: negative, 0 pixels; enhancing_core: negative" in words
    )


def test_draws_are_counted():
    words = alt_text(draws_per_slice({"drawn": np.array([0, 0, 2]), "walked": np.array([0, 1, 2])}, 3))
    assert "drawn: each slice 0 to 2 times, 1 never; walked: each slice 1 to 1 times, 0 never" in words
