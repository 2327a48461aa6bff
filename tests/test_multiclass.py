"""Section 3.2, the multiclass problem, and the binary problems of section 4.2: each test says a claim."""

from __future__ import annotations

import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from cohorts import change

from mixsup_lib import paper
from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.evaluation import dice, region_mask
from mixsup_lib.experiments import runs
from mixsup_lib.experiments.runs import load_network, load_run, run
from mixsup_lib.files import DataError
from mixsup_lib.losses import class_weights, classification_loss, joint_loss, segmentation_loss
from mixsup_lib.model import MixedSupervisionUNet
from mixsup_lib.protocol import Split, make_split
from mixsup_lib.sampling import BatchSampler, select_training_slices
from mixsup_lib.training import build_network

K = len(paper.CLASSES)
T, A = paper.TARGET_WEIGHTS["multiclass"], paper.SEGMENTATION_SHARE["multiclass"]


def sampler_of(data, seed=0, **changes):
    return BatchSampler(data, **{"k": 4, "m": 2, "n": 4, "flip_fraction": 0.3, "seed": seed, **changes})


# The network and its loss


def network(n_branches: int) -> MixedSupervisionUNet:
    torch.manual_seed(0)
    shape = {"width": 4, "depth": 2, "padding": "same", "input_shape": (48, 48)}
    return MixedSupervisionUNet(in_channels=4, n_maps=K + 1, n_branches=n_branches, **shape).double()


def gradients(loss: torch.Tensor, module: torch.nn.Module) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters()), allow_unused=True))


def assert_equal_up_to_rounding(found, expected):
    """Scores leave the network in float32, so gradients agree to its seven digits."""
    largest = max(float(gradient.abs().max()) for gradient in expected)
    assert largest > 1e-4
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=2e-6 * largest)


