"""Put a generated table between its markers in REPRODUCTION.md or another document."""

from __future__ import annotations

from pathlib import Path

from mixsup_lib.files import write_text

DOCUMENT = Path("REPRODUCTION.md")


def record(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace what stands between `<!-- results:NAME -->` and its end marker."""
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{document}: the markers {start} and {end} are missing; put them back.")
    write_text(document, f"{before}{start}\n\n{text}\n\n{end}{after}")
