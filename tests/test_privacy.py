"""What identifies a person is pointed out before data is shared, and nothing of it goes into what is exported."""

from __future__ import annotations

import gzip
import io
import json

import nibabel as nib
import numpy as np
import pytest
from cohorts import patient_id, write_cohort, write_dataset_json
from PIL import Image

from mixsup_lib.__main__ import main as command_line
from mixsup_lib.check import check_cohort, name_fault
from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import save_nifti

NAME = patient_id("brats2021", 0)


@pytest.fixture
def brats(tmp_path):
    write_cohort(tmp_path / "cohort", "brats2021", patients=1)
    return tmp_path / "cohort"


def flair(folder):
    return folder / NAME / f"{NAME}_flair.nii.gz"


def identify(path, **fields):
    """Write texts into a header, and with `extension` an extension."""
    image = nib.load(path)
    made = nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
    if text := fields.pop("extension", None):
        made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text.encode()))
    for name, text in fields.items():
        made.header[name] = text
    nib.save(made, path)


def warnings_of(folder):
    table = check_cohort(folder)
    return table[table["severity"] == "warning"]["problem"].tolist()


@pytest.mark.parametrize("field", ["descrip", "aux_file", "intent_name", "db_name"])
def test_a_text_in_the_header_is_shown(brats, field, capsys):
    identify(flair(brats), **{field: "Jane Doe 1971"})
    (sentence,) = warnings_of(brats)
    assert (
        sentence
        == f"header field {field} says 'Jane Doe 1971', which may identify a person; clear it before sharing."
    )
    assert command_line(["check-data", str(brats)]) == 1
    assert "Jane Doe 1971" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["FSL5.0", "SPM12 - normalised", "TE=4.3;Time=101500.1", "5.0.10", "dcm2niix v1.0", ""]
)
def test_names_of_software_are_no_cause(brats, text):
    identify(flair(brats), descrip=text)
    assert warnings_of(brats) == []


def test_an_extension_is_told_with_its_size(brats):
    identify(flair(brats), extension="PatientName=Doe^Jane")
    (sentence,) = warnings_of(brats)
    assert "a header extension of type 6 says '32 bytes', which may identify a person" in sentence


def test_the_same_text_in_many_files_is_one_warning(tmp_path):
    write_cohort(tmp_path, "brats2021", patients=3)
    for path in tmp_path.rglob("*.nii.gz"):
        identify(path, descrip="ward 7")
    (sentence,) = warnings_of(tmp_path)
    assert sentence.endswith("(and 14 more files)")


def test_the_name_that_gzip_keeps_is_read(brats):
    content = gzip.decompress(flair(brats).read_bytes())
    with (
        open(flair(brats), "wb") as file,
        gzip.GzipFile("DOE_JANE_19710304.nii", "wb", fileobj=file) as packed,
    ):
        packed.write(content)
    (sentence,) = warnings_of(brats)
    assert "the name kept by gzip says 'DOE_JANE_19710304.nii'" in sentence


def test_texts_of_a_tiff_are_shown_once(tmp_path):
    write_cohort(tmp_path, "lgg", patients=1)
    for path in find_cohort(tmp_path).patients[0].image_files[:3]:
        Image.open(path).save(path, tiffinfo={315: "Dr. Smith", 270: "Jane Doe"})
    artist, description = sorted(warnings_of(tmp_path), key=lambda text: "Description" in text)
    assert "TIFF tag Artist says 'Dr. Smith'" in artist and "(and 2 more files)" in artist
    assert "TIFF tag ImageDescription says 'Jane Doe'" in description


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("BraTS2021_00001", None), ("Brats18_TCIA02_171_1", None), ("BraTS-GLI-00005-000", None), ("BRATS_457", None),
        ("TCGA_CS_4941_19960909", None), ("P1", None), ("patient", None), ("sub-0042", None), ("phantom", None),
        ("scan_19710304", "holds a date"), ("1971-03-04", "holds a date"), ("4.3.1971_flair", "holds a date"),
        ("Doe_Jane", "reads like a person's"), ("DOE^JANE", "reads like a person's"), ("case_99991399", None),
        ("Müller-Anna", "reads like a person's"),
    ],
)  # fmt: skip
def test_names_with_a_date_or_of_a_person(name, fault):
    assert name_fault(name) == fault


def test_a_folder_called_like_a_person_and_a_file_with_a_date_are_told(brats):
    (brats / NAME).rename(brats / "Doe_Jane")
    for path in (brats / "Doe_Jane").iterdir():
        path.rename(path.with_name(path.name.replace(NAME, "Doe_Jane")))
    (sentence,) = warnings_of(brats)
    assert sentence == "the patient's name 'Doe_Jane' reads like a person's; use a pseudonym."


def test_a_date_in_a_decathlon_files_name_is_told(tmp_path):
    (name,) = write_cohort(tmp_path, "decathlon", patients=1)
    image, label = tmp_path / f"imagesTr/{name}.nii.gz", tmp_path / f"labelsTr/{name}.nii.gz"
    image.rename(image.with_name("P7_2019-11-30.nii.gz"))
    label.rename(label.with_name("P7_2019-11-30.nii.gz"))
    write_dataset_json(tmp_path, ["P7_2019-11-30"])
    (sentence,) = warnings_of(tmp_path)
    assert "'P7_2019-11-30' holds a date; use a pseudonym" in sentence


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii"])
def test_an_exported_volume_carries_nothing_of_the_files_it_came_from(brats, tmp_path, name):
    for path in (brats / NAME).iterdir():
        identify(
            path,
            descrip="Jane Doe",
            aux_file="doe.hdr",
            intent_name="Doe",
            db_name="clinic",
            extension="Doe^Jane",
        )
    case = find_cohort(brats).patients[0].read()
    save_nifti(tmp_path / name, case.labels, case, multiclass=True)
    stored = (tmp_path / name).read_bytes()
    content = gzip.decompress(stored) if name.endswith(".gz") else stored
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
    assert len(header.extensions) == 0 and len(content) == 352 + case.labels.size
    for field in ("data_type", "db_name", "descrip", "aux_file", "intent_name"):
        assert np.asarray(header[field]).tobytes().strip(b"\0") == b""
    assert not any(word in content for word in (b"Doe", b"Jane", b"clinic"))
    if name.endswith(".gz"):
        assert stored[3] == 0 and stored[4:8] == bytes(4)  # neither a name nor a time of packing


def test_a_phantom_has_nothing_to_tell(phantom):
    assert warnings_of(phantom) == []
    assert json.loads((phantom / "phantom.json").read_text())["patients"] == 10
