"""Documents: links lead to files and headings, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("README.md", "data/README.md", "*.md", "docs/*.md", "docs/experiments/*.md")
DOCUMENTS = sorted({path for name in NAMES for path in ROOT.glob(name)})
documents = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@documents
def test_links_lead_to_files_and_headings(path):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", path.read_text("utf-8")):
        found = path.parent / target if target else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@documents
def test_commands_exist(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    commands = "\n".join(re.findall(r"`[^`\n]+`|^    .+|^make .+", text, re.M))
    assert set(re.findall(r"(?:^ *|`)make ([a-z][\w-]*)", commands, re.M)) <= targets
    assert [name for name in re.findall(r"workflow/\w+\.py", text) if not (ROOT / name).exists()] == []
