"""Exercises: a stub is told what is to do, a solution is right, every mistake gets its own diagnosis and no other."""

from __future__ import annotations

import importlib
import re
import string
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import pytest
import torch

from mixsup_lib.teaching.exercises import nb04, nb06, nb10, nb11
from mixsup_lib.teaching.exercises.exercise import Exercise, Mistake, Verdict

ROOT = Path(__file__).resolve().parent.parent
BOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SOLUTIONS = ROOT / "notebooks" / "solutions"
CALL = re.compile(r"exercises\.(exercise_(\d+)_(\d+))\((\w+)\)")


class Cell(NamedTuple):
    """An exercise of a notebook: its stub, the name of the answer, and what the check is shown to have said."""

    book: int
    number: int
    stub: str
    answer: str
    shown: str

    @property
    def name(self) -> str:
        return f"exercise_{self.book}_{self.number}"

    @property
    def check(self) -> Exercise:
        return getattr(importlib.import_module(f"mixsup_lib.teaching.exercises.nb{self.book:02d}"), self.name)

    def judge(self, source: str) -> Verdict:
        """Run `source` by itself in the folder of the notebooks and check the answer that it defines."""
        names: dict = {}
        exec(compile(source, self.name, "exec"), names)
        return self.check(names[self.answer])


def exercises() -> list[Cell]:
    found = []
    for path in BOOKS:
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        for stub, judged in zip(cells, cells[1:], strict=False):
            if "exercise" in stub.metadata.get("tags", []):
                match = CALL.search(judged.source)
                assert match, f"{path.name}: the cell after an exercise checks it"
                assert int(match[2]) == int(path.name[:2]), f"{path.name}: {match[1]}"
                shown = judged.outputs[0]["data"]["text/plain"]
                found.append(Cell(int(match[2]), int(match[3]), stub.source, match[4], shown))
    return found


FOUND = exercises()
each = pytest.mark.parametrize("exercise", FOUND, ids=lambda exercise: exercise.name)


@pytest.fixture(autouse=True)
def in_the_notebooks_folder(monkeypatch):
    monkeypatch.chdir(ROOT / "notebooks")


@each
def test_a_stub_runs_and_is_not_right(exercise):
    verdict = exercise.judge(exercise.stub)
    assert not verdict.right and verdict.message and verdict.look
    assert repr(verdict) == exercise.shown, "the notebook shows what an earlier check said: execute it again"


@each
def test_a_solution_is_right(exercise):
    solution = SOLUTIONS / f"ex_{exercise.book}_{exercise.number}.py"
    verdict = exercise.judge(solution.read_text(encoding="utf-8"))
    assert verdict.right and verdict.message, verdict


def worded(mistake: Mistake) -> re.Pattern:
    """What a mistake says, whatever is filled in."""
    parts = string.Formatter().parse(mistake.says)
    return re.compile("".join(re.escape(text) + ".*" * (name is not None) for text, name, _, _ in parts), re.S)


@each
def test_a_mistake_gets_its_own_diagnosis(exercise):
    mistakes = exercise.check.mistakes
    verdicts = [exercise.check(mistake.wrong) for mistake in mistakes]
    for verdict, mistake in zip(verdicts, mistakes, strict=True):
        look = mistake.look or exercise.check.look
        assert not verdict.right and verdict.look == look, (mistake.says, verdict)
        assert worded(mistake).fullmatch(verdict.message), (mistake.says, verdict)
    assert len({verdict.message for verdict in verdicts}) == len(mistakes) >= 2


@each
def test_a_check_survives_any_answer(exercise):
    functions = [lambda *_: 1 / 0, *(lambda *_, value=value: value for value in (None, "text", {}, [1, [2]]))]
    for answer in (None, "text", 3, [], {}, object(), lambda: 1, *functions):
        assert not exercise.check(answer).right


def test_every_check_and_every_solution_belongs_to_an_exercise():
    named = {exercise.name for exercise in FOUND}
    files = sorted((ROOT / "mixsup_lib" / "teaching" / "exercises").glob("nb*.py"))
    defined = [name for file in files for name in re.findall(r"^(exercise_\w+) =", file.read_text(), re.M)]
    assert sorted(defined) == sorted(named)
    assert {path.stem for path in SOLUTIONS.glob("*.py")} == {name.replace("exercise", "ex") for name in named}


