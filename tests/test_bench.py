"""`make bench` at tiny size: the ways that are compared do the same, and the table holds what it says."""

from __future__ import annotations

from pathlib import Path

import bench
import numpy as np
import pandas as pd
import pytest
import torch

from mixsup_lib.config import make_config
from mixsup_lib.sampling import BatchSampler, select_training_slices

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def one_thread():
    yield
    torch.set_num_threads(1)


def test_every_row_is_measured_with_equal_labels_and_a_part_or_tiny_sizes_are_not_recorded(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    bench.main(["--tiny"])
    shown = capsys.readouterr().out
    for row in ("training step", "preparing", "segmenting", "batches served", "a branch", "start-up"):
        assert f"| {row}" in shown
    (labels,) = [line for line in shown.splitlines() if line.startswith("| segmenting a volume, labels")]
    assert [cell.strip() for cell in labels.split("|")][4:8:3] == ["100", "per cent equal"]
    assert list(tmp_path.iterdir()) == []


def test_all_networks_of_the_step_train_and_ours_is_the_plain_one():
    settings = {"cohort": "none", "preset": "workshop", "device": "cpu", "precision": "float32"}
    config = make_config(**settings, progress=False, **bench.TINY.preset)
    steps = [make() for make in bench.training_ways(config).values()]
    ours, plain, monai = ([step() for _ in range(8)] for step in steps[:3])
    assert ours[0] == pytest.approx(plain[0], rel=1e-5)
    assert ours[1] == pytest.approx(plain[1], rel=1e-3)  # Adam divides by the gradient and magnifies rounding
    assert monai[-1] < monai[0] and ours[-1] < ours[0]
    kernels = [p for p in bench.basic_unet(config).parameters() if p.ndim == 4]
    assert [len(kernel) for kernel in kernels[:6:2]] == [4, 8, 16]


@pytest.mark.parametrize("flip_fraction", [0.0, 1.0])
def test_monais_cache_serves_the_samplers_batches(store, split, flip_fraction):
    data = select_training_slices(store, split, "whole_tumor")
    settings = {"k": 4, "m": 2, "n": 4, "flip_fraction": flip_fraction, "seed": 0}
    drawn = [BatchSampler(data, **settings).draw()]
    (served,) = bench.monai_batches(data, [batch.rows for batch in drawn], flip_fraction, workers=0)
    assert np.array_equal(served["image"], drawn[0].images)
    assert np.array_equal(served["label"][:6, 0], drawn[0].labels) and drawn[0].labels.any()
    assert np.array_equal(served["presence"], drawn[0].presence)


def test_a_figure_is_the_median_ratio_of_the_turns():
    times = pd.DataFrame({"ours": [1.0, 2.0, 3.0], "other": [4.0, 8.0, 30.0]})
    row = bench.compared("row", times, "ours", "other", bench.FASTER, reach=3.0)
    assert (row["figure"], row["low"], row["high"], row["reached"]) == (4, 4, 7, "yes")
    assert (row["ours_value"], row["against_value"], row["unit"]) == (2000, 8000, "ms")
    row = bench.compared("row", times, "ours", "other", bench.COST, reach=0.2)
    assert row["figure"] == 0.25 and row["reached"] == "no"


def test_the_document_shows_the_recorded_tables():
    text = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    for path in (ROOT / "data/results").glob("bench-*.csv"):
        assert bench.to_text(pd.read_csv(path)) in text, f"{path.name}: run python workflow/record.py speed"
