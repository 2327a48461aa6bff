"""Training that diverges: it stops before a step with numbers that are not finite, and keeps the batches at fault."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mixsup_lib.files import write_bytes
from mixsup_lib.optim import DivergedError
from mixsup_lib.sampling import Batch

FILE_NAME = "diverged.npz"
"""Where a run that diverged leaves its batches."""
ADVICE = "lower the learning rate, or use precision float32. The last checkpoint is kept."


class TrainingDivergedError(DivergedError):
    """A loss or a gradient is not finite; nothing was changed by it.

    batches: those of the iteration that are at fault; losses: (len(batches), 3), joint, segmentation, classification.
    """

    def __init__(
        self, sentence: str, batches: Sequence[Batch] = (), losses: np.ndarray | None = None
    ) -> None:
        super().__init__(sentence)
        self.batches = batches
        self.losses = np.zeros((0, 3), np.float32) if losses is None else losses


def check_step(
    iteration: int, loss: float, norm: float, batches: Sequence[Batch], losses: Sequence[torch.Tensor]
) -> None:
    """TrainingDivergedError unless the mean loss of the iteration and the norm of its gradient are finite numbers.

    losses: per batch, (3,). Where the loss of a batch is not finite, only such batches are at fault, else all.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    name, found = ("loss", loss) if not math.isfinite(loss) else ("norm of the gradient", norm)
    table = torch.stack(list(losses)).cpu().numpy()  # (batches, 3)
    bad = ~np.isfinite(table).all(axis=1)
    bad = bad if bad.any() else ~bad
    raise TrainingDivergedError(
        f"The {name} became {found} at iteration {iteration}; expected a finite number: {ADVICE}",
        [batch for batch, at_fault in zip(batches, bad, strict=True) if at_fault],
        table[bad],
    )


def check_state(iteration: int, tensors: Iterable[torch.Tensor]) -> None:
    """TrainingDivergedError where a number of the network or of its optimiser is not finite."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise TrainingDivergedError(
            f"The network holds numbers that are not finite after iteration {iteration}, so its state is not saved: "
            f"{ADVICE}"
        )


def save_batches(path: Path, error: TrainingDivergedError, table: pd.DataFrame) -> TrainingDivergedError:
    """Write the batches of `error` as .npz; returns the error with a sentence that names them and the file.

    One row per image: `images` (N, C, H, W), `presence` (N, R), `batch`, `row` (of the store), `patient`, `z`, and
    `label` (N,), its position in `labels` (A, H, W), -1 where the image has none. One per batch: `losses` (batches, 3).
    """
    if not error.batches:
        return error
    sizes = [len(batch.rows) for batch in error.batches]
    annotated = np.concatenate([np.arange(len(b.rows)) < len(b.labels) for b in error.batches])
    rows = np.concatenate([batch.rows for batch in error.batches])
    shown = table.iloc[rows]
    content = {name: np.concatenate([_array(getattr(b, name)) for b in error.batches]) for name in _OF_BATCH}
    content |= {"batch": np.repeat(np.arange(len(sizes)), sizes), "row": rows, "losses": error.losses}
    content |= {"patient": shown["patient"].to_numpy(str), "z": shown["z"].to_numpy()}
    content["label"] = np.where(annotated, np.cumsum(annotated) - 1, -1)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    write_bytes(path, buffer.getbuffer())
    patients = ", ".join(dict.fromkeys(shown["patient"]))
    return TrainingDivergedError(f"{error} Its {len(rows)} images ({patients}) are in {path}.")


_OF_BATCH = ("images", "labels", "presence")


def _array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """Batches of `feed` hold tensors, on a GPU those of its memory."""
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values
