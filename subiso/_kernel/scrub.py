"""Making an interpreter fresh again after an isolate, without unloading what is costly or dangerous to load again.

Reset: ``__main__``, the user's modules, ``atexit``, logging, warnings filters, ``sys``'s hooks, streams, paths and
limits, the environment, builtins, ``random``, the default decimal context, copyreg. Thread-locals, context variables
and the decimal context of a thread need nothing: every isolate runs on a new thread. Kept: modules of the standard
library and of installed packages, with their state, and modules that are compiled.
"""

import atexit
import builtins
import gc
import os
import sys
import warnings

from subiso._kernel.interrupt import IsolateKilled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_SYS_LISTS = ("path", "meta_path", "path_hooks", "argv", "warnoptions")
_SYS_VALUES = [
    "stdin",
    "stdout",
    "stderr",
    "excepthook",
    "displayhook",
    "unraisablehook",
    "breakpointhook",
    "dont_write_bytecode",
    "pycache_prefix",
    "tracebacklimit",
    "ps1",
    "ps2",
]
_MISSING = object()


class Farewell:
    """The ``atexit`` of one isolate after another: what is registered runs when the isolate ends.

    What a module registers that stays loaded runs at every end from then on (``logging`` closes its handlers so). But
    what an installed package registers as it is imported may take it apart: that runs when the interpreter ends.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[bool, Callable[..., object], tuple[Any, ...], dict[str, Any]]] = []
        self._register, self._unregister = atexit.register, atexit.unregister
        atexit.register = self.register
        atexit.unregister = self.unregister

    def register(self, func: "Callable[..., Any]", /, *args: "Any", **kwargs: "Any") -> "Callable[..., Any]":
        frame = sys._getframe(1)
        name = frame.f_globals.get("__name__", "")
        if name == "importlib._bootstrap":  # called by a compiled module, which has no frame
            name = getattr(func, "__module__", None) or name
        caller = sys.modules.get(name)
        stays = caller is not None and _is_kept(caller)
        is_importing = frame.f_code.co_name in ("<module>", "_call_with_frames_removed")
        if stays and is_importing and name.partition(".")[0] not in sys.stdlib_module_names:
            self._register(func, *args, **kwargs)
        else:
            self._calls.append((stays, func, args, kwargs))
        return func

    def unregister(self, func: "Callable[..., object]", /) -> None:
        self._unregister(func)
        self._calls = [call for call in self._calls if call[1] != func]

    def run(self) -> None:
        """Call everything that was registered, last first; what raises is reported and does not stop the rest."""
        again = []
        while self._calls:
            call = self._calls.pop()
            stays, func, args, kwargs = call
            if stays:
                again.append(call)
            try:
                func(*args, **kwargs)
            except IsolateKilled:
                pass
            except BaseException:
                sys.excepthook(*sys.exc_info())
        self._calls = again[::-1]


class Baseline:
    """What the interpreter looked like before its first isolate."""

    def __init__(self) -> None:
        self._modules = set(sys.modules)
        self._lists = {name: (getattr(sys, name), list(getattr(sys, name))) for name in _SYS_LISTS}
        self._values = {name: getattr(sys, name, _MISSING) for name in _SYS_VALUES}
        self._limits = sys.getrecursionlimit(), sys.getswitchinterval()
        self._builtins = dict(vars(builtins))
        self._warnings = _warnings_state()
        self._main = sys.modules["__main__"]
        self._empty_main()
        gc.collect()
        gc.freeze()  # so that the collections to come look only at what isolates make

    def restore(self) -> None:
        """Make everything look as it did. No thread of the last isolate may be left."""
        for name, value in self._values.items():
            if value is not _MISSING:
                setattr(sys, name, value)
            elif hasattr(sys, name):
                delattr(sys, name)
        for name, (original, items) in self._lists.items():
            original[:] = items
            setattr(sys, name, original)
        sys.setrecursionlimit(self._limits[0])
        sys.setswitchinterval(self._limits[1])
        vars(builtins).update(self._builtins)
        for name in vars(builtins).keys() - self._builtins.keys():
            del vars(builtins)[name]
        self._forget_modules()
        _reset_libraries()
        _restore_warnings(self._warnings)
        gc.collect()
        gc.freeze()

    def _empty_main(self) -> None:
        for name in [name for name in vars(self._main) if not name.startswith("__")]:
            del vars(self._main)[name]

    def _forget_modules(self) -> None:
        sys.modules["__main__"] = self._main
        self._empty_main()
        for name, module in list(sys.modules.items()):
            if name not in self._modules and not _is_kept(module):
                del sys.modules[name]
        for path in [path for path in sys.path_importer_cache if not _is_installed(path)]:
            del sys.path_importer_cache[path]
        if "linecache" in sys.modules:
            sys.modules["linecache"].clearcache()


def _is_kept(module: "ModuleType | None") -> bool:
    """Return whether a module stays: the standard library's, an installed package's, subiso's, or a compiled one."""
    if module is None:
        return False
    name = getattr(module, "__name__", "")
    if name == "subiso" or name.startswith("subiso."):
        return True
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
    if origin in ("built-in", "frozen"):
        return True
    if origin is None:
        places = list(getattr(module, "__path__", ()))
        return bool(places) and all(_is_installed(place) for place in places)
    return _is_installed(origin) or not origin.endswith((".py", ".pyc"))


