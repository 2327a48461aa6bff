"""Checks of notebook 07: labels that do not exclude each other, batches that show every subclass, the whole loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.paper import CLASSES, SEGMENTATION_SHARE, TARGET_WEIGHTS
from mixsup_lib.teaching.exercises.verdict import as_array, call, check, expect

R = len(CLASSES)
TARGETS, A = TARGET_WEIGHTS["multiclass"], SEGMENTATION_SHARE["multiclass"]


def _slice(*classes: int) -> np.ndarray:
    """A label map of 12x10 with a patch of each class, the larger the earlier it is named."""
    labels = np.zeros((12, 10), np.uint8)
    for i, value in enumerate(classes):
        labels[4 * i : 4 * i + 4, : 9 - 3 * i] = value
    return labels


@check
def exercise_7_1(image_labels: Any) -> str:
    """(H, W) label map -> (3,) presence of the subclasses, 0 or 1."""

    def labels(*classes: int) -> np.ndarray:
        found = call(image_labels, _slice(*classes))
        expect(
            np.shape(found) != (R + 1,),
            "Your function returns four labels.",
            "the table at the top: there is one label per tumour *subclass*, and non-tumour is none.",
        )
        return as_array(found, (R,))

    everything, oedema, core = labels(2, 1, 3), labels(2), labels(1)
    expect(
        any(found.any() for found in (everything, oedema, core)),
        "Every slice gets the labels 0, 0, 0.",
        "the stub: nothing is read from `label_map` yet.",
    )
    expect(
        np.isin([*everything, *oedema, *core], (0, 1)).all(),
        f"For a slice with all three subclasses you return {everything.tolist()}: these are no labels.",
        "what a label says: absent (0) or present (1), not how many pixels, nor which share.",
    )
    expect(
        everything.sum() > 1,
        f"For a slice with all three subclasses you return {everything.astype(int).tolist()}: one excludes the others.",
        "the title of the section: each subclass is asked for by itself.",
    )
    expect(
        not (oedema.tolist() == [1, 0, 0] and core.tolist() == [1, 1, 0]),
        "For oedema only you return 1, 0, 0, for non-enhancing core only 1, 1, 0: these are the labels of the regions.",
        "which three things are asked: the subclasses 1, 2, 3, not whole tumour, tumour core and enhancing core.",
    )
    expect(
        oedema.tolist() == [0, 1, 0] and core.tolist() == [1, 0, 0],
        f"Oedema only gives {oedema.astype(int).tolist()}, non-enhancing core only {core.astype(int).tolist()}.",
        "the order of the three labels: by class, 1 non-enhancing, 2 oedema, 3 enhancing.",
    )
    expect(
        everything.all() and not labels().any() and labels(3, 1).tolist() == [1, 0, 1],
        "Some combinations are wrong: all three, none, or non-enhancing with enhancing core.",
        "each of the three comparisons by itself, on a slice with two subclasses.",
    )
    return "All eight combinations can occur, and a slice without tumour is 0, 0, 0."


@check
def exercise_7_2(draw_annotated: Any) -> str:
    """(lists, everything, k, rng) -> (k,) slices that show every subclass."""
    everything = np.arange(100, 160)
    lists = [np.arange(140, 160), np.arange(100, 158), np.arange(158, 160)]  # the last one is rare

    def draws(k: int, count: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.stack(
            [as_array(call(draw_annotated, lists, everything, k, rng), (k,)) for _ in range(count)]
        )

    found = draws(4, 400)
    strange = found[~np.isin(found, everything)].tolist()
    expect(
        not strange,
        f"Your function returns {strange[:3]}, which are none of the slices.",
        "what you return: slice numbers out of the arrays, not positions in them.",
    )
    absent = [int((~np.isin(found, rows).any(axis=1)).sum()) for rows in lists]
    expect(
        not max(absent),
        f"Of 400 batches, {absent[0]}, {absent[1]} and {absent[2]} lack the first, second and third subclass.",
        "the rule: one slice from *each* list comes first; drawing from all leaves it to chance.",
    )
    expect(
        len({tuple(row) for row in found.tolist()}) > 200,
        "Your batches hardly differ from one another.",
        "where chance comes in: a slice is drawn from a list with `rng`, not its first one taken.",
    )
    share = float(np.isin(found, lists[2]).sum(axis=1).mean())
    expect(
        share < 1.3,
        f"A batch holds {share:.1f} slices of the rarest subclass on average; by the rule it is about 1.",
        "where the remaining k - R slices come from: all positive slices, each with the same chance.",
    )
    _judge_rest(draws(33, 200), lists, everything)
    again, other = draws(4, 50), draws(4, 50, seed=1)
    expect(
        np.array_equal(found[:50], again) and not np.array_equal(again, other),
        "The same seed does not give the same batches.",
        "the source of chance: only the generator `rng` that is handed in, so that a run can be repeated.",
    )
    for k in (R, 6):
        more = draws(k, 50)
        expect(
            all(np.isin(more, rows).any(axis=1).all() for rows in lists),
            f"With k = {k} some batch lacks a subclass.",
            "how many slices remain once every list has given one: k - R, which can be 0.",
        )
    without = np.mean(
        [not np.isin(b, lists[2]).any() for b in np.random.default_rng(0).choice(everything, (400, 4))]
    )
    return (
        f"Every batch shows every subclass; drawn from all slices, {without:.0%} would lack the rarest one."
    )


def _judge_rest(found: np.ndarray, lists: list[np.ndarray], everything: np.ndarray) -> None:
    """Refuse batches (N, k) whose last k - R slices do not come from `everything`."""
    for name, rows in zip(("first", "second", "third"), lists, strict=True):
        first = sum(np.isin(other, rows).mean() for other in lists)  # of the R slices, one from each list
        share = (np.isin(found, rows).sum(axis=1).mean() - first) / (found.shape[1] - R)
        expected = np.isin(everything, rows).mean()
        expect(
            share < 0.995,
            f"After one slice from each list, all others come from the {name} list.",
            "where the remaining k - R slices come from: `everything`, not one of the lists.",
        )
        expect(
            abs(share - expected) < 0.06,
            f"After one slice from each list, {share:.0%} of the others show the {name} subclass, of `everything` "
            f"{expected:.0%}.",
            "where the remaining k - R slices come from: `everything`, each slice with the same chance.",
        )


@check
def exercise_7_3(multiclass_loss: Any) -> str:
    """(pixel_scores, labels, image_scores, presence, t, a) -> the joint loss of section 3.2."""
    generator = torch.Generator().manual_seed(0)
    pixel_scores = 2 * torch.randn(3, R + 1, 8, 8, generator=generator)
    image_scores = 2 * torch.randn(5, R, 2, generator=generator)
    labels = torch.zeros(3, 8, 8, dtype=torch.long)
    labels[0, :4, :3], labels[0, 5:, :2], labels[1, :2, :2], labels[1, 4:, 4:] = 1, 2, 3, 2
    presence = torch.randint(0, 2, (5, R), generator=generator)

    loss_s = segmentation_loss(pixel_scores, labels, TARGETS)
    loss_c = classification_loss(image_scores, presence)
    right = float(joint_loss(loss_s, loss_c, A))
    arguments = (pixel_scores, labels, image_scores, presence, TARGETS, A)
    found = call(multiclass_loss, *arguments)
    found = float(as_array(found.detach() if isinstance(found, torch.Tensor) else found, ()))

    expect(
        found != 0, "Your function still returns 0.", "the stub, and the two losses of the section before."
    )

    def refuse(wrong_s: torch.Tensor, wrong_c: torch.Tensor, message: str, look: str, a: float = A) -> None:
        wrong = float(a * wrong_s + (1 - a) * wrong_c)
        expect(not np.isclose(found, wrong, rtol=1e-4), message, look)

    cross_entropy = torch.nn.functional.cross_entropy
    refuse(
        loss_s, loss_c, "a and 1 - a are exchanged.", "which loss `a` belongs to: the segmentation loss.", a=1 - A
    )  # fmt: skip
    refuse(
        loss_s,
        R * loss_c,
        "Your branches are summed.",
        "the factor 1 / R: the total classification loss is the average across the branches.",
    )
    refuse(
        cross_entropy(pixel_scores, labels),
        loss_c,
        "All pixels of your segmentation loss weigh the same.",
        "the weights t_c / N_c of the cell above the exercise.",
    )
    each = [segmentation_loss(pixel_scores[i : i + 1], labels[i : i + 1], TARGETS) for i in range(3)]
    for per_image in (sum(each), sum(each) / 3):
        refuse(
            per_image,
            loss_c,
            "Your pixel weights are counted per image.",
            "N_c: the paper counts the pixels of a class over all annotated images of the batch.",
        )
    refuse(
        loss_s / labels.numel(),
        loss_c,
        "Your segmentation loss is divided by the number of pixels once more.",
        "the sum of all weights: it is 1 already.",
    )
    exclusive = -(image_scores[:, :, 1].log_softmax(dim=1) * presence).sum(dim=1).mean()
    for factor in (1, 1 / R):
        refuse(
            loss_s,
            factor * exclusive,
            "Your softmax runs over the subclasses, so that one excludes the others.",
            "the last axis of `image_scores`: absent or present, for each branch by itself.",
        )
    single = torch.nn.functional.binary_cross_entropy_with_logits(image_scores[:, :, 1], presence.float())
    refuse(
        loss_s,
        single,
        "You read one score of each branch and leave out the other.",
        "the two scores of a branch, absent and present: their softmax gives p.",
    )
    expect(
        np.isclose(found, right, rtol=1e-4),
        f"On a small batch you get {found:.4f}, expected {right:.4f}: Loss_s {float(loss_s):.4f}, Loss_c "
        f"{float(loss_c):.4f}.",
        "the two parts by themselves: with a = 1 your function returns Loss_s, with a = 0 Loss_c.",
    )
    other = float(call(multiclass_loss, *arguments[:4], (0.4, 0.3, 0.2, 0.1), 0.6))
    expected = 0.6 * float(segmentation_loss(pixel_scores, labels, (0.4, 0.3, 0.2, 0.1))) + 0.4 * float(
        loss_c
    )
    expect(
        np.isclose(other, expected, rtol=1e-4),
        "With other `t` and `a` your function does not follow.",
        "the numbers in your code: t and a are arguments.",
    )
    return f"Loss_s {float(loss_s):.4f} and Loss_c {float(loss_c):.4f} give {right:.4f} with a = {A}."
