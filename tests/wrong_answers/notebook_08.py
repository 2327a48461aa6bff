"""Typical wrong answers to the exercises of notebook 08, each with words of its diagnosis."""

from mixsup_lib.paper import BATCH


def changes_in_place(settings):
    settings["supervision"] = "standard"
    return settings


def always_standard(settings):
    return {**settings, "supervision": "standard"}


def new_seed_too(settings):
    return {**always_standard(settings), "seed": 8}


def k_only(config):
    return config.iterations * config.k, config.iterations * config.n


def one_batch(config):
    return config.iterations * (config.k + config.m), config.iterations * config.n


def always_mixed(config):
    k, m, n = BATCH["mixed"]
    batches = config.iterations * config.batches_per_iteration
    return batches * (k + m), batches * n


WRONG = {
    "exercise_8_1": [
        (changes_in_place, "changed the settings it was given"),
        (always_standard, "a partner's partner is the run itself"),
        (new_seed_too, "differs in seed as well"),
    ],
    "exercise_8_2": [
        (k_only, "the m negative ones are missing"),
        (one_batch, "one batch in an iteration"),
        (always_mixed, "standard supervision has none"),
    ],
}
