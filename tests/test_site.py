"""The static site: pages without a kernel, links that lead somewhere, nothing from the network."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

import make_site
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("notebooks/03_losses.ipynb")
KNOWN = {"notebooks/03_losses.ipynb", "notebooks/04_batch_sampling.ipynb", "data/README.md"}

pytestmark = pytest.mark.xdist_group("browser")


def test_links_to_what_is_no_page_become_text_and_others_stay():
    text = "[next](04_batch_sampling.ipynb) [data](../data/README.md#phantom) ![words](../docs/a.png) `x[0](y)`"
    assert make_site.keep_links(f"{text} [code](../mixsup_lib/losses.py)", PAGE, KNOWN) == f"{text} code"


def still(*cells) -> list[nbformat.NotebookNode]:
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    make_site.make_still(notebook, PAGE, KNOWN)
    return notebook.cells


def test_a_progress_bar_disappears_an_explorer_becomes_a_note_and_a_picture_keeps_its_words():
    def display(data, metadata=None):
        return nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})

    bar = display({make_site.WIDGET: {}, "text/plain": "slices:   0%|          | 0/12 [00:00<?]"})
    explorer = display({make_site.WIDGET: {}, "text/plain": "VBox(children=(HBox(children=("})
    picture = display({"image/png": "aGVsbG8=\n"}, {"image/png": {"alt": '"standard" < mixed'}})
    text = nbformat.v4.new_output("stream", text="42\n")
    (cell,) = still(nbformat.v4.new_code_cell("1", outputs=[bar, explorer, picture, text]))
    note, image, same = cell.outputs
    assert "needs Jupyter" in note.data["text/html"] and make_site.WIDGET not in note.data
    assert 'alt="&quot;standard&quot; &lt; mixed"' in image.data["text/html"] and same.text == "42\n"


def test_a_solution_is_folded_below_its_exercise():
    (cell,) = still(nbformat.v4.new_markdown_cell("Solution: `%load solutions/ex_9_1.py`"))
    assert (ROOT / "notebooks/solutions/ex_9_1.py").read_text() in cell.source and "<details>" in cell.source


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    missing = [name for name in ("sphinx", "myst_nb", "furo") if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{', '.join(missing)} not installed: `make site` installs the extra `site`")
    out = tmp_path_factory.mktemp("out") / "site"
    make_site.build(out)
    return out


def test_links_that_lead_nowhere_stop_the_build(site, tmp_path, capfd):
    for name in ("docs", "data/README.md", "RESULTS.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if name == "docs" else shutil.copy)(ROOT / name, tmp_path / name)
    with open(tmp_path / "docs/glossary.md", "a", encoding="utf-8") as guide:
        guide.write("\n[no file](missing.md) and [no place](participant-guide.md#missing)\n")
    with pytest.raises(SystemExit, match="The site was not built"):
        make_site.build(site, tmp_path)
    complaints = capfd.readouterr().err
    assert "missing.md" in complaints and "'missing'" in complaints and (site / "index.html").exists()


def test_the_site_works_from_disk_without_a_network(site, browser):
    """Every page, in a browser that is offline: formulas are drawn, search finds, nothing else is asked for."""
    page = browser.new_context(offline=True).new_page()
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.on("console", lambda line: line.type == "error" and complaints.append(f"{page.url}: {line.text}"))
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        assert all(re.search(r"\w{3}", image.get_attribute("alt")) for image in page.locator("article img").all())
        if page.locator(".math").count():
            page.wait_for_selector("mjx-container svg", state="attached", timeout=60_000)
            assert page.locator("mjx-merror, [data-mjx-error]").count() == 0, path
    page.goto((site / "index.html").as_uri())
    page.get_by_placeholder("Search").first.fill("phantom")
    page.keyboard.press("Enter")
    page.get_by_text("Search finished").wait_for(timeout=60_000)
    results = page.locator("#search-results li a")
    assert results.count() > 2
    found = results.first.get_attribute("href").split("?")[0].split("#")[0]
    results.first.click()
    page.wait_for_url(lambda url: url.split("?")[0].split("#")[0].endswith(found))
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == [] == complaints
    page.context.close()
