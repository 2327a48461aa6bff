"""The notebooks in a real browser: every cell runs, every explorer answers to mouse and keyboard.

Needs Playwright (extra `test`) and a Chromium found on the PATH. Without one these tests are skipped, but not where CI
is set: there it is a failure.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BOOKS = sorted(
    path
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")
    if "mixsup_lib.teaching.widgets" in path.read_text(encoding="utf-8") or path.stem == "00_setup"
)
RUN_SECONDS = 180
FAILURE = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'
LAB_SETTINGS = {  # all cells stay in the page, nothing asks, nothing is fetched
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
CONNECT_AND_RUN = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
    app.commands.execute('notebook:run-all-cells');
}"""
"""The command behind the menu entry 'Run All Cells', once the kernel answers: an earlier call would be dropped."""

pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"),
    reason="no Chromium on the PATH (Debian: apt-get install chromium): the notebooks were not tried in a browser",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks: its address and token. The token stays on, as for users."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    for path in (root / "notebooks").glob("*.ipynb"):
        clear_outputs(path)
    for folder in ("results", "lessons"):
        shutil.copytree(ROOT / "data" / folder, root / "data" / folder)
    shutil.copyfile(ROOT / "data" / "README.md", root / "data" / "README.md")
    for folder in ("docs", "scenarios", "README.md", "RESULTS.md"):
        (root / folder).symlink_to(ROOT / folder)
    for plugin, values in LAB_SETTINGS.items():
        file = root / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
        "--expose-app-in-browser",
    ]
    if os.geteuid() == 0:
        command.append("--allow-root")
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(root / "settings"), "PYTHONPATH": str(ROOT)}
    with open(root / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (root / "lab.log").read_text()[-2000:]
                time.sleep(0.25)
        yield address, token
    finally:
        server.terminate()
        server.wait(20)


def clear_outputs(path: Path) -> None:
    """So that a number beside a cell says that it has run here."""
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    book.metadata.pop("widgets", None)
    nbformat.write(book, path)


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "no Chromium on the PATH: continuous integration installs it before the tests"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, lab):
    address, token = lab
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{address}/lab?token={token}")
    yield page
    page.evaluate("() => window.jupyterapp.shell.currentWidget?.sessionContext?.shutdown()")
    page.close()


def open_and_run(page, lab, name: str) -> None:
    """Open a notebook and run all its cells; returns when the last one has finished."""
    address, _ = lab
    page.goto(f"{address}/lab/tree/notebooks/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.evaluate(CONNECT_AND_RUN)
    count = page.locator(".jp-CodeCell").count()
    page.wait_for_function(
        """([count, failure]) => {
            const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')];
            const done = prompts.every((p, i) => p.innerText.trim() === `[${i + 1}]:`);
            return prompts.length === count && (done || document.querySelector(failure));
        }""",
        arg=[count, FAILURE],
        timeout=RUN_SECONDS * 1000,
    )


def failures(page) -> list[str]:
    """Tracebacks, and sentences that an explorer shows instead of a picture."""
    return page.locator(f'{FAILURE}, .widget-html [role="alert"]').all_inner_texts()


def pictures(page) -> list[str]:
    return page.locator(".widget-html").evaluate_all("panels => panels.map(panel => panel.innerHTML)")


def changed_by(page, action) -> bool:
    """Whether a picture or its words change after `action`, within five seconds."""
    before = pictures(page)
    action()
    for _ in range(50):
        if pictures(page) != before:
            return True
        page.wait_for_timeout(100)
    return False


def shown_figure_words(page) -> list[str]:
    return page.locator(".widget-html img").evaluate_all("images => images.map(image => image.alt)")


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_explorers_answer(book, page, lab, tmp_path):
    open_and_run(page, lab, book.name)
    page.wait_for_timeout(1000)  # the last widget may still be drawn
    assert failures(page) == []
    explorers = sum(map(is_call, code_lines(book)))
    assert page.locator(".widget-html img").count() == explorers
    assert all(shown_figure_words(page))
    for dropdown in page.locator(".jupyter-widgets.widget-dropdown select").all():
        drive_dropdown(page, dropdown)
    for number in page.locator('.jupyter-widgets.widget-text input[type="number"]').all():
        drive_number(page, number)
    for slider in page.locator(".jupyter-widgets.widget-slider").all():
        drive_slider(page, slider)
    for buttons in page.locator(".jupyter-widgets.widget-toggle-buttons").all():
        drive_buttons(page, buttons)
    assert failures(page) == []
    if folder := os.environ.get("SCREENSHOTS"):
        take_pictures(page, Path(folder), book.stem)


def drive_slider(page, slider) -> None:
    """By keyboard: one step there, one back, whichever has room; by mouse: a click on the track."""
    handle = slider.locator(".noUi-handle").first
    assert slider.locator(".widget-label").first.inner_text().strip(), "a slider without a label"
    handle.scroll_into_view_if_needed()
    handle.focus()
    moved = changed_by(page, lambda: page.keyboard.press("ArrowRight"))
    assert moved or changed_by(page, lambda: page.keyboard.press("ArrowLeft")), "the keyboard moves nothing"
    box = slider.locator(".noUi-base, .slider-container").first.bounding_box()
    places = [(box["x"] + box["width"] * share, box["y"] + box["height"] / 2) for share in (0.3, 0.7)]
    assert any(changed_by(page, lambda place=place: page.mouse.click(*place)) for place in places), (
        "nor the mouse"
    )


def drive_dropdown(page, dropdown) -> None:
    """Some other value changes the picture; the first value comes back, as it may be what others depend on."""
    values = dropdown.locator("option").evaluate_all("options => options.map(option => option.value)")
    if len(values) > 1:
        label = dropdown.locator("xpath=..").locator(".widget-label").inner_text()
        dropdown.scroll_into_view_if_needed()
        first = dropdown.input_value()
        others = [value for value in values if value != first]
        chosen = (changed_by(page, lambda value=value: dropdown.select_option(value)) for value in others)
        assert any(chosen), f"choosing another {label!r} changes nothing"
        assert changed_by(page, lambda: dropdown.select_option(first)), f"the way back in {label!r}"


def drive_number(page, number) -> None:
    """By keyboard: 16 more, a size that fits the network of four poolings."""
    number.focus()
    more = str(int(number.input_value()) + 16)

    def type_it() -> None:
        number.fill(more)
        page.keyboard.press("Enter")

    assert changed_by(page, type_it), f"typing {more} changes nothing"


def drive_buttons(page, buttons) -> None:
    """By mouse: another button of the row, and back; by keyboard: Tab reaches them, the space bar presses one."""
    first = buttons.locator("button.mod-active")
    label, others = first.inner_text(), buttons.locator("button:not(.mod-active)")
    assert changed_by(page, others.first.click), f"another button than {label!r} changes nothing"

    def press() -> None:
        buttons.get_by_role("button", name=label, exact=True).focus()
        page.keyboard.press("Space")

    assert changed_by(page, press), f"the space bar on {label!r} changes nothing"


def take_pictures(page, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(page.locator(".widget-vbox").all()):
        picture.screenshot(path=folder / f"{name}-{number}.png")


def code_lines(book: Path) -> list[str]:
    cells = json.loads(book.read_text(encoding="utf-8"))["cells"]
    return [
        line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()
    ]


def is_call(line: str) -> bool:
    return bool(re.match(r"\w*(?:\.\w+)*_(?:explorer|calculator|planner)\(", line))
