"""The pickler of messages, which sends functions and classes by reference or by value.

By reference go those that the other side will find (references.py). All others go by value (definitions.py, classes.py,
structs.py, names.py), and instances follow their classes: all that is defined in ``__main__``, in a notebook, inside a
function, or in a module that was imported from outside the path.

Pickling of everything else is left to the C pickler. It asks Python code only about objects that are not built in.
"""

import _pickle
import sys
from _pickle import PickleBuffer
from _thread import _local
from types import (
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)

from subiso._pickling import references
from subiso._pickling.references import is_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from subiso._kernel.regions import Region
    from subiso._pickling.definitions import Scope

    Reducer = Callable[["Pickler", Any], Any]
    _Kit = tuple["Pickler", Callable[[object], None], Callable[[], None], "_Chunks", list[Any]]

LARGE = 64 << 10  # bytes; a contiguous buffer of at least that size stays out of the pickle
_REUSABLE = 4 << 10  # bytes of pickle; a pickler that has made more is dropped, for its memo table has grown too

own_namespaces: set[int] = set()
"""The id of the globals of each module of the package whose functions put together what travels by value."""

_idle: "list[_Kit]" = []


class _Running(_local):
    pickler: "Pickler | None" = None


_running = _Running()


def dumps(message: object) -> "tuple[bytes, list[memoryview], list[Any]]":
    """Pickle a message: its bytes, the large buffers left out of them, and the values that asked to be carried.

    Raises:
        Exception: whatever the objects in it or the pickler raise; no state is left behind.
    """
    try:
        kit = _idle.pop()
    except IndexError:
        kit = _new_kit()
    pickler, dump, clear_memo, chunks, buffers = kit
    try:
        dump(message)
    except BaseException as error:
        pickler.leave()
        another = _another(pickler, error)
        if another is None:
            raise
        return another.encode(message)
    carried = pickler.leave() if pickler.entered else []
    if len(chunks) == 1:
        body = chunks.pop()
    else:
        body = b"".join(chunks)
        chunks.clear()
    if buffers:
        return body, buffers, carried  # the pickler is not used again, so that they are the caller's
    if len(body) <= _REUSABLE:
        clear_memo()
        _idle.append(kit)
    return body, [], carried


def _new_kit() -> "_Kit":
    """Return a pickler and those of its parts that each message needs, looked up once."""
    pickler = Pickler()
    return pickler, pickler.dump, pickler.clear_memo, pickler.chunks, pickler.buffers


def _another(pickler: "Pickler", error: BaseException) -> "Pickler | None":
    """Return a pickler for trying once more what one has failed at, if there is reason to hope."""
    if isinstance(error, RecursionError) and pickler.kinds.met_structs:
        # A Struct reduces to a call with its values, which never ends where it leads back to itself. Most do not.
        return Pickler(cyclic_structs=True)
    if isinstance(error, _pickle.PicklingError) and references.forget():
        return Pickler()
    return None


def running() -> "Pickler | None":
    """Return the pickler that this thread is in the middle of."""
    return _running.pickler


class _Chunks(list[bytes]):
    __slots__ = ()
    write = list.append


class _Kinds(dict[type, "Reducer | None"]):
    """For each type of object met in a message: its reducer, or None where the C pickler knows best."""

    __slots__ = ("cyclic_structs", "met_structs", "passing")

    def __init__(self, cyclic_structs: bool) -> None:
        super().__init__(_REDUCERS)
        self.cyclic_structs = cyclic_structs
        self.met_structs = False
        self.passing: list[type] = []  # types that go by value: those are not to be kept alive

    def __missing__(self, kind: type) -> "Reducer | None":
        reduce = self[kind] = _find_reducer(kind, self)
        if not is_reference(kind):
            self.passing.append(kind)
        return reduce

    def forget(self) -> None:
        """Forget the types that go by value."""
        for kind in self.passing:
            del self[kind]
        self.passing.clear()


