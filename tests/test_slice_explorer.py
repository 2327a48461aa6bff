"""The slice explorer: the plain picture and its words, and the controls in front of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_truth

from mixsup_lib.cohort import Case
from mixsup_lib.evaluation import dice, region_mask
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.teaching.widgets.slice_explorer import Scans, draw_slice, slice_explorer


def case(patient, seed, n_slices=12, sequences=("FLAIR", "T1", "T1c", "T2")):
    truth = make_truth(seed, (16, 16, n_slices))
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    images = truth.images[: len(sequences)]
    return Case(patient, sequences, images, truth.labels, affine, (2.0, 2.0, 2.0), affine)


@pytest.fixture
def cases():
    return {"A": case("A", 1), "B": case("B", 2, n_slices=20), "weak": replace(case("weak", 3), labels=None)}


@pytest.fixture
def scans(cases):
    shifted = {name: np.roll(cases[name].labels, 1, axis=0) for name in ("A", "B")}
    return Scans(cases, {"standard": shifted, "mixed": {"A": cases["A"].labels}})


def controls(explorer):
    row, picture = explorer.children
    return {control.description: control for control in row.children}, picture


def image_of(figure):
    return figure.axes[0].images[0]


def test_the_slice_is_shown_in_percent_of_the_median_of_the_head(scans, cases):
    figure = draw_slice(scans, patient="A", z=5, sequence="T1c", window=(50, 150))
    volume = cases["A"].images[2]
    x, y = scans.box("A")
    expected = volume[x, y, 5].T / np.median(volume[volume != 0]) * 100
    np.testing.assert_allclose(image_of(figure).get_array(), expected, rtol=1e-5)
    assert image_of(figure).get_clim() == (50, 150)


def test_the_words_give_the_area_of_the_region_in_the_slice(scans, cases):
    z = scans.fullest_slice("A")
    for region in ("whole_tumor", "tumor_core", "enhancing_core"):
        area = region_mask(cases["A"].labels, region)[:, :, z].sum() * 0.04  # cm² of a pixel of 2 mm
        words = alt_text(draw_slice(scans, patient="A", z=z, region=region))
        assert f"ground truth {area:.3g} cm²" in words and f"slice {z} of 0 to 11" in words


def test_a_prediction_is_outlined_and_scored_in_its_slice(scans, cases):
    labels = cases["A"].labels
    z = scans.fullest_slice("A")
    score = dice(np.roll(labels, 1, axis=0)[:, :, z] > 0, labels[:, :, z] > 0)
    figure = draw_slice(scans, patient="A", z=z, prediction="standard")
    assert f"prediction, standard supervision {(labels[:, :, z] > 0).sum() * 0.04:.3g} cm²" in alt_text(
        figure
    )
    assert f"Dice in this slice {score:.0f} %" in alt_text(figure)
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == ["ground truth", "prediction, standard", "slice shown"]
    assert "Dice in this slice 100 %" in alt_text(draw_slice(scans, patient="A", z=z, prediction="mixed"))


def test_what_is_missing_is_said(scans):
    assert "no mask (weakly annotated)" in alt_text(draw_slice(scans, patient="weak", z=3))
    words = alt_text(draw_slice(scans, patient="B", z=scans.fullest_slice("B"), prediction="mixed"))
    assert "no prediction, mixed supervision" in words and "Dice" not in words
    assert alt_text(draw_slice(scans, patient="A", z=3, region="none")).endswith("No outline.")


def test_a_slice_without_tumour_has_no_dice(scans, cases):
    empty = int(np.flatnonzero(~cases["A"].labels.any(axis=(0, 1)))[0])
    assert "Dice" not in alt_text(draw_slice(scans, patient="A", z=empty, prediction="mixed"))


def test_a_binary_prediction_counts_wherever_it_is_not_0(cases):
    core = region_mask(cases["A"].labels, "tumor_core").astype(np.uint8)
    scans = Scans(cases, {"mixed": {"A": core}}, task="tumor_core")
    assert scans.regions == ("tumor_core",)
    np.testing.assert_array_equal(scans.mask("A", "tumor_core", "mixed"), core != 0)
    z = int(core.sum(axis=(0, 1)).argmax())
    words = alt_text(draw_slice(scans, patient="A", z=z, region="tumor_core", prediction="mixed"))
    assert "Dice in this slice 100 %" in words


def test_the_cut_out_holds_predictions_outside_the_head(cases):
    stray = np.zeros_like(cases["A"].labels)
    stray[0, 15, 4] = 1
    x, y = Scans(cases, {"mixed": {"A": stray}}).box("A")
    assert x.start == 0 and y.stop >= 16


def test_without_a_voxel_size_areas_are_in_pixels(cases):
    scans = Scans({"A": replace(cases["A"], voxel_size_mm=None)})
    z = scans.fullest_slice("A")
    words = alt_text(draw_slice(scans, patient="A", z=z))
    assert f"ground truth {(cases['A'].labels[:, :, z] > 0).sum():.3g} pixels" in words


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"patient": "a"}, "unknown patient 'a'"),
        ({"sequence": "FLAR"}, "Did you mean 'FLAIR'?"),
        ({"region": "tumour_core"}, "Did you mean 'tumor_core'?"),
        ({"prediction": "mixd"}, "Did you mean 'mixed'?"),
        ({"z": 12}, "A has the slices 0 to 11, but 12 is asked for."),
        ({"z": -1}, "but -1 is asked for"),
        ({"window": (100, 100)}, "the window 100 to 100 is empty"),
    ],
)
def test_a_wrong_value_is_named(scans, wrong, sentence):
    with pytest.raises(SettingError, match=sentence.replace("?", r"\?")):
        draw_slice(scans, **({"patient": "A", "z": 5} | wrong))


def test_predictions_must_fit(cases):
    with pytest.raises(DataError, match="the prediction has shape"):
        Scans(cases, {"mixed": {"A": cases["B"].labels}})
    with pytest.raises(SettingError, match="unknown prediction 'mine'"):
        Scans(cases, {"mine": {}})
    with pytest.raises(DataError, match="no patient"):
        Scans({})


def test_each_control_changes_the_picture(scans):
    found, picture = controls(slice_explorer(scans))
    for name, value in {
        "slice": 4,
        "sequence": "T2",
        "outline": "enhancing_core",
        "window (%)": (20, 120),
        "prediction": "mixed",
        "patient": "B",
    }.items():
        before = picture.value
        found[name].value = value
        assert picture.value != before and "alert" not in picture.value, name


def test_another_patient_is_shown_in_its_fullest_slice_and_no_slice_is_out_of_reach(scans):
    found, picture = controls(slice_explorer(scans))
    for patient in ("B", "weak", "A"):
        found["patient"].value = patient
        assert found["slice"].max == scans.n_slices(patient) - 1
        assert found["slice"].value == scans.fullest_slice(patient)
        assert (
            "alert" not in picture.value
            and f"{patient}, FLAIR, slice {found['slice'].value} of" in picture.value
        )


def test_without_predictions_there_is_no_control_for_them(cases):
    found, _ = controls(slice_explorer(Scans(cases)))
    assert list(found) == ["patient", "sequence", "slice", "outline", "window (%)"]


def test_each_volume_is_worked_through_once(scans, monkeypatch):
    draw_slice(scans, patient="A", z=3, prediction="mixed")
    monkeypatch.setattr("mixsup_lib.teaching.widgets.slice_explorer.region_mask", None)
    monkeypatch.setattr("mixsup_lib.teaching.widgets.slice_explorer.foreground_mask", None)
    draw_slice(scans, patient="A", z=4, prediction="mixed")
