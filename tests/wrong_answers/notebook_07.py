"""Typical wrong answers to the exercises of notebook 07, each with words of its diagnosis."""

import numpy as np
import torch
from torch.nn import functional as F


def counts(label_map):
    return [(label_map == c).sum() for c in (1, 2, 3)]


def largest_only(label_map):
    return (np.array(counts(label_map)) == max(*counts(label_map), 1)).astype(int)


def regions(label_map):
    return [np.isin(label_map, classes).any() for classes in ((1, 2, 3), (1, 3), (3,))]


def with_background(label_map):
    return [(label_map == c).any() for c in range(4)]


def oedema_first(label_map):
    return [(label_map == c).any() for c in (2, 1, 3)]


def from_everything(lists, everything, k, rng):
    return rng.choice(everything, k)


def one_per_list(lists, everything, k, rng):
    return np.array([rng.choice(rows) for rows in lists])


def first_of_each(lists, everything, k, rng):
    return np.array([*[rows[0] for rows in lists], *everything[: k - len(lists)]])


def lists_only(lists, everything, k, rng):
    return np.array([rng.choice(lists[-1 - i % len(lists)]) for i in range(k)])


def rest_of_first_list(lists, everything, k, rng):
    return np.array([*[rng.choice(rows) for rows in lists], *rng.choice(lists[0], k - len(lists))])


def rest_of_second_list(lists, everything, k, rng):
    return rest_of_first_list([lists[1], lists[0], lists[2]], everything, k, rng)


def rest_of_joined_lists(lists, everything, k, rng):
    first = [rng.choice(rows) for rows in lists]
    return np.array([*first, *rng.choice(np.concatenate(lists), k - len(lists))])


def own_chance(lists, everything, k, rng):
    rng = np.random.default_rng()
    return np.concatenate([[rng.choice(rows) for rows in lists], rng.choice(everything, k - len(lists))])


def positions(lists, everything, k, rng):
    return rng.integers(len(everything), size=k)


def pixels(scores, labels, t):
    weights = torch.tensor(t) / torch.bincount(labels.flatten(), minlength=len(t)).clamp(min=1)
    return F.cross_entropy(scores, labels, weight=weights, reduction="sum")


def image(scores, presence):
    return F.cross_entropy(scores.flatten(0, 1), presence.flatten())


def summed(pixel_scores, labels, image_scores, presence, t, a):
    return a * pixels(pixel_scores, labels, t) + (1 - a) * presence.shape[1] * image(image_scores, presence)


def exchanged(pixel_scores, labels, image_scores, presence, t, a):
    return (1 - a) * pixels(pixel_scores, labels, t) + a * image(image_scores, presence)


def unweighted(pixel_scores, labels, image_scores, presence, t, a):
    return a * F.cross_entropy(pixel_scores, labels) + (1 - a) * image(image_scores, presence)


def per_image(pixel_scores, labels, image_scores, presence, t, a):
    loss_s = sum(pixels(s[None], m[None], t) for s, m in zip(pixel_scores, labels, strict=True))
    return a * loss_s / len(labels) + (1 - a) * image(image_scores, presence)


def divided_again(pixel_scores, labels, image_scores, presence, t, a):
    return a * pixels(pixel_scores, labels, t) / labels.numel() + (1 - a) * image(image_scores, presence)


def exclusive(pixel_scores, labels, image_scores, presence, t, a):
    loss_c = -(image_scores[..., 1].log_softmax(dim=1) * presence).sum(dim=1).mean()
    return a * pixels(pixel_scores, labels, t) + (1 - a) * loss_c


def one_score(pixel_scores, labels, image_scores, presence, t, a):
    loss_c = F.binary_cross_entropy_with_logits(image_scores[..., 1], presence.float())
    return a * pixels(pixel_scores, labels, t) + (1 - a) * loss_c


def fixed_numbers(pixel_scores, labels, image_scores, presence, t, a):
    return 0.3 * pixels(pixel_scores, labels, (0.7, 0.1, 0.1, 0.1)) + 0.7 * image(image_scores, presence)


WRONG = {
    "exercise_7_1": [
        (with_background, "four labels"),
        (counts, "not how many pixels"),
        (largest_only, "one excludes the others"),
        (regions, "not whole tumour, tumour core and enhancing core"),
        (oedema_first, "the order of the three labels"),
    ],
    "exercise_7_2": [
        (one_per_list, "expected an array of shape (4,)"),
        (positions, "not positions in them"),
        (from_everything, "leaves it to chance"),
        (first_of_each, "hardly differ"),
        (lists_only, "slices of the rarest subclass"),
        (rest_of_first_list, "all others come from the first list"),
        (rest_of_second_list, "all others come from the second list"),
        (rest_of_joined_lists, "each slice with the same chance"),
        (own_chance, "the generator `rng`"),
    ],
    "exercise_7_3": [
        (exchanged, "exchanged"),
        (summed, "the average across the branches"),
        (unweighted, "weigh the same"),
        (per_image, "counted per image"),
        (divided_again, "it is 1 already"),
        (exclusive, "runs over the subclasses"),
        (one_score, "leave out the other"),
        (fixed_numbers, "t and a are arguments"),
    ],
}
