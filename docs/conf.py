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
    "site_rules",
    "myst_nb",
    "sphinx_design",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "api*/modules.rst"]
suppress_warnings = ["ref.python"]  # a class and its re-export have the same short name

html_math_renderer = "mathml"

# Markdown and notebooks; these are executed while building, and shown with what they print.
myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 600  # seconds for a cell
nb_execution_raise_on_error = True
nb_merge_streams = True


def _modules(package: str, folder: str, *excluded: str) -> dict[str, object]:
    return {
        "path": f"../{package}",
        "destination": folder,  # of its own: whatever else is in it is removed
        "separate_modules": True,
        "module_first": True,
        "max_depth": 1,
        "automodule_options": {"members", "show-inheritance"},
        "exclude_patterns": [f"../{package}/{name}" for name in excluded],
    }


# Reference pages, one for each module, made from the docstrings
apidoc_modules = [
    _modules("worldmodels", "api", "__main__.py"),
    _modules("baselines", "api_baselines"),
    _modules("sparse_gan", "api_sparse_gan"),
]
# What scikit-learn adds to every estimator
autodoc_default_options = {"exclude-members": "set_fit_request, set_score_request"}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
default_role = "code"  # docstrings write code in single backticks
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"worldmodels {release}"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which a browser refuses from a folder
