"""Test patients are met in testing alone: whatever becomes of their files, training is the same to the bit."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.runs import load_run, run
from mixsup_lib.sampling import select_training_slices


def rewrite(path, values):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(values.astype(image.get_data_dtype()), image.affine), path)


def scatter_masks(patients, rng):
    """Voxels of every mask in random order: tumour in every slice."""
    for patient in patients:
        mask = np.asarray(nib.load(patient.mask_files[0]).dataobj)
        rewrite(patient.mask_files[0], rng.permutation(mask.ravel()).reshape(mask.shape))


def destroy_images(patients, rng):
    """Noise instead of every sequence, and a head of another size."""
    for patient in patients:
        for path in patient.image_files:
            noise = rng.integers(1, 3000, nib.load(path).shape)
            noise[: len(noise) // 3] = 0
            rewrite(path, noise)


@pytest.fixture(scope="module")
def original(phantom, tmp_path_factory):
    """Runs of both arms on the sound cohort: supervision -> folder."""
    root = tmp_path_factory.mktemp("original")
    return {arm: run(config_of(phantom, root, arm)) for arm in ("mixed", "standard")}


def config_of(cohort, root, supervision):
    return make_config(
        cohort=cohort, out=root / "runs", stores=root / "stores", n_fa=3, iterations=6, batch_norm_batches=3,
        schedule="plateau", supervision=supervision, precision="float32", device="cpu", progress=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("harm", "supervision"), [(scatter_masks, "mixed"), (scatter_masks, "standard"), (destroy_images, "mixed")]
)
def test_test_patients_have_no_influence_on_training(phantom, original, tmp_path, harm, supervision):
    """Weights, batch-norm statistics among them, and the losses of every iteration; only the scores change."""
    copy = shutil.copytree(phantom, tmp_path / "phantom")
    before = original[supervision]
    test = load_run(before)[1].split["test"]
    harm([find_cohort(copy)[patient] for patient in test], np.random.default_rng(0))
    after = run(config_of(copy, tmp_path, supervision))
    assert load_run(after)[1].split == load_run(before)[1].split and len(test) == 2
    first, second = (load_file(folder / "weights.safetensors") for folder in (before, after))
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
    assert any("running_var" in name for name in first)
    assert (before / "history.csv").read_bytes() == (after / "history.csv").read_bytes()
    tables = [pd.read_csv(folder / "per_patient.csv") for folder in (before, after)]
    assert not tables[0].equals(tables[1])


def test_an_annotated_patients_mask_does_have_influence(phantom, original, tmp_path):
    """The counterpart: the same harm to one who is trained on is seen."""
    copy = shutil.copytree(phantom, tmp_path / "phantom")
    annotated = load_run(original["mixed"])[1].split["fully_annotated"][0]
    scatter_masks([find_cohort(copy)[annotated]], np.random.default_rng(0))
    after = run(config_of(copy, tmp_path, "mixed"))
    assert (original["mixed"] / "history.csv").read_bytes() != (after / "history.csv").read_bytes()


def test_no_slice_of_a_test_patient_is_in_any_pool_and_no_test_mask_is_opened(store, split, monkeypatch):
    opened, real = [], type(store).label_maps
    monkeypatch.setattr(type(store), "label_maps", lambda self, name: opened.append(name) or real(self, name))
    for use_weak in (True, False):
        data = select_training_slices(store, split, "multiclass", use_weak=use_weak)
        rows = np.concatenate([*data.positive, data.negative, data.weak])
        assert not set(store.table["patient"].iloc[rows]) & set(split.test)
    assert not set(opened) & set(split.test) and opened
