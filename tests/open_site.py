"""Open every page of a site from disk in a browser that is offline: python tests/open_site.py FOLDER CHROMIUM [SHOTS]

A process of its own, because Playwright's loop and pytest's plugins do not always get along.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright


def main(site: Path, chromium: str, shots: Path | None = None) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium or None, args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1400, "height": 1000})
        page = context.new_page()
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
        page.on(
            "console",
            lambda message: (
                complaints.append(f"{page.url}: {message.text}") if message.type == "error" else None
            ),
        )
        for path in sorted(site.rglob("*.html")):
            page.goto(path.as_uri())
            if page.locator(".math").count():
                page.wait_for_selector("mjx-container svg", state="attached", timeout=60_000)
                broken = page.locator("mjx-merror, [data-mjx-error]").count()
                assert broken == 0, f"{path}: {broken} formulas cannot be drawn"
            if shots:
                page.screenshot(path=shots / f"{path.stem}.png", full_page=True)
        page.goto((site / "index.html").as_uri())
        page.get_by_placeholder("Search").first.fill("phantom")
        page.keyboard.press("Enter")
        page.get_by_text("Search finished").wait_for(timeout=60_000)
        results = page.locator("#search-results li a")
        print(results.count(), "pages found;", len(asked), "files asked for")
        assert results.count() > 2
        found = results.first.get_attribute("href").split("?")[0].split("#")[0]
        results.first.click()
        page.wait_for_url(lambda url: url.split("?")[0].split("#")[0].endswith(found))
        page.locator("h1").first.wait_for()
        outside = sorted({url for url in asked if not url.startswith(("file:", "data:"))})
        assert not outside, f"asked the network for {outside}"
        assert not complaints, complaints
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3]) if sys.argv[3:] else None)
