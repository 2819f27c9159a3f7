"""Sphinx configuration."""

from importlib.metadata import version as installed_version

project = "scmix"
author = "The scmix developers"
copyright = "2026, the scmix developers"
release = version = installed_version("scmix")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
root_doc = "index"
exclude_patterns = ["_build"]
suppress_warnings = ["mystnb.unknown_mime_type", "myst.xref_missing"]

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# Pages of the guide are run when the site is built: what they show is what the code does.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "scmix"
html_static_path = ["_static"]
html_theme_options = {"show_navbar_depth": 2, "home_page_in_toc": True}
