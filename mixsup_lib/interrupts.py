"""Ctrl-C at a moment of one's own choosing: work that must not stop half-way asks for it between its steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_noted() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C (SIGINT) is noted, not raised; yields a function that tells whether one came.

    A second Ctrl-C is raised at once, as KeyboardInterrupt. Where SIGINT is ignored, or outside the main thread, which
    gets no signals, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted = threading.Event()

    def note(number: int, frame: object) -> None:
        if noted.is_set():
            raise KeyboardInterrupt
        noted.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield noted.is_set
    finally:
        signal.signal(signal.SIGINT, before)
