"""Ways to compute the same step: they agree, they are timed in turns, and the arithmetic is counted right."""

from __future__ import annotations

import pytest
import torch

from mixsup_lib.teaching import speed

SMALL = {"width": 4, "depth": 2, "padding": "same", "input_shape": (32, 32)}
PAPER = {"width": 64, "depth": 4, "padding": "valid", "input_shape": (300, 300)}


def test_the_papers_network_needs_52_5_gflop_an_image_and_three_times_that_to_train():
    forward, training = speed.training_gflop(PAPER)
    assert forward == pytest.approx(52.5, abs=0.1)
    assert training == pytest.approx(3 * forward, rel=0.01)


def test_the_ways_of_a_cpu_agree_up_to_rounding():
    plain, last, bfloat16 = (
        [step() for _ in range(3)] for step in (speed.Step(way, SMALL, batch=(2, 1, 1)) for way in speed.CPU_WAYS)
    )
    assert last == pytest.approx(plain, rel=1e-4)
    assert bfloat16 == pytest.approx(plain, rel=0.05) and bfloat16 != plain


def test_a_step_is_a_step():
    step = speed.Step(speed.CPU_WAYS[1], SMALL, batch=(2, 1, 1))
    before = [parameter.clone() for parameter in step.network.parameters()]
    losses = [step() for _ in range(20)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(a, b) for a, b in zip(before, step.network.parameters(), strict=True))


def test_the_table_compares_with_its_first_way():
    table = speed.compare(speed.CPU_WAYS[:2], SMALL, rounds=2, batch=(2, 1, 1))
    assert table["way"].tolist() == [way.name for way in speed.CPU_WAYS[:2]]
    assert table["times faster"][0] == 1 and (table["ms"] > 0).all()
    assert table["images/s"][0] == pytest.approx(4000 / table["ms"][0])
    assert table["peak MB"].isna().all()


def test_settings_of_products_are_put_back():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    with speed.way_of_computing(speed.Way("strict", "cuda", benchmark=True)):
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.benchmark
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark) == before
