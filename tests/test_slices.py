"""Normalised axial slices and their store."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import read_slice_labels
from mixsup_lib.files import DataError
from mixsup_lib.slices import (
    SliceFrame,
    _median_under,
    fit_window,
    foreground_mask,
    normalise,
    patient_slices,
    prepare,
    resample_in_plane,
    scores_on_source_grid,
    training_range,
)


def test_the_non_zero_median_becomes_100():
    volume = np.array([0, 0, 0, 2, 4, 10], np.float32)
    assert normalise(volume, volume != 0).tolist() == [0, 0, 0, 50, 100, 250]


@pytest.mark.parametrize("count", [1, 2, 7, 100, 101])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_fast_median_is_the_median(count, order):
    rng = np.random.default_rng(count)
    volume = np.asarray(rng.normal(100, 30, (8, 9, 10)).astype(np.float32), order=order)
    mask = np.zeros(volume.shape, bool, order=order)
    mask.ravel("K")[rng.permutation(volume.size)[:count]] = True
    expected = np.median(volume[mask])
    assert _median_under(volume, mask) == expected and _median_under(volume, mask).dtype == np.float32


def test_normalised_slices_are_rounded_as_numpy_rounds_and_kept_finite(store):
    case = store.cohort.patients[0].read_images()
    case.images[0].flat[np.flatnonzero(case.images[0])[0]] = 1e9
    slices, _ = patient_slices(case, None, None)
    limit = np.finfo(np.float16).max
    for channel, volume in enumerate(case.images):
        expected = np.clip(normalise(volume, volume != 0), -limit, limit).astype(np.float16)
        assert np.array_equal(slices[:, channel].view(np.uint16), expected.transpose(2, 1, 0).view(np.uint16))
    assert slices.max() == limit


def test_training_slices_are_15_to_130_of_155():
    assert training_range(155, True) == (15, 130)
    assert training_range(62, True) == (6, 52)
    assert training_range(20, False) == (0, 19)


def test_every_sequence_of_every_patient_has_median_100(store):
    for patient in store.cohort.patients[:4]:
        case = patient.read_images()
        slices, _ = patient_slices(case, None, None)
        for channel in range(len(case.sequences)):
            values = slices[:, channel]
            assert np.median(values[values != 0].astype(np.float64)) == pytest.approx(100, rel=1e-3)
        assert (slices == 0).mean() > 0.3


def test_float16_rounding_is_far_below_the_noise(store):
    case = store.cohort.patients[0].read_images()
    slices, _ = patient_slices(case, None, None)
    volume = case.images[0]
    exact = normalise(volume, volume != 0).transpose(2, 1, 0)
    inside = exact > 0
    assert np.abs(slices[:, 0][inside] / exact[inside] - 1).max() < 2**-10


def test_slices_are_the_volume_seen_from_above(store):
    patient = store.cohort.patients[2]
    case = patient.read_images()
    slices, frame = patient_slices(case, None, None)
    z = slices.shape[0] // 2
    assert frame.corner == (0, 0)
    expected = normalise(case.images[1], case.images[1] != 0)[:, :, z].T
    assert np.allclose(slices[z, 1], expected, rtol=1e-3)


def test_label_maps_lie_on_their_slices(store):
    patient = store.cohort.patients[0]
    maps, labels = store.label_maps(patient.id), patient.read_labels()
    assert maps.shape == (labels.shape[2], 48, 48)
    assert np.array_equal(maps, labels.transpose(2, 1, 0))  # the 5 mm phantom needs no resampling


def test_weak_labels_of_the_store_equal_the_masks_they_were_derived_from(store):
    patient = store.cohort.patients[1]
    presence = store.presence([patient.id], "multiclass")[patient.id]
    labels = patient.read_labels()
    assert np.array_equal(presence["oedema"], (labels == 2).any(axis=(0, 1)))
    assert np.array_equal(presence["whole_tumor"], (labels > 0).any(axis=(0, 1)))
    assert np.array_equal(presence["tumor_core"], np.isin(labels, (1, 3)).any(axis=(0, 1)))


def test_a_grey_background_is_not_foreground():
    rng = np.random.default_rng(0)
    volume = rng.normal(20, 3, (30, 30, 10))
    volume[8:22, 8:22] = rng.normal(120, 10, (14, 14, 10))
    mask = foreground_mask(volume)
    assert mask[8:22, 8:22].mean() > 0.99 and mask[:6].mean() < 0.01


def test_window_is_centred_on_the_head_and_can_be_undone():
    foreground = np.zeros((100, 80), bool)
    foreground[30:80, 20:60] = True
    frame = fit_window(foreground, (1.0, 1.0, 1.0), None, (64, 48))
    assert frame == SliceFrame((100, 80), (100, 80), (23, 16), (64, 48))
    slices = np.random.default_rng(0).random((2, 3, 100, 80)).astype(np.float32)
    stored = resample_in_plane(slices, frame)
    assert np.array_equal(stored, slices[:, :, 23:87, 16:64])
    back = scores_on_source_grid(stored, frame)
    assert np.array_equal(back[:, :, 23:87, 16:64], stored)
    assert (back[:, 0, :23] == 1).all() and (back[:, 1:, :23] == 0).all()


def test_resampling_keeps_positions():
    foreground = np.ones((240, 240), bool)
    frame = fit_window(foreground, (1.0, 1.0, 1.0), 2.5, None)
    assert frame.resampled == (96, 96)
    blob = np.zeros((1, 2, 240, 240), np.float32)
    yy, xx = np.mgrid[:240, :240]
    blob[0, 1] = np.exp(-((yy - 100.0) ** 2 + (xx - 60.0) ** 2) / 200)
    back = scores_on_source_grid(resample_in_plane(blob, frame), frame)[0, 1]
    assert (back * yy).sum() / back.sum() == pytest.approx(100, abs=0.05)
    assert (back * xx).sum() / back.sum() == pytest.approx(60, abs=0.05)


def test_unknown_spacing_is_taken_as_a_field_of_view_of_240_mm():
    assert fit_window(np.ones((256, 256), bool), None, 2.5, None).resampled == (96, 96)


@pytest.fixture
def copied(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "cohort")
    return tmp_path / "cohort"


def test_a_finished_store_is_reused_and_a_changed_image_is_noticed(copied, tmp_path):
    first = prepare(copied, tmp_path / "store", pixel_mm=5.0, window=(48, 48), progress=False)
    written = (tmp_path / "store" / "images.npy").stat().st_mtime_ns
    prepare(copied, tmp_path / "store", pixel_mm=5.0, window=(48, 48), progress=False)
    assert (tmp_path / "store" / "images.npy").stat().st_mtime_ns == written
    a, b = (find_cohort(copied).patients[i].image_files[0] for i in (0, 1))
    a.write_bytes(b.read_bytes())
    second = prepare(copied, tmp_path / "store", pixel_mm=5.0, window=(48, 48), progress=False)
    assert second.fingerprint() != first.fingerprint()


def test_only_patients_whose_images_changed_are_prepared_again(copied, tmp_path, monkeypatch):
    import mixsup_lib.slices as module

    grid = {"pixel_mm": 5.0, "window": (48, 48), "progress": False}
    before = np.array(prepare(copied, tmp_path / "store", **grid).images)
    cohort = find_cohort(copied)
    image, other = (cohort.patients[i].image_files[0] for i in (2, 3))
    image.write_bytes(other.read_bytes())
    real, calls = module.patient_slices, []
    monkeypatch.setattr(
        module, "patient_slices", lambda case, *rest: calls.append(case.patient) or real(case, *rest)
    )
    store = prepare(copied, tmp_path / "store", **grid)
    assert calls == [cohort.patients[2].id]
    differ = (store.images != before).any(axis=(1, 2, 3))
    assert set(store.table["patient"][differ]) == {cohort.patients[2].id}
    assert np.array_equal(store.images, prepare(copied, tmp_path / "anew", **grid).images)


def test_an_array_that_grew_is_the_file_that_numpy_would_write(store, tmp_path):
    np.save(tmp_path / "whole.npy", store.images)
    assert (tmp_path / "whole.npy").read_bytes() == (store.folder / "images.npy").read_bytes()


def test_an_interrupted_prepare_continues(copied, tmp_path, monkeypatch):
    import mixsup_lib.slices as module

    whole = prepare(copied, tmp_path / "whole", pixel_mm=5.0, window=(48, 48), progress=False)
    real, calls = module.patient_slices, []

    def failing(case, *rest):
        calls.append(case.patient)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(case, *rest)

    monkeypatch.setattr(module, "patient_slices", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(copied, tmp_path / "store", pixel_mm=5.0, window=(48, 48), progress=False)
    assert not (tmp_path / "store" / "store.json").exists()
    resumed = prepare(copied, tmp_path / "store", pixel_mm=5.0, window=(48, 48), progress=False)
    assert len(calls) == 6 + 5
    assert np.array_equal(resumed.images, whole.images) and resumed.fingerprint() == whole.fingerprint()


def test_prepare_writes_nothing_into_the_cohort(copied, tmp_path):
    before = sorted(str(path) for path in copied.rglob("*"))
    prepare(copied, tmp_path / "store", progress=False)
    assert sorted(str(path) for path in copied.rglob("*")) == before
    assert read_slice_labels(tmp_path / "store") is not None


def test_parallel_equals_serial(phantom, store, tmp_path):
    parallel = prepare(phantom, tmp_path / "store", pixel_mm=5.0, window=(48, 48), workers=2, progress=False)
    assert np.array_equal(parallel.images, store.images)


def test_a_folder_that_is_no_store_is_a_clear_error(store, tmp_path):
    with pytest.raises(DataError, match="not a prepared store"):
        type(store)(tmp_path, store.cohort)


def test_a_patient_whose_rows_do_not_determine_the_task_is_refused(store, monkeypatch):
    patient = store.cohort.patients[0].id
    rows = read_slice_labels(store.labels_folder)
    alone = pd.DataFrame([(patient, "whole_tumor", 3, 4)], columns=rows.columns)
    rows = pd.concat([rows[rows["patient"] != patient], alone])
    monkeypatch.setattr("mixsup_lib.slices.read_slice_labels", lambda folder: rows)
    assert store.presence([patient], "whole_tumor")[patient]["whole_tumor"].sum() == 2
    with pytest.raises(
        DataError, match=f"patient {patient}: whole_tumor in slice 3 and 1 more, but no row says"
    ):
        store.presence([patient], "tumor_core")
