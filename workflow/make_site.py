"""Build the executed notebooks and the guides as a static site in build/site that opens from disk.

    python workflow/make_site.py

Nothing is executed: pages show what the notebooks hold. Widgets need a kernel, so a note stands in their place; links
to files that are no page become plain text; pictures keep their alternative text.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "workflow" / "site"
EXPLORER = (
    "An explorer stands here in the notebook: controls above a picture that follows them. It needs Jupyter; "
    "the picture beside it shows one of its states."
)
WIDGET = "application/vnd.jupyter.widget-view+json"
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```$|``.+?``|`[^`\n]+`)", re.M | re.S)
LOAD = re.compile(r"`%load solutions/ex_(\d+)_(\d+)\.py`")


def pages(root: Path = ROOT) -> list[Path]:
    """Files that become pages, relative to the repository. Other documents are for whoever works on the repository."""
    guides = ("participant-guide", "instructor-guide", "glossary")
    names = [*(f"docs/{guide}.md" for guide in guides), "data/README.md", "REPRODUCTION.md"]
    notebooks = sorted(root.glob("notebooks/[0-9]*.ipynb"))
    return [path.relative_to(root) for path in notebooks] + [
        Path(name) for name in names if (root / name).exists()
    ]


def keep_links(text: str, page: Path, known: Collection[Path]) -> str:
    """Markdown `text` of `page` with links to anything but the `known` pages, pictures and the web turned into text."""

    def replace(link: re.Match) -> str:
        target = link["target"]
        if not target or ":" in target or link["image"]:
            return link[0]
        parts: list[str] = []
        for part in (page.parent / target).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        return link[0] if Path(*parts) in known else link["text"]

    pieces = CODE.split(text)  # code alternates with prose
    return "".join(piece if number % 2 else LINK.sub(replace, piece) for number, piece in enumerate(pieces))


def prepare_notebook(notebook: nbformat.NotebookNode, page: Path, known: Collection[Path]) -> None:
    """Make an executed notebook fit to be read without a kernel, in place."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.setdefault("language_info", {"name": "python", "pygments_lexer": "ipython3"})
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = keep_links(cell.source, page, known)
            cell.source = LOAD.sub(r"[`%load solutions/ex_\1_\2.py`](#ex-\1-\2)", text)
        elif cell.cell_type == "code":
            cell.outputs = _joined([output for old in cell.outputs if (output := _still(old)) is not None])


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Printed text that a kernel sent in pieces is one text again."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and last.output_type == output.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _still(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output without a kernel: a note for an explorer, nothing for a progress bar, an image with its words."""
    data = output.get("data", {})
    if WIDGET in data:
        if "%|" in data.get("text/plain", ""):
            return None
        note = f'<p class="explorer">{EXPLORER}</p>'
        return nbformat.v4.new_output("display_data", data={"text/html": note})
    if "image/png" in data:
        about = output.metadata.get("image/png", {})
        words = html.escape(about.get("alt", ""), quote=True)
        width = f' width="{about["width"]}"' if "width" in about else ""
        image = f'<img src="data:image/png;base64,{data["image/png"].strip()}" alt="{words}"{width}>'
        return nbformat.v4.new_output("display_data", data={"text/html": image})
    return output


def not_executed(root: Path = ROOT) -> list[str]:
    """A sentence for each notebook with a code cell that was not run: its page would lack outputs."""
    faults = []
    for page in pages(root):
        if page.suffix == ".ipynb":
            cells = nbformat.read(root / page, as_version=4).cells
            if any(cell.cell_type == "code" and cell.execution_count is None for cell in cells):
                faults.append(f"{page} has not been executed; make notebooks BOOKS={page}")
    return faults


def solutions(root: Path = ROOT) -> str:
    """One page with all solutions, an anchor `ex-3-1` before each."""
    lines = ["# Solutions", "", "One way each. An exercise teaches while it is open, so try first."]
    book = ""
    files = root.glob("notebooks/solutions/ex_*_*.py")
    for path in sorted(files, key=lambda path: [int(part) for part in path.stem.split("_")[1:]]):
        _, number, exercise = path.stem.split("_")
        if number != book:
            book = number
            lines += ["", f"## Notebook {int(number):02d}"]
        source = path.read_text(encoding="utf-8").strip()
        lines += [
            "",
            f"(ex-{number}-{exercise})=",
            f"### Exercise {exercise} of notebook {int(number):02d}",
            "",
        ]
        lines += ["```python", source, "```"]
    return "\n".join(lines) + "\n"


def prepare(source: Path, root: Path = ROOT) -> None:
    """Write everything Sphinx reads into the empty folder `source`."""
    known = pages(root)
    for page in known:
        target = source / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".ipynb":
            notebook = nbformat.read(root / page, as_version=4)
            prepare_notebook(notebook, page, known)
            nbformat.write(notebook, target)
        else:
            target.write_text(keep_links((root / page).read_text("utf-8"), page, known), encoding="utf-8")
    for picture in root.glob("docs/*.png"):
        (source / "docs").mkdir(exist_ok=True)
        shutil.copy(picture, source / "docs")
    (source / "solutions.md").write_text(solutions(root), encoding="utf-8")
    index = (SETTINGS / "index.md").read_text("utf-8")
    (source / "index.md").write_text(keep_links(index, Path("index.md"), known), encoding="utf-8")


def build(out: Path, root: Path = ROOT) -> None:
    """Make the site in `out`, which is replaced; a warning of Sphinx (a link that leads nowhere) stops it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as work:
        source, trees, site = (Path(work) / name for name in ("source", "trees", "site"))
        source.mkdir()
        prepare(source, root)
        command = ["sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(trees), "-c", str(SETTINGS)]
        if subprocess.run([sys.executable, "-m", *command, str(source), str(site)]).returncode:
            raise SystemExit(
                "The site was not built; Sphinx's warnings above say why. The one before is kept."
            )
        shutil.rmtree(out, ignore_errors=True)
        site.rename(out)


def main() -> int:
    from check_site import check

    out = ROOT / "build" / "site"
    build(out)
    faults, summary = check(out)
    faults = [*not_executed(), *faults]
    print(
        "\n".join(
            [*faults, summary, f"Open {out / 'index.html'} in a browser; the folder can be copied anywhere."]
        )
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
