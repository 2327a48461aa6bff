"""Departures from the paper, collected from where they happen.

A docstring marks one with a line that starts with "Departure:"; the paragraph it opens is one sentence or two.
`python -m mixsup_lib.teaching.departures REPRODUCTION.md` brings the table in that file up to date; a test compares.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from mixsup_lib.files import DataError, write_text

MARK = "Departure:"
START, END = "<!-- departures:start -->", "<!-- departures:end -->"


def collect_departures(package: str | Path) -> list[tuple[str, str]]:
    """(place, sentence) for every mark in the package's Python files, in the order of files and lines.

    The place is "module.Class.function"; every docstring counts, that of a constant too.
    """
    package = Path(package)
    found = []
    for file in sorted(package.rglob("*.py")):
        module = ".".join(file.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        found += _walk(ast.parse(file.read_text(encoding="utf-8")), module)
    return found


def departures_table(package: str | Path) -> str:
    """The departures as a Markdown table."""
    rows = [
        f"| `{place}` | {sentence.replace('|', chr(92) + '|')} |"
        for place, sentence in collect_departures(package)
    ]
    return "\n".join(["| where | departure |", "|---|---|", *rows])


def update_table(document: str | Path, package: str | Path) -> None:
    """Replace what stands between the two markers in `document` by the current table.

    Raises DataError if the markers are missing.
    """
    text = Path(document).read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise DataError(
            f"{document}: the markers {START} and {END} are missing; put both where the table belongs."
        )
    write_text(document, f"{before}{START}\n{departures_table(package)}\n{END}{after}")


def _walk(node: ast.AST, place: str) -> list[tuple[str, str]]:
    found = []
    for child in ast.iter_child_nodes(node):
        inside = place
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = f"{place}.{child.name}"
        elif (
            isinstance(child, ast.Expr)
            and isinstance(child.value, ast.Constant)
            and isinstance(child.value.value, str)
        ):
            found += [(place, sentence) for sentence in _sentences(child.value.value)]
        found += _walk(child, inside)
    return found


def _sentences(docstring: str) -> list[str]:
    """The text behind every mark, up to the next mark or empty line, on one line."""
    sentences, open_ = [], False
    for line in docstring.splitlines():
        line = line.strip()
        if line.startswith(MARK):
            sentences.append(line.removeprefix(MARK).strip())
            open_ = True
        elif open_ and line:
            sentences[-1] += f" {line}"
        else:
            open_ = False
    return sentences


if __name__ == "__main__":
    update_table(sys.argv[1] if len(sys.argv) > 1 else "REPRODUCTION.md", Path(__file__).parent.parent)
