"""Configuration of the documentation: Markdown pages whose code is executed when they are built."""

from quenched import __version__

project = "quenched"
author = "the quenched developers"
copyright = "2026, the quenched developers"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinxcontrib.bibtex"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
bibtex_bibfiles = ["references.bib"]

html_theme = "pydata_sphinx_theme"
html_title = "quenched"
html_show_sourcelink = False
html_theme_options = {"secondary_sidebar_items": ["page-toc"], "show_prev_next": True}

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
nb_execution_mode = "cache"
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_typehints = "signature"
napoleon_google_docstring = False
# Lazy names have no source of their own; the pages say what they are.
suppress_warnings = ["autosummary", "mystnb.unknown_mime_type"]
