"""C functions of the process, over ``_ctypes`` alone: importing ``ctypes`` takes four times as long.

To be imported where a C function is called, not before: some isolates never need one.
"""

import _ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Object(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "O"


class Address(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "B"


class Size(_ctypes._SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class _ReturningObject(_ctypes.CFuncPtr):
    # Called with the GIL held; an exception that the function sets is raised by the call.
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = Object


class _ReturningAddress(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = Address


object_at, address_of = _ctypes.PyObj_FromPtr, _ctypes.addressof
load = getattr(_ctypes.dlopen, "__wrapped__", _ctypes.dlopen)  # in an isolate it is intercepted
_RTLD_LAZY, _RTLD_NOLOAD = 1, 4
_process = load(None, 0)  # type: ignore[arg-type]


def symbol(handle: int, name: str) -> int | None:
    """Return the address of what the loaded library exports under the name, or None."""
    try:
        return _ctypes.dlsym(handle, name)
    except OSError:
        return None


def address(name: str) -> int:
    """Return the address of the process's C function of that name."""
    return _ctypes.dlsym(_process, name)


def loaded(path: str) -> int | None:
    """Return the handle of the library of that path, or of that name, if the process has loaded it."""
    try:
        return load(path, _RTLD_NOLOAD | _RTLD_LAZY)
    except OSError:
        return None


def returning_object(name: str, *arguments: type) -> "Any":
    """Return the process's C function of that name; the call owns the object returned."""
    return _typed(_ReturningObject(_ctypes.dlsym(_process, name)), arguments)


def returning_address(function: "str | int", *arguments: type) -> "Any":
    """Return the process's C function of that name, or the one at that address. Null is returned as None."""
    address = _ctypes.dlsym(_process, function) if isinstance(function, str) else function
    return _typed(_ReturningAddress(address), arguments)


def _typed(function: "Any", arguments: tuple[type, ...]) -> "Any":
    function.argtypes = arguments
    return function
