"""slice_labels.csv: derived from a label map, written, read back, turned into image-level labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import make_truth, write_cohort

from mixsup_lib.check import check_cohort
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import (
    FILE_NAME,
    PRESENCE,
    derive_rows,
    mask_presence,
    read_slice_labels,
    slice_faults,
    slice_presence,
    tasks_covered,
    unexplained,
    write_slice_labels,
)
from mixsup_lib.files import DataError
from mixsup_lib.paper import REGIONS, TASKS


def write(folder, *lines, header="patient,class,first_z,last_z"):
    (folder / FILE_NAME).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder


def test_presence_from_the_file_is_presence_in_the_label_map(tmp_path):
    for seed in range(20):
        labels = np.random.default_rng(seed).choice([0, 0, 0, 0, 1, 2, 3], (1, 2, 9)).astype(np.uint8)
        labels[:, :, [1, 6]] = 0
        write_slice_labels(tmp_path, derive_rows("P", labels, TASKS))
        found, expected = slice_presence(read_slice_labels(tmp_path), "P", 9), mask_presence(labels)
        pd.testing.assert_frame_equal(found, expected)
        for name, region in (("tumor_core", "tumor_core"), ("enhancing", "enhancing_core")):
            assert np.array_equal(expected[name], np.isin(labels, REGIONS[region]).any(axis=(0, 1)))


def test_every_run_of_slices_is_a_row_and_no_tumour_is_none(tmp_path):
    labels = np.zeros((2, 2, 10), np.uint8)
    labels[0, 0, [0, 1, 4, 9]] = 2
    labels[1, 1, [5, 6]] = 3
    rows = derive_rows("P", labels, TASKS).to_numpy().tolist()
    oedema = [["P", "oedema", 0, 1], ["P", "oedema", 4, 4], ["P", "oedema", 9, 9]]
    assert rows == [*oedema, ["P", "enhancing", 5, 6]]
    one_class = derive_rows("P", labels[:, :, :4], ("whole_tumor",))
    assert one_class.to_numpy().tolist() == [["P", "whole_tumor", 0, 1]]
    path = write_slice_labels(tmp_path, derive_rows("P", np.zeros((2, 2, 5), np.uint8), TASKS))
    assert path.read_text() == "patient,class,first_z,last_z\nP,none,,\n"
    assert not slice_presence(read_slice_labels(tmp_path), "P", 5).to_numpy().any()


def test_ids_of_any_look_and_files_written_by_hand_are_read(tmp_path):
    assert read_slice_labels(tmp_path) is None  # there need be no file
    labels = make_truth(0).labels
    frame = pd.concat([derive_rows(name, labels, TASKS) for name in ("007", "NA", "1e5", "a,b")], ignore_index=True)
    write_slice_labels(tmp_path, frame)
    pd.testing.assert_frame_equal(read_slice_labels(tmp_path), frame)
    text = "\ufeffpatient, class ,first_z,last_z\r\n\r\nP1, oedema, 3, 5\r\n,,,\r\nP2,none,,\r\n"
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    assert read_slice_labels(tmp_path)["patient"].tolist() == ["P1", "P2"]


def test_a_subclass_implies_its_regions(tmp_path):
    for name, implied in (
        ("non_enhancing", {"non_enhancing", "tumor_core", "whole_tumor"}),
        ("oedema", {"oedema", "whole_tumor"}),
        ("enhancing", {"enhancing", "tumor_core", "whole_tumor"}),
        ("tumor_core", {"tumor_core", "whole_tumor"}),
        ("whole_tumor", {"whole_tumor"}),
    ):
        presence = slice_presence(read_slice_labels(write(tmp_path, f"P,{name},2,3")), "P", 5)
        assert tuple(presence.columns) == PRESENCE
        for column in PRESENCE:
            expected = [False, False, True, True, False] if column in implied else [False] * 5
            assert presence[column].tolist() == expected


def test_a_faulty_line_is_named(tmp_path):
    for line, sentence in (
        ("P,edema,1,2", "line 2: patient P: unknown class 'edema', expected one of .* Did you mean 'oedema'"),
        ("P,oedema,5,2", "line 2: patient P: oedema has first_z 5 after last_z 2; swap them"),
        ("P,oedema,-1,2", "line 2: has the slices '-1' to '2', expected whole numbers from 0"),
        ("P,oedema,1.5,2", "line 2: has the slices '1.5' to '2'"),
        ("P,oedema,,", "line 2: has the slices '' to '', expected whole numbers"),
        ("P,oedema,1,99999999999999999999", "expected whole numbers"),
        ("P,none,1,2", "line 2: has none beside z"),
        ("P,oedema,1", "line 2: has 3 fields, expected 4"),
        (",oedema,1,2", "line 2: names no patient"),
        ("P,none,,\nP,oedema,1,2", "patient P has the class none beside other rows"),
    ):
        with pytest.raises(DataError, match=sentence) as caught:
            read_slice_labels(write(tmp_path, line))
        assert str(tmp_path / FILE_NAME) in str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_capitals_and_line_ends_of_other_programs_are_read(tmp_path, separator):
    lines = ["Patient,CLASS,First_Z,Last_z", "P 1,Oedema,1,2", "nan,none,,", ""]
    content = "\r\n".join(lines).replace(",", separator)
    (tmp_path / FILE_NAME).write_text(content, encoding="utf-8-sig", newline="")
    frame = read_slice_labels(tmp_path)
    assert frame["patient"].tolist() == ["P 1", "nan"] and frame["class"].tolist() == ["oedema", "none"]
    assert frame["last_z"][0] == 2


def test_other_columns_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(DataError, match="has the columns 'patient, class, from, to', expected patient, class"):
        read_slice_labels(write(tmp_path, "P,oedema,1,2", header="patient,class,from,to"))
    (tmp_path / FILE_NAME).write_bytes("patient,class,first_z,last_z\n\xf6,oedema,1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="probably in Windows-1252; save it in Excel as 'CSV UTF-8"):
        read_slice_labels(tmp_path)
    (tmp_path / FILE_NAME).write_text("")
    with pytest.raises(DataError, match=r"has the columns \(none\)"):
        read_slice_labels(tmp_path)


def test_slices_outside_the_volume_and_a_patient_without_rows_are_refused(tmp_path):
    frame = read_slice_labels(write(tmp_path, "Pat1,oedema,3,4", "Pat1,enhancing,4,5", "Pat2,none,,"))
    assert slice_presence(frame, "Pat1", 6)["enhancing"].tolist() == [False] * 4 + [True] * 2
    with pytest.raises(DataError, match="patient Pat1: enhancing has slices 4 to 5, but the volume has 0 to 4"):
        slice_presence(frame, "Pat1", 5)
    assert len(slice_faults(frame, "Pat1", 4)) == 2
    with pytest.raises(DataError, match="has no row for patient Pat3; .* Did you mean 'Pat"):
        slice_presence(frame, "Pat3", 5)


def test_a_frame_made_by_hand_is_checked_as_a_file_is():
    frame = pd.DataFrame([("P", "core", 1, 2)], columns=["patient", "class", "first_z", "last_z"])
    with pytest.raises(DataError, match="unknown class 'core'"):
        slice_presence(frame, "P", 5)
    with pytest.raises(DataError, match="first_z 3 after last_z 2"):
        slice_presence(frame.assign(**{"class": "oedema", "first_z": 3}), "P", 5)
    with pytest.raises(DataError, match="oedema has no slice numbers"):
        slice_presence(frame.assign(**{"class": "oedema", "first_z": None}), "P", 5)


def test_the_classes_used_decide_which_tasks_have_image_level_labels():
    for used, covered in (
        (["oedema", "enhancing", "none"], TASKS),
        (["none"], TASKS),
        (["whole_tumor"], ("whole_tumor",)),
        (["tumor_core"], ("tumor_core",)),
        (["tumor_core", "oedema"], ("whole_tumor", "tumor_core")),
        (["whole_tumor", "enhancing"], ("whole_tumor", "enhancing_core")),
        (["whole_tumor", "oedema", "enhancing", "non_enhancing"], TASKS),
    ):
        assert tasks_covered(pd.DataFrame({"class": used})) == covered


def test_a_region_without_its_classes_is_unknown_not_absent(tmp_path):
    rows = "A,non_enhancing,2,3\nA,oedema,1,4\nA,enhancing,3,3\nB,whole_tumor,1,4\nB,oedema,4,4\nC,tumor_core,2,2"
    frame = read_slice_labels(write(tmp_path, rows))
    assert not unexplained(frame, "B", 6, "whole_tumor") and not unexplained(frame, "A", 6, "multiclass")
    for task in ("tumor_core", "enhancing_core", "multiclass"):
        (fault,) = unexplained(frame, "B", 6, task)
        assert fault.startswith("whole_tumor in slice 1 and 2 more, but no row says which of its classes")
    assert not unexplained(frame, "C", 6, "tumor_core")
    assert unexplained(frame, "C", 6, "multiclass")[0].startswith("tumor_core in slice 2, but")
    regions = read_slice_labels(write(tmp_path, "A,whole_tumor,1,4\nA,tumor_core,2,3\nB,whole_tumor,1,4"))
    assert not unexplained(regions, "B", 6, "tumor_core")


def test_excels_unicode_text_is_read(tmp_path):
    (tmp_path / FILE_NAME).write_text("patient\tclass\tfirst_z\tlast_z\r\nP\toedema\t1\t2\r\n", "utf-16", newline="")
    assert read_slice_labels(tmp_path).values.tolist() == [["P", "oedema", 1, 2]]


def test_a_faulty_table_is_told_once_and_not_for_every_patient_that_it_leaves_without_labels(tmp_path):
    write_cohort(tmp_path, "brats2021", patients=3)
    for patient in find_cohort(tmp_path).patients:
        patient.mask_files[0].unlink()
    problems = check_cohort(tmp_path)
    (sentence,) = problems.loc[problems["severity"] == "error", "problem"]
    assert sentence.startswith("has neither a mask nor a row") and sentence.endswith("(and 2 more patients).")
    (tmp_path / FILE_NAME).write_text("patient,from,to\n")
    assert len(check_cohort(tmp_path)) == 1
