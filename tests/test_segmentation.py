"""Whole-slice segmentation: one pass, the case's own grid, NIfTI files."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from mixsup_lib.cohort import Case
from mixsup_lib.datasets.nifti import to_lps
from mixsup_lib.evaluation import label_volume, save_nifti, score_slices
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.slices import SliceFrame, scores_on_source_grid

CPU = torch.device("cpu")


def network(**changes) -> MixedSupervisionUNet:
    torch.manual_seed(0)
    settings = {"in_channels": 2, "n_maps": 2, "n_branches": 1, "width": 4, "depth": 4, "padding": "valid"}
    made = MixedSupervisionUNet(**{**settings, "input_shape": (300, 300), **changes})
    return made.eval()


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


def test_every_pixel_of_a_240_slice_is_scored():
    slices = np.random.default_rng(0).random((1, 2, 240, 240)).astype(np.float32)
    probabilities, presence = score_slices(network(), slices, device=CPU)
    assert probabilities.shape == (1, 2, 240, 240) and presence.shape == (1, 1)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_image_scores_come_from_the_training_size():
    net = network()
    slices = np.random.default_rng(0).random((1, 2, 240, 240)).astype(np.float32)
    _, presence = score_slices(net, slices, device=CPU)
    padded = torch.nn.functional.pad(torch.from_numpy(slices), (38, 22, 38, 22))
    with torch.inference_mode():
        expected = net.image_scores(padded).softmax(dim=2)[:, :, 1]
    assert np.allclose(presence, expected, atol=1e-6)


def test_without_a_branch_slices_may_be_larger_than_those_of_training():
    net = network(padding="same", depth=2, input_shape=(48, 40), n_branches=0)
    probabilities, presence = score_slices(net, np.ones((2, 2, 61, 64), np.float32), device=CPU)
    assert probabilities.shape == (2, 2, 61, 64) and presence is None


def test_batches_do_not_change_scores():
    net = network(padding="same", depth=2, input_shape=(48, 40))
    slices = np.random.default_rng(0).random((5, 2, 48, 40)).astype(np.float32)
    together, alone = (score_slices(net, slices, device=CPU, batch=b)[0] for b in (16, 2))
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("shown", [[1, 1, 1], [0, 0, 0], [0, 0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0]])
def test_slices_without_a_head_are_computed_once(shown, monkeypatch):
    net = network(padding="same", depth=2, input_shape=(48, 40))
    slices = np.random.default_rng(0).random((len(shown), 2, 48, 40)).astype(np.float16)
    slices[~np.array(shown, bool)] = 0
    each = [score_slices(net, one[None], device=CPU) for one in slices]
    computed, forward = [], net.forward
    monkeypatch.setattr(net, "forward", lambda x: computed.extend(x) or forward(x))
    probabilities, presence = score_slices(net, slices, device=CPU, batch=2)
    assert len(computed) == sum(shown) + (0 in shown)
    assert np.allclose(probabilities, np.concatenate([one[0] for one in each]), atol=1e-5)
    assert np.allclose(presence, np.concatenate([one[1] for one in each]), atol=1e-5)


def test_scores_are_resampled_before_argmax():
    """A boundary between stored pixels lands where the interpolated scores cross, not on a coarse pixel's edge."""
    frame = SliceFrame((8, 16), (4, 4), (0, 0), (4, 4))
    tumour = np.zeros((1, 4, 4), np.float32)
    tumour[:, :, 2:] = 0.9
    tumour[:, :, 1] = 0.4
    labels = label_volume(np.stack([1 - tumour, tumour], axis=1), frame)
    assert labels.shape == (16, 8, 1)
    assert int(labels[:, 0, 0].argmax()) == 7  # coarse argmax would start at column 8


@pytest.mark.parametrize("classes", [2, 4])
def test_skipping_slices_of_background_changes_no_label(classes):
    """Scores that are nearly equal, so that rounding would show; half of the slices are background everywhere."""
    rng = np.random.default_rng(0)
    scores = (0.5 + 1e-6 * rng.random((24, classes, 20, 16))).astype(np.float32)
    scores[::2, 0] = scores[::2].max(axis=1)
    frame = SliceFrame((60, 60), (24, 24), (2, 4), (20, 16))
    labels = label_volume(scores, frame)
    assert np.array_equal(labels.transpose(2, 1, 0), scores_on_source_grid(scores, frame).argmax(axis=1))
    assert labels[:, :, 1::2].any() and not labels[:, :, ::2].any()
    assert label_volume(scores[::2], frame).shape == (60, 60, 12)


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
    assert np.allclose(probabilities, pixels[:, :, 1:47], atol=1e-6) and np.allclose(
        presence, image, atol=1e-6
    )


def make_case(source_affine: np.ndarray) -> Case:
    """A case whose file has the given affine and 4x5x6 voxels."""
    images, affine = to_lps(np.zeros((4, 5, 6), np.float32), source_affine)
    return Case("p", ("FLAIR",), images[None], None, affine, (2.0, 2.0, 2.0), source_affine)


@pytest.mark.parametrize("flips", [(-1, -1, 1), (1, 1, 1), (1, -1, -1)])
def test_nifti_lands_on_the_same_place_in_the_world(tmp_path, flips):
    source = np.diag([2.0 * f for f in flips] + [1.0])
    source[:3, 3] = (10, 20, -30)
    case = make_case(source)
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 3, 2] = 3
    save_nifti(tmp_path / "mask.nii.gz", labels, case, multiclass=True)
    image = nib.load(tmp_path / "mask.nii.gz")
    assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(case.source_affine)
    found = np.argwhere(np.asarray(image.dataobj) == 4)  # enhancing is 4 on disk
    assert len(found) == 1
    there, here = (
        nib.affines.apply_affine(a, v) for a, v in ((image.affine, found[0]), (case.affine, (1, 3, 2)))
    )
    assert np.allclose(there, here)
    assert image.header["descrip"].tobytes().strip(b"\0") == b""
