"""The static site: pages without a kernel, links that lead somewhere, nothing from the network.

Building needs the extra `site` (`make site` installs it); without it the tests that build are skipped, but not where CI
is set: `make test` installs it there.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import make_site
import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE = Path("notebooks/03_losses.ipynb")
KNOWN = {"notebooks/03_losses.ipynb", "notebooks/04_batch_sampling.ipynb", "data/README.md"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[next](04_batch_sampling.ipynb)", "[next](04_batch_sampling.ipynb)"),
        ("[data](../data/README.md#phantom)", "[data](../data/README.md#phantom)"),
        ("[the code](../mixsup_lib/losses.py) says", "the code says"),
        ("[results](../data/results)", "results"),
        ("[not there](09_not_yet.ipynb)", "[not there](09_not_yet.ipynb)"),
        ("[paper](https://arxiv.org/abs/1812.04571)", "[paper](https://arxiv.org/abs/1812.04571)"),
        ("![words](../docs/experiments/lgg.png)", "![words](../docs/experiments/lgg.png)"),
        ("`scores[0](x)` and [code](../Makefile)", "`scores[0](x)` and code"),
    ],
)
def test_links_to_what_is_no_page_become_text(before, after):
    assert make_site.keep_links(before, PAGE, KNOWN) == after


def still(*cells) -> list[nbformat.NotebookNode]:
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    make_site.make_still(notebook, PAGE, KNOWN)
    return notebook.cells


def display(data, metadata=None):
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})


def test_a_progress_bar_disappears_an_explorer_becomes_a_note_and_a_picture_keeps_its_words():
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


def test_a_page_has_its_pictures_words_mathematics_and_navigation(site):
    page = (site / "notebooks/09_scenario_comparison.html").read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) >= 3 and all(re.search(r'alt="[^"]{20}', image) for image in images)
    assert page.count("<summary>Solution</summary>") == 2 and 'role="search"' in page
    glossary = (site / "docs/glossary.html").read_text(encoding="utf-8")
    assert r"\(a\,Loss_s + (1-a)\,Loss_c\)" in glossary and "tex-svg.js" in glossary
    assert [path.name for path in site.parent.iterdir()] == ["site"]


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


@pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"),
    reason="no Chromium on the PATH (Debian: apt-get install chromium): the site was not tried in a browser",
)
def test_the_site_works_from_disk_without_a_network(site):
    """Opened as files, in a browser that is offline: formulas are drawn, search finds, nothing else is asked for."""
    script = Path(__file__).with_name("open_site.py")
    done = subprocess.run(
        [sys.executable, script, site, CHROMIUM or ""], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
