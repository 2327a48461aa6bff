"""Exercises: every stub is told what is still to do, every solution is right, typical mistakes get their diagnosis."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

from mixsup_lib.teaching.exercises.verdict import Verdict, as_array, call, check, expect

ROOT = Path(__file__).resolve().parent.parent
BOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
SOLUTIONS = ROOT / "notebooks" / "solutions"
CALL = re.compile(r"exercises\.(exercise_(\d+)_(\d+))\((\w+)\)")


class Exercise(NamedTuple):
    book: int
    number: int
    stub: str
    answer: str

    @property
    def name(self) -> str:
        return f"exercise_{self.book}_{self.number}"

    @property
    def solution(self) -> Path:
        return SOLUTIONS / f"ex_{self.book}_{self.number}.py"

    @property
    def check(self):
        return getattr(importlib.import_module(f"mixsup_lib.teaching.exercises.nb{self.book:02d}"), self.name)

    def judge(self, source: str) -> Verdict:
        """Run `source` by itself in the folder of the notebooks and check the answer that it defines."""
        names: dict = {}
        exec(compile(source, self.name, "exec"), names)
        return self.check(names[self.answer])


def exercises() -> list[Exercise]:
    found = []
    for path in BOOKS:
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        for stub, judged in zip(cells, cells[1:], strict=False):
            if "exercise" in stub.metadata.get("tags", []):
                match = CALL.search(judged.source)
                assert match, f"{path.name}: the cell after an exercise checks it"
                assert int(match[2]) == int(path.name[:2]), f"{path.name}: {match[1]}"
                found.append(Exercise(int(match[2]), int(match[3]), stub.source, match[4]))
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


@each
def test_a_solution_is_right(exercise):
    verdict = exercise.judge(exercise.solution.read_text(encoding="utf-8"))
    assert verdict.right and verdict.message, verdict


@each
def test_typical_wrong_answers_get_a_diagnosis_of_their_own(exercise):
    wrong = importlib.import_module(f"wrong_answers.notebook_{exercise.book:02d}").WRONG[exercise.name]
    verdicts = [exercise.check(answer) for answer, _ in wrong]
    for verdict, (_, phrase) in zip(verdicts, wrong, strict=True):
        assert not verdict.right and phrase in f"{verdict.message} {verdict.look}", verdict
    assert len({verdict.message for verdict in verdicts}) == len(wrong) >= 2


@each
def test_a_check_survives_any_answer(exercise):
    for answer in (None, "text", 3, [], {}, lambda: 1 / 0, object()):
        assert not exercise.check(answer).right


def test_every_check_and_every_solution_belongs_to_an_exercise():
    named = {exercise.name for exercise in FOUND}
    files = sorted((ROOT / "mixsup_lib" / "teaching" / "exercises").glob("nb*.py"))
    defined = {name for file in files for name in re.findall(r"^def (exercise_\w+)", file.read_text(), re.M)}
    assert defined == named
    assert {path.stem for path in SOLUTIONS.glob("*.py")} == {
        name.replace("exercise", "ex") for name in named
    }


def test_exercises_are_numbered_in_order():
    for book in {exercise.book for exercise in FOUND}:
        numbers = [exercise.number for exercise in FOUND if exercise.book == book]
        assert numbers == list(range(1, len(numbers) + 1))


# how a check judges


@check
def double(function):
    got = as_array(call(function, 2), ())
    expect(got != 2, "2 stays 2.", "the factor.")
    expect(got == 4, f"2 became {got:g}, expected 4.", "the arithmetic.")
    return "2 became 4."


def test_the_first_expectation_that_fails_is_the_diagnosis():
    assert double(lambda x: 2 * x) == Verdict(True, "2 became 4.")
    assert double(lambda x: x) == Verdict(False, "2 stays 2.", "the factor.")
    assert repr(double(lambda x: x)) == "Not yet. 2 stays 2.\nLook at: the factor."
    assert repr(double(lambda x: 2 * x)) == "Right. 2 became 4."


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (4, "The answer is 4, expected a function."),
        (lambda x: 1 / 0, "Called with (2), your function stopped with ZeroDivisionError"),
        (lambda x: [2, 2], "The answer has shape (2,), expected a number."),
        (lambda x: "four", "The answer is 'four', expected a number."),
        (lambda x: print(2 * x), "Your function returns nothing (None)."),
    ],
)
def test_an_answer_of_the_wrong_form_is_named(answer, words):
    verdict = double(answer)
    assert not verdict.right and words in verdict.message


def test_an_answer_of_none_is_no_number():
    @check
    def number(answer):
        return f"{as_array(answer, ()):g}"

    assert number(None).message == "Your answer is None, expected a number."


def test_a_check_never_raises():
    @check
    def broken(answer):
        return answer.nothing

    assert "cannot be checked (AttributeError" in broken(3).message
