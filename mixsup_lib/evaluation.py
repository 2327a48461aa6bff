"""From a trained network to a segmented patient and its Dice: sections 4.2 and 4.3.

`segment` segments one patient, `evaluate` scores a fold's test patients. Masks are boolean or 0/1 arrays of any
dimension, here (X, Y, Z). Dice, sensitivity and specificity are percentages, 0 to 100, as the paper prints them. NaN
means "not defined for this patient", and such a patient is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mixsup_lib.cohort import Case
from mixsup_lib.datasets.nifti import from_lps
from mixsup_lib.files import DataError, SettingError, atomic_path, nearest
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.paper import CLASSES, REGIONS, TASKS
from mixsup_lib.sampling import task_labels
from mixsup_lib.slices import SliceFrame, SliceStore, patient_slices, resample_in_plane, scores_on_source_grid
from mixsup_lib.training import autocast
from mixsup_lib.unet import padded, without_batch_norms


def segment(
    network: MixedSupervisionUNet,
    case: Case,
    *,
    pixel_mm: float | None,
    window: tuple[int, int] | None,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> tuple[np.ndarray, np.ndarray | None]:
    """Segment one patient with a trained network (section 4.2).

    Args:
        network: trained on slices of `pixel_mm` and `window`, which are settings of its run.
        case: the patient; its sequences must be those the network was trained on.

    Returns:
        Labels (X, Y, Z) uint8 on the case's own grid: classes 0..K-1. The probability that a slice shows tumour (Z, R),
        for each branch, or None for a network without one.
    """
    slices, frame = patient_slices(case, pixel_mm, window)  # (Z, C, H, W)
    probabilities, presence = score_slices(network, slices, device=torch.device(device), precision=precision)
    return label_volume(probabilities, frame), presence


@torch.inference_mode()
def score_slices(
    network: MixedSupervisionUNet,
    slices: np.ndarray,
    *,
    device: torch.device,
    precision: str = "float32",
    batch: int = 16,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Scores of whole slices.

    The segmentation covers the whole slice in one pass (an input of 444 for a 240 slice and the paper's network);
    image-level scores come from a pass at the training size, which the branch's first layer fixes (300). Slices without
    a voxel of the head, one in seven of a BraTS scan, all have the same scores, which are computed once.

    Departure: the authors tested a window of 165x165 pixels and predicted background outside; this covers the slice.

    Args:
        slices: (Z, C, H, W).

    Returns:
        Class probabilities (Z, K, H, W) float32, and the probability of tumour (Z, R) of each branch or None.
    """
    network.eval()
    if precision == "float32":
        network = without_batch_norms(network)
    empty = ~slices.any(axis=(1, 2, 3))  # (Z,)
    computed = ~empty | (empty.cumsum() == 1)  # of the empty slices the first alone
    place = computed.cumsum() - 1  # (Z,), of every slice among the computed ones
    place[empty] = place[empty.argmax()]
    rows = np.flatnonzero(computed)
    probabilities, presence = [], []
    for start in range(0, len(rows), batch):
        part = np.asarray(slices[rows[start : start + batch]], np.float32)  # (B, C, H, W)
        with autocast(precision, device):
            scores, image_scores = _score(network, torch.from_numpy(part).to(device))
        probabilities.append(scores.softmax(dim=1).cpu().numpy())  # (B, K, H, W)
        if image_scores is not None:
            presence.append(image_scores.softmax(dim=2)[:, :, 1].cpu().numpy())  # (B, R, 2) -> (B, R)
    return np.concatenate(probabilities)[place], np.concatenate(presence)[place] if presence else None


