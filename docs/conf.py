"""How Sphinx makes the documentation site: `make docs` writes it to build/docs, and any warning is an error.

The source is the whole checkout, so that README.md and ARCHITECTURE.md are pages as they are, with the links that they
have in a repository. docs/decisions/documents.md says why this tool.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from importlib.util import find_spec
from types import ModuleType
from typing import Never, Self

from sphinx.application import Sphinx

project = "reenact"
author = "the authors of reenact"
project_copyright = author
release = version_of("reenact")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "docs/index"
include_patterns = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "docs/**.md",
]
exclude_patterns = ["docs/_templates/**"]
templates_path = ["_templates"]

# A heading is a target for links, by the name that a repository's host gives it.
myst_heading_anchors = 3
myst_enable_extensions = ["fieldlist"]

# One pair of backticks is code in this project's docstrings.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# Nothing is loaded from another machine: furo brings its own files, and uses the reader's fonts.
html_theme = "furo"
html_title = f"reenact {release}"
html_show_sourcelink = False
html_copy_source = False
html_additional_pages = {"index": "start.html"}


class _Absent(int):
    """Stands for any name of llama.cpp, which need not be compiled for its docstrings to be read."""

    def __getattr__(self, name: str) -> Self:
        return self

    def __call__(self, *_: object) -> Self:
        return self

    def __iter__(self) -> Iterator[Never]:
        return iter(())


class _AbsentModule(ModuleType):
    def __getattr__(self, name: str) -> _Absent:
        return _Absent()


if find_spec("llama_cpp") is None:
    sys.modules["llama_cpp"] = _AbsentModule("llama_cpp")


_AS_WRITTEN: dict[str, list[str]] = {}


def keep(_app: Sphinx, what: str, name: str, _value: object, _options: object, lines: list[str]) -> None:
    """Keep an attribute's docstring as it was written."""
    if what in {"attribute", "data", "property"}:
        _AS_WRITTEN[name] = list(lines)


def restore(_app: Sphinx, _what: str, name: str, _value: object, _options: object, lines: list[str]) -> None:
    """Put it back: napoleon takes the words before a colon for the attribute's type."""
    lines[:] = _AS_WRITTEN.pop(name, lines)


def setup(app: Sphinx) -> None:
    """Register what runs before napoleon and after it."""
    app.connect("autodoc-process-docstring", keep, priority=1)
    app.connect("autodoc-process-docstring", restore, priority=999)
