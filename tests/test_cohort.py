"""Every layout is read as its truth, and bad input gets one clear sentence."""

from __future__ import annotations

import gzip
import itertools
import pickle
import shutil

import nibabel as nib
import numpy as np
import pytest
from cohorts import LAYOUTS, NAMES, change, patient_id, save, write_cohort, write_dataset_json
from PIL import Image

from mixsup_lib.datasets import find_cohort, open_patient
from mixsup_lib.datasets.nifti import from_lps
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.paper import SEQUENCES, TASKS

FIRST = patient_id("brats2018", 0)
SECOND = patient_id("brats2018", 1)


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


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_its_truth(tmp_path, layout, suffix):
    truths = write_cohort(tmp_path, layout, patients=3, suffix=suffix)
    cohort = find_cohort(tmp_path)
    assert cohort.layout == NAMES[layout]
    assert cohort.folder == tmp_path
    assert cohort.problems == ()
    assert [patient.id for patient in cohort.patients] == sorted(truths)
    for patient in cohort.patients:
        case = patient.read()
        np.testing.assert_array_equal(case.images, truths[patient.id].images)
        np.testing.assert_array_equal(case.labels, truths[patient.id].labels)
        assert (case.images.dtype, case.labels.dtype) == (np.float32, np.uint8)
        assert case.sequences == cohort.sequences
        assert case.patient == patient.id


@pytest.mark.parametrize("layout", LAYOUTS[:4])
def test_brats_and_decathlon_have_four_sequences_in_the_papers_order_and_every_task(tmp_path, layout):
    write_cohort(tmp_path, layout, patients=1)
    cohort = find_cohort(tmp_path)
    assert (cohort.sequences, cohort.tasks, cohort.has_empty_ends) == (SEQUENCES, TASKS, True)
    assert cohort.patients[0].read_images().voxel_size_mm == (1.0, 1.0, 1.0)


def test_lgg_has_three_sequences_one_task_and_no_spacing(lgg):
    cohort = find_cohort(lgg)
    assert (cohort.sequences, cohort.tasks) == (("FLAIR", "T1", "T1c"), ("whole_tumor",))
    assert cohort.has_empty_ends is False
    case = cohort.patients[0].read_images()
    assert case.voxel_size_mm is None
    np.testing.assert_array_equal(case.affine, np.eye(4))


def test_lgg_slices_are_ordered_by_number_not_as_text(lgg):
    patient = find_cohort(lgg).patients[0]
    for path in patient.image_files:
        number = int(path.stem.rsplit("_", 1)[1])
        Image.fromarray(np.full((16, 16, 3), number, np.uint8)).save(path)
    np.testing.assert_array_equal(patient.read_images().images[0, 0, 0], np.arange(1, 13))


def test_folder_above_the_cohort_is_accepted(tmp_path):
    write_cohort(tmp_path / "kaggle_3m", "lgg", patients=1)
    (tmp_path / "SOURCE.md").write_text("where it comes from")
    assert find_cohort(tmp_path).folder == tmp_path / "kaggle_3m"


def test_two_cohorts_in_one_folder_are_not_guessed_between(tmp_path):
    write_cohort(tmp_path / "a", "lgg", patients=1)
    write_cohort(tmp_path / "b", "brats2018", patients=1)
    with pytest.raises(DataError, match=r"2 cohorts \(a, b\); name one"):
        find_cohort(tmp_path)


def test_slice_labels_outside_the_cohort_folder_are_not_ignored(tmp_path):
    write_cohort(tmp_path / "kaggle_3m", "lgg", patients=1)
    (tmp_path / "slice_labels.csv").write_text("patient,class,first_z,last_z\n")
    with pytest.raises(DataError, match="move it into .*kaggle_3m"):
        find_cohort(tmp_path)


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_any_storage_orientation_reads_as_the_same_lps_volume_and_goes_back(tmp_path, order, signs):
    rng = np.random.default_rng(0)
    world = rng.integers(1, 100, (5, 6, 7)).astype(np.int16)  # axes LPS
    spacing = np.array([1.0, 2.0, 3.0])
    lps_affine = np.diag([-1.0, -2.0, 3.0, 1.0])
    lps_affine[:3, 3] = 10, 20, 30
    stored = world.transpose(order)
    to_lps = np.zeros((4, 4))
    to_lps[3, 3] = 1
    for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
        to_lps[source, axis] = sign
        to_lps[source, 3] = 0 if sign > 0 else world.shape[source] - 1
        stored = stored if sign > 0 else np.flip(stored, axis)
    patient = tmp_path / "P1"
    for ending in ("flair", "t1", "t1ce", "t2", "seg"):
        array = stored.copy() if ending != "seg" else (stored > 50).astype(np.uint8)
        save(patient / f"P1_{ending}.nii.gz", array, lps_affine @ to_lps)
    case = find_cohort(tmp_path).patients[0].read()
    np.testing.assert_array_equal(case.images[0], world)
    np.testing.assert_array_equal(case.labels, world > 50)
    np.testing.assert_allclose(case.affine, lps_affine)
    np.testing.assert_allclose(case.voxel_size_mm, spacing)
    np.testing.assert_allclose(case.source_affine, lps_affine @ to_lps)
    np.testing.assert_array_equal(from_lps(case.labels, case.source_affine), stored > 50)


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


