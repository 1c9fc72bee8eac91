"""Creating a C extension module by calling its init function from this very interpreter.

The import machinery of 3.13 and later runs the init function of a single-phase module in main first, which puts the
module's objects on main's heap. Called directly, it puts them on this interpreter's; what the machinery would have done
besides is done here.
"""

import sys

from subiso._kernel import capi
from subiso._kernel.capi import Address, Int, Object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_PYTHON_API_VERSION = 1013  # what PyModule_FromDefAndSpec2 takes, since Python 3.0
_Module, _BuiltinFunction = type(sys), type(len)

_module_from_def = capi.returning_object("PyModule_FromDefAndSpec2", Object, Object, Int)
_def_of = capi.returning_address("PyModule_GetDef", Object)
_find_by_def = capi.returning_address("PyState_FindModule", Address)
_add_by_def = capi.returning_address("PyState_AddModule", Object, Address)
_release = capi.returning_address("Py_DecRef", Address)
try:
    _module_from_slots = capi.returning_object("PyModule_FromSlotsAndSpec", Address, Object)
except OSError:  # a Python without PEP 793
    _module_from_slots = None


def create(handle: int, spec: "ModuleSpec") -> "tuple[ModuleType, bool]":
    """Create the module that a loaded library holds under the spec's name.

    Returns the module, and whether it is of the single-phase kind: complete, and not to be created twice.

    Raises:
        ImportError: the library has no init function for that name.
        SystemError: the init function broke its rules.
        Exception: whatever the init function raises.
    """
    suffix = _export_suffix(spec.name)
    if _module_from_slots is not None and (export := capi.symbol(handle, "PyModExport" + suffix)):
        return _module_from_slots(capi.returning_address(export, Object)(spec), spec), False
    if not (init := capi.symbol(handle, "PyInit" + suffix)):
        text = f"dynamic module does not define module export function (PyInit{suffix})"
        raise ImportError(text, name=spec.name, path=spec.origin)
    modules_before = set(sys.modules)
    address = capi.returning_address(init)()
    if address is None:
        raise SystemError(f"initialization of {spec.name} failed without raising an exception")
    result = capi.object_at(address)
    if type(result).__name__ == "moduledef":  # PyInit lends a definition, but gives a module away
        return _module_from_def(result, spec, _PYTHON_API_VERSION), False
    _release(address)
    if not isinstance(result, _Module):
        raise SystemError(f"initialization of {spec.name} did not return an extension module")  # noqa: TRY004 - as CPython
    _complete(result, spec.name, modules_before)
    return result, True


def _export_suffix(name: str) -> str:
    """Return what follows ``PyInit`` in the name of the module's init function (PEP 489)."""
    last = name.rpartition(".")[2]
    if last.isascii():
        return "_" + last
    return "U_" + last.encode("punycode").decode("ascii").replace("-", "_")


def _complete(module: "ModuleType", full_name: str, modules_before: set[str]) -> None:
    """Do for a single-phase module what the import machinery does: register it, and give it its full name.

    The machinery tells an init function the package, by a variable that is hidden from us. Without it the module, its
    classes and its submodules are named as if it lay in none.
    """
    definition = _def_of(module)
    if definition is not None and _find_by_def(definition) is None:
        _add_by_def(module, definition)
    short_name = full_name.rpartition(".")[2]
    if module.__name__ != short_name or short_name == full_name:
        return
    _rename(module, short_name, full_name)
    for name in set(sys.modules) - modules_before:
        if name.startswith(short_name + "."):
            submodule = sys.modules[full_name + name.removeprefix(short_name)] = sys.modules.pop(name)
            if issubclass(type(submodule), _Module):  # objects of cffi there only pretend to be modules
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
