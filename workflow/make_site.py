"""Build the executed notebooks and the guides as a static site in build/site that opens from disk.

    python workflow/make_site.py

Nothing is executed: pages show what the notebooks hold. Sphinx refuses links that lead nowhere (`-n -W`). Widgets need
a kernel, so a note stands in their place; links to files that are no page become plain text; a solution is folded below
its exercise.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "workflow" / "site"
PAGES = (
    "docs/participant-guide.md",
    "docs/instructor-guide.md",
    "docs/glossary.md",
    "docs/own-data.md",
    "data/README.md",
    "RESULTS.md",
    "docs/claims.md",
    "docs/experiments/*.md",
)
"""Documents that become pages, beside the notebooks. The others are for whoever works on the repository."""
EXPLORER = (
    '<p class="explorer">An explorer stands here in the notebook: controls above a picture that follows them. It needs '
    "Jupyter; the picture beside it shows one of its states.</p>"
)
WIDGET = "application/vnd.jupyter.widget-view+json"
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([\w./-]*[./][\w./-]*)(#[\w-]*)?\)")
LOAD = re.compile(r"`%load (solutions/ex_\d+_\d+\.py)`")


def keep_links(text: str, page: Path, known: set[str], root: Path = ROOT) -> str:
    """The Markdown `text` of `page`, its links to files that are no `known` page turned into text.

    A link to what is not there stays, so that Sphinx refuses it.
    """

    def kept(link: re.Match) -> str:
        target = os.path.normpath(page.parent / link[2])
        return link[1] if target not in known and (root / target).exists() else link[0]

    return LINK.sub(kept, text)


def make_still(notebook: nbformat.NotebookNode, page: Path, known: set[str], root: Path = ROOT) -> None:
    """Make an executed notebook fit to be read without a kernel, in place."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            solutions = [(root / page.parent / path).read_text("utf-8") for path in LOAD.findall(cell.source)]
            folded = "\n\n<details><summary>Solution</summary>\n\n```python\n{}```\n\n</details>\n"
            cell.source = keep_links(cell.source, page, known, root) + "".join(map(folded.format, solutions))
        elif cell.cell_type == "code":
            cell.outputs = [still for output in cell.outputs for still in _still(output)]


def _still(output: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """An output without a kernel: a note for an explorer, nothing for a progress bar, an image with its words."""
    data = output.get("data", {})
    if WIDGET in data:
        text = "" if "%|" in data.get("text/plain", "") else EXPLORER
    elif "image/png" in data:
        about = output.metadata.get("image/png", {})
        width = f' width="{about["width"]}"' if "width" in about else ""
        words = html.escape(about.get("alt", ""))
        text = f'<img src="data:image/png;base64,{data["image/png"].strip()}" alt="{words}"{width}>'
    else:
        return [output]
    return [nbformat.v4.new_output("display_data", data={"text/html": text})] if text else []


def write_sources(source: Path, root: Path = ROOT) -> None:
    """Write everything Sphinx reads into the empty folder `source`."""
    patterns = ("notebooks/[0-9]*.ipynb", *PAGES)
    pages = [path.relative_to(root) for pattern in patterns for path in sorted(root.glob(pattern))]
    known = set(map(str, pages))
    shutil.copytree(root / "docs", source / "docs", ignore=shutil.ignore_patterns("*.md"))
    for page in pages:
        (source / page).parent.mkdir(exist_ok=True)
        if page.suffix == ".ipynb":
            notebook = nbformat.read(root / page, as_version=4)
            make_still(notebook, page, known, root)
            nbformat.write(notebook, source / page)
        else:
            (source / page).write_text(keep_links((root / page).read_text("utf-8"), page, known, root), "utf-8")
    shutil.copy(SETTINGS / "index.md", source)


def build(out: Path, root: Path = ROOT) -> None:
    """Make the site in `out`, which is replaced; where Sphinx complains, SystemExit, and the one before is kept."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        source, site = Path(work, "source"), Path(work, "site")
        write_sources(source, root)
        command = ["sphinx", "-q", "-n", "-W", "--keep-going", "-d", f"{work}/trees", "-c", SETTINGS, source, site]
        if subprocess.run([sys.executable, "-m", *command]).returncode:
            raise SystemExit("The site was not built; Sphinx's warnings above say why. The one before is kept.")
        shutil.rmtree(out, ignore_errors=True)
        site.rename(out)


if __name__ == "__main__":
    build(ROOT / "build" / "site")
    print(f"Open {ROOT / 'build/site/index.html'} in a browser; the folder can be copied anywhere.")
