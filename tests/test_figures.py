"""Every figure: it draws without a warning and says its numbers; and what it draws are the library's numbers.

Figures of results (`experiments.pictures`) come first, then those of the notebooks in their order.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from cohorts import make_truth
from matplotlib import pyplot
from matplotlib.figure import Figure
from torch.nn import functional as F

from mixsup_lib.cohort import Case
from mixsup_lib.datasets.slice_labels import mask_presence
from mixsup_lib.experiments import pictures, style
from mixsup_lib.experiments.statistics import ARMS
from mixsup_lib.experiments.style import alt_text
from mixsup_lib.files import DataError
from mixsup_lib.model import DeepSkipBranch, MixedSupervisionUNet
from mixsup_lib.protocol import make_split, permutation
from mixsup_lib.sampling import Batch
from mixsup_lib.slices import foreground_mask, normalise
from mixsup_lib.teaching.figures import nb00, nb01, nb02, nb03, nb04, nb05, nb06, nb07, show
from mixsup_lib.unet import Geometry

PAPER = Geometry(4, "valid")

# What the figures are drawn from

TRUTH = make_truth(1)
AFFINE = np.array([[-2.0, 0, 0, 15], [0, -2, 0, 20], [0, 0, 2, -9], [0, 0, 0, 1]])
SEQUENCES = ("FLAIR", "T1", "T1c", "T2")
CASE = Case("A", SEQUENCES, TRUTH.images, TRUTH.labels, AFFINE, (2.0, 2.0, 2.0), AFFINE)
SLICE, MASK = CASE.images[0][:, :, 5].T, CASE.labels[:, :, 5].T
SCANS = {"A": CASE.images[0], "B": 3 * CASE.images[0]}
SHOWN = np.isin(np.arange(12), [0, 1, 5, 11])

VOLUME, LABELS = np.zeros((16, 18, 20)), np.zeros((16, 18, 20), np.uint8)
VOLUME[2:14, 2:16, 3:19] = np.arange(1, 17)
LABELS[4:12, 4:12, 4:7] = 2  # oedema in three slices, a core with a rim in one of them
LABELS[5:11, 5:11, 5] = 3
LABELS[7:9, 7:9, 5] = 1

SQUARE = np.zeros((40, 40))
SQUARE[10:20, 12:18] = 1
SIX = np.zeros((6, 10, 10), int)
SIX[:4, 2:4, 3:5] = 1
BATCH = Batch(np.ones((10, 4, 10, 10), np.float32), SIX, np.array([[1]] * 4 + [[0]] * 2 + [[1]] * 4), np.arange(10))
GRADIENT = np.zeros((300, 300))
GRADIENT[156:159, 156:159] = 1
GRADIENT[157, 157] = 10
PLACES = {"seen": (48, 267), "window": (107, 207), "pixel": 157}
POOLED = {"mean": np.full((16, 16), 1 / 64), "max": np.eye(16)[:, ::-1] * (np.arange(16) % 8 == 0)}
SEPARATION = {"weak": {"mean": [0.5, 0.6, 0.7, 0.8], "max": [0.5, 0.5, 0.6, 0.6]}}
FOLLOWED = [({"FC 1": 1.0, "FC 6": 0.6}, 0.8, 1.5), ({"FC 1": 0.8, "FC 6": 0.4}, 0.6, 1.9)]
CHECKS = {10: (0.9, True), 20: (0.7, False), 30: (0.6, False)}
RATES = {"plateau rule": np.full(30, 0.125)}
DISTANCES = {"prediction to truth": np.arange(101.0)}
ERRORS = {"standard": (np.array([0, 1.0]), np.array([2.0, 0])), "mixed": (np.zeros(2), np.zeros(2))}
SCORES = {(arm, patient): 42.0 for arm in ARMS for patient in "abc"}
GROUPS = [(arm, *row) for arm in ARMS for row in (("annotated", 90.0), ("test", 40.0), ("test", 60.0))]
SEEN = pd.DataFrame(GROUPS, columns=["supervision", "group", "dice"])
SPREAD = pd.DataFrame({"supervision": [*ARMS] * 4, "dice": np.repeat([90.0, 10.0, 50.0, np.nan], 2), "truth_voxels": 9})
PAIRS = pd.DataFrame({"fold": [1, 1, 1, 2], "patient": list("abcd"), "region": "whole_tumor"})
PAIRS = PAIRS.assign(standard=[10.0, 50.0, 60.0, 80.0], mixed=[20.0, 70.0, 90.0, 75.0])
PAIRS["difference"] = PAIRS["mixed"] - PAIRS["standard"]
ROW = {"task": "whole_tumor", "region": "whole_tumor", "n_fa": 5, "standard": 60.0, "mixed": 72.5, "difference": 12.5}
COMPARISON = pd.DataFrame([ROW])
LOSSES = {name: 1 / np.arange(1, 101) for name in ("loss", "segmentation_loss")}
HISTORY = pd.DataFrame({"iteration": range(1, 101), **LOSSES, "learning_rate": 0.25, "classification_loss": 0.5})
BOTH = {("standard", "x"): HISTORY.assign(classification_loss=np.nan), ("mixed", "x"): HISTORY}


def examples(n: int = 3, h: int = 20) -> dict[str, np.ndarray]:
    truth = np.zeros((3, h, 16), np.uint8)
    truth[:, 5:12, 4:10] = 1
    run = {"image": truth + 1.0, "truth": truth, "prediction": truth, "patient": np.array(list("abc"))}
    return {name: array[:n] for name, array in (run | {"z": np.arange(3)}).items()}


FIGURES = {  # each with what its words must hold, in this order
    "learning_curves": (lambda: pictures.learning_curves(BOTH), "of 2 runs ... mixed x: 0.0114"),
    "paired_dots": (lambda: pictures.paired_dots(PAIRS), "whole tumour: 3 of 4 patients gain with mixed, 1 lose"),
    "dice_by_fold": (
        lambda: pictures.dice_by_fold(PAIRS, title="phantom"),
        "phantom. Mean Dice by fold. whole tumour: mixed is ahead in 1 of 2 folds.",
    ),
    "example_panel": (
        lambda: pictures.example_panel({"standard": examples(), "mixed": examples(2)}, SCORES),
        "rows: standard supervision; mixed supervision; columns: best; median; worst ... b, slice 1, Dice 42",
    ),
    "dice_by_annotation": (
        lambda: pictures.dice_by_annotation(COMPARISON),
        "mixed is ahead by 8.0 points in the paper at 5 scans, here +12.5 at 5",
    ),
    "idea": (
        lambda: nb00.mixed_supervision_idea([(SLICE, MASK)] * 3, [(SLICE, True)] * 3),
        "5 fully annotated scans ... 223 weakly annotated scans",
    ),
    "three_planes": (lambda: nb01.three_planes(CASE, (5, 6, 7)), "x, y, z = 5.0, 8.0, 5.0 mm"),
    "sequences": (
        lambda: nb01.sequences_and_classes(CASE, 5),
        f"Slice 5 of A in FLAIR, T1, T1c, T2 ... non-enhancing {(MASK == 1).sum()}, oedema {(MASK == 2).sum()}, "
        f"enhancing {(MASK == 3).sum()}.",
    ),
    "ridges": (
        lambda: nb01.intensity_ridges(SCANS, {k: normalise(v, foreground_mask(v)) for k, v in SCANS.items()}),
        f"as recorded: {', '.join(f'{np.median(v[v != 0]):.0f}' for v in SCANS.values())}; normalised: 100, 100",
    ),
    "slice_bars": (
        lambda: nb01.slice_bars({"whole_tumor": SHOWN, "enhancing": np.zeros(12, bool)}, training=(1, 10)),
        "whole tumour 0 to 1, 5 to 5, 11 to 11; enhancing nowhere ... Training slices: 1 to 10.",
    ),
    "contact_sheet": (
        lambda: nb01.contact_sheet(VOLUME),
        "slices 3 (lowest) to 18 (highest) in rows of 12; slices 0 to 19 exist",
    ),
    "dice_by_hours": (nb01.dice_by_hours, "228 FA 171.0 hours, Dice 86.8 ... 5 FA + 223 WA 9.3 hours, Dice 78.3"),
    "architecture": (
        lambda: nb02.architecture(PAPER, input_size=300, width=64),
        "300x300 ... 101x101 ... 1024 maps of 11x11 ... 5, 19, 47, 103 ... 64 × 13² ... 32 × 11² = 3872 ... fully "
        "connected 5: 100 ... the first is concatenated to the fifth",
    ),
    "receptive_field": (
        lambda: nb02.receptive_field(np.ones((300, 300)), GRADIENT, **PLACES),
        "48 to 267, a square of 220 ... square of 1, 90 % in one of 3 ... 107 to 207",
    ),
    "delivered": (
        lambda: nb02.delivered({"moved": (np.ones((40, 40)), SQUARE, np.roll(SQUARE, (5, -3), (0, 1)) / 7)}),
        "moved +5.0 rows and -3.0 columns",
    ),
    "border_effect": (
        lambda: nb02.border_effect({"a": np.array([0, 0, 0, 0.5]), "b": np.full(10, 0.2)}),
        "a: 1 of 4 pixels change, at most by 50% of the spread ... b: 10 of 10 pixels change",
    ),
    "pooling": (
        lambda: nb02.pooling((1, 4, 16, 64), SEPARATION, POOLED),
        "weak, 64 tumour pixels: 0.80 with mean-pooling and 0.60 with max-pooling ... mean-pooling reaches 100 % of "
        "the pixels ... max-pooling reaches 0.781 %",
    ),
    "surviving_difference": (
        lambda: nb02.surviving_difference(FOLLOWED),
        "2 untrained ... 0.90 after the first ... 0.50 after the sixth without ... 0.70 with it ... 1.5 to 1.9",
    ),
    "batch_weights": (
        lambda: nb03.batch_weights(np.ones((6, 10, 10)), SIX, (0.7, 0.3)),
        "weigh 0.3, all others 0.7 ... image 3: 4 tumour pixels weigh 0.075",
    ),
    "first_steps": (
        lambda: nb03.first_steps({"no weights": ([0.7, 0.1], [0, 0]), "weights": ([0.7, 0.3], [5, 40])}),
        "After 1 steps: no weights: loss 0.100, Dice 0 %; weights: loss 0.300, Dice 40 %.",
    ),
    "fold_strips": (lambda: nb04.fold_strips(285, 5), "fold 5 tests positions 228 to 284; the next 5"),
    "three_tasks": (
        lambda: nb04.one_slice_three_tasks(np.ones((8, 8)), np.pad(np.full((2, 3), 2), 2)),
        "whole_tumor: positive, 6 pixels; tumor_core: negative, 0 pixels; enhancing_core: negative",
    ),
    "draws_per_slice": (
        lambda: nb04.draws_per_slice({"drawn": np.array([0, 0, 2]), "walked": np.array([0, 1, 2])}, 3),
        "drawn: each slice 0 to 2 times, 1 never; walked: each slice 1 to 1 times, 0 never",
    ),
    "batch_composition": (
        lambda: nb04.batch_composition(BATCH, 4, flipped=[0, 5], sources=["FA"] * 10),
        "4 positive weak ... sees the first 6, the classification loss all 10 ... Mirrored: 2",
    ),
    "toy_descent": (nb05.toy_descent, "f x 10: diverged"),
    "gradient_agreement": (lambda: nb05.gradient_agreement({1: [0.0, 0.5], 10: [0.9]}), "1: 0.25; 10: 0.90"),
    "schedules": (
        lambda: nb05.schedules(np.linspace(1, 0.5, 30), RATES, CHECKS),
        "3 checks of the plateau rule, 2 failed (at iterations 20, 30) ... plateau rule 0.125",
    ),
    "seen_and_unseen": (lambda: nb05.seen_and_unseen(SEEN), "standard: 90 on annotated, 50 on test patients"),
    "surface_distances": (
        lambda: nb06.surface_distances(SLICE, MASK, MASK, DISTANCES, supervision="mixed"),
        "prediction to truth: 95 % are within 95.0 mm, the farthest is at 100.0 mm",
    ),
    "error_profile": (
        lambda: nb06.error_profile(np.array([0, 3.0]), ERRORS, np.array([0.1, 0.9])),
        "Of 3.0 ml tumour standard misses 1.0 ml and draws 2.0 ml too much",
    ),
    "spread_of_dice": (
        lambda: nb06.spread_of_dice(SPREAD),
        "of 3 test patients per arm ... mixed: mean 50.0, median 50.0, worst 10.0",
    ),
    "subclass_slices": (
        lambda: nb07.subclass_slices(VOLUME, LABELS, [3, 4, 5]),
        "slice 3: none; slice 4: oedema; slice 5: non-enhancing, oedema, enhancing",
    ),
    "positive_slices": (
        lambda: nb07.positive_slices({"one": mask_presence(LABELS)}),
        "oedema shown in 3, enhancing shown in 1, whole tumour: positive in 3, tumour core: positive in 1, enhancing",
    ),
    "label_maps": (
        lambda: nb07.label_maps(VOLUME, {"truth": LABELS, "confused": np.where(LABELS == 3, 2, LABELS)}, 5),
        f"confused 100, {100 * 2 * 4 / (4 + 36):.0f}, 0",
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_without_a_warning_says_its_numbers_and_leaves_nothing_behind(name):
    draw, words = FIGURES[name]
    before = dict(matplotlib.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw()
        assert style.as_png(figure, dpi=50).startswith(b"\x89PNG")
    assert re.search(".*".join(map(re.escape, words.split(" ... "))), alt_text(figure))
    assert pyplot.get_fignums() == [] and dict(matplotlib.rcParams) == before


REFUSED = {
    "paired_dots": (lambda: pictures.paired_dots(PAIRS.iloc[:0]), "nothing to draw"),
    "dice_by_fold": (lambda: pictures.dice_by_fold(PAIRS.iloc[:0]), "nothing to draw"),
    "example_panel": (
        lambda: pictures.example_panel({"standard": examples(), "mixed": examples(h=21)}, SCORES),
        r"sizes \[\(20, 16\), \(21, 16\)\]",
    ),
    "sequences": (lambda: nb01.sequences_and_classes(replace(CASE, labels=None), 6), "has no mask"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_drawn_is_said(name):
    draw, sentence = REFUSED[name]
    with pytest.raises(DataError, match=sentence):
        draw()


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


def dots(figure: Figure) -> list[list[float]]:
    """Heights of the points of each scatter of the first axis."""
    return [np.asarray(points.get_offsets())[:, 1].tolist() for points in figure.axes[0].collections]


def curves(figure: Figure, axis: int = 0) -> dict[str, list[tuple[float, float]]]:
    lines = figure.axes[axis].lines
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in lines}


def test_curves_are_running_means_and_standard_has_no_classification_loss():
    figure = pictures.learning_curves(BOTH, smooth=10)
    assert figure.axes[0].lines[0].get_ydata()[-1] == pytest.approx((1 / np.arange(91, 101)).mean())
    assert len(figure.axes[1].lines) == 1  # standard supervision has none
    alone = pictures.learning_curves({("standard", "x"): BOTH["standard", "x"]})
    assert [text.get_text() for text in alone.axes[1].texts] == ["no classification branch"]


def test_dots_are_the_patients_and_the_means_of_the_folds():
    patients = {arm: PAIRS[arm].tolist() for arm in ARMS}
    assert dots(pictures.paired_dots(PAIRS)) == [patients["standard"], [60.0], patients["mixed"], [67.5]]
    by_fold = [patients["standard"], [40.0, 80.0], patients["mixed"], [60.0, 75.0]]
    assert dots(pictures.dice_by_fold(PAIRS)) == by_fold


def test_an_outline_runs_around_its_mask_closes_at_the_border_and_an_empty_mask_has_none():
    _, axes = style.new_figure(1, 2, width=2, height=2)
    run = examples()
    pictures.contour_slice(axes[0, 0], run["image"][0], run["truth"][0], np.ones((20, 16)))
    corners = [line.get_paths()[0].get_extents().extents.tolist() for line in axes[0, 0].collections]
    assert corners == [[3.5, 4.5, 9.5, 11.5], [-0.5, -0.5, 15.5, 19.5]]
    pictures.contour_slice(axes[0, 1], np.zeros((6, 8), np.float32), np.zeros((6, 8)), None)
    assert len(axes[0, 1].collections) == 0


def test_figure_7_holds_the_papers_means_and_ours():
    drawn = curves(pictures.dice_by_annotation(COMPARISON))
    assert drawn["standard, the paper"] == [(5, 70.39), (15, 77.91), (30, 83.95), (228, 86.80)]
    assert drawn["mixed, the paper"] == [(5, 78.34), (15, 80.92), (30, 83.84)]
    assert drawn["standard, here"] == [(5, 60.0)] and drawn["mixed, here"] == [(5, 72.5)]
    figure = pictures.dice_by_annotation(COMPARISON.head(0), task="multiclass")
    assert curves(figure, 2)["mixed, the paper"] == [(5, 58.19), (15, 65.71), (30, 67.69)]


# Notebook 01


def test_three_planes_meet_at_the_voxel_and_show_it_there():
    figure, grey = nb01.three_planes(CASE, (5, 6, 7)), CASE.images[0][5, 6, 7]
    x, y, z = (AFFINE @ [5, 6, 7, 1])[:3]
    for axis, (across, up) in zip(figure.axes, [(x, y), (x, z), (y, z)], strict=True):
        vertical, horizontal = axis.lines
        assert vertical.get_xdata()[0] == across and horizontal.get_ydata()[0] == up
        left, right, bottom, top = axis.images[0].get_extent()
        array = np.asarray(axis.images[0].get_array())
        column = int((across - left) / (right - left) * array.shape[1])
        assert array[int((up - top) / (bottom - top) * array.shape[0]), column] == grey
    assert figure.axes[0].get_xlim()[0] > figure.axes[0].get_xlim()[1]  # the patient's right is on the left
    assert len(nb01.three_planes(replace(CASE, labels=None), (5, 6, 7)).axes[0].collections) == 0


# Notebook 02

NETWORKS = [(1, "valid", 48), (3, "valid", 148), (4, "valid", 300), (3, "same", 80)]


@pytest.mark.parametrize(("depth", "padding", "size"), NETWORKS)
def test_the_table_of_layers_is_the_network_and_every_layer_is_drawn(depth, padding, size):
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
    texts = [text.get_text() for text in nb02.architecture(geometry, input_size=size, width=4).axes[0].texts]
    assert {f"{side}²" for name, side in sides.items() if not name.startswith("upsample")} <= set(texts)
    crops = [f"crop {crop}" for crop in geometry.skip_crops()] if padding == "valid" else ["whole"] * depth
    assert sorted(text for text in texts if text.startswith(("crop", "whole"))) == sorted(crops)


def test_the_papers_layers():
    table = nb02.layer_table(PAPER, input_size=300, width=64)
    assert table.groupby("part")["parameters"].sum().to_dict() == {"U-Net": 31_046_082, "branch": 1_371_280}
    rows = nb02.branch_rows(table)
    assert [outputs for _, outputs in rows] == [64 * 13**2, 3872, 300, 250, 200, 150, 100, 50, 2]


def seen(i: int) -> tuple[int, int]:
    """First and last input pixel of the paper's deepest path, in whole numbers."""
    a = b = i
    for _ in range(4):
        b += 5
        a, b = a // 2, -(-b // 2)
    b += 4
    for _ in range(4):
        a, b = 2 * a, 2 * b + 5
    return a, b


