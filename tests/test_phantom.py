"""The phantom cohort: anatomy, tumours, distractors, the files and how an interrupted call continues."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from mixsup_lib import phantom
from mixsup_lib.datasets import find_cohort
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.paper import SEQUENCES
from mixsup_lib.phantom import make_patient, make_phantom, patient_id
from mixsup_lib.phantom.anatomy import grid_affine, grid_shape
from mixsup_lib.phantom.settings import PhantomSettings
from mixsup_lib.phantom.tumor import annotate

FILES = ("flair", "t1", "t1ce", "t2", "seg")
COARSE_MM = 5.0  # a quick grid where size does not matter
QUICK = {"voxel_mm": 6.0, "workers": 1, "progress": False}


@pytest.fixture(scope="module")
def cohort():
    """Twelve patients at the default voxel size."""
    return [make_patient(index) for index in range(12)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A cohort of three coarse patients on disk; tests only read it."""
    out = tmp_path_factory.mktemp("phantom") / "cohort"
    return make_phantom(out, patients=3, voxel_mm=COARSE_MM, workers=1, progress=False)


def voxels(folder):
    """All voxels below a cohort folder: relative path -> array."""
    return {
        str(path.relative_to(folder)): np.asarray(nib.load(path).dataobj)
        for path in sorted(folder.glob("*/*/*.nii.gz"))
    }


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def overlap(a, b):
    """Dice (%) of the whole tumour."""
    a, b = a > 0, b > 0
    return 200 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.claim(
    "C4.1-03",
    "Volumes of 240x240x155 with voxels of 1 mm^3",
    ours="read from the file, any size is taken; the phantom at 1 mm has this one",
)
def test_the_grid_is_that_of_brats():
    assert grid_shape(1.0) == (240, 240, 155) and grid_shape(2.5) == (96, 96, 62)
    for voxel_mm in (0.5, 8, -1, float("nan"), "2.5", True):
        with pytest.raises(SettingError, match="voxel_mm"):
            make_patient(0, voxel_mm=voxel_mm)


def test_every_patient_has_four_images_and_a_mask_on_an_lps_grid_centred_on_the_brain(cohort):
    affine = grid_affine(2.5)
    assert nib.aff2axcodes(affine) == ("L", "P", "S")
    assert np.allclose(np.diag(affine), (-2.5, -2.5, 2.5, 1))
    for made in cohort:
        assert (made.sequences, made.voxel_size_mm) == (SEQUENCES, (2.5, 2.5, 2.5))
        assert made.images.shape == (4, 96, 96, 62) and made.images.dtype == np.int16
        assert made.labels.shape == (96, 96, 62) and made.labels.dtype == np.uint8
        brain = made.tissue.sum(0) > 0
        assert np.allclose(np.argwhere(brain).mean(0), np.array([96, 96, 62]) / 2, atol=6)
        assert (made.images[:, ~brain] == 0).all() and (made.images[:, brain] > 0).all()
        assert 1000 < brain.sum() * 2.5**3 / 1000 < 2100  # ml


def test_an_expert_strays_from_the_tumour_as_experts_do(cohort):
    """Two experts of the BraTS benchmark agree at 74 to 85; one against the tumour itself does better than that."""
    agreement = [overlap(made.labels, made.tumor) for made in cohort]
    assert 85 < np.mean(agreement) < 95 and min(agreement) > 74
    pairs = []
    for index, made in enumerate(cohort):
        brain = made.tissue.sum(0) > 0
        drawn = [annotate(np.random.default_rng([index, k]), made.tumor, brain, 2.5, PhantomSettings()) for k in (0, 1)]
        pairs.append(overlap(*drawn))
    assert 80 < np.mean(pairs) < np.mean(agreement)


def test_a_perfect_expert_draws_the_tumour_and_no_expert_leaves_the_brain(cohort):
    perfect, usual = (make_patient(0, voxel_mm=COARSE_MM, settings=PhantomSettings(rater_mm=mm)) for mm in (0, 1.5))
    assert np.array_equal(perfect.labels, perfect.tumor)
    assert np.array_equal(perfect.images, usual.images) and np.array_equal(perfect.tumor, usual.tumor)
    assert not np.array_equal(perfect.labels, usual.labels)
    assert not any(made.labels[made.tissue.sum(0) == 0].any() for made in cohort)


def test_tissue_contrast_is_that_of_the_sequences():
    """White, grey matter and fluid in the order of T1 and T2 weighting, where sites do not differ."""
    plain = PhantomSettings(site_spread=0, noise=(0, 0), bias=(0, 0), blur_mm=(0, 0), vessel_strength=(0, 0))
    made = make_patient(0, settings=plain)
    white, grey, fluid = ((share > 0.9) & (made.labels == 0) & (made.lesions == 0) for share in made.tissue)
    for i, sequence in enumerate(SEQUENCES):
        w, g, f = (np.median(made.images[i][where]) for where in (white, grey, fluid))
        assert (f < w < g) if sequence == "FLAIR" else (f < g < w) if sequence in ("T1", "T1c") else (w < g < f)


