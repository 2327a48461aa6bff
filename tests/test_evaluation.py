"""Whole-slice segmentation, label volumes, and metrics against hand-made cases, MONAI and scikit-learn."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from mixsup_lib import evaluation
from mixsup_lib.cohort import Case
from mixsup_lib.datasets.nifti import to_lps
from mixsup_lib.evaluation import label_volume, save_nifti, score_slices
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.slices import SliceFrame, scores_on_source_grid

CPU = torch.device("cpu")


def network(**changes) -> MixedSupervisionUNet:
    torch.manual_seed(0)
    settings = {"in_channels": 2, "n_maps": 2, "n_branches": 1, "width": 4, "depth": 4, "padding": "valid"}
    made = MixedSupervisionUNet(**{**settings, "input_shape": (300, 300), **changes})
    return made.eval()


SMALL = {"padding": "same", "depth": 2, "input_shape": (48, 40)}


@pytest.mark.claim(
    "F-07", "One pass over the whole slice equals tiles of 300 on their inner 71x71", ours="equal to rounding"
)
def test_one_pass_of_444_equals_tiles_of_300_on_the_inner_71x71():
    """Tiles at offsets that are multiples of 16 equal the whole-slice pass 15 or more pixels inside their border."""
    net = network().double()
    for parameter in net.unet.parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(0.1, 1)  # no path of the network is dead
    image = torch.rand(1, 2, 444, 444, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 200
    with torch.inference_mode():
        whole = net.pixel_scores(image)
        for top, left in ((0, 0), (48, 96), (16, 112)):
            tile = net.pixel_scores(image[:, :, top : top + 300, left : left + 300])
            assert whole.shape[2:] == (245, 245) and tile.shape[2:] == (101, 101)
            inner = (..., slice(15, 86), slice(15, 86))
            same_place = whole[:, :, top : top + 101, left : left + 101]
            assert tile[inner].shape[2:] == (71, 71)
            assert (tile[inner] - same_place[inner]).abs().max() < 1e-4
            assert (tile - same_place).abs().max() > 1e-3  # upsampling clamps at the border


def test_every_pixel_of_a_240_slice_is_scored_and_image_scores_come_from_the_training_size():
    net = network()
    slices = np.random.default_rng(0).random((1, 2, 240, 240)).astype(np.float32)
    probabilities, presence = score_slices(net, slices, device=CPU)
    assert probabilities.shape == (1, 2, 240, 240) and presence.shape == (1, 1)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    padded = torch.nn.functional.pad(torch.from_numpy(slices), (38, 22, 38, 22))
    with torch.inference_mode():
        expected = net.image_scores(padded).softmax(dim=2)[:, :, 1]
    assert np.allclose(presence, expected, atol=1e-6)


@pytest.mark.parametrize("shown", [[1, 1, 1], [0, 0, 0], [0, 0, 1, 1, 0]])
def test_slices_without_a_head_are_computed_once_and_batches_change_no_score(shown, monkeypatch):
    net = network(**SMALL)
    slices = np.random.default_rng(0).random((len(shown), 2, 48, 40)).astype(np.float16)
    slices[~np.array(shown, bool)] = 0
    each = [score_slices(net, one[None], device=CPU) for one in slices]
    computed, forward = [], net.forward
    monkeypatch.setattr(net, "forward", lambda x: computed.extend(x) or forward(x))
    probabilities, presence = score_slices(net, slices, device=CPU, batch=2)
    assert len(computed) == sum(shown) + (0 in shown)
    assert np.allclose(probabilities, np.concatenate([one[0] for one in each]), atol=1e-5)
    assert np.allclose(presence, np.concatenate([one[1] for one in each]), atol=1e-5)


def test_a_padded_network_gives_both_kinds_of_scores_in_one_pass(monkeypatch):
    net = network(padding="same", depth=2, input_shape=(48, 40))
    slices = np.random.default_rng(0).random((3, 2, 46, 40)).astype(np.float32)
    padded = torch.nn.functional.pad(torch.from_numpy(slices), (0, 0, 1, 1))
    with torch.inference_mode():
        pixels, image = net.pixel_scores(padded).softmax(1), net.image_scores(padded).softmax(2)[:, :, 1]
    passes, forward = [], net.unet.forward
    monkeypatch.setattr(net.unet, "forward", lambda x: passes.append(1) or forward(x))
    probabilities, presence = score_slices(net, slices, device=CPU)
    assert len(passes) == 1
    assert np.allclose(probabilities, pixels[:, :, 1:47], atol=1e-6) and np.allclose(presence, image, atol=1e-6)


def test_scores_are_resampled_before_argmax():
    """A boundary between stored pixels lands where the interpolated scores cross, not on a coarse pixel's edge."""
    frame = SliceFrame((8, 16), (4, 4), (0, 0), (4, 4))
    tumour = np.zeros((1, 4, 4), np.float32)
    tumour[:, :, 2:] = 0.9
    tumour[:, :, 1] = 0.4
    labels = label_volume(np.stack([1 - tumour, tumour], axis=1), frame)
    assert labels.shape == (16, 8, 1)
    assert int(labels[:, 0, 0].argmax()) == 7  # coarse argmax would start at column 8


