"""An exercise: the right answer, cases to try it on, and typical mistakes, each a wrong answer with its diagnosis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RETURN = "the sentence that says what to return."
HANDED = "the check's cell: it gets the function itself without brackets, or the value that the exercise names."
IN_PLACE = "what works in place, such as `+=`, `|=` or `x[...] = 0`: make a copy and change that."
CHANCE = "a generator of your own: only the one that you are given may decide, or no run can be repeated."
STOPPED = "the line that the error names; call the function yourself with the same arguments."


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
    filled in. look: where to look, without saying "look"; by default where the exercise says.
    when: `when(found, wanted, *arguments)` says whether a wrong value shows this mistake; what it returns is {seen}.
    Without `when`, a value shows the mistake where it is what `wrong` gives.
    """

    wrong: Any
    says: str
    look: str = ""
    when: Callable[..., Any] | None = None


def close(found: Any, wanted: Any, tolerance: float = 1e-4) -> bool:
    """Whether two arrays have one shape and the same numbers (NaN equals NaN), or two other values are equal."""
    if isinstance(found, np.ndarray):
        near = {"rtol": tolerance, "atol": tolerance / 1000, "equal_nan": True}
        return found.shape == np.shape(wanted) and np.allclose(found, wanted, **near)
    return isinstance(found, type(wanted)) and found == wanted


def cases(name: str, *arguments: tuple) -> dict[str, tuple]:
    """Cases with the arguments in their names."""
    return {name.format(*each): each for each in arguments}


@dataclass(frozen=True)
class Exercise:
    """Called with a student's answer, it gives the Verdict; it never raises, so that an open exercise stops nothing.

    right: the right answer, mostly a function. cases: what to call it with, by name. mistakes: asked in this order.
    praise: what is said of a right answer, with {found} of the last case filled in. says, look: the diagnosis of every
    other wrong answer. An answer that changes its arguments is wrong, and so is one that cannot be repeated.
    attempt: `attempt(answer, *arguments)` gives what is compared, for the right, a wrong and a student's answer alike.
    Numbers, lists and tensors become arrays of float64; an exception is what was found where the answer stops with
    one. same: `same(found, wanted)` compares.
    """

    right: Any
    cases: Mapping[str, tuple]
    mistakes: Sequence[Mistake]
    praise: str
    says: str = "{case}: you return {found}, expected another answer."
    look: str = RETURN
    attempt: Callable[..., Any] = lambda answer, *arguments: answer(*arguments)
    same: Callable[[Any, Any], bool] = close

    def __call__(self, answer: Any) -> Verdict:
        try:
            return self._judge(answer)
        except Exception as error:  # an answer can be anything
            words = f"The answer, {answer!r:.60}, cannot be checked ({type(error).__name__}: {error})."
            return Verdict(False, words, "what the exercise asks you to return, and in which form.")

    def _judge(self, answer: Any) -> Verdict:
        kind = "function" if callable(self.right) else type(self.right).__name__
        if not (callable(answer) if kind == "function" else isinstance(answer, type(self.right))):
            return Verdict(False, f"The answer is {answer!r:.60}, expected a {kind}.", HANDED)
        suspects, found = list(self.mistakes), None
        for case, arguments in self.cases.items():
            wanted, given = self._try(self.right, arguments), copy.deepcopy(arguments)
            try:
                found = _read(self.attempt(answer, *given))
            except Exception as error:  # the student's
                found = error
            if isinstance(found, Exception) or not _asked(self.same, found, wanted):
                return self._diagnosis(suspects, case, found, wanted, arguments)
            if _asked(_changed, given, arguments):
                return Verdict(False, f"{case}: your function changed its arguments.", IN_PLACE)
            if _asked(_changed, self._try(answer, arguments), found):
                return Verdict(False, f"{case}: called again, your function gives another answer.", CHANCE)
            # a mistake that this case would have shown is not the one that a later case shows
            suspects = [m for m in suspects if m.when or self._leads_to(m, wanted, arguments)]
        return Verdict(True, self.praise.format(found=_plain(found)))

    def _diagnosis(self, suspects: list, case: str, found: Any, wanted: Any, arguments: tuple) -> Verdict:
        words = {"case": case, "found": _plain(found), "wanted": _plain(wanted)}
        for mistake in suspects:
            if mistake.when:
                seen = _asked(mistake.when, found, wanted, *arguments)
            else:
                seen = self._leads_to(mistake, found, arguments)
            if said := seen and _asked(mistake.says.format, **words, seen=seen):
                return Verdict(False, said, mistake.look or self.look)
        return _form(case, found, wanted) or Verdict(False, self.says.format(**words), self.look)

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
        return Verdict(False, f"{case}: your answer stopped with {type(found).__name__}: {found}.", STOPPED)
    if found is None:
        words = f"{case}: your function returns nothing (None)."
        return Verdict(False, words, "its last line: `return`, not `print`.")
    if isinstance(wanted, np.ndarray) and getattr(found, "shape", None) != wanted.shape:
        form = f"has shape {found.shape}" if isinstance(found, np.ndarray) else f"is {found!r:.60}"
        expected = f"an array of shape {wanted.shape}" if wanted.ndim else "a number"
        return Verdict(False, f"{case}: the answer {form}, expected {expected}.", RETURN)
    return None


def _changed(now: Any, before: Any) -> bool:
    """Whether numbers or texts differ, however nested; a generator, for instance, may move on."""
    if isinstance(before, dict):
        return set(now) != set(before) or any(_changed(now[key], before[key]) for key in before)
    if isinstance(before, list | tuple):
        return len(now) != len(before) or any(map(_changed, now, before))
    now, before = _read(now), _read(before)
    return isinstance(before, np.ndarray | str) and not close(now, before, 0)


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
    if isinstance(value, np.float64):
        return int(value) if value.is_integer() else float(f"{value:.6g}")
    return value
