"""Creating a C extension module by calling its init function from this very interpreter.

The import machinery of 3.13 and later runs the init function of a single-phase module in main first, which puts the
module's objects on main's heap. Called directly, it puts them on this interpreter's; what the machinery would have done
besides is done here.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_PYTHON_API_VERSION = 1013  # what PyModule_FromDefAndSpec2 takes, since Python 3.0
_Module, _BuiltinFunction = type(sys), type(len)
_functions: "_Functions | None" = None


class _Functions:
    """The C functions needed, over ``_ctypes`` alone: importing ``ctypes`` takes four times as long."""

    def __init__(self) -> None:
        import _ctypes

        def kind(code: str) -> "Any":
            return type("Value", (_ctypes._SimpleCData,), {"_type_": code})

        def returning(value: "Any") -> "Any":
            flags = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
            return type("Function", (_ctypes.CFuncPtr,), {"_flags_": flags, "_restype_": value})

        def function(result: "Any", name: str, *arguments: "Any") -> "Any":
            found = result(_ctypes.dlsym(process, name))
            found.argtypes = arguments
            return found

        self.dlopen, self.dlsym, self.object_at = _ctypes.dlopen, _ctypes.dlsym, _ctypes.PyObj_FromPtr
        thing, address, number = kind("O"), kind("P"), kind("i")
        self.thing, self.returning_address = thing, returning(address)
        process = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
        returning_thing = returning(thing)
        self.from_def = function(returning_thing, "PyModule_FromDefAndSpec2", thing, thing, number)
        self.def_of = function(self.returning_address, "PyModule_GetDef", thing)
        self.find_module = function(self.returning_address, "PyState_FindModule", address)
        self.add_module = function(self.returning_address, "PyState_AddModule", thing, address)
        self.release = function(self.returning_address, "Py_DecRef", address)
        try:
            self.from_slots = function(returning_thing, "PyModule_FromSlotsAndSpec", address, thing)
        except OSError:  # a Python without PEP 793
            self.from_slots = None


def load(path: str) -> int:
    """Load the library and return the dynamic linker's handle of it.

    Raises:
        OSError: the dynamic linker refuses; the text is its own.
    """
    return _c().dlopen(path, sys.getdlopenflags())


def create(handle: int, spec: "ModuleSpec") -> "tuple[ModuleType, bool]":
    """Create the module that a loaded library holds under the spec's name.

    Returns the module, and whether it is of the single-phase kind, which is complete and must not be created twice.

    Raises:
        ImportError: the library has no init function for that name.
        SystemError: the init function keeps no rules.
        Exception: whatever the init function raises.
    """
    c = _c()
    suffix = _export_suffix(spec.name)
    if c.from_slots is not None and (export := _symbol(handle, "PyModExport" + suffix)):
        export_slots = c.returning_address(export)
        export_slots.argtypes = (c.thing,)
        return c.from_slots(export_slots(spec), spec), False
    if not (init := _symbol(handle, "PyInit" + suffix)):
        text = f"dynamic module does not define module export function (PyInit{suffix})"
        raise ImportError(text, name=spec.name, path=spec.origin)
    modules_before = set(sys.modules)
    address = c.returning_address(init)()
    if address is None:
        raise SystemError(f"initialization of {spec.name} failed without raising an exception")
    result = c.object_at(address)
    if type(result).__name__ == "moduledef":  # PyInit lends the definition, and gives a module away
        return c.from_def(result, spec, _PYTHON_API_VERSION), False
    c.release(address)
    if not isinstance(result, _Module):
        raise SystemError(f"initialization of {spec.name} did not return an extension module")  # noqa: TRY004 - as CPython
    _complete(result, spec.name, modules_before)
    return result, True


def _c() -> _Functions:
    global _functions
    if _functions is None:
        _functions = _Functions()
    return _functions


def _export_suffix(name: str) -> str:
    """Return what follows ``PyInit`` in the name of the module's init function (PEP 489)."""
    last = name.rpartition(".")[2]
    if last.isascii():
        return "_" + last
    return "U_" + last.encode("punycode").decode("ascii").replace("-", "_")


def _symbol(handle: int, name: str) -> int:
    try:
        return _c().dlsym(handle, name)
    except OSError:
        return 0


def _complete(module: "ModuleType", full_name: str, modules_before: set[str]) -> None:
    """Do for a single-phase module what the import machinery does: register it, and give it its full name.

    The machinery tells an init function the package, by a variable that is hidden from us. Without it the module, its
    classes and its submodules are named as if it lay in none.
    """
    c = _c()
    definition = c.def_of(module)
    if definition is not None and c.find_module(definition) is None:
        c.add_module(module, definition)
    short_name = full_name.rpartition(".")[2]
    if module.__name__ != short_name or short_name == full_name:
        return
    _rename(module, short_name, full_name)
    for name in set(sys.modules) - modules_before:
        if name.startswith(short_name + "."):
            submodule = sys.modules[full_name + name.removeprefix(short_name)] = sys.modules.pop(name)
            _rename(submodule, short_name, full_name)


def _rename(module: "ModuleType", short_name: str, full_name: str) -> None:
    module.__name__ = full_name + module.__name__.removeprefix(short_name)
    for value in vars(module).values():
        if isinstance(value, (type, _BuiltinFunction)):
            name: object = value.__module__
            if isinstance(name, str) and f"{name}.".startswith(f"{short_name}."):
                try:
                    value.__module__ = full_name + name.removeprefix(short_name)
                except TypeError:
                    pass  # a static type, named in C