class Pickler(_pickle.Pickler):
    """Pickles messages, one after the other; only one thread at a time may use it.

    Args:
        in_band: whether large buffers go into the bytes too.
        cyclic_structs: whether Structs may lead back to themselves.

    Attributes:
        chunks: what has been written.
        buffers: what has been left out, and regions that leave.
        entered: whether it is in the middle of a message that is not of builtins only.
        kinds: which type of object is reduced by whom.
        carried: the values that want to know that they travel.
        scope: what is known about the functions and classes of this message that go by value.
    """

    def __init__(self, *, in_band: bool = False, cyclic_structs: bool = False) -> None:
        self.chunks = _Chunks()
        self.buffers: list[Any] = []
        self._regions: dict[int, tuple[PickleBuffer, Region]] | None = None if in_band else {}
        callback = None if self._regions is None else _taking_out(self.buffers, self._regions)
        super().__init__(self.chunks, 5, buffer_callback=callback)
        self.carried: list[Any] = []
        self.kinds = _Kinds(cyclic_structs)
        self.scope: Scope | None = None
        self.entered = False
        self._outer: Pickler | None = None

    def encode(self, message: object) -> "tuple[bytes, list[memoryview], list[Any]]":
        """Pickle one message and no other, as `dumps`."""
        try:
            self.dump(message)
        finally:
            carried = self.leave()
        return b"".join(self.chunks), self.buffers, carried

    def leave(self) -> "list[Any]":
        """Forget all about a message, and return the values that it carries."""
        carried, self.carried = self.carried, []
        self.scope = None
        if self.kinds.passing:
            self.kinds.forget()
        if self.entered:
            _running.pickler, self._outer, self.entered = self._outer, None, False
        return carried

    def take_along(self, region: "Region") -> "PickleBuffer":
        """Have a region leave with the message; return what stands for it in what the caller reduces to.

        Raises:
            BufferError: it cannot leave.
        """
        region.check()
        if self._regions is None:
            raise BufferError("memory is handed over by messages only")
        mark = PickleBuffer(bytearray())
        self._regions[id(mark)] = mark, region
        return mark

    def reducer_override(self, obj: "Any") -> "Any":
        """Reduce what is not built in; called by the C pickler."""
        if not self.entered:
            self._outer, _running.pickler, self.entered = _running.pickler, self, True
        reduce = self.kinds[type(obj)]
        return NotImplemented if reduce is None else reduce(self, obj)


def _taking_out(buffers: "list[Any]", regions: "dict[int, tuple[PickleBuffer, Region]]") -> "Callable[[Any], bool]":
    def keep_in(buffer: "Any") -> bool:
        if regions and id(buffer) in regions:
            buffers.append(regions.pop(id(buffer))[1])
            return False
        view: memoryview = buffer.raw()
        if view.nbytes < LARGE:
            return True
        buffers.append(view)
        return False

    return keep_in


# -- which objects are reduced by whom ---------------------------------------------------------------------------------


def _reduce_function(pickler: Pickler, function: FunctionType) -> "Any":
    if id(function.__globals__) in own_namespaces or is_reference(function):
        return NotImplemented
    from subiso._pickling import definitions

    return definitions.reduce_function(pickler, function)


def _reduce_class(pickler: Pickler, cls: type) -> "Any":
    if is_reference(cls):
        return NotImplemented
    from subiso._pickling import classes

    return classes.reduce_class(pickler, cls)


def _reduce_method(pickler: Pickler, method: MethodType) -> "Any":
    owner = method.__self__
    if getattr(owner, method.__func__.__name__, None) == method:
        return NotImplemented
    return MethodType, (method.__func__, owner)  # a private name, or one that stands for something else by now


def _reduce_by_own_word(pickler: Pickler, obj: object) -> "Any":
    """Reduce an object whose class says how in Python: it may give a name, under which the other side must find it."""
    reduced = obj.__reduce_ex__(5)
    if type(reduced) is str and not is_reference(obj, reduced):
        raise _pickle.PicklingError(f"it stands for {obj.__module__}.{reduced}, which will not be found")
    return reduced


def _name_in_dataclasses(pickler: Pickler, obj: object) -> "Any":
    """Return the name of one of the dataclass machinery's constants, which are compared by identity."""
    for name, value in vars(sys.modules["dataclasses"]).items():
        if value is obj:
            return name
    return NotImplemented


def _deferred(module: str, name: str) -> "Reducer":
    """Return the reducer of another module, which is imported when it is first needed."""

    def reduce(pickler: Pickler, obj: object) -> "Any":
        __import__(module)
        return getattr(sys.modules[module], name)(pickler, obj)

    return reduce


