"""The configuration of a run: recorded runs keep their name, variants are settings, impossible ones are refused."""

from __future__ import annotations

import pytest

from mixsup_lib.__main__ import parse_settings
from mixsup_lib.config import RunConfig, make_config, run_config
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


@pytest.mark.parametrize("name", ["my data #2", "010", "2020-01-01", "yes", "null", "[x]", "a: b"])
def test_the_name_of_a_folder_is_taken_as_it_stands(name):
    assert str(make_config(**parse_settings([f"cohort={name}"])).cohort) == name
    assert str(run_config({"cohort": name, "out": name}, before=()).out) == name


def test_parameters_that_papermill_passes_as_text_are_read_or_refused_in_a_sentence():
    given = {"cohort": "x", "window": "[64, 64]", "settings": "{iterations: 30, target_weights: [0.5, 0.5]}"}
    config = run_config(given, before=())
    assert (config.window, config.iterations, config.target_weights) == ((64, 64), 30, (0.5, 0.5))
    for wrong, message in (
        ({"settings": "iterations"}, "Parameter 'settings': found 'iterations', expected a dictionary"),
        ({"window": "[64"}, "Setting 'window': .* is not a value"),
        ({"cohort": 10}, "Setting 'cohort': found 10, expected a folder as text; .* -r instead of -p"),
        ({"out": "../runs"}, "Parameter 'out': '../runs' starts from the folder notebooks, .*papermill with --cwd"),
    ):
        with pytest.raises(SettingError, match=message):
            run_config({**given, **wrong}, before=())
