"""Metrics against hand-made cases, MONAI and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from mixsup_lib import evaluation
from mixsup_lib.files import DataError, SettingError


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape, dtype=float)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


@pytest.fixture(params=range(6))
def masks(request) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping noisy balls; some touch the border of the volume, some have a far false positive."""
    rng = np.random.default_rng(request.param)
    shape = (34, 30, 26)
    truth = ball(shape, rng.uniform(3, 25, 3), rng.uniform(4, 9))
    prediction = ball(shape, rng.uniform(3, 25, 3), rng.uniform(4, 9)) | (truth & (rng.random(shape) < 0.7))
    if request.param % 2:
        prediction[-1, -1, -1] = True
    return prediction, truth


def block(*ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((10, 10, 10), bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


CUBE = block((2, 6), (2, 6), (2, 6))


# Dice, sensitivity, specificity


def test_dice_of_equation_2_by_hand():
    half = block((2, 4), (2, 6), (2, 6))  # half of the cube: 2 * 32 / (32 + 64)
    assert evaluation.dice(half, CUBE) == pytest.approx(100 * 2 / 3)
    assert evaluation.dice(CUBE, CUBE) == 100.0
    assert evaluation.dice(block((7, 9), (7, 9), (7, 9)), CUBE) == 0.0


def test_an_empty_prediction_of_an_existing_tumour_scores_0():
    assert evaluation.dice(np.zeros_like(CUBE), CUBE) == 0.0


def test_a_patient_whose_ground_truth_is_empty_is_left_out_whatever_is_predicted():
    empty = np.zeros_like(CUBE)
    for prediction in (empty, CUBE):
        assert np.isnan(evaluation.dice(prediction, empty))
        assert np.isnan(evaluation.sensitivity(prediction, empty))
    assert np.nanmean([80.0, evaluation.dice(CUBE, empty), 60.0]) == 70.0


def test_sensitivity_and_specificity_by_hand():
    prediction = block((2, 4), (2, 6), (2, 6)) | block(
        (8, 9), (0, 1), (0, 4)
    )  # 32 of 64 hit, 4 false positives
    assert evaluation.sensitivity(prediction, CUBE) == pytest.approx(50.0)
    assert evaluation.specificity(prediction, CUBE) == pytest.approx(100 * (936 - 4) / 936)
    assert np.isnan(evaluation.specificity(CUBE, np.ones_like(CUBE)))


def test_dice_equals_monai(masks):
    torch, monai_metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    prediction, truth = masks
    tensors = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in masks]
    assert evaluation.dice(prediction, truth) == pytest.approx(
        100 * float(monai_metrics.compute_dice(*tensors)), abs=1e-4
    )
    empty = torch.zeros_like(tensors[1])
    assert np.isnan(
        float(monai_metrics.compute_dice(tensors[0], empty))
    )  # the same rule for an empty ground truth


def test_sensitivity_and_specificity_equal_monai(masks):
    torch, monai_metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    prediction, truth = masks
    tensors = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in masks]
    confusion = monai_metrics.get_confusion_matrix(*tensors)
    for name in ("sensitivity", "specificity"):
        theirs = 100 * float(monai_metrics.compute_confusion_matrix_metric(name, confusion))
        assert getattr(evaluation, name)(prediction, truth) == pytest.approx(theirs, abs=1e-4)


# Hausdorff


def test_hausdorff_of_a_shifted_cube_is_the_shift_in_mm_and_in_px():
    shifted = np.roll(CUBE, 2, axis=0)
    assert evaluation.hausdorff95(shifted, CUBE) == 2.0
    assert evaluation.hausdorff95(shifted, CUBE, (2.5, 1.0, 1.0)) == 5.0
    assert evaluation.hausdorff95(CUBE, CUBE) == 0.0


def test_hausdorff_is_symmetric(masks):
    prediction, truth = masks
    spacing = (1.0, 2.0, 3.5)
    assert evaluation.hausdorff95(prediction, truth, spacing) == evaluation.hausdorff95(
        truth, prediction, spacing
    )


def test_the_95th_percentile_forgives_one_stray_voxel_and_the_maximum_would_not():
    stray = CUBE.copy()
    stray[9, 9, 9] = True  # 1 of 57 surface voxels
    assert evaluation.hausdorff95(stray, CUBE) == 0.0


def test_hausdorff_is_nan_where_either_mask_is_empty():
    empty = np.zeros_like(CUBE)
    assert np.isnan(evaluation.hausdorff95(empty, CUBE))
    assert np.isnan(evaluation.hausdorff95(CUBE, empty))
    assert np.isnan(evaluation.hausdorff95(empty, empty))


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0, 1.0), (2.5, 2.5, 2.5), (0.9, 0.9, 5.0)])
def test_hausdorff_equals_monai(masks, spacing):
    torch, monai_metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    prediction, truth = masks
    tensors = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in masks]
    theirs = monai_metrics.compute_hausdorff_distance(
        *tensors, include_background=True, percentile=95, spacing=spacing
    )
    assert evaluation.hausdorff95(prediction, truth, spacing) == pytest.approx(float(theirs), abs=1e-4)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_hausdorff_refuses_an_impossible_spacing(spacing):
    with pytest.raises(SettingError, match="3 positive voxel sizes"):
        evaluation.hausdorff95(CUBE, CUBE, spacing)


# Slice-level AUC


def test_auc_by_hand():
    present = np.array([True, True, False, False])
    assert evaluation.slice_auc(np.array([0.9, 0.8, 0.2, 0.1]), present) == 1.0
    assert evaluation.slice_auc(np.array([0.1, 0.2, 0.8, 0.9]), present) == 0.0
    assert evaluation.slice_auc(np.array([0.9, 0.3, 0.5, 0.1]), present) == 0.75  # 3 of 4 pairs in order
    assert evaluation.slice_auc(np.array([0.5, 0.5, 0.5, 0.5]), present) == 0.5  # ties count half


