"""What the rows of `gpu_bench.py` share: sizes, a line of the table, MONAI's step, and timing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from made_up_slices import ANNOTATED

from mixsup_lib.losses import segmentation_loss
from mixsup_lib.teaching import speed
from mixsup_lib.training import autocast


@dataclass(frozen=True)
class Sizes:
    """How large everything is; the defaults are the real sizes, `REHEARSAL` is for a CPU.

    batch: (k, m, n); large_batch: the same for "batch of 64"; batches: of an optimiser step; slice_shape, slices: of a
    volume to segment; patients, training_slices: of the slices on the GPU.
    """

    device: str = "cuda"
    width: int = 64
    input_size: int = 300
    batch: tuple[int, int, int] = (4, 2, 4)
    large_batch: tuple[int, int, int] = (26, 12, 26)
    batches: int = 10
    rounds: int = 8
    matrix: int = 8192
    slice_shape: tuple[int, int] = (240, 240)
    slices: int = 155
    patients: int = 285
    training_slices: int = 116
    tile: int = 300
    learning_steps: int = 300
    scratch: Path | None = None

    @property
    def network(self) -> dict:
        shape = (self.input_size, self.input_size)
        return {"width": self.width, "depth": 4, "padding": "valid", "input_shape": shape}

    def ways(self) -> list[speed.Way]:
        """The ways of a GPU; in a rehearsal they run on the CPU in float32, without the compiler's minutes."""
        if self.device == "cuda":
            return list(speed.GPU_WAYS)
        return [replace(way, device="cpu", compile=False, precision="float32") for way in speed.GPU_WAYS]


REHEARSAL = Sizes(
    device="cpu",
    width=2,
    input_size=220,
    batch=(2, 1, 1),
    large_batch=(3, 1, 2),
    batches=2,
    rounds=1,
    matrix=64,
    slice_shape=(80, 80),
    slices=2,
    patients=ANNOTATED + 2,
    training_slices=4,
    learning_steps=3,
)


def row(
    name: str,
    way: str,
    value: float,
    unit: str,
    *,
    against: str = "",
    ratio: float = math.nan,
    note: str = "",
) -> dict:
    """One line of the table; `ratio`: how many times better than `against` in the same run. NaN: unmeasured."""
    return {
        "row": name,
        "way": way,
        "value": value,
        "unit": unit,
        "ratio": ratio,
        "against": against,
        "note": note,
    }


def unmeasured(name: str, way: str, unit: str, reason: object) -> dict:
    """A row without value, with the reason."""
    first = (str(reason).strip().splitlines() or [""])[0][:160]
    named = f"{type(reason).__name__}: {first}" if isinstance(reason, Exception) else first
    return row(name, way, math.nan, unit, note=f"unmeasured: {named}")


class MonaiStep:
    """The same step with MONAI's BasicUNet: widths, batch norm, ReLU and batch as in the paper's network, no branch.

    Its convolutions are padded, so it computes all H x W output pixels where the paper's network computes 101x101 of
    300x300. Raises ImportError where MONAI is not installed.
    """

    def __init__(self, way: speed.Way, sizes: Sizes) -> None:
        from monai.networks.nets import BasicUNet

        self.way, self.batches, self.device = way, sizes.batches, torch.device(way.device)
        torch.manual_seed(0)
        widths = [sizes.width * 2**level for level in range(5)]
        network = BasicUNet(2, 4, 2, (*widths, sizes.width), act="relu", norm="batch")
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        self.network = network.to(self.device, memory_format=layout)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        k, m, n = sizes.batch
        shape = (sizes.input_size, sizes.input_size)
        images = torch.randn(k + m + n, 4, *shape)  # (B, 4, H, W)
        labels = torch.rand(k + m, *shape) < 0.02  # (A, H, W)
        self.images = images.to(self.device, memory_format=layout)
        self.labels = labels.long().to(self.device)
        self.target_weights = torch.tensor((0.7, 0.3), device=self.device)
        self.forward = torch.compile(self.network, dynamic=False) if way.compile else self.network

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        precision = "bfloat16" if self.way.precision == "bfloat16" else "float32"
        with speed.way_of_computing(self.way):
            for _ in range(self.batches):
                with autocast(precision, self.device):
                    scores = self.forward(self.images)  # (B, 2, H, W)
                loss = segmentation_loss(scores[: len(self.labels)], self.labels, self.target_weights)
                loss.backward()
        self.optimizer.step()
        return loss.item()


def median_seconds(work: Callable[[], object], device: str, repeats: int) -> float:
    """Median seconds of `work`, which is done once before."""
    taken = []
    for _ in range(repeats + 1):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:]))


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
