"""Finding what cannot be sent in a message that could not be encoded, for the error's text.

Slow, and only run after a failure. The search goes from the message downwards to the smallest object that cannot be
pickled by itself, trying halves of the children at each step. Objects on the way count as sendable meanwhile: a child
that leads back to its parent is not to blame for another child.
"""

import sys
from types import CodeType, FunctionType, MethodType, ModuleType

from subiso._pickling import functions, references
from subiso.errors import BufferSendError, IsolateError, SendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Children = Iterable[tuple[str, Any]]  # how the way to the parent goes on, the child

_DEPTH = 100  # steps of the way that are followed
_LENGTH = 60  # characters that a key's or an error's text may have
_OPEN = frozenset({"SimpleNamespace", "Namespace"})  # classes of the standard library that only hold what users put in


def send_error(message: object, root: str, error: Exception, children: "Children | None" = None) -> SendError:
    """Return the error that says what in a message cannot be sent, and where it is.

    Args:
        message: what could not be encoded.
        root: what it is called.
        error: what was raised.
        children: where to look first, with complete names; None: in the message.
    """
    if isinstance(error, RecursionError):
        return SendError(f"{root}: nested too deeply to be sent")
    if isinstance(error, MemoryError):
        return SendError(f"{root}: there is not enough memory to send it")
    path, culprit, error = _find(message, root, error, children)
    kind = BufferSendError if isinstance(error, BufferError) else SendError
    return kind(f"{path}: {_reason(culprit, error)}")


def _find(culprit: object, path: str, error: Exception, first: "Children | None") -> tuple[str, object, Exception]:
    """Return the way to the smallest object that cannot be pickled, the object, and what it raises."""
    above: dict[int, object] = {}
    children = first
    for _ in range(_DEPTH):
        above[id(culprit)] = culprit
        if children is None:
            children = _children(culprit)
        failing = _failing([child for child in children if id(child[1]) not in above], above)
        if failing is None:
            break
        (step, culprit), error = failing
        path = step if first is not None and children is first else path + step
        children = None
    return path, culprit, error


