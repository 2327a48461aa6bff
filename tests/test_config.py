"""The configuration of a run: recorded runs keep their name, variants are settings, impossible ones are refused."""

from __future__ import annotations

import pytest

from mixsup_lib.__main__ import parse_settings
from mixsup_lib.config import RunConfig, make_config
from mixsup_lib.files import SettingError


def test_recorded_runs_keep_their_name_and_a_variant_is_a_run_of_its_own():
    """The runs recorded in data/results/phantom.csv have these digits in `settings_hash`."""
    names = {make_config(cohort="x", preset="workshop", supervision="standard").settings_hash(): "standard"}
    for change in (
        {}, {"branch": "deep"}, {"pooling": "max"}, {"weak_labels": "shuffled"}, {"weak_label_noise": 0.1},
        {"negatives": "annotated"},
    ):  # fmt: skip
        names[make_config(cohort="x", preset="workshop", **change).settings_hash()] = change
    assert names["a3e56bc9"] == "standard" and names["173388fd"] == {} and len(names) == 7


def test_a_variant_that_cannot_be_is_refused_in_one_sentence():
    for wrong, message in (
        ({"branch": "shared_trunk"}, "task whole_tumor has one branch.* use branch=deep_skip or task=multi"),
        ({"branch": "shalow"}, "'branch': found 'shalow'.*'shallow'"),
        ({"pooling": "mean"}, "'pooling': found 'mean'.*'max' or 'lse'"),
        ({"weak_labels": "random"}, "'weak_labels': found 'random'.*'shuffled'"),
        ({"weak_label_noise": 1.5}, "'weak_label_noise': found 1.5, .*less than or equal to 1"),
        ({"weak_labels": "shuffled", "supervision": "standard"}, "but standard .* sees no weak .*supervision=mixed"),
        ({"weak_label_noise": 0.1, "supervision": "standard"}, "weak_label_noise is 0.1, but standard"),
    ):
        with pytest.raises(SettingError, match=message) as caught:
            make_config(cohort="x", **wrong)
        assert "\n" not in str(caught.value)


def test_variants_can_be_chosen_on_the_command_line():
    pairs = ["cohort=x", "branch=deep", "pooling=max", "weak_labels=shuffled", "weak_label_noise=0.1"]
    config = make_config(**parse_settings(pairs))
    found = (config.branch, config.pooling, config.weak_labels, config.weak_label_noise)
    assert found == ("deep", "max", "shuffled", 0.1)
    assert RunConfig(**config.settings()) == config
