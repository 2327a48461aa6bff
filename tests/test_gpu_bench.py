"""The script for GPUs, at tiny size on the CPU: its rows, its training, its check of equal Dice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

import equal_dice  # noqa: E402
import gpu_bench  # noqa: E402
import gpu_measure  # noqa: E402
import gpu_rows  # noqa: E402
from made_up_slices import ANNOTATED, trainer_on, write_slices  # noqa: E402
from tiles import in_tiles, layout  # noqa: E402

from mixsup_lib.evaluation import score_slices  # noqa: E402
from mixsup_lib.files import SettingError  # noqa: E402
from mixsup_lib.model import MixedSupervisionUNet  # noqa: E402
from mixsup_lib.teaching import speed  # noqa: E402
from mixsup_lib.unet import Geometry  # noqa: E402

CPU = torch.device("cpu")
SHALLOW = {"width": 2, "depth": 1, "input_size": 100}


def test_every_row_is_gone_through_and_none_is_passed_off_as_measured(tmp_path, monkeypatch, capsys):
    """Steps of a network of depth 1 stand in for the paper's; the rest is the rehearsal as it is."""
    short = {"width": 2, "depth": 1, "padding": "valid", "input_shape": (100, 100)}
    monkeypatch.setattr(gpu_measure.Sizes, "network", property(lambda self: short))
    real = trainer_on
    monkeypatch.setattr(gpu_rows, "trainer_on", lambda *a, **s: real(*a, **s | SHALLOW))
    monkeypatch.setattr(gpu_rows, "MonaiStep", _missing)
    assert gpu_bench.main(["rows", "--rehearse", "--out", str(tmp_path), "--scratch", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "bench-gpu-unmeasured.csv")
    assert table["value"].isna().all() and set(table["note"]) == {gpu_bench.REHEARSED}
    shown = capsys.readouterr().out
    assert "unmeasured: ImportError: No module named 'monai'" in shown
    assert "slices to the GPU: resident:" in shown and "waiting for data" in shown
    ways = table.groupby("row")["way"].count()
    assert ways["training step"] == len(speed.GPU_WAYS) + 2 and ways["slices to the GPU"] == 5
    assert "nan images/s" not in shown.replace("nan images/s  (unmeasured: ImportError", "")
    recorded = pd.read_csv(ROOT / "data" / "results" / "bench-gpu-unmeasured.csv")
    names = ["part", "row", "way", "unit"]
    assert recorded[names].equals(table[names])
    assert recorded["value"].isna().all()


def _missing(way, sizes):
    raise ImportError("No module named 'monai'")


def test_a_part_measured_again_replaces_its_rows(tmp_path):
    sizes, table = gpu_measure.REHEARSAL, tmp_path / "t.csv"
    for parts in (["ceiling"], ["ceiling"]):
        frame = gpu_bench.measure_rows(parts, sizes, table)
    assert len(frame) == len(pd.read_csv(table)) == 3


def test_without_a_gpu_nothing_is_measured(tmp_path, capsys):
    assert gpu_bench.main(["rows", "--out", str(tmp_path)]) == SettingError.exit_code
    assert "PyTorch sees no GPU" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_monais_network_takes_the_same_step():
    pytest.importorskip("monai")
    sizes = gpu_measure.Sizes(device="cpu", width=1, input_size=32, batch=(1, 1, 0), batches=2)
    step = gpu_measure.MonaiStep(speed.CPU_WAYS[0], sizes)
    losses = [step() for _ in range(4)]
    assert losses[-1] < losses[0]


def test_feeds_that_differ_are_refused(tmp_path):
    data = write_slices(tmp_path / "s.npy", ANNOTATED + 1, slices=4, shape=(40, 40))
    one, other = (trainer_on(data, "cpu", "float32", seed=seed, **SHALLOW) for seed in (0, 1))
    with pytest.raises(SystemExit, match="differ in their images"):
        gpu_rows._refuse_difference({"one": one, "other": other})


def test_made_up_slices_are_three_pools_of_different_patients(tmp_path):
    data = write_slices(tmp_path / "s.npy", ANNOTATED + 2, slices=8, shape=(20, 20))
    assert [len(rows) for rows in (*data.positive, data.negative, data.weak)] == [20, 28, 8]
    assert len(data.label_maps) == 20 and data.label_maps.any(axis=(1, 2)).all()
    assert not np.array_equal(data.images[2], data.images[10])
    bright = np.asarray(data.images[data.positive[0]], np.float32)[:, 0]
    inside = data.labels_of(data.positive[0]) == 1
    assert bright[inside].mean() > bright[~inside].mean() + 30


def test_of_the_papers_tiles_64_pixels_are_used_and_16_cover_a_slice():
    before, first, stride, count = layout(Geometry(4, "valid"), 300, 240)
    assert (stride, count) == (64, 4)
    assert first >= 15 and first + stride <= 101 - 15 and before == 107 + first


def test_tiles_give_the_numbers_of_the_whole_pass_away_from_the_rim_of_the_slice():
    torch.manual_seed(0)
    network = MixedSupervisionUNet(
        in_channels=4, n_maps=2, n_branches=0, width=2, depth=2, padding="valid", input_shape=(92, 92)
    )
    slices = np.random.default_rng(0).normal(100, 30, (2, 4, 90, 70)).astype(np.float32)
    whole, _ = score_slices(network, slices, device=CPU)
    tiled = in_tiles(network, slices, 92, CPU, "float32")
    assert tiled.shape == whole.shape
    inner = np.s_[:, :, 6:-6, 6:-6]
    assert np.allclose(tiled[inner], whole[inner], atol=1e-5)
    shifted = np.roll(tiled, 1, axis=3)
    assert not np.allclose(shifted[inner], whole[inner], atol=1e-2)  # or the comparison could not fail


@pytest.fixture
def paper_settings(phantom, tmp_path):
    small = {"window": "[48,48]", "pixel_mm": 5, "padding": "same", "input_size": 48, "width": 2, "depth": 1}
    short = {"n_fa": 3, "iterations": 3, "batches_per_iteration": 1, "batch_norm_batches": 1}
    more = {"out": tmp_path / "runs", "stores": tmp_path / "stores", "progress": "false"}
    return [f"{name}={value}" for name, value in (small | short | more).items()]


def test_training_stops_in_time_goes_on_and_leaves_a_comparison(phantom, paper_settings, tmp_path, capsys):
    def call(minutes):
        return [
            "train",
            str(phantom),
            "--folds",
            "1",
            "--minutes",
            minutes,
            "--out",
            str(tmp_path),
            "--set",
            *paper_settings,
        ]

    assert gpu_bench.main(call("0")) == 0
    assert "0 of 2 runs are finished; the same command goes on." in capsys.readouterr().out
    assert len(list((tmp_path / "runs").rglob("checkpoint.pt"))) == 1
    assert gpu_bench.main(call("9")) == 0
    (table,) = tmp_path.glob("train-phantom-*.csv")
    frame = pd.read_csv(table)
    assert set(frame["supervision"]) == {"standard", "mixed"} and frame["dice"].notna().any()
    (first,) = (tmp_path / "runs").rglob("standard/seed0-*/provenance.json")
    assert '"resumed": true' in first.read_text()
    assert "difference" in capsys.readouterr().out


def test_ways_are_trained_once_and_compared_over_seeds(phantom, tmp_path, capsys):
    call = [
        "correctness",
        str(phantom),
        "--seeds",
        "2",
        "--out",
        str(tmp_path),
        "--set",
        "n_fa=3",
        "iterations=4",
    ]
    call += ["batch_norm_batches=2", f"stores={tmp_path / 'stores'}"]
    assert gpu_bench.main(call) == 0
    (table,) = tmp_path.glob("equal-dice-*.csv")
    frame = pd.read_csv(table)
    assert len(frame) == 6 and frame["dice"].notna().all()
    before = table.stat().st_mtime_ns
    assert gpu_bench.main(call) == 0 and table.stat().st_mtime_ns == before
    assert gpu_bench.main([*call, "a=0.5"]) == SettingError.exit_code
    assert "holds runs of other settings" in capsys.readouterr().err


def test_differences_are_paired_over_the_seeds_that_all_ways_have():
    rows = [("first", 0, 50.0), ("first", 1, 60.0), ("fast", 0, 51.0), ("fast", 1, 60.5), ("first", 2, 99.0)]
    table = equal_dice.paired_over_seeds(pd.DataFrame(rows, columns=["way", "seed", "dice"])).set_index("way")
    assert table.loc["first", ["seeds", "dice"]].tolist() == [2, 55]
    fast = table.loc["fast"]
    assert fast["difference"] == pytest.approx(0.75) and fast["largest"] == 1 and fast["within"]
    assert fast["high"] - 0.75 == pytest.approx(12.706 * np.std([1, 0.5], ddof=1) / np.sqrt(2), rel=1e-3)
    worse = equal_dice.paired_over_seeds(
        pd.DataFrame([*rows[:2], ("slow", 0, 40.0), ("slow", 1, 48.0)], columns=["way", "seed", "dice"])
    )
    assert worse["within"].tolist()[1] is False


def test_the_script_loads_nothing_that_a_bare_gpu_machine_lacks():
    code = "import sys; sys.path.insert(0, 'workflow'); import gpu_bench; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded & {"monai", "nilearn", "matplotlib", "IPython", "papermill", "skimage", "PIL"} == set()
