"""What each preset decides: tiny takes seconds, workshop minutes, paper is the paper's experiment on a GPU."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "pixel_mm": 5.0,
        "window": (48, 48),
        "padding": "same",
        "input_size": None,
        "width": 4,
        "depth": 2,
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "iterations": 40,
        "batches_per_iteration": 1,
        "batch_norm_batches": 10,
    },
    "workshop": {
        "pixel_mm": 2.5,
        "window": (80, 64),
        "padding": "same",
        "input_size": None,
        "width": 16,
        "depth": 3,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "iterations": 1500,
        "batches_per_iteration": 1,
        "batch_norm_batches": 100,
    },
    "paper": {
        "pixel_mm": None,
        "window": None,
        "padding": "valid",
        "input_size": 300,
        "width": 64,
        "depth": 4,
        "optimizer": "normalized_sgd",
        "learning_rate": 0.25,
        "schedule": "plateau",
        "iterations": 10_000,
        "batches_per_iteration": 10,
        "batch_norm_batches": 100,
    },
}
"""What a preset decides: the grid of the slices, the network's size and the optimiser.

Departure: the presets tiny and workshop use Adam with a cosine schedule and a padded U-Net on 5 or 2.5 mm pixels, so
that a run takes seconds or minutes on a CPU; the preset paper keeps the paper's.
"""
