"""Exercises of notebook 07: labels that do not exclude each other, batches that show every subclass, the whole loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.paper import CLASSES, SEGMENTATION_SHARE, TARGET_WEIGHTS
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake

R = len(CLASSES)


def _present(*groups: tuple[int, ...]) -> Callable[[np.ndarray], list[bool]]:
    """A function that says for each group of classes whether one of them is there."""
    return lambda label_map: [np.isin(label_map, group).any() for group in groups]


exercise_7_1 = Exercise(
    right=_present((1,), (2,), (3,)),
    cases={
        "All three subclasses": (np.array([[2, 2, 2], [1, 1, 3]]),),
        "Non-enhancing core only": (np.array([[0, 1, 1]]),),
        "Oedema only": (np.array([[0, 2, 2]]),),
        "No tumour": (np.array([[0, 0]]),),
        "Non-enhancing and enhancing core": (np.array([[3, 3, 1]]),),
    },
    mistakes=(
        Mistake(
            lambda _: np.zeros(R),
            "Every slice gets the labels 0, 0, 0.",
            "the stub: nothing is read from `label_map` yet.",
        ),
        Mistake(
            lambda label_map: np.bincount(label_map.flat, minlength=4)[1:],
            "{case}: you return {found}, and these are no labels.",
            "what a label says: absent (0) or present (1), not how many pixels, nor which share.",
            when=lambda found, wanted, _: found.shape == (R,) and not np.isin(found, (0, 1)).all(),
        ),
        Mistake(
            lambda label_map: np.eye(4)[np.bincount(label_map[label_map > 0], minlength=4).argmax()][1:],
            "{case}: you return {found}, so one excludes the others.",
            "the title of the section: each subclass is asked for by itself.",
        ),
        Mistake(
            _present((1, 2, 3), (1, 3), (3,)),
            "{case}: you return {found}: these are the labels of the regions.",
            "which three things are asked: the subclasses 1, 2, 3, not whole tumour, tumour core and enhancing core.",
        ),
    ),
    says="{case}: you return {found}.",
    look="each of the three comparisons by itself, and their order: by class, 1, 2, 3.",
    praise="All eight combinations can occur, and a slice without tumour is 0, 0, 0.",
)

EVERYTHING = np.arange(100, 160)
LISTS = [np.arange(140, 160), np.arange(100, 158), np.arange(158, 160)]
"""Slices of each subclass; the last one is rare."""


def _draw(rest: Callable = lambda lists, everything, n, rng: rng.choice(everything, n)) -> Callable:
    """A draw of one slice from each list, and the others as `rest` says."""
    return lambda lists, everything, k, rng: np.concatenate(
        [[rng.choice(rows) for rows in lists], rest(lists, everything, k - R, rng)]
    )


def _lacking(found: np.ndarray) -> list[int]:
    """How many batches lack each subclass."""
    return [int((~np.isin(found, rows).any(axis=1)).sum()) for rows in LISTS]


def _follows_the_rule(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Every subclass in every batch, and as often as expected, in batches that differ."""
    shares = [[np.isin(drawn, rows).mean() for rows in LISTS] for drawn in (found, wanted)]
    alike = np.allclose(*shares, rtol=0, atol=0.05) and np.isin(found, EVERYTHING).all()
    return found.shape == wanted.shape and alike and not any(_lacking(found)) and np.ptp(found, axis=0).any()


