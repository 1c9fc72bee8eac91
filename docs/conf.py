"""Sphinx's configuration."""

import os
import re
from importlib.metadata import version as installed_version

project = "subiso"
author = "The subiso contributors"
release = version = installed_version("subiso")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "explanation/proofs"]
html_theme = "furo"
html_title = "subiso"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["subiso.css"]
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100

nitpick_ignore_regex = [("py:.*", r"subiso\._.*")]  # what is private is not documented
# Links into other projects' documentation need the network. Without them only our own names can be checked.
if os.environ.get("SUBISO_DOCS_LINKS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "msgspec": ("https://jcristharif.com/msgspec", None),
    }
else:
    nitpick_ignore_regex += [("py:.*", r"(?!subiso\b).*")]


def resolve_public_name(app, env, node, content):
    """Resolve ``subiso.ports.SendPort`` and ``SendPort`` alike to the documented ``subiso.SendPort``."""
    if node.get("refdomain") != "py":
        return None
    parts = node["reftarget"].split(".")
    domain = env.get_domain("py")
    for start in range(len(parts)):
        name = ".".join(["subiso", *parts[start:]])
        found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)
        if found is not None:
            return found
    return None


def keep_colons(app, what, name, obj, options, lines):
    """Keep Napoleon from taking what precedes a colon in an attribute's first line for its type."""
    if what in {"attribute", "data", "property"} and lines and ":" in lines[0]:
        lines[:0] = ["..", ""]  # an empty comment


def shorten_signature(app, what, name, obj, options, signature, returns):
    """Leave out what only serves error messages, and write ``*args: *Ts`` as the source does."""
    if signature:
        signature = re.sub(r", \*\*unknown: [\w.~']+", "", signature)
        signature = re.sub(r"\*args: [\w.~]*Unpack\[[\w.~]*Ts\]", "*args: *Ts", signature)
    return signature, returns


def setup(app):
    """Called by Sphinx."""
    app.connect("missing-reference", resolve_public_name)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # Napoleon has 500
    app.connect("autodoc-process-signature", shorten_signature)
