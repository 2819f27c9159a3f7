"""Sphinx configuration."""

from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

DOCS = Path(__file__).parent

project = "scmix"
author = "The scmix developers"
copyright = "2026, the scmix developers"
release = version = installed_version("scmix")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinxcontrib.bibtex",
]
root_doc = "index"
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
suppress_warnings = ["mystnb.unknown_mime_type", "myst.xref_missing"]

default_role = "code"  # what docstrings mean by single backticks
autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# Pages of the guide are run when the site is built: what they show is what the code does. The
# tutorials are shown with the outputs that they were committed with.
nb_execution_mode = "force"
nb_execution_excludepatterns = ["tutorials/*"]
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "scmix"
html_static_path = ["_static"]
html_css_files = ["scmix.css"]
html_theme_options = {"show_navbar_depth": 1, "home_page_in_toc": False, "navbar_persistent": []}

linkcheck_anchors = False  # pages that are drawn by scripts have none in their source
linkcheck_timeout = 20
linkcheck_ignore = [r"https://doi\.org/"]  # publishers turn robots away
linkcheck_exclude_documents = ["changelog"]

# Notebooks lie beside the package, where readers look for them; sphinx reads this folder only.
notebooks = DOCS / "tutorials"
notebooks.mkdir(exist_ok=True)
for notebook in (DOCS.parent / "tutorials").glob("*.ipynb"):
    text = notebook.read_text(encoding="utf-8").replace("../docs/", "../")
    copied = notebooks / notebook.name
    if not copied.exists() or copied.read_text(encoding="utf-8") != text:
        copied.write_text(text, encoding="utf-8")


def show_formula(writer, node):
    """A formula as MathML, which browsers draw without a script from the network."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    writer.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app):
    """Called by sphinx."""
    app.add_html_math_renderer("mathml", (show_formula, None), (show_formula, None))


html_math_renderer = "mathml"
