"""slice_labels.csv: derived from a label map, written, read back, turned into image-level labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import make_truth

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


@pytest.mark.parametrize("seed", range(20))
def test_presence_from_the_file_is_presence_in_the_label_map(tmp_path, seed):
    labels = np.random.default_rng(seed).choice([0, 0, 0, 0, 1, 2, 3], (1, 2, 9)).astype(np.uint8)
    labels[:, :, [1, 6]] = 0
    write_slice_labels(tmp_path, derive_rows("P", labels, TASKS))
    pd.testing.assert_frame_equal(slice_presence(read_slice_labels(tmp_path), "P", 9), mask_presence(labels))


def test_presence_in_a_label_map_is_that_of_the_papers_regions():
    labels = make_truth(3).labels
    presence = mask_presence(labels)
    for name, region in {
        "whole_tumor": "whole_tumor",
        "tumor_core": "tumor_core",
        "enhancing": "enhancing_core",
    }.items():
        expected = np.isin(labels, REGIONS[region]).any(axis=(0, 1))
        np.testing.assert_array_equal(presence[name], expected)
    assert 0 < presence["tumor_core"].sum() < presence["whole_tumor"].sum() < len(presence)


def test_every_run_of_slices_is_a_row():
    labels = np.zeros((2, 2, 10), np.uint8)
    labels[0, 0, [0, 1, 4, 9]] = 2
    labels[1, 1, [5, 6]] = 3
    rows = derive_rows("P", labels, TASKS)
    assert rows.to_numpy().tolist() == [
        ["P", "oedema", 0, 1],
        ["P", "oedema", 4, 4],
        ["P", "oedema", 9, 9],
        ["P", "enhancing", 5, 6],
    ]


def test_a_cohort_with_one_class_gets_whole_tumour_rows_only():
    labels = np.zeros((2, 2, 5), np.uint8)
    labels[0, 0, 2:4] = 2
    assert derive_rows("P", labels, ("whole_tumor",)).to_numpy().tolist() == [["P", "whole_tumor", 2, 3]]


def test_a_patient_without_tumour_is_written_as_none_and_shows_nothing(tmp_path):
    rows = derive_rows("P", np.zeros((2, 2, 5), np.uint8), TASKS)
    path = write_slice_labels(tmp_path, rows)
    assert path.read_text() == "patient,class,first_z,last_z\nP,none,,\n"
    assert not slice_presence(read_slice_labels(tmp_path), "P", 5).to_numpy().any()


def test_what_is_written_is_read_back_whatever_the_id_looks_like(tmp_path):
    labels = make_truth(0).labels
    frame = pd.concat(
        [derive_rows(name, labels, TASKS) for name in ("007", "NA", "1e5", "a,b")], ignore_index=True
    )
    write_slice_labels(tmp_path, frame)
    pd.testing.assert_frame_equal(read_slice_labels(tmp_path), frame)


def test_there_need_be_no_file(tmp_path):
    assert read_slice_labels(tmp_path) is None


def test_a_hand_written_file_with_spaces_blank_lines_and_a_byte_order_mark_is_read(tmp_path):
    text = "\ufeffpatient, class ,first_z,last_z\r\n\r\nP1, oedema, 3, 5\r\n,,,\r\nP2,none,,\r\n"
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    assert read_slice_labels(tmp_path)["patient"].tolist() == ["P1", "P2"]


@pytest.mark.parametrize(
    ("name", "implied"),
    [
        ("non_enhancing", {"non_enhancing", "tumor_core", "whole_tumor"}),
        ("oedema", {"oedema", "whole_tumor"}),
        ("enhancing", {"enhancing", "tumor_core", "whole_tumor"}),
        ("tumor_core", {"tumor_core", "whole_tumor"}),
        ("whole_tumor", {"whole_tumor"}),
    ],
)
def test_a_subclass_implies_its_regions(tmp_path, name, implied):
    presence = slice_presence(read_slice_labels(write(tmp_path, f"P,{name},2,3")), "P", 5)
    assert tuple(presence.columns) == PRESENCE
    for column in PRESENCE:
        expected = [False, False, True, True, False] if column in implied else [False] * 5
        assert presence[column].tolist() == expected


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
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
    ],
)
def test_a_faulty_line_is_named(tmp_path, line, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        read_slice_labels(write(tmp_path, line))
    assert str(tmp_path / FILE_NAME) in str(caught.value)


def test_other_columns_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(
        DataError, match="has the columns 'patient;class;first_z;last_z', expected patient, class"
    ):
        read_slice_labels(write(tmp_path, "P;oedema;1;2", header="patient;class;first_z;last_z"))
    (tmp_path / FILE_NAME).write_bytes("patient,class,first_z,last_z\n\xf6,oedema,1,2\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not a readable UTF-8 table"):
        read_slice_labels(tmp_path)
    (tmp_path / FILE_NAME).write_text("")
    with pytest.raises(DataError, match=r"has the columns \(none\)"):
        read_slice_labels(tmp_path)


def test_slices_outside_the_volume_and_a_patient_without_rows_are_refused(tmp_path):
    frame = read_slice_labels(write(tmp_path, "Pat1,oedema,3,4", "Pat1,enhancing,4,5", "Pat2,none,,"))
    assert slice_presence(frame, "Pat1", 6)["enhancing"].tolist() == [False] * 4 + [True] * 2
    with pytest.raises(
        DataError, match="patient Pat1: enhancing has slices 4 to 5, but the volume has 0 to 4"
    ):
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


@pytest.mark.parametrize(
    ("used", "covered"),
    [
        (["oedema", "enhancing", "none"], TASKS),
        (["non_enhancing"], TASKS),
        (["none"], TASKS),
        (["whole_tumor"], ("whole_tumor",)),
        (["whole_tumor", "tumor_core"], ("whole_tumor", "tumor_core")),
        (["tumor_core"], ("tumor_core",)),
        (["tumor_core", "oedema"], ("whole_tumor", "tumor_core")),
        (["whole_tumor", "enhancing"], ("whole_tumor", "enhancing_core")),
        (["whole_tumor", "oedema", "enhancing", "non_enhancing"], TASKS),
    ],
)
def test_the_classes_used_decide_which_tasks_have_image_level_labels(used, covered):
    assert tasks_covered(pd.DataFrame({"class": used})) == covered


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write(tmp_path, "P,none,,")
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(KeyError):
        write_slice_labels(tmp_path, pd.DataFrame({"patient": ["P"]}))
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


ROWS = "A,non_enhancing,2,3\nA,oedema,1,4\nA,enhancing,3,3\n"


def test_a_region_without_its_classes_is_unknown_not_absent(tmp_path):
    frame = read_slice_labels(write(tmp_path, ROWS + "B,whole_tumor,1,4\nB,oedema,4,4\nC,tumor_core,2,2"))
    assert not unexplained(frame, "B", 6, "whole_tumor") and not unexplained(frame, "A", 6, "multiclass")
    for task in ("tumor_core", "enhancing_core", "multiclass"):
        (fault,) = unexplained(frame, "B", 6, task)
        assert fault.startswith("whole_tumor in slice 1 and 2 more, but no row says which of its classes")
    assert not unexplained(frame, "C", 6, "tumor_core")
    assert unexplained(frame, "C", 6, "multiclass")[0].startswith("tumor_core in slice 2, but")


def test_a_file_of_regions_leaves_nothing_unexplained(tmp_path):
    frame = read_slice_labels(write(tmp_path, "A,whole_tumor,1,4\nA,tumor_core,2,3\nB,whole_tumor,1,4"))
    assert not unexplained(frame, "B", 6, "tumor_core")
