"""Work in a fork of this process, killed at a chosen moment or left to end."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import IO


def in_fork(
    work: Callable[[], None], delay: float | None = None, limit: float = 600.0, group: bool = False
) -> bool:
    """Do `work` in a fork of this process; True if it was killed (SIGKILL) after `delay` seconds, False if it ended.

    SystemExit with what it printed if it failed, and where it has not ended after `limit` seconds.
    """
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            _work_and_leave(work, said.fileno())
        started = time.monotonic()
        while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
            passed = time.monotonic() - started
            if passed >= (limit if delay is None else delay):
                os.killpg(child, signal.SIGKILL) if group else os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                if delay is None:
                    raise SystemExit(f"still not done after {limit:.0f} s; it printed: {_text(said)}")
                return True
            time.sleep(0.0005)
        if ended[1]:
            raise SystemExit(f"a start failed: {_text(said)}")
    return False


def _work_and_leave(work: Callable[[], None], output: int) -> None:
    os.setpgid(0, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(output, "w", closefd=False)
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()
