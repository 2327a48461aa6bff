"""Experiment files: variants in one line of settings each, checked before anything is trained; and their cells."""

from pathlib import Path

import pytest
import yaml

from mixsup_lib.config import make_config
from mixsup_lib.datasets import find_cohort
from mixsup_lib.experiments.experiment import cells_of, read_experiment
from mixsup_lib.experiments.runs import run_folder, split_of
from mixsup_lib.files import DataError, MixsupError, SettingError
from mixsup_lib.paper import TASKS

ROOT = Path(__file__).resolve().parent.parent
GOOD = {"name": "short", "compare": "first", "settings": {"preset": "tiny"}}
GOOD["variants"] = {
    "a": {"supervision": "standard"},
    "b": {"supervision": "mixed"},
    "c": {"supervision": "mixed", "a": 1.0},
}


def written(folder: Path, **changes) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}, sort_keys=False))
    return path


def test_the_experiments_that_ship_can_be_read():
    for path in (ROOT / "scenarios").glob("*.yaml"):
        assert read_experiment(path).name == path.stem


def test_variants_are_compared_with_the_first_or_the_previous_one(tmp_path):
    assert read_experiment(written(tmp_path)).against() == {"b": "a", "c": "a"}
    assert read_experiment(written(tmp_path, compare="previous")).against() == {"b": "a", "c": "b"}


def test_the_ladder_changes_one_thing_at_a_time():
    """From standard to the paper's mixed supervision: pools, weak images, the branch, its labels."""
    steps = list(read_experiment(ROOT / "scenarios" / "ladder.yaml").configs().values())
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
        ({"name": "../elsewhere"}, "name"),
        ({"settings": {"seed": 1}}, "seed is given"),
        ({"axes": {"a": 0.5}}, "axes.a"),
        ({"axes": {"branhc": ["deep"]}}, "branch"),
        ({"folds": [1, 6]}, "fold is 6"),
        ({"seeds": ["one"]}, "seeds.0"),
    ],
)
def test_a_fault_is_one_sentence_that_names_the_file(changes, words, tmp_path):
    with pytest.raises(MixsupError, match="experiment.yaml") as fault:
        read_experiment(written(tmp_path, **changes))
    assert words in str(fault.value) and "\n" not in str(fault.value)


AXES = {"n_fa": [5, 15], "supervision": ["standard", "mixed"]}


def test_axes_stand_for_all_combinations_and_variants_add_to_them(tmp_path):
    variants = read_experiment(written(tmp_path, axes=AXES, variants={"all": {"n_fa": 40}})).variants
    pairs = ["n_fa 5, standard", "n_fa 5, mixed", "n_fa 15, standard", "n_fa 15, mixed"]
    assert list(variants) == [*pairs, "all"]
    assert variants["n_fa 15, mixed"] == {"supervision": "mixed", "n_fa": 15}


def test_the_papers_sixty_runs_their_partners_and_the_upper_line():
    experiment = read_experiment(ROOT / "scenarios" / "paper.yaml")
    configs = [config for config in experiment.configs().values() for _ in experiment.folds]
    mixed = [config for config in configs if config.supervision == "mixed"]
    upper = [config for config in configs if config.n_fa == 228]
    assert (len(configs), len(mixed), len(upper)) == (140, 60, 20)
    assert {config.supervision for config in upper} == {"standard"}
    pairs = {(n, task) for n in (5, 15, 30) for task in TASKS}
    assert {(config.n_fa, config.task) for config in mixed} == pairs
    assert {config.iterations for config in configs} == {10_000}


def test_shared_settings_folds_and_seeds_can_be_changed(tmp_path):
    experiment = read_experiment(written(tmp_path, axes=AXES, variants={}))
    other = experiment.changed({"iterations": 7}, folds=[4], seeds=[1, 2])
    assert (other.folds, other.seeds) == ([4], [1, 2])
    assert {config.iterations for config in other.configs().values()} == {7}
    with pytest.raises(SettingError, match="gives it itself"):
        experiment.changed({"n_fa": 3})


@pytest.mark.parametrize("content", [b"a: [", b"!!python/object/apply:os.system [ls]", b"\xff\xfe", b"[1, 2]", b""])
def test_what_is_no_experiment_is_refused(content, tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match="experiment.yaml"):
        read_experiment(path)


def test_a_name_is_that_of_an_experiment_that_ships():
    assert read_experiment("ladder").name == "ladder"
    with pytest.raises(SettingError, match="no experiment 'laddr'. Did you mean 'ladder'?.* label-noise, ladder,"):
        read_experiment("laddr")
    with pytest.raises(DataError, match="missing.yaml: cannot be read"):
        read_experiment("missing.yaml")


def cells(folder, cohort, **changes):
    content = {"settings": {"preset": "tiny", "n_fa": 3}, "folds": [1, 2], **changes}
    experiment = read_experiment(written(folder, **content))
    return cells_of(experiment, find_cohort(cohort), folder / "runs", folder / "stores")


ARMS = {"standard": {"supervision": "standard"}, "mixed": {"supervision": "mixed"}}


def test_a_cell_lies_where_its_run_goes(phantom, tmp_path):
    found, left_out = cells(tmp_path, phantom, variants=ARMS)
    names = [f"{variant}, fold {fold}, seed 0" for fold in (1, 2) for variant in ("standard", "mixed")]
    assert left_out == {} and [cell.name for cell in found] == names
    for cell in found:
        config = make_config(**cell.given)
        assert cell.folder == run_folder(config, split_of(config, find_cohort(phantom)))
        assert not cell.finished()


def test_what_a_cohort_cannot_have_is_left_out_and_named(phantom, tmp_path):
    found, left_out = cells(tmp_path, phantom, variants={"few": {"n_fa": 3}, "many": {"n_fa": 9}})
    assert {cell.variant for cell in found} == {"few"} and "lower n_fa" in left_out["many"]
    with pytest.raises(SettingError, match="does not fit .*lower n_fa"):
        cells(tmp_path, phantom, variants={"many": {"n_fa": 9}, "more": {"n_fa": 10}})
