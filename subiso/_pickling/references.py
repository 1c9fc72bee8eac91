"""Which functions, classes and modules the other side will find under their names.

An isolate starts with its creator's ``sys.path``. So the path is searched for a module as it will be searched there,
and the file that is found must be the one that the module was loaded from.
"""

import sys
from _frozen_importlib import BuiltinImporter, FrozenImporter
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PACKAGE = __name__.partition(".")[0]
_STANDARD_FINDERS = (BuiltinImporter, FrozenImporter, PathFinder)

private: set[str] = set()
"""Entries of this interpreter's ``sys.path`` that others do not have: what lies there they will not find."""

_paths: list[str] = []  # sys.path as it was when the next line's facts were found
_reachable: dict[str, tuple[object, bool]] = {}  # module's name -> the module, whether it will be found
_references: dict[int, object] = {}  # id of each function and class that was found -> itself


def is_reference(obj: "Any", name: str | None = None) -> bool:
    """Return whether the other side will find the same object, in the same file, under its name.

    A function or class that was found is remembered. If its name means something else by now, pickling it fails, and
    `forget` helps.
    """
    if name is None and id(obj) in _references and sys.path == _paths:
        return True
    module_name = getattr(obj, "__module__", None)
    if not isinstance(module_name, str) or module_name not in sys.modules:
        return False
    module = found = sys.modules[module_name]
    try:
        for part in (name or obj.__qualname__).split("."):
            found = getattr(found, part)
    except Exception:  # modules and classes may run code to give an attribute
        return False
    if found is not obj or not is_reachable(module_name, module):
        return False
    if name is None:
        _references[id(obj)] = obj
    return True


def forget() -> bool:
    """Forget which functions and classes were found; return whether there were any."""
    remembered = bool(_references)
    _references.clear()
    return remembered


def is_reachable(name: str, module: object) -> bool:
    """Return whether importing ``name`` elsewhere, with this ``sys.path``, gives a module of the same file."""
    if sys.path != _paths:
        _forget_all()
        _paths[:] = sys.path
    known = _reachable.get(name)
    if known is not None and known[0] is module:
        return known[1]
    answer = _is_reachable(name, module)
    _reachable[name] = module, answer
    return answer


def _is_reachable(name: str, module: "Any") -> bool:
    top, _, rest = name.partition(".")
    if name in ("__main__", "__mp_main__") or sys.modules.get(name) is not module:
        return False
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
    if top == _PACKAGE or origin in ("built-in", "frozen"):
        return True
    if origin is None and getattr(spec, "submodule_search_locations", None) is None:  # nor is it a namespace package
        return top in sys.stdlib_module_names
    search_in = [entry for entry in sys.path if entry not in private] if private else None
    if rest:
        parent_name = name.rpartition(".")[0]
        parent = sys.modules.get(parent_name)
        if parent is None or not is_reachable(parent_name, parent):
            return False
        search_in = getattr(parent, "__path__", None)
    return any(_finds(finder, name, search_in, origin) for finder in _finders())


def _finders() -> "list[Any]":
    """Return the finders by which modules of files are found: the path's, and those of editable installs."""
    return [PathFinder, *(finder for finder in sys.meta_path if finder not in _STANDARD_FINDERS)]


def _finds(finder: "Any", name: str, search_in: "Any", origin: str | None) -> bool:
    try:
        spec = finder.find_spec(name, search_in)
    except Exception:  # whatever a finder of the user's may raise: it does not find it
        return False
    if spec is None:
        return False
    if origin is None or spec.origin is None:
        return bool(origin == spec.origin)
    return spec.origin == origin or _is_same_file(spec.origin, origin)


def _is_same_file(one: str, other: str) -> bool:
    import os

    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def reset() -> None:
    """Forget everything about one life of the interpreter."""
    private.clear()
    _forget_all()


def _forget_all() -> None:
    _reachable.clear()
    _references.clear()
    _paths.clear()
