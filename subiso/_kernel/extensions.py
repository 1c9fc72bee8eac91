"""Private copies of C extension modules, so that isolates can use extensions that know nothing of isolates.

Most extension modules keep state in C statics. Loaded once for the process, they would be shared by isolates that run
at the same time under GILs of their own, so CPython refuses them. Here every isolate loads a copy of the shared object
under a path of its own: to the dynamic linker that is another library, with statics of its own.

What to do is decided before anything is loaded. Trying the ordinary way first would leave traces: a refused module has
already run its init function, in statics that main uses too.

The two importers of C modules are changed in place, in this interpreter only: so every way to a module is covered (the
path, an editable install's finder, ``spec_from_file_location``), and its ``__spec__`` and ``__loader__`` are as always.
"""

import _imp
import _thread
import os
import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader

from subiso._kernel import copies, elf
from subiso._kernel.interpreters import COPIES_BY_PYINIT, REFUSING_STDLIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any

SWITCH = "SUBISO_EXTENSIONS"
"""The environment variable that allows (``private``) or forbids (``off``) private copies of third-party modules."""

_RTLD_NOLOAD = 4  # only if it is loaded already
_NO_MODULE = "subiso_loads_no_module"  # a name for which no library has an init function

_MAIN_ONLY = {"readline": "its library drives the process's terminal, without a thought for threads"}
"""Module of the standard library -> why no isolate can have it; whoever imports it does without."""

_NEEDLESS_WARNINGS = dict.fromkeys(
    ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"),
    "NumPy was imported from a Python sub-interpreter",
)
"""Module -> the warning that follows its loading; it is about state that main shares, which a private copy does not."""

_ordinary: "dict[type, dict[str, Any]]" = {}  # the methods that install() replaced
_policy: str | None = None
_libraries: "dict[tuple[str, str], Any]" = {}  # (module, original) -> this interpreter's copy: its path or its handle
_single_phase: "dict[tuple[str, str], ModuleType]" = {}


def install(policy: str | None = None) -> None:
    """Load C extension modules from private copies from now on, in this interpreter.

    Modules of the standard library load in the ordinary way, except those that refuse isolates. Installing again only
    changes the policy.

    Args:
        policy: ``"private"``, or ``"off"`` to refuse third-party extension modules with an ImportError that says how to
            allow them. None leaves it to ``SUBISO_EXTENSIONS`` in ``os.environ`` at each import.

    Raises:
        RuntimeError: this is the main interpreter, to which the originals belong.
        ValueError: there is no such policy.
    """
    global _policy
    if policy not in (None, "private", "off"):
        raise ValueError(f"the policy is 'private' or 'off', not {policy!r}")
    with _check_lifted:  # not to be had in main
        _policy = policy
    if not _ordinary:
        _replace(ExtensionFileLoader, {"create_module": _create_module, "exec_module": _exec_module})
        _replace(BuiltinImporter, {"create_module": staticmethod(_create_builtin)})


def uninstall() -> None:
    """Load extension modules in the ordinary way again; those already loaded stay as they are."""
    while _ordinary:
        importer, methods = _ordinary.popitem()
        for name, method in methods.items():
            setattr(importer, name, method)


class RefusedExtension(ImportError):  # noqa: N818 - a kind of ImportError, which packages catch by that name
    """A module with compiled code that isolates must not load here; the text says why, and how to allow it."""


def address_of_original(path: str) -> int | None:
    """Return where in memory the library of that path lies, or None if the process has not loaded it."""
    from subiso._kernel import capi, sharing

    try:
        return sharing.base_of(capi.load(path, _RTLD_NOLOAD | os.RTLD_LAZY))
    except OSError:
        return None


def loaded() -> list[tuple[str, str, int]]:
    """Tell of each module that this interpreter has loaded from a private copy: its name, its original, its address."""
    from subiso._kernel import capi, sharing

    found = []
    for (name, original), library in _libraries.items():
        handle = library if COPIES_BY_PYINIT else capi.load(library, _RTLD_NOLOAD | os.RTLD_LAZY)
        found.append((name, original, sharing.base_of(handle)))
    return found


