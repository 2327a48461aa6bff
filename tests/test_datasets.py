"""Every layout is read as its truth, and bad input gets one clear sentence."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import shutil
import unicodedata

import nibabel as nib
import numpy as np
import pytest
from cohorts import LAYOUTS, NAMES, change, make_truth, patient_id, save, write_cohort, write_dataset_json
from PIL import Image

from mixsup_lib.check import check_cohort
from mixsup_lib.datasets import find_cohort, open_patient
from mixsup_lib.datasets.nifti import from_lps
from mixsup_lib.datasets.slice_labels import read_slice_labels
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.paper import SEQUENCES, TASKS
from mixsup_lib.protocol import read_patient_list

FIRST, SECOND = patient_id("brats2018", 0), patient_id("brats2018", 1)


@pytest.fixture
def brats(tmp_path):
    """Folder of two BraTS 2018 patients, one per grade."""
    write_cohort(tmp_path / "cohort", "brats2018", patients=2)
    return tmp_path / "cohort"


@pytest.fixture
def lgg(tmp_path):
    write_cohort(tmp_path / "cohort", "lgg", patients=2)
    return tmp_path / "cohort"


def brats_file(folder, ending, patient=FIRST, grade="HGG"):
    return folder / grade / patient / f"{patient}_{ending}.nii.gz"


@pytest.mark.claim(
    "C4.1-01",
    "BraTS 2018 training data: 285 patients with low-grade or high-grade gliomas",
    ours="folders HGG/ and LGG/ are found",
)
@pytest.mark.claim(
    "C4.1-02",
    "Four sequences: T1, T1 + gadolinium, T2, FLAIR",
    ours="FLAIR, T1, T1c, T2, the channel order of the authors' network",
)
@pytest.mark.claim(
    "C4.1-07",
    "Classes: 0 non-tumour, 1 non-enhancing core, 2 oedema, 3 enhancing core",
    ours="1, 2, 4 on disk become 1, 2, 3",
)
@pytest.mark.parametrize(("layout", "suffix"), [*((name, ".nii.gz") for name in LAYOUTS), ("brats2021", ".nii")])
def test_every_layout_is_read_as_its_truth(tmp_path, layout, suffix):
    truths = write_cohort(tmp_path, layout, patients=3, suffix=suffix)
    cohort = find_cohort(tmp_path)
    assert (cohort.layout, cohort.folder, cohort.problems) == (NAMES[layout], tmp_path, ())
    paper = (SEQUENCES, TASKS, True, (1.0, 1.0, 1.0))  # four sequences in the paper's order, every task
    expected = (("FLAIR", "T1", "T1c"), ("whole_tumor",), False, None) if layout == "lgg" else paper
    if layout.startswith("nnunet"):
        expected = (*paper[:2], False, paper[3])  # nothing says that the outermost slices are empty
    assert [patient.id for patient in cohort.patients] == sorted(truths)
    for patient in cohort.patients:
        case = patient.read()
        np.testing.assert_array_equal(case.images, truths[patient.id].images)
        np.testing.assert_array_equal(case.labels, truths[patient.id].labels)
        assert (case.images.dtype, case.labels.dtype) == (np.float32, np.uint8)
        assert (case.sequences, cohort.tasks, cohort.has_empty_ends, case.voxel_size_mm) == expected
        assert case.sequences == cohort.sequences and case.patient == patient.id
        assert pickle.loads(pickle.dumps(patient)) == patient  # patients travel to worker processes


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_read_without_a_mask_and_only_the_labels_are_refused(tmp_path, layout):
    write_cohort(tmp_path, layout, patients=1)
    (patient,) = find_cohort(tmp_path).patients
    before = patient.read_images()
    for mask in patient.mask_files:
        mask.write_bytes(b"broken")
    (patient,) = find_cohort(tmp_path).patients
    after = patient.read_images()
    assert after.labels is None
    np.testing.assert_array_equal(after.images, before.images)
    with pytest.raises(DataError):
        patient.read_labels()
    for mask in patient.mask_files:
        mask.unlink()
    (without,) = find_cohort(tmp_path).patients
    assert without.mask_files == ()
    without.read_images()
    with pytest.raises(DataError, match="has no mask, but one is needed of a fully annotated or test patient"):
        without.read_labels()


@pytest.mark.parametrize(
    ("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, -1, -1))]
)
def test_any_storage_orientation_reads_as_the_same_lps_volume_and_goes_back(tmp_path, order, signs):
    world = np.random.default_rng(0).integers(1, 100, (5, 6, 7)).astype(np.int16)  # axes LPS
    lps_affine = np.diag([-1.0, -2.0, 3.0, 1.0])
    lps_affine[:3, 3] = 10, 20, 30
    stored = world.transpose(order)
    to_lps = np.zeros((4, 4))
    to_lps[3, 3] = 1
    for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
        to_lps[source, axis] = sign
        to_lps[source, 3] = 0 if sign > 0 else world.shape[source] - 1
        stored = stored if sign > 0 else np.flip(stored, axis)
    for ending in ("flair", "t1", "t1ce", "t2", "seg"):
        array = stored.copy() if ending != "seg" else (stored > 50).astype(np.uint8)
        save(tmp_path / "P1" / f"P1_{ending}.nii.gz", array, lps_affine @ to_lps)
    case = find_cohort(tmp_path).patients[0].read()
    np.testing.assert_array_equal(case.images[0], world)
    np.testing.assert_array_equal(case.labels, world > 50)
    np.testing.assert_allclose(case.affine, lps_affine)
    np.testing.assert_allclose(case.voxel_size_mm, (1, 2, 3))
    np.testing.assert_array_equal(from_lps(case.labels, case.source_affine), stored > 50)


# What a search finds


def test_a_folder_above_the_cohort_is_accepted_but_slice_labels_there_are_not_ignored(tmp_path):
    write_cohort(tmp_path / "kaggle_3m", "lgg", patients=1)
    (tmp_path / "SOURCE.md").write_text("where it comes from")
    assert find_cohort(tmp_path).folder == tmp_path / "kaggle_3m"
    (tmp_path / "slice_labels.csv").write_text("patient,class,first_z,last_z\n")
    with pytest.raises(DataError, match="move it into .*kaggle_3m"):
        find_cohort(tmp_path)


def test_folders_that_are_no_cohort_get_a_sentence(brats, tmp_path):
    with pytest.raises(SettingError, match="there is no such folder"):
        find_cohort(tmp_path / "nowhere")
    with pytest.raises(SettingError, match="is a file"):
        find_cohort(brats_file(brats, "t1"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is an empty folder"):
        find_cohort(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"none of the known layouts \(BraTS 2017/2018"):
        find_cohort(tmp_path / "empty")
    with pytest.raises(DataError, match="looks like one patient's folder"):
        find_cohort(brats / "HGG" / FIRST)
    write_cohort(tmp_path / "b", "lgg", patients=1)
    with pytest.raises(DataError, match=r"2 cohorts \(b, cohort\); name one"):
        find_cohort(tmp_path)


def test_an_unknown_patient_gets_the_nearest_name(brats):
    cohort = find_cohort(brats)
    assert cohort[SECOND].id == SECOND
    with pytest.raises(DataError, match=f"has no patient 'Brats18_TEST_02_1' .* Did you mean '{SECOND}'"):
        cohort["Brats18_TEST_02_1"]


@pytest.mark.parametrize("layout", ["brats2018", "lgg"])
def test_open_patient_reads_a_patient_from_its_own_folder(tmp_path, layout):
    truths = write_cohort(tmp_path, layout, patients=2)
    folder = next(path for path in tmp_path.rglob(patient_id(layout, 0)) if path.is_dir())
    patient = open_patient(folder)
    np.testing.assert_array_equal(patient.read_images().images, truths[patient.id].images)
    with pytest.raises(DataError, match="holds no patient's files"):
        open_patient(tmp_path)


@pytest.mark.parametrize(("layout", "ending"), [("decathlon", ""), ("nnunet_v1", "_0000"), ("nnunet_v2", "_0002")])
def test_a_patient_without_a_folder_is_opened_by_an_image_file_also_of_the_test_set(tmp_path, layout, ending):
    truths = write_cohort(tmp_path, layout, patients=1)
    (tmp_path / "imagesTr").rename(tmp_path / "imagesTs")
    (name,) = truths
    patient = open_patient(tmp_path / "imagesTs" / f"{name}{ending}.nii.gz")
    np.testing.assert_array_equal(patient.read_images().images, truths[name].images)
    assert patient.id == name and [label[:2] for label in patient.labels.values] == [(1, 2), (2, 1), (3, 3)]


@pytest.mark.parametrize("depth", ["a", "a/b", "a/b/c"])
def test_a_cohort_is_found_up_to_three_levels_down(tmp_path, depth):
    write_cohort(tmp_path / depth, "brats2021", patients=1)
    assert find_cohort(tmp_path).folder == tmp_path / depth


def bids(folder):
    for name in ("sub-01", "sub-02"):
        for ending in ("T1w", "FLAIR"):
            save(folder / name / "ses-1/anat" / f"{name}_ses-1_{ending}.nii.gz", np.ones((4, 4, 4), np.int16))


def images_without_json(folder):
    write_cohort(folder, "nnunet_v2", patients=1)
    (folder / "dataset.json").unlink()


def nnunet_in_mha(folder):
    for path in [*write_cohort(folder, "nnunet_v2", patients=1), *(folder / "imagesTr").iterdir()][1:]:
        path.rename(path.with_name(path.name.replace(".nii.gz", ".mha")))


def flat(folder):
    for index in range(10):
        save(folder / f"P{index}_t1.nii.gz", np.ones((4, 4, 4), np.int16))


def written(name):
    def write(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("scan")

    return write


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (bids, "is a BIDS tree, which is read with a cohort.yaml"),
        (images_without_json, "has imagesTr but no dataset.json"),
        (nnunet_in_mha, "imagesTr: holds .mha files, but only NIfTI is read"),
        (flat, "holds 10 scans side by side; put the files of each patient into a folder of its own"),
        (written("P1/P1_t1.mha"), r"holds \.mha files, but scans are read as NIfTI .* convert them"),
        (written("P1/1.dcm"), r"holds \.dcm files.*dcm2niix"),
    ],
)
def test_other_layouts_are_named_with_what_to_do(tmp_path, write, sentence):
    write(tmp_path)
    with pytest.raises(DataError, match=sentence):
        find_cohort(tmp_path)


def test_nnunet_files_that_are_no_nifti_and_labels_without_a_meaning_are_named(tmp_path):
    (name,) = write_cohort(tmp_path, "nnunet_v2", patients=1)
    for changes, sentence in (
        ({"file_ending": ".mha"}, "file_ending is .mha, but only NIfTI is read"),
        ({"labels": {"background": 0, "rim": 1, "centre": 2}}, "the label 1 is called 'rim', .* write a cohort.yaml"),
        ({"labels": {"background": 0, "all": [1, 2]}}, "the region 'all' could mean several things"),
        ({"labels": {"background": 0, "whole tumor": [1, 3], "tumor core": 2}}, "2 is in tumor_core but not in whole"),
        ({"labels": {"background": 0, "oedema": "one"}}, "the label 'oedema' is 'one', expected whole numbers"),
        ({"channel_names": {}, "modality": {}}, "expected channel_names and labels as nnU-Net writes them"),
    ):
        write_dataset_json(tmp_path, [name], **{"channel_names": {"0": "FLAIR"}, **changes})
        with pytest.raises(DataError, match=sentence):
            find_cohort(tmp_path)


def test_brats_tasks_with_other_label_values_are_refused_until_the_user_says_what_they_are(tmp_path):
    write_cohort(tmp_path, "brats2023", patients=1)
    old, new = patient_id("brats2023", 0), "BraTS-PED-00001-000"
    for file in (tmp_path / old).iterdir():
        file.rename(file.with_name(file.name.replace(old, new)))
    (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(DataError, match="is of the BraTS task PED: paediatric tumours, whose values are 1 enhancing"):
        find_cohort(tmp_path)
    (tmp_path / "cohort.yaml").write_text("labels: {1: enhancing, 2: non_enhancing, 3: background, 4: oedema}")
    (patient,) = find_cohort(tmp_path).patients
    assert [label[:2] for label in patient.labels.values] == [(1, 3), (2, 1), (3, 0), (4, 2)]
    change(patient.mask_files[0], lambda mask: np.array([0, 2, 4, 1], np.uint8)[mask])
    np.testing.assert_array_equal(patient.read_labels(), make_truth(0).labels)


def test_a_missing_sequence_stops_the_strict_search_and_points_to_check_data(brats):
    brats_file(brats, "t1").unlink()
    brats_file(brats, "flair", SECOND, "LGG").unlink()
    with pytest.raises(DataError, match=r"T1 is missing.*1 more problems; `python -m mixsup_lib check-data"):
        find_cohort(brats)
    cohort = find_cohort(brats, strict=False)
    assert [problem.patient for problem in cohort.problems] == [FIRST, SECOND]


def test_a_file_or_a_patient_that_is_there_twice_is_refused(brats, tmp_path):
    path = brats_file(brats, "t1")
    plain = path.with_name(f"{FIRST}_t1.nii")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(DataError, match=f"holds both {FIRST}_t1.nii.gz and {FIRST}_t1.nii; keep one"):
        find_cohort(brats)
    plain.unlink()
    shutil.copytree(brats / "HGG" / FIRST, brats / "LGG" / FIRST)
    with pytest.raises(DataError, match=f"the patient ID {FIRST} occurs 2 times"):
        find_cohort(brats)
    (name,) = write_cohort(tmp_path / "decathlon", "decathlon", patients=1)
    write_dataset_json(tmp_path / "decathlon", [name, name])
    with pytest.raises(DataError, match=f"the patient ID {name} occurs 2 times"):
        find_cohort(tmp_path / "decathlon")


def test_files_and_folders_in_the_wrong_place_are_named(brats):
    (brats / "HGG" / "notes").mkdir()
    (brats / "HGG" / "notes" / "readme.txt").write_text("hello")
    (brats / "HGG" / ".hidden").mkdir()
    (problem,) = find_cohort(brats).problems
    assert (problem.severity, problem.file) == ("warning", "HGG/notes")
    (brats / "LGG" / "Brats18_EMPTY_1").mkdir()
    with pytest.raises(DataError, match="LGG/Brats18_EMPTY_1: is an empty folder"):
        find_cohort(brats)
    (brats / "LGG" / "Brats18_EMPTY_1").rmdir()
    path = brats_file(brats, "t1")
    moved = path.rename(path.with_name(f"{SECOND}_t1.nii.gz"))
    with pytest.raises(DataError, match=f"is missing, but {SECOND}_t1.nii.gz is there; .* rename it to {FIRST}_t1"):
        find_cohort(brats)
    moved.rename(path)
    shutil.move(brats / "HGG" / FIRST, brats / FIRST)
    with pytest.raises(DataError, match="lies beside HGG/ and LGG/"):
        find_cohort(brats)


SPELLINGS = {
    "capitals": {"_flair": "_FLAIR", "_t1ce": "_T1CE", "_t1": "_T1", "_t2": "_T2", "_seg": "_SEG"},
    "UPENN-GBM": {"_flair": "_FLAIR", "_t1ce": "_T1GD", "_t1": "_T1", "_t2": "_T2", "_seg": "_segm"},
    "T1Gd": {"_t1ce": "_t1Gd"},
    "the suffix too": {"_t2": "_T2.NII"},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_other_spellings_of_the_files_are_read(tmp_path, spelling):
    truths = write_cohort(tmp_path, "brats2021", patients=1)
    for old, new in SPELLINGS[spelling].items():
        path = brats_file(tmp_path, old[1:], *truths, grade=".")
        name = path.name.replace(f"{old}.", f"{new}.")
        path.rename(path.with_name(name.replace(".NII.nii.gz", ".NII.GZ")))
    case = find_cohort(tmp_path).patients[0].read()
    np.testing.assert_array_equal(case.images, truths[case.patient].images)
    np.testing.assert_array_equal(case.labels, truths[case.patient].labels)


def test_folders_with_a_files_name_broken_links_and_what_macos_packs_are_told_for_what_they_are(brats):
    (brats / "HGG" / "__MACOSX").mkdir()
    path = brats_file(brats, "t1")
    moved = path.rename(path.with_name("moved"))
    path.mkdir()
    moved.rename(path / "inside.nii.gz")
    mask = brats_file(brats, "seg")
    mask.unlink()
    mask.symlink_to("nowhere")
    found = {problem.file: problem.problem for problem in find_cohort(brats, strict=False).problems}
    assert found == {
        path.relative_to(
            brats
        ).as_posix(): "is a folder, expected the file of sequence T1; move the file out of the folder.",
        mask.relative_to(brats).as_posix(): "is a broken link; get the file it points to, or delete the link.",
    }


def test_grade_folders_in_small_letters_and_a_description_of_another_name_are_seen(brats):
    (brats / "HGG").rename(brats / "hgg")
    (brats / "cohort.yml").write_text("labels: {1: lesion}")
    cohort = find_cohort(brats)
    assert [patient.id for patient in cohort.patients] == [FIRST, SECOND]
    assert [str(problem) for problem in cohort.problems] == [
        "cohort.yml: is not read; if it describes the cohort, rename it to cohort.yaml."
    ]


def test_a_copy_of_a_file_and_two_spellings_of_it_are_named_once(brats):
    path = brats_file(brats, "t1ce")
    copy = path.rename(path.with_name(f"{FIRST}_t1ce (1).nii.gz"))
    (problem,) = find_cohort(brats, strict=False).problems
    assert f"but {copy.name} is there; if that is this patient's, rename it to {FIRST}_t1ce.nii.gz" in str(problem)
    copy.rename(path.with_name(f"{FIRST}_T1c.nii.gz"))
    shutil.copy(path.with_name(f"{FIRST}_T1c.nii.gz"), path.with_name(f"{FIRST}_T1Gd.nii.gz"))
    with pytest.raises(DataError, match=f"holds both {FIRST}_T1Gd.nii.gz and {FIRST}_T1c.nii.gz; keep one"):
        find_cohort(brats)


@pytest.mark.parametrize("layout", ["brats2021", "lgg", "decathlon"])
def test_names_are_the_same_however_unicode_writes_their_accents(tmp_path, layout):
    (old,) = write_cohort(tmp_path, layout, patients=1)
    apart, one = unicodedata.normalize("NFD", "Müller"), "Müller"
    for path in sorted(tmp_path.rglob(f"{old}*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.replace(old, one if layout == "decathlon" else apart)))
    if layout == "decathlon":
        write_dataset_json(tmp_path, [apart])
    (tmp_path / "slice_labels.csv").write_text(f"patient,class,first_z,last_z\n{apart},none,,\n", encoding="utf-8")
    (tmp_path / "list.txt").write_text(apart, encoding="utf-8")
    cohort = find_cohort(tmp_path)
    assert cohort[one].read_images().images.any() and cohort[one].mask_files
    assert list(read_slice_labels(tmp_path)["patient"]) == [one]
    assert read_patient_list(tmp_path / "list.txt", [one]) == ([one], [])


# Faulty files


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def put(value):
    def function(array):
        array = array.astype(np.float32)
        array[8, 8, 6] = value
        return array

    return lambda path: change(path, function)


def move(path, millimetres=3.0):
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += millimetres
    save(path, np.asanyarray(image.dataobj), affine)


def no_orientation(path):
    image = nib.Nifti1Image(np.asanyarray(nib.load(path).dataobj), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = image.header["srow_y"] = image.header["srow_z"] = 0
    nib.save(image, path)


FAULTS = {
    "missing sequence": ("t2", lambda path: path.unlink(), r"_t2\.nii\.gz: sequence T2 is missing"),
    "truncated gzip": ("t1", truncate, r"_t1\.nii\.gz: is cut off before its end"),
    "not gzip": ("t1", lambda path: path.write_text("hello"), "is not a readable NIfTI file"),
    "not NIfTI": ("t1", lambda path: path.write_bytes(gzip.compress(b"x" * 999)), "is not a readable NIfTI file"),
    "other shape": ("t1ce", lambda path: change(path, lambda a: a[:, :, 1:]), "T1c has shape 16x16x11, .* 16x16x12"),
    "one axis too many": ("t1", lambda path: change(path, lambda a: np.stack([a, a], -1)), "expected 3 axes"),
    "affine mismatch": ("t2", move, "T2 has an affine that puts it 3 mm away from sequence FLAIR"),
    "the one that differs": ("flair", move, "sequence FLAIR has an affine .* away from sequence T1"),
    "affine not invertible": ("t2", no_orientation, "affine is not invertible"),
    "NaN": ("flair", put(np.nan), "FLAIR holds 1 voxels that are NaN or infinite"),
    "all-zero volume": ("t1", lambda path: change(path, np.zeros_like), r"T1 is empty \(every voxel is 0\)"),
    "complex values": ("t1", lambda path: change(path, lambda a: a.astype(np.complex64)), "expected plain numbers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_image_gets_one_clear_sentence(brats, name):
    ending, fault, sentence = FAULTS[name]
    fault(brats_file(brats, ending))
    broken, sound = find_cohort(brats, strict=False).patients
    with pytest.raises(DataError, match=sentence) as caught:
        broken.read_images()
    assert str(caught.value).startswith(f"HGG/{FIRST}/")  # relative to the cohort folder
    assert len(str(caught.value).splitlines()) == 1
    sound.read()


MASK_FAULTS = {
    "unknown label": ("brats2021", put(3), "unknown label value 3; this layout has 0, 1, 2, 4"),
    "unknown label from 2023 on": ("brats2023", put(4), "unknown label value 4"),
    "fractional label": ("brats2021", put(1.5), "unknown label value 1.5"),
    "other shape": ("brats2021", lambda path: change(path, lambda a: a[1:]), r"seg\.nii\.gz: has shape 15x16x12"),
    "affine mismatch": ("brats2021", move, r"seg\.nii\.gz: has an affine that puts it 3 mm away"),
}


@pytest.mark.parametrize("name", MASK_FAULTS)
def test_a_faulty_mask_gets_one_clear_sentence_and_leaves_the_images_usable(tmp_path, name):
    layout, fault, sentence = MASK_FAULTS[name]
    write_cohort(tmp_path, layout, patients=1)
    (patient,) = find_cohort(tmp_path).patients
    fault(patient.mask_files[0])
    patient.read_images()
    with pytest.raises(DataError, match=sentence):
        patient.read_labels()


def test_rounding_of_an_affine_is_no_mismatch_and_the_other_name_of_a_mask_of_2020_is_known(tmp_path):
    (name,) = write_cohort(tmp_path, "brats2021", patients=1)
    (patient,) = find_cohort(tmp_path).patients
    labels = patient.read_labels()
    move(patient.image_files[3], 1e-4)
    patient.read_images()
    patient.mask_files[0].rename(tmp_path / name / "W39_1998.09.19_Segm.nii.gz")
    np.testing.assert_array_equal(find_cohort(tmp_path).patients[0].read_labels(), labels)


@pytest.mark.parametrize(
    "place",
    [
        "Slice_Labels.csv",
        "slice_labels.csv.txt",
        "slice labels.xlsx",
        "HGG/slice_labels.csv",
        f"HGG/{FIRST}/slice_labels.csv",
    ],
)
def test_slice_labels_of_another_name_or_place_are_mentioned(brats, place):
    (brats / "slice_labels.csv").write_text("patient,class,first_z,last_z\n")
    assert find_cohort(brats).problems == ()
    (brats / "slice_labels.csv").rename(brats / place)
    (problem,) = find_cohort(brats).problems
    assert (problem.file, problem.severity) == (place, "warning") and "it has to be" in problem.problem


def test_a_file_is_read_by_its_content_whatever_its_ending(tmp_path):
    (name,) = (truths := write_cohort(tmp_path, "brats2021", patients=1))
    (patient,) = find_cohort(tmp_path).patients
    first, second, third, _ = patient.image_files
    first.write_bytes(gzip.decompress(first.read_bytes()))  # plain, called .nii.gz
    second.rename(second.with_suffix(""))  # packed, called .nii
    nib.save(nib.Nifti2Image.from_image(nib.load(third)), third)
    nib.save(nib.Nifti2Image.from_image(nib.load(patient.mask_files[0])), patient.mask_files[0])
    case = find_cohort(tmp_path)[name].read()
    np.testing.assert_array_equal(case.images, truths[name].images)
    np.testing.assert_array_equal(case.labels, truths[name].labels)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "t1.nii.gz: is an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git-lfs pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>403 Forbidden</html>", "is a web page, .*sign in"),
        (None, "is a broken link"),
    ],
)
def test_what_stands_in_the_place_of_a_scan_is_named_for_what_it_is(tmp_path, content, sentence):
    write_cohort(tmp_path, "brats2021", patients=1)
    file = find_cohort(tmp_path).patients[0].image_files[1]
    file.unlink()
    if content is None:
        file.symlink_to("annex/object")
    else:
        file.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        find_cohort(tmp_path).patients[0].read_images()
    (problem,) = check_cohort(tmp_path)["problem"]
    assert re.search(sentence.rpartition(": ")[2], problem)


def test_labels_that_a_scale_factor_rounds_are_the_labels(tmp_path):
    (name,) = write_cohort(tmp_path, "brats2021", patients=1)
    (patient,) = find_cohort(tmp_path).patients
    labels = patient.read_labels()
    file = patient.mask_files[0]
    scaled = nib.Nifti1Image(nib.load(file).get_fdata(), nib.load(file).affine)
    scaled.set_data_dtype(np.int16)  # nibabel chooses a scale factor, so that 1 comes back as 1.00002
    nib.save(scaled, file)
    assert not np.isin(nib.load(file).get_fdata(), (0, 1, 2, 4)).all()
    np.testing.assert_array_equal(patient.read_labels(), labels)
    change(file, lambda array: np.where(array > 3.9, 3.98, array).astype(np.float32))
    with pytest.raises(DataError, match="unknown label value 3.98"):
        patient.read_labels()


# The Decathlon


def test_decathlon_channels_and_labels_are_matched_by_name(tmp_path):
    truths = write_cohort(tmp_path, "decathlon", patients=2)
    for name in truths:
        change(tmp_path / f"imagesTr/{name}.nii.gz", lambda array: array[..., [2, 3, 0, 1]])
        change(tmp_path / f"labelsTr/{name}.nii.gz", lambda array: np.array([0, 3, 1, 2], np.uint8)[array])
    write_dataset_json(
        tmp_path,
        list(truths),
        modality={"0": "t1gd", "1": "T2w", "2": "FLAIR", "3": "T1w"},
        labels={"0": "background", "3": "edema", "1": "non-enhancing tumor", "2": "enhancing tumour"},
    )
    for patient in find_cohort(tmp_path).patients:
        case = patient.read()
        np.testing.assert_array_equal(case.images, truths[patient.id].images)
        np.testing.assert_array_equal(case.labels, truths[patient.id].labels)


def test_decathlon_paths_do_not_leave_the_cohort_folder(tmp_path):
    truths = write_cohort(tmp_path / "cohort", "decathlon", patients=1)
    shutil.copy(tmp_path / f"cohort/imagesTr/{next(iter(truths))}.nii.gz", tmp_path / "outside.nii.gz")
    for entry in ("../outside.nii.gz", "/etc/outside.nii.gz", "imagesTr/../../outside.nii.gz"):
        write_dataset_json(tmp_path / "cohort", [], training=[{"image": entry, "label": entry}])
        with pytest.raises(DataError, match="lies outside the cohort folder"):
            find_cohort(tmp_path / "cohort")


def test_a_faulty_dataset_json_gets_a_sentence(tmp_path):
    (name,) = write_cohort(tmp_path, "decathlon", patients=1)
    for changes, sentence in (
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "DWI", "3": "T2w"}}, "unknown channel name 'DWI'"),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "T1w", "3": "T2w"}}, "expected each channel from 0 once"),
        ({"labels": {"0": "background", "1": "oedema", "2": "rim"}}, "label 2 is called 'rim', which could"),
        ({"labels": {"0": "background"}}, "expected background as 0 and a tumour class"),
        ({"training": "all"}, "expected modality, labels and training"),
    ):
        write_dataset_json(tmp_path, [name], **changes)
        with pytest.raises(DataError, match=sentence):
            find_cohort(tmp_path)
    write_dataset_json(tmp_path, [name])
    content = (tmp_path / "dataset.json").read_text()
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8-sig")  # as Windows' editor saves it
    change(tmp_path / f"imagesTr/{name}.nii.gz", lambda array: array[..., :3])
    with pytest.raises(DataError, match="has 3 channels, expected the 4 of dataset.json"):
        find_cohort(tmp_path).patients[0].read_images()


# LGG


def test_lgg_slices_are_ordered_by_number_not_as_text(lgg):
    patient = find_cohort(lgg).patients[0]
    for path in patient.image_files:
        number = int(path.stem.rsplit("_", 1)[1])
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(path)
    np.testing.assert_array_equal(patient.read_images().images[0, 0, 0], np.arange(1, 13))


def tiff(shape, value=0):
    return Image.fromarray(np.full(shape, value, np.uint8))


LGG_FAULTS = {
    "gap": (lambda p: p.image_files[4].unlink(), "slice 5 is missing between 1 and 12"),
    "not an image": (lambda p: p.image_files[4].write_text("x"), r"_5\.tif: is not a readable TIFF file"),
    "other size": (
        lambda p: tiff((16, 18, 3), 1).save(p.image_files[4]),
        r"_5\.tif: has 18x16 pixels, the patient's other slices 16x16 pixels",
    ),
    "one channel": (lambda p: tiff((16, 16)).save(p.image_files[4]), "has 1 channels of type uint8, expected 3"),
    "empty": (lambda p: [tiff((16, 16, 3)).save(f) for f in p.image_files], "sequence FLAIR is empty"),
    "mask missing": (lambda p: p.mask_files[4].unlink(), "slice 5 has no mask file"),
    "one mask too many": (
        lambda p: shutil.copy(p.mask_files[0], str(p.mask_files[0]).replace("_1_mask", "_99_mask")),
        "mask 99 belongs to no slice",
    ),
    "unknown mask value": (lambda p: tiff((16, 16), 7).save(p.mask_files[4]), "unknown label value 7; .* has 0, 255"),
    "other size of masks": (
        lambda p: [tiff((16, 18)).save(f) for f in p.mask_files],
        "has masks of 18x16 pixels for slices of 16x16 pixels",
    ),
}


@pytest.mark.parametrize("name", LGG_FAULTS)
def test_a_faulty_tiff_gets_one_clear_sentence(lgg, name):
    fault, sentence = LGG_FAULTS[name]
    fault(find_cohort(lgg).patients[0])
    patient = find_cohort(lgg, strict=False).patients[0]
    if "mask" in name:
        patient.read_images()
    with pytest.raises(DataError, match=sentence):
        patient.read()


def test_a_tiff_slice_that_is_there_twice_or_misnamed_is_refused(lgg):
    first = find_cohort(lgg).patients[0].image_files[0]
    double = first.with_name(first.name.replace("_1.tif", "_01.tif"))
    shutil.copy(first, double)
    with pytest.raises(DataError, match="holds slice 1 twice"):
        find_cohort(lgg)
    double.rename(first.with_name("other_1.tif"))
    with pytest.raises(DataError, match="other_1.tif: is not named .* after its folder"):
        find_cohort(lgg)


def test_nibabels_own_lines_do_not_stand_between_ours(tmp_path, monkeypatch):
    write_cohort(tmp_path, "brats2021", patients=1, suffix=".nii")
    path = find_cohort(tmp_path).patients[0].image_files[0]
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(-1).tobytes()  # pixdim[1], a length
    path.write_bytes(content)
    printed = io.StringIO()
    monkeypatch.setattr(nib.imageglobals.logger.handlers[0], "stream", printed)
    check_cohort(tmp_path)
    assert printed.getvalue() == ""
