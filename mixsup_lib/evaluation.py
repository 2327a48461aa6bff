"""Trained network + test patients -> one row of metrics per patient and region, and example slices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from mixsup_lib.config import RunConfig
from mixsup_lib.frames import resample_in_plane
from mixsup_lib.metrics import evaluate_patient
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.protocol import Split
from mixsup_lib.segmentation import label_volume, score_slices
from mixsup_lib.store import SliceStore
from mixsup_lib.training_slices import task_labels


def evaluate(
    network: MixedSupervisionUNet,
    config: RunConfig,
    store: SliceStore,
    split: Split,
    device: torch.device,
    precision: str,
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Metrics of every test patient (one row per patient and region) and example slices of three of them.

    Dice is computed on the whole volume on the case's own grid. Examples are the best, median and worst of the
    patients who have the first region, each in the slice with most tumour.
    """
    rows, pictures = [], {}
    for patient in split.test:
        slices = store.images[store.rows(patient)]
        probabilities, presence = score_slices(network, slices, device=device, precision=precision)
        predicted = label_volume(probabilities, store.frame(patient))
        truth = store.cohort[patient].read_labels()
        target = task_labels(truth, config.task)
        rows += evaluate_patient(
            predicted,
            truth,
            patient=patient,
            task=config.task,
            voxel_size_mm=store.voxel_size_mm(patient),
            slice_scores=presence,
        )
        z = int((target > 0).sum(axis=(0, 1)).argmax())
        pictures[patient] = (z, _stored_slice(store, patient, z), target[:, :, z].T, predicted[:, :, z].T)
    frame = pd.DataFrame(rows)
    first = frame[frame["region"] == config.regions[0]].sort_values("dice")
    first = first["patient"][first["dice"].notna()].tolist() or list(split.test)
    chosen = dict.fromkeys([first[-1], first[len(first) // 2], first[0]])
    return frame, _examples({patient: pictures[patient] for patient in chosen}, store)


def _stored_slice(store: SliceStore, patient: str, z: int) -> np.ndarray:
    return np.asarray(store.images[store.rows(patient)][z, 0], np.float32)  # (H, W)


def _examples(pictures: dict, store: SliceStore) -> dict[str, np.ndarray]:
    """Arrays of examples.npz on the grid of the store, where all slices have one size."""

    def on_store_grid(patient: str, labels: np.ndarray) -> np.ndarray:
        return resample_in_plane(
            np.ascontiguousarray(labels[None, None]), store.frame(patient), nearest=True
        )[0, 0]

    return {
        "patient": np.array(list(pictures)),
        "z": np.array([z for z, *_ in pictures.values()]),
        "image": np.stack([image for _, image, *_ in pictures.values()]),
        "truth": np.stack([on_store_grid(p, truth) for p, (_, _, truth, _) in pictures.items()]),
        "prediction": np.stack([on_store_grid(p, labels) for p, (*_, labels) in pictures.items()]),
    }