def test_skipping_slices_of_background_changes_no_label():
    """Scores that are nearly equal, so that rounding would show; half of the slices are background everywhere."""
    scores = (0.5 + 1e-6 * np.random.default_rng(0).random((24, 4, 20, 16))).astype(np.float32)
    scores[::2, 0] = scores[::2].max(axis=1)
    frame = SliceFrame((60, 60), (24, 24), (2, 4), (20, 16))
    labels = label_volume(scores, frame)
    assert np.array_equal(labels.transpose(2, 1, 0), scores_on_source_grid(scores, frame).argmax(axis=1))
    assert labels[:, :, 1::2].any() and not labels[:, :, ::2].any()


def make_case(source_affine: np.ndarray) -> Case:
    """A case whose file has the given affine and 4x5x6 voxels."""
    images, affine = to_lps(np.zeros((4, 5, 6), np.float32), source_affine)
    return Case("p", ("FLAIR",), images[None], None, affine, (2.0, 2.0, 2.0), source_affine)


@pytest.mark.parametrize("flips", [(-1, -1, 1), (1, -1, -1)])
def test_nifti_lands_on_the_same_place_in_the_world(tmp_path, flips):
    source = np.diag([2.0 * f for f in flips] + [1.0])
    source[:3, 3] = (10, 20, -30)
    case = make_case(source)
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 3, 2] = 3
    save_nifti(tmp_path / "mask.nii.gz", labels, case)
    image = nib.load(tmp_path / "mask.nii.gz")
    assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(case.source_affine)
    (found,) = np.argwhere(np.asarray(image.dataobj) == 3)
    there = nib.affines.apply_affine(image.affine, found)
    assert np.allclose(there, nib.affines.apply_affine(case.affine, (1, 3, 2)))


# Metrics


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape, dtype=float)
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2


