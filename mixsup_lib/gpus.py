"""Which run computes on which GPU: a run takes a free place, and CUDA shows it that GPU alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def gpu_places(environment: Mapping[str, str], count: int, per_gpu: int = 1) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each place for a run: `per_gpu` on each of the `count` GPUs that PyTorch sees.

    All GPUs get their first run before any gets a second. Where the environment restricts the GPUs already, their names
    there are kept.
    """
    restricted = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    names = restricted if restricted != [""] else [str(number) for number in range(count)]
    return names[:count] * per_gpu


@contextmanager
def take_place(places: Sequence[str], folder: str | Path, wait_seconds: float = 1.0) -> Iterator[str]:
    """Wait for a free one of the `places` and hold it; `folder` keeps a lock per place, which dies with its holder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for number, place in enumerate(places):
            lock = FileLock(folder / f"place-{number}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            try:
                yield place
            finally:
                lock.release()
            return
        time.sleep(wait_seconds)
