"""Making an interpreter fresh again after an isolate, without unloading what is costly or dangerous to load again.

Reset: ``__main__``, the user's modules, all attributes of `sys`, `builtins` and of what else the kernel itself relies
on (`_RELIED_ON`), limits, the garbage collector, monitoring tools, warnings filters, copyreg, ``atexit``, and what the
standard library's modules keep for the whole interpreter (leftovers.py). Thread-locals, context variables, and the
decimal context of a thread need nothing: every isolate runs on a new thread. Kept: modules of the standard library and
of installed packages, with their other state, and modules that are compiled.

What cannot be taken back costs the interpreter: it is not used again (`Baseline.spoil`).
"""

import _codecs
import abc
import atexit
import builtins
import codecs
import copyreg
import gc
import os
import sys
import warnings
from _frozen_importlib_external import FileFinder
from time import time

from subiso._kernel import leftovers
from subiso._kernel.interrupt import IsolateKilled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType
    from typing import Any

_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_SYS_LISTS = ("path", "meta_path", "path_hooks", "argv", "orig_argv", "warnoptions")
_SYS_SETTINGS = (  # the ends of the names of two functions, which get and set
    *("recursionlimit", "switchinterval", "_int_max_str_digits", "dlopenflags"),
    *("_lazy_imports", "_lazy_imports_filter"),
)
_RELIED_ON = (  # what patches in these could do to the kernel or to later isolates is worse than elsewhere
    *("_codecs", "_pickle", "_struct", "_thread", "_warnings", "abc", "atexit", "builtins", "codecs", "copyreg", "gc"),
    *("mmap", "os", "os.path", "posix", "select", "struct", "threading", "time", "types", "warnings"),
)
_COARSENESS = 5.0  # seconds by which a file system's times may be rounded, and its clock be wrong
_MOST_FINDERS = 200
_MISSING = object()
_TOOLS = range(6)  # of sys.monitoring


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
        stays = _is_kept(sys.modules.get(name))
        is_importing = frame.f_code.co_name in ("<module>", "_call_with_frames_removed")
        if stays and is_importing and name.partition(".")[0] not in sys.stdlib_module_names:
            self._register(func, *args, **kwargs)
        else:
            self._calls.append((stays, func, args, kwargs))
        return func

    def unregister(self, func: "Callable[..., object]", /) -> None:
        self._unregister(func)
        self._calls = [call for call in self._calls if call[1] != func]

    def run(self, baseline: "Baseline") -> None:
        """Call everything that was registered, last first; what raises is reported and does not stop the rest.

        Args:
            baseline: is mended afterwards, if anything was called.
        """
        if not self._calls:
            return
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
        baseline.mend()


