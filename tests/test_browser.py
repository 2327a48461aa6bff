"""Every explorer in JupyterLab in a real browser: drawn without an error, it answers to mouse and keyboard.

The cells of the notebooks themselves are executed by `test_notebooks.py`.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
WIDGETS = "from mixsup_lib.teaching.widgets."
EXPLORERS = {
    "layer_calculator": f"{WIDGETS}layer_calculator import *\nlayer_calculator()",
    "loss_explorer": f"{WIDGETS}loss_explorer import *\nloss_explorer()",
    "share_explorer": f"{WIDGETS}share_explorer import *\nshare_explorer()",
    "batch_explorer": f"{WIDGETS}batch_explorer import *\n"
    'batch_explorer({"positive annotated": 40, "negative": 100, "positive weak": 80})',
    "annotation_planner": f"""{WIDGETS}annotation_planner import *
import numpy as np
means = 50 + 8 * np.log([2, 5, 12, 30])[:, None] + 3 * np.log1p([0, 15, 65])
surface = Surface(np.array([2, 5, 12, 30]), np.array([0, 15, 65]), means, means + np.zeros((9, 1, 1)), "phantom", 2)
annotation_planner(surface)""",
    "slice_explorer": f"""{WIDGETS}slice_explorer import *
from mixsup_lib import find_cohort
cases = {{patient.id: patient.read() for patient in find_cohort({{phantom!r}}).patients[:2]}}
slice_explorer(Scans(cases))""",
    "run_explorer": f"{WIDGETS}run_explorer import *\nrun_explorer(Runs({str(ROOT / 'data/results/runs')!r}))",
}
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

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def lab(phantom, tmp_path_factory):
    """The address of JupyterLab on a notebook with every explorer. Its token stays on, as for users."""
    root = tmp_path_factory.mktemp("lab")
    sources = [source.replace("{phantom!r}", repr(str(phantom))) for source in EXPLORERS.values()]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, root / "explorers.ipynb")
    for plugin, values in LAB_SETTINGS.items():
        file = root / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--expose-app-in-browser"]
    command += [f"--IdentityProvider.token={token}", *(["--allow-root"] if os.geteuid() == 0 else [])]
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
        yield f"{address}/lab/tree/explorers.ipynb?reset&token={token}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def page(browser, lab):
    """The notebook after all its cells have run."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(lab)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.evaluate(CONNECT_AND_RUN)
    page.wait_for_function(
        """([count, failure]) => {
            const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')];
            const done = prompts.every((p, i) => p.innerText.trim() === `[${i + 1}]:`);
            return prompts.length === count && (done || document.querySelector(failure));
        }""",
        arg=[len(EXPLORERS), FAILURE],
        timeout=180_000,
    )
    page.wait_for_timeout(1000)  # the last widget may still be drawn
    yield page
    page.evaluate("() => window.jupyterapp.shell.currentWidget?.sessionContext?.shutdown()")
    page.close()


@pytest.mark.parametrize("name", EXPLORERS)
def test_an_explorer_is_drawn_and_every_control_moves_it(name, page):
    cell = page.locator(".jp-CodeCell").nth(list(EXPLORERS).index(name))
    assert failures(cell) == [] and cell.locator(".widget-html img").get_attribute("alt")
    for kind, drive in (
        (".widget-dropdown select", drive_dropdown),
        ('.widget-text input[type="number"]', drive_number),
        (".widget-slider", drive_slider),
        (".widget-toggle-buttons", drive_buttons),
    ):
        for control in cell.locator(f".jupyter-widgets{kind}").all():
            drive(page, cell, control)
    assert failures(cell) == []


def failures(cell) -> list[str]:
    """Tracebacks, and sentences that an explorer shows instead of a picture."""
    return cell.locator(f'{FAILURE}, .widget-html [role="alert"]').all_inner_texts()


def changed_by(page, cell, action) -> bool:
    """Whether a picture or its words change after `action`, within five seconds."""

    def pictures():
        return cell.locator(".widget-html").evaluate_all("panels => panels.map(panel => panel.innerHTML)")

    before = pictures()
    action()
    for _ in range(100):
        if pictures() != before:
            return True
        page.wait_for_timeout(50)
    return False


def drive_slider(page, cell, slider) -> None:
    """By keyboard: a step where there is room; by mouse: a click on the track, away from the handle."""
    handle = slider.locator(".noUi-handle").first
    assert slider.locator(".widget-label").first.inner_text().strip(), "a slider without a label"
    handle.scroll_into_view_if_needed()
    handle.focus()
    at_the_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    key = "ArrowLeft" if at_the_end else "ArrowRight"
    assert changed_by(page, cell, lambda: page.keyboard.press(key)), "the keyboard moves nothing"
    box, at = slider.locator(".noUi-base, .slider-container").first.bounding_box(), handle.bounding_box()
    share = 0.15 if at["x"] + at["width"] / 2 > box["x"] + box["width"] / 2 else 0.85
    place = (box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    assert changed_by(page, cell, lambda: page.mouse.click(*place)), "the mouse moves nothing"


def drive_dropdown(page, cell, dropdown) -> None:
    """Some other value changes the picture; the first value comes back, as it may be what others depend on."""
    first = dropdown.input_value()
    values = dropdown.locator("option").evaluate_all("options => options.map(option => option.value)")
    others = [value for value in values if value != first]
    if others:
        chosen = (changed_by(page, cell, lambda value=value: dropdown.select_option(value)) for value in others)
        assert any(chosen), f"choosing another than {first!r} changes nothing"
        assert changed_by(page, cell, lambda: dropdown.select_option(first)), f"the way back to {first!r}"


def drive_number(page, cell, number) -> None:
    """By keyboard: 16 more, a size that fits the network of four poolings."""

    def type_it() -> None:
        number.fill(str(int(number.input_value()) + 16))
        page.keyboard.press("Enter")

    number.focus()
    assert changed_by(page, cell, type_it), "typing another number changes nothing"


def drive_buttons(page, cell, buttons) -> None:
    """By mouse: another button of the row, and back; by keyboard: Tab reaches them, the space bar presses one."""
    label = buttons.locator("button.mod-active").inner_text()
    other = buttons.locator("button:not(.mod-active)").first
    assert changed_by(page, cell, other.click), f"another button than {label!r} changes nothing"

    def press() -> None:
        buttons.get_by_role("button", name=label, exact=True).focus()
        page.keyboard.press("Space")

    assert changed_by(page, cell, press), f"the space bar on {label!r} changes nothing"
