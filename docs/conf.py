"""The documentation site: `make docs`, or `sphinx-build -W --keep-going docs build/docs`.

Nothing is fetched when the pages are read. At build time, the Makefile fetches MathJax with npm and names its folder in
MATHJAX; without it, formulas are shown as TeX, and every page says so.
"""

import os
import sys
from pathlib import Path

import jaxtyping  # noqa: F401 - imported before diffspace, it puts shapes into the signatures

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from docutils.nodes import SkipNode
from pictures import Figures

import diffspace

project = "diffspace"
author = copyright = "the diffspace developers"
version = release = diffspace.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "from_code",
    "pictures",
]
exclude_patterns = ["_ext", "_static"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # pages have sections that begin below level 2
    "ref.python",  # a short name in a signature may be that of several attributes
]

default_role = "py:obj"  # names in docstrings lead to what they name, where that is documented
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
viewcode_line_numbers = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "image_scrapers": ("matplotlib", Figures()),
    "within_subsection_order": "ExampleTitleSortKey",
    "abort_on_example_error": True,
    "capture_repr": (),
    "download_all_examples": False,
    "min_reported_time": float("inf"),
    "write_computation_times": False,
    "show_signature": False,
    "copyfile_regex": r"",
}

html_theme = "furo"
html_title = f"diffspace {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

mathjax = Path(os.environ.get("MATHJAX", ""))
if (mathjax / "tex-chtml.js").is_file():
    html_static_path.append(str(mathjax.resolve()))
    html_math_renderer = "mathjax"
    mathjax_path = "tex-chtml.js"
    mathjax3_config = {"options": {"enableMenu": False}}
else:
    print("MathJax is missing (MATHJAX names no folder with tex-chtml.js): formulas are shown as TeX", file=sys.stderr)
    html_theme_options["announcement"] = "Built without MathJax: formulas are shown as TeX."
    html_math_renderer = "tex"


def setup(app):
    """The renderer of formulas for a machine without MathJax."""

    def inline(writer, node):
        writer.body.append(writer.starttag(node, "code", "") + writer.encode(node.astext()) + "</code>")
        raise SkipNode

    def block(writer, node):
        writer.body.append(writer.starttag(node, "pre", "") + writer.encode(node.astext()) + "</pre>")
        raise SkipNode

    app.add_html_math_renderer("tex", inline_renderers=(inline, None), block_renderers=(block, None))
