"""Scenario files: variants in one line of settings each, checked before anything is trained."""

from pathlib import Path

import pytest
import yaml

from mixsup_lib.experiments.experiment import Scenario, read_scenario
from mixsup_lib.files import DataError, MixsupError, SettingError
from mixsup_lib.paper import TASKS

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
        ({"axes": {"a": 0.5}}, "axes.a"),
        ({"axes": {"a": []}}, "axes.a"),
        ({"axes": {"branhc": ["deep"]}}, "branch"),
        ({"folds": [1, 6]}, "fold is 6"),
        ({"folds": []}, "folds"),
        ({"seeds": ["one"]}, "seeds.0"),
    ],
)
def test_a_fault_is_one_sentence_that_names_the_file(changes, words, tmp_path):
    with pytest.raises(MixsupError, match="scenario.yaml") as fault:
        read_scenario(written(tmp_path, **changes))
    assert words in str(fault.value) and "\n" not in str(fault.value)


AXES = {"n_fa": [5, 15], "supervision": ["standard", "mixed"]}


def test_axes_stand_for_all_combinations_and_variants_add_to_them(tmp_path):
    scenario = read_scenario(written(tmp_path, axes=AXES, variants={"all": {"n_fa": 40}}))
    assert list(scenario.variants) == [
        "n_fa 5, standard",
        "n_fa 5, mixed",
        "n_fa 15, standard",
        "n_fa 15, mixed",
        "all",
    ]
    assert scenario.variants["n_fa 15, mixed"] == {"supervision": "mixed", "n_fa": 15}
    content = {name: value for name, value in GOOD.items() if name != "variants"}
    (tmp_path / "axes.yaml").write_text(yaml.safe_dump({**content, "axes": AXES}))
    assert len(read_scenario(tmp_path / "axes.yaml").variants) == 4


def test_what_is_written_back_is_the_same_scenario(tmp_path):
    scenario = read_scenario(written(tmp_path, axes=AXES, variants={}, folds=[2, 4]))
    again = Scenario.model_validate(scenario.model_dump())
    assert again.variants == scenario.variants and again.folds == [2, 4] and again.seeds == [0]


def test_the_papers_sixty_runs_their_partners_and_the_upper_line():
    scenario = read_scenario(ROOT / "scenarios" / "paper.yaml")
    configs = [config for config in scenario.configs().values() for _ in scenario.folds]
    mixed = [config for config in configs if config.supervision == "mixed"]
    upper = [config for config in configs if config.n_fa == 228]
    assert (len(configs), len(mixed), len(upper)) == (140, 60, 20)
    assert {config.supervision for config in upper} == {"standard"}
    assert {(config.n_fa, config.task) for config in mixed} == {
        (n, task) for n in (5, 15, 30) for task in TASKS
    }
    assert {config.iterations for config in configs} == {10_000}


def test_shared_settings_folds_and_seeds_can_be_changed_and_variants_chosen(tmp_path):
    scenario = read_scenario(written(tmp_path, axes=AXES, variants={}))
    other = scenario.changed({"iterations": 7}, folds=[4], seeds=[1, 2]).only({"n_fa": [5]})
    assert list(other.variants) == ["n_fa 5, standard", "n_fa 5, mixed"]
    assert (other.folds, other.seeds) == ([4], [1, 2])
    assert {config.iterations for config in other.configs().values()} == {7}
    assert list(scenario.only({"supervision": "mixed", "n_fa": 5}).variants) == ["n_fa 5, mixed"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scenario: scenario.changed({"n_fa": 3}), "gives it itself"),
        (lambda scenario: scenario.changed({"itrations": 3}), "'iterations'"),
        (lambda scenario: scenario.changed({}, folds=[6]), "fold is 6"),
        (lambda scenario: scenario.changed({"seed": 3}), "seed is given"),
        (lambda scenario: scenario.only({"nfa": 5}), "'n_fa'"),
        (lambda scenario: scenario.only({"fold": 1}), "does not tell variants apart"),
        (lambda scenario: scenario.only({"n_fa": 6}), "no variant"),
    ],
)
def test_a_change_that_cannot_be_is_one_sentence(change, words, tmp_path):
    with pytest.raises(SettingError) as fault:
        change(read_scenario(written(tmp_path, axes=AXES, variants={})))
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
