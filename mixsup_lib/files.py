"""Errors of one sentence, files that are written whole or not at all, locks, and worker processes."""

from __future__ import annotations

import difflib
import errno
import json
import multiprocessing
import os
import re
import shutil
import sys
import threading
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path


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


def composed(name: str) -> str:
    """A name with every accented letter as one character (Unicode's NFC); macOS writes file names with two."""
    return unicodedata.normalize("NFC", name)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as " Did you mean 'fold'?" for a mistyped `name`, or "" when nothing known is close."""
    close = difflib.get_close_matches(str(name), [str(item) for item in known], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


@contextmanager
def atomic_path(path: str | Path, needs: int | None = None, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed to disk and renamed to `path`.

    Without `flush` a file can be damaged by a power failure soon after, though not by a killed process: only for what
    is compared with a checksum when it is read, and can be made again.

    The temporary name keeps the suffixes of `path` (nibabel chooses the format by them). On an error the temporary file
    is removed and `path` keeps what it held before. Raises DiskFullError where there is no room for the file; `needs`:
    its size in bytes, where that is known.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if flush:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)  # so that its room counts as free
        if (full := disk_full(error, path, needs)) is None:
            raise
        raise full from None
    finally:
        temporary.unlink(missing_ok=True)


def disk_full(error: OSError, path: str | Path, needs: int | None = None) -> DiskFullError | None:
    """The sentence about a full disk that has no room for `path`, or None where `error` is something else."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    folder = next((place for place in Path(path).absolute().parents if place.is_dir()), Path("/"))
    room = shutil.disk_usage(folder).free
    why = "its disk is full" if error.errno == errno.ENOSPC else "the quota of its disk is used up"
    wanted = "more" if needs is None else f"{needs / 1e6:.2f} MB"
    return DiskFullError(
        f"{path}: cannot be written, {why}: there is room for {room / 1e6:.2f} MB, and it needs {wanted}. Make room "
        "and start the same command again; what was finished is kept."
    )


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write `content`, atomically."""
    with atomic_path(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as indented JSON with a final newline, atomically. Keys keep their order."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files that a killed process left in `folder`. Hold the folder's lock while calling it."""
    for file in Path(folder).glob(".*"):
        if is_leftover(file):
            file.unlink(missing_ok=True)


def is_leftover(file: Path) -> bool:
    """Is this the name of a temporary file of `atomic_path`?"""
    return re.fullmatch(r"\.[0-9a-f]{8}\..+", file.name) is not None


@contextmanager
def locked(lock: str | Path, what: str | Path) -> Iterator[None]:
    """Hold the lock file `lock`; where another process holds it, say that `what` is being worked on, and wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{what}: another process works on it; this one waits for it.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_json(path: str | Path) -> object:
    """The content of a JSON file. Raises OSError, and ValueError for any fault of the content."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_yaml(text: str) -> object:
    """The content of a YAML text. Raises ValueError, in one line, for any fault."""
    import yaml

    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())[-200:]) from None


def usable_cores() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_pool(
    workers: int, writes: str | Path, start_method: str | None = None
) -> Iterator[Callable[[Callable, Iterable], Iterable]]:
    """Yield a `map` that works in so many processes, which write `writes`; for one worker it is Python's own.

    After an error what has not begun is cancelled, and what has begun still ends. Raises DataError where one of the
    processes ended early.
    """
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context(start_method)
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        try:
            yield pool.map
        except BrokenProcessPool as error:
            raise DataError(
                f"{writes}: a process that writes it ended early: too little memory, or a script without "
                "'if __name__ == \"__main__\":'; call again with workers=1."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end when its parent is killed. Otherwise it waits for work for ever, with the parent's locks."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
