"""Ways to do the same thing take turns, each in a process of its own, so that whatever else runs hits all alike."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context, get_start_method, set_start_method
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd

from mixsup_lib.files import MixsupError

THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Way:
    """One way. `make(**settings)` gives the function of one turn, which does `items` things; its result is kept."""

    name: str
    make: Callable[..., Callable[[], object]]
    settings: dict = field(default_factory=dict)
    threads: int = 1
    items: int = 1


@dataclass(frozen=True)
class Turns:
    """What was measured, a row per turn and a column per way.

    wall, cpu: seconds per item; cpu is that of the way's own process, all threads together. first: what each way's
    first turn returned, which is not timed. memory: per way `peak`, the most it ever held, and `own`, what it held at
    the end without pages of mapped files, in MB; empty where the system does not say, or without processes.
    """

    wall: pd.DataFrame
    cpu: pd.DataFrame
    first: dict[str, object]
    memory: dict[str, dict[str, float]]


def take_turns(ways: Sequence[Way], turns: int, *, apart: bool = True) -> Turns:
    """Let each way do a first turn, then `turns` timed ones, alternating. `apart=False`: all in this process.

    Raises MixsupError with the traceback of a way that fails.
    """
    wall, cpu, first, memory = [], [], {}, {}
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_in_a_process(way) if apart else _here(way)) for way in ways]
        for way, turn in zip(ways, started, strict=True):
            first[way.name] = turn("first")[2]
        for _ in range(turns):
            seconds = [turn("turn")[:2] for turn in started]
            wall.append([s[0] / way.items for s, way in zip(seconds, ways, strict=True)])
            cpu.append([s[1] / way.items for s, way in zip(seconds, ways, strict=True)])
        for way, turn in zip(ways, started, strict=True):
            memory[way.name] = turn("memory")[2]
    names = [way.name for way in ways]
    return Turns(pd.DataFrame(wall, columns=names), pd.DataFrame(cpu, columns=names), first, memory)


Turn = Callable[[str], tuple[float, float, object]]
"""Takes "first", "turn" or "memory"; gives seconds of wall clock, of CPU, and for the first and last a result."""


@contextlib.contextmanager
def _here(way: Way) -> Iterator[Turn]:
    once = way.make(**way.settings)
    yield lambda order: (0.0, 0.0, {}) if order == "memory" else _timed(once)


@contextlib.contextmanager
def _in_a_process(way: Way) -> Iterator[Turn]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, str(way.threads)))
    process = context.Process(target=_serve, args=(theirs, way, get_start_method()))
    try:
        process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    theirs.close()

    def turn(order: str) -> tuple[float, float, object]:
        try:
            ours.send(order)
            answer = ours.recv()
        except (EOFError, BrokenPipeError):
            raise MixsupError(f"{way.name}: its process ended early; is there enough memory?") from None
        if isinstance(answer, str):
            raise MixsupError(f"{way.name}: failed.\n{answer}")
        return answer

    try:
        yield turn
    finally:
        ours.close()
        process.join(timeout=20)
        if process.is_alive():
            process.kill()


def _serve(connection: Connection, way: Way, start_method: str) -> None:
    """In the way's process: make it, then do a turn each time the pipe says so, until it closes."""
    set_start_method(
        start_method, force=True
    )  # of processes that the way starts: the system's own, not spawn
    try:
        once = way.make(**way.settings)
        while True:
            try:
                order = connection.recv()
            except EOFError:
                return
            if order == "memory":
                connection.send((0.0, 0.0, _memory_mb()))
                continue
            wall, cpu, result = _timed(once)
            connection.send((wall, cpu, result if order == "first" else None))
    except Exception:
        with contextlib.suppress(OSError):
            connection.send(traceback.format_exc())


def _timed(once: Callable[[], object]) -> tuple[float, float, object]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = once()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def _memory_mb() -> dict[str, float]:
    """The peak of this process and what it holds now besides files, where /proc tells."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        names = {"peak": "VmHWM", "own": "RssAnon"}
        return {name: int(lines[key].split()[0]) / 2**10 for name, key in names.items()}
    except (OSError, KeyError, ValueError):
        return {}
