"""Sphinx's configuration."""

import os
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


def setup(app):
    """Called by Sphinx."""
    app.connect("missing-reference", resolve_public_name)
