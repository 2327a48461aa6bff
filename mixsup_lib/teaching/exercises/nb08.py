"""Exercises of notebook 08: what makes two runs partners, and how many images a run sees."""

from __future__ import annotations

from typing import Any

from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.paper import BATCH
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake

ARM = {"cohort": "../data/phantom-tiny", "n_fa": 5, "fold": 4, "supervision": "mixed", "preset": "tiny", "seed": 7}


def _partner(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "supervision": {"mixed": "standard", "standard": "mixed"}[settings["supervision"]]}


exercise_8_1 = Exercise(
    right=_partner,
    cases={"mixed": (ARM,), "standard": (_partner(ARM),)},
    mistakes=(
        Mistake(
            lambda settings: {**settings, "supervision": "standard"},
            "The partner of a {case} run has supervision {found[supervision]!r}.",
            "the setting that tells the two arms apart; a partner's partner is the run itself.",
            when=lambda found, wanted, _: found["supervision"] != wanted["supervision"],
        ),
        Mistake(
            lambda settings: {**_partner(settings), "seed": 8},
            "The partner differs in {seen} as well.",
            when=lambda found, wanted, _: ", ".join(sorted(dict(found.items() ^ wanted.items()))),
        ),
    ),
    look="what a difference in Dice could then be due to, other than supervision.",
    praise="One setting differs; patients, length, seed and schedule are the same, so a difference has one cause.",
)


def _batches(config: RunConfig) -> int:
    return config.iterations * config.batches_per_iteration


def _seen(config: RunConfig) -> tuple[int, int]:
    return _batches(config) * (config.k + config.m), _batches(config) * config.n


exercise_8_2 = Exercise(
    right=_seen,
    cases={
        f"{supervision}, {iterations} iterations of {batches} batch(es)": (
            make_config(
                **ARM | {"supervision": supervision, "iterations": iterations, "batches_per_iteration": batches}
            ),
        )
        for supervision, iterations, batches in (("mixed", 10, 1), ("standard", 10, 1), ("mixed", 10_000, 10))
    },
    mistakes=(
        Mistake(
            lambda config: [images / config.batches_per_iteration for images in _seen(config)],
            "{case}: you count one batch in an iteration.",
            "`batches_per_iteration`: the paper sums the gradients of ten batches before it takes one step.",
        ),
        Mistake(
            lambda config: (_seen(config)[0], _batches(config) * BATCH["mixed"][2]),
            "{case}: {found[1]:g} weak images, but standard supervision has none.",
            "`config.n`, the number of weak images in a batch, which depends on the supervision.",
        ),
        Mistake(
            lambda config: (_batches(config) * config.k, _seen(config)[1]),
            "{case}: {found[0]:g} annotated images; the m negative ones are missing.",
            "which images of a batch have pixel labels: a slice without tumour needs no outline.",
        ),
    ),
    says="{case}: {found[0]:g} annotated and {found[1]:g} weak images, expected another number.",
    look="the product: iterations x batches per iteration x images of that kind in a batch.",
    praise="The paper's mixed run sees 600 000 images with pixel labels and 400 000 with slice labels.",
)
