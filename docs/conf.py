"""Sphinx: `pip install sphinx myst-parser && sphinx-build docs docs/_build`."""

project = "mvssl"
author = "the mvssl authors"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
