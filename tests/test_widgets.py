"""The explorers: each picture says the library's numbers, every control moves it, a wrong value becomes a sentence."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from cohorts import make_truth

from mixsup_lib import losses, paper
from mixsup_lib.cohort import Case
from mixsup_lib.evaluation import dice, region_mask
from mixsup_lib.experiments.runs import collect
from mixsup_lib.experiments.statistics import pairs
from mixsup_lib.experiments.style import alt_text, described, new_figure
from mixsup_lib.files import DataError, SettingError
from mixsup_lib.sampling import Pool
from mixsup_lib.teaching.figures.nb04 import KINDS
from mixsup_lib.teaching.planner import Surface, advice, plans
from mixsup_lib.teaching.widgets.annotation_planner import annotation_planner, draw_plans
from mixsup_lib.teaching.widgets.batch_explorer import batch_explorer, batch_picture, passes
from mixsup_lib.teaching.widgets.layer_calculator import draw, layer_calculator
from mixsup_lib.teaching.widgets.loss_explorer import (
    constant_answer_loss,
    loss_explorer,
    loss_picture,
    pulls,
    relative_weights,
)
from mixsup_lib.teaching.widgets.panel import as_html, panel
from mixsup_lib.teaching.widgets.run_explorer import VIEWS, Runs, draw_runs, run_explorer
from mixsup_lib.teaching.widgets.share_explorer import share_explorer, share_picture
from mixsup_lib.teaching.widgets.slice_explorer import Scans, draw_slice, slice_explorer
from mixsup_lib.unet import Geometry

RECORDED = Path(__file__).resolve().parent.parent / "data" / "results" / "runs"
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
    "annotation": {
        "hours": 20.0,
        "minutes a mask": 30.0,
        "minutes a scan's slice labels": 5.0,
        "scans at hand": 20,
    },
    "batch": {"k (positive annotated)": 8, "m (negative)": 0, "n (positive weak)": 8},
    "layers": {"depth (poolings)": 2, "padding": "same", "width (maps)": 16, "input size (pixels)": 304},
    "loss": {"t0 (healthy)": 0.05, "t1 (tumour)": 1.0, "tumour (%)": 10.0, "a": 0.0},
    "runs": {"show": VIEWS[2], "against": "5 FA, fold 1, standard, seed 1"},
    "shares": {"a": 0.3, "t0": 0.4, "branches": 5},
    "slices": {"slice": 4, "sequence": "T2", "outline": "enhancing_core", "window (%)": (20, 120)}
    | {"prediction": "mixed", "patient": "B"},
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
    assert set(MOVES[name]) <= set(controls) and all(controls) and "alert" not in picture.value
    taken = []
    for control, value in MOVES[name].items():
        before, started = picture.value, time.process_time()
        controls[control].value = value
        taken.append(time.process_time() - started)
        assert picture.value != before and "alert" not in picture.value, control
    assert min(taken) < 0.6  # 0.2 s on an idle core; a busy or old one may need longer


def points(n):
    if n > 3:
        raise SettingError("n is <4>, expected at most 3.")
    figure, axes = new_figure(1, 1, width=2, height=2)
    axes[0, 0].plot(range(n))
    return described(figure, f'A line of {n} "points".')


def test_an_error_is_shown_as_its_sentence_and_goes_away():
    controls, picture = parts(panel(points, {"n": ipywidgets.IntSlider(2, 1, 5, description="points")}))
    assert "A line of 2" in picture.value
    controls["points"].value = 5
    assert picture.value == '<p role="alert">n is &lt;4&gt;, expected at most 3.</p>'
    controls["points"].value = 1
    assert "A line of 1" in picture.value and "alert" not in picture.value


def test_the_picture_has_an_alternative_text_and_a_caption():
    words = "A line of 1 &quot;points&quot;."
    assert f'alt="{words}"' in as_html(points(1)) and f"<em>{words}</em>" in as_html(points(1))


# Batches and losses


def test_passes_are_those_of_the_samplers_pools():
    walked = passes(dict(zip(KINDS, (4, 2, 4), strict=True)), POOLS)
    assert walked == {"positive annotated": 10, "negative": 2, "positive weak": 5}
    pool = Pool(np.arange(40), np.random.default_rng(0))
    drawn = np.concatenate([pool.draw(4) for _ in range(100)])
    assert (np.bincount(drawn) == walked["positive annotated"]).all()


def test_an_empty_pool_is_a_sentence_unless_nothing_is_asked_of_it():
    empty = {**POOLS, "positive weak": 0}
    assert passes(dict(zip(KINDS, (4, 2, 0), strict=True)), empty)["positive weak"] == 0
    with pytest.raises(DataError, match="4 positive weak slices"):
        batch_picture(4, 2, 4, pools=empty)


def test_the_batchs_words_hold_its_numbers():
    words = alt_text(batch_picture(4, 2, 4, pools=POOLS))
    assert "batch of 10 images, 3 of them mirrored" in words and "40 slices, 10.0 times" in words
    assert "loss sees 6, the classification loss 10; 8 of 10" in words and "only ever answer" not in words
    assert "only ever answer" in alt_text(batch_picture(4, 0, 4, pools=POOLS))


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


def test_the_losses_words_hold_their_numbers():
    words = alt_text(loss_picture(0.7, 0.3, 2.0, 0.7))
    pulled = "healthy pixels 49.0 %, tumour pixels 21.0 %, image labels 30.0 %"
    for number in ("0.71", "15.0 times", "30 %", pulled):
        assert number in words


@pytest.mark.parametrize(("a", "t0", "branches"), [(0.7, 0.7, 3), (0.5, 0.4, 5)])
def test_all_shares_of_the_loss_sum_to_1(a, t0, branches):
    figure = share_picture(a, t0, branches)
    own = [bar for bar in figure.axes[0].patches if round(bar.get_y() + bar.get_height() / 2) == 2]
    shares = [bar.get_width() for bar in own]
    assert len(shares) == 4 + branches and sum(shares) == pytest.approx(1)
    healthy, subclass, branch = a * t0, a * (1 - t0) / 3, (1 - a) / branches
    assert shares[0] == pytest.approx(healthy) and shares[-1] == pytest.approx(branch)
    words = f"non-tumour pixels {healthy:.3f}, each subclass {subclass:.3f}, each of {branches} branches {branch:.3f}"
    assert f"yours: a = {a:.2f}: {words}" in alt_text(figure)
    assert "binary (3.1): non-tumour pixels 0.490, tumour 0.210, the branch 0.300" in alt_text(figure)
    assert "each subclass 0.030, each of 3 branches 0.233" in alt_text(figure)


def test_the_first_setting_is_the_papers():
    assert "yours: a = 0.70: non-tumour pixels 0.490" in parts(share_explorer())[1].value
    assert "k = 4, m = 2, n = 4" in parts(batch_explorer(POOLS))[1].value
    assert paper.BATCH["mixed"] == (4, 2, 4) and paper.SEGMENTATION_SHARE["binary"] == 0.7
    assert "output 101x101" in parts(layer_calculator())[1].value


# Layers


@pytest.mark.parametrize("network", [(300, "valid", 4, 64), (48, "same", 2, 4), (604, "valid", 5, 64)])
def test_every_layer_has_its_label_within_the_picture(network):
    figure = draw(*network)
    sides, parameters = ([text.get_text() for text in axis.texts] for axis in figure.axes)
    sizes = [str(n) for _, n in Geometry(network[2], network[1]).layer_sizes(network[0])]
    assert sides[: len(sizes)] == sizes and {"input (4)", "FC 7 (2)"} <= set(parameters)
    figure.canvas.draw()
    for text in (*figure.axes[0].texts, *figure.axes[1].texts):
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, text.get_text()
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height, text.get_text()


def test_the_papers_counts_are_labelled():
    figure = draw()
    assert {"14M", "7.1M", "1.2M", "886k", "130"} <= {text.get_text() for text in figure.axes[1].texts}
    assert "output 101x101" in alt_text(figure) and "31,046,082" in alt_text(figure)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ((301, "valid", 4, 64), "Input size 301 .* use 300 or 316"),
        ((300, "same", 4, 64), "use 288 or 304"),
        ((204, "valid", 4, 64), "at least 17 pixels a side, found 5x5"),
    ],
)
def test_an_impossible_size_gets_the_librarys_sentence(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        draw(*settings)


# Slices


def test_the_slice_is_shown_in_percent_of_the_median_of_the_head(scans, cases):
    image = draw_slice(scans, patient="A", z=5, sequence="T1c", window=(50, 150)).axes[0].images[0]
    volume, (x, y) = cases["A"].images[2], scans.box("A")
    expected = volume[x, y, 5].T / np.median(volume[volume != 0]) * 100
    np.testing.assert_allclose(image.get_array(), expected, rtol=1e-5)
    assert image.get_clim() == (50, 150)


def test_the_words_give_the_area_of_the_region_in_the_slice(scans, cases):
    z = scans.fullest_slice("A")
    for region in ("whole_tumor", "tumor_core", "enhancing_core"):
        area = region_mask(cases["A"].labels, region)[:, :, z].sum() * 0.04  # cm² of a pixel of 2 mm
        words = alt_text(draw_slice(scans, patient="A", z=z, region=region))
        assert f"ground truth {area:.3g} cm²" in words and f"slice {z} of 0 to 11" in words
    bare = Scans({"A": replace(cases["A"], voxel_size_mm=None)})
    pixels = (cases["A"].labels[:, :, z] > 0).sum()
    assert f"ground truth {pixels:.3g} pixels" in alt_text(draw_slice(bare, patient="A", z=z))


def test_a_prediction_is_outlined_and_scored_in_its_slice(scans, cases):
    truth, z = cases["A"].labels, scans.fullest_slice("A")
    score = dice(np.roll(truth, 1, axis=0)[:, :, z] > 0, truth[:, :, z] > 0)
    figure = draw_slice(scans, patient="A", z=z, prediction="standard")
    area = (truth[:, :, z] > 0).sum() * 0.04
    assert f"prediction, standard supervision {area:.3g} cm²" in alt_text(figure)
    assert f"Dice in this slice {score:.0f} %" in alt_text(figure)
    legend = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert legend == ["ground truth", "prediction, standard", "slice shown"]
    assert "Dice in this slice 100 %" in alt_text(draw_slice(scans, patient="A", z=z, prediction="mixed"))


def test_what_is_missing_is_said(scans, cases):
    assert "no mask (weakly annotated)" in alt_text(draw_slice(scans, patient="weak", z=3))
    words = alt_text(draw_slice(scans, patient="B", z=scans.fullest_slice("B"), prediction="mixed"))
    assert "no prediction, mixed supervision" in words and "Dice" not in words
    assert alt_text(draw_slice(scans, patient="A", z=3, region="none")).endswith("No outline.")
    empty = int(np.flatnonzero(~cases["A"].labels.any(axis=(0, 1)))[0])
    assert "Dice" not in alt_text(draw_slice(scans, patient="A", z=empty, prediction="mixed"))


def test_a_binary_prediction_counts_wherever_it_is_not_0(cases):
    core = region_mask(cases["A"].labels, "tumor_core").astype(np.uint8)
    scans = Scans(cases, {"mixed": {"A": core}}, task="tumor_core")
    assert scans.regions == ("tumor_core",)
    np.testing.assert_array_equal(scans.mask("A", "tumor_core", "mixed"), core != 0)


def test_the_cut_out_holds_predictions_outside_the_head(cases):
    stray = np.zeros_like(cases["A"].labels)
    stray[0, 15, 4] = 1
    x, y = Scans(cases, {"mixed": {"A": stray}}).box("A")
    assert x.start == 0 and y.stop >= 16


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


def test_another_patient_is_shown_in_its_fullest_slice_and_no_slice_is_out_of_reach(scans):
    controls, picture = parts(slice_explorer(scans))
    for patient in ("B", "weak", "A"):
        controls["patient"].value = patient
        assert controls["slice"].max == scans.n_slices(patient) - 1
        assert controls["slice"].value == scans.fullest_slice(patient)
        assert f"{patient}, FLAIR, slice {controls['slice'].value} of" in picture.value


def test_without_predictions_there_is_no_control_for_them(cases):
    assert list(parts(slice_explorer(Scans(cases)))[0]) == [
        "patient",
        "sequence",
        "slice",
        "outline",
        "window (%)",
    ]


def test_each_volume_is_worked_through_once(scans, monkeypatch):
    draw_slice(scans, patient="A", z=3, prediction="mixed")
    monkeypatch.setattr("mixsup_lib.teaching.widgets.slice_explorer.region_mask", None)
    monkeypatch.setattr("mixsup_lib.teaching.widgets.slice_explorer.foreground_mask", None)
    draw_slice(scans, patient="A", z=4, prediction="mixed")


# Runs


def test_every_run_has_a_name_of_its_own(runs):
    assert len(runs.folders) == collect(RECORDED)["folder"].nunique()
    assert len(set(runs.folders.values())) == len(runs.folders)
    for name, folder in runs.folders.items():
        assert runs.arm(name) in name and f"/{runs.arm(name)}/" in folder.replace("\\", "/")


def test_names_tell_apart_what_differs_only(runs, tmp_path):
    assert all(name.count(",") == 3 for name in runs.folders)
    source = Path(next(iter(runs.folders.values())))
    inside = Path(*source.parts[-6:])
    for cohort in ("one", "two"):
        target = shutil.copytree(source, tmp_path / cohort / inside) / "metrics.json"
        text = target.read_text()
        target.write_text(text.replace('"cohort": "data/phantom-seed1"', f'"cohort": "data/{cohort}"'))
    names = list(Runs(tmp_path).folders)
    assert [name.split(", ")[-1] for name in names] == ["one", "two"]
    assert names[0].rsplit(", ", 1)[0] == names[1].rsplit(", ", 1)[0]


def test_the_partner_is_the_other_arm_of_the_same_fold(runs, pair, tmp_path):
    first, second = pair.values()
    assert runs.arm(first) == "standard" and runs.arm(second) == "mixed"
    assert first.replace("standard", "mixed") == second and runs.partner(second) == first
    source = Path(runs.folders[first])
    shutil.copytree(source, tmp_path / Path(*source.parts[-7:]))
    alone = Runs(tmp_path)
    assert [alone.partner(name) for name in alone.folders] == list(alone.folders)


def test_differences_are_those_of_the_paired_comparison(runs, pair):
    of_both = runs.table["folder"].isin([runs.folders[name] for name in pair.values()])
    of_fold = pairs(runs.table[of_both])
    words = alt_text(draw_runs(runs, **pair, view="patients"))
    assert f"{len(of_fold)} patients: mean {of_fold['difference'].mean():+.1f}" in words
    assert f"{(of_fold['difference'] > 0).sum()} gain" in words
    words = alt_text(draw_runs(runs, first=pair["first"], second=pair["first"], view="patients"))
    assert "mean +0.0 Dice points, 0 gain, 0 lose" in words


def test_runs_of_two_folds_share_no_patient(runs, pair):
    other = next(name for name in runs.folders if "fold 2" in name)
    controls, picture = parts(run_explorer(runs))
    controls["against"].value = other
    assert 'role="alert"' in picture.value and "choose two runs of one fold" in picture.value
    assert "Losses" in alt_text(draw_runs(runs, first=pair["first"], second=other, view="learning curves"))


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


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"first": "fold 9"}, "unknown run"),
        ({"second": "fold 9"}, "unknown run"),
        ({"view": "patient"}, "Did you mean 'patients'"),
        ({"region": "core"}, "unknown region"),
    ],
)
def test_unknown_names_are_refused(runs, pair, wrong, words):
    with pytest.raises(SettingError, match=words):
        draw_runs(runs, **{**pair, **wrong})


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no finished run"):
        Runs(tmp_path)


# Annotation


def test_the_plans_words_are_the_advice_and_its_bars_their_slice_labels(surface):
    figure, table = draw_plans(surface, hours=10.0), plans(surface, 10.0)
    assert alt_text(figure).endswith(advice(surface, table))
    assert [bar.get_height() for bar in figure.axes[1].patches] == table["n_wa"].tolist()


def test_too_few_hours_are_a_sentence(surface):
    controls, picture = parts(annotation_planner(surface))
    controls["hours"].value = controls["hours"].min
    controls["minutes a mask"].value = 90
    assert 'role="alert"' in picture.value and "too little" in picture.value
