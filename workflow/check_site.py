"""Check a built site: every link leads somewhere, and no page loads anything from the network.

python workflow/check_site.py FOLDER
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("video", "src"),
    ("audio", "src"),
    ("object", "data"),
    ("embed", "src"),
    ("form", "action"),
}
"""What a browser fetches (or sends) by itself; `a href` waits for the reader."""
IN_STYLE = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)|@import\s+["']([^"']+)["']""")


class _Page(HTMLParser):
    """Anchors, links and loads of one page."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attributes:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif tag == "a" and name == "href":
                self.links.append(value)
            elif (tag, name) in LOADS:
                self.loads.append(value)
            elif name == "style":
                self.loads += in_style(value)
            elif name == "srcset":
                self.loads += [part.split()[0] for part in value.split(",") if part.strip()]

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.loads += in_style(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def in_style(text: str) -> list[str]:
    """What a style sheet loads."""
    return [first or second for first, second in IN_STYLE.findall(text)]


def check(folder: Path) -> tuple[list[str], str]:
    """Faults, one line each, and a line that says how much was looked at."""
    found: dict[Path, _Page] = {}
    for path in sorted(folder.rglob("*.html")):
        found[path] = _Page()
        found[path].feed(path.read_text(encoding="utf-8"))
    faults, outside, inside = [], set(), 0
    for path, page in found.items():
        name = path.relative_to(folder)
        for load in page.loads:
            faults += [f"{name}: {problem}" for problem in _load_fault(path, load, folder)]
        for link in page.links:
            if urlsplit(link).scheme or link.startswith("//"):
                outside.add(link)
                continue
            inside += 1
            faults += [f"{name}: {problem}" for problem in _link_fault(path, link, found)]
    for path in sorted(folder.rglob("*.css")):
        for load in in_style(path.read_text(encoding="utf-8")):
            faults += [
                f"{path.relative_to(folder)}: {problem}" for problem in _load_fault(path, load, folder)
            ]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    summary = f"{len(found)} pages, {size:.1f} MB; {inside} links inside, {len(outside)} addresses outside; "
    return faults, summary + (f"{len(faults)} faults." if faults else "no fault.")


def _load_fault(path: Path, load: str, folder: Path) -> list[str]:
    parts = urlsplit(load)
    if parts.scheme == "data" or not load.strip() or load.startswith("#"):
        return []
    if parts.scheme or load.startswith("//"):
        return [f"loads {load[:80]} from the network"]
    target = (path.parent / unquote(parts.path)).resolve()
    if load.startswith("/") or not target.is_relative_to(folder.resolve()):
        return [f"loads {load[:80]}, which lies outside the site"]
    return [] if target.exists() else [f"loads {load[:80]}, which is not there"]


def _link_fault(path: Path, link: str, found: dict[Path, _Page]) -> list[str]:
    parts = urlsplit(link)
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    known = {page.resolve(): content for page, content in found.items()}
    if not target.exists():
        return [f"the link {link} leads nowhere"]
    anchor = unquote(parts.fragment)
    if anchor and target.resolve() in known and anchor not in known[target.resolve()].anchors:
        return [f"the link {link} leads to a page without that place"]
    return []


if __name__ == "__main__":
    all_faults, words = check(Path(sys.argv[1]))
    print("\n".join([*all_faults, words]))
    sys.exit(1 if all_faults else 0)
