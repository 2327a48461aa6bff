"""The configuration of a run: recorded runs keep their name, variants are settings, impossible ones are refused."""

from __future__ import annotations

import pytest

from mixsup_lib.config import make_config
from mixsup_lib.errors import SettingError


@pytest.mark.parametrize(("supervision", "name"), [("standard", "a3e56bc9"), ("mixed", "173388fd")])
def test_recorded_runs_keep_their_name(supervision, name):
    """The runs recorded in data/results/phantom.csv have these digits in `settings_hash`."""
    config = make_config(cohort="x", preset="workshop", supervision=supervision)
    assert config.settings_hash() == name


@pytest.mark.parametrize("change", [{"branch": "deep"}, {"branch": "shallow"}, {"pooling": "max"}])
def test_a_variant_is_a_run_of_its_own(change):
    paper = make_config(cohort="x", preset="workshop")
    assert make_config(cohort="x", preset="workshop", **change).settings_hash() != paper.settings_hash()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"branch": "shared_trunk"}, "task whole_tumor has one branch.* use branch=deep_skip or task=multi"),
        ({"branch": "shalow"}, "'branch': found 'shalow'.*'shallow'"),
        ({"pooling": "mean"}, "'pooling': found 'mean'.*'max' or 'lse'"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_in_one_sentence(wrong, message):
    with pytest.raises(SettingError, match=message) as caught:
        make_config(cohort="x", **wrong)
    assert "\n" not in str(caught.value)
