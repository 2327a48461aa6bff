"""Scenario files: variants in one line of settings each, checked before anything is trained."""

from pathlib import Path

import pytest
import yaml

from mixsup_lib.errors import DataError, MixsupError
from mixsup_lib.scenario import read_scenario

ROOT = Path(__file__).resolve().parent.parent
GOOD = {
    "name": "short",
    "compare": "first",
    "settings": {"preset": "tiny"},
    "variants": {
        "a": {"supervision": "standard"},
        "b": {"supervision": "mixed"},
        "c": {"supervision": "mixed", "a": 1.0},
    },
}


def written(folder: Path, **changes) -> Path:
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_scenario_files_can_be_read(path):
    assert read_scenario(path).name == path.stem


def test_variants_are_compared_with_the_first_or_the_previous_one(tmp_path):
    assert read_scenario(written(tmp_path)).against() == {"b": "a", "c": "a"}
    assert read_scenario(written(tmp_path, compare="previous")).against() == {"b": "a", "c": "b"}


def test_a_variants_settings_win_over_the_shared_ones(tmp_path):
    scenario = read_scenario(written(tmp_path, settings={"preset": "tiny", "a": 0.5}))
    config = scenario.config("c", cohort="here", fold=2)
    assert (config.a, config.fold, config.preset) == (1.0, 2, "tiny")
    assert scenario.config("b", cohort="here").a == 0.5


def test_the_ladder_changes_one_thing_at_a_time():
    """From standard to the paper's mixed supervision: pools, weak images, the branch, its labels."""
    steps = list(read_scenario(ROOT / "scenarios" / "ladder.yaml").configs().values())
    standard, negatives, passing, shuffled, paper = steps
    assert (standard.supervision, negatives.supervision) == ("standard", "mixed")
    assert [config.n for config in steps] == [0, 0, 4, 4, 4]
    assert [config.a for config in steps[1:]] == [1.0, 1.0, 0.7, 0.7]
    assert [config.weak_labels for config in steps] == [None, None, None, "shuffled", None]
    assert {(config.k, config.m, config.iterations) for config in steps} == {(4, 2, 1500)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants": {"a": {"supervision": "standard"}}}, "variants"),
        ({"variants": {"a": {"branhc": "deep"}, "b": {}}}, "branch"),
        ({"variants": {"a": {"fold": 2}, "b": {}}}, "fold is given on the command line"),
        ({"variants": {"a": {}, "b": {"supervision": "mixed"}}}, "are the same run"),
        ({"compare": "last"}, "compare"),
        ({"name": "../elsewhere"}, "name"),
        ({"extra": 1}, "extra"),
        ({"settings": {"seed": 1}}, "seed is given"),
    ],
)
def test_a_fault_is_one_sentence_that_names_the_file(changes, words, tmp_path):
    with pytest.raises(MixsupError, match="scenario.yaml") as fault:
        read_scenario(written(tmp_path, **changes))
    assert words in str(fault.value) and "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "content", [b"a: [", b"!!python/object/apply:os.system [ls]", b"\xff\xfe", b"[1, 2]", b""]
)
def test_what_is_no_scenario_is_refused_and_runs_no_code(content, tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match="scenario.yaml"):
        read_scenario(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_scenario(tmp_path / "missing.yaml")
