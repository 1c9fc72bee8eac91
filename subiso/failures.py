"""How errors come back: as themselves, with the traceback that they had in their isolate."""

import _pickle
import os

from subiso._pickling import functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Packed = tuple[bytes | None, str, str, str]

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TEXT = 100_000  # characters of an error's text that are sent
_HEAD, _TAIL = 100, 300  # lines of a long traceback that are sent


def pack(error: BaseException) -> "Packed":
    """Make an error ready to be sent.

    Returns:
        Itself as a pickle, or None if it cannot be sent; its type's name, its text and its traceback. All of it is
        plain data that `messages.encode` can always encode.

    Raises:
        IsolateKilled: the isolate was killed meanwhile. What the error's own methods raise becomes part of its text.
    """
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    text = _guarded(lambda: _cut(str(error)), lambda: f"<{kind.__qualname__} object; its text could not be made>")
    traceback = _guarded(lambda: _format(error), lambda: f"{name}: {text}\n")
    return _guarded(lambda: _pickled(error), lambda: None), name, text, traceback


def unpack(packed: "Packed") -> BaseException:
    """Return the error that was packed; its ``__cause__`` is a `RemoteTraceback`.

    It is a `RemoteError` in place of one that could not be sent, or that cannot be built here.
    """
    from subiso.errors import RemoteError, RemoteTraceback

    body, name, text, traceback = packed
    error = None if body is None else _guarded(lambda: _unpickled(body), lambda: None)
    if error is None:
        error = RemoteError(name, text, traceback)
    error.__cause__ = RemoteTraceback(traceback)
    return error


def _guarded[T](make: "Callable[[], T]", otherwise: "Callable[[], T]") -> "T":
    """Call user code that may raise anything. Only being killed is no matter of that code."""
    try:
        return make()
    except BaseException as error:
        if type(error).__name__ == "IsolateKilled":
            raise
        return otherwise()


def _pickled(error: BaseException) -> bytes | None:
    body, _, carried = functions.Pickler(in_band=True).encode((error, getattr(error, "__notes__", None)))
    return None if carried else body  # nobody would be told of the send ports in it


def _unpickled(body: bytes) -> BaseException | None:
    error, notes = _pickle.loads(body)
    if not isinstance(error, BaseException):
        return None
    if notes and getattr(error, "__notes__", None) != notes:
        error.__notes__ = notes
    return error


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[:_TEXT] + "…"


# -- tracebacks --------------------------------------------------------------------------------------------------------


def _format(error: BaseException) -> str:
    """Format the traceback with causes, contexts, groups and notes, without subiso's own frames."""
    from traceback import TracebackException

    whole = TracebackException.from_exception(error, compact=True)
    pending: list[TracebackException | None] = [whole]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack[:] = [frame for frame in part.stack if not frame.filename.startswith(_OURS)]
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]
    lines = "".join(whole.format()).splitlines(keepends=True)
    if len(lines) > _HEAD + _TAIL:
        lines[_HEAD:-_TAIL] = [f"  [{len(lines) - _HEAD - _TAIL} lines left out]\n"]
    return "".join(_cut(line) for line in lines)
