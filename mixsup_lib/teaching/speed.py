"""How long one training step takes, in what memory, and whether a faster way gives the same numbers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.paper import BATCH, SEGMENTATION_SHARE, TARGET_WEIGHTS
from mixsup_lib.training import autocast


@dataclass(frozen=True)
class Way:
    """One way to compute the same training step.

    device: "cpu" or "cuda"; precision: "float32", "tf32" (float32 whose products an NVIDIA GPU rounds to 10 bits) or
    "bfloat16" (autocast); benchmark: whether cuDNN tries its algorithms and keeps the fastest.
    """

    name: str
    device: str = "cpu"
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False
    benchmark: bool = False


CPU_WAYS = (
    Way("float32, plain layout", channels_last=False),
    Way("float32, channels_last"),
    Way("bfloat16, channels_last", precision="bfloat16"),
)
GPU_WAYS = (
    Way("strict float32, plain layout", "cuda", channels_last=False),
    Way("TF32, plain layout", "cuda", "tf32", channels_last=False),
    Way("TF32, channels_last", "cuda", "tf32"),
    Way("bfloat16, channels_last", "cuda", "bfloat16"),
    Way("bfloat16, channels_last, compiled", "cuda", "bfloat16", compile=True),
    Way("bfloat16, channels_last, compiled, cuDNN tries", "cuda", "bfloat16", compile=True, benchmark=True),
)


class Step:
    """A training step with mixed supervision on made-up images: calling it does one and returns the joint loss.

    `sizes`: width, depth, padding and input_shape of `MixedSupervisionUNet`; `batch`: (k, m, n). Weights and images are
    the same for all ways.
    """

    def __init__(self, way: Way, sizes: dict, *, batch: tuple[int, int, int] = BATCH["mixed"]) -> None:
        self.way, self.device, (k, m, n) = way, torch.device(way.device), batch
        torch.manual_seed(0)
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        network = MixedSupervisionUNet(in_channels=4, n_maps=2, n_branches=1, **sizes)
        self.network = network.to(self.device, memory_format=layout)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        images = torch.randn(k + m + n, 4, *network.input_shape)  # (B, C, H, W)
        output = [network.geometry.output_size(side) for side in network.input_shape]
        labels = torch.rand(k + m, *output) < 0.02  # (A, H', W')
        labels[k:] = False
        presence = torch.tensor([1] * k + [0] * m + [1] * n)[:, None]  # (B, 1)
        self.images = images.to(self.device, memory_format=layout)
        self.labels, self.presence = labels.long().to(self.device), presence.to(self.device)
        self.target_weights = torch.tensor(TARGET_WEIGHTS["binary"], device=self.device)
        self.forward = torch.compile(self.network, dynamic=False) if way.compile else self.network

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        with way_of_computing(self.way):
            loss = self.loss()
            loss.backward()
        self.optimizer.step()
        return loss.item()  # waits for the GPU

    def loss(self) -> torch.Tensor:
        """Joint loss of the batch (scalar)."""
        precision = "bfloat16" if self.way.precision == "bfloat16" else "float32"
        with autocast(precision, self.device):
            pixel_scores, image_scores = self.forward(self.images, n_annotated=len(self.labels))
        loss_s = segmentation_loss(pixel_scores, self.labels, self.target_weights)
        loss_c = classification_loss(image_scores, self.presence)
        return joint_loss(loss_s, loss_c, SEGMENTATION_SHARE["binary"])


def compare(ways: Sequence[Way], sizes: dict, *, rounds: int, batch: tuple[int, int, int] = BATCH["mixed"]):
    """One row per way: `ms` a step (median), `times faster` than the first way, `images/s`, `peak MB`, `loss`.

    The ways take turns, so that whatever else the machine does hits all of them alike. The first step of each, which
    allocates and compiles, is not counted. `loss` is that of the first step, from equal weights: equal up to rounding
    if the ways agree. `peak MB` is the GPU's memory that the way needs by itself, missing on a CPU.
    """
    peaks = [peak_mb(way.device, lambda way=way: Step(way, sizes, batch=batch), calls=2) for way in ways]
    steps = [Step(way, sizes, batch=batch) for way in ways]
    losses, seconds = [step() for step in steps], np.empty((rounds, len(steps)))
    for turn, number in np.ndindex(seconds.shape):
        started = time.perf_counter()
        steps[number]()
        seconds[turn, number] = time.perf_counter() - started
    table = pd.DataFrame({"way": [way.name for way in ways], "ms": 1000 * np.median(seconds, axis=0)})
    table["times faster"] = table["ms"].iloc[0] / table["ms"]
    table["images/s"] = 1000 * sum(batch) / table["ms"]
    return table.assign(**{"peak MB": peaks, "loss": losses})


def peak_mb(device: str, make_step: Callable[[], Callable[[], float]], *, calls: int) -> float:
    """Peak MB of a GPU's memory while a step is made and called, beyond what was in use before; NaN on a CPU."""
    if device != "cuda":
        return float("nan")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step = make_step()
    for _ in range(calls):
        step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def training_gflop(sizes: dict) -> tuple[float, float]:
    """GFLOP (2 per multiply-add) of the U-Net for one image, forward and forward plus backward; nothing is computed."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = MixedSupervisionUNet(in_channels=4, n_maps=2, n_branches=0, **sizes)
        image = torch.empty(1, 4, *network.input_shape)
    with FlopCounterMode(display=False) as counter:
        scores = network.pixel_scores(image)
        forward = counter.get_total_flops()
        scores.sum().backward()
    return forward / 1e9, counter.get_total_flops() / 1e9


@contextlib.contextmanager
def way_of_computing(way: Way):
    """Whether float32 products on a GPU may be rounded to TF32, and whether cuDNN tries its algorithms."""
    if way.device != "cuda":
        yield
        return
    products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    products.allow_tf32 = cudnn.allow_tf32 = way.precision == "tf32"
    cudnn.benchmark = way.benchmark
    try:
        yield
    finally:
        products.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
