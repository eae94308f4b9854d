"""Sphinx configuration. Build with `python -m sphinx -W -n docs docs/_build`; nothing is fetched from the network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import trio_dicom
from trio_dicom._version import __version__

project = "trio_dicom"
author = "The trio_dicom developers"
copyright = author
release = version = __version__

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "tests")]  # for the extension of ours, which shows rows of the tests
extensions = ["sphinx.ext.autodoc", "sphinxcontrib_trio", "fault_rows"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["faults.css"]
html_title = f"trio_dicom {release}"

default_role = "code"  # the docstrings' `names`
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

# Without inventories of other projects only our own names can be looked up, and those must be found.
nitpick_ignore_regex = [
    ("py:.*", r"(?!trio_dicom\b).*"),
    ("py:class", r"trio_dicom\.services\.progress\.(Value|Progress.*Channel)"),
]


def from_the_facade(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Annotations name a class by the module that defines it, the documentation by where users import it from."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in getattr(trio_dicom, "__all__", ()):
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"trio_dicom.{name}", node, contnode)


def with_plain_defaults(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """A default that attrs makes anew each time is not to be shown as attrs' own NOTHING."""
    return (signature.replace("=NOTHING", "=..."), returns) if signature else None


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", with_plain_defaults)
    app.connect("missing-reference", from_the_facade)