@pytest.fixture(params=range(3))
def masks(request) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping noisy balls; some touch the border of the volume, one has a far false positive."""
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


@pytest.mark.claim(
    "C4.2-12",
    "Equation (2): DSC = 2 &#124;P and T&#124; / (&#124;P&#124; + &#124;T&#124;)",
    ours="per patient, over the whole volume",
)
def test_dice_of_equation_2_by_hand():
    half = block((2, 4), (2, 6), (2, 6))  # half of the cube: 2 * 32 / (32 + 64)
    assert evaluation.dice(half, CUBE) == pytest.approx(100 * 2 / 3)
    assert evaluation.dice(CUBE, CUBE) == 100.0
    assert evaluation.dice(block((7, 9), (7, 9), (7, 9)), CUBE) == 0.0
    assert evaluation.dice(np.zeros_like(CUBE), CUBE) == 0.0


@pytest.mark.claim(
    "F-21",
    "A patient whose truth lacks the region is left out of that region's mean",
    ours="Dice is NaN, left out of mean and median",
)
def test_a_patient_whose_ground_truth_is_empty_is_left_out_whatever_is_predicted():
    empty = np.zeros_like(CUBE)
    for prediction in (empty, CUBE):
        assert np.isnan(evaluation.dice(prediction, empty))
        assert np.isnan(evaluation.sensitivity(prediction, empty))
    assert np.nanmean([80.0, evaluation.dice(CUBE, empty), 60.0]) == 70.0


def test_sensitivity_and_specificity_by_hand():
    prediction = block((2, 4), (2, 6), (2, 6)) | block((8, 9), (0, 1), (0, 4))  # 32 of 64 hit, 4 false positives
    assert evaluation.sensitivity(prediction, CUBE) == pytest.approx(50.0)
    assert evaluation.specificity(prediction, CUBE) == pytest.approx(100 * (936 - 4) / 936)
    assert np.isnan(evaluation.specificity(CUBE, np.ones_like(CUBE)))


@pytest.mark.claim("C4.2-12")
def test_dice_sensitivity_specificity_and_hausdorff_equal_monai(masks):
    monai = pytest.importorskip("monai.metrics")
    prediction, truth = masks
    tensors = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in masks]
    theirs = {"dice": 100 * float(monai.compute_dice(*tensors))}
    confusion = monai.get_confusion_matrix(*tensors)
    for name in ("sensitivity", "specificity"):
        theirs[name] = 100 * float(monai.compute_confusion_matrix_metric(name, confusion))
    for name, value in theirs.items():
        assert getattr(evaluation, name)(prediction, truth) == pytest.approx(value, abs=1e-4)
    for spacing in (None, (2.5, 2.5, 2.5), (0.9, 0.9, 5.0)):
        distance = monai.compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing)
        found = evaluation.hausdorff95(prediction, truth, spacing)
        assert found == evaluation.hausdorff95(truth, prediction, spacing) == pytest.approx(float(distance), abs=1e-4)
    assert np.isnan(float(monai.compute_dice(tensors[0], 0 * tensors[1])))  # the same rule for an empty truth


def test_hausdorff_by_hand():
    shifted, stray, empty = np.roll(CUBE, 2, axis=0), CUBE.copy(), np.zeros_like(CUBE)
    assert evaluation.hausdorff95(shifted, CUBE) == 2.0
    assert evaluation.hausdorff95(shifted, CUBE, (2.5, 1.0, 1.0)) == 5.0
    stray[9, 9, 9] = True  # 1 of 57 surface voxels: the 95th percentile forgives it, the maximum would not
    assert evaluation.hausdorff95(stray, CUBE) == evaluation.hausdorff95(CUBE, CUBE) == 0.0
    for pair in ((empty, CUBE), (CUBE, empty), (empty, empty)):
        assert np.isnan(evaluation.hausdorff95(*pair))
    for spacing in ((1.0, 1.0), (1.0, 1.0, 0.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(SettingError, match="3 positive voxel sizes"):
            evaluation.hausdorff95(CUBE, CUBE, spacing)


def test_auc_by_hand():
    present = np.array([True, True, False, False])
    for scores, auc in (
        ([0.9, 0.8, 0.2, 0.1], 1.0),
        ([0.9, 0.3, 0.5, 0.1], 0.75),  # 3 of 4 pairs in order
        ([0.5, 0.5, 0.5, 0.5], 0.5),  # ties count half
    ):
        assert evaluation.slice_auc(np.array(scores), present) == auc
    for one_kind in (True, False):
        assert np.isnan(evaluation.slice_auc(np.array([0.1, 0.9]), np.array([one_kind] * 2)))
    with pytest.raises(DataError, match="NaN or infinity"):
        evaluation.slice_auc(np.array([0.1, np.nan]), np.array([True, False]))


# Regions and the per-patient rows


@pytest.mark.claim("C4.1-08", "Regions: whole tumour (all), tumour core (1 and 3), enhancing core (3)", ours="the same")
def test_regions_are_the_unions_of_section_4_1():
    labels = np.array([0, 1, 2, 3])
    assert evaluation.region_mask(labels, "whole_tumor").tolist() == [False, True, True, True]
    assert evaluation.region_mask(labels, "tumor_core").tolist() == [False, True, False, True]
    assert evaluation.region_mask(labels, "enhancing_core").tolist() == [False, False, False, True]
    with pytest.raises(DataError, match="from 0 to 4"):
        evaluation.region_mask(np.array([0, 1, 2, 4]), "whole_tumor")  # BraTS' own 4
    with pytest.raises(SettingError, match="Did you mean 'whole_tumor'"):
        evaluation.region_mask(labels, "whole_tumour")
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


def rows_of(prediction, truth, task="multiclass", voxel_size_mm=None, **more):
    return evaluation.evaluate_patient(prediction, truth, patient="a", task=task, voxel_size_mm=voxel_size_mm, **more)


@pytest.mark.claim(
    "C4.2-11",
    "One end-to-end multiclass problem, scored on the same regions",
    ours="task = multiclass, three regions from one label map",
)
def test_a_multiclass_patient_gets_one_row_per_region(labelled):
    rows = rows_of(labelled, labelled, voxel_size_mm=(1, 1, 1))
    assert [row["region"] for row in rows] == ["whole_tumor", "tumor_core", "enhancing_core"]
    assert [tuple(row) for row in rows] == [evaluation.PER_PATIENT_COLUMNS] * 3
    assert [row["dice"] for row in rows] == [100.0] * 3
    assert [row["truth_voxels"] for row in rows] == [64, 8, 1]
    assert {row["hausdorff_unit"] for row in rows} == {"mm"}
    assert all(np.isnan(row["slice_auc"]) for row in rows)
    confused = np.where(labelled == 3, 1, labelled)  # enhancing called non-enhancing
    assert [row["dice"] for row in rows_of(confused, labelled)] == [100.0, 100.0, 0.0]


@pytest.mark.claim("C4.2-10")
def test_a_binary_prediction_stands_for_its_task_region(labelled):
    prediction = (np.isin(labelled, (1, 3))).astype(np.uint8)  # a 0/1 mask of the tumour core
    (row,) = rows_of(prediction, labelled, "tumor_core")
    found = (row["dice"], row["hausdorff95"], row["hausdorff_unit"], row["predicted_voxels"])
    assert found == (100.0, 0.0, "px", 8)


def test_slice_auc_of_a_region_takes_the_most_probable_of_its_subclasses(labelled):
    present = np.stack([(labelled == c).any(axis=(0, 1)) for c in (1, 2, 3)], axis=1)  # (Z, 3)
    scores = present.astype(float)
    assert [row["slice_auc"] for row in rows_of(labelled, labelled, slice_scores=scores)] == [1.0] * 3
    scores[:, 1] = 0  # an oedema branch that never fires: whole tumour suffers, the core does not
    assert [row["slice_auc"] for row in rows_of(labelled, labelled, slice_scores=scores)] == [0.75, 1.0, 1.0]


@pytest.mark.claim("F-16")
def test_wrong_shapes_are_named(labelled):
    with pytest.raises(DataError, match=r"\(10, 10, 9\).*\(10, 10, 10\)"):
        rows_of(labelled[..., :9], labelled, "whole_tumor")
    with pytest.raises(DataError, match=r"patient a: slice scores have shape \(10, 1\).*\(10, 3\)"):
        rows_of(labelled, labelled, slice_scores=np.zeros((10, 1)))