def test_the_field_is_what_arithmetic_says_and_nowhere_negative():
    unet = nb02.averaging_unet(PAPER)
    for pixel in (0, 11, 26):
        found = nb02.field(unet, pixel)
        rows = found.sum(dim=1).nonzero()[:, 0]
        assert (int(rows[0]), int(rows[-1])) == seen(pixel) and float(found.min()) >= 0


@pytest.mark.parametrize(
    ("variant", "centres"),
    [
        ({}, [107] * 5),
        ({"crops": (4, 16, 40, 88)}, [92, 93, 95, 99, 107]),  # the authors'
        ({"crops": (4, 17, 43, 95), "half_pixel": True}, [99, 98.5, 97.5, 95.5, 99.5]),  # PyTorch's upsampling
    ],
)
def test_only_aligned_paths_share_their_centre(variant, centres):
    unet = nb02.averaging_unet(PAPER, **variant)
    fields = [nb02.field(nb02.open_path(unet, path), 50) for path in range(5)]
    assert [nb02.centre(one) - 50 for one in fields] == pytest.approx(centres, abs=0.01)


def test_a_sharp_network_passes_the_shallowest_path_on_unmoved():
    image, geometry = torch.rand(1, 1, 92, 92, dtype=torch.double), Geometry(2, "valid")
    start, size = geometry.window_start(), geometry.output_size(92)
    with torch.no_grad():
        output = nb02.open_path(nb02.averaging_unet(geometry, sharp=True), 0)(image)
    part = image[..., start : start + size, start : start + size]
    assert torch.allclose(output / output.mean(), part / part.mean(), atol=1e-6)


