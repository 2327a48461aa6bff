"""The explorers: each picture says the library's numbers, every control moves it, an error becomes a sentence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from cohorts import make_truth

from mixsup_lib import losses
from mixsup_lib.cohort import Case
from mixsup_lib.evaluation import dice, region_mask
from mixsup_lib.experiments.statistics import pairs
from mixsup_lib.experiments.style import alt_text, described, new_figure
from mixsup_lib.files import MixsupError, SettingError
from mixsup_lib.sampling import Pool
from mixsup_lib.teaching.planner import Surface, advice, plans
from mixsup_lib.teaching.widgets.annotation_planner import annotation_planner, draw_plans
from mixsup_lib.teaching.widgets.batch_explorer import batch_explorer, batch_picture
from mixsup_lib.teaching.widgets.layer_calculator import draw, layer_calculator
from mixsup_lib.teaching.widgets.loss_explorer import constant_answer_loss, loss_explorer, pulls, relative_weights
from mixsup_lib.teaching.widgets.panel import panel
from mixsup_lib.teaching.widgets.run_explorer import Runs, draw_runs, run_explorer
from mixsup_lib.teaching.widgets.share_explorer import share_explorer, share_picture
from mixsup_lib.teaching.widgets.slice_explorer import Scans, draw_slice, slice_explorer

RECORDED = Path(__file__).resolve().parent.parent / "data" / "results" / "runs"
EMPTY = {"positive annotated": 40, "negative": 0, "positive weak": 0}
POOLS = {"positive annotated": 40, "negative": 100, "positive weak": 80}


def case(patient, seed, n_slices=12):
    truth = make_truth(seed, (16, 16, n_slices))
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    sequences = ("FLAIR", "T1", "T1c", "T2")
    return Case(patient, sequences, truth.images, truth.labels, affine, (2.0, 2.0, 2.0), affine)


@pytest.fixture(scope="module")
def cases():
    return {"A": case("A", 1), "B": case("B", 2, n_slices=20), "weak": replace(case("weak", 3), labels=None)}


@pytest.fixture(scope="module")
def scans(cases):
    shifted = {name: np.roll(cases[name].labels, 1, axis=0) for name in ("A", "B")}
    return Scans(cases, {"standard": shifted, "mixed": {"A": cases["A"].labels}})


@pytest.fixture(scope="module")
def runs():
    return Runs(RECORDED)


@pytest.fixture(scope="module")
def pair(runs):
    first = next(name for name in runs.folders if runs.arm(name) == "standard")
    return {"first": first, "second": runs.partner(first)}


@pytest.fixture(scope="module")
def surface():
    n_fa, n_wa = np.array([2, 5, 12, 30]), np.array([0, 15, 65])
    means = 50 + 8 * np.log(n_fa)[:, None] + 3 * np.log1p(n_wa)
    samples = means + np.random.default_rng(0).normal(0, 2, (200, 1, 1))
    return Surface(n_fa, n_wa, means, samples, "phantom-x", 2)


# All explorers


def parts(explorer):
    row, picture = explorer.children
    return {control.description: control for control in row.children}, picture


MOVES = {  # explorer -> control -> another value
    "annotation": {"hours": 20.0, "minutes a mask": 30.0, "minutes a scan's slice labels": 5.0} | {"scans at hand": 20},
    "batch": {"k (positive annotated)": 8, "m (negative)": 0, "n (positive weak)": 8},
    "layers": {"depth (poolings)": 2, "padding": "same", "width (maps)": 16, "input size (pixels)": 304},
    "loss": {"t0 (healthy)": 0.05, "t1 (tumour)": 1.0, "tumour (%)": 10.0, "a": 0.0},
    "runs": {"show": "slices", "against": "5 FA, fold 1, standard, seed 1", "run": "5 FA, fold 1, mixed, seed 0"},
    "shares": {"a": 0.3, "t0": 0.4, "branches": 5},
    "slices": {"slice": 4, "sequence": "T2", "outline": "enhancing_core", "window (%)": (20, 120)}
    | {"prediction": "mixed", "patient": "B"},
}


FIRST = {  # explorer -> what its words hold at the beginning: the paper's settings
    "annotation": "hours",
    "batch": "k = 4, m = 2, n = 4",
    "layers": "output 101x101, bottom 11x11. Parameters: U-Net 31,046,082",
    "loss": "healthy pixels 49.0 %, tumour pixels 21.0 %, image labels 30.0 %",
    "runs": "5 FA, fold 1, mixed, seed 0 minus 5 FA, fold 1, standard, seed 0",
    "shares": "yours: a = 0.70: non-tumour pixels 0.490",
    "slices": "A, FLAIR, slice ",
}


@pytest.mark.parametrize("name", MOVES)
def test_every_control_is_described_and_moves_the_picture(name, request):
    made = {
        "annotation": lambda: annotation_planner(request.getfixturevalue("surface")),
        "batch": lambda: batch_explorer(POOLS),
        "layers": layer_calculator,
        "loss": loss_explorer,
        "runs": lambda: run_explorer(request.getfixturevalue("runs")),
        "shares": share_explorer,
        "slices": lambda: slice_explorer(request.getfixturevalue("scans")),
    }
    controls, picture = parts(made[name]())
    assert set(MOVES[name]) == set(controls) and FIRST[name] in picture.value
    for control, value in MOVES[name].items():
        before = picture.value
        controls[control].value = value
        assert picture.value != before and "alert" not in picture.value, control


OTHER = {"first": "5 FA, fold 1, standard, seed 0", "second": "5 FA, fold 2, standard, seed 0"}
WRONG = {  # each with its sentence
    "window": (lambda made: draw_slice(made("scans"), patient="A", z=5, window=(9, 9)), "the window 9 to 9 is empty"),
    "slice": (lambda made: draw_slice(made("scans"), patient="A", z=12), "A has the slices 0 to 11, but 12 is asked"),
    "size": (lambda made: draw(301, "valid", 4, 64), "Input size 301 .* use 300 or 316"),
    "pool": (lambda made: batch_picture(4, 0, 4, pools=EMPTY), "4 positive weak slices"),
    "folds": (lambda made: draw_runs(made("runs"), **OTHER), "choose two runs of one fold"),
    "hours": (lambda made: draw_plans(made("surface"), hours=1.0), "too little: 2 masks"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_drawn_is_a_sentence(name, request):
    ask, sentence = WRONG[name]
    with pytest.raises(MixsupError, match=sentence):
        ask(request.getfixturevalue)


def points(n):
    if n > 3:
        raise SettingError("n is <4>, expected at most 3.")
    return described(new_figure(1, 1, width=2, height=2)[0], f'A line of {n} "points".')


def test_a_picture_has_its_words_and_an_error_is_shown_and_goes_away():
    controls, picture = parts(panel(points, {"n": ipywidgets.IntSlider(2, 1, 5, description="points")}))
    words = "A line of 2 &quot;points&quot;."
    assert f'alt="{words}"' in picture.value and f"<em>{words}</em>" in picture.value
    controls["points"].value = 5
    assert picture.value == '<p role="alert">n is &lt;4&gt;, expected at most 3.</p>'
    controls["points"].value = 1
    assert "A line of 1" in picture.value and "alert" not in picture.value


# Batches and losses


def test_walks_through_a_pool_are_the_samplers():
    pool = Pool(np.arange(40), np.random.default_rng(0))
    (times,) = np.unique(np.bincount(np.concatenate([pool.draw(4) for _ in range(100)])))
    words = alt_text(batch_picture(4, 2, 4, pools=POOLS))
    assert f"positive annotated: 40 slices, {times:.1f} times; negative: 100 slices, 2.0 times" in words
    assert "batch of 10 images, 3 of them mirrored" in words and "only ever answer" not in words
    assert "loss sees 6, the classification loss 10; 8 of 10" in words
    assert "only ever answer" in alt_text(batch_picture(4, 0, 0, pools=EMPTY))


@pytest.fixture
def labels():
    labels = torch.zeros(6, 10, 10, dtype=torch.long)
    labels[:3, 2:4, 3:5] = 1
    return labels


@pytest.mark.parametrize("targets", [(0.7, 0.3), (0.2, 0.9)])
def test_relative_weights_are_p_times_the_weights_of_the_loss(labels, targets):
    weights = labels.numel() * losses.class_weights(labels, targets)
    assert relative_weights(*targets, 12 / 600) == pytest.approx(weights.tolist())


@pytest.mark.parametrize(("t0", "t1"), [(0.7, 0.3), (0.98, 0.02), (1.0, 1.0)])
def test_the_constant_answers_loss_is_the_losses_and_lowest_at_t1(labels, t0, t1):
    scores = torch.tensor([0.8, 0.2]).log()[None, :, None, None].expand(6, 2, 10, 10)
    loss = float(losses.segmentation_loss(scores, labels, (t0, t1)))
    assert constant_answer_loss(0.2, t0, t1) == pytest.approx(loss, rel=1e-5)
    q = np.linspace(0.001, 0.999, 999)
    assert q[constant_answer_loss(q, t0, t1).argmin()] == pytest.approx(t1 / (t0 + t1), abs=0.001)


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_pulls_are_the_gradient_of_the_joint_loss_of_an_undecided_network(labels, a):
    pixel_scores = torch.zeros(6, 2, 10, 10, requires_grad=True)
    image_scores = torch.zeros(10, 1, 2, requires_grad=True)
    presence = torch.tensor([[1], [1], [1], [0], [0], [0], [1], [1], [1], [1]])
    loss_s = losses.segmentation_loss(pixel_scores, labels, (0.6, 0.3))
    losses.joint_loss(loss_s, losses.classification_loss(image_scores, presence), a).backward()
    by_pixel = pixel_scores.grad[:, 1].abs()
    found = [by_pixel[labels == 0].sum(), by_pixel[labels == 1].sum(), image_scores.grad[..., 1].abs().sum()]
    assert pulls(0.6, 0.3, a) == pytest.approx([float(part / sum(found)) for part in found], abs=1e-6)


@pytest.mark.parametrize(("a", "t0", "branches"), [(0.7, 0.7, 3), (0.5, 0.4, 5)])
def test_all_shares_of_the_loss_are_said(a, t0, branches):
    words = alt_text(share_picture(a, t0, branches))
    healthy, subclass, branch = a * t0, a * (1 - t0) / 3, (1 - a) / branches
    own = f"non-tumour pixels {healthy:.3f}, each subclass {subclass:.3f}, each of {branches} branches {branch:.3f}"
    assert f"yours: a = {a:.2f}: {own}" in words
    assert "binary (3.1): non-tumour pixels 0.490, tumour 0.210, the branch 0.300" in words


# Slices


def test_the_slice_is_shown_in_percent_of_the_median_of_the_head(scans, cases):
    image = draw_slice(scans, patient="A", z=5, sequence="T1c", window=(50, 150)).axes[0].images[0]
    volume, (x, y) = cases["A"].images[2], scans.box("A")
    expected = volume[x, y, 5].T / np.median(volume[volume != 0]) * 100
    np.testing.assert_allclose(image.get_array(), expected, rtol=1e-5)
    assert image.get_clim() == (50, 150)


@pytest.mark.parametrize("region", ["whole_tumor", "tumor_core", "enhancing_core"])
def test_the_words_give_area_and_dice_of_the_region_in_the_slice(scans, cases, region):
    z = scans.fullest_slice("A")
    truth = region_mask(cases["A"].labels, region)
    slices = truth[:, :, z], np.roll(truth, 1, axis=0)[:, :, z]
    first, second = (f"{mask.sum() * 0.04:.3g} cm²" for mask in slices)  # of a pixel of 2 mm
    words = alt_text(draw_slice(scans, patient="A", z=z, region=region, prediction="standard"))
    assert f"slice {z} of 0 to 11" in words
    assert f"ground truth {first}, prediction, standard supervision {second}, Dice in this slice" in words
    assert f"slice {dice(*slices):.0f} %" in words
    bare = Scans({"A": replace(cases["A"], voxel_size_mm=None)})
    assert f"ground truth {slices[0].sum():.3g} pixels" in alt_text(draw_slice(bare, patient="A", z=z, region=region))


def test_what_is_missing_is_said(scans, cases):
    assert "no mask (weakly annotated)" in alt_text(draw_slice(scans, patient="weak", z=3))
    words = alt_text(draw_slice(scans, patient="B", z=scans.fullest_slice("B"), prediction="mixed"))
    assert "no prediction, mixed supervision" in words and "Dice" not in words
    assert alt_text(draw_slice(scans, patient="A", z=3, region="none")).endswith("No outline.")
    empty = int(np.flatnonzero(~cases["A"].labels.any(axis=(0, 1)))[0])
    assert "Dice" not in alt_text(draw_slice(scans, patient="A", z=empty, prediction="mixed"))


def test_a_binary_prediction_counts_wherever_it_is_not_0_and_outside_the_head(cases):
    core = region_mask(cases["A"].labels, "tumor_core").astype(np.uint8)
    core[0, 15, 4] = 1
    scans = Scans(cases, {"mixed": {"A": core}}, task="tumor_core")
    assert scans.regions == ("tumor_core",)
    np.testing.assert_array_equal(scans.mask("A", "tumor_core", "mixed"), core != 0)
    x, y = scans.box("A")
    assert x.start == 0 and y.stop >= 16


def test_another_patient_is_shown_in_its_fullest_slice_and_no_slice_is_out_of_reach(scans):
    controls, picture = parts(slice_explorer(scans))
    for patient in ("B", "weak", "A"):
        controls["patient"].value = patient
        assert controls["slice"].max == scans.n_slices(patient) - 1
        assert controls["slice"].value == scans.fullest_slice(patient)
        assert f"{patient}, FLAIR, slice {controls['slice'].value} of" in picture.value


# Runs


def test_the_partner_is_the_other_arm_and_every_run_has_a_name_of_its_own(runs, pair, tmp_path):
    assert runs.partner(pair["second"]) == pair["first"] == pair["second"].replace("mixed", "standard")
    source = Path(runs.folders[pair["first"]])
    for cohort in ("one", "two"):
        target = shutil.copytree(source, tmp_path / cohort / Path(*source.parts[-6:])) / "metrics.json"
        target.write_text(target.read_text().replace('"data/phantom-seed1"', f'"data/{cohort}"'))
    both = Runs(tmp_path)
    assert [name.split(", ")[-1] for name in both.folders] == ["one", "two"]
    assert [both.partner(name) for name in both.folders] == list(both.folders)


def test_differences_are_those_of_the_paired_comparison(runs, pair):
    of_both = runs.table["folder"].isin([runs.folders[name] for name in pair.values()])
    of_fold = pairs(runs.table[of_both])
    words = alt_text(draw_runs(runs, **pair, view="patients"))
    assert f"{len(of_fold)} patients: mean {of_fold['difference'].mean():+.1f}" in words
    assert f"{(of_fold['difference'] > 0).sum()} gain" in words
    words = alt_text(draw_runs(runs, first=pair["first"], second=pair["first"], view="patients"))
    assert "mean +0.0 Dice points, 0 gain, 0 lose" in words


def test_curves_name_the_losses_at_the_end(runs, pair):
    words = alt_text(draw_runs(runs, **pair, view="learning curves"))
    loss = runs.history(pair["first"])["segmentation_loss"].tail(5).mean()
    assert f"{pair['first']}: segmentation {loss:.3g};" in words
    assert words.count("classification") == 1  # standard supervision has no branch


def test_slices_run_from_best_to_worst(runs, pair):
    figure = draw_runs(runs, **pair, view="slices")
    shown = [text.get_text() for axis in figure.axes for text in axis.texts]
    scores = np.array([float(text.split("Dice ")[1]) for text in shown if "Dice" in text]).reshape(2, -1)
    assert (np.diff(scores, axis=1) <= 0).all()
    tested = runs.patients(pair["second"], runs.regions[0])
    assert scores[1, -1] == round(tested.min()) and scores[1, 0] == round(tested.max())


# Annotation


def test_the_plans_words_are_the_advice_and_its_bars_their_slice_labels(surface):
    figure, table = draw_plans(surface, hours=10.0), plans(surface, 10.0)
    assert alt_text(figure).endswith(advice(surface, table))
    assert [bar.get_height() for bar in figure.axes[1].patches] == table["n_wa"].tolist()