# Tumours


def test_tumours_have_a_radius_of_15_to_35_mm_and_show_in_40_to_50_percent_of_the_slices(cohort):
    radii = [(3 * (made.labels > 0).sum() * 2.5**3 / (4 * np.pi)) ** (1 / 3) for made in cohort]
    assert 13.5 < min(radii) and max(radii) < 36.5 and 22 < np.mean(radii) < 31 and np.std(radii) > 2
    shares = [(made.labels > 0).any(axis=(0, 1)).mean() for made in cohort]
    assert 0.38 < np.mean(shares) < 0.52 and min(shares) < 0.37 and max(shares) > 0.45
    for made in cohort:  # never in fluid; the voxel where a tumour starts may be any
        assert (made.tissue[2][made.tumor > 0] < 0.5).mean() > 0.999


def test_high_grade_tumours_have_core_rim_and_oedema_and_low_grade_ones_mostly_no_rim(cohort):
    for made in cohort:
        whole = (made.labels > 0).sum()
        parts = [(made.labels == value).sum() / whole for value in (1, 2, 3)]
        if made.grade == "HGG":
            assert parts[2] > 0.03 and parts[1] > 0.3
        else:
            assert parts[0] > 0.35 and parts[2] < 0.16
    assert {made.grade for made in cohort} == {"HGG", "LGG"}


def test_a_quarter_is_low_grade_and_half_of_those_do_not_enhance(monkeypatch):
    monkeypatch.setattr(phantom, "acquire", lambda *_: np.zeros((4, 1, 1, 1), np.int16))  # labels only
    made = [make_patient(index, voxel_mm=6.0) for index in range(48)]
    low = [m for m in made if m.grade == "LGG"]
    assert 0.12 < len(low) / len(made) < 0.4
    assert 0.2 < np.mean([(m.labels != 3).all() for m in low]) < 0.8
    assert all((m.labels == 3).any() for m in made if m.grade == "HGG")


def test_oedema_is_as_bright_as_the_conspicuity_says():
    """Oedema is 1 + 0.7 c of white matter on FLAIR and 1 + 0.6 c on T2 (c = 1 here); enhancement shows on T1c."""
    plain = PhantomSettings(
        conspicuity_low=1, site_spread=0, noise=(0, 0), bias=(0, 0), blur_mm=(0, 0), tumor_texture=0, lesion_count=0,
        low_grade_share=0,
        conspicuity_flair=(1, 1), conspicuity_t2=(1, 1), enhancement=(1, 1), vessel_strength=(0, 0),
    )  # fmt: skip
    made = make_patient(1, settings=plain)
    white = (made.tissue[0] > 0.95) & (made.labels == 0)
    for image, value, label, expected in ((0, 95, 2, 1.7), (3, 50, 2, 1.6), (2, 95, 3, 2.0)):
        tumour = np.percentile(made.images[image][made.labels == label], value)
        assert tumour / np.median(made.images[image][white]) == pytest.approx(expected, abs=0.15)


def test_distractors_lie_outside_the_tumour_bright_on_flair_and_t2_and_vessels_on_t1c(cohort):
    brighter = []
    for made in cohort:
        assert not made.lesions[made.tumor > 0].any() and not made.vessels[made.tumor > 0].any()
        white = (made.tissue[0] > 0.8) & (made.labels == 0)
        spots = white & (made.lesions > 0.4)
        tubes = (made.vessels > 0.5) & (made.labels == 0) & (made.tissue[1] > 0.5)
        cortex = (made.vessels == 0) & (made.labels == 0) & (made.tissue[1] > 0.8)
        flair, _, t1c, t2 = made.images
        plain = white & (made.lesions == 0)
        ratios = [image[spots].mean() / image[plain].mean() for image in (flair, t2)]
        brighter.append([*ratios, t1c[tubes].mean() / t1c[cortex].mean()])
    assert (np.nanmedian(brighter, axis=0) > (1.15, 1.1, 1.15)).all()
    assert not make_patient(0, voxel_mm=COARSE_MM, settings=PhantomSettings(lesion_count=0)).lesions.any()


# Determinism and files


def test_a_patient_depends_on_seed_and_index_alone(cohort):
    make_patient(7, voxel_mm=COARSE_MM)  # what was made before does not matter
    again = make_patient(5)
    assert np.array_equal(again.images, cohort[5].images) and np.array_equal(again.labels, cohort[5].labels)
    for other in (make_patient(5, seed=1), make_patient(6)):
        assert not np.array_equal(again.labels, other.labels)


def test_the_number_of_workers_and_patients_changes_nothing(written, tmp_path):
    parallel = make_phantom(tmp_path / "p", patients=4, voxel_mm=COARSE_MM, workers=2, progress=False)
    four = voxels(parallel)
    assert len(four) == 20
    assert same({name: v for name, v in four.items() if patient_id(3) not in name}, voxels(written))


