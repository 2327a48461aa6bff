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

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent

import check_site  # noqa: E402
import make_site  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE = Path("notebooks/03_losses.ipynb")
KNOWN = [PAGE, Path("notebooks/04_batch_sampling.ipynb"), Path("data/README.md")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[next](04_batch_sampling.ipynb)", "[next](04_batch_sampling.ipynb)"),
        ("[data](../data/README.md#phantom)", "[data](../data/README.md#phantom)"),
        ("[the code](../mixsup_lib/losses.py) says", "the code says"),
        ("[later](09_not_yet.ipynb)", "later"),
        ("[paper](https://arxiv.org/abs/1812.04571)", "[paper](https://arxiv.org/abs/1812.04571)"),
        ("[above](#who-it-is-for)", "[above](#who-it-is-for)"),
        ("![words](pictures/a.png)", "![words](pictures/a.png)"),
        ("`scores[0](x)` and [code](x.py)", "`scores[0](x)` and code"),
        ("```\n[a](b.py)\n```", "```\n[a](b.py)\n```"),
    ],
)
def test_links_to_what_is_no_page_become_text(before, after):
    assert make_site.keep_links(before, PAGE, KNOWN) == after


def notebook_with(*outputs) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell("1", outputs=list(outputs))
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    make_site.prepare_notebook(notebook, PAGE, KNOWN)
    assert "widgets" not in notebook.metadata
    return notebook.cells[0].outputs


def display(data, metadata=None):
    return nbformat.v4.new_output("display_data", data=data, metadata=metadata or {})


def test_a_progress_bar_disappears_and_an_explorer_becomes_a_note():
    bar = display({make_site.WIDGET: {}, "text/plain": "slices:   0%|          | 0/12 [00:00<?]"})
    explorer = display({make_site.WIDGET: {}, "text/plain": "VBox(children=(HBox(children=("})
    (note,) = notebook_with(bar, explorer)
    assert "needs Jupyter" in note.data["text/html"] and make_site.WIDGET not in note.data


def test_a_picture_keeps_its_words_and_other_outputs_stay():
    words = 'Dice of "standard" < mixed'
    picture = display({"image/png": "aGVsbG8=\n", "text/plain": "<Figure>"}, {"image/png": {"alt": words}})
    text = nbformat.v4.new_output("stream", text="42\n")
    image, same = notebook_with(picture, text)
    assert 'alt="Dice of &quot;standard&quot; &lt; mixed"' in image.data["text/html"]
    assert same.text == "42\n"


def test_text_that_was_printed_in_pieces_is_one_text():
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("300", " 296", "\n")]
    error = nbformat.v4.new_output("stream", name="stderr", text="careful")
    assert [output.text for output in notebook_with(*pieces, error)] == ["300 296\n", "careful"]


def test_a_notebook_that_was_not_executed_is_named(tmp_path):
    cells = [nbformat.v4.new_code_cell("1", execution_count=1), nbformat.v4.new_code_cell("2")]
    (tmp_path / "notebooks").mkdir()
    for name, some in (("03_done", cells[:1]), ("04_half", cells)):
        nbformat.write(nbformat.v4.new_notebook(cells=some), tmp_path / "notebooks" / f"{name}.ipynb")
    (fault,) = make_site.not_executed(tmp_path)
    assert fault.startswith("notebooks/04_half.ipynb has not been executed")


def test_every_solution_is_on_one_page_with_the_anchor_that_notebooks_link_to():
    text = make_site.solutions()
    assert "(ex-9-1)=" in text and (ROOT / "notebooks/solutions/ex_9_1.py").read_text().strip() in text
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("Solution: `%load solutions/ex_9_1.py`")]
    )
    make_site.prepare_notebook(notebook, PAGE, KNOWN)
    assert notebook.cells[0].source == "Solution: [`%load solutions/ex_9_1.py`](#ex-9-1)"


def faults_of(folder: Path, **files: str) -> list[str]:
    for name, text in {"b_html": '<p id="here">b</p>', **files}.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return check_site.check(folder)[0]


@pytest.mark.parametrize(
    "page",
    [
        '<a href="b.html#here">b</a> <a href="https://arxiv.org/abs/1">paper</a> <a href="#up">x</a><i id="up">',
        '<img src="data:image/png;base64,aGVsbG8="> <a href="mailto:a@b.c">',
        '<style>p { background: url("data:image/svg+xml,x") }</style> https://example.org/x.js is only text',
    ],
)
def test_links_of_the_reader_and_embedded_pictures_are_fine(page, tmp_path):
    assert faults_of(tmp_path, a_html=page) == []


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<script src="https://cdn.example.org/require.js"></script>', "from the network"),
        ('<script src="//cdn.example.org/require.js"></script>', "from the network"),
        ('<link rel="stylesheet" href="http://fonts.example.org/a.css">', "from the network"),
        ("<style>@import 'https://fonts.example.org/a.css';</style>", "from the network"),
        ('<p style="background: url(https://example.org/a.png)">', "from the network"),
        ('<img srcset="https://example.org/a.png 2x">', "from the network"),
        ('<img src="missing.png">', "not there"),
        ('<img src="/_static/a.png">', "outside the site"),
        ('<a href="missing.html">', "leads nowhere"),
        ('<a href="b.html#elsewhere">', "without that place"),
        ('<a href="#elsewhere">', "without that place"),
    ],
)
def test_a_broken_link_and_a_load_from_the_network_are_seen(page, fault, tmp_path):
    (found,) = faults_of(tmp_path, a_html=page)
    assert found.startswith("a.html:") and fault in found


def test_a_style_sheet_that_loads_a_font_from_the_network_is_seen(tmp_path):
    (found,) = faults_of(tmp_path, s_css="@font-face { src: url('https://fonts.example.org/a.woff2') }")
    assert found.startswith("s.css:")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site of one notebook, the guides and the solutions."""
    missing = [name for name in ("sphinx", "myst_nb", "furo") if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"{', '.join(missing)} not installed: `make site` installs the extra `site`")
    root = tmp_path_factory.mktemp("repository")
    for name in ("docs", "data/README.md", "REPRODUCTION.md", "notebooks/solutions"):
        (root / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    shutil.copy(ROOT / "notebooks/09_scenario_comparison.ipynb", root / "notebooks")
    out = tmp_path_factory.mktemp("out") / "site"
    make_site.build(out, root)
    return out


def test_a_built_site_has_no_fault_and_leaves_nothing_behind(site):
    faults, summary = check_site.check(site)
    assert faults == [] and "no fault" in summary
    assert [path.name for path in site.parent.iterdir()] == ["site"]


def test_a_page_has_its_pictures_words_mathematics_and_navigation(site):
    page = (site / "notebooks/09_scenario_comparison.html").read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) >= 3 and all(re.search(r'alt="[^"]{20}', image) for image in images)
    assert "solutions.html#ex-9-1" in page and "<summary>" in page and 'role="search"' in page
    glossary = (site / "docs/glossary.html").read_text(encoding="utf-8")
    assert r"\(a\,Loss_s + (1-a)\,Loss_c\)" in glossary and "tex-svg.js" in glossary


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