def _replace(importer: type, methods: "Mapping[str, object]") -> None:
    _ordinary[importer] = {name: vars(importer)[name] for name in methods}
    for name, method in methods.items():
        setattr(importer, name, method)


def _takes_copy(name: str) -> bool:
    return name in REFUSING_STDLIB or name.partition(".")[0] not in sys.stdlib_module_names


def _create_module(loader: ExtensionFileLoader, spec: "ModuleSpec") -> "ModuleType":
    """Take the place of ``ExtensionFileLoader.create_module``."""
    if spec.name in _MAIN_ONLY:
        raise _import_error(spec, _MAIN_ONLY[spec.name])
    if not _takes_copy(spec.name):
        return _ordinary[ExtensionFileLoader]["create_module"](loader, spec)  # type: ignore[no-any-return]
    if (_policy or os.environ.get(SWITCH)) == "off" and spec.name not in REFUSING_STDLIB:
        raise _import_error(
            spec, f"isolates load such modules from private copies, which is switched off: unset {SWITCH} to allow it"
        )
    with _check_lifted, _Attempt(spec.name, spec.origin):
        return _create_by_pyinit(spec) if COPIES_BY_PYINIT else _create_by_import(spec)


def _exec_module(loader: ExtensionFileLoader, module: "ModuleType") -> None:
    """Take the place of ``ExtensionFileLoader.exec_module``."""
    execute = _ordinary[ExtensionFileLoader]["exec_module"]
    if not _takes_copy(loader.name):
        execute(loader, module)
        return
    with _check_lifted, _Attempt(loader.name, loader.path):
        execute(loader, module)
    if loader.name in _NEEDLESS_WARNINGS:
        import warnings

        warnings.filterwarnings("ignore", _NEEDLESS_WARNINGS[loader.name], UserWarning)


