"""How far a run is, as a file beside its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mixsup_lib.files import write_json


class RunProgress:
    """Keeps progress.json (iteration, of how many, loss) up to date, once every two seconds; then calls `also`."""

    def __init__(self, path: Path, iterations: int, also: Callable[[int, float], None] | None) -> None:
        self.path, self.iterations, self.also, self.written_at = path, iterations, also, 0.0

    def __call__(self, iteration: int, loss: float) -> None:
        if time.monotonic() - self.written_at > 2:
            write_json(self.path, {"iteration": iteration, "iterations": self.iterations, "loss": loss})
            self.written_at = time.monotonic()
        if self.also:
            self.also(iteration, loss)