_reduce_named = _deferred("subiso._pickling.names", "reduce_named")
_reduce_module = _deferred("subiso._pickling.definitions", "reduce_module")
_reduce_member = _deferred("subiso._pickling.classes", "reduce_member")
_reduce_view = _deferred("subiso._pickling.definitions", "reduce_view")
_reduce_wrapped = _deferred("subiso._pickling.definitions", "reduce_wrapped")
_reduce_descriptor = _deferred("subiso._pickling.definitions", "reduce_descriptor")

_REDUCERS: "dict[type, Reducer]" = {
    FunctionType: _reduce_function,
    type: _reduce_class,
    MethodType: _reduce_method,
    ModuleType: _reduce_module,
    CellType: _deferred("subiso._pickling.definitions", "reduce_cell"),
    CodeType: _deferred("subiso._pickling.definitions", "reduce_code"),
    MappingProxyType: _deferred("subiso._pickling.definitions", "reduce_proxy"),
    property: _deferred("subiso._pickling.definitions", "reduce_property"),
    classmethod: _reduce_wrapped,
    staticmethod: _reduce_wrapped,
    GetSetDescriptorType: _reduce_descriptor,
    MemberDescriptorType: _reduce_descriptor,
    type({}.keys()): _reduce_view,
    type({}.values()): _reduce_view,
    type({}.items()): _reduce_view,
}
_reduce_weak = _deferred("subiso._pickling.definitions", "reduce_weak")
_reduce_options = _deferred("subiso._pickling.structs", "reduce_options")
_REDUCERS_BY_NAME: "dict[tuple[str, str], Reducer]" = {  # so as not to import their modules
    ("functools", "_lru_cache_wrapper"): _reduce_named,
    ("typing", "TypeVar"): _reduce_named,
    ("typing", "ParamSpec"): _reduce_named,
    ("typing", "TypeVarTuple"): _reduce_named,
    ("typing", "TypeAliasType"): _reduce_named,
    ("typing", "NewType"): _reduce_named,
    ("functools", "partialmethod"): _deferred("subiso._pickling.names", "reduce_partial_method"),
    ("_weakrefset", "WeakSet"): _reduce_weak,
    ("weakref", "WeakKeyDictionary"): _reduce_weak,
    ("weakref", "WeakValueDictionary"): _reduce_weak,
    ("msgspec", "Meta"): _reduce_options,
    ("msgspec.json", "Decoder"): _reduce_options,
    ("msgspec.json", "Encoder"): _reduce_options,
    ("msgspec.msgpack", "Decoder"): _reduce_options,
    ("msgspec.msgpack", "Encoder"): _reduce_options,
}


def _find_reducer(kind: type, kinds: _Kinds) -> "Reducer | None":
    if issubclass(kind, type):
        return _reduce_class
    if type(kind) is not type:
        reduce = _find_reducer_by_metaclass(kind, kinds)
        if reduce is not None:
            return reduce
    module = kind.__module__
    if module == "dataclasses":
        return _name_in_dataclasses if kind.__name__[0] == "_" else None
    named = _REDUCERS_BY_NAME.get((module, kind.__name__))
    if named is not None:
        return named
    if kind in sys.modules["copyreg"].dispatch_table:
        return None
    if type(kind.__reduce_ex__) is FunctionType or type(kind.__reduce__) is FunctionType:
        return _reduce_by_own_word
    return _reduce_module if issubclass(kind, ModuleType) else None


def _find_reducer_by_metaclass(kind: type, kinds: _Kinds) -> "Reducer | None":
    modules: Any = sys.modules
    if "enum" in modules and issubclass(type(kind), modules["enum"].EnumType):
        return None if is_reference(kind) else _reduce_member
    if is_struct(kind):
        from subiso._pickling import structs

        kinds.met_structs = True
        return structs.reducer_for(kind, kinds.cyclic_structs)
    return None


def is_struct(cls: type) -> bool:
    """Return whether a class is one of msgspec's Structs."""
    msgspec: Any = sys.modules.get("msgspec")
    return msgspec is not None and hasattr(cls, "__struct_fields__") and isinstance(cls, msgspec.StructMeta)


def reset() -> None:
    """Forget every module, class and function; called between the lives of an interpreter."""
    references.reset()
    _idle.clear()
    for name in ("subiso._pickling.definitions", "subiso._pickling.classes"):
        if name in sys.modules:
            sys.modules[name].reset()
