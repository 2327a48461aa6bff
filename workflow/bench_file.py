"""Names and provenance of the tables that benchmarks write."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import torch

from mixsup_lib.experiments.provenance import commit, cpu_model


def device_name() -> str:
    """The GPU, or the CPU where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_model()


def slug(device: str) -> str:
    """A device's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", device).strip("-").lower()


def code_version() -> dict[str, str]:
    """Device, PyTorch, commit (empty without git) and time, for each row of a table."""
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "device": device_name(),
        "torch": torch.__version__,
        "commit": commit() or "",
        "finished": finished,
    }