def test_no_gradient_comes_from_what_cannot_be_seen_and_random_numbers_are_left_alone():
    before = torch.get_rng_state()
    gradient, (first, last) = nb02.untrained_gradient(PAPER, 20), seen(20)
    part = gradient[first : last + 1, first : last + 1]
    assert part.sum() == pytest.approx(gradient.sum()) and (part > 0).mean() > 0.5
    assert torch.equal(torch.get_rng_state(), before)


def test_at_the_border_pixels_change_that_look_over_the_edge_and_with_padding_all():
    change = nb02.change_at_border(PAPER, 300)
    assert [seen(i)[1] > 299 for i in range(101)].index(True) == 86
    assert (change[:86] < 1e-5).all() and (change[90:] > 1e-4).all()
    padded = nb02.change_at_border(Geometry(3, "same"), 64)
    assert padded.shape == (64,) and (padded > 1e-4).all()


def test_evidence_of_the_mean_is_what_the_formula_says_and_the_maximum_wins_for_strong_and_narrow():
    """n pixels of evidence e move the mean by n e / 64; its noise is 1 / 8."""
    sizes = (1, 4, 16, 64)
    weak, strong = nb02.pooled_separation(sizes, 0.5), nb02.pooled_separation(sizes, 3.0)
    for size, area in zip(sizes, weak["mean"], strict=True):
        shift = size * 0.5 / 64 / (2**0.5 / 8)
        assert area == pytest.approx(float(torch.special.ndtr(torch.tensor(shift))), abs=0.015)
    assert weak["mean"][2] > weak["max"][2] + 0.1 and strong["max"][0] > strong["mean"][0] + 0.1


def test_following_a_branch_is_running_it_and_a_difference_does_not_depend_on_scale():
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
    assert nb02.difference(features) == pytest.approx(nb02.difference(7 * features), rel=1e-4)
    assert nb02.difference(torch.eye(2)) == pytest.approx(2**0.5)
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