def _is_installed(path: str) -> bool:
    return path.startswith(_STDLIB) or "site-packages" in path or "dist-packages" in path


def _warnings_state() -> "tuple[Any, ...]":
    return list(warnings.filters), warnings.showwarning, warnings.formatwarning


def _restore_warnings(state: "tuple[Any, ...]") -> None:
    module: Any = warnings
    filters, module.showwarning, module.formatwarning = state
    module.onceregistry.clear()
    module.simplefilter("default", UserWarning)  # any call that tells the C side that the filters have changed
    module.filters[:] = filters


def _reset_libraries() -> None:
    """Reset what the standard library's modules keep for the whole interpreter."""
    modules: dict[str, Any] = sys.modules
    if "logging" in modules:
        _reset_logging(modules["logging"])
    if "random" in modules:
        modules["random"].seed()
    if "decimal" in modules:
        decimal = modules["decimal"]
        fresh = decimal.Context(
            prec=28, rounding=decimal.ROUND_HALF_EVEN, Emin=-999999, Emax=999999, capitals=1, clamp=0
        )
        fresh.traps.update(dict.fromkeys(fresh.traps, False))
        for signal in (decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow):
            fresh.traps[signal] = True
        for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp"):
            setattr(decimal.DefaultContext, name, getattr(fresh, name))
        decimal.DefaultContext.traps.update(fresh.traps)
    if "socket" in modules:
        modules["socket"].setdefaulttimeout(None)
    if "threading" in modules:
        modules["threading"].settrace(None)
        modules["threading"].setprofile(None)
        modules["threading"].excepthook = modules["threading"].__excepthook__
    if "typing" in modules:
        for forget in getattr(modules["typing"], "_cleanups", ()):
            forget()
    if "subiso.messages" in modules:
        modules["subiso.messages"].reset()
    if "weakref" in modules:
        modules["weakref"].finalize._registered_with_atexit = False


def _reset_logging(logging: "Any") -> None:
    logging.disable(logging.NOTSET)
    logging.setLoggerClass(logging.Logger)
    root = logging.root
    for logger in (root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))):
        logger.handlers.clear()
        logger.filters.clear()
        logger.setLevel(logging.NOTSET if logger is not root else logging.WARNING)
        logger.propagate = True
        logger.disabled = False
    logging._handlers.clear()
    del logging._handlerList[:]
    if logging.lastResort is not None:
        logging._addHandlerRef(logging.lastResort)
    logging.captureWarnings(False)
    logging.raiseExceptions = True
