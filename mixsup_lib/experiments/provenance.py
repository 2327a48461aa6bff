"""Where a result comes from: code, versions, machine, data and cost."""

from __future__ import annotations

import hashlib
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from mixsup_lib import __version__
from mixsup_lib.datasets.slice_labels import read_slice_labels
from mixsup_lib.protocol import Split
from mixsup_lib.slices import SliceStore


def provenance(
    store: SliceStore, split: Split, device: torch.device, precision: str, started: float, resumed: bool
) -> dict:
    """Where a result comes from: code, versions, machine, data and cost. `peak_memory_mb` is that of the process.

    With the settings in metrics.json it is enough to repeat the run (`rerun`).
    """
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    packages = ("torch", "numpy", "pandas", "nibabel", "scipy")
    return {
        "commit": commit(),
        "mixsup_lib": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": precision,
        "threads": torch.get_num_threads(),
        "data_fingerprint": store.fingerprint(),
        "labels_fingerprint": labels_fingerprint(store, split),
        "sequences": store.cohort.sequences,
        "intensity_range": store.cohort.patients[0].intensity_range,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(time.time() - started, 1),
        "resumed": resumed,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit),
    }


def labels_fingerprint(store: SliceStore, split: Split) -> str:
    """Digest of the labels that a run of this split may see: masks of the annotated and the test patients, and what
    slice_labels.csv says of the weak ones, whose masks have no part in it."""
    digest = hashlib.sha256()
    for patient in (*split.fully_annotated, *split.test):
        for file in store.cohort[patient].mask_files:
            digest.update(file.read_bytes())
    labels = read_slice_labels(store.cohort.folder)
    labels = read_slice_labels(store.labels_folder) if labels is None else labels
    if labels is not None:
        rows = labels[labels["patient"].isin(split.weak)].sort_values(list(labels.columns))
        digest.update(rows.to_csv(index=False).encode())
    return digest.hexdigest()[:16]


def commit() -> str | None:
    """The code's commit, "-dirty" behind it where it has uncommitted changes; None where git does not tell."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def cpu_model() -> str:
    """Name of the CPU, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
