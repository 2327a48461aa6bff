"""Damaged files of every kind: faults met by name, then bytes changed at random in a file of each kind."""

from __future__ import annotations

import gzip
import shutil
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from cohorts import patient_id, write_cohort, write_dataset_json
from hypothesis import given, settings, strategies as st
from PIL import Image

from mixsup_lib.__main__ import read_settings
from mixsup_lib.check import check_cohort
from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.datasets.slice_labels import derive_rows, read_slice_labels, write_slice_labels
from mixsup_lib.experiments.experiment import read_experiment
from mixsup_lib.experiments.runs import collect, load_network, load_run, read_examples, read_history, run
from mixsup_lib.files import DataError, SettingError, read_yaml
from mixsup_lib.protocol import read_split
from mixsup_lib.slices import prepare
from mixsup_lib.training import read_checkpoint


@pytest.fixture
def brats(tmp_path):
    write_cohort(tmp_path / "cohort", "brats2021", patients=1)
    return tmp_path / "cohort"


def image(folder: Path, ending: str = "flair") -> Path:
    name = patient_id("brats2021", 0)
    return folder / name / f"{name}_{ending}.nii.gz"


def edit_header(path: Path, *edits: tuple[int, str, float]) -> None:
    """Write (offset, format, value) into the header of a packed NIfTI file."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    for offset, code, value in edits:
        struct.pack_into(f"<{code}", content, offset, value)
    path.write_bytes(gzip.compress(bytes(content)))


def refused(folder: Path, sentence: str) -> None:
    """Reading and check-data both say so, in one line."""
    with pytest.raises(DataError, match=sentence) as caught:
        for patient in find_cohort(folder).patients:
            patient.read()
    assert len(str(caught.value).splitlines()) == 1
    assert check_cohort(folder)["problem"].str.contains(sentence).any()


# NIfTI


SFORM_XX, QFORM_CODE, SFORM_CODE, PIXDIM = 280, 252, 254, 76


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ([(PIXDIM + 4, "f", 2.0)], r"has voxels of 1x1x1 mm by its affine, but 2x1x1 by pixdim"),
        ([*((PIXDIM + 4 * i, "f", 1e6) for i in (1, 2, 3)), (SFORM_CODE, "h", 0)], "voxels of .* expected 0.01 to 100"),
        ([(QFORM_CODE, "h", 1), (256, "f", 1.0), (264, "f", 0.0)], "has axes LPS by its sform, but .* by its qform"),
        ([(42, "h", 8)], "goes on after the 8x16x12 voxels that its header tells"),
        ([(offset, "h", 32767) for offset in (42, 44, 46)], "is cut off before its end"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_or_the_file_is_refused(brats, edits, sentence):
    edit_header(image(brats), *edits)
    refused(brats, sentence)


def test_a_flipped_bit_in_the_affine_of_one_of_four_sequences_is_seen(brats):
    """The upper twelve bits of each of the sform's numbers: seen, or a shift of less than a tenth of a voxel."""
    path = image(brats, "t1ce")
    whole = path.read_bytes()
    sound = bytearray(gzip.decompress(whole))
    patient = find_cohort(brats).patients[0]
    before, seen = nib.Nifti1Header(bytes(sound[:348])).get_sform(), 0
    corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array([16, 16, 12])[:, None] - 1)
    for bit in (32 * number + bit for number in range(12) for bit in range(20, 32)):
        some = bytearray(sound)
        some[SFORM_XX + bit // 8] ^= 1 << bit % 8
        path.write_bytes(gzip.compress(bytes(some), 1))
        try:
            patient.load_volumes(_raise)
        except DataError as error:
            assert path.name in str(error)
            seen += 1
        else:
            change = nib.Nifti1Header(bytes(some[:348]), check=False).get_sform() - before
            assert np.linalg.norm(change[:3, :3] @ corners + change[:3, 3:], axis=0).max() <= 0.1
    assert seen > 50  # flips of what is 0 in the file's affine mostly stay below


def _raise(file, sentence):
    raise DataError(f"{file}: {sentence}")


# TIFF, dataset.json, lists, tables


def first_slice(folder: Path) -> Path:
    write_cohort(folder, "lgg", patients=1)
    return find_cohort(folder).patients[0].image_files[3]


def test_a_tiff_stored_turned_is_refused(tmp_path):
    path = first_slice(tmp_path)
    Image.open(path).save(path, tiffinfo={274: 3})
    refused(tmp_path, r"is stored turned or mirrored \(TIFF orientation 3, expected 1\)")


def test_a_tiff_that_no_longer_says_that_0_is_black_is_refused(tmp_path):
    """Pillow would take 0 for white, and every mask for its opposite."""
    path = first_slice(tmp_path)
    path = path.with_name(f"{path.stem}_mask.tif")
    entry, other = (struct.pack("<HHI", tag, 3, 1) for tag in (262, 263))
    path.write_bytes(path.read_bytes().replace(entry, other))
    refused(tmp_path, r"does not say that 0 is black \(TIFF photometric interpretation None\)")


def test_a_flipped_bit_in_a_deflated_strip_is_seen(tmp_path):
    """The decoder stops at the last pixel, before the checksum."""
    path = first_slice(tmp_path)
    Image.open(path).save(path, compression="tiff_adobe_deflate")
    patient, seen = find_cohort(tmp_path).patients[0], 0
    sound = patient.read_images().images
    with Image.open(path) as image:
        first, size = image.tag_v2[273][0], image.tag_v2[279][0]
    content = path.read_bytes()
    for bit in range(8 * first, 8 * (first + size), 37):
        some = bytearray(content)
        some[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(some))
        try:
            np.testing.assert_array_equal(patient.read_images().images, sound)  # a bit that means nothing
        except DataError as error:
            assert path.name in str(error)
            seen += 1
    assert seen > 0.95 * 8 * size / 37


def test_what_is_no_tiff_inside_is_handed_to_no_other_decoder(tmp_path):
    Image.new("RGB", (16, 16)).save(first_slice(tmp_path), "EPS")
    refused(tmp_path, "is not a readable TIFF file")


def test_one_mask_for_two_patients_is_refused(tmp_path):
    first, second = write_cohort(tmp_path, "decathlon", patients=2)
    entries = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{first}.nii.gz"} for n in (first, second)]
    write_dataset_json(tmp_path, [], training=entries)
    refused(tmp_path, f"names the mask labelsTr/{first}.nii.gz for {first} and for {second}")


# YAML


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "2001-99-99"], ids=["nested", "digits", "date"])
def test_yaml_that_python_chokes_on_is_one_error(text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_yaml(text)
    assert len(str(caught.value)) < 400


# Runs


READERS = {
    "metrics.json": load_run,
    "per_patient.csv": collect,
    "provenance.json": collect,
    "history.csv": read_history,
    "examples.npz": read_examples,
    "weights.safetensors": lambda folder: load_network(folder, 4, (48, 48)),
}


def refused_run(folder: Path, name: str, read) -> None:
    with pytest.raises(DataError, match=name) as caught:
        read(folder)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("harm", ["cut", "missing", "foreign"])
def test_a_cut_missing_or_foreign_file_of_a_run_is_one_sentence(copy, harm):
    for name, read in READERS.items():
        read(copy)
        whole = (copy / name).read_bytes()
        (copy / name).unlink()
        if harm == "cut":  # within the first line: whole lines of a table are a shorter table
            (copy / name).write_bytes(whole[: min(len(whole) // 2, 40)])
        elif harm == "foreign":
            (copy / name).write_bytes(b"a,b\n1,2\n")
        refused_run(copy, name, read)
        (copy / name).write_bytes(whole)


def test_a_flipped_bit_in_a_checkpoint_is_seen(copy):
    """torch itself does not look: its reader of archives leaves checksums out."""
    content = bytearray((copy / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "checkpoint.pt").write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"checkpoint.pt: not a readable checkpoint .* delete it to start anew"):
        read_checkpoint(copy / "checkpoint.pt", torch.device("cpu"))


def test_a_run_does_not_train_on_slices_that_changed(run_settings):
    one = {**run_settings, "iterations": 1}
    run(make_config(**one))
    *_, images = sorted(run_settings["stores"].rglob("*.npy"))
    content = bytearray(images.read_bytes())
    content[-2] ^= 1
    images.write_bytes(bytes(content))
    with pytest.raises(DataError, match="not the slices that were prepared; delete this file"):
        for fold in range(1, 6):  # one of them holds the last patient
            run(make_config(**one, seed=1, fold=fold))
    images.unlink()
    assert run(make_config(**one, seed=2)).exists()


# Values made up at random: a refusal is one sentence, nothing else is raised

quick = settings(max_examples=40, deadline=5000, derandomize=True, database=None)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def value_or_sentence(read, named: str = ""):
    """What `read` gives, or None where it refuses, in one sentence with the file `named` in it."""
    try:
        return read()
    except (DataError, SettingError) as error:
        assert str(error).isprintable() and len(str(error)) < 900
        assert named in str(error) or isinstance(error, SettingError)
        return None


@quick
@given(name=st.sampled_from(sorted(make_config(cohort="x").settings())), value=values)
def test_any_value_of_a_setting_is_taken_or_refused_in_a_sentence(name, value):
    value_or_sentence(lambda: make_config(**{"cohort": "x", name: value}))


# Bytes changed at random in a file of each kind


def patients(folder: Path) -> list[np.ndarray]:
    cases = [patient.read() for patient in find_cohort(folder).patients]
    return [array for case in cases for array in (case.images, case.labels)]


def stored(root: Path) -> list[np.ndarray]:
    store = prepare(root / "packed", root / "store", progress=False)
    store.verify([patient.id for patient in store.cohort.patients])
    return [store[:]]


def network(root: Path) -> list[np.ndarray]:
    (path,) = root.glob("run/*/checkpoint.pt")
    return [tensor.numpy() for tensor in read_checkpoint(path, torch.device("cpu"))["network"].values()]


KINDS = {
    "NIfTI, packed": ("packed/*/*_t1ce.nii.gz", lambda root: patients(root / "packed"), True),
    "NIfTI": ("plain/*/*-seg.nii", lambda root: patients(root / "plain"), False),
    "TIFF": ("lgg/*/*_4.tif", lambda root: patients(root / "lgg"), False),
    "dataset.json": ("decathlon/dataset.json", lambda root: find_cohort(root / "decathlon"), False),
    "dataset.json of nnU-Net": ("nnunet/dataset.json", lambda root: find_cohort(root / "nnunet"), False),
    "cohort.yaml": ("own/cohort.yaml", lambda root: find_cohort(root / "own"), False),
    "slice labels": ("packed/slice_labels.csv", lambda root: read_slice_labels(root / "packed"), False),
    "patient list": ("lists/weak.txt", lambda root: read_split(root / "lists", "ABCD", n_fa=1), False),
    "settings": ("a.yaml", lambda root: make_config(**read_settings(root / "a.yaml")), False),
    "experiment": ("b.yaml", lambda root: read_experiment(root / "b.yaml").configs(), False),
    "slices of a store": ("store/*.npy", stored, True),
    "record of a store": ("store/*.json", stored, True),
    "checkpoint": ("run/*/checkpoint.pt", network, True),
    **{
        name: (f"run/*/{name}", lambda root, read=read: read(next((root / "run").iterdir())), False)
        for name, read in READERS.items()
    },
}  # fmt: skip
"""Kind of file -> (which one is damaged, reader, whether another value must be noticed, thanks to a checksum)."""


@pytest.fixture(scope="module")
def sound(finished, tmp_path_factory):
    """A folder with a file of every kind."""
    root = tmp_path_factory.mktemp("sound")
    for name, layout, suffix in (("packed", "brats2021", ".nii.gz"), ("plain", "brats2023", ".nii")):
        write_cohort(root / name, layout, patients=1, suffix=suffix)
    for name, layout in (("decathlon", "decathlon"), ("lgg", "lgg"), ("nnunet", "nnunet_v2"), ("own", "brats2021")):
        write_cohort(root / name, layout, patients=1)
    text = "sequences: {T1: _t1, X: _t1ce}\nmask: _seg\nlabels: {1: a, 2: b, 4: c}\nregions: {whole_tumor: [1, 2, 4]}\n"
    (root / "own" / "cohort.yaml").write_text(f"{text}intensities: as is\nrange: [0, 200]\n")
    (patient,) = find_cohort(root / "packed").patients
    rows = derive_rows(patient.id, patient.read_labels(), ("multiclass",))
    write_slice_labels(root / "packed", rows)
    (root / "lists").mkdir()
    for name, text in (("fully_annotated", "A\n"), ("weak", "folder/B\nC\n"), ("test", "D\n")):
        (root / "lists" / f"{name}.txt").write_text(text)
    (root / "a.yaml").write_text("cohort: scans\nn_fa: 4\nwindow: [32, 48]\na: 0.5\nsplit_lists: null\n")
    variants = "variants:\n  one: {n_fa: 7, target_weights: [0.5, 0.5]}\n"
    (root / "b.yaml").write_text(f"name: b\ncompare: first\naxes: {{a: [0.3, 0.5]}}\n{variants}folds: [1]\n")
    stored(root)
    shutil.copytree(finished, root / "run" / finished.name)
    return root


def damaged(content: bytes, accidents: list[tuple[str, int, int]]) -> bytes:
    some = bytearray(content)
    for what, place, byte in accidents:
        at = place % (len(some) + 1)
        new = {"cut": b"", "insert": bytes([byte]), "zero": bytes(len(some[at : at + byte]))}
        until = {"cut": len(some), "insert": at, "zero": at + byte}
        if what != "flip":
            some[at : until[what]] = new[what]
        elif at < len(some):
            some[at] ^= 1 << byte % 8
    return bytes(some)


accident = st.tuples(st.sampled_from(["flip", "cut", "insert", "zero"]), st.integers(0, 2**16), st.integers(0, 99))


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(accidents=st.lists(accident, min_size=1, max_size=3))
def test_damaged_bytes_are_read_to_the_same_value_or_refused_in_a_sentence(kind, sound, accidents):
    pattern, read, checked = KINDS[kind]
    path = min(sound.glob(pattern))
    content, before = path.read_bytes(), read(sound)
    path.write_bytes(damaged(content, accidents))
    try:
        found = value_or_sentence(lambda: read(sound), path.name)
    finally:
        path.write_bytes(content)
    assert before is not None
    if checked and found is not None:
        assert len(found) == len(before) and all(map(np.array_equal, found, before))