def test_auc_equals_scikit_learn_and_the_rank_sum_with_ties():
    sklearn_metrics, stats = pytest.importorskip("sklearn.metrics"), pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    present = rng.random(155) < 0.45
    scores = np.round(rng.normal(present, 1.0), 1)  # many ties
    ours = evaluation.slice_auc(scores, present)
    assert ours == pytest.approx(sklearn_metrics.roc_auc_score(present, scores))
    u = stats.mannwhitneyu(scores[present], scores[~present]).statistic
    assert ours == pytest.approx(u / (present.sum() * (~present).sum()))


def test_auc_is_nan_with_one_kind_of_slice_only():
    assert np.isnan(evaluation.slice_auc(np.array([0.1, 0.9]), np.array([True, True])))
    assert np.isnan(evaluation.slice_auc(np.array([0.1, 0.9]), np.array([False, False])))


def test_auc_refuses_scores_that_are_not_finite():
    with pytest.raises(DataError, match="NaN or infinity"):
        evaluation.slice_auc(np.array([0.1, np.nan]), np.array([True, False]))


# Regions and the per-patient rows


def test_regions_are_the_unions_of_section_4_1():
    labels = np.array([0, 1, 2, 3])
    assert evaluation.region_mask(labels, "whole_tumor").tolist() == [False, True, True, True]
    assert evaluation.region_mask(labels, "tumor_core").tolist() == [False, True, False, True]
    assert evaluation.region_mask(labels, "enhancing_core").tolist() == [False, False, False, True]


def test_unmapped_brats_label_4_is_refused():
    with pytest.raises(DataError, match="from 0 to 4"):
        evaluation.region_mask(np.array([0, 1, 2, 4]), "whole_tumor")


def test_unknown_region_and_task_name_the_nearest():
    with pytest.raises(SettingError, match="Did you mean 'whole_tumor'"):
        evaluation.region_mask(np.zeros(3, int), "whole_tumour")
    with pytest.raises(SettingError, match="Did you mean 'multiclass'"):
        evaluation.task_regions("multi_class")


@pytest.fixture
def labelled() -> np.ndarray:
    """Oedema cube with a core in it: non-enhancing on two slices, enhancing on one of them."""
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[CUBE] = 2
    labels[3:5, 3:5, 3:5] = 1
    labels[3, 3, 3] = 3
    return labels


def test_a_multiclass_patient_gets_one_row_per_region(labelled):
    rows = evaluation.evaluate_patient(
        labelled, labelled, patient="a", task="multiclass", voxel_size_mm=(1, 1, 1)
    )
    assert [row["region"] for row in rows] == ["whole_tumor", "tumor_core", "enhancing_core"]
    assert [tuple(row) for row in rows] == [evaluation.PER_PATIENT_COLUMNS] * 3
    assert [row["dice"] for row in rows] == [100.0] * 3
    assert [row["truth_voxels"] for row in rows] == [64, 8, 1]
    assert {row["hausdorff_unit"] for row in rows} == {"mm"}
    assert all(np.isnan(row["slice_auc"]) for row in rows)


def test_a_binary_prediction_stands_for_its_task_region(labelled):
    prediction = (np.isin(labelled, (1, 3))).astype(np.uint8)  # a 0/1 mask of the tumour core
    (row,) = evaluation.evaluate_patient(
        prediction, labelled, patient="a", task="tumor_core", voxel_size_mm=None
    )
    assert (row["dice"], row["hausdorff95"], row["hausdorff_unit"], row["predicted_voxels"]) == (
        100.0,
        0.0,
        "px",
        8,
    )


def test_subclasses_that_are_confused_cost_their_regions_only(labelled):
    prediction = np.where(labelled == 3, 1, labelled)  # enhancing called non-enhancing
    rows = evaluation.evaluate_patient(
        prediction, labelled, patient="a", task="multiclass", voxel_size_mm=None
    )
    assert [row["dice"] for row in rows] == [100.0, 100.0, 0.0]


def test_slice_auc_of_a_region_takes_the_most_probable_of_its_subclasses(labelled):
    present = np.stack([(labelled == c).any(axis=(0, 1)) for c in (1, 2, 3)], axis=1)  # (Z, 3)
    scores = present.astype(float)
    rows = evaluation.evaluate_patient(
        labelled, labelled, patient="a", task="multiclass", voxel_size_mm=None, slice_scores=scores
    )
    assert [row["slice_auc"] for row in rows] == [1.0] * 3
    scores[:, 1] = 0  # an oedema branch that never fires: whole tumour suffers, the core does not
    rows = evaluation.evaluate_patient(
        labelled, labelled, patient="a", task="multiclass", voxel_size_mm=None, slice_scores=scores
    )
    assert [row["slice_auc"] for row in rows] == [0.75, 1.0, 1.0]


def test_wrong_shapes_are_named(labelled):
    with pytest.raises(DataError, match=r"\(10, 10, 9\).*\(10, 10, 10\)"):
        evaluation.evaluate_patient(
            labelled[..., :9], labelled, patient="a", task="whole_tumor", voxel_size_mm=None
        )
    with pytest.raises(DataError, match=r"patient a: slice scores have shape \(10, 1\).*\(10, 3\)"):
        evaluation.evaluate_patient(
            labelled,
            labelled,
            patient="a",
            task="multiclass",
            voxel_size_mm=None,
            slice_scores=np.zeros((10, 1)),
        )
