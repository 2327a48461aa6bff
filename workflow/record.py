"""Put a generated table between its markers in REPRODUCTION.md."""

from __future__ import annotations

from pathlib import Path

from mixsup_lib.files import write_text

DOCUMENT = Path("REPRODUCTION.md")


def record(name: str, text: str) -> None:
    """Replace what stands between `<!-- results:NAME -->` and its end marker."""
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    before, found, rest = DOCUMENT.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{DOCUMENT}: the markers {start} and {end} are missing; put them back.")
    write_text(DOCUMENT, f"{before}{start}\n\n{text}\n\n{end}{after}")
