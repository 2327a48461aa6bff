"""Figures: what they draw is what the data says, in the colours the style promises."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

matplotlib.use("Agg")

from mixsup_lib.experiments import pictures, style
from mixsup_lib.files import DataError
from mixsup_lib.teaching.figures import show


@pytest.fixture
def pairs() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "region": "whole_tumor",
            "fold": [1, 1, 1, 2],
            "patient": list("abcd"),
            "standard": [10.0, 50.0, 60.0, 80.0],
            "mixed": [20.0, 70.0, 90.0, 75.0],
        }
    )
    return frame.assign(difference=frame["mixed"] - frame["standard"])


def history(classification: bool) -> pd.DataFrame:
    iteration = np.arange(1, 101)
    return pd.DataFrame(
        {
            "iteration": iteration,
            "loss": 1 / iteration,
            "segmentation_loss": 1 / iteration,
            "classification_loss": 0.5 if classification else np.nan,
            "learning_rate": 0.25,
        }
    )


def slices(n: int = 3, h: int = 20, w: int = 16) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).uniform(0, 200, (n, h, w)).astype(np.float32)
    truth = np.zeros((n, h, w), np.uint8)
    truth[:, 5:12, 4:10] = 1
    return image, truth


def relative_luminance(color: str) -> float:
    channels = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def dots(figure: Figure, axis: int = 0) -> list[tuple[str, np.ndarray]]:
    """Colour and positions of each scatter of an axis."""
    found = figure.axes[axis].collections
    return [(to_hex(c.get_facecolor()[0]).upper(), np.asarray(c.get_offsets())) for c in found]


# Learning curves


def test_each_run_is_a_line_in_its_arms_colour_and_standard_has_no_classification_loss():
    figure = pictures.learning_curves(
        {("standard", "fold 1"): history(False), ("mixed", "fold 1"): history(True)}
    )
    drawn = [
        [to_hex(x.get_color()).upper() for x in axis.lines if len(x.get_xdata())] for axis in figure.axes
    ]
    both = [style.COLORS["standard"], style.COLORS["mixed"]]
    assert drawn == [both, both[1:], both]
    assert "(nats)" in figure.axes[0].get_ylabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "standard (fold 1)",
        "mixed (fold 1)",
    ]


def test_curves_are_running_means():
    figure = pictures.learning_curves({("mixed", "x"): history(True)}, smooth=10)
    assert figure.axes[0].lines[0].get_ydata()[-1] == pytest.approx((1 / np.arange(91, 101)).mean())
    assert "0.0105" in style.alt_text(figure)


def test_curves_of_standard_runs_alone_say_why_a_panel_is_empty():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an empty logarithmic axis would warn
        figure = pictures.learning_curves({("standard", "x"): history(False)})
    assert [text.get_text() for text in figure.axes[1].texts] == ["no classification branch"]


# Patients and folds


def test_paired_dots_draw_every_patient_and_the_mean_over_folds(pairs):
    figure = pictures.paired_dots(pairs)
    (a, standard), (b, standard_mean), (c, mixed), (_, mixed_mean) = dots(figure)
    assert (a, b, c) == (*[style.COLORS["standard"]] * 2, style.COLORS["mixed"])
    assert standard[:, 1].tolist() == pairs["standard"].tolist()
    assert mixed[:, 1].tolist() == pairs["mixed"].tolist()
    assert (standard_mean[0, 1], mixed_mean[0, 1]) == (60.0, 67.5)  # mean of the folds' means
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines[:4]]
    assert lines == pairs[["standard", "mixed"]].to_numpy().tolist()
    assert "(%)" in figure.axes[0].get_ylabel()
    assert "whole tumour: 3 of 4 patients gain with mixed, 1 lose" in style.alt_text(figure)


def test_dice_by_fold_draws_the_folds_means(pairs):
    figure = pictures.dice_by_fold(pairs, title="phantom")
    (_, _), (_, standard), (_, _), (_, mixed) = dots(figure)
    assert standard[:, 1] == pytest.approx([40.0, 80.0])
    assert mixed[:, 1] == pytest.approx([60.0, 75.0])
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == pytest.approx([60.0, 67.5])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2"]
    assert (
        style.alt_text(figure) == "phantom. Mean Dice by fold. whole tumour: mixed is ahead in 1 of 2 folds."
    )


@pytest.mark.parametrize("draw", [pictures.paired_dots, pictures.dice_by_fold])
def test_one_panel_per_region(pairs, draw):
    three = pd.concat([pairs.assign(region=name) for name in ("whole_tumor", "tumor_core", "enhancing_core")])
    titles = [axis.get_title() for axis in draw(three).axes]
    assert titles == ["whole tumour", "tumour core", "enhancing core"]


@pytest.mark.parametrize("draw", [pictures.paired_dots, pictures.dice_by_fold])
def test_nothing_to_draw_is_said(pairs, draw):
    with pytest.raises(DataError, match="nothing to draw"):
        draw(pairs.iloc[:0])


# Slices


def test_outlines_run_around_the_masks_and_hide_nothing():
    (image, *_), (truth, *_) = slices()
    figure, axes = style.new_figure(1, 1, width=2, height=2)
    pictures.contour_slice(axes[0, 0], image, truth, np.roll(truth, 2, axis=0), supervision="standard")
    outlines = axes[0, 0].collections
    assert [to_hex(x.get_edgecolor()[0]).upper() for x in outlines] == ["#F0E442", "#D55E00"]
    assert all(len(x.get_facecolor()) == 0 for x in outlines)
    corners = outlines[0].get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == (3.5, 9.5, 4.5, 11.5)
    styles = [x.get_linestyle()[0][1] for x in outlines]
    assert styles[0] is None and styles[1] is not None  # solid and dashed: colour is not the only sign


def test_an_outline_closes_at_the_border_of_the_slice():
    _, axes = style.new_figure(1, 1, width=2, height=2)
    pictures.contour_slice(axes[0, 0], np.ones((6, 8), np.float32), np.ones((6, 8)))
    corners = axes[0, 0].collections[0].get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == (-0.5, 7.5, -0.5, 5.5)


def test_an_empty_slice_and_empty_masks_are_drawn_without_complaint():
    _, axes = style.new_figure(1, 1, width=2, height=2)
    pictures.contour_slice(axes[0, 0], np.zeros((6, 8), np.float32), np.zeros((6, 8)), None)
    assert len(axes[0, 0].collections) == 0
    assert axes[0, 0].images[0].get_array().shape == (6, 8)


def test_a_panel_of_slices_by_sequences_repeats_the_outline_on_every_sequence():
    image, truth = slices()
    images = np.stack([image] * 4, axis=1)  # (3, 4, H, W)
    figure = pictures.case_panel(
        images,
        truth[:, None],
        truth[:, None],
        row_labels=["a", "b", "c"],
        column_labels=["FLAIR", "T1", "T1c", "T2"],
    )
    assert [len(axis.collections) for axis in figure.axes] == [2] * 12
    assert [axis.get_title() for axis in figure.axes[:4]] == ["FLAIR", "T1", "T1c", "T2"]
    assert "rows: a; b; c; columns: FLAIR; T1; T1c; T2" in style.alt_text(figure)


def test_examples_have_a_row_per_arm_with_the_patients_dice():
    image, truth = slices()
    run = {
        "image": image,
        "truth": truth,
        "prediction": truth,
        "patient": np.array(list("abc")),
        "z": np.arange(3),
    }
    short = {name: array[:2] for name, array in run.items()}
    dice = {(arm, patient): 42.0 for arm in ("standard", "mixed") for patient in "abc"}
    figure = pictures.example_panel({"standard": run, "mixed": short}, dice)
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["best", "median", "worst"]
    predictions = [to_hex(axis.collections[1].get_edgecolor()[0]).upper() for axis in figure.axes[:5]]
    assert predictions == [style.ON_IMAGE["standard"]] * 3 + [style.ON_IMAGE["mixed"]] * 2
    assert "b, slice 1, Dice 42" in style.alt_text(figure)


def test_examples_of_different_size_are_refused():
    arrays = {"truth": None, "prediction": None, "patient": np.array(["a"]), "z": np.array([0])}
    with pytest.raises(DataError, match=r"sizes \[\(4, 4\), \(5, 4\)\]"):
        pictures.example_panel(
            {arm: {"image": np.ones((1, h, 4)), **arrays} for arm, h in (("standard", 4), ("mixed", 5))}, {}
        )


# Style


def test_arms_differ_in_lightness_marker_and_line_so_that_colour_is_never_the_only_sign():
    for colors in (style.COLORS, style.ON_IMAGE):
        light, dark = sorted((relative_luminance(colors[arm]) for arm in ("standard", "mixed")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 1.3
    assert len(set(style.MARKERS.values())) == len(set(style.DASHES.values())) == 2


def test_drawing_leaves_no_open_figure_and_no_setting_behind(pairs):
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    figure = pictures.paired_dots(pairs)
    assert isinstance(figure, Figure)
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_a_long_title_is_wrapped_into_the_figure(pairs):
    figure = pictures.paired_dots(
        pairs, title="phantom, calibrated to the paper's standard curve, five FA and all others WA"
    )
    assert "\n" in figure.get_suptitle()
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_show_gives_the_image_its_alternative_text(pairs, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show(pictures.paired_dots(pairs))
    data, metadata = shown[0]._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == capsys.readouterr().out.strip()
    assert "3 of 4 patients gain" in metadata["image/png"]["alt"]
    assert shown[0].data.startswith(b"\x89PNG") and "image/png" in data


# The paper's figure 7


def comparison(**columns) -> pd.DataFrame:
    row = {"task": "whole_tumor", "region": "whole_tumor", "n_fa": 5, "standard": 60.0, "mixed": 72.5}
    return pd.DataFrame([{**row, "difference": 12.5, **columns}])


def curves(figure: Figure, axis: int = 0) -> dict[str, list[tuple[float, float]]]:
    lines = figure.axes[axis].lines
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in lines}


def test_figure_7_holds_the_papers_means_and_ours():
    drawn = curves(pictures.dice_by_annotation(comparison()))
    assert drawn["standard, the paper"] == [(5, 70.39), (15, 77.91), (30, 83.95), (228, 86.80)]
    assert drawn["mixed, the paper"] == [(5, 78.34), (15, 80.92), (30, 83.84)]
    assert drawn["standard, here"] == [(5, 60.0)] and drawn["mixed, here"] == [(5, 72.5)]


def test_figure_7_of_the_multiclass_problem_has_a_panel_per_region():
    figure = pictures.dice_by_annotation(comparison().head(0), task="multiclass")
    assert [axis.get_title() for axis in figure.axes] == ["whole tumour", "tumour core", "enhancing core"]
    assert curves(figure, 2)["mixed, the paper"] == [(5, 58.19), (15, 65.71), (30, 67.69)]
    assert "here" not in style.alt_text(figure)


def test_figure_7_says_in_words_what_was_gained():
    words = style.alt_text(pictures.dice_by_annotation(comparison()))
    assert "mixed is ahead by 8.0 points in the paper at 5 scans, here +12.5 at 5" in words