class Baseline:
    """What the interpreter looked like before its first isolate."""

    def __init__(self) -> None:
        self._spoilt: str | None = None
        self._is_mended = False  # since the isolate's end: it touches so much memory that once is enough
        self._watch_what_is_for_ever()
        leftovers.watch()
        relied_on = (sys.monitoring, *(sys.modules[name] for name in _RELIED_ON if name in sys.modules))
        self._attributes = [(vars(module), dict(vars(module))) for module in relied_on]
        self._complete = [(vars(module), dict(vars(module))) for module in (builtins, sys)]
        self._lists = [(one, list(one)) for one in (*(getattr(sys, name) for name in _SYS_LISTS), gc.callbacks)]
        self._settings = [
            (getattr(sys, "set" + name), getattr(sys, "get" + name)())
            for name in _SYS_SETTINGS
            if hasattr(sys, "set" + name)
        ]
        self._collector = gc.isenabled(), gc.get_threshold(), gc.get_debug()
        self._reducers = dict(copyreg.dispatch_table)
        self._warnings = list(warnings.filters)
        self._all_modules = sys.modules
        self._main = vars(sys.modules["__main__"])
        self._empty_main = {name: value for name, value in self._main.items() if name.startswith("__")}
        self._forget_main()
        self._modules = dict(sys.modules)
        self._loaders = vars(sys.path_importer_cache[os.path.dirname(_STDLIB)]).get("_loaders", _MISSING)
        self._began = time()  # the life of the next isolate, at the earliest
        gc.collect()
        gc.freeze()  # so that the collections to come look only at what isolates make

    def spoil(self, reason: str) -> None:
        """Have the interpreter not used again."""
        self._spoilt = reason

    def mend(self) -> None:
        """Put back what the kernel relies on, so that it can go on; of the isolate's code only atexit functions run."""
        for place, attributes in self._attributes:
            place.update(attributes)
        self._is_mended = True

    def restore(self, silently: bool = False) -> None:
        """Make everything look as it did. No thread of the last isolate may be left.

        Args:
            silently: whether what is collected may not complain (a coroutine that never ran, a loop half made):
                whoever killed the isolate knows that it was not done.

        Raises:
            RuntimeError: something cannot be taken back.
        """
        if sys.modules is not self._all_modules:
            self.spoil("sys.modules was replaced")
        if not self._is_mended:
            self.mend()
        self._is_mended = False
        vars(sys).update(self._complete[1][1])
        if self._spoilt:
            raise RuntimeError(self._spoilt)
        if sys.gettrace() or sys.getprofile():  # of the kernel's thread: set for all threads
            sys.settrace(None)
            sys.setprofile(None)
        _free_tools()
        for original, items in self._lists:
            original[:] = items
        for place, attributes in self._complete:
            for name in place.keys() - attributes.keys():
                if type(place[name]).__name__ != "PyCapsule":  # what extensions share with each other
                    del place[name]
        for set_one, value in self._settings:
            set_one(value)
        if silently:
            warnings.simplefilter("ignore")
            sys.unraisablehook = lambda _: None
        self._reset_collector()
        self._forget_modules()
        self._forget_finders()
        leftovers.reset(_is_kept)
        self._restore_reducers()
        if silently:
            gc.collect()
            sys.unraisablehook = sys.__unraisablehook__
        self._restore_warnings()
        gc.collect()
        gc.freeze()

    def _watch_what_is_for_ever(self) -> None:
        """Notice calls of functions whose effects cannot be taken back, unless a package that stays makes them."""
        for module, name in (
            *((sys, "addaudithook"), (codecs, "register"), (codecs, "register_error")),
            *((_codecs, "register"), (_codecs, "register_error")),
        ):
            setattr(module, name, self._watched(getattr(module, name)))
        register: Any = abc.ABCMeta.register

        def register_subclass(cls: "Any", subclass: "Any") -> "Any":
            """Register a virtual subclass of an ABC."""
            if _outlives(cls) and _outlives(subclass) and not _is_kept_code(sys._getframe(1)):
                self.spoil(f"{subclass!r} was registered with {cls!r}")
            return register(cls, subclass)

        abc.ABCMeta.register = register_subclass  # type: ignore[method-assign]

    def _watched(self, function: "Callable[..., Any]") -> "Callable[..., Any]":
        def call(*args: "Any", **kwargs: "Any") -> "Any":
            if not _is_kept_code(sys._getframe(1)):
                self.spoil(f"{function.__name__} was called")
            return function(*args, **kwargs)

        call.__name__ = call.__qualname__ = function.__name__
        call.__doc__ = function.__doc__
        return call

    def _reset_collector(self) -> None:
        enabled, thresholds, debug = self._collector
        (gc.enable if enabled else gc.disable)()
        gc.set_threshold(*thresholds)
        gc.set_debug(debug)
        gc.garbage.clear()

    def _forget_main(self) -> None:
        for name in self._main.keys() - self._empty_main.keys():
            del self._main[name]
        self._main.update(self._empty_main)

    def _forget_modules(self) -> None:
        """Forget the user's modules, and put those back that were loaded before, whatever stands in their place."""
        modules, known = sys.modules, self._modules
        modules.update(known)
        self._forget_main()
        for name, module in list(modules.items()):
            if name not in known and not _is_kept(module):
                del modules[name]
        # Parts of a package whose own import was cut short, by a kill or an error: imported again, it would find
        # them there, and not be given them as its attributes. A part in C cannot be loaded again, and may know others
        # that are gone.
        for name in sorted(modules.keys() - known.keys()):
            package = name.rpartition(".")[0]
            if package and package not in modules:
                if not str(getattr(modules[name], "__file__", "")).endswith(".py"):
                    raise RuntimeError(f"{name} is there, and its package is not")
                del modules[name]
        self._modules = dict(modules)

    def _forget_finders(self) -> None:
        """Have the user's part of the path searched anew.

        To list a directory takes longer than all the rest of a start. One that had not changed for a while when this
        life began keeps its finder, which looks at the directory's time of change at each import: a later change cannot
        have the same time, however coarse the file system's clock is.
        """
        finders = sys.path_importer_cache
        for path in [path for path in finders if not _is_installed(path)]:
            many = len(finders) > _MOST_FINDERS
            if many or not (self._is_ordinary(finders[path]) and self._is_settled(path)):
                del finders[path]
        self._began = time()

    def _is_ordinary(self, finder: "Any") -> bool:
        return type(finder) is FileFinder and vars(finder).get("_loaders") == self._loaders

    def _is_settled(self, path: str) -> bool:
        try:
            return os.stat(path).st_mtime + _COARSENESS < self._began
        except OSError:
            return False

    def _restore_reducers(self) -> None:
        """Forget how to pickle what is not there any more; what packages told copyreg stays."""
        reducers = copyreg.dispatch_table
        for kind, reducer in list(reducers.items()):
            if not (_outlives(kind) and _outlives(reducer)):
                del reducers[kind]
        reducers.update(self._reducers)

    def _restore_warnings(self) -> None:
        module: Any = warnings
        module.onceregistry.clear()
        module.simplefilter("default", UserWarning)  # any call that tells the C side that the filters have changed
        module.filters[:] = self._warnings


def _free_tools() -> None:
    """Take the monitoring tools back that the isolate did not give back."""
    monitoring = sys.monitoring
    for tool in _TOOLS:
        if monitoring.get_tool(tool) is None:
            continue
        if hasattr(monitoring, "clear_tool_id"):
            monitoring.clear_tool_id(tool)
        else:
            monitoring.set_events(tool, 0)
            for event in vars(monitoring.events).values():
                if isinstance(event, int) and event.bit_count() == 1:
                    monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


def _outlives(thing: "Any") -> bool:
    """Return whether a class or function is of a module that outlives the isolate."""
    name = getattr(thing, "__module__", None)
    return isinstance(name, str) and _is_kept(sys.modules.get(name))


def _is_kept_code(frame: "FrameType") -> bool:
    """Return whether the code that runs in a frame is of a module that outlives the isolate."""
    return _is_kept(sys.modules.get(frame.f_globals.get("__name__", "")))


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
