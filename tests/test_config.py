"""The configuration of a run: recorded runs keep their name, variants are settings, impossible ones are refused."""

from __future__ import annotations

import pytest

from mixsup_lib.config import make_config


@pytest.mark.parametrize(("supervision", "name"), [("standard", "a3e56bc9"), ("mixed", "173388fd")])
def test_recorded_runs_keep_their_name(supervision, name):
    """The runs recorded in data/results/phantom.csv have these digits in `settings_hash`."""
    config = make_config(cohort="x", preset="workshop", supervision=supervision)
    assert config.settings_hash() == name
