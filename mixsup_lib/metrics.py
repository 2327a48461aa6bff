"""Dice per patient in 3D, as the paper reports it, and the measures that stand beside it.

Masks are boolean or 0/1 arrays of any dimension (here (X, Y, Z)). Dice, sensitivity and specificity are
percentages, 0 to 100, as the paper prints them; NaN means "not defined for this patient", and such a patient
is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixsup_lib.errors import DataError, SettingError, nearest
from mixsup_lib.paper import CLASSES, REGIONS, TASKS

PER_PATIENT_COLUMNS = (
    "patient",
    "region",
    "dice",
    "sensitivity",
    "specificity",
    "hausdorff95",
    "hausdorff_unit",
    "truth_voxels",
    "predicted_voxels",
    "slice_auc",
)
"""Columns of a run's per_patient.csv: one row per test patient and region."""


def task_regions(task: str) -> tuple[str, ...]:
    """Regions in which `task` is scored: its own one, or for "multiclass" all three (section 4.2).

    Raises SettingError for an unknown task.
    """
    if task not in TASKS:
        raise SettingError(f"unknown task {task!r}; known are {', '.join(TASKS)}.{nearest(task, TASKS)}")
    return tuple(REGIONS) if task == "multiclass" else (task,)


def region_mask(labels: np.ndarray, region: str) -> np.ndarray:
    """Voxels of a label volume that belong to a region of the benchmark (section 4.1): booleans, same shape.

    `labels` holds the paper's classes 0 to 3. Raises DataError for any other value (BraTS files store
    enhancing core as 4 and must have been mapped), SettingError for an unknown region.
    """
    if region not in REGIONS:
        known = ", ".join(REGIONS)
        raise SettingError(f"unknown region {region!r}; known are {known}.{nearest(region, REGIONS)}")
    labels = np.asarray(labels)
    if labels.size and not (labels.min() >= 0 and labels.max() <= max(CLASSES)):
        raise DataError(
            f"label values run from {labels.min()} to {labels.max()}, expected the paper's classes 0 to "
            f"{max(CLASSES)}; map the cohort's own label values first."
        )
    return np.isin(labels, REGIONS[region])


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice score 2|P and T| / (|P| + |T|) of two masks of one shape, in percent (equation 2).

    NaN where the ground truth is empty: a patient without the region is left out of that region's mean, as in
    the authors' code, whatever was predicted. An empty prediction of a region that is there scores 0.
    """
    prediction, truth = _masks(prediction, truth)
    overlap = np.count_nonzero(prediction & truth)
    return _percent(2 * overlap, np.count_nonzero(prediction) + np.count_nonzero(truth), defined=truth.any())


def sensitivity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Share of the ground truth's voxels that are predicted, in percent; NaN if the ground truth is empty."""
    prediction, truth = _masks(prediction, truth)
    return _percent(np.count_nonzero(prediction & truth), np.count_nonzero(truth))


def specificity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Share of the voxels outside the ground truth that are not predicted, in percent; NaN if there are none.

    Counted over the whole volume, air included, it is close to 100 for any sensible mask: compare it, do not
    admire it.
    """
    prediction, truth = _masks(prediction, truth)
    return _percent(np.count_nonzero(~(prediction | truth)), np.count_nonzero(~truth))


def hausdorff95(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None) -> float:
    """95 % Hausdorff distance of two masks: the larger of the directed 95th percentiles of surface distance.

    `spacing` is the voxel size along each axis in mm, and the distance is then in mm; None gives voxel steps
    ("px"). A surface voxel has a face neighbour outside the mask, or outside the volume. NaN where either
    mask is empty. Same definition as MONAI's `compute_hausdorff_distance(percentile=95)`. Raises SettingError
    for an impossible spacing.
    """
    from scipy.spatial import KDTree

    prediction, truth = _masks(prediction, truth)
    spacing = (1.0,) * truth.ndim if spacing is None else tuple(float(size) for size in spacing)
    if len(spacing) != truth.ndim or not all(np.isfinite(size) and size > 0 for size in spacing):
        raise SettingError(
            f"spacing is {spacing}, expected {truth.ndim} positive voxel sizes in mm, or None."
        )
    if not (prediction.any() and truth.any()):
        return float("nan")
    predicted, true = (_surface(mask) * spacing for mask in (prediction, truth))  # (points, dimensions), mm
    to_truth, _ = KDTree(true).query(predicted)
    to_prediction, _ = KDTree(predicted).query(true)
    return float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))


def slice_auc(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the ROC curve of image-level scores (Z,) against presence (Z,) bool, from 0 to 1.

    It is the probability that a slice with the structure scores higher than one without, ties counting half
    (the rank-sum form); NaN where all slices are of one kind. Raises DataError for scores that are not
    finite.
    """
    scores, present = np.asarray(scores, dtype=float), np.asarray(present, dtype=bool)
    if scores.shape != present.shape or scores.ndim != 1:
        raise DataError(
            f"slice scores have shape {scores.shape} and labels {present.shape}, expected one per slice."
        )
    if not np.isfinite(scores).all():
        raise DataError(
            "image-level scores contain NaN or infinity; the training has diverged, lower its rate."
        )
    positive, negative = scores[present], np.sort(scores[~present])
    if not (positive.size and negative.size):
        return float("nan")
    below, not_above = (np.searchsorted(negative, positive, side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * negative.size))


