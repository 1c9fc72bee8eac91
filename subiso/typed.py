"""Typed ports: messages as MessagePack by msgspec, and their conversion to the port's type.

What msgspec does not know (send ports, arrays, classes of the user's own) travels as an extension value that holds a
pickle. A message that MessagePack would change, whatever the port's type, is pickled as for an untyped port, and
converted at the receiver: one with an integer of more than 64 bits, a time zone, or a large buffer.

As always with msgspec, ``__post_init__`` of dataclasses and Structs is called for what arrives.
"""

import _pickle
from _thread import _local, get_ident

import msgspec
from msgspec import inspect, msgpack

from subiso import messages
from subiso._kernel.protocol import MSGPACK, PICKLE
from subiso._pickling import functions
from subiso.errors import MessageTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Iterator, Sequence
    from typing import Any

    from subiso.messages import Direct, Encoded

_PICKLED = 1  # extension value: a pickle
_STANDING_IN = 2  # extension value, never sent: the index of an object
_ZONED_16, _ZONED_8, _ZONED_12 = b"\xd7\xff", b"\xd6\xff", b"\xc7\x0c\xff"  # a datetime whose zone would be lost

_CHANGED = frozenset({"AnyType", "MemoryViewType", "RawType", "TimeType"})
_TAKEN_AS_THEY_ARE = frozenset({"DataclassType", "EnumType", "NamedTupleType", "StructType"})
_PLAIN: "dict[str, frozenset[type]]" = {
    "AnyType": frozenset({bool, bytes, float, int, str, type(None)}),
    "BoolType": frozenset({bool}),
    "BytesType": frozenset({bytes}),
    "FloatType": frozenset({float}),
    "IntType": frozenset({int}),
    "NoneType": frozenset({type(None)}),
    "StrType": frozenset({str}),
}


_UNKNOWN = object()


class _State(_local):
    carried: "list[Any] | None" = None  # by the message that this thread is encoding; None: nothing yet
    objects: "Sequence[object]" = ()  # that extension values of the message that this thread checks stand for


_state = _State()
_carrying: set[int] = set()  # the threads that have something in ``_state.carried``
_native = messages.NATIVE.get


class _TooLarge(Exception):  # noqa: N818 - caught here
    """A value holds buffers that are better sent beside the message."""


# -- encoding ----------------------------------------------------------------------------------------------------------


def encode(message: object, root: str = "message") -> "Encoded":
    """Encode a message for a port of whatever type; see `messages.typed_encode`."""
    native = _native(type(message))
    if native is not None:
        encoded = native(message)
        if encoded is not None:
            return encoded
    try:
        body = _pack(message)
    except Exception:  # msgspec cannot, or a value cannot be sent: pickling will tell
        _take_carried()
        return messages.encode(message, root)
    except BaseException:
        _take_carried()
        raise
    carried: Sequence[Any] = _take_carried() if _carrying else ()
    if 0xFF in body and (_ZONED_16 in body or _ZONED_8 in body or _ZONED_12 in body):
        return messages.encode(message, root)
    return MSGPACK, body, (), carried


def _take_carried() -> "list[Any]":
    """Return what the message that this thread has encoded carries."""
    carried, _state.carried = _state.carried, None
    _carrying.discard(get_ident())
    return carried or []


def _wrap(value: object) -> msgpack.Ext:
    outer, _state.carried = _state.carried, None  # the value may encode messages of its own meanwhile
    body, buffers, carried = functions.dumps(value)
    if buffers:
        raise _TooLarge
    _state.carried = outer + carried if outer else carried or None
    if _state.carried is not None:
        _carrying.add(get_ident())
    return msgpack.Ext(_PICKLED, body)


def _unwrap(code: int, data: memoryview) -> object:
    if code == _PICKLED:
        return _pickle.loads(data)
    if code == _STANDING_IN and _state.objects:
        return _state.objects[int.from_bytes(data)]
    return msgpack.Ext(code, bytes(data))


_pack = msgpack.Encoder(enc_hook=_wrap).encode
decode_any: "Callable[[Buffer], Any]" = msgpack.Decoder(ext_hook=_unwrap).decode


# -- decoding ----------------------------------------------------------------------------------------------------------


