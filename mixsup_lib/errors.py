"""The two kinds of error a user can meet, each carrying one clear sentence.

Everything the command line raises on purpose is one of these; it prints the sentence and exits with the class's code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MixsupError(Exception):
    """Base of the library's own errors."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class DataError(MixsupError):
    """The data or a result is at fault (exit code 1)."""


class DiskFullError(DataError):
    """There is no room for a file (exit code 1)."""


class SettingError(MixsupError):
    """The call is at fault: an unknown, mistyped or impossible setting (exit code 2)."""

    exit_code = 2


def printable(text: str) -> str:
    """`text` with every character escaped that a terminal might act on; a message may quote a hostile file."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shown(value: object, longest: int = 80) -> str:
    """`value` as a sentence quotes it: one line, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as " Did you mean 'fold'?" for a mistyped `name`, or "" when nothing known is close."""
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
