"""Exercises of notebook 08: what makes two runs partners, and how many images a run sees."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.paper import BATCH
from mixsup_lib.teaching.exercises.exercise import RETURN, Exercise, Mistake, close

Settings = dict[str, Any]
ARM = {
    "cohort": "../data/phantom-tiny",
    "n_fa": 5,
    "fold": 4,
    "supervision": "mixed",
    "preset": "tiny",
    "seed": 7,
}


def _partner(settings: Settings) -> Settings:
    return {**settings, "supervision": {"mixed": "standard", "standard": "mixed"}[settings["supervision"]]}


def _in_place(settings: Settings) -> Settings:
    settings |= _partner(settings)
    return settings


exercise_8_1 = Exercise(
    right=_partner,
    cases={"mixed": (ARM,), "standard": (_partner(ARM),)},
    mistakes=(
        Mistake(
            lambda settings: list(_partner(settings).items()),
            "The answer is {found!r}, expected a dict.",
            RETURN,
            when=lambda found, *_: not isinstance(found, dict | Exception | None),
        ),
        Mistake(
            _in_place,
            "Your function changed the settings it was given.",
            "how to copy a dict with one value replaced: `{**settings, ...}`.",
            when=lambda found, wanted, settings: settings != _partner(wanted),
        ),
        Mistake(
            lambda settings: {**settings, "supervision": "standard"},
            "The partner of a {case} run has supervision {seen}.",
            "the setting that tells the two arms apart; a partner's partner is the run itself.",
            when=lambda found, wanted, settings: (
                found.get("supervision") != wanted["supervision"] and repr(found.get("supervision"))
            ),
        ),
        Mistake(
            lambda settings: {**_partner(settings), "seed": 8},
            "The partner differs in {seen} as well.",
            "what a difference in Dice could then be due to, other than supervision.",
            when=lambda found, wanted, settings: ", ".join(
                sorted(n for n in wanted if found.get(n) != wanted[n])
            ),
        ),
        Mistake(
            lambda settings: {**_partner(settings), "n": 0},
            "The partner has settings of its own: {seen}.",
            "what may differ between the arms.",
            when=lambda found, wanted, settings: ", ".join(sorted(set(found) - set(wanted))),
        ),
    ),
    praise="One setting differs; patients, length, seed and schedule are the same, so a difference has one cause.",
)


def _seen(config: RunConfig) -> tuple[int, int]:
    batches = config.iterations * config.batches_per_iteration
    return batches * (config.k + config.m), batches * config.n


def _attempt(images_seen: Callable, supervision: str, iterations: int, batches: int) -> Any:
    asked = {"supervision": supervision, "iterations": iterations, "batches_per_iteration": batches}
    return images_seen(make_config(**{**ARM, **asked}))


exercise_8_2 = Exercise(
    right=_seen,
    cases={
        f"{supervision}, {iterations} iterations of {batches} batch(es)": (supervision, iterations, batches)
        for supervision, iterations, batches in (("mixed", 10, 1), ("standard", 10, 1), ("mixed", 10_000, 10))
    },
    attempt=_attempt,
    same=functools.partial(close, tolerance=1e-9),
    mistakes=(
        Mistake(
            lambda config: np.array(_seen(config)) / config.batches_per_iteration,
            "{case}: you count one batch in an iteration.",
            "`batches_per_iteration`: the paper sums the gradients of ten batches before it takes one step.",
            when=lambda found, wanted, supervision, iterations, batches: (
                batches > 1 and found[0] * batches == wanted[0]
            ),
        ),
        Mistake(
            lambda config: (
                _seen(config)[0],
                config.iterations * config.batches_per_iteration * BATCH["mixed"][2],
            ),
            "{case}: {found[1]:g} weak images, but standard supervision has none.",
            "`config.n`, the number of weak images in a batch, which depends on the supervision.",
            when=lambda found, wanted, supervision, *_: supervision == "standard" and found[1] != 0,
        ),
        Mistake(
            lambda config: (config.iterations * config.batches_per_iteration * config.k, _seen(config)[1]),
            "{case}: {found[0]:g} annotated images; the m negative ones are missing.",
            "which images of a batch have pixel labels: a slice without tumour needs no outline.",
            when=lambda found, wanted, supervision, iterations, batches: (
                found[0] == iterations * batches * BATCH[supervision][0]
            ),
        ),
    ),
    says="{case}: {found[0]:g} annotated and {found[1]:g} weak images, expected another number.",
    look="the product: iterations x batches per iteration x images of that kind in a batch.",
    praise="The paper's mixed run sees 600 000 images with pixel labels and 400 000 with slice labels.",
)