exercise_7_2 = Exercise(
    right=_draw(),
    cases={f"400 batches of {k}": (LISTS, EVERYTHING, k, np.random.default_rng(0)) for k in (4, 33, R, 6)},
    attempt=lambda draw, lists, everything, k, rng: [draw(lists, everything, k, rng) for _ in range(400)],
    same=_follows_the_rule,
    mistakes=(
        Mistake(
            lambda lists, everything, k, rng: rng.integers(len(everything), size=k),
            "Your function returns {seen}, which are none of the slices.",
            "what you return: slice numbers out of the arrays, not positions in them.",
            when=lambda found, *_: found[~np.isin(found, EVERYTHING)][:3].tolist(),
        ),
        Mistake(
            lambda lists, everything, k, rng: rng.choice(everything, k),
            "Of 400 batches, {seen[0]}, {seen[1]} and {seen[2]} lack the first, second and third subclass.",
            "the rule: one slice from *each* list comes first; drawing from all leaves it to chance.",
            when=lambda found, *_: any(_lacking(found)) and _lacking(found),
        ),
        Mistake(
            lambda lists, everything, k, rng: [*[rows[0] for rows in lists], *everything[: k - R]],
            "All your batches are the same.",
            "where chance comes in: a slice is drawn from a list with `rng`, not its first one taken.",
            when=lambda found, *_: not np.ptp(found, axis=0).any(),
        ),
        Mistake(
            _draw(lambda lists, everything, n, rng: rng.choice(np.concatenate(lists), n)),
            "{case}: after one slice from each list, the others favour some subclass.",
            when=lambda found, wanted, *_: found.shape == wanted.shape,
        ),
    ),
    look="where the remaining k - R slices come from: `everything`, each slice with the same chance.",
    praise="Every batch shows every subclass; drawn from all slices, 87% would lack the rarest one.",
)

A, T = SEGMENTATION_SHARE["multiclass"], TARGET_WEIGHTS["multiclass"]


def _scores() -> tuple[torch.Tensor, ...]:
    """Pixel scores (3, 4, 8, 8), labels (3, 8, 8), image scores (5, 3, 2) and presence (5, 3)."""
    generator = torch.Generator().manual_seed(0)
    pixel_scores = 2 * torch.randn(3, R + 1, 8, 8, generator=generator)
    image_scores = 2 * torch.randn(5, R, 2, generator=generator)
    labels = torch.zeros(3, 8, 8, dtype=torch.long)
    labels[0, :4, :3], labels[0, 5:, :2], labels[1, :2, :2], labels[1, 4:, 4:] = 1, 2, 3, 2
    return pixel_scores, labels, image_scores, torch.randint(0, 2, (5, R), generator=generator)


def _loss(loss_s: Callable = segmentation_loss, loss_c: Callable = classification_loss) -> Callable:
    """The joint loss of two losses."""
    return lambda pixel_scores, labels, image_scores, presence, t, a: joint_loss(
        loss_s(pixel_scores, labels, t), loss_c(image_scores, presence), a
    )


exercise_7_3 = Exercise(
    right=_loss(),
    cases={"On a small batch": (*_scores(), T, A), "With other `t` and `a`": (*_scores(), (0.4, 0.3, 0.2, 0.1), 0.6)},
    mistakes=(
        Mistake(
            lambda *_: torch.zeros(()),
            "Your function still returns 0.",
            "the stub, and the two losses of the section before.",
        ),
        Mistake(
            _loss(loss_c=lambda *arguments: R * classification_loss(*arguments)),
            "Your branches are summed.",
            "the factor 1 / R: the total classification loss is the average across the branches.",
        ),
        Mistake(
            _loss(lambda pixel_scores, labels, t: F.cross_entropy(pixel_scores, labels)),
            "All pixels of your segmentation loss weigh the same.",
            "the weights t_c / N_c of the cell above the exercise.",
        ),
        Mistake(
            _loss(
                lambda pixel_scores, labels, t: (
                    sum(segmentation_loss(pixel_scores[[i]], labels[[i]], t) for i in range(3)) / 3
                )
            ),
            "Your pixel weights are counted per image.",
            "N_c: the paper counts the pixels of a class over all annotated images of the batch.",
        ),
        Mistake(
            _loss(loss_c=lambda s, there: -(s[..., 1].log_softmax(dim=1) * there).sum(dim=1).mean()),
            "Your softmax runs over the subclasses, so that one excludes the others.",
            "the last axis of `image_scores`: absent or present, for each branch by itself.",
        ),
    ),
    says="{case} you get {found:.4f}, expected {wanted:.4f}.",
    look="the two parts by themselves: with a = 1 your function returns Loss_s, with a = 0 Loss_c.",
    praise="Pixels are weighted over the whole batch, and every branch answers for itself.",
)