def test_exercises_are_numbered_in_order():
    for book in {exercise.book for exercise in FOUND}:
        numbers = [exercise.number for exercise in FOUND if exercise.book == book]
        assert numbers == list(range(1, len(numbers) + 1))


# right answers that differ from the solution


def test_operations_may_be_counted_with_biases():
    def gflop(maps_in, maps_out, kernel, size):
        return (2 * maps_in * kernel**2 + 1) * maps_out * size**2 / 1e9

    assert nb10.exercise_10_1(gflop).right


def test_a_detector_may_compare_sorted_lists():
    def leaks(select, masks, weak):
        changed = [{**masks, **{p: masks[p] * 0 + value for p in weak}} for value in (0, 1)]
        return any(sorted(select(one)) != sorted(select(masks)) for one in changed)

    assert nb04.exercise_4_3(leaks).right


def test_the_number_of_tumours_says_nothing_of_islands():
    from scipy import ndimage

    verdict = nb06.exercise_6_3(lambda prediction, truth: ndimage.label(prediction)[1] - ndimage.label(truth)[1])
    assert "the number of tumours" in verdict.message


@pytest.mark.parametrize("rounded", [round, lambda scans: scans, np.ceil])
def test_scans_are_rounded_down(rounded):
    verdict = nb11.exercise_11_1(lambda hours, n_fa: max(rounded((60 * hours - 45 * n_fa) / 1.5), 0))
    assert not verdict.right and re.search("round(ed)? down", verdict.look)


# how an exercise judges

double = Exercise(
    right=lambda x: 2 * x,
    cases={"2": (2,), "-1": (-1,)},
    mistakes=(
        Mistake(lambda x: x, "{case} stays {found:g}.", "the factor."),
        Mistake(lambda x: 2 * abs(x), "{case} became {found:g}.", "the sign."),
        Mistake(lambda x: -2, "always {seen}.", "x.", when=lambda found, wanted, x: found == -2 and "-2"),
    ),
    praise="2 became 4.",
)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x + x, "2 became 4."),
        (lambda x: x, "2 stays 2."),
        (lambda x: abs(2 * x), "-1 became 2."),
        (lambda x: -2, "always -2."),
        (lambda x: 5, "2: you return 5.0, expected another answer."),
        (lambda x: [4, -1][x < 0], "-1: you return -1.0, expected another answer."),  # `x` had failed at 2
        (4, "The answer is 4, expected a function."),
        (lambda x: 1 / 0, "2: your answer stopped with ZeroDivisionError: division by zero."),
        (lambda x: [2, 2], "2: the answer has shape (2,), expected a number."),
        (lambda x: "four", "2: the answer is 'four', expected a number."),
        (lambda x: print(2 * x), "2: your function returns nothing (None)."),
    ],
)
def test_the_diagnosis_names_what_is_wrong(answer, message):
    assert double(answer).message == message


def test_a_verdict_is_shown_in_words():
    assert repr(double(lambda x: 2 * x)) == "Right. 2 became 4."
    assert repr(double(lambda x: x)) == "Not yet. 2 stays 2.\nLook at: the factor."


def test_a_check_never_raises():
    assert "cannot be checked" in Exercise(3, {}, (), praise="{missing}")(3).message


@pytest.mark.parametrize("given", [[1, 2], {0: 1}, np.array([1, 2]), [np.array([1]), torch.ones(2)]])
def test_an_answer_leaves_its_arguments_alone(given):
    two = Exercise(lambda x: 2, {"two": (given,)}, (), "right")
    assert two(lambda x: 2).right
    assert two(lambda x: x.__setitem__(0, 7) or 2).message == "two: your function changed its arguments."


def test_chance_comes_from_the_generator_that_is_handed_in():
    draw = Exercise(np.random.Generator.random, {"a draw": (np.random.default_rng(1),)}, (), "right", same=np.less)
    assert not draw(lambda rng: np.random.default_rng().random() - 1).right
    assert draw(lambda rng: rng.random() - 1).right