def evaluate_patient(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    patient: str,
    task: str,
    voxel_size_mm: Sequence[float] | None,
    slice_scores: np.ndarray | None = None,
) -> list[dict[str, object]]:
    """Score one test patient on the whole volume: a row of per_patient.csv per region (section 4.2).

    `prediction` and `truth` are (X, Y, Z). `truth` holds the paper's classes; `prediction` too for
    "multiclass", while for a binary task every value but 0 stands for the task's region. `voxel_size_mm` None
    gives Hausdorff in "px". `slice_scores` (Z, R) are the branch's probabilities of presence: R = 1 for a
    binary task, one per subclass (order of `paper.CLASSES`) for multiclass, where a region scores as its most
    probable subclass; None (standard supervision) leaves slice_auc NaN. Raises DataError where shapes
    disagree, SettingError for an unknown task.
    """
    regions = task_regions(task)
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    n_branches = len(CLASSES) if task == "multiclass" else 1
    if slice_scores is not None and np.shape(slice_scores) != (truth.shape[-1], n_branches):
        found, expected = np.shape(slice_scores), (truth.shape[-1], n_branches)
        raise DataError(
            f"patient {patient}: slice scores have shape {found}, expected (slices, branches) {expected}."
        )
    rows = []
    for region in regions:
        true = region_mask(truth, region)
        predicted = region_mask(prediction, region) if task == "multiclass" else prediction != 0
        auc = float("nan")
        if slice_scores is not None:
            branches = [c - 1 for c in REGIONS[region]] if task == "multiclass" else [0]
            auc = slice_auc(
                np.asarray(slice_scores)[:, branches].max(axis=1), true.any(axis=(0, 1))
            )  # both (Z,)
        values = (
            patient,
            region,
            dice(predicted, true),
            sensitivity(predicted, true),
            specificity(predicted, true),
            hausdorff95(predicted, true, voxel_size_mm),
            "px" if voxel_size_mm is None else "mm",
            int(np.count_nonzero(true)),
            int(np.count_nonzero(predicted)),
            auc,
        )
        rows.append(dict(zip(PER_PATIENT_COLUMNS, values, strict=True)))
    return rows


def _masks(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks as booleans; DataError where their shapes differ."""
    prediction, truth = np.asarray(prediction) != 0, np.asarray(truth) != 0
    if prediction.shape != truth.shape:
        raise DataError(
            f"the prediction has shape {prediction.shape} and the ground truth {truth.shape}; "
            "score a prediction on the case's own grid."
        )
    return prediction, truth


def _percent(part: int, whole: int, *, defined: bool = True) -> float:
    return float(100.0 * part / whole) if defined and whole else float("nan")


def _surface(mask: np.ndarray) -> np.ndarray:
    """Indices (points, dimensions) of the surface voxels of a non-empty mask."""
    from scipy.ndimage import binary_erosion

    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))  # (number of occupied planes,)
        box.append(slice(occupied[0], occupied[-1] + 1))
    inside = mask[tuple(box)]
    return np.argwhere(inside & ~binary_erosion(inside)) + [
        side.start for side in box
    ]  # (points, dimensions)
