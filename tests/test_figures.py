"""Every figure: it draws, says its main numbers in words, leaves nothing behind; and what it draws is what was given.

Figures of results (`experiments.pictures`) come first, then those of the notebooks in their order.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from cohorts import make_truth
from matplotlib import pyplot
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch.nn import functional as F

from mixsup_lib.cohort import Case
from mixsup_lib.datasets.slice_labels import mask_presence
from mixsup_lib.experiments import pictures, style
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.model import DeepSkipBranch, MixedSupervisionUNet
from mixsup_lib.protocol import make_split, permutation
from mixsup_lib.sampling import Batch
from mixsup_lib.teaching.figures import nb00, nb01, nb02, nb03, nb04, nb05, nb06, nb07, panels, show
from mixsup_lib.teaching.planner import annotation_hours
from mixsup_lib.unet import Geometry

PAPER, SMALL = Geometry(4, "valid"), Geometry(2, "valid")


# What the figures are drawn from


def frame_of_pairs(regions=("whole_tumor",)) -> pd.DataFrame:
    frame = pd.DataFrame({"fold": [1, 1, 1, 2], "patient": list("abcd")})
    frame = frame.assign(standard=[10.0, 50.0, 60.0, 80.0], mixed=[20.0, 70.0, 90.0, 75.0])
    frame["difference"] = frame["mixed"] - frame["standard"]
    return pd.concat([frame.assign(region=region) for region in regions])


def history(classification: bool) -> pd.DataFrame:
    iteration = np.arange(1, 101)
    loss = {"loss": 1 / iteration, "segmentation_loss": 1 / iteration, "learning_rate": 0.25}
    return pd.DataFrame(
        {"iteration": iteration, **loss, "classification_loss": 0.5 if classification else np.nan}
    )


def examples(n: int = 3, h: int = 20, w: int = 16) -> dict[str, np.ndarray]:
    image = np.random.default_rng(0).uniform(0, 200, (3, h, w)).astype(np.float32)
    truth = np.zeros((3, h, w), np.uint8)
    truth[:, 5:12, 4:10] = 1
    run = {
        "image": image,
        "truth": truth,
        "prediction": truth,
        "patient": np.array(list("abc")),
        "z": np.arange(3),
    }
    return {name: array[:n] for name, array in run.items()}


def comparison(**columns) -> pd.DataFrame:
    row = {"task": "whole_tumor", "region": "whole_tumor", "n_fa": 5, "standard": 60.0, "mixed": 72.5}
    return pd.DataFrame([{**row, "difference": 12.5, **columns}])


def case() -> Case:
    truth = make_truth(1)
    affine = np.array([[-2.0, 0, 0, 15], [0, -2, 0, 20], [0, 0, 2, -9], [0, 0, 0, 1]])
    sequences = ("FLAIR", "T1", "T1c", "T2")
    return Case("A", sequences, truth.images, truth.labels, affine, (2.0, 2.0, 2.0), affine)


def scan() -> tuple[np.ndarray, np.ndarray]:
    """A volume (X, Y, Z) and its label map: oedema in three slices, a core with a rim in one of them."""
    volume, labels = np.zeros((16, 18, 5)), np.zeros((16, 18, 5), np.uint8)
    volume[2:14, 2:16] = 100.0
    labels[4:12, 4:12, 1:4] = 2
    labels[5:11, 5:11, 2] = 3
    labels[7:9, 7:9, 2] = 1
    return volume, labels


def batch(n: int = 4) -> Batch:
    labels = np.zeros((6, 8, 8), int)
    labels[:4, 2:4, 2:4] = 1
    presence = np.array([1, 1, 1, 1, 0, 0, *[1] * n])[:, None]
    return Batch(np.ones((6 + n, 4, 8, 8), np.float32), labels, presence, np.arange(6 + n))


def idea(n: int = 3) -> Figure:
    image, mask = case().images[0][:, :, 5].T, case().labels[:, :, 5].T
    return nb00.mixed_supervision_idea([(image, mask)] * n, [(image, True)] * 3, n_fa=7, n_wa=70)


def bars() -> Figure:
    shown = np.zeros(12, bool)
    shown[[0, 1, 5, 11]] = True
    return nb01.slice_bars({"whole_tumor": shown, "enhancing": np.zeros(12, bool)}, training=(1, 10))


def sheet() -> Figure:
    volume, framed = np.zeros((8, 8, 10)), np.zeros(10, bool)
    volume[2:6, 2:6, 3:9] = np.arange(1, 7)
    framed[4:6] = True
    return nb01.contact_sheet(volume, columns=4, framed=framed)


def sees() -> Figure:
    image, gradient = np.random.default_rng(0).random((300, 300)), np.zeros((300, 300))
    gradient[157, 157] = 1
    return nb02.receptive_field(image, gradient, seen=(48, 267), window=(107, 207), pixel=157)


def shifted() -> Figure:
    mask = np.zeros((40, 40))
    mask[10:20, 12:18] = 1
    return nb02.delivered({"moved": (np.ones((40, 40)), mask, np.roll(mask, (5, -3), (0, 1)) / 7)})


def pooled() -> Figure:
    gradients = {"mean": np.full((16, 16), 1 / 64), "max": np.eye(16)[:, ::-1] * (np.arange(16) % 8 == 0)}
    separation = {"weak": {"mean": [0.5, 0.6, 0.7, 0.8], "max": [0.5, 0.5, 0.6, 0.6]}}
    return nb02.pooling((1, 4, 16, 64), separation, gradients)


def surviving() -> Figure:
    one = ({"conv": 1.2, "FC 1": 1.0, "FC 6": 0.6}, 0.8, 1.5)
    return nb02.surviving_difference([one, ({"conv": 1.0, "FC 1": 0.8, "FC 6": 0.4}, 0.6, 1.9)])


def weights() -> Figure:
    labels = np.zeros((6, 10, 10), int)
    labels[:3, 2:4, 3:5] = 1
    return nb03.batch_weights(np.ones((6, 10, 10)), labels, (0.7, 0.3))


def three_tasks() -> Figure:
    labels = np.zeros((8, 8), np.uint8)
    labels[2:4, 2:5] = 2
    return nb04.one_slice_three_tasks(np.ones((8, 8)), labels)


def seen_dice() -> pd.DataFrame:
    rows = [("standard", "annotated", 90.0), ("standard", "test", 40.0), ("standard", "test", 60.0)]
    return pd.DataFrame(rows, columns=["supervision", "group", "dice"])


def distances() -> Figure:
    image, mask = np.zeros((20, 20)), np.zeros((20, 20), bool)
    image[5:15, 5:15], mask[8:11, 8:11] = 100, True
    return nb06.surface_distances(image, mask, mask, {"prediction to truth": np.arange(101.0)})


def errors(**presence) -> Figure:
    volumes = {"standard": (np.array([0, 1.0]), np.array([2.0, 0])), "mixed": (np.zeros(2), np.zeros(2))}
    return nb06.error_profile(np.array([0, 3.0]), volumes, **presence)


def spread() -> Figure:
    columns = {"supervision": "mixed", "dice": [90.0, 10.0, 50.0, np.nan], "truth_voxels": [9, 9, 9, 0]}
    return nb06.spread_of_dice(pd.DataFrame(columns))


def maps() -> Figure:
    volume, truth = scan()
    return nb07.label_maps(volume, {"truth": truth, "confused": np.where(truth == 3, 2, truth)}, 2)


CHECKS = {10: (0.9, True), 20: (0.7, False), 30: (0.6, False)}
COURSES = {"no weights": ([0.7, 0.1], [0, 0]), "weights": ([0.7, 0.3], [5, 40])}
DRAWS = {"drawn": np.array([0, 0, 2]), "walked": np.array([0, 1, 2])}
BOTH = {("standard", "fold 1"): history(False), ("mixed", "fold 1"): history(True)}
SCORES = {(arm, patient): 42.0 for arm in ("standard", "mixed") for patient in "abc"}

FIGURES = {  # each with what its words must hold
    "learning_curves": (lambda: pictures.learning_curves(BOTH), ["of 2 runs", "mixed fold 1: 0.0114"]),
    "paired_dots": (
        lambda: pictures.paired_dots(frame_of_pairs()),
        ["whole tumour: 3 of 4 patients gain with mixed, 1 lose"],
    ),
    "dice_by_fold": (
        lambda: pictures.dice_by_fold(frame_of_pairs(), title="phantom"),
        ["phantom. Mean Dice by fold. whole tumour: mixed is ahead in 1 of 2 folds."],
    ),
    "example_panel": (
        lambda: pictures.example_panel({"standard": examples(), "mixed": examples(2)}, SCORES),
        [
            "rows: standard supervision; mixed supervision; columns: best; median; worst",
            "b, slice 1, Dice 42",
        ],
    ),
    "dice_by_annotation": (
        lambda: pictures.dice_by_annotation(comparison()),
        ["mixed is ahead by 8.0 points in the paper at 5 scans, here +12.5 at 5"],
    ),
    "idea": (idea, ["7 fully annotated scans", "70 weakly annotated scans"]),
    "three_planes": (lambda: nb01.three_planes(case(), (5, 6, 7)), ["x, y, z = 5.0, 8.0, 5.0 mm"]),
    "sequences": (lambda: nb01.sequences_and_classes(case(), 6), ["Slice 6 of A in FLAIR, T1, T1c, T2"]),
    "slice_bars": (
        bars,
        ["whole tumour 0 to 1, 5 to 5, 11 to 11; enhancing nowhere", "Training slices: 1 to 10."],
    ),
    "contact_sheet": (sheet, ["slices 3 (lowest) to 8 (highest)", "Framed: slices 4 to 5."]),
    "dice_by_hours": (
        nb01.dice_by_hours,
        ["5 FA + 223 WA 9.3 hours, Dice 78.3", "228 FA 171.0 hours, Dice 86.8"],
    ),
    "architecture": (
        lambda: nb02.architecture(PAPER),
        ["300x300", "101x101", "1024 maps of 11x11", "5, 19, 47, 103", "64 × 13²", "32 × 11² = 3872"]
        + ["fully connected 5: 100", "the first is concatenated to the fifth"],
    ),
    "receptive_field": (sees, ["48 to 267, a square of 220", "107 to 207", "square of 1,"]),
    "delivered": (shifted, ["moved +5.0 rows and -3.0 columns"]),
    "border_effect": (
        lambda: nb02.border_effect({"a": np.array([0, 0, 0, 0.5]), "b": np.full(10, 0.2)}),
        ["a: 1 of 4 pixels change, at most by 50% of the spread", "b: 10 of 10 pixels change"],
    ),
    "pooling": (
        pooled,
        ["weak, 64 tumour pixels: 0.80 with mean-pooling and 0.60 with max-pooling"]
        + ["mean-pooling reaches 100 % of the pixels", "max-pooling reaches 0.781 %"],
    ),
    "surviving_difference": (
        surviving,
        ["2 untrained", "0.90 after the first", "0.50 after the sixth without", "0.70 with it", "1.5 to 1.9"],
    ),
    "batch_weights": (weights, ["weigh 0.3, all others 0.7", "image 3: 4 tumour pixels weigh 0.100"]),
    "first_steps": (
        lambda: nb03.first_steps(COURSES),
        ["After 1 steps: no weights: loss 0.100, Dice 0 %; weights: loss 0.300, Dice 40 %."],
    ),
    "fold_strips": (lambda: nb04.fold_strips(285, 5), ["fold 5 tests positions 228 to 284; the next 5"]),
    "three_tasks": (
        three_tasks,
        ["whole_tumor: positive, 6 pixels; tumor_core: negative, 0 pixels; enhancing_core: negative"],
    ),
    "draws_per_slice": (
        lambda: nb04.draws_per_slice(DRAWS, 3),
        ["drawn: each slice 0 to 2 times, 1 never; walked: each slice 1 to 1 times, 0 never"],
    ),
    "batch_composition": (
        lambda: nb04.batch_composition(batch(), 4, flipped=[0, 5], sources=["FA"] * 6 + ["WA"] * 4),
        ["4 positive weak", "sees the first 6, the classification loss all 10", "Mirrored: 2"],
    ),
    "toy_descent": (nb05.toy_descent, ["f x 10: diverged"]),
    "gradient_agreement": (
        lambda: nb05.gradient_agreement({1: [0.0, 0.5], 10: [0.9]}),
        ["1: 0.25; 10: 0.90"],
    ),
    "schedules": (
        lambda: nb05.schedules(np.linspace(1, 0.5, 30), {"plateau rule": np.full(30, 0.125)}, CHECKS),
        ["3 checks of the plateau rule, 2 failed (at iterations 20, 30)", "plateau rule 0.125"],
    ),
    "seen_and_unseen": (
        lambda: nb05.seen_and_unseen(seen_dice()),
        ["standard: 90 on annotated, 50 on test patients"],
    ),
    "surface_distances": (
        distances,
        ["prediction to truth: 95 % are within 95.0 mm, the farthest is at 100.0 mm"],
    ),
    "error_profile": (
        lambda: errors(presence=np.array([0.1, 0.9])),
        ["Of 3.0 ml tumour standard misses 1.0 ml and draws 2.0 ml too much"],
    ),
    "spread_of_dice": (spread, ["of 3 test patients per arm. mixed: mean 50.0, median 50.0, worst 10.0"]),
    "subclass_slices": (
        lambda: nb07.subclass_slices(*scan(), [0, 1, 2]),
        ["slice 0: none; slice 1: oedema; slice 2: non-enhancing, oedema, enhancing"],
    ),
    "positive_slices": (
        lambda: nb07.positive_slices({"one": mask_presence(scan()[1])}),
        ["oedema shown in 3, enhancing shown in 1"]
        + ["whole tumour: positive in 3, tumour core: positive in 1, enhancing core: positive in 1"],
    ),
    "label_maps": (maps, [f"confused 100, {100 * 2 * 4 / (4 + 36):.0f}, 0"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_says_its_numbers_and_leaves_nothing_behind(name):
    draw, phrases = FIGURES[name]
    before = dict(matplotlib.rcParams)
    figure = draw()
    assert [phrase for phrase in phrases if phrase not in alt_text(figure)] == []
    assert style.as_png(figure, dpi=50).startswith(b"\x89PNG")
    assert pyplot.get_fignums() == [] and dict(matplotlib.rcParams) == before


# Style


def relative_luminance(color: str) -> float:
    channels = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_colour_is_never_the_only_sign_and_stands_for_one_thing():
    for colors in (style.COLORS, style.ON_IMAGE):
        light, dark = sorted((relative_luminance(colors[arm]) for arm in ("standard", "mixed")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 1.3
    for signs in (style.MARKERS, style.DASHES, style.CLASS_DASHES):
        assert len(set(signs.values())) == len(signs)
    every = [*style.CLASS_COLORS.values(), *style.COLORS.values()]
    assert len(set(every)) == len(every)


def test_a_long_title_is_wrapped_into_the_figure():
    title = "phantom, calibrated to the paper's standard curve, five FA and all others WA"
    figure = pictures.paired_dots(frame_of_pairs(), title=title)
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert "\n" in figure.get_suptitle() and box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_a_shown_figure_has_an_alternative_text_and_a_caption(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda what, **_: shown.append(what))
    figure, _ = style.new_figure(1, 1, width=2, height=2)
    show(style.described(figure, 'Dice of "mixed" < 50'))
    image, caption = shown
    data, metadata = image._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == 'Dice of "mixed" < 50' and image.data.startswith(b"\x89PNG")
    assert "<em>Dice of &quot;mixed&quot; &lt; 50</em>" in caption["text/html"]
    assert caption["text/plain"] == 'Dice of "mixed" < 50'


# Pictures of results


def dots(figure: Figure) -> list[tuple[str, np.ndarray]]:
    """Colour and positions of each scatter of the first axis."""
    found = figure.axes[0].collections
    return [(to_hex(c.get_facecolor()[0]).upper(), np.asarray(c.get_offsets())) for c in found]


def curves(figure: Figure, axis: int = 0) -> dict[str, list[tuple[float, float]]]:
    lines = figure.axes[axis].lines
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in lines}


def test_each_run_is_a_line_in_its_arms_colour_and_standard_has_no_classification_loss():
    figure = pictures.learning_curves(BOTH)
    drawn = [
        [to_hex(x.get_color()).upper() for x in axis.lines if len(x.get_xdata())] for axis in figure.axes
    ]
    both = [style.COLORS["standard"], style.COLORS["mixed"]]
    assert drawn == [both, both[1:], both] and "(nats)" in figure.axes[0].get_ylabel()
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["standard (fold 1)", "mixed (fold 1)"]


def test_curves_are_running_means_and_an_empty_panel_says_why():
    figure = pictures.learning_curves({("mixed", "x"): history(True)}, smooth=10)
    assert figure.axes[0].lines[0].get_ydata()[-1] == pytest.approx((1 / np.arange(91, 101)).mean())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an empty logarithmic axis would warn
        figure = pictures.learning_curves({("standard", "x"): history(False)})
    assert [text.get_text() for text in figure.axes[1].texts] == ["no classification branch"]


def test_paired_dots_draw_every_patient_and_the_mean_over_folds():
    pairs = frame_of_pairs()
    figure = pictures.paired_dots(pairs)
    (a, standard), (b, standard_mean), (c, mixed), (_, mixed_mean) = dots(figure)
    assert (a, b, c) == (*[style.COLORS["standard"]] * 2, style.COLORS["mixed"])
    assert standard[:, 1].tolist() == pairs["standard"].tolist()
    assert mixed[:, 1].tolist() == pairs["mixed"].tolist()
    assert (standard_mean[0, 1], mixed_mean[0, 1]) == (60.0, 67.5)  # mean of the folds' means
    lines = [line.get_ydata().tolist() for line in figure.axes[0].lines[:4]]
    assert lines == pairs[["standard", "mixed"]].to_numpy().tolist()


def test_dice_by_fold_draws_the_folds_means():
    figure = pictures.dice_by_fold(frame_of_pairs())
    (_, _), (_, standard), (_, _), (_, mixed) = dots(figure)
    assert standard[:, 1] == pytest.approx([40.0, 80.0]) and mixed[:, 1] == pytest.approx([60.0, 75.0])
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == pytest.approx([60.0, 67.5])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2"]


@pytest.mark.parametrize("draw", [pictures.paired_dots, pictures.dice_by_fold])
def test_there_is_a_panel_per_region_and_nothing_to_draw_is_said(draw):
    three = frame_of_pairs(("whole_tumor", "tumor_core", "enhancing_core"))
    titles = [axis.get_title() for axis in draw(three).axes]
    assert titles == ["whole tumour", "tumour core", "enhancing core"]
    with pytest.raises(DataError, match="nothing to draw"):
        draw(three.iloc[:0])


def test_outlines_run_around_the_masks_and_hide_nothing():
    run = examples()
    figure, axes = style.new_figure(1, 1, width=2, height=2)
    moved = np.roll(run["truth"][0], 2, axis=0)
    pictures.contour_slice(axes[0, 0], run["image"][0], run["truth"][0], moved, supervision="standard")
    outlines = axes[0, 0].collections
    assert [to_hex(x.get_edgecolor()[0]).upper() for x in outlines] == ["#F0E442", "#D55E00"]
    assert all(len(x.get_facecolor()) == 0 for x in outlines)
    corners = outlines[0].get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == (3.5, 9.5, 4.5, 11.5)
    styles = [x.get_linestyle()[0][1] for x in outlines]
    assert styles[0] is None and styles[1] is not None  # solid and dashed: colour is not the only sign


def test_an_outline_closes_at_the_border_and_an_empty_mask_has_none():
    _, axes = style.new_figure(1, 2, width=2, height=2)
    pictures.contour_slice(axes[0, 0], np.ones((6, 8), np.float32), np.ones((6, 8)))
    corners = axes[0, 0].collections[0].get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == (-0.5, 7.5, -0.5, 5.5)
    pictures.contour_slice(axes[0, 1], np.zeros((6, 8), np.float32), np.zeros((6, 8)), None)
    assert len(axes[0, 1].collections) == 0 and axes[0, 1].images[0].get_array().shape == (6, 8)


def test_a_panel_of_slices_by_sequences_repeats_the_outline_on_every_sequence():
    run, names = examples(), ["FLAIR", "T1", "T1c", "T2"]
    images, truth = np.stack([run["image"]] * 4, axis=1), run["truth"][:, None]  # (3, 4, H, W), (3, 1, H, W)
    labels = {"row_labels": ["a", "b", "c"], "column_labels": names}
    figure = pictures.case_panel(images, truth, truth, **labels)
    assert [len(axis.collections) for axis in figure.axes] == [2] * 12
    assert [axis.get_title() for axis in figure.axes[:4]] == names


def test_examples_have_a_row_per_run_in_its_arms_colour():
    figure = FIGURES["example_panel"][0]()
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert [axis.get_title() for axis in figure.axes[:3]] == ["best", "median", "worst"]
    predictions = [to_hex(axis.collections[1].get_edgecolor()[0]).upper() for axis in figure.axes[:5]]
    assert predictions == [style.ON_IMAGE["standard"]] * 3 + [style.ON_IMAGE["mixed"]] * 2
    with pytest.raises(DataError, match=r"sizes \[\(20, 16\), \(21, 16\)\]"):
        pictures.example_panel({"standard": examples(), "mixed": examples(h=21)}, SCORES)


def test_figure_7_holds_the_papers_means_and_ours():
    drawn = curves(pictures.dice_by_annotation(comparison()))
    assert drawn["standard, the paper"] == [(5, 70.39), (15, 77.91), (30, 83.95), (228, 86.80)]
    assert drawn["mixed, the paper"] == [(5, 78.34), (15, 80.92), (30, 83.84)]
    assert drawn["standard, here"] == [(5, 60.0)] and drawn["mixed, here"] == [(5, 72.5)]


def test_figure_7_of_the_multiclass_problem_has_a_panel_per_region():
    figure = pictures.dice_by_annotation(comparison().head(0), task="multiclass")
    assert [axis.get_title() for axis in figure.axes] == ["whole tumour", "tumour core", "enhancing core"]
    assert curves(figure, 2)["mixed, the paper"] == [(5, 58.19), (15, 65.71), (30, 67.69)]
    assert "here" not in alt_text(figure)


# Notebooks 00 and 01


def test_the_idea_needs_three_slices_of_each_kind():
    with pytest.raises(SettingError, match="found 2 annotated and 3 weak slices"):
        idea(2)


def test_a_head_box_holds_the_head():
    volume = np.zeros((20, 16, 4))
    volume[5:8, 10, 2] = 1
    assert panels.head_box(volume, margin=2) == (slice(3, 10), slice(8, 13))
    with pytest.raises(DataError, match="0 everywhere"):
        panels.head_box(np.zeros((3, 3, 3)))


def test_three_planes_meet_at_the_voxel_and_show_it_there():
    one = case()
    figure, volume = nb01.three_planes(one, (5, 6, 7)), one.images[0]
    x, y, z = (one.affine @ [5, 6, 7, 1])[:3]
    planes = [((x, y), volume[5, 6, 7]), ((x, z), volume[5, 6, 7]), ((y, z), volume[5, 6, 7])]
    for axis, ((across, up), grey) in zip(figure.axes, planes, strict=True):
        vertical, horizontal = axis.lines
        assert vertical.get_xdata()[0] == across and horizontal.get_ydata()[0] == up
        left, right, bottom, top = axis.images[0].get_extent()
        array = np.asarray(axis.images[0].get_array())
        column = int((across - left) / (right - left) * array.shape[1])
        row = int((up - top) / (bottom - top) * array.shape[0])
        assert array[row, column] == grey
        assert axis.get_xlim() == (left, right) and axis.get_ylim() == (bottom, top)


def test_the_anterior_and_the_head_are_at_the_top_and_the_right_on_the_left():
    axial, coronal, sagittal = nb01.three_planes(case(), (5, 6, 7)).axes
    assert axial.get_xlim()[0] > axial.get_xlim()[1] and axial.get_ylim()[0] < axial.get_ylim()[1]
    assert coronal.get_ylim()[0] < coronal.get_ylim()[1] and sagittal.get_ylim()[0] < sagittal.get_ylim()[1]


def test_the_classes_of_a_slice_are_counted():
    one = case()
    counts = [np.count_nonzero(one.labels[:, :, 6] == value) for value in (1, 2, 3)]
    words = alt_text(nb01.sequences_and_classes(one, 6))
    assert f"non-enhancing {counts[0]}, oedema {counts[1]}, enhancing {counts[2]}" in words
    with pytest.raises(DataError, match="has no mask"):
        nb01.sequences_and_classes(replace(one, labels=None), 6)


def test_ridges_mark_the_medians():
    before = {"A": case().images[0], "B": 3 * case().images[0]}
    after = {name: 100 * volume / np.median(volume[volume != 0]) for name, volume in before.items()}
    medians = [f"{np.median(volume[volume != 0]):.0f}" for volume in before.values()]
    words = alt_text(nb01.intensity_ridges(before, after))
    assert f"as recorded: {', '.join(medians)}; normalised: 100, 100" in words


def test_a_contact_sheet_holds_the_slices_with_head_and_their_numbers():
    axis = sheet().axes[0]
    assert [text.get_text() for text in axis.texts] == ["3", "4", "5", "6", "7", "8"] and len(
        axis.patches
    ) == 2
    assert axis.images[0].get_array().shape == (2 * 6, 4 * 6)


def test_hours_are_those_of_the_papers_minutes():
    assert annotation_hours(228) == 171 and annotation_hours(5, 223, minutes_wa=1) == (225 + 223) / 60


# Notebook 02: the layers

NETWORKS = [(1, "valid", 48), (3, "valid", 148), (4, "valid", 300), (2, "same", 48), (3, "same", 80)]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


@pytest.mark.parametrize(("depth", "padding", "size"), NETWORKS)
def test_the_table_of_layers_is_the_network(depth, padding, size):
    sizes = {"width": 4, "depth": depth, "padding": padding, "input_shape": (size, size)}
    network = MixedSupervisionUNet(in_channels=4, n_maps=2, n_branches=1, **sizes)
    geometry = Geometry(depth, padding)
    table = nb02.layer_table(geometry, input_size=size, width=4).set_index("layer")
    parts = {"U-Net": (network.unet, network.segmentation_layer), "branch": (network.branches,)}
    for part, modules in parts.items():
        counted = sum(p.numel() for module in modules for p in module.parameters())
        assert table["parameters"][table["part"] == part].sum() == counted
    sides = dict(geometry.layer_sizes(size))
    assert table["side"][list(sides)].to_dict() == sides
    with torch.no_grad():
        features = network.unet(torch.zeros(1, 4, size, size))
    assert features.shape[1:] == (table["maps"]["decoder 0"], *[table["side"]["decoder 0"]] * 2)
    first = network.branches[0].first_to_fifth[0]
    assert first.in_features == table["maps"]["convolution"] * table["side"]["convolution"] ** 2


def test_the_papers_layers():
    table = nb02.layer_table(PAPER)
    assert table.groupby("part")["parameters"].sum().to_dict() == {"U-Net": 31_046_082, "branch": 1_371_280}
    maps, sides = table.set_index("layer")["maps"], table.set_index("layer")["side"]
    names = ["pool 3", "bottom", "upsample 3", "up-convolution 3", "upsample 0", "segmentation"]
    assert maps[names].tolist() == [512, 1024, 1024, 512, 128, 2]
    assert maps[[f"FC {n}" for n in range(1, 8)]].tolist() == [300, 250, 200, 150, 100, 50, 2]
    assert sides[["mean-pool", "convolution", "FC 1"]].tolist() == [13, 11, 1]
    rows = nb02.branch_rows(table)
    assert [outputs for _, outputs in rows] == [64 * 13**2, 3872, 300, 250, 200, 150, 100, 50, 2]


@pytest.mark.parametrize(("depth", "padding", "size"), NETWORKS)
def test_every_layer_is_drawn_once_and_no_two_boxes_overlap(depth, padding, size):
    geometry = Geometry(depth, padding)
    boxes = nb02.place_boxes(nb02.layer_table(geometry, input_size=size, width=8), depth)
    sides = {name: side for name, side in geometry.layer_sizes(size) if not name.startswith("upsample")}
    assert {name: box.side for name, box in boxes.items()} == sides
    for level in range(depth):
        names = (f"encoder {level}", f"up-convolution {level}", f"decoder {level}")
        assert {boxes[name].maps for name in names} == {8 * 2**level}
        assert len({boxes[name].y for name in names}) == 1  # a skip runs horizontally
    placed = list(boxes.values())
    for number, one in enumerate(placed):
        for other in placed[:number]:
            apart = abs(one.x - other.x) >= 0.44  # twice the width, for the box of a skip
            assert apart or abs(one.y - other.y) > (one.height + other.height) / 2 + 0.6, (one, other)
    shown = texts(nb02.architecture(geometry, input_size=size, width=8))
    assert {f"{side}²" for side in sides.values()} <= set(shown)
    crops = [f"crop {crop}" for crop in geometry.skip_crops()] if padding == "valid" else ["whole"] * depth
    assert sorted(text for text in shown if text.startswith(("crop", "whole"))) == sorted(crops)


def test_standard_supervision_has_no_branch_and_multiclass_three():
    standard = nb02.architecture(PAPER, n_branches=0)
    legend = " ".join(text.get_text() for text in standard.legends[0].get_texts())
    assert "standard supervision" in alt_text(standard) and "branch" not in legend and "unpadded" in legend
    assert not any("mean-pool" in text for text in texts(standard))
    multiclass = nb02.architecture(PAPER, n_branches=3, n_maps=4)
    assert "times 3" in alt_text(multiclass) and any("3 such branches" in text for text in texts(multiclass))
    assert "4 score maps" in alt_text(multiclass)


def inside(figure: Figure, *axes: int) -> bool:
    """Whether every text of these axes lies within the figure."""
    figure.canvas.draw()
    found = [text.get_window_extent() for number in axes for text in figure.axes[number].texts]
    width, height = figure.bbox.width, figure.bbox.height
    return all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in found)


@pytest.mark.parametrize("n_branches", [0, 1, 3])
def test_all_text_lies_within_the_drawing(n_branches):
    assert inside(nb02.architecture(PAPER, n_branches=n_branches), 0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"input_size": 301}, "use 300 or 316"),
        ({"width": 0}, "width is 0"),
        ({"width": 1}, "needs width >= 2"),
        ({"input_size": 204}, "at least 17 pixels a side"),
    ],
)
def test_an_impossible_network_gets_the_librarys_sentence(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        nb02.architecture(PAPER, **settings)


# Notebook 02: what an output pixel sees

SIZE = 92  # of the input of SMALL; 49 pixels of output


def seen(i: int, geometry: Geometry) -> tuple[int, int]:
    """First and last input pixel of the deepest path, in whole numbers."""
    a = b = i
    for _ in range(geometry.depth):
        b += 5
        a, b = a // 2, -(-b // 2)
    b += 4
    for _ in range(geometry.depth):
        a, b = 2 * a, 2 * b + 5
    return a, b


@pytest.mark.parametrize(("geometry", "size"), [(SMALL, SIZE), (PAPER, 300)])
def test_the_field_is_what_arithmetic_says_and_nowhere_negative(geometry, size):
    unet = nb02.averaging_unet(geometry)
    for pixel in (0, 11, 26):
        found = nb02.field(unet, pixel, size)
        rows = found.sum(dim=1).nonzero()[:, 0]
        assert (int(rows[0]), int(rows[-1])) == seen(pixel, geometry) and float(found.min()) >= 0


@pytest.mark.parametrize(("geometry", "size"), [(SMALL, SIZE), (PAPER, 300)])
def test_aligned_paths_share_their_centre_and_their_fields_grow(geometry, size):
    paths = [nb02.open_path(nb02.averaging_unet(geometry), path) for path in range(geometry.depth + 1)]
    fields = [nb02.field(path, 20, size) for path in paths]
    assert [nb02.centre(one) - 20 for one in fields] == pytest.approx(
        [geometry.window_start()] * len(fields), abs=0.01
    )
    sides = [int((one.sum(dim=1) > 0).sum()) for one in fields]
    assert sides == sorted(sides) and sides[0] == 9


@pytest.mark.parametrize(
    ("variant", "centres"),
    [
        ({"crops": (4, 16, 40, 88)}, [92, 93, 95, 99, 107]),  # the authors'
        (
            {"crops": (4, 17, 43, 95), "half_pixel": True},
            [99, 98.5, 97.5, 95.5, 99.5],
        ),  # PyTorch's upsampling
    ],
)
def test_variants_shift_the_paths(variant, centres):
    unet = nb02.averaging_unet(PAPER, **variant)
    found = [nb02.centre(nb02.field(nb02.open_path(unet, path), 50)) - 50 for path in range(5)]
    assert found == pytest.approx(centres, abs=0.01)


def test_opening_a_path_leaves_the_network_alone():
    unet = nb02.averaging_unet(SMALL)
    before = nb02.field(unet, 20, SIZE)
    nb02.open_path(unet, 0)
    assert torch.equal(nb02.field(unet, 20, SIZE), before)


def test_a_sharp_network_passes_the_shallowest_path_on_unmoved():
    image = torch.rand(1, 1, SIZE, SIZE, dtype=torch.double)
    unet = nb02.open_path(nb02.averaging_unet(SMALL, sharp=True), 0)
    start, size = SMALL.window_start(), SMALL.output_size(SIZE)
    with torch.no_grad():
        output = unet(image)
    part = image[..., start : start + size, start : start + size]
    assert torch.allclose(output / output.mean(), part / part.mean(), atol=1e-6)


def test_no_gradient_comes_from_what_cannot_be_seen():
    gradient = nb02.untrained_gradient(SMALL, 20, SIZE, width=4, seeds=2)
    first, last = seen(20, SMALL)
    part = gradient[first : last + 1, first : last + 1]
    assert part.sum() == pytest.approx(gradient.sum()) and (part > 0).mean() > 0.5


def test_the_smallest_square_that_holds_a_share():
    gradient = np.zeros((9, 9))
    gradient[3:6, 3:6] = 1
    gradient[4, 4] = 10
    assert [nb02.half_side(gradient, 4, share) for share in (0.5, 0.56, 1.0)] == [0, 1, 1]


def test_measuring_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    nb02.untrained_gradient(SMALL, 20, SIZE, width=2, seeds=1)
    nb02.change_at_border(SMALL, SIZE, width=2, seeds=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_at_the_border_pixels_change_that_look_over_the_edge_and_with_padding_all():
    change = nb02.change_at_border(PAPER, 300, width=2, seeds=1)
    over = [seen(i, PAPER)[1] > 299 for i in range(101)]
    assert over.index(True) == 86
    assert (change[:86] < 1e-5).all() and (change[90:] > 1e-4).all()
    padded = nb02.change_at_border(Geometry(3, "same"), 64, width=2, seeds=1)
    assert padded.shape == (64,) and (padded > 1e-4).all()


def test_squares_on_the_image_are_as_large_as_what_they_mark():
    figure = sees()
    assert sorted(patch.get_width() for patch in figure.axes[0].patches) == [1, 1, 101, 220]


# Notebook 02: what the branch keeps

POOLED = (1, 4, 16, 64)


def test_the_mean_wins_for_weak_and_spread_evidence_the_maximum_for_strong_and_narrow():
    weak, strong = nb02.pooled_separation(POOLED, 0.5), nb02.pooled_separation(POOLED, 3.0)
    assert weak["mean"][2] > weak["max"][2] + 0.1 and strong["max"][0] > strong["mean"][0] + 0.1
    for areas in (*weak.values(), *strong.values()):
        assert areas == sorted(areas) and 0.49 < areas[0]


def test_evidence_of_the_mean_is_what_the_formula_says():
    """n pixels of evidence e move the mean by n e / 64; its noise is 1 / 8."""
    for size, area in zip(POOLED, nb02.pooled_separation(POOLED, 0.5, windows=20_000)["mean"], strict=True):
        shift = size * 0.5 / 64 / (2**0.5 / 8)
        assert area == pytest.approx(float(torch.special.ndtr(torch.tensor(shift))), abs=0.01)


def test_the_difference_does_not_depend_on_scale_and_vanishes_for_equal_vectors():
    x = torch.rand(5, 3, 2)
    assert nb02.difference(x) == pytest.approx(nb02.difference(7 * x))
    assert nb02.difference(x[:1].expand(4, 3, 2)) == 0
    assert nb02.difference(torch.eye(2)) == pytest.approx(2**0.5)


def test_following_a_branch_is_running_it():
    torch.manual_seed(0)
    branch, features, outputs = DeepSkipBranch(8, (101, 101)), torch.rand(4, 8, 101, 101), {}
    layers = {f"FC {i}": layer for i, layer in enumerate(branch.first_to_fifth, start=1)}
    for name, layer in (layers | {"skip": branch.sixth}).items():
        layer.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: F.relu(output)}))
    with torch.no_grad():
        branch(features)
        expected = {name: nb02.difference(output) for name, output in outputs.items()}
    chain, joined, ratio = nb02.follow(branch, features)
    assert list(chain) == ["conv", *(f"FC {i}" for i in range(1, 7))]
    assert [chain[name] for name in layers] == pytest.approx([expected[name] for name in layers], rel=1e-4)
    assert joined == pytest.approx(expected["skip"], rel=1e-4) and ratio > 0
    branch.sixth.weight.data[:, :300] = 0  # without the skip's weights the gradient takes the chain alone
    chain, joined, ratio = nb02.follow(branch, features)
    assert ratio == 0 and joined == pytest.approx(chain["FC 6"], rel=1e-4)


# Notebooks 03 to 07


def test_the_balance_of_two_gradients_is_that_of_vectors():
    rng = np.random.default_rng(0)
    g_s, g_c = rng.normal(size=9), 3 * rng.normal(size=9)
    norm_s, norm_c = np.linalg.norm(g_s), np.linalg.norm(g_c)
    figure = nb03.gradient_balance(norm_s, norm_c, g_s @ g_c / norm_s / norm_c, a=0.7)
    lengths, cosines = figure.axes[:2]
    a, part_s = lengths.lines[0].get_data()
    at = int(np.argmin(abs(a - 0.7)))
    joint = 0.7 * g_s + 0.3 * g_c
    assert part_s[at] == pytest.approx(0.7 * norm_s)
    for line, gradient in zip(cosines.lines[:2], (g_s, g_c), strict=True):
        expected = joint @ gradient / np.linalg.norm(joint) / np.linalg.norm(gradient)
        assert line.get_ydata()[at] == pytest.approx(expected)
    assert f"equal at a = {norm_c / (norm_s + norm_c):.2f}" in alt_text(figure)


@pytest.mark.parametrize(("n_patients", "n_fa"), [(285, 5), (285, 60), (12, 3)])
def test_the_strips_are_the_splits(n_patients, n_fa):
    patients = [f"{i:03d}" for i in range(n_patients)]
    order = permutation(patients, n_fa)
    strips = nb04.fold_strips(n_patients, n_fa).axes[0].collections
    for fold in range(1, 6):
        role = {}
        for strip in strips[3 * (fold - 1) : 3 * fold]:
            for path in strip.get_paths():
                first, last = path.vertices[:, 0].min(), path.vertices[:, 0].max()
                role.update({order[i]: strip.get_label() for i in range(round(first), round(last))})
        split = make_split(patients, n_fa=n_fa, fold=fold)
        assert {p for p in role if role[p] == "test"} == set(split.test)
        assert {p for p in role if role[p] == "fully annotated"} == set(split.fully_annotated)
        assert {p for p in role if role[p] == "weak"} == set(split.weak)


@pytest.mark.parametrize("n", [0, 4])
def test_the_composition_says_what_is_known_of_each_image(n):
    figure = nb04.batch_composition(batch(n), 4, flipped=[0, 5], sources=["FA"] * 6 + ["WA"] * n)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles.count("FA\ntumour: yes") == 4 and titles.count("WA\ntumour: yes") == n
    shown = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert shown.count("all 0") == 2 and shown.count("unknown") == n and shown.count("mirrored") == 2


def test_the_toy_depends_on_scale_only_without_the_norm():
    figure = nb05.toy_descent()
    left, right = ({line.get_label(): line.get_ydata() for line in axis.lines} for axis in figure.axes)
    assert np.allclose(right["f x 0.1"], right["f x 10"]) and np.allclose(right["f x 1"], right["f x 10"])
    assert left["f x 1"][-1] < left["f x 0.1"][-1] < left["f x 10"][-1]
    assert right["f x 1, falling rate"][-1] < 1e-3 < right["f x 1"][-1] < 0.05


def test_batch_norm_memory_draws_the_mean_over_all_batches():
    means = np.array([1.0, 3.0, 2.0, 6.0])
    figure = nb05.batch_norm_memory(means, means, test=-1.0, what="channel 0")
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines["mean over all batches so far"].tolist() == [1.0, 2.0, 2.0, 3.0]
    assert "Last value 3, on test slices -1" in alt_text(figure)


def test_no_failed_check_and_no_branch_are_drawn_as_such():
    words = alt_text(nb05.schedules(np.linspace(1, 0.5, 30), {}, {10: (0.9, True)}))
    assert "1 checks of the plateau rule, 0 failed." in words
    assert len(errors().axes) == 2 and len(errors(presence=np.array([0.1, 0.9])).axes) == 3


@pytest.mark.parametrize("draw", [nb05.seen_and_unseen, nb06.spread_of_dice])
def test_without_dice_there_is_nothing_to_draw(draw):
    with pytest.raises(DataError, match="no Dice to draw"):
        draw(seen_dice().head(0))


def test_image_level_labels_stand_below_their_slices():
    figure = nb07.subclass_slices(*scan(), [0, 1, 2])
    below = [axis.texts[-1].get_text().split() for axis in figure.axes]
    assert [words[1::2] for words in below] == [["0", "0", "0"], ["0", "1", "0"], ["1", "1", "1"]]
