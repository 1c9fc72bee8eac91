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

from subiso._kernel import packages
from subiso._kernel.interpreters import IMMORTALS_DRIFT, REFUSING_STDLIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any

    from subiso._kernel.packages import Facts

SWITCH = "SUBISO_EXTENSIONS"
"""The environment variable that sets the policy where the program does not."""

POLICIES = ("private", "off", "all")
"""Third-party modules are loaded from private copies; not at all; or so even if they are known to do harm."""

_ordinary: "dict[type, dict[str, Any]]" = {}  # the methods that install() replaced
_policy: str | None = None


class RefusedExtension(ImportError):  # noqa: N818 - a kind of ImportError, which packages catch by that name
    """A module with compiled code that isolates must not load here; the text says why, and how to allow it."""


def install(policy: str | None = None) -> None:
    """Load C extension modules from private copies from now on, in this interpreter.

    Modules of the standard library load in the ordinary way, except those that refuse isolates. Installing again only
    changes the policy.

    Args:
        policy: one of `POLICIES`. Modules that are refused raise an ImportError that says how to allow them. None
            leaves it to ``SUBISO_EXTENSIONS`` in ``os.environ`` at each import.

    Raises:
        RuntimeError: this is the main interpreter, to which the originals belong.
        ValueError: there is no such policy.
    """
    global _policy
    check_policy(policy)
    with _check_lifted:  # not to be had in main
        _policy = policy
    if not _ordinary:
        _replace(ExtensionFileLoader, {"create_module": _create_module, "exec_module": _exec_module})
        _replace(BuiltinImporter, {"create_module": staticmethod(_create_builtin)})


def check_policy(policy: str | None) -> None:
    """Raise ValueError if there is no such policy."""
    if policy is not None and policy not in POLICIES:
        raise ValueError(f"the policy for extension modules is 'private', 'off' or 'all', not {policy!r}")


def uninstall() -> None:
    """Load extension modules in the ordinary way again; those already loaded stay as they are."""
    while _ordinary:
        importer, methods = _ordinary.popitem()
        for name, method in methods.items():
            setattr(importer, name, method)


def _replace(importer: type, methods: "Mapping[str, object]") -> None:
    _ordinary[importer] = {name: vars(importer)[name] for name in methods}
    for name, method in methods.items():
        setattr(importer, name, method)


def _takes_copy(name: str) -> bool:
    return name in REFUSING_STDLIB or name.partition(".")[0] not in sys.stdlib_module_names


def _facts_of(name: str) -> "Facts":
    """Return what is known of the module, or of a package that it is in."""
    while name and name not in packages.MODULES:
        name = name.rpartition(".")[0]
    return packages.MODULES.get(name, {})


def _create_module(loader: ExtensionFileLoader, spec: "ModuleSpec") -> "ModuleType":
    """Take the place of ``ExtensionFileLoader.create_module``."""
    refusal, takes_copy = _refusal_of(spec.name), _takes_copy(spec.name)
    if refusal or takes_copy:
        from subiso._kernel import loading  # only now: many isolates never need it
    if refusal:
        raise loading.import_error(spec, refusal, RefusedExtension)
    if takes_copy:
        with _check_lifted, loading.Attempt(spec.name, spec.origin):
            module = loading.create(spec)
    else:
        module = _ordinary[ExtensionFileLoader]["create_module"](loader, spec)
    if spec.name == "_ctypes":
        _intercept(module)
    return module


def _intercept(ctypes: "ModuleType") -> None:
    """Have C libraries that must not be shared loaded from copies."""
    from subiso._kernel import libraries

    libraries.intercept(ctypes)


def _refusal_of(name: str) -> str | None:
    """Return why the module may not be loaded here, and what would allow it; None if it may."""
    policy = _policy or os.environ.get(SWITCH) or "private"
    facts = _facts_of(name)
    reason = facts.get("refused") or (IMMORTALS_DRIFT and facts.get("drifts"))
    if reason and policy != "all":
        return f"isolates do not load it, because {reason}; set {SWITCH}=all to load it nevertheless"
    if policy == "off" and _takes_copy(name) and name not in REFUSING_STDLIB:
        return (
            "isolates load such modules from private copies, which is switched off: "
            f"unset {SWITCH}, call subiso.configure(extensions='private'), or give the isolate or pool "
            "extensions='private', to allow it"
        )
    return None


def _exec_module(loader: ExtensionFileLoader, module: "ModuleType") -> None:
    """Take the place of ``ExtensionFileLoader.exec_module``."""
    execute = _ordinary[ExtensionFileLoader]["exec_module"]
    if not _takes_copy(loader.name):
        execute(loader, module)
        return
    from subiso._kernel import loading

    with _check_lifted, loading.Attempt(loader.name, loader.path):
        execute(loader, module)
    if needless := packages.MODULES.get(loader.name, {}).get("warning"):
        import warnings

        warnings.filterwarnings("ignore", needless, UserWarning)


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


# -- stand-ins for built-in modules that refuse isolates ---------------------------------------------------------------


def _create_builtin(spec: "ModuleSpec") -> "ModuleType | None":
    """Take the place of ``BuiltinImporter.create_module``."""
    if spec.name not in packages.STAND_INS:
        original = _ordinary[BuiltinImporter]["create_module"].__func__(spec)
        if spec.name == "_ctypes":
            _intercept(original)
        return original  # type: ignore[no-any-return]
    module = type(sys)(spec.name, "Does nothing in an isolate: what it controls belongs to the process.")
    for names, result in packages.STAND_INS[spec.name]:
        for name in names.split():
            setattr(module, name, _returning(result))
    return module


def _returning(result: object) -> "Callable[..., object]":
    return lambda *_, **__: result
