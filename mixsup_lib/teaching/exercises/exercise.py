"""An exercise: the right answer, cases to try it on, and typical mistakes, each a wrong answer with its diagnosis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RETURN = "the sentence that says what to return."
"""Where to look if an answer has the wrong form."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """Whether an answer is right; what is right, or the first thing that is wrong; where to look (empty if right)."""

    right: bool
    message: str
    look: str = ""

    def __repr__(self) -> str:
        return f"Right. {self.message}" if self.right else f"Not yet. {self.message}\nLook at: {self.look}"


@dataclass(frozen=True)
class Mistake:
    """A wrong answer and its diagnosis.

    wrong: the answer, in the form of the right one. says: what is wrong, with {case}, {found}, {wanted} and {seen}
    filled in. look: where to look, without saying "look".
    when: `when(found, wanted, *arguments)` says whether an answer shows this mistake; what it returns is {seen}. It is
    asked even where the value is right, and gets the arguments as the answer left them. Without `when`, an answer
    shows the mistake where it gives what `wrong` gives.
    """

    wrong: Any
    says: str
    look: str
    when: Callable[..., Any] | None = None


def close(found: Any, wanted: Any, tolerance: float = 1e-4) -> bool:
    """Whether two arrays have one shape and the same numbers (NaN equals NaN), or two other values are equal."""
    if isinstance(found, np.ndarray):
        near = {"rtol": tolerance, "atol": tolerance / 1000, "equal_nan": True}
        return found.shape == np.shape(wanted) and np.allclose(found, wanted, **near)
    return isinstance(found, type(wanted)) and found == wanted


@dataclass(frozen=True)
class Exercise:
    """Called with a student's answer, it gives the Verdict; it never raises, so that an open exercise stops nothing.

    right: the right answer, mostly a function. cases: what to call it with, by name. mistakes: asked in this order.
    praise: what is said of a right answer, or a function of what the last case found. says, look: the diagnosis of
    every other wrong answer.
    attempt: `attempt(answer, *arguments)` gives what is compared, for the right, a wrong and a student's answer alike.
    Numbers, lists and tensors become arrays of float64; an exception is what was found where the answer stops with
    one. same: `same(found, wanted)` compares.
    """

    right: Any
    cases: Mapping[str, tuple]
    mistakes: Sequence[Mistake]
    praise: str | Callable[[Any], str]
    says: str = "{case}: you return {found}, expected another answer."
    look: str = RETURN
    attempt: Callable[..., Any] = lambda answer, *arguments: answer(*arguments)
    same: Callable[[Any, Any], bool] = close

    def __call__(self, answer: Any) -> Verdict:
        try:
            return self._judge(answer)
        except Exception as error:  # an answer can be anything
            words = f"The answer, {_brief(answer)}, cannot be checked ({type(error).__name__}: {error})."
            return Verdict(False, words, "what the exercise asks you to return, and in which form.")

    def _judge(self, answer: Any) -> Verdict:
        if callable(self.right) and not callable(answer):
            where = "the check's cell: it gets the function itself, without brackets."
            return Verdict(False, f"The answer is {_brief(answer)}, expected a function.", where)
        suspects, found = list(self.mistakes), None
        for case, arguments in self.cases.items():
            wanted, given = self._try(self.right, arguments), copy.deepcopy(arguments)
            try:
                found = _read(self.attempt(answer, *given))
            except Exception as error:  # the student's
                found = error
            right = not isinstance(found, Exception) and _asked(self.same, found, wanted)
            words = {"case": case, "found": _plain(found), "wanted": _plain(wanted)}
            for mistake in suspects:
                if mistake.when:
                    seen = _asked(mistake.when, found, wanted, *given)
                else:
                    seen = not right and self._leads_to(mistake, found, arguments)
                if said := seen and _asked(mistake.says.format, **words, seen=seen):
                    return Verdict(False, said, mistake.look)
            if not right:
                return _form(case, found, wanted) or Verdict(False, self.says.format(**words), self.look)
            # a mistake that this case would have shown is not the one that a later case shows
            suspects = [m for m in suspects if m.when or self._leads_to(m, wanted, arguments)]
        return Verdict(True, self.praise if isinstance(self.praise, str) else self.praise(found))

    def _try(self, answer: Any, arguments: tuple) -> Any:
        return _read(self.attempt(answer, *copy.deepcopy(arguments)))

    def _leads_to(self, mistake: Mistake, value: Any, arguments: tuple) -> bool:
        return _asked(lambda: self.same(value, self._try(mistake.wrong, arguments)))


def _asked(question: Callable[..., Any], *about: Any, **words: Any) -> Any:
    """The answer to a question, or False where it cannot be asked: what was found may have any form."""
    try:
        return question(*about, **words) or False
    except Exception:
        return False


def _form(case: str, found: Any, wanted: Any) -> Verdict | None:
    """The diagnosis of an answer that has not the form of the right one; None if it has."""
    if isinstance(found, Exception):
        words = f"{case}: your function stopped with {type(found).__name__}: {found}."
        return Verdict(
            False, words, "the line that the error names; call the function yourself with the same arguments."
        )
    if found is None:
        return Verdict(
            False, "Your function returns nothing (None).", "its last line: `return`, not `print`."
        )
    if isinstance(wanted, np.ndarray) and getattr(found, "shape", None) != wanted.shape:
        form = f"has shape {found.shape}" if isinstance(found, np.ndarray) else f"is {_brief(found)}"
        expected = f"an array of shape {wanted.shape}" if wanted.ndim else "a number"
        return Verdict(False, f"{case}: the answer {form}, expected {expected}.", RETURN)
    return None


def _read(value: Any) -> Any:
    """Numbers, lists and tensors as an array of float64; texts, dicts, True, False, None and the rest as they are."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if value is None or isinstance(value, str | dict):
        return value
    try:
        return np.asarray(value.detach() if hasattr(value, "detach") else value, dtype=np.float64)
    except (TypeError, ValueError):
        return value


def _plain(value: Any) -> Any:
    """Arrays as the lists and numbers of a sentence."""
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value] if value.ndim else value.item()
    return int(value) if isinstance(value, np.float64) and value.is_integer() else value


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
