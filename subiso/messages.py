"""How messages become bytes, and bytes messages.

What is sent is what arrives: an equal value of the same type, cycles and shared objects kept. Plain scalars have kinds
of their own; all the rest is pickled, functions and classes by reference or by value as functions.py decides. Large
buffers (numpy arrays) stay out of the pickle.

Typed ports (typed.py) go by msgspec. Untyped messages do not: msgspec would have to be kept from what it changes
(tuples, sets, subclasses, shared and cyclic containers), and looking for that costs more than pickling. Encoding and
decoding a dict of four scalars takes 1.7 µs by pickle and 2.3 µs by msgspec after the check, a list of a hundred such
dicts 45 µs and 120 µs (3.14).
"""

import _pickle
import sys
from _struct import Struct

from subiso._kernel.protocol import BYTES, FALSE, FLOAT, INT, MSGPACK, NONE, PICKLE, TEXT, TRUE
from subiso._pickling import functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from subiso.typed import Decoder as Decoder

    Direct = tuple[int, Callable[[bytes], Any], type[Exception] | tuple[()]]  # kind, function, error
    Encoded = tuple[int, bytes, Sequence[memoryview], Sequence[Any]]

_loads = _pickle.loads
_typed_encode: "Callable[[object, str], Encoded] | None" = None
_double = Struct("d")
_pack_float, _unpack_float = _double.pack, _double.unpack


# -- encoding ----------------------------------------------------------------------------------------------------------


def encode(message: object, root: str = "message") -> "Encoded":
    """Encode a message.

    Args:
        message: what to send.
        root: what error messages call it.

    Returns:
        Its kind, its bytes, the large buffers that go beside them, and the values that called `carry`.

    Raises:
        SendError: something in it cannot be sent; the text says what and where.
    """
    native = NATIVE.get(type(message))
    if native is not None:
        encoded = native(message)
        if encoded is not None:
            return encoded
    try:
        body, buffers, carried = functions.dumps(message)
    except Exception as error:
        from subiso._pickling import culprits

        raise culprits.send_error(message, root, error) from error
    return PICKLE, body, buffers, carried


def encode_call(function: "Callable[..., Any]", args: "tuple[Any, ...]") -> "Encoded":
    """Encode what is to be called, as a pair.

    Raises:
        SendError: something in it cannot be sent; the text begins with the function's name or with ``args``.
    """
    try:
        body, buffers, carried = functions.dumps((function, args))
    except Exception as error:
        from subiso._pickling import culprits

        name = getattr(function, "__qualname__", "function")
        raise culprits.send_error((function, args), "call", error, ((name, function), ("args", args))) from error
    return PICKLE, body, buffers, carried


def typed_encode(message: object, root: str = "message") -> "Encoded":
    """Encode a message for a typed port; otherwise as `encode`."""
    from subiso import typed

    globals()["typed_encode"] = typed.encode  # the next calls go there directly
    return typed.encode(message, root)


def carry(value: object) -> None:
    """Have a value reported by the `encode` that is going on in this thread.

    For the ``__reduce__`` of what must know that it travels.

    Raises:
        SendError: nothing is being encoded; the value is being pickled or copied.
    """
    pickler = functions.running()
    if pickler is None:
        from subiso.errors import SendError

        raise SendError("send ports travel in messages only")
    pickler.carried.append(value)


def _none(message: object) -> "Encoded":
    return NONE, b"", (), ()


def _bool(message: object) -> "Encoded":
    return (TRUE if message else FALSE), b"", (), ()


def _int(message: "Any") -> "Encoded | None":
    try:
        return INT, message.to_bytes(8, sys.byteorder, signed=True), (), ()
    except OverflowError:
        return None


def _float(message: "Any") -> "Encoded":
    return FLOAT, _pack_float(message), (), ()


def _str(message: "Any") -> "Encoded | None":
    try:
        return TEXT, message.encode(), (), ()
    except UnicodeEncodeError:  # lone surrogates
        return None


def _bytes(message: "Any") -> "Encoded":
    return BYTES, message, (), ()


NATIVE: "dict[type, Callable[[object], Encoded | None]]" = {
    type(None): _none,
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
}

# -- decoding ----------------------------------------------------------------------------------------------------------

# As of a typed port's `Decoder`: whether messages are packed for it, and how the commonest kind is decoded directly.
packs = False
direct: "Direct" = (PICKLE, _loads, ())


def decode(kind: int, body: bytes | memoryview, buffers: "Sequence[memoryview]" = ()) -> "Any":
    """Decode a message.

    Args:
        kind: what `encode` gave.
        body: likewise; nothing of the message refers to it afterwards.
        buffers: likewise, writable; the message goes on using them.

    Raises:
        Exception: what the objects in it raise while they are built; an ImportError if a module is missing.
    """
    if kind == PICKLE:
        return _loads(body, buffers=buffers) if buffers else _loads(body)
    if kind == MSGPACK:
        from subiso import typed

        return typed.decode_any(body)
    return decode_scalar(kind, body)


def decode_scalar(kind: int, body: bytes | memoryview) -> "Any":
    """Decode a message of one of the scalars' kinds."""
    if kind == INT:
        return int.from_bytes(body, sys.byteorder, signed=True)
    if kind == TEXT:
        return str(body, "utf-8")
    if kind == FLOAT:
        return _unpack_float(body)[0]
    if kind == BYTES:
        return bytes(body)
    if kind in _CONSTANTS:
        return _CONSTANTS[kind]
    raise ValueError(f"no message is of kind {kind}")


_CONSTANTS = {NONE: None, TRUE: True, FALSE: False}


def __getattr__(name: str) -> object:
    """Load the decoder of typed ports when it is first used."""
    if name != "Decoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from subiso.typed import Decoder

    globals()[name] = Decoder
    return Decoder


def reset() -> None:
    """Forget what belongs to one life of an interpreter."""
    functions.reset()