class Decoder:
    """Decodes messages and converts them, strictly, to one type.

    Args:
        type: any type that msgspec can decode. A class that it does not know must be the message's class, or a base.

    Attributes:
        direct: the kind of message that a function decodes as it is, that function, and what it raises where `decode`
            raises a `MessageTypeError`.
        packs: whether `typed_encode` keeps everything of a message of that type. If not (there is ``Any`` in it, where
            tuples would become lists), senders do better to use `encode`; `decode` takes both.

    Raises:
        TypeError: msgspec cannot decode that type.
    """

    def __init__(self, type: "Any") -> None:  # noqa: A002 - as for ports
        try:
            self._decode = msgpack.Decoder(type, ext_hook=_unwrap).decode
        except TypeError:
            raise
        except Exception as error:  # a name in an annotation means nothing, say
            raise TypeError(f"messages cannot be decoded as {type!r}: {error}") from error
        self._type = type
        self._plain: frozenset[Any] = frozenset()
        self.packs: bool = False
        self._is_checked_by_converting, self._keeps_body = False, True
        self.direct: Direct = 0, self._decode, ()
        try:
            info = inspect.type_info(type)
            nodes = {node.__class__.__name__ for node in _nodes(info, set())}
        except Exception:  # msgspec can decode it, but not describe it
            return
        self._plain = _plain_types(info)
        self.packs = not nodes & _CHANGED
        self._is_checked_by_converting = not nodes & _TAKEN_AS_THEY_ARE
        self._keeps_body = bool(nodes & {"MemoryViewType", "RawType"})
        if not self._keeps_body:
            self.direct = MSGPACK, self._decode, msgspec.ValidationError

    def decode(self, kind: int, body: bytes | memoryview, buffers: "Sequence[memoryview]" = ()) -> "Any":
        """Decode a message; the arguments are those of `messages.decode`.

        Raises:
            MessageTypeError: it is not of the type; the text says where in it and why.
        """
        try:
            if kind == MSGPACK:
                return self._decode(bytes(body) if self._keeps_body else body)
            message = messages.decode(kind, body, buffers)
            if kind != PICKLE and message.__class__ in self._plain:
                return message
            return self._convert(message)
        except msgspec.ValidationError as error:
            raise MessageTypeError(str(error)) from None

    def _convert(self, message: object) -> "Any":
        """Convert a message that is already made of objects, keeping whatever need not be changed."""
        checked = _UNKNOWN if self._is_checked_by_converting else self._check(message)
        try:
            return msgspec.convert(message, self._type, strict=True)
        except msgspec.ValidationError:
            if checked is _UNKNOWN:
                raise
            return checked  # msgspec does not convert enumerations of numbers to themselves
        except RecursionError:
            raise MessageTypeError("nested too deeply to be checked") from None
        except AttributeError as error:  # msgspec takes an array for a mapping
            raise MessageTypeError(f"`{message.__class__.__name__}` cannot be converted: {error}") from None

    def _check(self, message: object) -> "Any":
        """Check what converting would not look into: instances of the very classes that the type names.

        Returns:
            What MessagePack makes of the message, or `_UNKNOWN` if it cannot hold it.
        """
        objects: list[object] = []

        def stand_in(value: object) -> msgpack.Ext:
            objects.append(value)
            return msgpack.Ext(_STANDING_IN, (len(objects) - 1).to_bytes(4))

        try:
            body = msgpack.Encoder(enc_hook=stand_in).encode(message)
        except (OverflowError, RecursionError, TypeError, ValueError):  # large numbers, cycles, keys, lone surrogates
            return _UNKNOWN
        outer, _state.objects = _state.objects, objects
        try:
            return self._decode(body)
        finally:
            _state.objects = outer


def _nodes(info: "Any", seen: set[int]) -> "Iterator[Any]":
    """Yield every part of msgspec's description of a type."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, tuple):
        for item in info:
            yield from _nodes(item, seen)
    elif isinstance(info, (inspect.Type, inspect.Field)):
        if isinstance(info, inspect.Type):
            yield info
        for name in info.__struct_fields__:
            yield from _nodes(getattr(info, name, None), seen)


def _plain_types(info: "Any") -> frozenset[type]:
    """Return the scalar types of which every value is of the described type, as it is."""
    if isinstance(info, inspect.UnionType):
        return frozenset().union(*map(_plain_types, info.types))
    constraints = [getattr(info, name) for name in info.__struct_fields__]
    return _PLAIN.get(type(info).__name__, frozenset()) if constraints.count(None) == len(constraints) else frozenset()