@pytest.mark.claim("C3.2-04")
def test_the_gradient_of_the_network_with_k_branches_equals_that_of_k_separate_passes():
    """Joint loss of section 3.2: a of the segmentation pass and (1 - a) / K of a pass with each branch alone."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(5, 4, 48, 48, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, K + 1, (3, 48, 48), generator=generator)
    presence = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1]])

    whole = network(K)
    pixel_scores, image_scores = whole(images, n_annotated=3)
    loss_s = segmentation_loss(pixel_scores, labels, T)
    joint_loss(loss_s, classification_loss(image_scores, presence), A).backward()

    plain = network(0)  # same seed: the same U-Net
    expected = [A * g for g in gradients(segmentation_loss(plain(images[:5], 3)[0], labels, T), plain.unet)]
    for r in range(K):
        alone = network(1)
        alone.branches[0].load_state_dict(network(K).branches[r].state_dict())
        loss = classification_loss(alone(images)[1], presence[:, r : r + 1])
        loss.backward()
        expected = [total + (1 - A) / K * p.grad for total, p in zip(expected, alone.unet.parameters(), strict=True)]
        own = [(1 - A) / K * p.grad for p in alone.branches[0].parameters()]
        assert_equal_up_to_rounding([p.grad for p in whole.branches[r].parameters()], own)
    assert_equal_up_to_rounding([p.grad for p in whole.unet.parameters()], expected)


@pytest.mark.claim("C3.2-04")
def test_the_label_of_one_subclass_trains_its_own_branch_and_no_other():
    whole = network(K)
    _, image_scores = whole(torch.randn(2, 4, 48, 48, dtype=torch.float64))
    classification_loss(image_scores[:, 1:2], torch.ones(2, 1)).backward()
    reached = [any(p.grad is not None and bool(p.grad.any()) for p in b.parameters()) for b in whole.branches]
    assert reached == [False, True, False]


# Labels and batches


@pytest.mark.claim(
    "C3.2-07",
    "Batches are sampled from lists of the images that contain a subclass",
    ours="one list per subclass, of slices of fully annotated patients",
)
def test_the_list_of_a_subclass_holds_the_annotated_slices_that_show_it(store, split):
    data = select_training_slices(store, split, "multiclass")
    training = store.table["training"].to_numpy()
    for r, value in enumerate(paper.CLASSES):
        expected = []
        for patient in split.fully_annotated:
            shown = (store.label_maps(patient) == value).any(axis=(1, 2))
            expected += [row for row in np.arange(len(training))[store.rows(patient)][shown] if training[row]]
        assert data.positive[r].tolist() == expected
    assert set(data.positive[K]) == set(np.concatenate(data.positive[:K]))


@pytest.mark.claim(
    "C3.2-02", "Image-level labels are given for each class and are not exclusive", ours="(B, 3) independent labels"
)
def test_a_slice_can_show_several_subclasses(store, split):
    data = select_training_slices(store, split, "multiclass")
    shown = {tuple(row) for row in data.presence[np.concatenate([data.positive[K], data.weak])].tolist()}
    assert {(0, 1, 0), (1, 1, 1)} <= shown and (0, 0, 0) not in shown
    assert sum(len(rows) for rows in data.positive[:K]) > len(data.positive[K])


@pytest.mark.claim("C3.2-02")
def test_a_weak_patient_has_the_subclasses_that_slice_labels_csv_names(store, split):
    data = select_training_slices(store, split, "multiclass")
    for patient, table in store.presence(list(split.weak), "multiclass").items():
        rows = np.arange(len(store))[store.rows(patient)]
        expected = table[list(paper.CLASSES.values())].to_numpy()
        assert np.array_equal(data.presence[rows], expected)
        assert (data.label_index[rows] == -1).all()


@pytest.mark.claim("C3.2-06")
@pytest.mark.parametrize("k", [3, 4])
def test_every_batch_holds_pixels_of_every_subclass_so_that_all_weights_sum_to_1(store, split, k):
    drawn = sampler_of(select_training_slices(store, split, "multiclass"), k=k)
    for _ in range(50):
        batch = drawn.draw()
        assert len(batch.labels) == k + 2 and batch.presence[:k].any(axis=0).all()
        labels = torch.from_numpy(batch.labels)
        weights = class_weights(labels, T)[labels]
        sums = [float(weights[labels == c].sum()) for c in range(K + 1)]
        assert sums == pytest.approx(T, rel=1e-4)


@pytest.mark.claim("C3.2-07")
def test_without_the_lists_some_batches_would_lack_a_subclass(store, split):
    data = select_training_slices(store, split, "multiclass")
    plain = sampler_of(type(data)(**{**vars(data), "positive": data.positive[K:]}))
    lacking = [not plain.draw().presence[:4].any(axis=0).all() for _ in range(200)]
    assert any(lacking)


@pytest.mark.claim("C3.2-06")
@pytest.mark.parametrize("supervision", ["standard", "mixed"])
def test_both_arms_follow_the_rule_of_the_lists(store, split, supervision):
    data = select_training_slices(store, split, "multiclass", use_weak=supervision == "mixed")
    batch = sampler_of(data, n=paper.BATCH[supervision][2]).draw()
    assert [bool(batch.presence[r, r]) for r in range(K)] == [True] * K


# The binary problems


@pytest.mark.claim(
    "F-14", "Positive is relative to the task: for tumour core a slice with oedema only is negative", ours="the same"
)
@pytest.mark.parametrize("task", ["tumor_core", "enhancing_core"])
def test_a_slice_with_oedema_only_is_negative_for_the_cores_and_positive_for_the_whole_tumour(store, split, task):
    core, whole = (select_training_slices(store, split, t) for t in (task, "whole_tumor"))
    subclasses = select_training_slices(store, split, "multiclass")
    shown = np.concatenate([subclasses.positive[K], subclasses.weak])
    oedema_only = {row for row in shown if subclasses.presence[row].tolist() == [0, 1, 0]}
    patient = store.table["patient"].to_numpy()
    for group in (split.fully_annotated, split.weak):
        assert {row for row in oedema_only if patient[row] in group}
    assert oedema_only <= set(core.negative) and oedema_only <= {*whole.positive[0], *whole.weak}
    assert oedema_only.isdisjoint([*core.positive[0], *core.weak])
    assert not core.presence[sorted(oedema_only)].any()
    assert (core.label_index[sorted(oedema_only)] == -1).all()


@pytest.mark.claim("F-14")
def test_a_slice_without_enhancement_is_negative_for_the_enhancing_core(store, split):
    data, subclasses = (select_training_slices(store, split, t) for t in ("enhancing_core", "multiclass"))
    values = list(paper.CLASSES)
    rows = np.concatenate([subclasses.positive[K], subclasses.weak])
    enhancing = rows[subclasses.presence[rows, values.index(3)] == 1]
    assert set(enhancing) == {*data.positive[0], *data.weak}
    assert set(rows) - set(enhancing) <= set(data.negative)


# Cohorts that lack a subclass


@pytest.fixture(scope="module")
def without_core(store):
    """The one patient of the small phantom that shows no non-enhancing core."""
    (patient,) = [patient.id for patient in store.cohort.patients if not (patient.read_labels() == 1).any()]
    return patient


@pytest.fixture(scope="module")
def others(store, without_core):
    return tuple(patient.id for patient in store.cohort.patients if patient.id != without_core)


@pytest.mark.claim(
    "F-22",
    "What if the annotated patients lack a subclass? (the paper does not say)",
    ours="refused: the sentence names the subclass, the patients, how many others show it, and what to "
    "do; weak patients without it are a warning",
)
def test_annotated_patients_without_a_subclass_are_named_with_what_to_do(store, without_core, others):
    with pytest.raises(DataError) as caught:
        split = Split((without_core,), others[:5], others[5:])
        select_training_slices(store, split, "multiclass", use_weak=False)
    sentence = str(caught.value)
    assert f"1 fully annotated patient ({without_core}) shows non_enhancing" in sentence
    assert "non_enhancing in 9 of the 9 others: raise n_fa, or choose another fold" in sentence
    assert "oedema" not in sentence and "\n" not in sentence


@pytest.fixture(scope="module")
def never_enhancing(phantom, tmp_path_factory):
    """The small phantom, no tumour of which enhances."""
    folder = tmp_path_factory.mktemp("lacking") / "phantom"
    shutil.copytree(phantom, folder)
    for mask in folder.rglob("*_seg.nii.gz"):
        change(mask, lambda labels: np.where(labels == 4, 1, labels).astype(np.uint8))
    return folder


@pytest.mark.claim("F-22")
@pytest.mark.parametrize("task", ["multiclass", "enhancing_core"])
def test_a_cohort_without_a_subclass_is_sent_to_another_task(never_enhancing, run_settings, task):
    settings = {**run_settings, "cohort": never_enhancing, "iterations": 1}
    with pytest.raises(DataError, match="shows enhancing,.* enhancing in 0 of the 7 others: choose another"):
        run(make_config(**settings, task=task))
    assert run(make_config(**settings, task="tumor_core")).exists()


@pytest.mark.claim("F-22")
@pytest.mark.parametrize("use_weak", [True, False])
def test_weak_patients_without_a_subclass_are_warned_of_where_they_take_part(store, without_core, others, use_weak):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        split = Split(others[:3], (without_core,), others[3:])
        select_training_slices(store, split, "multiclass", use_weak=use_weak)
    sentences = [str(warning.message) for warning in caught]
    assert len(sentences) == use_weak
    if use_weak:
        assert f"1 weak patient ({without_core}) shows non_enhancing" in sentences[0]
        assert "Add its rows" in sentences[0]


# Whole runs


def finish(run_settings, **changes):
    folder = run(make_config(**{**run_settings, "iterations": 3, "batch_norm_batches": 1, **changes}))
    return folder, load_run(folder)[1], pd.read_csv(folder / "per_patient.csv")


@pytest.mark.claim("C3.2-10")
@pytest.mark.claim("C4.2-11")
@pytest.mark.parametrize("supervision", ["standard", "mixed"])
def test_a_multiclass_run_ends_with_the_dice_of_three_regions_from_one_label_map(run_settings, supervision):
    folder, metrics, table = finish(run_settings, task="multiclass", supervision=supervision)
    assert list(metrics.mean_dice) == list(paper.REGIONS)
    assert (metrics.config["a"], metrics.config["target_weights"]) == (0.3, [0.7, 0.1, 0.1, 0.1])
    assert table["region"].tolist() == list(paper.REGIONS) * 2
    assert table["slice_auc"].notna().all() == (supervision == "mixed")
    assert len(load_network(folder, 4, (48, 48)).branches) == (K if supervision == "mixed" else 0)
    history = runs.read_history(folder)
    share = A if supervision == "mixed" else 1
    joint = share * history["segmentation_loss"] + (1 - share) * history["classification_loss"].fillna(0)
    assert np.allclose(history["loss"], joint, rtol=1e-4)


@pytest.mark.claim("C4.2-11")
def test_dice_of_the_regions_comes_from_the_classes_of_the_label_map(run_settings, monkeypatch):
    """A prediction that calls all enhancing core oedema: whole tumour is perfect, enhancing core is missed."""
    cohort = find_cohort(run_settings["cohort"])
    split = make_split([patient.id for patient in cohort.patients], n_fa=3)
    truths = iter([cohort[patient].read_labels() for patient in split.test])
    confused = (np.where(truth == 3, 2, truth) for truth in truths)
    monkeypatch.setattr("mixsup_lib.evaluation.label_volume", lambda *_: next(confused))
    _, _, table = finish(run_settings, task="multiclass")
    by_region = table.set_index(["patient", "region"])["dice"]
    for patient in split.test:
        labels = cohort[patient].read_labels()
        core = dice(labels == 1, region_mask(labels, "tumor_core"))
        assert by_region[patient].tolist() == pytest.approx([100, core, 0], abs=1e-3)


@pytest.mark.claim("C4.2-10")
@pytest.mark.parametrize(("task", "supervision"), [("tumor_core", "standard"), ("enhancing_core", "mixed")])
def test_a_binary_run_of_a_core_ends_with_the_dice_of_that_core(run_settings, task, supervision):
    folder, metrics, table = finish(run_settings, task=task, supervision=supervision)
    assert list(metrics.mean_dice) == [task] == table["region"].unique().tolist()
    cohort = find_cohort(run_settings["cohort"])
    for row in table.itertuples():
        truth = region_mask(cohort[row.patient].read_labels(), task)
        assert row.truth_voxels == truth.sum() > 0
    examples = runs.read_examples(folder)
    assert set(np.unique(examples["truth"])) == {0, 1}


def test_the_networks_of_both_arms_and_all_tasks_start_from_the_same_unet():
    states = []
    for task in ("tumor_core", "multiclass"):
        for supervision in ("standard", "mixed"):
            config = make_config(cohort="x", preset="tiny", task=task, supervision=supervision)
            states.append(build_network(config, 4, (48, 48)).unet.state_dict())
    for other in states[1:]:
        assert all(torch.equal(states[0][name], other[name]) for name in states[0])
