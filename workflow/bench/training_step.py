"""Row: a training step of the preset workshop, against the same network written plainly and MONAI's BasicUNet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from bench.sizes import Sizes
from bench.table import FASTER, Figure, compare
from bench.turns import Way, take_turns
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.sampling import Batch
from mixsup_lib.training import Trainer, bfloat16_pays, build_network, network_input, set_up

ROW = "training step"


class SameBatch:
    """A sampler that always draws the same made-up batch, so that the step alone is timed."""

    def __init__(self, config: RunConfig) -> None:
        rng, size = np.random.default_rng(0), config.k + config.m + config.n
        images = rng.normal(100, 30, (size, 4, *config.window)).astype(np.float32)  # (B, C, H, W)
        labels = (rng.random((config.k + config.m, *config.window)) < 0.02).astype(np.int64)  # (k + m, H, W)
        labels[config.k :] = 0
        presence = np.array([1] * config.k + [0] * config.m + [1] * config.n)[:, None]  # (B, 1)
        self.batch = Batch(images, labels, presence, np.arange(size))

    def draw(self) -> Batch:
        return self.batch


def ours(config: RunConfig) -> Callable[[], float]:
    """The step of `Trainer`, as a run does it; returns the loss."""
    device, precision = set_up(config)
    network = build_network(config, 4, config.window)
    _, frames = network_input(config, config.window)
    trainer = Trainer(network, SameBatch(config), config, frames, device, precision)
    network.train()
    return lambda: trainer.step()[1]


def plain(config: RunConfig) -> Callable[[], float]:
    """The same network, losses and weights as PyTorch is written without further thought: float32, NCHW, Adam."""
    torch.set_num_threads(config.threads)
    network = build_network(config, 4, config.window).to(memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    images, labels, presence = _tensors(config)

    def step() -> float:
        optimizer.zero_grad()
        pixel_scores, image_scores = network(images, n_annotated=len(labels))
        loss_s = segmentation_loss(pixel_scores, labels, config.target_weights)
        loss = joint_loss(loss_s, classification_loss(image_scores, presence), config.a)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def basic_unet(config: RunConfig) -> Callable[[], float]:
    """MONAI's U-Net of the same widths, with batch norm and ReLU. It has four poolings always, and no branch."""
    torch.set_num_threads(config.threads)
    network = monai_network(config).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    images, labels, _ = _tensors(config)

    def step() -> float:
        optimizer.zero_grad()
        loss = segmentation_loss(network(images)[: len(labels)], labels, config.target_weights)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def monai_network(config: RunConfig) -> torch.nn.Module:
    from monai.networks.nets import BasicUNet

    torch.manual_seed(config.seed)
    widths = [config.width * 2**level for level in range(5)]
    return BasicUNet(2, 4, config.n_maps, (*widths, config.width), act="relu", norm="batch")


def _tensors(config: RunConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch = SameBatch(config).draw()
    return tuple(map(torch.from_numpy, (batch.images, batch.labels, batch.presence)))


def measure(sizes: Sizes, *, apart: bool = True) -> Iterator[Figure]:
    for threads in sizes.threads:
        config = make_config(
            cohort="none", preset="workshop", threads=threads, device="cpu", progress=False, **sizes.preset
        )
        fast = bfloat16_pays(torch.device("cpu"))
        settings = {"config": config}
        ways = [
            Way("as the preset runs it", ours, settings, threads),
            Way("the same network, plain float32", plain, settings, threads),
            Way("MONAI BasicUNet (one pooling more, no branch)", basic_unet, settings, threads),
        ]
        if fast:
            float32 = config.model_copy(update={"precision": "float32"})
            ways.append(Way("float32, channels_last", ours, {"config": float32}, threads))
        turns = take_turns(ways, sizes.step_turns, apart=apart)
        row = f"{ROW}, {threads} thread{'s' * (threads > 1)}"
        for other in ways[1:3]:
            note = f"first loss {turns.first[ways[0].name]:.4f} and {turns.first[other.name]:.4f}"
            yield compare(
                turns,
                row,
                ways[0].name,
                other.name,
                FASTER,
                reach=3.0 if fast else 1.3,
                threads=threads,
                note=f"{'bfloat16' if fast else 'float32'}; {note}",
            )
        for way in ways[3:]:
            yield compare(
                turns, row, way.name, ways[1].name, FASTER, reach=1.3, threads=threads, note="float32"
            )
