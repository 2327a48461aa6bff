"""Checks of notebook 08: what makes two runs partners, and how many images a run sees."""

from __future__ import annotations

from typing import Any

from mixsup_lib.config import make_config
from mixsup_lib.paper import BATCH
from mixsup_lib.teaching.exercises.verdict import RETURN, as_array, call, check, expect

ARM = {
    "cohort": "../data/phantom-tiny",
    "n_fa": 5,
    "fold": 4,
    "supervision": "mixed",
    "preset": "tiny",
    "seed": 7,
}


@check
def exercise_8_1(partner: Any) -> str:
    """Settings of one arm -> settings of the arm that it may be compared with."""
    for supervision, other in (("mixed", "standard"), ("standard", "mixed")):
        given = {**ARM, "supervision": supervision}
        asked = dict(given)
        found = call(partner, given)
        expect(
            isinstance(found, dict),
            f"The answer is {found!r}, expected a dict.",
            RETURN,
        )
        expect(
            given == asked,
            "Your function changed the settings it was given.",
            "how to copy a dict with one value replaced: `{**settings, ...}`.",
        )
        expect(
            found.get("supervision") == other,
            f"The partner of a {supervision} run has supervision {found.get('supervision')!r}.",
            "the setting that tells the two arms apart; a partner's partner is the run itself.",
        )
        changed = sorted(name for name in asked if name != "supervision" and found.get(name) != asked[name])
        expect(
            not changed,
            f"The partner differs in {', '.join(changed)} as well.",
            "what a difference in Dice could then be due to, other than supervision.",
        )
        expect(
            set(found) == set(asked),
            f"The partner has settings of its own: {', '.join(sorted(set(found) - set(asked)))}.",
            "what may differ between the arms.",
        )
    return "One setting differs; patients, length, seed and schedule are the same, so a difference has one cause."


@check
def exercise_8_2(images_seen: Any) -> str:
    """Settings -> (annotated, weak) images that pass through the network during one run."""
    for supervision, iterations, batches in (("mixed", 10, 1), ("standard", 10, 1), ("mixed", 10_000, 10)):
        config = make_config(
            **{**ARM, "supervision": supervision, "iterations": iterations, "batches_per_iteration": batches}
        )
        k, m, n = BATCH[supervision]
        right = iterations * batches * (k + m), iterations * batches * n
        annotated, weak = as_array(call(images_seen, config), (2,))
        where = f"{supervision}, {iterations} iterations of {batches} batch(es)"
        expect(
            batches == 1 or annotated * batches != right[0],
            f"{where}: you count one batch in an iteration.",
            "`batches_per_iteration`: the paper sums the gradients of ten batches before it takes one step.",
        )
        expect(
            supervision == "mixed" or weak == 0,
            f"{where}: {weak:g} weak images, but standard supervision has none.",
            "`config.n`, the number of weak images in a batch, which depends on the supervision.",
        )
        expect(
            annotated != iterations * batches * k,
            f"{where}: {annotated:g} annotated images; the m negative ones are missing.",
            "which images of a batch have pixel labels: a slice without tumour needs no outline.",
        )
        expect(
            (annotated, weak) == right,
            f"{where}: {annotated:g} annotated and {weak:g} weak images, expected another number.",
            "the product: iterations x batches per iteration x images of that kind in a batch.",
        )
    return "The paper's mixed run sees 600 000 images with pixel labels and 400 000 with slice labels."
