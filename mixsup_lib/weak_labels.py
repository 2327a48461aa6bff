"""What if the weak patients' slice labels are wrong? Errors an annotator makes, and a control without information.

The paper takes the labels as they are; both disturbances are experiments on what they are worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ERRORS, ORDER = 1, 2
"""Streams of random numbers, beside each other and beside that of the batches."""


@dataclass(frozen=True)
class WeakLabels:
    """How the slice labels of the weak patients' training slices are disturbed; both leave everything else alone.

    Attributes:
        order: "shuffled" deals the labels out anew; None leaves them with their slices.
        noise: share of wrong labels, above 0 and at most 1; None: none.
        seed: of the run: one seed always disturbs the same slices.
    """

    order: str | None = None
    noise: float | None = None
    seed: int = 0

    def with_errors(self, presence: np.ndarray) -> np.ndarray:
        """Labels (N, R) with round(noise * N) entries of every column flipped, as if an annotator had erred.

        Made before slices are sorted into negative and positive ones: a tumour slice called negative becomes a negative
        image whose pixels are all called healthy, a healthy one called positive a positive weak image.
        """
        if self.noise is None:
            return presence
        rng = np.random.default_rng((self.seed, ERRORS))
        presence = presence.copy()
        for column in presence.T:
            wrong = rng.permutation(len(column))[: round(self.noise * len(column))]
            column[wrong] = 1 - column[wrong]
        return presence

    def as_targets(self, presence: np.ndarray) -> np.ndarray:
        """Labels (N, R) that the branches are trained on: the given ones, or their rows in a random but fixed order.

        Made after sorting: the slices of every batch and their pixel labels stay as they are. The branches see each
        label as often as before, on a slice that has nothing to do with it.
        """
        if self.order is None:
            return presence
        return np.random.default_rng((self.seed, ORDER)).permutation(presence)


AS_GIVEN = WeakLabels()
"""The paper's: labels as they are."""
