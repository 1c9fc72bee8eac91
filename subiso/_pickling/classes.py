"""Classes, and other objects known by identity, that travel by value.

Guarantees
    A class has one token wherever it goes. Where the token is known, the class that is known is taken and left as it
    is: a class comes home as itself, and what was changed in it at home stays changed.
    A class is memoized before what it refers to is pickled. Only what its metaclass must know at once comes before:
    bases, slots and plain values; for a Struct, its fields and their defaults.

    cloudpickle keeps neither: it writes a class's attributes over those at home, which enumerations with aliases
    refuse, and runs ``__init_subclass__`` without its arguments; and it cannot rebuild a Struct.

Assumption
    Two threads may build the same class from two messages at once. The second takes the first one's unfinished class
    and fills it as well, with the same; so each has a finished class when its message is decoded.
"""

import os
import sys
from _weakref import ref
from functools import partial
from itertools import count
from types import (
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    WrapperDescriptorType,
)

from subiso._pickling import definitions, functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from subiso._pickling.functions import Pickler

functions.own_namespaces.add(id(globals()))

_SIMPLE = frozenset({bool, bytes, complex, float, int, str, type(None)})
_HEAP_TYPE = 1 << 9  # of __flags__
_MADE_ANEW = frozenset({
    "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__", "__msgspec_cache__",
    "__slotnames__", "__slots__", "_abc_impl", "_member_map_", "_value2member_map_",
})  # fmt: skip
_OF_C = (ClassMethodDescriptorType, MethodDescriptorType, WrapperDescriptorType)

_anonymous = os.urandom(8)
_serial = count()
_objects: "dict[bytes, Callable[[], Any]]" = {}  # token -> weak reference to the object
_tokens: "dict[int, tuple[Callable[[], Any], bytes]]" = {}  # id -> weak reference to the object, its token
_unfinished: set[bytes] = set()


# -- identity ----------------------------------------------------------------------------------------------------------


def token_of(obj: object) -> bytes:
    """Return the token under which every interpreter knows the object."""
    pair = _tokens.get(id(obj))
    if pair is not None:
        return pair[1]
    token = _anonymous + next(_serial).to_bytes(6, "big")
    remember(obj, token)
    return token


def remember(obj: object, token: bytes) -> None:
    """Make the object known under a token."""
    key = id(obj)

    def forget(_: object) -> None:  # called before the id can be used again
        _tokens.pop(key, None)
        _objects.pop(token, None)
        _unfinished.discard(token)

    try:
        weak: Callable[[], Any] = ref(obj, forget)
    except TypeError:  # a type alias: few, and as long-lived as modules
        weak = partial(_same, obj)
    _tokens[key] = weak, token
    _objects[token] = weak


def _same(obj: "Any") -> "Any":
    return obj


def known(token: bytes) -> "Any":
    """Return the object of that token, if it is here."""
    weak = _objects.get(token)
    return None if weak is None else weak()


def reset() -> None:
    """Forget every class."""
    _objects.clear()
    _tokens.clear()
    _unfinished.clear()


# -- classes: taking them apart ----------------------------------------------------------------------------------------


def reduce_class(pickler: "Pickler", cls: type) -> "Any":
    """Take a class apart."""
    if not cls.__flags__ & _HEAP_TYPE or any(
        type(value) in _OF_C and value.__objclass__ is cls for value in vars(cls).values()
    ):
        return _reduce_class_of_c(cls)
    if functions.is_struct(cls):
        from subiso._pickling import structs

        return structs.reduce_struct(cls)
    beginning = beginning_of(cls)
    arguments = token_of(cls), metaclass_of(cls), cls.__name__, cls.__bases__, beginning
    return make_class, arguments, state_of(cls, beginning), None, None, set_class


def metaclass_of(cls: type) -> type | None:
    """Return the class's metaclass, or None if the first base's will do: one of C may have no name to be found by."""
    return None if type(cls) is type(cls.__bases__[0]) else type(cls)


