"""Configuration -> the network of a run and how slices fit into its input."""

from __future__ import annotations

import math

import torch

from mixsup_lib.config import RunConfig
from mixsup_lib.geometry import Frame, Geometry
from mixsup_lib.model import MixedSupervisionUNet


def network_input(
    config: RunConfig, slice_shape: tuple[int, int]
) -> tuple[tuple[int, int], tuple[Frame, Frame]]:
    """Training input size (H, W) of the network and the frames (rows, columns) that fit slices into it."""
    geometry = Geometry(config.depth, config.padding)
    step = 2**config.depth
    sizes = [config.input_size or math.ceil(size / step) * step for size in slice_shape]
    frames = [geometry.training_frame(size, whole) for size, whole in zip(slice_shape, sizes, strict=True)]
    return tuple(sizes), tuple(frames)


def build_network(config: RunConfig, in_channels: int, slice_shape: tuple[int, int]) -> MixedSupervisionUNet:
    """The network of a run with its initial weights, which depend on the seed alone.

    Standard and mixed supervision with one seed start from the same U-Net.
    """
    torch.manual_seed(config.seed)
    input_shape, _ = network_input(config, slice_shape)
    network = MixedSupervisionUNet(
        in_channels=in_channels,
        n_maps=config.n_maps,
        n_branches=config.n_branches,
        width=config.width,
        depth=config.depth,
        padding=config.padding,
        input_shape=input_shape,
        branch=config.branch,
        pooling=config.pooling,
    )
    return network.to(memory_format=torch.channels_last)
