"""Reads the claim ledger out of REPRODUCTION.md."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("id", "section", "claim", "our value", "test or command", "status")


@dataclass(frozen=True)
class Row:
    """One claim of the paper. `check` names tests, a command, or says why there is neither."""

    id: str
    section: str
    claim: str
    ours: str
    check: str
    status: str

    @property
    def tests(self) -> list[str]:
        """The tests the row names, as "tests/test_x.py::test_y"."""
        return re.findall(r"tests/\w+\.py::test_\w+", self.check)

    @property
    def commands(self) -> list[str]:
        """The commands the row names."""
        return re.findall(r"`((?:make|papermill|python) [^`]+)`", self.check)

    @property
    def reason(self) -> str:
        """Why there is neither test nor command; "" if the row does not say."""
        return self.check.partition("reason:")[2].strip()


def read_ledger(text: str | None = None) -> list[Row]:
    """All rows of all ledger tables, in order; of REPRODUCTION.md unless `text` is given."""
    if text is None:
        text = (ROOT / "REPRODUCTION.md").read_text(encoding="utf-8")
    rows = []
    for line in text.splitlines():
        if re.match(r"\| (C|F|T)[\d.]*-\d+ \|", line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if len(cells) != len(COLUMNS):
                raise ValueError(
                    f"ledger row {cells[0]} has {len(cells)} cells, expected {len(COLUMNS)}: {line}"
                )
            rows.append(Row(*cells))
    return rows


@cache
def defined_tests(file: str) -> frozenset[str]:
    """Names of the test functions a test file defines; empty if there is no such file."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(
        node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def faults(row: Row) -> list[str]:
    """What is wrong with a row: a test that does not exist, or neither test, command nor reason."""
    found = []
    for test in row.tests:
        file, name = test.split("::")
        if name not in defined_tests(file):
            found.append(f"{row.id}: there is no {test}")
    if not row.tests and not row.commands and len(row.reason) < 20:
        found.append(f"{row.id}: neither a test, nor a command, nor a reason")
    if row.status.startswith("tested") and not row.tests:
        found.append(f"{row.id}: its status is {row.status!r}, but it names no test")
    if not re.match(r"(tested|measured|open|not repeated|paper only)\b", row.status):
        found.append(f"{row.id}: unknown status {row.status!r}")
    return found