@pytest.mark.claim("C4.1-01")
def test_files_are_those_of_brats_2018(written):
    folders = sorted(written.glob("[HL]GG/*"))
    assert sorted(f.name for f in folders) == [f"Brats18_PHANTOM_00{i}_1" for i in (1, 2, 3)]
    assert not [f for f in written.iterdir() if f.name not in ("HGG", "LGG", "phantom.json")]
    seen = set()
    for folder in folders:
        assert sorted(f.name for f in folder.iterdir()) == sorted(f"{folder.name}_{s}.nii.gz" for s in FILES)
        for suffix in FILES:
            image = nib.load(folder / f"{folder.name}_{suffix}.nii.gz")
            assert image.get_data_dtype() == (np.uint8 if suffix == "seg" else np.int16)
            assert image.shape == grid_shape(COARSE_MM)
            assert np.allclose(image.affine, grid_affine(COARSE_MM))
        seen |= set(np.unique(image.dataobj).tolist())
    assert seen == {0, 1, 2, 4}
    content = json.loads((written / "phantom.json").read_text())
    assert (content["seed"], content["voxel_mm"], content["patients"]) == (0, COARSE_MM, 3)
    assert PhantomSettings(**content["settings"]) == PhantomSettings()


def test_find_cohort_reads_the_phantom_as_it_was_made(written):
    found = find_cohort(written)
    assert found.layout == "BraTS 2017/2018" and len(found.patients) == 3
    case, made = found[patient_id(1)].read(), make_patient(1, voxel_mm=COARSE_MM)
    assert case.sequences == SEQUENCES and (written / made.grade / patient_id(1)).is_dir()
    assert np.array_equal(case.images, made.images) and np.array_equal(case.labels, made.labels)
    assert np.allclose(case.affine, made.affine)


def test_a_second_call_keeps_patients_and_makes_the_missing_ones(tmp_path, monkeypatch):
    out = make_phantom(tmp_path / "c", patients=3, **QUICK)
    before = voxels(out)
    folders = sorted(out.glob("[HL]GG/*"))
    (folders[0] / f"{folders[0].name}_t2.nii.gz").unlink()  # a file was lost
    calls = []
    make = phantom.make_patient
    monkeypatch.setattr(phantom, "make_patient", lambda index, **kw: calls.append(index) or make(index, **kw))
    make_phantom(out, patients=4, **QUICK)
    assert calls == sorted([int(folders[0].name.split("_")[2]) - 1, 3])
    after = voxels(out)
    assert len(after) == 20 and same({name: after[name] for name in before}, before)
    assert json.loads((out / "phantom.json").read_text())["patients"] == 4


def test_an_interrupted_patient_leaves_no_folder_under_its_name(tmp_path, monkeypatch):
    save, n_saved = nib.save, []

    def broken(image, path):
        n_saved.append(path)
        if len(n_saved) == 8:  # in the middle of the second patient
            raise KeyboardInterrupt
        save(image, path)

    monkeypatch.setattr(nib, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        make_phantom(tmp_path / "c", patients=3, **QUICK)
    assert [f.name for f in (tmp_path / "c").glob("[HL]GG/*")] == [patient_id(0)]
    (tmp_path / "c" / ".unfinished-0123").mkdir()  # what a killed process leaves behind
    monkeypatch.setattr(nib, "save", save)
    out = make_phantom(tmp_path / "c", patients=3, **QUICK)
    assert len(voxels(out)) == 15 and not list(out.glob(".*"))


def test_other_settings_in_the_same_folder_or_other_things_are_an_error(written, tmp_path):
    for change, message in (
        ({"seed": 1}, "seed = 0, but seed = 1"),
        ({"voxel_mm": 6.0}, "voxel_mm = 5.0, but voxel_mm = 6.0"),
        ({"settings": PhantomSettings(lesion_count=2)}, "lesion_count = 4.0, but lesion_count = 2"),
        ({"patients": 2}, "3 patients, but 2"),
    ):
        with pytest.raises(SettingError, match=message):
            make_phantom(written, **({"patients": 3, **QUICK, "voxel_mm": COARSE_MM} | change))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingError, match="not empty"):
        make_phantom(tmp_path, patients=1, **QUICK)
    (tmp_path / "phantom.json").write_text("{")
    with pytest.raises(DataError, match="does not describe a phantom"):
        make_phantom(tmp_path, patients=1, **QUICK)


def test_an_impossible_call_or_setting_is_refused_by_name_before_anything_is_written(tmp_path):
    for name, value in (("patients", 0), ("patients", 2.5), ("seed", -1), ("workers", 0), ("voxel_mm", 9)):
        with pytest.raises(SettingError, match=name):
            make_phantom(tmp_path / "c", **({"patients": 1, **QUICK} | {name: value}))
        assert not (tmp_path / "c").exists()
    for name, value in (
        ("noise", (0.1, 0.03)), ("noise", 0.1), ("bias", (0.1,)), ("lesion_count", -1), ("lesion_count", "8"),
        ("sites", 2.5), ("mass_effect", 0.5), ("conspicuity_low", 6.0),
    ):  # fmt: skip
        with pytest.raises(SettingError, match=name):
            PhantomSettings(**{name: value})
