"""Store + protocol -> training batches: k positive annotated, m negative and n positive weak images (section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixsup_lib.errors import DataError
from mixsup_lib.training_slices import TrainingSlices, joined_rows


@dataclass(frozen=True)
class Batch:
    """One training batch of B = k + m + n images; the first k + m are annotated.

    images: (B, C, H, W) float32; labels: (k + m, H, W) int64; presence: (B, R) int64; rows: (B,) rows in the store.
    Those of `feed` hold tensors on the device instead of arrays, all but the rows.
    """

    images: np.ndarray
    labels: np.ndarray
    presence: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Draw:
    """What makes a batch: `rows` (B,) in the store, and `mirrored` (B,) bool, which of them are mirrored left-right."""

    rows: np.ndarray
    mirrored: np.ndarray


class Pool:
    """Rows walked in random order without replacement, reshuffled when used up."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator) -> None:
        self.rows, self.rng = rows, rng
        self.order, self.position = rng.permutation(len(rows)), 0

    def draw(self, count: int) -> np.ndarray:
        """The next `count` rows."""
        drawn = []
        while count > 0:
            if self.position == len(self.order):
                self.order, self.position = self.rng.permutation(len(self.rows)), 0
            taken = self.order[self.position : self.position + count]
            self.position += len(taken)
            count -= len(taken)
            drawn.append(self.rows[taken])
        return joined_rows(drawn)


class BatchSampler:
    """Draws batches of k positive annotated, m negative and n positive weak images.

    For multiclass the k images are drawn from one list per subclass first, so that each subclass is present at least
    once among the annotated images of every batch, then from all positives (section 3.2).

    Raises:
        DataError: a pool that the batch needs is empty.
    """

    feed = "direct"
    """How batches reach the device; `mixsup_lib.feed` has faster ways with the same batches."""

    def __init__(
        self, data: TrainingSlices, *, k: int, m: int, n: int, flip_fraction: float, seed: int
    ) -> None:
        self.data, self.k, self.m, self.n = data, k, m, n
        self.n_flipped = round(flip_fraction * (k + m + n))
        self.rng = np.random.default_rng(seed)
        for name, pool, count in (("negative", data.negative, m), ("positive weak", data.weak, n)):
            if count and len(pool) == 0:
                raise DataError(
                    f"Batches need {count} {name} slices, but the split holds none; set their number to 0."
                )
        self.pools = [Pool(rows, self.rng) for rows in (*data.positive, data.negative, data.weak)]

    def _draw_rows(self) -> np.ndarray:
        *positive, negative, weak = self.pools
        counts = [1] * len(positive)
        counts[-1] = self.k - len(positive) + 1
        drawn = [pool.draw(count) for pool, count in zip(positive, counts, strict=True)]
        return joined_rows([*drawn, negative.draw(self.m), weak.draw(self.n)])

    def plan(self) -> Draw:
        """Choose the next batch without reading its images; 30 % of it is mirrored left-right."""
        rows = self._draw_rows()
        mirrored = np.zeros(len(rows), bool)
        mirrored[self.rng.permutation(len(rows))[: self.n_flipped]] = True
        return Draw(rows, mirrored)

    def draw(self) -> Batch:
        """The next batch; mirrored images are mirrored together with their labels."""
        plan = self.plan()
        images = np.asarray(self.data.images[plan.rows], np.float32)  # (B, C, H, W)
        annotated = plan.rows[: self.k + self.m]
        labels = self.data.labels_of(annotated).astype(np.int64)  # (k + m, H, W)
        images[plan.mirrored] = images[plan.mirrored, :, :, ::-1]
        both = plan.mirrored[: len(annotated)]
        labels[both] = labels[both, :, ::-1]
        return Batch(images, labels, self.data.presence[plan.rows].astype(np.int64), plan.rows)

    def snapshot(self) -> dict:
        """`state_dict` that shares its arrays with the sampler, which never changes one in place."""
        pools = [{"order": pool.order, "position": pool.position} for pool in self.pools]
        return {"rng": self.rng.bit_generator.state, "pools": pools}

    def state_dict(self) -> dict:
        """Everything the next batches depend on, as plain Python values."""
        return plain_values(self.snapshot())

    def load_state_dict(self, state: dict) -> None:
        """Continue exactly where `state_dict` was taken."""
        self.rng.bit_generator.state = state["rng"]
        for pool, saved in zip(self.pools, state["pools"], strict=True):
            pool.order, pool.position = np.array(saved["order"], np.int64), saved["position"]


def plain_values(snapshot: dict) -> dict:
    """A `BatchSampler.snapshot` with lists in place of arrays, as checkpoints hold it."""
    pools = [pool | {"order": pool["order"].tolist()} for pool in snapshot["pools"]]
    return snapshot | {"pools": pools}
