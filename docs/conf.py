"""Sphinx: `pip install .[docs]`, then `sphinx-build -W --keep-going docs build/docs`. It needs no network."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import docstrings  # noqa: E402
import generate  # noqa: E402

import mvssl  # noqa: E402

project = "mvssl"
author = "the mvssl authors"
project_copyright = "the mvssl authors, Apache-2.0"
version = release = mvssl.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "reference/generated", "paper_figures", "speed"]

html_theme = "furo"
html_title = f"mvssl {version}"
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_copy_source = False

myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88


def setup(app):
    """Write the generated reference before Sphinx collects the pages, and read docstrings as mvssl writes them."""
    app.connect("builder-inited", lambda _: generate.write(DOCS / "reference" / "generated"))
    app.connect("autodoc-process-docstring", _convert)


def _convert(_app, _what, _name, _object, _options, lines: list[str]) -> None:
    lines[:] = docstrings.convert(lines)
