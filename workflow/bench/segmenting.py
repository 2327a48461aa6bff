"""Rows: segmenting a volume, against MONAI's sliding windows with the same network, weights and grid.

MONAI's windows cannot take the output of the paper's network, smaller than its input: that one is compared with tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tiles import in_tiles

from bench.scans import phantom
from bench.sizes import Sizes
from bench.table import EQUAL, FASTER, Figure, compare
from bench.turns import Way, take_turns
from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import label_volume, score_slices
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.slices import SliceFrame, patient_slices, scores_on_source_grid
from mixsup_lib.teaching.lessons import read_lessons
from mixsup_lib.training import bfloat16_pays, choose_precision

ROW = "segmenting a volume"
PAPER_ROW = "segmenting a slice, paper's network"
LESSONS = Path(__file__).resolve().parents[2] / "data/lessons"
WINDOWS_AT_ONCE = 16
RIM = 16


def scan(folder: Path) -> tuple[MixedSupervisionUNet, np.ndarray, SliceFrame]:
    """The trained network of the lessons (standard supervision), a patient's slices on its grid, and their frame."""
    arm = read_lessons(LESSONS).arms["standard"]
    case = find_cohort(folder).patients[0].read_images()
    slices, frame = patient_slices(case, arm.config.pixel_mm, arm.config.window)
    return arm.network, slices, frame


def ours(folder: Path, precision: str = "auto", threads: int = 1) -> Callable[[], np.ndarray]:
    """One pass per slice, in batches; returns the labels (X, Y, Z) uint8 on the scan's own grid."""
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    network, slices, frame = scan(folder)
    chosen = choose_precision(precision, device)
    return lambda: label_volume(score_slices(network, slices, device=device, precision=chosen)[0], frame)


def monai_windows(folder: Path, threads: int = 1) -> Callable[[], np.ndarray]:
    """`sliding_window_inference` with one window a slice, as the padded network was trained; then the same way back."""
    from monai.inferers import sliding_window_inference

    torch.set_num_threads(threads)
    network, slices, frame = scan(folder)
    network.to(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def once() -> np.ndarray:
        images = torch.from_numpy(slices.astype(np.float32))  # (Z, C, H, W)
        scores = sliding_window_inference(
            images, frame.window, WINDOWS_AT_ONCE, network.pixel_scores
        )  # (Z, K, H, W)
        probabilities = scores.softmax(dim=1).numpy()
        labels = scores_on_source_grid(probabilities, frame).argmax(axis=1)  # (Z, Y, X)
        return labels.astype(np.uint8).transpose(2, 1, 0)

    return once


def paper_network(width: int, tile: int, size: int) -> tuple[MixedSupervisionUNet, np.ndarray]:
    """The paper's network with weights as they are drawn, and a made-up slice (1, 4, size, size) float32."""
    torch.manual_seed(0)
    network = MixedSupervisionUNet(
        in_channels=4, n_maps=2, n_branches=0, width=width, depth=4, padding="valid", input_shape=(tile, tile)
    )
    slices = np.random.default_rng(0).normal(0, 1, (1, 4, size, size)).astype(np.float32)
    return network.to(memory_format=torch.channels_last), slices


def one_pass(width: int, tile: int, size: int, threads: int = 1) -> Callable[[], np.ndarray]:
    """The whole slice at once (an input of 444 for 240 pixels); returns class probabilities (1, K, size, size)."""
    torch.set_num_threads(threads)
    network, slices = paper_network(width, tile, size)
    return lambda: score_slices(network, slices, device=torch.device("cpu"))[0]


def tiles(width: int, tile: int, size: int, threads: int = 1) -> Callable[[], np.ndarray]:
    """The same from tiles of the training size; other probabilities only within `RIM` pixels of the slice's rim."""
    torch.set_num_threads(threads)
    network, slices = paper_network(width, tile, size)
    return lambda: in_tiles(network, slices, tile, torch.device("cpu"), "float32")


def _paper(sizes: Sizes, apart: bool) -> Figure:
    given = dict(zip(("width", "tile", "size"), sizes.paper, strict=True))
    ways = [
        Way(name, make, {**given, "threads": 2}, threads=2)
        for name, make in (("whole slice in one pass", one_pass), ("tiles of the training size", tiles))
    ]
    turns = take_turns(ways, min(sizes.turns, 3), apart=apart)
    one, other = (turns.first[way.name] for way in ways)
    inner = np.abs(one - other)[:, :, RIM:-RIM, RIM:-RIM]
    note = f"float32; probabilities differ by at most {inner.max():.1g}, {RIM} pixels inside the rim"
    return compare(turns, PAPER_ROW, ways[0].name, ways[1].name, FASTER, "s", reach=3.0, threads=2, note=note)


def measure(sizes: Sizes, folder: Path, *, apart: bool = True) -> Iterator[Figure]:
    cohort = phantom(folder / "fine", 1, sizes.fine_mm).folder
    fast = bfloat16_pays(torch.device("cpu"))
    auto = Way("whole slices, as the preset runs it", ours, {"folder": cohort})
    windows = Way("MONAI sliding_window_inference", monai_windows, {"folder": cohort})
    exact = Way("whole slices, float32", ours, {"folder": cohort, "precision": "float32"})
    ways = [auto, windows, *([exact] if fast else [])]
    turns = take_turns(ways, sizes.turns, apart=apart)
    for way in (auto, *ways[2:]):
        note = "bfloat16" if fast and way is auto else "float32"
        yield compare(turns, ROW, way.name, windows.name, FASTER, "s", reach=3.0, note=note)
    labels = turns.first[ways[-1].name if fast else auto.name]
    rounded = turns.first[auto.name] if fast else ours(cohort, "bfloat16")()
    yield _agreement("whole slices, float32", labels, windows.name, turns.first[windows.name], 100.0)
    yield _agreement("whole slices, bfloat16", rounded, "whole slices, float32", labels, 99.9)
    yield _paper(sizes, apart)


def _agreement(ours: str, labels: np.ndarray, against: str, others: np.ndarray, reach: float) -> Figure:
    return Figure(
        row=f"{ROW}, labels",
        ours=ours,
        against=against,
        figure=100 * float((labels == others).mean()),
        measure=EQUAL,
        reach=reach,
        note=f"{int((labels > 0).sum())} voxels of tumour, {int((labels != others).sum())} voxels differ",
    )
