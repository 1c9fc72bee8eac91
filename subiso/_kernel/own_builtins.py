"""Builtins of their own for subiso's modules, so that an isolate that spoils `builtins` cannot spoil the kernel.

A function looks names up in the builtins that its module had when the function was made; for a module that has
``__builtins__`` before it is executed, these are they. So the modules of this package that are imported in an isolate
get a copy, taken before the isolate's first line. It costs nothing later: to the interpreter one dict is as good as the
other. Only what was imported before `install` (this module, the data of packages.py, and the package itself) has the
common builtins.

In the same way single modules of packages get an ``__import__`` of their own, by which what they can do without
(`packages.WITHOUT`) is not there: each isolate would pay for it. Whoever else imports that gets it.
"""

import sys
from _frozen_importlib_external import _LoaderBasics

from subiso._kernel.packages import WITHOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_PREFIX = __name__.partition(".")[0] + "."


def install() -> None:
    """Give each module of this package that is imported from now on builtins that nobody else can change."""
    own = dict(vars(sys.modules["builtins"]))
    new_module = type(sys)

    def create_module(loader: object, spec: "ModuleSpec") -> "ModuleType | None":
        """Take the place of the method of all loaders of Python code, which leaves it to the import machinery."""
        if spec.name.startswith(_PREFIX):
            builtins = own
        elif spec.name in WITHOUT:
            builtins = {**own, "__import__": _import_without(WITHOUT[spec.name], own["__import__"])}
        else:
            return None
        module = new_module(spec.name)
        module.__dict__["__builtins__"] = builtins
        return module

    loaders: Any = _LoaderBasics
    loaders.create_module = create_module


def _import_without(unwanted: str, original: "Callable[..., Any]") -> "Callable[..., Any]":
    """Return an ``__import__`` that does not load the unwanted module; if it is there already, it is welcome."""

    def import_module(name: str, *args: "Any", **kwargs: "Any") -> "Any":
        if name == unwanted and name not in sys.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    return import_module
