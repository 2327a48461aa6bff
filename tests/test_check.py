"""check-data lists every problem of a cohort in one pass, and what may identify a person."""

from __future__ import annotations

import gzip
import io
import shutil
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from cohorts import LAYOUTS, change, patient_id, save, write_cohort, write_dataset_json
from PIL import Image

from mixsup_lib.__main__ import main as command_line
from mixsup_lib.check import check_cohort, format_problems, identifying
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.nifti import NiftiPatient
from mixsup_lib.datasets.slice_labels import FILE_NAME
from mixsup_lib.evaluation import save_nifti
from mixsup_lib.files import SettingError

HEADER = "patient,class,first_z,last_z\n"


def file_of(folder, index, ending):
    """A file of patient `index` in a BraTS 2018 cohort."""
    name = patient_id("brats2018", index)
    return folder / ("HGG", "LGG")[index % 2] / name / f"{name}_{ending}.nii.gz"


def set_voxel(path, value):
    def function(array):
        array = np.array(array, np.float32)
        array[8, 8, 6] = value
        return array

    change(path, function)


def only_problem(folder):
    table = check_cohort(folder)
    assert len(table) == 1, format_problems(table)
    return table.iloc[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sound_cohort_has_no_problem_and_a_patient_needs_a_mask_or_slice_labels(tmp_path, layout, capsys):
    write_cohort(tmp_path, layout, patients=2)
    table = check_cohort(tmp_path)
    assert table.empty and list(table.columns) == ["patient", "file", "severity", "problem"]
    assert command_line(["check-data", str(tmp_path)]) == 0
    assert "No problem found." in capsys.readouterr().out

    patient, other = find_cohort(tmp_path).patients
    for mask in patient.mask_files:
        mask.unlink()
    table = check_cohort(tmp_path)
    assert table["severity"].tolist() == ["error", "note"]
    assert "has neither a mask nor a row in slice_labels.csv" in table["problem"][0]
    assert "1 of 2 patients have no mask: they can only be weakly annotated" in table["problem"][1]

    (tmp_path / FILE_NAME).write_text(f"{HEADER}{patient.id},whole_tumor,3,4\n")
    table = check_cohort(tmp_path)
    assert table["severity"].tolist() == ["warning", "note"]
    assert table["patient"][0] == other.id and "has no row for this patient" in table["problem"][0]
    for mask in other.mask_files:
        mask.unlink()
    (tmp_path / FILE_NAME).write_text(f"{HEADER}{patient.id},whole_tumor,3,4\n{other.id},none,,\n")
    assert only_problem(tmp_path)["severity"] == "note" and command_line(["check-data", str(tmp_path)]) == 0
    (tmp_path / FILE_NAME).write_text(f"{HEADER}{patient.id},whole_tumor,3,12\n")
    assert "whole_tumor has slices 3 to 12, but the volume has 0 to 11" in check_cohort(tmp_path)["problem"][0]


def test_every_fault_of_a_folder_is_named_two_of_one_patient_too(tmp_path, capsys):
    write_cohort(tmp_path, "brats2018", patients=12)
    expected = {}

    def expect(index, ending, sentence):
        path = file_of(tmp_path, index, ending)
        expected[path.relative_to(tmp_path).as_posix()] = sentence
        return path

    expect(0, "t2", "sequence T2 is missing").unlink()
    set_voxel(expect(0, "seg", "unknown label value 9"), 9)
    path = expect(1, "t1", "is cut off before its end")
    path.write_bytes(path.read_bytes()[:-100])
    change(expect(2, "t1ce", "sequence T1c has shape 16x16x11"), lambda array: array[:, :, :-1])
    path = expect(3, "t2", "sequence T2 has an affine that puts it 5 mm away")
    image = nib.load(path)
    save(path, np.asanyarray(image.dataobj), image.affine + 5 * np.eye(4, k=3))
    set_voxel(expect(4, "seg", "unknown label value 3"), 3)
    set_voxel(expect(5, "flair", "1 voxels that are NaN or infinite"), np.nan)
    change(expect(6, "t1", "sequence T1 is empty"), np.zeros_like)
    expect(7, "t1ce", "is not a readable NIfTI file").write_text("hello")
    shutil.copytree(file_of(tmp_path, 8, "t1").parent, tmp_path / "LGG" / patient_id("brats2018", 8))
    expected[f"LGG/{patient_id('brats2018', 8)}"] = "occurs 2 times"
    (tmp_path / "HGG" / "Brats18_EMPTY_1").mkdir()
    expected["HGG/Brats18_EMPTY_1"] = "is an empty folder"
    shutil.copy(file_of(tmp_path, 9, "flair"), file_of(tmp_path, 9, "t1ce"))
    expected[f"LGG/{patient_id('brats2018', 9)}"] = "sequence T1c is a copy of FLAIR"
    tumor = np.flatnonzero(find_cohort(tmp_path, strict=False).patients[11].read_labels().any(axis=(0, 1)))
    rows = [f"{patient_id('brats2018', 10)},oedema,0,12", f"{patient_id('brats2018', 11)},oedema,0,{tumor[0]}"]
    (tmp_path / FILE_NAME).write_text(HEADER + "\n".join(rows))

    table = check_cohort(tmp_path)
    found = table[table["file"] != FILE_NAME].set_index("file")["problem"]
    for file, sentence in expected.items():
        assert sentence in " ".join(found.loc[[file]]), file
    assert set(table["file"]) == {*expected, FILE_NAME}
    errors = table[(table["file"] == FILE_NAME) & (table["severity"] == "error")].set_index("patient")["problem"]
    assert "slices 0 to 12, but the volume has 0 to 11" in errors[patient_id("brats2018", 10)]
    assert "rows put oedema in slices 0" in " ".join(errors.loc[[patient_id("brats2018", 11)]])

    assert command_line(["check-data", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert all(file in printed and sentence in printed for file, sentence in expected.items())


def test_a_copied_channel_is_a_warning_and_the_patient_stays_usable(tmp_path):
    write_cohort(tmp_path, "lgg", patients=1)
    (patient,) = find_cohort(tmp_path).patients
    for path in patient.image_files:
        Image.fromarray(np.repeat(np.array(Image.open(path))[..., 1:2], 3, axis=2)).save(path)
    table = check_cohort(tmp_path)
    assert table["severity"].tolist() == ["warning", "warning"]
    for name, problem in zip(("T1", "T1c"), table["problem"], strict=True):
        assert problem.startswith(f"sequence {name} is a copy of FLAIR")
    patient.read()


def test_the_same_scan_under_two_ids_is_a_warning(tmp_path):
    (first, *_) = write_cohort(tmp_path, "decathlon", patients=1)
    for kind in ("imagesTr", "labelsTr"):
        shutil.copy(tmp_path / kind / f"{first}.nii.gz", tmp_path / kind / "BRATS_900.nii.gz")
    write_dataset_json(tmp_path, [first, "BRATS_900"])
    problem = only_problem(tmp_path)
    assert (problem["patient"], problem["severity"]) == ("BRATS_900", "warning")
    assert "has the same FLAIR image as imagesTr/BRATS_001.nii.gz" in problem["problem"]


def test_slice_labels_that_contradict_a_mask_are_named_with_their_slices(tmp_path):
    write_cohort(tmp_path, "lgg", patients=1)
    (patient,) = find_cohort(tmp_path).patients
    shown = np.flatnonzero(patient.read_labels().any(axis=(0, 1)))
    first, last = shown[0], shown[-1]
    (tmp_path / FILE_NAME).write_text(f"{HEADER}{patient.id},whole_tumor,{first},{last}\n")
    assert check_cohort(tmp_path).empty
    (tmp_path / FILE_NAME).write_text(f"{HEADER}{patient.id},whole_tumor,{first + 2},{last + 1}\n")
    written, missed = check_cohort(tmp_path)["problem"].sort_values()
    assert f"rows put whole_tumor in slices {last + 1}, where the mask shows none" in written
    assert f"the mask shows whole_tumor in slices {first}-{first + 1}, where no row has it" in missed
    (tmp_path / FILE_NAME).write_text(f"{HEADER}{patient.id},none,,\n")
    assert f"the mask shows whole_tumor in slices {first}-{last}" in only_problem(tmp_path)["problem"]


def test_every_faulty_line_of_slice_labels_is_listed(tmp_path):
    (name, *_) = write_cohort(tmp_path, "brats2021", patients=1)
    patient = find_cohort(tmp_path).patients[0]
    patient.mask_files[0].unlink()
    lines = [f"{name},edema,1,2", f"{name},oedema,5,2", f"{name},oedema,4,5", "BraTS2021_00002,oedema,1,2"]
    (tmp_path / FILE_NAME).write_text(HEADER + "\n".join(lines))
    problems = " ".join(check_cohort(tmp_path)["problem"])
    for sentence in (
        "line 2: patient BraTS2021_00001: unknown class 'edema'",
        "line 3: patient BraTS2021_00001: oedema has first_z 5 after last_z 2",
        f"names the patient BraTS2021_00002, whom the cohort has not; correct the ID. Did you mean '{name}'?",
    ):
        assert sentence in problems


def test_a_folder_that_is_no_cohort_is_one_row_and_one_that_does_not_exist_a_wrong_call(tmp_path, capsys):
    assert "is an empty folder" in only_problem(tmp_path)["problem"]
    assert command_line(["check-data", str(tmp_path)]) == 1
    with pytest.raises(SettingError, match="there is no such folder"):
        check_cohort(tmp_path / "nowhere")
    assert command_line(["check-data", str(tmp_path / "nowhere")]) == 2


def test_one_patient_is_in_memory_at_a_time(tmp_path):
    peaks = []
    for patients in (2, 8):
        write_cohort(tmp_path / str(patients), "brats2021", patients=patients, shape=(64, 64, 40))
        check_cohort(tmp_path / str(patients))
        tracemalloc.start()
        check_cohort(tmp_path / str(patients))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


# What may identify a person


@pytest.fixture
def scan(tmp_path):
    """The FLAIR of the one patient of a cohort."""
    write_cohort(tmp_path, "brats2021", patients=1)
    return find_cohort(tmp_path).patients[0].image_files[0]


def identify(path, extension="", **fields):
    """Write texts into a header, and an extension."""
    image = nib.load(path)
    made = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    if extension:
        made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension.encode()))
    for name, text in fields.items():
        made.header[name] = text
    nib.save(made, path)


def warnings_of(folder):
    table = check_cohort(folder)
    return table[table["severity"] == "warning"]["problem"].tolist()


def test_texts_and_extensions_of_a_header_are_shown_and_names_of_software_are_not(scan, tmp_path):
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        identify(scan, **{field: "Jane Doe 1971"})
        assert warnings_of(tmp_path) == [
            f"header field {field} says 'Jane Doe 1971', which may identify a person; clear it before sharing."
        ]
        identify(scan, **{field: ""})
    for text in ("FSL5.0", "SPM12 - normalised", "TE=4.3;Time=101500.1", "5.0.10", "dcm2niix v1.0"):
        identify(scan, descrip=text)
        assert warnings_of(tmp_path) == []
    identify(scan, extension="PatientName=Doe^Jane", descrip="")
    (sentence,) = warnings_of(tmp_path)
    assert "a header extension of type 6 says '32 bytes', which may identify a person" in sentence
    for path in scan.parent.iterdir():
        identify(path, descrip="ward 7")
    (sentence,) = [text for text in warnings_of(tmp_path) if "ward 7" in text]
    assert sentence.endswith("(and 4 more files)")


def test_names_with_a_date_or_of_a_person(tmp_path):
    good = (
        "BraTS2021_00001", "Brats18_TCIA02_171_1", "BraTS-GLI-00005-000", "BRATS_457", "TCGA_CS_4941_19960909", "P1",
        "patient", "sub-0042", "phantom", "case_99991399",
    )  # fmt: skip
    dates, persons = ("scan_19710304", "1971-03-04", "4.3.1971_flair"), ("Doe_Jane", "DOE^JANE", "Müller-Anna")
    faults = {name: "" for name in good} | {name: "holds a date" for name in dates}
    for name, fault in (faults | {name: "reads like a person's" for name in persons}).items():
        found = identifying([NiftiPatient(name, tmp_path, (tmp_path / f"{name}_t1.nii.gz",), (), ("T1",))])
        expected = [f"the patient's name {name!r} {fault}; use a pseudonym."] if fault else []
        assert [problem.problem for problem in found] == expected


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii"])
def test_an_exported_volume_carries_nothing_of_the_files_it_came_from(scan, tmp_path, name):
    for path in scan.parent.iterdir():
        identify(path, "Doe^Jane", descrip="Jane Doe", aux_file="doe.hdr", intent_name="Doe", db_name="clinic")
    case = find_cohort(tmp_path).patients[0].read()
    save_nifti(tmp_path / name, case.labels, case)
    stored = (tmp_path / name).read_bytes()
    content = gzip.decompress(stored) if name.endswith(".gz") else stored
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
    assert len(header.extensions) == 0 and len(content) == 352 + case.labels.size
    for field in ("data_type", "db_name", "descrip", "aux_file", "intent_name"):
        assert np.asarray(header[field]).tobytes().strip(b"\0") == b""
    assert not any(word in content for word in (b"Doe", b"Jane", b"clinic"))
    if name.endswith(".gz"):
        assert stored[3] == 0 and stored[4:8] == bytes(4)  # neither a name nor a time of packing
