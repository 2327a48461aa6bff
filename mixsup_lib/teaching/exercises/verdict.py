"""How a check judges: a chain of expectations, the first that fails is the diagnosis."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

RETURN = "the sentence that says what to return."
"""Where to look if an answer has the wrong form."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found.

    right: whether the answer is right. message: what is right, or the first thing that is wrong. look: where to look
    (empty if the answer is right).
    """

    right: bool
    message: str
    look: str = ""

    def __repr__(self) -> str:
        return f"Right. {self.message}" if self.right else f"Not yet. {self.message}\nLook at: {self.look}"


class Diagnosis(Exception):
    """An expectation that the answer does not meet."""

    def __init__(self, message: str, look: str) -> None:
        super().__init__(message)
        self.message, self.look = message, look


def check(judge: Callable[[Any], str]) -> Callable[[Any], Verdict]:
    """Turn `judge` into a check: it raises Diagnosis by way of `expect`, or returns what is right about the answer.

    A check never raises, so that a notebook whose exercises are still open runs from top to bottom.
    """

    @functools.wraps(judge)
    def wrapper(answer: Any) -> Verdict:
        try:
            return Verdict(True, judge(answer))
        except Diagnosis as found:
            return Verdict(False, found.message, found.look)
        except Exception as error:  # an answer can be anything
            words = f"The answer, {_brief(answer)}, cannot be checked ({type(error).__name__}: {error})."
            return Verdict(False, words, "what the exercise asks you to return, and in which form.")

    return wrapper


def expect(condition: object, message: str, look: str) -> None:
    """Raise Diagnosis unless `condition` holds. message: what is wrong; look: where to look, without saying "look"."""
    if not condition:
        raise Diagnosis(message, look)


def as_array(answer: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The answer (number, list, tensor) as a float64 array of `shape`, or a Diagnosis that names both shapes."""
    expect(answer is not None, f"Your answer is None, expected {_words(shape)}.", RETURN)
    try:
        found = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError):
        found = None
    expect(found is not None, f"The answer is {_brief(answer)}, expected {_words(shape)}.", RETURN)
    expect(found.shape == shape, f"The answer has shape {found.shape}, expected {_words(shape)}.", RETURN)
    return found


def call(function: Any, *arguments: Any, or_none: bool = False) -> Any:
    """What the student's `function` returns, or a Diagnosis that says how it failed.

    or_none: None is let through, where nothing has to be returned or the check has more to say about it.
    """
    expect(
        callable(function),
        f"The answer is {_brief(function)}, expected a function.",
        "the check's cell: it gets the function itself, without brackets.",
    )
    try:
        found = function(*arguments)
    except Diagnosis:  # from a function that the check handed in
        raise
    except Exception as error:
        shown = ", ".join(_brief(argument) for argument in arguments)
        raise Diagnosis(
            f"Called with ({shown}), your function stopped with {type(error).__name__}: {error}.",
            "the line that the error names; call the function yourself with the same arguments.",
        ) from error
    expect(
        found is not None or or_none,
        "Your function returns nothing (None).",
        "its last line: `return`, not `print`.",
    )
    return found


def _words(shape: tuple[int, ...]) -> str:
    return f"an array of shape {shape}" if shape else "a number"


def _brief(value: Any) -> str:
    if hasattr(value, "shape") and len(value.shape):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