class _CheckLifted:
    """Lifts this interpreter's check for modules that refuse isolates, as long as any of its threads is in the block.

    It must stay lifted while a module initialises itself: some create submodules meanwhile, which are checked too.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._depth = 0
        self._before = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._before = _imp._override_multi_interp_extensions_check(-1)  # type: ignore[attr-defined]
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                _imp._override_multi_interp_extensions_check(self._before)  # type: ignore[attr-defined]


_check_lifted = _CheckLifted()


class _Attempt:
    """Forgets the copy if the module's initialisation fails: who imports it again gets another, with statics unspoilt.

    So an interpreter in which an isolate was killed while it imported something is as good as new for the next one.
    """

    def __init__(self, name: str, original: str | None) -> None:
        self._key = name, str(original)

    def __enter__(self) -> None:
        pass

    def __exit__(self, failed: object, *_: object) -> None:
        if failed:
            _libraries.pop(self._key, None)


def _import_error(spec: "ModuleSpec", text: str) -> ImportError:
    return ImportError(f"C extension module {spec.name!r}: {text}", name=spec.name, path=spec.origin)


# -- loading a copy ----------------------------------------------------------------------------------------------------


def _create_by_import(spec: "ModuleSpec") -> "ModuleType":
    """Create the module by the import machinery, which runs its init function in this interpreter (before 3.13)."""
    key = spec.name, str(spec.origin)

    def create(path: str) -> "ModuleType":
        flags = sys.getdlopenflags()
        sys.setdlopenflags(flags & ~os.RTLD_GLOBAL)
        try:
            module = _imp.create_dynamic(ModuleSpec(spec.name, spec.loader, origin=path))
        finally:
            sys.setdlopenflags(flags)
        _libraries[key] = path
        return module

    if key in _libraries:  # imported again: the linker and the machinery know the library by its path, file or no file
        module = create(_libraries[key])
    else:
        with _Copy(spec) as copy:
            module = create(copy.path)
    module.__file__ = spec.origin
    return module


def _create_by_pyinit(spec: "ModuleSpec") -> "ModuleType":
    """Create the module by calling its init function; the import machinery would run it in main (since 3.13)."""
    from subiso._kernel import capi, pyinit

    key = spec.name, str(spec.origin)
    if key in _single_phase:
        return _single_phase[key]
    if key not in _libraries:
        with _Copy(spec) as copy:
            _libraries[key] = capi.load(copy.path, sys.getdlopenflags() & ~os.RTLD_GLOBAL)
            copy.share(_libraries[key])
    module, is_single_phase = pyinit.create(_libraries[key], spec)
    if is_single_phase:
        _single_phase[key] = module
    return module


class _Copy:
    """A copy of a module's file, there for a ``with`` block that loads it from `path`.

    It must not be loaded ``RTLD_GLOBAL``: the statics of the next isolate's copy would be bound to its own.

    A library bundled beside the module stays one for the process, found by its SONAME. If it calls the C API itself, it
    must be copied for the isolate too, under another SONAME that the module's copy asks for: here is the place.

    Raises:
        ImportError: the copy cannot be made, or the linker refuses it.
    """

    def __init__(self, spec: "ModuleSpec") -> None:
        self._spec, self._original = spec, str(spec.origin)

    def __enter__(self) -> "_Copy":
        try:
            self._source = os.open(self._original, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._image = elf.read(self._source)
                if self._image.needs_origin:
                    _keep_libraries(self._original)
                self.path = copies.make(self._source, self._spec.name)
            except BaseException:
                os.close(self._source)
                raise
        except OSError as error:
            text = f"a private copy of it cannot be made ({error}): {copies.advice()}"
            raise _import_error(self._spec, text) from error
        return self

    def share(self, handle: int) -> None:
        """Have the loaded copy use the original's memory for what is never written."""
        if self._image.is_position_independent:
            from subiso._kernel import sharing

            target = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                sharing.share(handle, self._image, self._source, target)
            finally:
                os.close(target)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        os.close(self._source)
        copies.discard(self.path)
        if isinstance(error, (ImportError, OSError)) and self.path in str(error):  # the linker's, about the copy
            text = str(error).replace(self.path, self._original)
            if "failed to map segment" in text:  # as it does where files must not be executed
                text = f"its private copy {self.path} cannot be loaded: {copies.advice()}"
            raise _import_error(self._spec, text) from error


def _keep_libraries(original: str) -> None:
    """Bring the libraries that the original finds beside itself into the process, without initialising a module.

    An import does so before it misses the init function. A copy lies elsewhere, but the dynamic linker then sees that
    libraries of the names it asks for are loaded.
    """
    try:
        _imp.create_dynamic(ModuleSpec(_NO_MODULE, None, origin=original))
    except ImportError:
        pass  # always; if the original cannot be loaded, the copy's own error tells


# -- stand-ins for built-in modules that refuse isolates ---------------------------------------------------------------


def _create_builtin(spec: "ModuleSpec") -> "ModuleType | None":
    """Take the place of ``BuiltinImporter.create_module``."""
    if spec.name not in _STAND_INS:
        return _ordinary[BuiltinImporter]["create_module"].__func__(spec)  # type: ignore[no-any-return]
    module = type(sys)(spec.name, "Does nothing in an isolate: what it controls belongs to the process.")
    for names, result in _STAND_INS[spec.name]:
        for name in names.split():
            setattr(module, name, _returning(result))
    return module


def _returning(result: object) -> "Callable[..., object]":
    return lambda *_, **__: result


_STAND_INS: "dict[str, tuple[tuple[str, object], ...]]" = {  # module -> its functions, and what they return
    "faulthandler": (
        ("enable disable register dump_traceback dump_traceback_later cancel_dump_traceback_later dump_c_stack", None),
        ("is_enabled unregister", False),
    ),
    "_tracemalloc": (
        ("start stop clear_traces reset_peak _get_object_traceback", None),
        ("is_tracing", False),
        ("get_traceback_limit", 1),
        ("get_tracemalloc_memory", 0),
        ("get_traced_memory", (0, 0)),
        ("_get_traces", ()),
    ),
}
