"""A guard for child processes: whatever reaches for the network is written down and refused.

Python's audit events see every connection that Python code makes; kernels talk to papermill over loopback and files.
"""

from __future__ import annotations

import os
from pathlib import Path

GUARD = """
import sys

def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""
        outside = isinstance(address, tuple) and host not in ("127.0.0.1", "::1", "localhost")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = host = arguments[0]
        outside = host not in (None, "", "127.0.0.1", "::1", "localhost", b"localhost")
    else:
        return
    if outside:
        with open({attempts!r}, "a") as file:
            file.write(f"{{sys.argv}} {{event}} {{address}}\\n")
        raise OSError(f"no network: {{event}} {{address}}")

sys.addaudithook(guard)
"""


def guarded(folder: Path) -> dict[str, str]:
    """The environment of a guarded process; what it tried is in `folder`/attempts.txt, if anything."""
    (folder / "guard").mkdir(parents=True, exist_ok=True)
    (folder / "guard" / "sitecustomize.py").write_text(GUARD.format(attempts=str(folder / "attempts.txt")))
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "guard"), *([known] if known else [])])}