def _score(network: MixedSupervisionUNet, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pixel scores (B, K, H, W), and image scores (B, R, 2) or None; one pass where both take the same input."""
    geometry, (height, width) = network.geometry, images.shape[2:]
    whole = [geometry.whole_slice_frame(size) for size in (height, width)]
    trained = None
    if network.branches:  # only their first layer fixes the size of the input
        pairs = zip((height, width), network.input_shape, strict=True)
        trained = [geometry.training_frame(*pair) for pair in pairs]
    if whole == trained:
        pixel_scores, image_scores = network(padded(images, whole))  # (B, K, H', W'), (B, R, 2)
    else:
        pixel_scores = network.pixel_scores(padded(images, whole))  # (B, K, H', W')
        image_scores = network.image_scores(padded(images, trained)) if trained else None  # (B, R, 2)
    top, left = (-frame.first for frame in whole)
    return pixel_scores[:, :, top : top + height, left : left + width], image_scores  # (B, K, H, W)


def label_volume(probabilities: np.ndarray, frame: SliceFrame) -> np.ndarray:
    """Class probabilities (Z, K, H, W) of stored slices -> label volume (X, Y, Z) uint8 on the case's own grid.

    Scores are brought to that grid first and the largest wins there, so that resampling does not coarsen the mask.
    A slice in which background wins everywhere stays background: every score is a mean of its neighbours'.
    """
    labels = np.zeros((len(probabilities), *frame.source), np.uint8)  # (Z, Y, X)
    shown = np.flatnonzero((probabilities[:, 1:] > probabilities[:, :1]).any(axis=(1, 2, 3)))
    for first in range(0, len(shown), 16):
        part = shown[first : first + 16]
        background, *classes = scores_on_source_grid(probabilities[part], frame).swapaxes(0, 1)  # K times (z, Y, X)
        largest, winner = background, np.zeros(background.shape, np.uint8)
        for label, scores in enumerate(classes, start=1):  # many times faster than argmax over so short an axis
            winner[scores > largest] = label
            largest = np.maximum(largest, scores)
        labels[part] = winner
    return labels.transpose(2, 1, 0)  # (Z, Y, X) -> (X, Y, Z)


def save_nifti(path: str | Path, volume: np.ndarray, case: Case) -> None:
    """Write a volume (X, Y, Z) of label values or probabilities with the geometry and axes of the case's own file.

    The header carries no text.
    """
    import nibabel as nib

    image = nib.Nifti1Image(from_lps(volume, case.source_affine), case.source_affine)
    image.header.set_xyzt_units("mm" if case.voxel_size_mm else "unknown")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


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
        raise SettingError(f"spacing is {spacing}, expected {truth.ndim} positive voxel sizes in mm, or None.")
    if not (prediction.any() and truth.any()):
        return float("nan")
    predicted, true = (_surface(mask) * spacing for mask in (prediction, truth))  # (points, dimensions), mm
    to_truth, _ = KDTree(true).query(predicted)
    to_prediction, _ = KDTree(predicted).query(true)
    return float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95)))


def slice_auc(scores: np.ndarray, present: np.ndarray) -> float:
    """Area under the ROC curve of image-level scores (Z,) against presence (Z,) bool, from 0 to 1.

    It is the probability that a slice with the structure scores higher than one without, ties counting half. NaN
    where all slices are of one kind. Raises DataError for scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise DataError("image-level scores contain NaN or infinity; the training has diverged, lower its rate.")
    if present.all() or not present.any():
        return float("nan")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(present, scores))


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
        raise DataError(f"patient {patient}: slice scores have shape {found}, expected (slices, branches) {expected}.")
    rows = []
    for region in regions:
        true = region_mask(truth, region)
        predicted = region_mask(prediction, region) if task == "multiclass" else prediction != 0
        auc = float("nan")
        if slice_scores is not None:
            branches = [c - 1 for c in REGIONS[region]] if task == "multiclass" else [0]
            of_region = np.asarray(slice_scores)[:, branches].max(axis=1)  # (Z, R) -> (Z,)
            auc = slice_auc(of_region, true.any(axis=(0, 1)))  # (X, Y, Z) -> (Z,)
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
    from scipy.ndimage import binary_erosion, find_objects

    (box,) = find_objects(mask.astype(np.uint8))  # the bounding box: to erode it alone is faster
    inside = mask[box]
    return np.argwhere(inside & ~binary_erosion(inside)) + [side.start for side in box]  # (points, dimensions)


def evaluate(
    network: MixedSupervisionUNet,
    store: SliceStore,
    patients: Iterable[str],
    task: str,
    *,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Metrics of test patients (one row per patient and region) and example slices of three of them.

    Dice is computed on the whole volume on the case's own grid (section 4.2). Examples are the best, median and worst
    of the patients who have the first region, each in the slice with most tumour: `image`, `truth` and `prediction`
    (3, H, W) on the store's grid, `patient` and `z` (3,).
    """
    rows, pictures = [], {}
    for patient in patients:
        slices = store.slices(patient)  # (Z, C, H, W)
        probabilities, presence = score_slices(network, slices, device=torch.device(device), precision=precision)
        predicted = label_volume(probabilities, store.frame(patient))  # (X, Y, Z)
        truth = store.cohort[patient].read_labels()
        rows += evaluate_patient(
            predicted,
            truth,
            patient=patient,
            task=task,
            voxel_size_mm=store.voxel_size_mm(patient),
            slice_scores=presence,
        )
        target = task_labels(truth, task)
        z = int((target > 0).sum(axis=(0, 1)).argmax())
        on_store_grid = [
            resample_in_plane(np.ascontiguousarray(labels[:, :, z].T[None, None]), store.frame(patient), nearest=True)[
                0, 0
            ]  # (X, Y) -> (H, W)
            for labels in (target, predicted)
        ]
        pictures[patient] = (z, np.asarray(slices[z, 0], np.float32), *on_store_grid)
    frame = pd.DataFrame(rows)
    first = frame[frame["region"] == task_regions(task)[0]].sort_values("dice")
    first = first["patient"][first["dice"].notna()].tolist() or list(pictures)
    chosen = dict.fromkeys([first[-1], first[len(first) // 2], first[0]])
    z, image, truth, prediction = zip(*[pictures[patient] for patient in chosen], strict=True)
    examples = {"patient": np.array(list(chosen)), "z": np.array(z), "image": np.stack(image)}
    return frame, examples | {"truth": np.stack(truth), "prediction": np.stack(prediction)}
