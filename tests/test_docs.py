"""The guides: links lead to files, minutes add up, the glossary is in order and about words that are in use."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDES = [
    ROOT / "docs" / f"{name}.md"
    for name in ("instructor-guide", "participant-guide", "glossary", "grid", "reliability", "performance")
]
INSTRUCTOR, PARTICIPANT, GLOSSARY, *_ = GUIDES
TABLE = re.compile(r"^\| from \| minutes \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.M)
TERM = re.compile(r"^\*\*(.+?)\*\* \((\d\d(?:, \d\d)*)\)\. ", re.M)
guides = pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@guides
def test_links_lead_to_files_and_headings(guide):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", guide.read_text("utf-8")):
        path = guide.parent / target if target else guide
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@guides
def test_commands_exist(guide):
    text = guide.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    commands = "\n".join(re.findall(r"`[^`\n]+`|^    .+", text, re.M))
    assert set(re.findall(r"(?:^ *|`)make ([a-z][\w-]*)", commands, re.M)) <= targets
    assert [name for name in re.findall(r"workflow/\w+\.py", text) if not (ROOT / name).exists()] == []


@guides
def test_lines_of_prose_are_short(guide):
    lines = guide.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith(("|", "    "))] == []


def plans() -> list[tuple[list[list[str]], int]]:
    """The timetables: rows of cells (from, minutes, what, how), and the total below them."""
    found = []
    for body in TABLE.findall(INSTRUCTOR.read_text(encoding="utf-8")):
        rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in body.splitlines()]
        *rows, last = [row for row in rows if any(row)]
        found.append((rows, int(next(cell for cell in last if cell.isdigit()))))
    return found


def minute(clock: str) -> int:
    hours, minutes = clock.split(":")
    return 60 * int(hours) + int(minutes)


def test_half_a_day_and_two_days_are_planned():
    assert [total for _, total in plans()] == [240, 480, 480]


@pytest.mark.parametrize("number", range(3))
def test_minutes_of_a_plan_add_up_and_follow_the_clock(number):
    rows, total = plans()[number]
    clock = minute(rows[0][0])
    for row in rows:
        assert minute(row[0]) == clock, row
        clock += int(row[1])
    assert clock - minute(rows[0][0]) == total


def test_the_two_days_cover_every_notebook_and_people_get_breaks():
    days = plans()[1:]
    text = str(days)
    assert [path.stem for path in ROOT.glob("notebooks/[0-9]*.ipynb") if f"{path.name})" not in text] == []
    for rows, _ in plans():
        since = 0
        for row in rows:
            since = 0 if row[2] in ("Break", "Lunch") else since + int(row[1])
            assert since <= 125, row


def test_the_instructor_guide_speaks_of_every_notebook():
    headings = anchors(INSTRUCTOR)
    for path in ROOT.glob("notebooks/[0-9]*.ipynb"):
        assert any(heading.startswith(path.name[:2]) for heading in headings), path.name


def test_the_times_and_exercises_of_the_notebooks_are_those_of_their_headers():
    text = INSTRUCTOR.read_text(encoding="utf-8")
    stated = {
        name: (minutes, n)
        for name, minutes, n in re.findall(r"^\| (\d\d_\w+) \| (\d+) \| (\d) \|$", text, re.M)
    }
    for path in ROOT.glob("notebooks/[0-9]*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        minutes = re.search(r"\| Time \| (\d+) minutes", "".join(cells[0]["source"]))[1]
        exercises = sum("exercise" in cell["metadata"].get("tags", []) for cell in cells)
        assert stated[path.stem] == (minutes, str(exercises)), path.stem


def terms() -> dict[str, list[str]]:
    """Word -> numbers of the notebooks that explain it."""
    return {word: books.split(", ") for word, books in TERM.findall(GLOSSARY.read_text(encoding="utf-8"))}


def test_the_glossary_is_sorted_and_has_no_word_twice():
    words = [word for word, _ in TERM.findall(GLOSSARY.read_text(encoding="utf-8"))]
    assert words == sorted(words, key=str.casefold) and len(set(words)) == len(words) > 50
    assert len(words) == len(re.findall(r"^\*\*", GLOSSARY.read_text(encoding="utf-8"), re.M))


def test_words_in_italics_have_an_entry():
    text = GLOSSARY.read_text(encoding="utf-8")
    text = re.sub(r"\*\*.+?\*\*|\$[^$]+\$", "", text[text.index("\n**") :])
    known = {word.casefold() for word in terms()}
    for found in re.findall(r"\*([^*]+)\*", text):
        word = " ".join(found.casefold().split())
        assert {word, word.removesuffix("s"), word.removesuffix("es")} & known, found


def prose(book: Path) -> str:
    """Text and code of a notebook, without outputs."""
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    return " ".join("".join(cell["source"]) for cell in cells).casefold()


@pytest.mark.parametrize("word", terms())
def test_a_word_of_the_glossary_is_used_where_the_glossary_says(word):
    for number in terms()[word]:
        books = list(ROOT.glob(f"notebooks/{number}_*.ipynb"))
        if not books:
            pytest.skip(f"notebook {number} is not written yet")
        stems = [part[:6] for part in re.findall(r"[\w-]+", word.casefold())]  # normalisation: normalise
        text = prose(books[0])
        assert [stem for stem in stems if not re.search(rf"\b{re.escape(stem)}", text)] == [], books[0].name
