"""Python modules that an isolate executes when they are used, or does without: every isolate would pay for them.

Those of `packages.LAZY` are in ``sys.modules`` from their import on, with their names, loader and spec. Whatever else
is asked of one has it executed first, in its place, by its own loader. So nobody can tell, but by its class before that
and by the time when an error in it comes. What the standard library has for this (``importlib.util.LazyLoader``) leaves
a module half made for ever if an isolate is killed meanwhile, executes it at the next ``import`` of it, and waits for a
lock that the import machinery knows nothing of, so that two threads may wait for each other for ever.

Those of `packages.WITHOUT` import one that they can do without. It is not there for them, unless somebody else has
imported it.
"""

import sys
from _frozen_importlib import _DeadlockError, _get_module_lock  # type: ignore[attr-defined]
from _frozen_importlib_external import _LoaderBasics

from subiso._kernel.packages import LAZY, WITHOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from typing import Any

_Module = type(sys)
_GIVEN = frozenset(  # what the import machinery gives a module before it is executed
    ("__class__", "__name__", "__spec__", "__loader__", "__package__", "__path__", "__file__", "__cached__")
)

_executing: set[str] = set()


class LazyModule(_Module):  # type: ignore[misc, valid-type]
    """A module that is not executed yet."""

    def __getattribute__(self, name: str) -> "Any":
        if name not in _GIVEN:
            _execute(self)
        return _Module.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _GIVEN:
            _execute(self)
        _Module.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _execute(self)
        _Module.__delattr__(self, name)


def _execute(module: LazyModule) -> None:
    """Execute the module, unless that has been done, or is being done by this thread.

    What fails, or is torn by a kill, leaves the module as it was, so that whoever asks next begins anew.
    """
    name = module.__name__
    lock = _get_module_lock(name)
    try:
        lock.acquire()  # the import machinery's own, which knows when threads would wait for each other in a circle
    except _DeadlockError:
        return  # like an import then: the module as far as it is
    try:
        if type(module) is not LazyModule or name in _executing:
            return
        attributes = _Module.__getattribute__(module, "__dict__")
        before = dict(attributes)
        _executing.add(name)
        try:
            module.__loader__.exec_module(module)
            module.__class__ = _Module  # type: ignore[assignment]
        except BaseException:
            attributes.clear()
            attributes.update(before)
            raise
        finally:
            _executing.discard(name)
    finally:
        lock.release()


def install() -> None:
    """Have the modules that `packages` names executed late, or imported without others, from now on."""
    loaders: Any = _LoaderBasics
    create, execute = loaders.create_module, loaders.exec_module

    def create_module(loader: object, spec: "ModuleSpec") -> "Any":
        """Take the place of the method of all loaders of Python code."""
        name = spec.name
        if name in LAZY:
            return LazyModule(name)
        module = create(loader, spec)
        if name in WITHOUT:
            module = module or _Module(name)
            own = vars(sys.modules["builtins"])
            module.__dict__["__builtins__"] = {**own, "__import__": _import_without(WITHOUT[name], own["__import__"])}
        return module

    def exec_module(loader: object, module: "Any") -> None:
        """Take the place of the method of all loaders of Python code."""
        if type(module) is not LazyModule or module.__name__ in _executing:
            execute(loader, module)

    loaders.create_module, loaders.exec_module = create_module, exec_module


def _import_without(unwanted: str, original: "Callable[..., Any]") -> "Callable[..., Any]":
    """Return an ``__import__`` that does not load the unwanted module; if it is there already, it is welcome."""

    def import_module(name: str, *args: "Any", **kwargs: "Any") -> "Any":
        if name == unwanted and name not in sys.modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *args, **kwargs)

    return import_module