def _failing(
    children: "list[tuple[str, Any]]", above: "dict[int, object]"
) -> "tuple[tuple[str, Any], Exception] | None":
    """Return the first child that cannot be pickled, found by halving, and what it raises."""
    error = _try([child for _, child in children], above)
    if error is None:
        return None
    while len(children) > 1:
        half = children[: len(children) // 2]
        failure = _try([child for _, child in half], above)
        if failure is None:
            children = children[len(half) :]
        else:
            children, error = half, failure
    error = _try(children[0][1], above)
    return None if error is None else (children[0], error)


class _Trial(functions.Pickler):
    """Pickles as for a message, but takes some objects for granted."""

    def __init__(self, granted: "dict[int, object]") -> None:
        super().__init__()
        self._granted = granted

    def persistent_id(self, obj: object) -> bool | None:
        return True if id(obj) in self._granted else None


def _try(obj: object, above: "dict[int, object]") -> Exception | None:
    try:
        _Trial(above).encode(obj)
    except Exception as error:
        return error.with_traceback(None)  # whose frames lead to those that know it: a cycle, with the message in it
    return None


# -- where to look -----------------------------------------------------------------------------------------------------


def _children(obj: "Any") -> "Iterator[tuple[str, Any]]":
    """Yield what an object consists of, as pickling sees it."""
    if hasattr(type(obj), "__subiso_unsendable__"):
        return
    if isinstance(obj, FunctionType):
        yield from _children_of_function(obj)
    elif isinstance(obj, type):
        yield from _children_of_class(obj)
    elif isinstance(obj, ModuleType):
        if not references.is_reachable(obj.__name__, obj):
            yield from ((f".{name}", value) for name, value in vars(obj).items())
    elif isinstance(obj, MethodType):
        yield ".__self__", obj.__self__
        yield ".__func__", obj.__func__
    elif type(obj).__name__ == "partial" and hasattr(obj, "keywords"):
        yield ".func", obj.func
        yield from _items(".args", obj.args)
        yield from _pairs(".keywords", obj.keywords)
    else:
        yield from _children_of_container(obj)
        yield from _children_of_instance(obj)


def _children_of_function(function: FunctionType) -> "Children":
    if references.is_reference(function):
        return
    from subiso._pickling import definitions

    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".__closure__[{name!r}]", cell.cell_contents
        except ValueError:  # empty
            pass
    yield from _items(".__defaults__", function.__defaults__ or ())
    yield from _pairs(".__kwdefaults__", function.__kwdefaults__ or {})
    if definitions.home_of(function) is None:
        yield from _pairs(".__globals__", definitions.globals_of(function))
    yield from _pairs(".__annotations__", definitions.annotations_of(function))
    yield from ((f".{name}", value) for name, value in vars(function).items())


def _children_of_class(cls: type) -> "Children":
    if references.is_reference(cls):
        return
    from subiso._pickling import classes

    attributes, annotations, *_ = classes.state_of(cls, {})
    yield from ((f".{name}", _unwrapped(value)) for name, value in attributes.items())
    yield from _pairs(".__annotations__", annotations or {})
    yield from ((f".{base.__name__}", base) for base in cls.__bases__)


def _children_of_container(obj: "Any") -> "Children":
    if isinstance(obj, dict):
        yield from _pairs("", obj)
        yield from ((" (a key)", key) for key in obj)
    elif isinstance(obj, tuple) and hasattr(obj, "_fields"):
        yield from ((f".{name}", value) for name, value in zip(obj._fields, obj, strict=False))
    elif isinstance(obj, (list, tuple)) or type(obj).__name__ == "deque":
        yield from _items("", obj)
    elif isinstance(obj, (set, frozenset)):
        yield from ((" (an item)", item) for item in obj)
    elif isinstance(obj, BaseException):
        yield from _items(".args", obj.args)
    elif getattr(getattr(obj, "dtype", None), "hasobject", False):
        yield from _items(".flat", obj.flat)


def _children_of_instance(obj: "Any") -> "Children":
    """Yield an instance's attributes, but not of the standard library's classes, whose insides say little."""
    cls = type(obj)
    inside = cls.__module__.partition(".")[0] in sys.stdlib_module_names and cls.__name__ not in _OPEN
    if inside and not isinstance(obj, BaseException):
        return
    yield from _attributes(obj)
    if not references.is_reference(cls):
        yield ".__class__", cls


def _attributes(obj: object) -> "Children":
    cls = type(obj)
    names = list(getattr(obj, "__dict__", ()))
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    for name in dict.fromkeys(names):
        found = name if not name.startswith("__") or name.endswith("__") else f"_{cls.__name__.lstrip('_')}{name}"
        try:
            yield f".{name}", getattr(obj, found)
        except Exception:  # not set, or what a property of the user's may raise
            pass


def _items(path: str, values: "Iterable[Any]") -> "Children":
    return ((f"{path}[{index}]", value) for index, value in enumerate(values))


def _pairs(path: str, values: "dict[Any, Any]") -> "Children":
    return ((f"{path}[{_short(key)}]", value) for key, value in values.items())


def _unwrapped(value: "Any") -> "Any":
    """Return the function behind a property, a class method or a static method."""
    return getattr(value, "fget", None) or getattr(value, "__func__", None) or value


def _short(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # the user's __repr__
        text = f"<{type(value).__name__} object>"
    return text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…"


# -- what to say -------------------------------------------------------------------------------------------------------


def _reason(culprit: object, error: Exception) -> str:
    own = getattr(type(culprit), "__subiso_unsendable__", None)
    if isinstance(own, str):
        return own
    if isinstance(error, (IsolateError, BufferError)):
        return str(error)
    if isinstance(error, RecursionError):
        return "nested too deeply to be sent"
    if isinstance(culprit, (type, FunctionType, CodeType)):
        sort = "class" if isinstance(culprit, type) else "function"
        what = f"{sort} {getattr(culprit, '__qualname__', '')} cannot be sent"
    else:
        what = f"{type(culprit).__name__} objects cannot be sent"
    if type(error) is TypeError and str(error).startswith("cannot pickle"):
        return what
    return f"{what} ({type(error).__name__}: {_shortened(error)})"


def _shortened(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # the user's __str__
        return "?"
    return text if len(text) <= 3 * _LENGTH else text[: 3 * _LENGTH - 1] + "…"
