"""The cells of a grid: which runs it has, which are missing, on which GPU they compute, how long they take."""

from __future__ import annotations

import json
import threading

import pytest
import yaml

from mixsup_lib.config import make_config
from mixsup_lib.experiments.compare import NOTEBOOKS, gpu_places, may_pass, papermill_command, take_place
from mixsup_lib.experiments.experiment import (
    cells_of,
    expected_seconds,
    part_of,
    read_scenario,
    seconds_by_kind,
)
from mixsup_lib.experiments.runs import run_folder, split_of
from mixsup_lib.files import SettingError


def cells(folder, cohort, **changes):
    content = {
        "name": "short",
        "compare": "first",
        "settings": {"preset": "tiny", "n_fa": 3},
        "folds": [1, 2],
        "variants": {"standard": {"supervision": "standard"}, "mixed": {"supervision": "mixed"}},
        **changes,
    }
    (folder / "short.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return cells_of(read_scenario(folder / "short.yaml"), cohort, folder / "runs", folder / "stores")


def finish(cell, seconds, resumed=False):
    cell.folder.mkdir(parents=True)
    (cell.folder / "metrics.json").write_text("{}")
    record = {"wall_seconds": seconds, "resumed": resumed}
    (cell.folder / "provenance.json").write_text(json.dumps(record))


def test_a_cell_lies_where_its_run_goes(phantom, tmp_path):
    from mixsup_lib.datasets import find_cohort

    found, left_out = cells(tmp_path, phantom)
    assert left_out == {} and [cell.name for cell in found] == [
        "standard, fold 1, seed 0",
        "mixed, fold 1, seed 0",
        "standard, fold 2, seed 0",
        "mixed, fold 2, seed 0",
    ]
    for cell in found:
        config = make_config(**cell.given)
        assert cell.folder == run_folder(config, split_of(config, find_cohort(phantom)))
        assert not cell.finished()


def test_a_changed_setting_concerns_exactly_the_cells_it_touches(phantom, tmp_path):
    before, _ = cells(tmp_path, phantom)
    variants = {"standard": {"supervision": "standard"}, "mixed": {"supervision": "mixed", "a": 0.5}}
    after, _ = cells(tmp_path, phantom, variants=variants)
    new = {cell.key for cell in after} - {cell.key for cell in before}
    assert new == {cell.key for cell in after if cell.config.supervision == "mixed"} and len(new) == 2


def test_what_a_cohort_cannot_have_is_left_out_and_named(phantom, tmp_path):
    variants = {"few": {"n_fa": 3}, "many": {"n_fa": 9}}
    found, left_out = cells(tmp_path, phantom, variants=variants)
    assert {cell.variant for cell in found} == {"few"} and "lower n_fa" in left_out["many"]
    with pytest.raises(SettingError, match="does not fit .*lower n_fa"):
        cells(tmp_path, phantom, variants={"many": {"n_fa": 9}, "more": {"n_fa": 10}})


def test_parts_share_all_cells_and_no_two_have_the_same(phantom, tmp_path):
    found, _ = cells(tmp_path, phantom, folds=[1, 2, 3, 4, 5])
    parts = [part_of(found, number, 3) for number in (1, 2, 3)]
    assert sorted(cell.key for part in parts for cell in part) == sorted(cell.key for cell in found)
    for part in part_of(found, 1, 2), part_of(found, 2, 2):
        assert sorted(cell.variant for cell in part).count("mixed") in (2, 3) and len(part) == 5
    with pytest.raises(SettingError, match="part 4 of 3"):
        part_of(found, 4, 3)


def test_the_time_is_that_of_finished_runs_of_the_same_kind(phantom, tmp_path):
    found, _ = cells(tmp_path, phantom)
    standard, mixed, *rest = found
    finish(standard, 10.0)
    assert expected_seconds(rest, seconds_by_kind(tmp_path / "runs"), 1) is None
    finish(mixed, 30.0)
    known = seconds_by_kind(tmp_path / "runs")
    assert expected_seconds(rest, known, 1) == 40.0
    assert expected_seconds(rest, known, 2) == 30.0  # not faster than its longest run
    assert expected_seconds([], known, 2) == 0.0


def test_a_run_that_was_interrupted_says_nothing_about_time(phantom, tmp_path):
    standard, mixed, *_ = cells(tmp_path, phantom)[0]
    finish(standard, 1.0, resumed=True)
    finish(mixed, 1.0)
    mixed.folder.rename(mixed.folder.with_name(mixed.folder.name + ".partial"))
    assert seconds_by_kind(tmp_path / "runs") == {}
    assert seconds_by_kind(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("environment", "count", "per_gpu", "places"),
    [
        ({}, 0, 1, []),
        ({}, 2, 1, ["0", "1"]),
        ({}, 2, 2, ["0", "1", "0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "3, GPU-5a"}, 2, 1, ["3", "GPU-5a"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, 4, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0, 1, []),
    ],
)
def test_every_gpu_gets_its_share_of_runs(environment, count, per_gpu, places):
    assert gpu_places(environment, count, per_gpu) == places


def test_a_place_is_held_by_one_run_at_a_time(tmp_path):
    places, order = ["0", "1"], []
    with take_place(places, tmp_path) as first:
        with take_place(places, tmp_path) as second:
            assert {first, second} == {"0", "1"}

            def third():
                with take_place(places, tmp_path, wait_seconds=0.01) as place:
                    order.append(place)

            waiting = threading.Thread(target=third)
            waiting.start()
            waiting.join(0.2)
            assert waiting.is_alive() and order == []
        waiting.join(10)
        assert order == [second]


def test_the_run_notebook_gets_every_setting_that_was_asked_for(tmp_path):
    given = {"cohort": tmp_path / "c", "n_fa": 7, "a": 0.5, "fold": 2, "iterations": 3}
    call = papermill_command(make_config(**given), given, tmp_path / "run.ipynb")
    values = json.loads(call[-1])
    assert values["settings"] == {"a": 0.5, "iterations": 3}
    assert (values["n_fa"], values["fold"], values["cohort"]) == (7, 2, str(tmp_path / "c"))
    book = json.loads((NOTEBOOKS / "08_scenario_run.ipynb").read_text(encoding="utf-8"))
    (cell,) = [cell for cell in book["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert {line.split(":")[0] for line in cell["source"]} == set(values)


def test_only_a_fault_of_the_moment_is_tried_again():
    assert may_pass("RuntimeError: Kernel died before replying to kernel_info")
    assert not may_pass("ValueError: n_fa is 300")
