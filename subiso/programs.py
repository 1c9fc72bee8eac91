"""Other programs in isolates: a file's or a module's ``main``. Callers use `Isolate.spawn_path` and `spawn_module`.

What can be known without running the program is checked where the call is made; the rest shows in the isolate, and is
an uncaught error of it.
"""

import marshal
import os
import sys

from subiso import messages
from subiso._pickling import references
from subiso.errors import IsolateSpawnError, SendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    from subiso.isolate import Isolate, SpawnOptions


# -- where the call is made --------------------------------------------------------------------------------------------


def spawn_path(
    path: "str | os.PathLike[str]", argv: "Sequence[str]", message: object, options: "SpawnOptions"
) -> "Isolate":
    """See `Isolate.spawn_path`."""
    path = os.fspath(path)
    if not isinstance(path, str):
        raise TypeError(f"the path must be a str or a path-like object, not {path!r}")
    arguments = _checked_argv(argv)
    place = os.path.abspath(path)
    try:
        with open(place, "rb") as file:
            code = compile(file.read(), place, "exec", dont_inherit=True)
    except Exception as error:  # besides OSError and SyntaxError: null bytes, nesting that is too deep
        raise IsolateSpawnError(f"{path}: {_reason(error)}") from error
    return _spawn((run_path, path, place, marshal.dumps(code)), arguments, message, options)


def spawn_module(name: str, argv: "Sequence[str]", message: object, options: "SpawnOptions") -> "Isolate":
    """See `Isolate.spawn_module`."""
    import importlib.util

    if not isinstance(name, str):
        raise TypeError(f"the name of the module must be a str, not {name!r}")
    arguments = _checked_argv(argv)
    if not name or name.startswith(".") or name == "__main__":
        raise IsolateSpawnError(f"{name!r} is not the full name of a module that could be imported")
    try:
        spec = _find(name) or importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"no module named {name!r}")
        get_code = getattr(spec.loader, "get_code", None)
        if get_code is not None:
            get_code(name)
    except Exception as error:  # the packages around the module may have been imported, and may raise anything
        raise IsolateSpawnError(f"{name}: {_reason(error)}") from error
    return _spawn((run_module, name), arguments, message, options)


def _find(name: str) -> "ModuleSpec | None":
    """Find a module without importing the packages around it, as far as that is possible."""
    import importlib.util
    from importlib.machinery import PathFinder

    first, *rest = name.split(".")
    spec = importlib.util.find_spec(first)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec


def _checked_argv(argv: "Sequence[str]") -> list[str]:
    if isinstance(argv, (str, bytes)):
        raise TypeError(f"argv must be a list of strings, not {argv!r}")
    arguments = list(argv)
    for argument in arguments:
        if not isinstance(argument, str):
            raise TypeError(f"argv must hold strings, not {argument!r}")
    return arguments


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def _spawn(program: "tuple[Any, ...]", argv: list[str], message: object, options: "SpawnOptions") -> "Isolate":
    from subiso.isolate import Isolate

    function, *args = program
    try:
        return Isolate.spawn(function, *args, argv, message, **options)
    except SendError as error:
        raise _in_callers_words(error, message) from None


def _in_callers_words(error: SendError, message: object) -> SendError:
    try:
        messages.encode(message)
    except SendError as better:
        return better
    return error


# -- in the isolate ----------------------------------------------------------------------------------------------------


def run_path(path: str, place: str, code: bytes, argv: list[str], message: object) -> object:
    """Be the program in a file, whose code was compiled already."""
    import importlib.util
    from importlib.machinery import SourceFileLoader

    sys.argv = [path, *argv]
    directory = os.path.dirname(place)
    if directory not in sys.path:
        references.private.add(directory)
    sys.path.insert(0, directory)
    name = _name_for(place)
    loader: Any = SourceFileLoader(name, place)  # typeshed asks for a load_module, which 3.15 has no more
    spec = importlib.util.spec_from_file_location(name, place, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(marshal.loads(code), vars(module))
    except Exception as error:
        raise IsolateSpawnError(f"{path}: it cannot be loaded: {_reason(error)}") from error
    return _call_main(module, path, argv, message)


def run_module(name: str, argv: list[str], message: object) -> object:
    """Be the program in a module."""
    import importlib

    sys.argv = [name, *argv]
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise IsolateSpawnError(f"{name}: it cannot be loaded: {_reason(error)}") from error
    sys.argv[0] = getattr(module, "__file__", None) or name
    return _call_main(module, name, argv, message)


def _name_for(place: str) -> str:
    """Return the name that a file's module gets: its own, if that is not another module's that is loaded already."""
    name = os.path.splitext(os.path.basename(place))[0]
    loaded = sys.modules.get(name)
    return name if loaded is None or getattr(loaded, "__file__", None) == place else f"{name}_program"


def _call_main(module: "ModuleType", program: str, argv: list[str], message: object) -> object:
    import inspect

    main: Callable[..., object] | None = getattr(module, "main", None)
    if main is None:
        raise IsolateSpawnError(f"{program}: it has no function main")
    if not callable(main):
        raise IsolateSpawnError(f"{program}: its main is not a function, but {main!r}")
    try:
        signature = inspect.signature(main)
    except (TypeError, ValueError):  # of something compiled
        raise IsolateSpawnError(f"{program}: it is not known what its main takes") from None
    given: tuple[tuple[object, ...], ...] = ((argv, message), (argv,), ())
    for args in given:
        try:
            signature.bind(*args)
        except TypeError:
            continue
        return main(*args)
    raise IsolateSpawnError(f"{program}: main must take (), (argv) or (argv, message), not {signature}")