def _reduce_class_of_c(cls: type) -> "Any":
    import types

    for name, value in vars(types).items():
        if value is cls:
            return getattr, (types, name)
    return NotImplemented


def beginning_of(cls: type) -> "dict[str, Any]":
    """Return what the class must have from its first moment."""
    own = vars(cls)
    beginning = {name: value for name, value in own.items() if type(value) in _SIMPLE}
    beginning["__qualname__"] = cls.__qualname__
    if "__orig_bases__" in own:
        beginning["__orig_bases__"] = own["__orig_bases__"]
    if "__slots__" in own and not functions.is_struct(cls):
        slots = [name for name, value in own.items() if _is_slot_of(cls, value)]
        beginning["__slots__"] = (*slots, *(name for name in ("__dict__", "__weakref__") if name in own))
    return beginning


def _is_slot_of(cls: type, value: "Any") -> bool:
    return type(value) is MemberDescriptorType and value.__objclass__ is cls


def state_of(cls: type, beginning: "dict[str, Any]") -> "tuple[Any, ...]":
    """Return the rest: attributes, annotations, classes registered with an abstract one, members of an enumeration."""
    own = vars(cls)
    attributes = {}
    for name, value in own.items():
        if name in beginning or name in _MADE_ANEW or _is_slot_of(cls, value):
            continue
        if name in ("__dict__", "__weakref__") and type(value) is GetSetDescriptorType:
            continue
        if type(value).__name__ == "CField":  # of a structure of ctypes, which makes them of its _fields_
            continue
        attributes[name] = value
    if type(own.get("__slots__")) in (str, list, dict):
        attributes["__slots__"] = own["__slots__"]
    registered = _abc()._get_dump(cls)[0] if "_abc_impl" in own else ()
    members = _members(cls) if "_member_map_" in own else None
    return attributes, _resolved_annotations(cls), [weak() for weak in registered], members


def _abc() -> "Any":
    import _abc  # type: ignore[import-not-found]

    return _abc


def _resolved_annotations(cls: type) -> "dict[str, Any] | None":
    """Return the class's annotations, with the names in them resolved here: there, the module is not to be found."""
    if not vars(cls).keys() & {"__annotations__", "__annotate_func__", "__annotations_cache__"}:
        return None
    annotations = definitions.annotations_of(cls)
    if not any(map(_is_forward, annotations.values())):
        return annotations
    import typing

    names = {**vars(cls), cls.__name__: cls}
    try:
        hints = typing.get_type_hints(cls, localns=names, include_extras=True)
    except Exception:  # one of them means nothing at run time
        namespace = vars(sys.modules.get(cls.__module__, sys))
        hints = {name: _evaluated(value, namespace, names) for name, value in annotations.items()}
    return {name: hints.get(name, value) if _is_forward(value) else value for name, value in annotations.items()}


def _is_forward(annotation: "Any") -> bool:
    if type(annotation) is str or type(annotation).__name__ == "ForwardRef":
        return True
    arguments = getattr(annotation, "__args__", None)
    return type(arguments) is tuple and any(map(_is_forward, arguments))


def _evaluated(annotation: object, namespace: "dict[str, Any]", names: "dict[str, Any]") -> object:
    try:
        return eval(annotation, namespace, names) if type(annotation) is str else annotation
    except Exception:
        return annotation


# -- classes: putting them together ------------------------------------------------------------------------------------


