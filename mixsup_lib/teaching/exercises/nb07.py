"""Exercises of notebook 07: labels that do not exclude each other, batches that show every subclass, the whole loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from mixsup_lib.losses import classification_loss, joint_loss, segmentation_loss
from mixsup_lib.paper import CLASSES, SEGMENTATION_SHARE, TARGET_WEIGHTS
from mixsup_lib.teaching.exercises.exercise import RETURN, Exercise, Mistake, close

R = len(CLASSES)


def _slice(*classes: int) -> tuple[np.ndarray]:
    """A label map of 12x10 with a patch of each class, the larger the earlier it is named."""
    labels = np.zeros((12, 10), np.uint8)
    for i, value in enumerate(classes):
        labels[4 * i : 4 * i + 4, : 9 - 3 * i] = value
    return (labels,)


def _present(*groups: tuple[int, ...]) -> Callable[[np.ndarray], list[bool]]:
    """A function that says for each group of classes whether one of them is there."""
    return lambda label_map: [np.isin(label_map, group).any() for group in groups]


def _pixels(label_map: np.ndarray) -> np.ndarray:
    return np.array([(label_map == c).sum() for c in (1, 2, 3)])


exercise_7_1 = Exercise(
    right=_present((1,), (2,), (3,)),
    cases={
        "All three subclasses": _slice(2, 1, 3),
        "Non-enhancing core only": _slice(1),
        "Oedema only": _slice(2),
        "No tumour": _slice(),
        "Non-enhancing and enhancing core": _slice(3, 1),
    },
    mistakes=(
        Mistake(
            _present((0,), (1,), (2,), (3,)),
            "Your function returns four labels.",
            "the table at the top: there is one label per tumour *subclass*, and non-tumour is none.",
            when=lambda found, *_: found.shape == (R + 1,),
        ),
        Mistake(
            lambda label_map: np.zeros(R),
            "Every slice gets the labels 0, 0, 0.",
            "the stub: nothing is read from `label_map` yet.",
        ),
        Mistake(
            _pixels,
            "{case}: you return {found}, and these are no labels.",
            "what a label says: absent (0) or present (1), not how many pixels, nor which share.",
            when=lambda found, wanted, _: found.shape == (R,) and not np.isin(found, (0, 1)).all(),
        ),
        Mistake(
            lambda label_map: _pixels(label_map) == max(*_pixels(label_map), 1),
            "{case}: you return {found}, so one excludes the others.",
            "the title of the section: each subclass is asked for by itself.",
            when=lambda found, wanted, _: wanted.all() and found.sum() == 1,
        ),
        Mistake(
            _present((1, 2, 3), (1, 3), (3,)),
            "{case}: you return {found}: these are the labels of the regions.",
            "which three things are asked: the subclasses 1, 2, 3, not whole tumour, tumour core and enhancing core.",
        ),
        Mistake(
            _present((2,), (1,), (3,)),
            "{case}: you return {found}, in another order.",
            "the order of the three labels: by class, 1 non-enhancing, 2 oedema, 3 enhancing.",
        ),
    ),
    says="{case}: you return {found}.",
    look="each of the three comparisons by itself, on a slice with two subclasses.",
    praise="All eight combinations can occur, and a slice without tumour is 0, 0, 0.",
)

EVERYTHING = np.arange(100, 160)
LISTS = {"first": np.arange(140, 160), "second": np.arange(100, 158), "third": np.arange(158, 160)}
"""Slices of each subclass; the last one is rare."""


def _draw(rest: Callable = lambda lists, everything, n, rng: rng.choice(everything, n)) -> Callable:
    """A draw of one slice from each list, and the others as `rest` says."""
    return lambda lists, everything, k, rng: np.concatenate(
        [[rng.choice(rows) for rows in lists], rest(lists, everything, k - R, rng)]
    )


def _batches(draw: Callable, k: int, count: int) -> np.ndarray:
    """50 batches with a seed, 50 with another, and `count` with the first seed again: (100 + count, k)."""
    drawn = []
    for seed, n in ((0, 50), (1, 50), (0, count)):
        rng = np.random.default_rng(seed)
        drawn += [draw(list(LISTS.values()), EVERYTHING, k, rng) for _ in range(n)]
    return np.array(drawn)


def _lacking(found: np.ndarray) -> list[int]:
    """How many batches lack each subclass."""
    return [int((~np.isin(found[100:], rows).any(axis=1)).sum()) for rows in LISTS.values()]


def _shares(found: np.ndarray, k: int) -> dict[str, float]:
    """Which share of the k - R others shows each subclass."""
    first = {
        name: sum(np.isin(other, rows).mean() for other in LISTS.values()) for name, rows in LISTS.items()
    }
    shown = {name: np.isin(found, rows).sum(axis=1).mean() for name, rows in LISTS.items()}
    return {name: (shown[name] - first[name]) / (k - R) for name in LISTS}


def _off(found: np.ndarray, wanted: np.ndarray, k: int, count: int) -> str:
    """The first subclass that the others show too seldom or too often."""
    for name, share in _shares(found, k).items() if k == 33 else ():
        expected = np.isin(EVERYTHING, LISTS[name]).mean()
        if abs(share - expected) >= 0.06:
            return f"{share:.0%} of the others show the {name} subclass, of `everything` {expected:.0%}"
    return ""


exercise_7_2 = Exercise(
    right=_draw(),
    cases={f"k = {k}": (k, count) for k, count in ((4, 400), (33, 200), (R, 50), (6, 50))},
    attempt=_batches,
    same=lambda found, wanted: found.shape == wanted.shape,
    mistakes=(
        Mistake(
            lambda lists, everything, k, rng: [rng.choice(rows) for rows in lists],
            "{case}: the answer has shape {seen}.",
            RETURN,
            when=lambda found, wanted, k, _: (
                found.shape[1:] != (k,) and f"{found.shape[1:]}, expected an array of shape {(k,)}"
            ),
        ),
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
            when=lambda found, wanted, k, _: k == 4 and any(_lacking(found)) and _lacking(found),
        ),
        Mistake(
            lambda lists, everything, k, rng: [*[rows[0] for rows in lists], *everything[: k - R]],
            "Your batches hardly differ from one another.",
            "where chance comes in: a slice is drawn from a list with `rng`, not its first one taken.",
            when=lambda found, wanted, k, _: k == 4 and len(np.unique(found[100:], axis=0)) <= 200,
        ),
        Mistake(
            lambda lists, everything, k, rng: [rng.choice(lists[-1 - i % R]) for i in range(k)],
            "A batch holds 1.3 slices of the rarest subclass or more on average; by the rule it is about 1.",
            "where the remaining k - R slices come from: all positive slices, each with the same chance.",
            when=lambda found, wanted, k, _: (
                k == 4 and np.isin(found, LISTS["third"]).sum(axis=1).mean() >= 1.3
            ),
        ),
        Mistake(
            lambda lists, everything, k, rng: _draw()(lists, everything, k, np.random.default_rng()),
            "The same seed does not give the same batches.",
            "the source of chance: only the generator `rng` that is handed in, so that a run can be repeated.",
            when=lambda found, *_: (
                (found[:50] != found[100:150]).any() or (found[:50] == found[50:100]).all()
            ),
        ),
        Mistake(
            _draw(lambda lists, everything, n, rng: rng.choice(lists[0], n)),
            "After one slice from each list, all others come from the {seen} list.",
            "where the remaining k - R slices come from: `everything`, not one of the lists.",
            when=lambda found, wanted, k, _: (
                k == 33 and next(n for n, v in _shares(found, k).items() if v >= 0.995)
            ),
        ),
        Mistake(
            _draw(lambda lists, everything, n, rng: rng.choice(np.concatenate(lists), n)),
            "After one slice from each list, {seen}.",
            "where the remaining k - R slices come from: `everything`, each slice with the same chance.",
            when=_off,
        ),
        Mistake(
            lambda lists, everything, k, rng: _draw()(lists[::-1], everything, max(k, R + 1), rng)[-k:],
            "With {case} some batch lacks a subclass.",
            "how many slices remain once every list has given one: k - R, which can be 0.",
            when=lambda found, *_: any(_lacking(found)),
        ),
    ),
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


def _image_by_image(pixel_scores: torch.Tensor, labels: torch.Tensor, t: tuple[float, ...]) -> torch.Tensor:
    return sum(segmentation_loss(pixel_scores[i : i + 1], labels[i : i + 1], t) for i in range(len(labels)))


def _exclusive(image_scores: torch.Tensor, presence: torch.Tensor) -> torch.Tensor:
    return -(image_scores[..., 1].log_softmax(dim=1) * presence).sum(dim=1).mean()


PARTS = float(_loss()(*_scores(), T, 1.0)), float(_loss()(*_scores(), T, 0.0))
"""Loss_s and Loss_c of the first case."""

exercise_7_3 = Exercise(
    right=_loss(),
    cases={
        "On a small batch": (*_scores(), T, A),
        "With other `t` and `a`": (*_scores(), (0.4, 0.3, 0.2, 0.1), 0.6),
    },
    mistakes=(
        Mistake(
            lambda *arguments: torch.zeros(()),
            "Your function still returns 0.",
            "the stub, and the two losses of the section before.",
        ),
        Mistake(
            lambda *arguments: _loss()(*arguments[:-1], 1 - arguments[-1]),
            "a and 1 - a are exchanged.",
            "which loss `a` belongs to: the segmentation loss.",
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
            _loss(lambda pixel_scores, labels, t: _image_by_image(pixel_scores, labels, t) / len(labels)),
            "Your pixel weights are counted per image.",
            "N_c: the paper counts the pixels of a class over all annotated images of the batch.",
        ),
        Mistake(
            _loss(_image_by_image),
            "Your pixel weights are counted per image, and the images' losses are added.",
            "N_c: the paper counts the pixels of a class over all annotated images of the batch.",
        ),
        Mistake(
            _loss(
                lambda pixel_scores, labels, t: segmentation_loss(pixel_scores, labels, t) / labels.numel()
            ),
            "Your segmentation loss is divided by the number of pixels once more.",
            "the sum of all weights: it is 1 already.",
        ),
        Mistake(
            _loss(loss_c=_exclusive),
            "Your softmax runs over the subclasses, so that one excludes the others.",
            "the last axis of `image_scores`: absent or present, for each branch by itself.",
        ),
        Mistake(
            _loss(loss_c=lambda *arguments: _exclusive(*arguments) / R),
            "Your softmax runs over the subclasses, and what it gives is divided by their number.",
            "the last axis of `image_scores`: absent or present, for each branch by itself.",
        ),
        Mistake(
            _loss(loss_c=lambda s, there: F.binary_cross_entropy_with_logits(s[..., 1], there.float())),
            "You read one score of each branch and leave out the other.",
            "the two scores of a branch, absent and present: their softmax gives p.",
        ),
        Mistake(
            lambda *arguments: _loss()(*arguments[:-2], T, A),
            "{case} your function does not follow.",
            "the numbers in your code: t and a are arguments.",
            when=lambda found, wanted, *arguments: arguments[-1] != A and not close(found, wanted),
        ),
    ),
    says="On a small batch you get {found:.4f}, expected {wanted:.4f}: "
    f"Loss_s {PARTS[0]:.4f}, Loss_c {PARTS[1]:.4f}.",
    look="the two parts by themselves: with a = 1 your function returns Loss_s, with a = 0 Loss_c.",
    praise=lambda found: (
        f"Loss_s {PARTS[0]:.4f} and Loss_c {PARTS[1]:.4f} give {A * PARTS[0] + (1 - A) * PARTS[1]:.4f} with a = {A}."
    ),
)
