"""Builtins of their own for subiso's modules, so that an isolate that spoils `builtins` cannot spoil the kernel.

A function looks names up in the builtins that its module had when the function was made; for a module that has
``__builtins__`` before it is executed, these are they. So the modules of this package that are imported in an isolate
get a copy, taken before the isolate's first line. It costs nothing later: to the interpreter one dict is as good as the
other. Only what was imported before `install` (this module and the package itself) has the common builtins.
"""

import sys
from _frozen_importlib_external import _LoaderBasics

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        if not spec.name.startswith(_PREFIX):
            return None
        module = new_module(spec.name)
        module.__dict__["__builtins__"] = own
        return module

    loaders: Any = _LoaderBasics
    loaders.create_module = create_module