@pytest.mark.parametrize(
    "entry", ["../outside.nii.gz", "/etc/outside.nii.gz", "imagesTr/../../outside.nii.gz"]
)
def test_decathlon_paths_do_not_leave_the_cohort_folder(tmp_path, entry):
    truths = write_cohort(tmp_path / "cohort", "decathlon", patients=1)
    shutil.copy(tmp_path / f"cohort/imagesTr/{next(iter(truths))}.nii.gz", tmp_path / "outside.nii.gz")
    write_dataset_json(tmp_path / "cohort", [], training=[{"image": entry, "label": entry}])
    with pytest.raises(DataError, match="lies outside the cohort folder"):
        find_cohort(tmp_path / "cohort")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "DWI", "3": "T2w"}}, "unknown channel name 'DWI'"),
        (
            {"modality": {"0": "FLAIR", "1": "T1w", "2": "T1w", "3": "T2w"}},
            "expected each channel from 0 once",
        ),
        ({"labels": {"0": "background", "1": "oedema", "2": "necrosis"}}, "unknown label name 'necrosis'"),
        ({"labels": {"0": "background", "1": "edema"}}, "three tumour classes"),
        ({"training": "all"}, "expected modality, labels and training"),
    ],
)
def test_a_faulty_dataset_json_gets_a_sentence(tmp_path, changes, sentence):
    truths = write_cohort(tmp_path, "decathlon", patients=1)
    write_dataset_json(tmp_path, list(truths), **changes)
    with pytest.raises(DataError, match=sentence):
        find_cohort(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_read_without_ever_opening_a_mask(tmp_path, layout):
    write_cohort(tmp_path, layout, patients=1)
    patient = find_cohort(tmp_path).patients[0]
    before = patient.read_images()
    for mask in patient.mask_files:
        mask.write_bytes(b"broken")
    after = find_cohort(tmp_path).patients[0].read_images()
    assert after.labels is None
    np.testing.assert_array_equal(after.images, before.images)
    with pytest.raises(DataError):
        patient.read_labels()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_patient_without_a_mask_is_found_and_only_its_labels_are_refused(tmp_path, layout):
    write_cohort(tmp_path, layout, patients=2)
    for mask in find_cohort(tmp_path).patients[0].mask_files:
        mask.unlink()
    without, with_mask = find_cohort(tmp_path).patients
    assert without.mask_files == () and with_mask.mask_files
    without.read_images()
    with pytest.raises(
        DataError, match="has no mask, but one is needed of a fully annotated or test patient"
    ):
        without.read_labels()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


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
    "corrupt gzip": ("t1", corrupt, r"_t1\.nii\.gz: is (not an intact gzip file|cut off)"),
    "truncated after the last voxel": (
        "t1",
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        r"_t1\.nii\.gz: is cut off before its end",
    ),
    "not gzip": ("t1", lambda path: path.write_text("hello"), "is not an intact gzip file"),
    "not NIfTI": (
        "t1",
        lambda path: path.write_bytes(gzip.compress(b"x" * 999)),
        "is not a readable NIfTI file",
    ),
    "empty file": ("t1", lambda path: path.write_bytes(b""), r"_t1\.nii\.gz: is"),
    "other shape": (
        "t1ce",
        lambda path: change(path, lambda a: a[:, :, 1:]),
        "T1c has shape 16x16x11, but .* 16x16x12",
    ),
    "one axis too many": ("t1", lambda path: change(path, lambda a: np.stack([a, a], -1)), "expected 3 axes"),
    "affine mismatch": ("t2", move, "T2 has an affine that puts it 3 mm away from sequence FLAIR"),
    "affine not invertible": ("t2", no_orientation, "affine is not invertible"),
    "NaN": ("flair", put(np.nan), "FLAIR holds 1 voxels that are NaN or infinite"),
    "infinity": ("flair", put(np.inf), "FLAIR holds 1 voxels that are NaN or infinite"),
    "all-zero volume": ("t1", lambda path: change(path, np.zeros_like), r"T1 is empty \(every voxel is 0\)"),
    "complex values": (
        "t1",
        lambda path: change(path, lambda a: a.astype(np.complex64)),
        "expected plain numbers",
    ),
}
MASK_FAULTS = {
    "unknown label": (put(3), "unknown label value 3; this layout has 0, 1, 2, 4"),
    "fractional label": (put(1.5), "unknown label value 1.5"),
    "NaN label": (put(np.nan), "unknown label value nan"),
    "other shape": (lambda path: change(path, lambda a: a[1:]), r"seg\.nii\.gz: has shape 15x16x12"),
    "affine mismatch": (move, r"seg\.nii\.gz: has an affine that puts it 3 mm away"),
    "truncated": (truncate, r"seg\.nii\.gz: is cut off"),
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


@pytest.mark.parametrize("name", MASK_FAULTS)
def test_a_faulty_mask_gets_one_clear_sentence_and_leaves_the_images_usable(brats, name):
    fault, sentence = MASK_FAULTS[name]
    fault(brats_file(brats, "seg"))
    patient = find_cohort(brats)[FIRST]
    patient.read_images()
    with pytest.raises(DataError, match=sentence):
        patient.read_labels()


def test_the_sequence_that_differs_from_the_others_is_the_one_named(brats):
    move(brats_file(brats, "flair"))
    with pytest.raises(
        DataError, match="flair.nii.gz: sequence FLAIR has an affine .* away from sequence T1"
    ):
        find_cohort(brats)[FIRST].read_images()


def test_rounding_of_an_affine_is_no_mismatch(brats):
    move(brats_file(brats, "t2"), 1e-4)
    find_cohort(brats)[FIRST].read_images()


def test_label_3_is_unknown_before_2023_and_label_4_from_2023_on(tmp_path):
    for layout, value in (("brats2021", 3), ("brats2023", 4)):
        write_cohort(tmp_path / layout, layout, patients=1)
        patient = find_cohort(tmp_path / layout).patients[0]
        put(value)(patient.mask_files[0])
        with pytest.raises(DataError, match=f"unknown label value {value}"):
            patient.read_labels()


def test_a_missing_sequence_stops_the_strict_search_and_points_to_check_data(brats):
    brats_file(brats, "t1").unlink()
    brats_file(brats, "flair", SECOND, "LGG").unlink()
    with pytest.raises(DataError, match=r"T1 is missing.*1 more problems; `python -m mixsup_lib check-data"):
        find_cohort(brats)
    cohort = find_cohort(brats, strict=False)
    assert [problem.patient for problem in cohort.problems] == [FIRST, SECOND]


def test_the_same_id_in_both_grades_is_refused(brats):
    shutil.copytree(brats / "HGG" / FIRST, brats / "LGG" / FIRST)
    with pytest.raises(DataError, match=f"the patient ID {FIRST} occurs 2 times"):
        find_cohort(brats)


def test_an_image_listed_twice_is_refused(tmp_path):
    (name,) = write_cohort(tmp_path, "decathlon", patients=1)
    write_dataset_json(tmp_path, [name, name])
    with pytest.raises(DataError, match=f"the patient ID {name} occurs 2 times"):
        find_cohort(tmp_path)


def test_a_file_that_is_there_twice_is_refused(brats):
    path = brats_file(brats, "t1")
    path.with_name(f"{FIRST}_t1.nii").write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(DataError, match=f"holds both {FIRST}_t1.nii.gz and {FIRST}_t1.nii; keep one"):
        find_cohort(brats)


def test_a_file_named_after_another_patient_is_refused(brats):
    path = brats_file(brats, "t1")
    path.rename(path.with_name(f"{SECOND}_t1.nii.gz"))
    with pytest.raises(
        DataError, match=f"not named after its folder; if it belongs there, name it {FIRST}_t1"
    ):
        find_cohort(brats)


def test_an_empty_patient_folder_is_refused_and_other_folders_are_passed_over(brats):
    (brats / "HGG" / "notes").mkdir()
    (brats / "HGG" / "notes" / "readme.txt").write_text("hello")
    (brats / "HGG" / ".hidden").mkdir()
    (problem,) = find_cohort(brats).problems
    assert (problem.severity, problem.file) == ("warning", "HGG/notes")
    (brats / "LGG" / "Brats18_EMPTY_1").mkdir()
    with pytest.raises(DataError, match="LGG/Brats18_EMPTY_1: is an empty folder"):
        find_cohort(brats)


def test_a_patient_beside_the_grade_folders_is_refused(brats):
    shutil.move(brats / "HGG" / FIRST, brats / FIRST)
    with pytest.raises(DataError, match="lies beside HGG/ and LGG/"):
        find_cohort(brats)


def test_the_differently_named_mask_of_brats_2020_is_found(tmp_path):
    (name,) = write_cohort(tmp_path, "brats2021", patients=1)
    labels = find_cohort(tmp_path).patients[0].read_labels()
    mask = tmp_path / name / f"{name}_seg.nii.gz"
    mask.rename(mask.with_name("W39_1998.09.19_Segm.nii.gz"))
    np.testing.assert_array_equal(find_cohort(tmp_path).patients[0].read_labels(), labels)


LGG_FAULTS = {
    "gap": (lambda p: p.image_files[4].unlink(), "slice 5 is missing between 1 and 12"),
    "not an image": (lambda p: p.image_files[4].write_text("x"), r"_5\.tif: is not a readable TIFF file"),
    "truncated": (
        lambda p: p.image_files[4].write_bytes(p.image_files[4].read_bytes()[:300]),
        r"_5\.tif: is not a",
    ),
    "other size": (
        lambda p: Image.fromarray(np.ones((16, 18, 3), np.uint8)).save(p.image_files[4]),
        r"_5\.tif: has 18x16 pixels, the patient's other slices 16x16 pixels",
    ),
    "one channel": (
        lambda p: Image.fromarray(np.ones((16, 16), np.uint8)).save(p.image_files[4]),
        "has 1 channels of type uint8, expected 3",
    ),
    "empty": (
        lambda p: [Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(f) for f in p.image_files],
        "sequence FLAIR is empty",
    ),
}
LGG_MASK_FAULTS = {
    "missing slice": (lambda p: p.mask_files[4].unlink(), "slice 5 has no mask file"),
    "one too many": (
        lambda p: shutil.copy(p.mask_files[0], str(p.mask_files[0]).replace("_1_mask", "_99_mask")),
        "mask 99 belongs to no slice",
    ),
    "unknown value": (
        lambda p: Image.fromarray(np.full((16, 16), 7, np.uint8)).save(p.mask_files[4]),
        "unknown label value 7; this layout has 0, 255",
    ),
    "other size": (
        lambda p: [Image.fromarray(np.zeros((16, 18), np.uint8)).save(f) for f in p.mask_files],
        "has masks of 18x16 pixels for slices of 16x16 pixels",
    ),
}


@pytest.mark.parametrize("name", LGG_FAULTS)
def test_a_faulty_tiff_gets_one_clear_sentence(lgg, name):
    fault, sentence = LGG_FAULTS[name]
    fault(find_cohort(lgg).patients[0])
    with pytest.raises(DataError, match=sentence):
        find_cohort(lgg, strict=False).patients[0].read_images()


@pytest.mark.parametrize("name", LGG_MASK_FAULTS)
def test_a_faulty_tiff_mask_gets_one_clear_sentence(lgg, name):
    fault, sentence = LGG_MASK_FAULTS[name]
    fault(find_cohort(lgg).patients[0])
    patient = find_cohort(lgg).patients[0]
    patient.read_images()
    with pytest.raises(DataError, match=sentence):
        patient.read_labels()


def test_a_tiff_slice_that_is_there_twice_or_misnamed_is_refused(lgg):
    first = find_cohort(lgg).patients[0].image_files[0]
    double = first.with_name(first.name.replace("_1.tif", "_01.tif"))
    shutil.copy(first, double)
    with pytest.raises(DataError, match="holds slice 1 twice"):
        find_cohort(lgg)
    double.rename(first.with_name("other_1.tif"))
    with pytest.raises(DataError, match="other_1.tif: is not named .* after its folder"):
        find_cohort(lgg)


def test_a_decathlon_image_with_too_few_channels_is_a_missing_sequence(tmp_path):
    (name,) = write_cohort(tmp_path, "decathlon", patients=1)
    change(tmp_path / f"imagesTr/{name}.nii.gz", lambda array: array[..., :3])
    with pytest.raises(DataError, match="has 3 channels, expected the 4 of dataset.json"):
        find_cohort(tmp_path).patients[0].read_images()


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


def test_an_unknown_patient_gets_the_nearest_name(brats):
    cohort = find_cohort(brats)
    assert cohort[SECOND].id == SECOND
    with pytest.raises(DataError, match=f"has no patient 'Brats18_TEST_02_1' .* Did you mean '{SECOND}'"):
        cohort["Brats18_TEST_02_1"]


@pytest.mark.parametrize("layout", ["brats2018", "brats2023", "lgg"])
def test_open_patient_reads_a_patient_from_its_own_folder(tmp_path, layout):
    truths = write_cohort(tmp_path, layout, patients=2)
    folder = next(path for path in tmp_path.rglob(patient_id(layout, 0)) if path.is_dir())
    patient = open_patient(folder)
    np.testing.assert_array_equal(patient.read_images().images, truths[patient.id].images)
    with pytest.raises(DataError, match="holds no patient's files"):
        open_patient(tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patients_travel_to_worker_processes(tmp_path, layout):
    write_cohort(tmp_path, layout, patients=1)
    patient = find_cohort(tmp_path).patients[0]
    assert pickle.loads(pickle.dumps(patient)) == patient
