"""Atomic writes, checksums beside what was written, and reading of JSON and YAML whose every fault is one exception."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mixsup_lib.errors import DataError

SUMS = "SHA256SUMS"
"""Checksums of a folder's files, as `sha256sum -c` reads them."""


DEEPEST = 50
"""So deep may a YAML text nest; the time its parser takes grows with the square."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is flushed to disk and renamed to `path`.

    The temporary name keeps the suffixes of `path` (nibabel and numpy choose the format by them). On an error the
    temporary file is removed and `path` keeps what it held before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as indented JSON with a final newline, atomically. Keys keep their order."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> object:
    """The content of a JSON file. Raises OSError, and ValueError for any fault of the content."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_yaml(text: str) -> object:
    """The content of a YAML text. Raises ValueError, in one line, for any fault.

    Aliases are refused: a few lines of them can stand for gigabytes.
    """
    import yaml

    depth = 0
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError("nested too deeply")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(
                    f"line {event.start_mark.line + 1} has an alias, *{event.anchor}: write it out"
                )
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[-200:]) from None
    except OverflowError as error:
        raise ValueError(str(error)) from None


def write_sums(folder: str | Path, names: Iterable[str]) -> None:
    """Write `SHA256SUMS` over the named files of `folder`."""
    write_text(
        Path(folder, SUMS), "".join(f"{_sha256(Path(folder, name))}  {name}\n" for name in sorted(names))
    )


def check_sums(folder: str | Path, *names: str) -> None:
    """Raise `DataError` where one of the named files is not what `SHA256SUMS` says.

    A folder without that file, written before there was one, is not checked, and a file that is missing is left to
    whoever reads it.
    """
    path = Path(folder, SUMS)
    if not path.exists():
        return
    try:
        lines = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
        recorded = {name: digest for digest, name in lines}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as checksums ({error}); run again.") from None
    for file in (Path(folder, name) for name in names):
        if file.exists() and recorded.get(file.name) != _sha256(file):
            raise DataError(
                f"{file}: is not what the run wrote, by its checksum in {SUMS}; restore the file, or delete the "
                "folder and run again."
            )


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
