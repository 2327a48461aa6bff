"""Write docs/claims.md: what the paper says, what this code does about it, and the test that shows it.

    python tests/claims.py

A row is a marker on a test, `@pytest.mark.claim("C3.1-07", "the claim", ours="our value")`; further tests of the same
row carry its id alone. docs/claims.yaml has the sections and the rows that no test can show. Departures are the
paragraphs of docstrings that begin with "Departure:".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "claims.md"
DATA = yaml.safe_load(PAGE.with_suffix(".yaml").read_text(encoding="utf-8"))
COLUMNS = ("id", "the paper", "here", "shown by")


@dataclass
class Row:
    """One claim of the paper; `tests` or `check` says how it is shown."""

    id: str
    claim: str = ""
    ours: str = ""
    check: str = ""
    tests: list[str] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, int]:
        """Section and number within it."""
        section, _, number = self.id.rpartition("-")
        return section, int(number)


def read_rows(tests: Path = ROOT / "tests") -> list[Row]:
    """All rows, by section and number. Raises ValueError where a row has no text, or two."""
    rows = {entry["id"]: Row(**entry) for entry in DATA["rows"]}
    for file in sorted(tests.glob("test_*.py")):
        for test, id, *text in markers(ast.parse(file.read_text(encoding="utf-8"))):
            row = rows.setdefault(id, Row(id))
            row.tests.append(f"`{file.name}::{test}`")
            if text and row.claim:
                raise ValueError(f"{id}: the text at {file.name}::{test} is its second")
            if text:
                row.claim, row.ours = text
    for row in rows.values():
        if not row.claim:
            raise ValueError(f"{row.id}: none of {', '.join(row.tests)} has its text")
    return sorted(rows.values(), key=lambda row: row.place)


def markers(module: ast.Module) -> Iterator[tuple[str, ...]]:
    """(test, id) or (test, id, claim, ours) of every claim marker."""
    for node in ast.walk(module):
        for call in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.claim":
                yield (node.name, *(ast.literal_eval(a) for a in [*call.args, *(k.value for k in call.keywords)]))


def departures(node: ast.AST, place: str) -> Iterator[tuple[str, str]]:
    """(place, sentence) of every docstring, that of a constant too; the place is "module.Class.function"."""
    for child in ast.iter_child_nodes(node):
        named = isinstance(child, ast.ClassDef | ast.FunctionDef)
        text = child.value.value if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) else ""
        for paragraph in re.split(r"\n\s*\n|\n(?=\s*Departure:)", text if isinstance(text, str) else ""):
            if paragraph.strip().startswith("Departure:"):
                yield place, " ".join(paragraph.split()[1:])
        yield from departures(child, f"{place}.{child.name}" if named else place)


def departures_table(package: Path = ROOT / "mixsup_lib") -> str:
    """The departures of the package as a Markdown table, in the order of files and lines."""
    found = []
    for file in sorted(package.rglob("*.py")):
        module = ".".join(file.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [(f"`{place}`", sentence) for place, sentence in departures(tree, module)]
    return table(("where", "departure"), found)


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table whose cells may hold bars."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def make_page() -> str:
    """The text of docs/claims.md."""
    parts = [DATA["introduction"]]
    for section, (title, text) in DATA["sections"].items():
        rows = [row for row in read_rows() if row.place[0] == section]
        cells = [(row.id, row.claim, row.ours, ", ".join(row.tests) or row.check) for row in rows]
        parts += [f"## {title}", text, table(COLUMNS, cells)]
    parts += ["## Departures", DATA["departures"], departures_table()]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
