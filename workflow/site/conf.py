"""Sphinx settings of the static site; `make site` runs them on the pages that make_site.py has prepared.

Nothing is executed and nothing is loaded from the network: the mathematics is drawn by the MathJax that the package
sphinx-mathjax-offline carries, as one file that brings its glyphs with it; no other script is needed for a notebook.
"""

from importlib import metadata
from pathlib import Path

MATHJAX = "tex-svg.js"


def folder_of_mathjax() -> str:
    """The installed folder that holds MathJax."""
    files = metadata.files("sphinx-mathjax-offline") or []
    return str(Path(next(file for file in files if file.name == MATHJAX).locate()).parent)


project = "mixsup_lib"
author = "mixsup_lib contributors"
html_title = "Mixed supervision for brain tumour segmentation"
root_doc = "index"

extensions = ["myst_nb", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath", "tasklist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_show_search_summary = False  # summaries are fetched, which a browser refuses for pages opened from disk
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "a11y-high-contrast-light"
mathjax_path = MATHJAX
mathjax3_config = {"options": {"enableMenu": False}}


def copy_mathjax(app, error):
    if error is None:
        source = Path(folder_of_mathjax()) / MATHJAX
        (Path(app.outdir) / "_static" / MATHJAX).write_bytes(source.read_bytes())


def setup(app):
    app.connect("build-finished", copy_mathjax)