def make_class(
    token: bytes, metaclass: type | None, name: str, bases: tuple[type, ...], beginning: "dict[str, Any]"
) -> type:
    """Build the beginning of a class, without asking its metaclass: what that did to the class travels with it."""
    found = known(token)
    if found is not None:
        return found  # type: ignore[no-any-return]
    kind = metaclass or type(bases[0])

    def build() -> type:
        setting_up: Any = kind.__init__  # type: ignore[misc]
        if type(setting_up) is not WrapperDescriptorType or setting_up is type.__init__:
            try:
                return type.__new__(kind, name, bases, beginning)
            except TypeError as error:
                if "is not safe" not in str(error):
                    raise
        return kind(name, bases, beginning)  # type: ignore[no-any-return] # of C: it has data of its own to set up

    cls = quietly(bases, build)
    if "abc" in sys.modules and issubclass(kind, sys.modules["abc"].ABCMeta):
        _abc()._abc_init(cls)
    if "enum" in sys.modules and issubclass(kind, sys.modules["enum"].EnumType):
        type.__setattr__(cls, "_member_map_", {})
    begin(cls, token)
    return cls


def begin(cls: type, token: bytes) -> None:
    """Make a class known that `set_class` is to finish."""
    _unfinished.add(token)
    remember(cls, token)


def quietly(bases: tuple[type, ...], build: "Callable[[], type]") -> type:
    """Build a class without the ``__init_subclass__`` of a base that came by value: what it did travels as well.

    Assumption: no other thread defines a subclass of that base in the same few microseconds.
    """
    hooked = [base for first in bases for base in first.__mro__ if "__init_subclass__" in vars(base)]
    base = hooked[0] if hooked else None
    if base is None or id(base) not in _tokens:
        return build()
    hook = vars(base)["__init_subclass__"]
    type.__setattr__(base, "__init_subclass__", classmethod(lambda cls, **_: None))
    try:
        return build()
    finally:
        type.__setattr__(base, "__init_subclass__", hook)


def set_class(cls: type, state: "tuple[Any, ...]") -> None:
    """Give a class the rest, unless it was known."""
    token = token_of(cls)
    if token not in _unfinished:
        return
    attributes, annotations, registered, members = state
    if members is not None:
        _set_members(cls, *members)
    for name, value in attributes.items():
        _put(cls, name, value)
        if type(value) is property:
            value.__set_name__(cls, name)  # type: ignore[attr-defined]
    if annotations is not None:
        type.__setattr__(cls, "__annotations__", annotations)
    for subclass in registered:
        if subclass is not None:
            cls.register(subclass)  # type: ignore[attr-defined]
    _unfinished.discard(token)


def _put(cls: type, name: str, value: object) -> None:
    """Set an attribute without asking the metaclass, unless that is one of C, which must know."""
    try:
        type.__setattr__(cls, name, value)
    except TypeError:
        setattr(cls, name, value)


# -- enumerations ------------------------------------------------------------------------------------------------------


def reduce_member(pickler: "Pickler", member: "Any") -> "Any":
    """Name a member of an enumeration that travels by value, and say what builds it if it is not there yet."""
    cls = type(member)
    if cls._member_map_.get(member._name_) is not member:  # a combination of flags
        return NotImplemented
    arguments: Any = object.__reduce_ex__(member, 5)[1]
    arguments = arguments[1:] if arguments and arguments[0] is cls else arguments
    return make_member, (cls, member._name_, cls._member_type_, arguments)


def make_member(cls: "Any", name: str, member_type: type, arguments: "tuple[Any, ...]") -> "Any":
    """Return a member; if the class is still being built, one that `set_class` will complete."""
    members = vars(cls)["_member_map_"]
    if name not in members:
        members[name] = member_type.__new__(cls, *arguments)
    return members[name]


def _members(cls: "Any") -> "tuple[Any, ...]":
    names = cls._member_map_
    values = [(value, member) for value, member in cls._value2member_map_.items() if member._name_ in names]
    return dict(names), [(member, vars(member)) for member in {id(one): one for one in names.values()}.values()], values


def _set_members(cls: "Any", names: "dict[str, Any]", contents: "list[Any]", values: "list[Any]") -> None:
    members = vars(cls)["_member_map_"]
    members.clear()
    members.update(names)
    for member, content in contents:
        vars(member).update(content)
    type.__setattr__(cls, "_value2member_map_", dict(values))
