"""Normalised axial slices and their store."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from mixsup_lib import slices as module
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import read_slice_labels
from mixsup_lib.files import DataError
from mixsup_lib.slices import (
    SliceFrame,
    SliceStore,
    fit_window,
    foreground_mask,
    normalise,
    patient_slices,
    prepare,
    resample_in_plane,
    scores_on_source_grid,
    training_range,
)

GRID = {"pixel_mm": 5.0, "window": (48, 48), "progress": False}


@pytest.mark.claim(
    "C4.1-06",
    "Each image is divided by the median of its non-zero voxels and multiplied by a constant",
    ours="the median becomes 100, background stays 0",
)
def test_the_non_zero_median_becomes_100():
    volume = np.array([0, 0, 0, 2, 4, 10], np.float32)
    assert normalise(volume, volume != 0).tolist() == [0, 0, 0, 50, 100, 250]


@pytest.mark.claim("C4.1-06")
def test_every_sequence_of_every_patient_has_median_100_and_is_rounded_as_numpy_rounds(store):
    for patient in store.cohort.patients[:4]:
        case = patient.read_images()
        slices, _ = patient_slices(case, None, None)
        for channel, volume in enumerate(case.images):
            values = slices[:, channel]
            assert np.median(values[values != 0].astype(np.float64)) == pytest.approx(100, rel=1e-3)
            expected = normalise(volume, volume != 0).astype(np.float16).transpose(2, 1, 0)
            assert np.array_equal(values.view(np.uint16), expected.view(np.uint16))
        assert (slices == 0).mean() > 0.3
    case.images[0].flat[np.flatnonzero(case.images[0])[0]] = 1e9
    slices, _ = patient_slices(case, None, None)
    assert slices.max() == np.finfo(np.float16).max  # kept finite


def test_a_grey_background_is_not_foreground_and_a_constant_head_is():
    rng = np.random.default_rng(0)
    volume = rng.normal(20, 3, (30, 30, 10))
    volume[8:22, 8:22] = rng.normal(120, 10, (14, 14, 10))
    mask = foreground_mask(volume)
    assert mask[8:22, 8:22].mean() > 0.99 and mask[:6].mean() < 0.01
    head = np.zeros((12, 12, 5), np.float32)
    head[3:9, 3:9] = 7
    assert np.array_equal(foreground_mask(head), head > 0)
    assert np.array_equal(normalise(head, head > 0), np.where(head > 0, np.float32(100), np.float32(0)))


@pytest.mark.claim(
    "F-16",
    "Training slices are z = 15..130 of 155, test slices are all",
    ours="as a fraction on other grids; a prediction has the shape of the whole volume",
)
def test_a_median_that_is_no_scale_is_refused_and_other_scales_are_taken(phantom):
    case = find_cohort(phantom).patients[0].read_images()
    head = case.images[0] != 0
    mean, spread = ([getattr(image[head], of)() for image in case.images] for of in ("mean", "std"))
    scored = np.where(head, ((case.images.T - mean) / spread).T, 0)
    for images in (scored, -case.images):
        with pytest.raises(DataError, match=f"{case.patient}: sequence FLAIR has intensities around 0 .median of the"):
            patient_slices(replace(case, images=images.astype(np.float32)), None, None)
    extreme = case.images.copy()
    extreme[:, 0, 0, 0] = 1e6
    for fine in (case.images / case.images.max(), np.where(head, case.images, -1024), extreme):
        patient_slices(replace(case, images=fine.astype(np.float32)), None, None)


def test_training_slices_are_15_to_130_of_155():
    assert training_range(155, True) == (15, 130)
    assert training_range(62, True) == (6, 52)
    assert training_range(20, False) == (0, 19)


@pytest.mark.claim(
    "C4.1-09", "Axial slices are segmented, for all volumes contain tumour", ours="slices along z, from feet to head"
)
def test_slices_are_the_volume_seen_from_above(store):
    patient = store.cohort.patients[2]
    case = patient.read_images()
    slices, frame = patient_slices(case, None, None)
    z = slices.shape[0] // 2
    assert frame.corner == (0, 0)
    expected = normalise(case.images[1], case.images[1] != 0)[:, :, z].T
    assert np.allclose(slices[z, 1], expected, rtol=1e-3)


def test_label_maps_and_weak_labels_lie_on_their_slices(store):
    patient = store.cohort.patients[1]
    maps, labels = store.label_maps(patient.id), patient.read_labels()
    assert maps.shape == (labels.shape[2], 48, 48)
    assert np.array_equal(maps, labels.transpose(2, 1, 0))  # the 5 mm phantom needs no resampling
    presence = store.presence([patient.id], "multiclass")[patient.id]
    for name, classes in (("oedema", [2]), ("whole_tumor", [1, 2, 3]), ("tumor_core", [1, 3])):
        assert np.array_equal(presence[name], np.isin(labels, classes).any(axis=(0, 1)))


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


# The store


@pytest.fixture
def copied(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "cohort")
    return tmp_path / "cohort"


def prepared_patients(monkeypatch, stop_at: int | None = None) -> list[str]:
    """IDs of the patients that are prepared from now on; `stop_at`: this one is interrupted."""
    real, calls = module.patient_slices, []

    def counted(case, *rest):
        calls.append(case.patient)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return real(case, *rest)

    monkeypatch.setattr(module, "patient_slices", counted)
    return calls


def same(store, other):
    return np.array_equal(store[:], other[:]) and store.fingerprint() == other.fingerprint()


def test_a_patient_is_prepared_again_only_where_its_images_changed(copied, tmp_path, monkeypatch):
    before = prepare(copied, tmp_path / "store", **GRID)
    images, cohort = before[:], find_cohort(copied)
    changed, other = (cohort.patients[i].image_files[0] for i in (2, 3))
    changed.write_bytes(other.read_bytes())
    calls = prepared_patients(monkeypatch)
    store = prepare(copied, tmp_path / "store", **GRID)
    assert calls == [cohort.patients[2].id] and store.fingerprint() != before.fingerprint()
    differ = (store[:] != images).any(axis=(1, 2, 3))
    assert set(store.table["patient"][differ]) == {cohort.patients[2].id}
    assert same(store, prepare(copied, tmp_path / "anew", **GRID))


def test_other_settings_are_another_store(phantom, store, tmp_path, monkeypatch):
    """Interrupted while the window was changed, slices of before and after must not be mixed."""
    prepare(phantom, tmp_path / "store", **GRID)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        prepared_patients(patch, stop_at=4)
        prepare(phantom, tmp_path / "store", **{**GRID, "window": (40, 40)})
    with pytest.raises(DataError, match="not a prepared store"):
        SliceStore(tmp_path / "store", store.cohort)
    assert same(prepare(phantom, tmp_path / "store", **GRID), store)


def test_an_interrupted_prepare_goes_on_at_the_next_patient(phantom, store, tmp_path, monkeypatch):
    calls = prepared_patients(monkeypatch, stop_at=6)
    with pytest.raises(KeyboardInterrupt):
        prepare(phantom, tmp_path / "store", **GRID)
    assert same(prepare(phantom, tmp_path / "store", **GRID), store) and len(calls) == 6 + 5


def test_the_fingerprint_is_of_the_slices_and_of_the_grid_alone(store):
    digests = {patient.id: module._digest(store.slices(patient.id)) for patient in store.cohort.patients}
    content = json.dumps([digests, {"format": 2, "pixel_mm": 5.0, "window": [48, 48]}], sort_keys=True)
    assert store.fingerprint() == module.hashlib.sha256(content.encode()).hexdigest()[:16]


def test_rows_of_the_store_are_the_slices_of_its_patients(store):
    whole = np.concatenate([store.slices(patient.id) for patient in store.cohort.patients])
    assert whole.shape == store.shape and len(whole) == len(store) == len(store.table)
    rows = np.array([700 % len(store), 3, 3, len(store) - 1, 0])
    for which in (rows, 7, -1, rows[:0], slice(5, 90, 7), slice(None), store.rows(store.cohort.patients[4].id)):
        assert np.array_equal(store[which], whole[which])
    with pytest.raises(IndexError):
        store[np.array([len(store)])]


def test_a_store_of_many_patients_needs_few_open_files(store, monkeypatch):
    """macOS allows a process 256 of them."""
    assert module.OPEN_FILES < 200
    opened, real = [], module._open_slices
    monkeypatch.setattr(module, "OPEN_FILES", 3)
    monkeypatch.setattr(module, "_open_slices", lambda *where: opened.append(where[-1]) or real(*where))
    few, ids = SliceStore(store.folder, store.cohort), [patient.id for patient in store.cohort.patients]
    assert np.array_equal(few[:], store[:])
    assert all(np.array_equal(few.slices(ids[i]), store.slices(ids[i])) for i in (-1, 0))
    assert opened == [*ids, ids[0]]  # the last is still open, the first has been closed


def test_preparing_in_parallel_gives_the_same_and_writes_nothing_into_the_cohort(phantom, store, tmp_path):
    before = sorted(str(path) for path in phantom.rglob("*"))
    assert same(prepare(phantom, tmp_path / "store", workers=2, **GRID), store)
    assert sorted(str(path) for path in phantom.rglob("*")) == before
    assert read_slice_labels(tmp_path / "store") is not None


def test_slices_of_different_size_are_one_sentence(copied, tmp_path):
    other = find_cohort(copied).patients[1]
    for file in (*other.image_files, *other.mask_files):
        image = nib.load(file)
        nib.save(image.slicer[2:], file)
    with pytest.raises(DataError, match=r"slices of Brats.* are 48x48 pixels, those of .*give `prepare` a window"):
        prepare(copied, tmp_path / "store", progress=False)
    assert len(prepare(copied, tmp_path / "store", window=(40, 40), progress=False))


def test_a_patient_whose_rows_do_not_determine_the_task_is_refused(store, monkeypatch):
    patient = store.cohort.patients[0].id
    rows = read_slice_labels(store.labels_folder)
    alone = pd.DataFrame([(patient, "whole_tumor", 3, 4)], columns=rows.columns)
    rows = pd.concat([rows[rows["patient"] != patient], alone])
    monkeypatch.setattr("mixsup_lib.slices.read_slice_labels", lambda folder: rows)
    assert store.presence([patient], "whole_tumor")[patient]["whole_tumor"].sum() == 2
    with pytest.raises(DataError, match=f"patient {patient}: whole_tumor in slice 3 and 1 more, but no row says"):
        store.presence([patient], "tumor_core")
