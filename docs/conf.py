import sys
from pathlib import Path

import worldmodels

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "worldmodels"
author = "The worldmodels authors"
copyright = f"2026, {author}"
release = worldmodels.__version__
version = release

extensions = [
    "mathml",
    "reference",
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "api/modules.rst", "api/baselines*", "api/sparse_gan*"]
suppress_warnings = ["ref.python"]  # a class and its re-export have the same short name

html_math_renderer = "mathml"

# Markdown
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Reference pages, one for each module, made from the docstrings
apidoc_modules = [
    {
        "path": "../worldmodels",
        "destination": "api",
        "separate_modules": True,
        "module_first": True,
        "max_depth": 1,
        "automodule_options": {"members", "show-inheritance"},
        "exclude_patterns": ["../worldmodels/__main__.py"],
    }
]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
default_role = "code"  # docstrings write code in single backticks
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"worldmodels {release}"
html_theme_options = {"top_of_page_buttons": []}
