"""A cohort.yaml describes files, label values and intensities of one's own, and is refused where it does not say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cohorts import make_truth, save, write_cohort

from mixsup_lib.check import main as check
from mixsup_lib.datasets import find_cohort, open_patient
from mixsup_lib.datasets.own import draft
from mixsup_lib.files import DataError
from mixsup_lib.slices import prepare

ROOT = Path(__file__).parents[1]
OWN = """
sequences:
  T1 post: _gad
  DWI: _b1000.nii.gz
mask: _roi
labels:
  5: oedema
  6: enhancing
"""


def write_own(folder, patients=3, masks=2):
    """Patients with two sequences, and masks of the values 5 and 6 for the first `masks` of them."""
    for index in range(patients):
        name, truth = f"P{index}", make_truth(index)
        for ending, image in zip(("_gad", "_b1000"), truth.images, strict=False):
            save(folder / name / "anat" / f"{name}{ending}.nii.gz", image.astype(np.int16))
        if index < masks:
            save(folder / name / f"{name}_roi.nii.gz", np.array([0, 6, 5, 6], np.uint8)[truth.labels])
    return folder


def describe(folder, text=OWN):
    (folder / "cohort.yaml").write_text(text)
    return folder


def test_a_layout_of_ones_own_is_read_as_its_truth(tmp_path):
    cohort = find_cohort(describe(write_own(tmp_path)))
    assert (cohort.sequences, cohort.tasks) == (("T1 post", "DWI"), ("whole_tumor", "enhancing_core"))
    assert [bool(patient.mask_files) for patient in cohort.patients] == [True, True, False]
    for index, patient in enumerate(cohort.patients):
        truth = make_truth(index)
        np.testing.assert_array_equal(patient.read_images().images, truth.images[:2])
        np.testing.assert_array_equal(open_patient(tmp_path / patient.id).read_images().images, truth.images[:2])
    labels = cohort.patients[0].read_labels()
    np.testing.assert_array_equal(labels, np.array([0, 3, 2, 3])[make_truth(0).labels])


@pytest.mark.parametrize(
    ("regions", "tasks", "classes"),
    [
        ("whole_tumor: [5, 6]", ("whole_tumor",), {5: 2, 6: 2}),
        ("{whole_tumor: [5, 6], tumor_core: 6}", ("whole_tumor", "tumor_core"), {5: 2, 6: 1}),
        (
            "{whole_tumor: [4, 5, 6], tumor_core: [4, 6], enhancing_core: [6]}",
            ("whole_tumor", "tumor_core", "enhancing_core", "multiclass"),
            {4: 1, 5: 2, 6: 3},
        ),
    ],
)
def test_regions_say_what_values_mean_whatever_they_are_called(tmp_path, regions, tasks, classes):
    text = f"sequences: {{A: _gad}}\nmask: _roi\nlabels: {{4: rim, 5: x, 6: y, 7: cavity}}\nregions: {regions}"
    labels = find_cohort(describe(write_own(tmp_path), text.replace("regions: whole", "regions:\n  whole"))).labels
    assert labels.tasks == tasks
    assert {value: meaning for value, meaning, _ in labels.values if meaning} == classes
    assert {value: name for value, _, name in labels.values}[7] == "cavity"


def test_a_single_lesion_has_the_one_task_and_its_own_value_in_a_mask(tmp_path):
    text = "sequences: {A: _gad}\nmask: _roi\nlabels: {5: lesion}"
    labels = find_cohort(describe(write_own(tmp_path), text)).labels
    assert labels.tasks == ("whole_tumor",) and [label.value for label in labels.legend("whole_tumor")] == [5]


FAULTS = {
    "no YAML": ("sequences: [", "cannot be read as YAML"),
    "no entries": ("hello", "found 'hello', expected entries"),
    "an unknown entry": ("sequence: {A: _a}", "unknown entry 'sequence'.*Did you mean 'sequences'"),
    "nine sequences": (f"sequences: {{{', '.join(f'S{i}: _{i}x' for i in range(9))}}}", "expected 1 to 8 lines"),
    "an ending that is no text": ("sequences: {A: 1}", "put text in quotes"),
    "one ending twice": ("sequences: {A: _a, B: _a.nii.gz}", "two sequences have the ending '_a'"),
    "a mask without labels": ("sequences: {A: _a}\nmask: _m", "has a mask but no labels"),
    "a mask without sequences": ("mask: _m\nlabels: {1: lesion}", "has mask but no sequences"),
    "a label not filled in": ("sequences: {A: _a}\nmask: _m\nlabels: {1: }", "label 1 has the name None, .*fill it in"),
    "a label of no meaning": ("sequences: {A: _a}\nlabels: {1: rim, 2: oedema}", "label 1 is called 'rim'.*`regions`"),
    "a value that is no number": ("sequences: {A: _a}\nlabels: {one: lesion}", "the value 'one', expected a whole"),
    "an unknown region": ("sequences: {A: _a}\nregions: {core: 1}", "unknown region 'core'"),
    "a core outside": ("sequences: {A: _a}\nregions: {whole_tumor: 1, tumor_core: 2}", "2 is in tumor_core but not in"),
    "a region of unnamed values": ("labels: {1: a}\nregions: {whole_tumor: 2}", "value 2, which `labels` lacks"),
    "unknown intensities": ("sequences: {A: _a}\nintensities: zscore", "expected median or as is"),
    "as is without a range": ("sequences: {A: _a}\nintensities: as is", "range goes with `intensities: as is`"),
    "a range back to front": ("sequences: {A: _a}\nintensities: as is\nrange: [5, -5]", "expected .lowest, highest."),
    "nothing known": ("intensities: median", "names no sequences, and the folder has no known layout"),
}


@pytest.mark.parametrize("text, sentence", FAULTS.values(), ids=FAULTS)
def test_a_faulty_description_gets_a_sentence(tmp_path, text, sentence):
    with pytest.raises(DataError, match=f"cohort.yaml: .*{sentence}"):
        find_cohort(describe(write_own(tmp_path), text))


def test_two_files_of_one_ending_are_named_and_a_longer_ending_is_no_second_one(tmp_path):
    describe(write_own(tmp_path, 1, 0), "sequences: {A: gad, B: b1000}")
    save(tmp_path / "P0" / "P0_noseg-gad.nii.gz", np.ones((4, 4, 4), np.int16))
    with pytest.raises(DataError, match="P0_noseg-gad.nii.gz and P0_gad.nii.gz, which both end in gad"):
        find_cohort(tmp_path)
    describe(tmp_path, "sequences: {A: gad, B: b1000, C: noseg-gad}")
    assert [file.name for file in find_cohort(tmp_path).patients[0].image_files] == [
        "P0_gad.nii.gz",
        "P0_b1000.nii.gz",
        "P0_noseg-gad.nii.gz",
    ]


def test_intensities_as_is_are_clipped_and_brought_to_0_to_200(tmp_path):
    limits = "intensities: as is\nrange: [50, 150]"
    store = prepare(describe(write_own(tmp_path), f"{OWN}{limits}"), tmp_path / "store", progress=False)
    images = np.moveaxis(make_truth(0).images[:2], 3, 0).swapaxes(2, 3)  # (Z, C, Y, X)
    np.testing.assert_allclose(store.slices("P0"), np.clip((images - 50) * 2, 0, 200), atol=0.1)
    first = store.fingerprint()
    again = prepare(describe(tmp_path, f"{OWN}{limits.replace('150', '250')}"), tmp_path / "store", progress=False)
    assert again.fingerprint() != first and again.slices("P0").max() <= 200


def test_zscored_images_of_a_known_layout_can_be_used_as_they_are(tmp_path, capsys):
    write_cohort(tmp_path, "brats2021", patients=1)
    for file in find_cohort(tmp_path).patients[0].image_files:
        image = make_truth(0).images[0]
        head = image[image > 0]
        save(file, np.where(image > 0, (image - head.mean()) / head.std(), 0).astype(np.float32))
    assert check(tmp_path) == 1 and "`intensities: as is`" in capsys.readouterr().out
    describe(tmp_path, "intensities: as is\nrange: [-4, 4]")
    store = prepare(tmp_path, tmp_path.parent / "store", progress=False)
    outside = np.moveaxis(make_truth(0).images[0] == 0, 2, 0).swapaxes(1, 2)
    assert not store.slices(store.cohort.patients[0].id)[:, 0][outside].any()


def test_slice_labels_are_derived_again_where_the_values_mean_something_else_now(tmp_path):
    write_own(tmp_path)
    text = OWN.replace("5: oedema", "5: rim").replace("6: enhancing", "6: core")
    for values in ([5, 6], [6]):
        describe(tmp_path, f"{text}regions: {{whole_tumor: {values}}}")
        store = prepare(tmp_path, tmp_path.parent / "store", progress=False)
        shown = np.isin(np.array([0, 6, 5, 6])[make_truth(0).labels], values).any((0, 1))
        assert store.presence(["P0"], "whole_tumor")["P0"]["whole_tumor"].tolist() == shown.tolist()


def test_check_data_drafts_a_description_that_holds_once_it_is_filled_in(tmp_path, capsys):
    write_own(tmp_path)
    assert check(tmp_path) == 1
    assert "cohort.draft.yaml is a draft that describes these files" in capsys.readouterr().out
    text = (tmp_path / "cohort.draft.yaml").read_text()
    describe(tmp_path, text)
    with pytest.raises(DataError, match="the label 5 has the name None"):
        find_cohort(tmp_path)
    describe(tmp_path, text.replace("  5:", "  5: oedema").replace("  6:", "  6: enhancing"))
    (tmp_path / "slice_labels.csv").write_text(
        "patient,class,first_z,last_z\n"
        + "".join(f"P{i},whole_tumor,{z[0]},{z[-1]}\n" for i in range(3) if len(z := tumor_slices(i)))
    )
    assert check(tmp_path) == 0
    printed = capsys.readouterr().out
    for line in ("own layout (cohort.yaml)", "3, 2 of them with a mask", "b1000, gad", "5 oedema, 6 enhancing"):
        assert line in printed
    assert "16x16x12 voxels of 1x1x1 mm" in printed and f"P0: whole_tumor in slices {tumor_slices(0)[0]} to" in printed


def tumor_slices(index):
    return np.flatnonzero(make_truth(index).labels.any((0, 1)))


def test_files_named_as_in_brats_of_which_every_patient_lacks_one_are_drafted_too(tmp_path, capsys):
    write_cohort(tmp_path, "brats2021", patients=2)
    for patient in find_cohort(tmp_path).patients:
        patient.image_files[1].unlink()
    assert check(tmp_path) == 1
    assert "named as in BraTS, but no patient has the sequence T1; " in capsys.readouterr().out
    (tmp_path / "cohort.yaml").write_text(
        (tmp_path / "cohort.draft.yaml")
        .read_text()
        .replace("1:\n", "1: non_enhancing\n")
        .replace("2:\n", "2: oedema\n")
        .replace("4:\n", "4: enhancing\n")
    )
    cohort = find_cohort(tmp_path)
    assert cohort.sequences == ("FLAIR", "T1c", "T2") and len(cohort.tasks) == 4


def test_a_draft_names_the_papers_sequences_and_never_replaces_another(tmp_path, capsys):
    for name in ("A", "B"):
        for ending in ("FLAIR", "T1_gd", "T2", "segmentation"):
            save(tmp_path / name / f"{ending}.nii.gz", np.ones((4, 4, 4), np.int16))
    assert "FLAIR: FLAIR\n  T2: T2\n  gd: _gd\nmask: segmentation\nlabels:" in draft(tmp_path)
    (tmp_path / "cohort.draft.yaml").write_text("mine")
    check(tmp_path)
    assert (tmp_path / "cohort.draft.yaml").read_text() == "mine" and "is there already" in capsys.readouterr().out


def test_the_ten_commands_of_the_page_lead_from_scans_to_masks(tmp_path):
    page = (ROOT / "docs/own-data.md").read_text(encoding="utf-8")
    commands = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(commands) == 10
    for number in range(1, 11):
        name, shape = f"P{number:02d}", (48, 48, 24)
        images, labels = make_truth(number, shape)
        labels = np.where(np.arange(24) // 8 == 1, labels, 0)  # tumour in slices 8 to 15
        labels[20:28, 20:28, 8:16] = 2
        for ending, image in zip(("_flair", "_gad"), images, strict=False):
            save(tmp_path / "scans" / name / f"{name}{ending}.nii.gz", image.astype(np.int16))
        if number <= 4:
            mask = np.array([0, 6, 5, 6], np.uint8)[labels]
            save(tmp_path / "scans" / name / f"{name}_roi.nii.gz", mask)
    script = "set -e\n" + "".join(commands).replace("preset=workshop", "preset=tiny")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    draft = (tmp_path / "scans" / "cohort.draft.yaml").read_text()
    assert "FLAIR: _flair" in draft and "mask: _roi" in draft and "\n  5:\n  6:\n" in draft
    assert "labels        5 oedema, 6 enhancing" in done.stdout and "No problem found." not in done.stdout
    assert "0 errors, 0 warnings, 1 note." in done.stdout and "over 2 patients" in done.stdout
    assert sorted(path.stem for path in (tmp_path / "masks").glob("*.json")) == [f"P{n:02d}" for n in range(1, 11)]
    assert {path.name for path in tmp_path.glob("P09-*")} == {
        "P09-mask.nii.gz",
        "P09-mask.json",
        "P09-mask_probability.nii.gz",
        "P09-mask_slices.csv",
    }
