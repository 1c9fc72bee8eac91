"""Messages: what is sent is what arrives, and what cannot be sent is named."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import math
import pathlib
import pickle
import re
import socket
import subprocess
import sys
import threading
import typing
import uuid
import weakref
import zoneinfo

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subiso import messages
from subiso._kernel import protocol
from subiso.errors import MessageTypeError, SendError


def arrive(message):
    """Return the message as it arrives."""
    kind, body, buffers, _ = messages.encode(message)
    return messages.decode(kind, memoryview(body), [memoryview(bytearray(buffer)) for buffer in buffers])


def arrive_typed(message, type_=object):
    """Return the message as it arrives at a port of that type."""
    kind, body, buffers, _ = messages.typed_encode(message)
    decoder = messages.Decoder(type_)
    return decoder.decode(kind, memoryview(body), [memoryview(bytearray(buffer)) for buffer in buffers])


def same(one, other):
    """Return whether two values are equal, of the same types all the way down, with NaN equal to itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(*pair) for items in zip(one.items(), other.items(), strict=True) for pair in zip(*items, strict=True)
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return math.copysign(1, one) == math.copysign(1, other) and (one == other or (one != one and other != other))
    return one == other


class Color(enum.Enum):
    RED = 1
    GREEN = "green"
    CRIMSON = 1  # noqa: PIE796 - an alias


class Permission(enum.IntFlag):
    READ = 1
    WRITE = 2


class Pair(typing.NamedTuple):
    left: int
    right: str = "r"


OldPair = collections.namedtuple("OldPair", "left right")


@dataclasses.dataclass
class Plain:
    x: int
    rest: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, frozen=True, order=True)
class Tight:
    x: int
    y: str = "y"


class Doubling(msgspec.Struct):
    x: int

    def __post_init__(self):
        self.x *= 2


class Point(msgspec.Struct, tag="point", frozen=True):
    x: int
    y: float = 0.0


class Row(msgspec.Struct, array_like=True, kw_only=True):
    name: str
    tags: list[str] = []


class Box[T](msgspec.Struct):
    content: T


class Open(msgspec.Struct, dict=True):
    x: int


class Node(msgspec.Struct):
    value: int
    next: "Node | None" = None


class MyInt(int):
    pass


class MyStr(str):
    __slots__ = ()


class MyList(list):
    pass


class MyDict(dict):
    def __init__(self, *args, note=None):
        super().__init__(*args)
        self.note = note


class Slotted:
    __slots__ = ("__hidden", "shown")

    def __init__(self, shown, hidden):
        self.shown, self.__hidden = shown, hidden

    def __eq__(self, other):
        return (self.shown, self.__hidden) == (other.shown, other.__hidden)

    __hash__ = None


class Port:
    """Behaves as a send port does while it is encoded."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        messages.carry(self)
        return Port, (self.number,)

    def __eq__(self, other):
        return self.number == other.number

    __hash__ = None


class Refusing:
    __subiso_unsendable__ = "handles stay at home; send their number"

    def __reduce__(self):
        raise TypeError("no")


class Interrupting:
    def __reduce__(self):
        raise KeyboardInterrupt


class Failing:
    def __reduce__(self):
        raise LookupError("nothing there")


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)


# -- round trips -------------------------------------------------------------------------------------------------------


@pytest.mark.dart(
    "lib/deeply_immutable_test",
    "lib/deeply_immutable_2_test",
    "lib/deeply_immutable_no_ffi_test",
    differs=(
        "because every isolate has memory of its own, and objects cannot be shared: what cannot be changed arrives "
        "equal, and singletons as themselves"
    ),
)
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (None, protocol.NONE),
        (True, protocol.TRUE),
        (False, protocol.FALSE),
        (0, protocol.INT),
        (-1, protocol.INT),
        (2**63 - 1, protocol.INT),
        (-(2**63), protocol.INT),
        (2**63, protocol.PICKLE),
        (-(2**200), protocol.PICKLE),
        (1.5, protocol.FLOAT),
        (-0.0, protocol.FLOAT),
        (math.nan, protocol.FLOAT),
        (-math.inf, protocol.FLOAT),
        ("", protocol.TEXT),
        ("tête 🎉\0", protocol.TEXT),
        ("\ud800 alone", protocol.PICKLE),
        (b"", protocol.BYTES),
        (b"\0\xff", protocol.BYTES),
        (MyInt(3), protocol.PICKLE),
        (MyStr("s"), protocol.PICKLE),
    ],
    ids=repr,
)
def test_scalars(message, kind):
    """Scalars have kinds of their own; those that do not fit them are pickled."""
    assert messages.encode(message)[0] == kind
    assert same(arrive(message), message)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers(allow_nan=False) | st.binary()
) | st.text(st.characters(exclude_categories=()))
keys = st.none() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
nested = st.recursive(
    scalars | st.frozensets(keys) | st.sets(keys) | st.builds(bytearray, st.binary()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner)
        | st.builds(list, inner.map(lambda x: (x,)))
    ),
    max_leaves=20,
)


@pytest.mark.dart(
    "lib/message_test", "lib/message2_test", "lib/isolate_complex_messages_test", "vm/fast_object_copy_test"
)
@pytest.mark.parametrize("examples", [50, pytest.param(2000, marks=pytest.mark.stress)])
def test_nested_builtins(examples):
    """Whatever is built from builtins arrives equal and of the same types."""

    @given(nested)
    @settings(max_examples=examples, deadline=None)
    def check(message):
        assert same(arrive(message), message)

    check()


BERLIN = zoneinfo.ZoneInfo("UTC")  # there on every machine


@pytest.mark.dart("vm/fast_object_copy_test", "vm/fast_object_copy2_test", "lib/message3_test")
@pytest.mark.parametrize(
    "message",
    [
        Color.RED,
        Permission.READ | Permission.WRITE,
        re.compile("a(b)?", re.IGNORECASE | re.MULTILINE),
        re.IGNORECASE,
        Pair(1),
        OldPair(1, [2]),
        Plain(1, [Plain(2)]),
        Tight(1, "z"),
        Point(1, 2.0),
        Row(name="n", tags=["a"]),
        Box(Box((1, 2))),
        Node(1, Node(2)),
        MyList([1, MyInt(2)]),
        Slotted(1, "hidden"),
        collections.OrderedDict(b=1, a=2),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        collections.deque([1, 2], maxlen=3),
        collections.ChainMap({1: 2}, {3: 4}),
        datetime.datetime(2024, 3, 31, 1, 30, tzinfo=BERLIN, fold=1),
        datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=5, minutes=45), "NPT")),
        datetime.timedelta(1, 2, 3),
        datetime.time(1, 2, tzinfo=datetime.UTC),
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=5),
        pathlib.PurePosixPath("/a/b"),
        array.array("d", [1.5, 2.5]),
        bytearray(b"abc"),
        range(1, 10, 3),
        slice(1, None, 2),
        frozenset({(1, 2)}),
        {1, 2},
        1 + 2j,
        ...,
        NotImplemented,
        int,
        Color,
        type(None),
        type(...),
        type(len),
        type(lambda: None),
        list[int],
        int | None,
        len,
        math.sin,
        "".join,
        __import__("json").loads,
        math,
        __import__("xml.dom").dom,
        ZeroDivisionError,
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value))[:50],
)
def test_values(message):
    """Values of every other sort arrive equal and of the same type."""
    arrived = arrive(message)
    assert type(arrived) is type(message)
    assert arrived == message
    assert repr(arrived) == repr(message) or "object at" in repr(message)


@pytest.mark.dart("lib/message_enum_test", "lib/enum_const_test")
def test_enum_members_stay_members():
    """A member of an enumeration arrives as that very member."""
    assert arrive([Color.RED, Color.CRIMSON]) == [Color.RED] * 2
    assert arrive(Color.GREEN) is Color.GREEN


@pytest.mark.dart("lib/send_private_test")
def test_attributes_of_subclasses():
    """Subclasses of builtins keep their attributes."""
    arrived = arrive(MyDict({1: 2}, note="n"))
    assert (type(arrived), arrived, arrived.note) == (MyDict, {1: 2}, "n")


@pytest.mark.dart("lib/message_test", "lib/message3_test")
def test_cycles():
    """Cycles come back to themselves, through containers, objects and Structs."""
    items = [1]
    items.append({"back": items})
    arrived = arrive(items)
    assert arrived[1]["back"] is arrived

    holder = Holder(name="h")
    holder.itself = (holder,)
    arrived = arrive(holder)
    assert arrived.itself[0] is arrived

    node = Node(1, Node(2))
    node.next.next = node
    arrived = arrive([node, node])
    assert arrived[0] is arrived[1]
    assert arrived[0].next.next is arrived[0]
    assert (arrived[0].value, arrived[0].next.value) == (1, 2)


@pytest.mark.dart("lib/message3_test", "vm/fast_object_copy_test")
def test_shared_objects_stay_shared():
    """What was one object is one object afterwards, and a copy of what was sent."""
    shared = [1]
    first, second, key = arrive([shared, {"s": shared}, (shared,)])
    assert first is second["s"] is key[0]
    assert first is not shared


def test_structs_keep_what_pickle_would_change():
    """A Struct's ``__post_init__`` changes nothing on arrival, and its ``__dict__`` comes along."""
    assert arrive(Doubling(3)).x == 6
    struct = Open(1)
    struct.extra = [2]
    assert arrive(struct).extra == [2]


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("encode", [messages.encode, messages.typed_encode], ids=["encode", "typed_encode"])
def test_too_deep(encode, in_thread):
    """What is nested too deeply to be pickled is refused with a clear text."""
    message = []
    for _ in range(300_000):
        message = [message]
    caught = []

    def attempt():
        try:
            encode(message, "tree")
        except SendError as error:
            caught.append(str(error))

    if in_thread:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
    else:
        attempt()
    assert caught == ["tree: nested too deeply to be sent"]
    while message:
        message = message.pop()


def test_deep_enough():
    """Hundreds of levels are no problem."""
    message = []
    for _ in range(300):
        message = [message]
    assert arrive(message) == message


def test_across_processes():
    """A message of builtins is decoded by an interpreter that shares nothing with this one."""
    kind, body, _, _ = messages.encode({"a": [1, (2.5, None)], "b": {b"c", "ü"}})
    script = (
        "import sys; from subiso import messages; print(messages.decode(int(sys.argv[1]), sys.stdin.buffer.read()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(kind)], input=body, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode().startswith("{'a': [1, (2.5, None)], 'b': {")


def test_unknown_kind():
    """A kind that no message has is a ValueError."""
    with pytest.raises(ValueError, match="no message is of kind 99"):
        messages.decode(99, b"")


# -- arrays and buffers ------------------------------------------------------------------------------------------------

STRUCTURED = np.dtype([("a", "<i4"), ("b", "U3"), ("c", "f8", (2,))])
ARRAYS = {
    "bool": np.array([True, False]),
    "int8": np.arange(5, dtype=np.int8),
    "big endian": np.arange(5, dtype=">u4"),
    "float16": np.ones((2, 3), np.float16),
    "complex": np.array([1j, 2]),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::2],
    "large strided": np.arange(100_000)[::3],
    "transposed": np.arange(6).reshape(2, 3).T,
    "zero size": np.empty((0, 4)),
    "scalar": np.array(5),
    "structured": np.zeros(3, STRUCTURED),
    "record": np.rec.array([(1, "a")], dtype=[("n", int), ("s", "U1")]),
    "object": np.array([1, "a", [2]], object),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "datetime": np.array(["2024-01-01", "NaT"], "M8[D]"),
    "masked": np.ma.array([1, 2], mask=[True, False]),
}
LARGE = {
    "large": np.arange(100_000),
    "large fortran": np.asfortranarray(np.arange(40_000.0).reshape(200, 200)),
    "large structured": np.zeros(30_000, STRUCTURED),
}


@pytest.mark.dart("lib/typed_message_test", "lib/message3_test")
@pytest.mark.parametrize("name", [*ARRAYS, *LARGE])
@pytest.mark.parametrize("encode", [messages.encode, messages.typed_encode], ids=["encode", "typed_encode"])
def test_arrays(name, encode):
    """Arrays of every sort keep data type, shape, values and order, and can be written to."""
    message = {**ARRAYS, **LARGE}[name]
    kind, body, buffers, _ = encode([message])
    (arrived,) = messages.decode(kind, body, [memoryview(bytearray(buffer)) for buffer in buffers])
    assert type(arrived) is type(message)
    assert (arrived.dtype, arrived.shape) == (message.dtype, message.shape)
    assert arrived.flags.f_contiguous == message.flags.f_contiguous or not message.flags.contiguous
    assert arrived.flags.writeable
    assert str(arrived.ravel()[:50].tolist()) == str(message.ravel()[:50].tolist())
    assert message.dtype.hasobject or arrived.tobytes() == message.tobytes()
    assert bool(buffers) == (name in LARGE)


@pytest.mark.parametrize(
    "message", [np.float64(1.5), np.int8(3), np.bool_(True), np.str_("a"), np.datetime64("2024-01-01"), np.void(b"ab")]
)
def test_numpy_scalars(message):
    """numpy's scalars keep their types."""
    arrived = arrive(message)
    assert type(arrived) is type(message)
    assert arrived == message


def test_read_only_arrays_stay_read_only():
    """An array that cannot be written to cannot be afterwards."""
    for size in (10, 100_000):
        message = np.arange(size)
        message.flags.writeable = False
        assert not arrive(message).flags.writeable


def test_large_buffers_stay_out_of_the_pickle():
    """Buffers of 64 KiB and more are given beside the bytes, flat and in order; the message uses what it is given."""
    small, first, second = np.zeros(8191), np.arange(8192.0), np.asfortranarray(np.ones((128, 128)))
    kind, body, buffers, _ = messages.encode([small, first, second, first])
    assert [(buffer.nbytes, buffer.format, buffer.ndim) for buffer in buffers] == [(65536, "B", 1), (131072, "B", 1)]
    assert 65528 < len(body) < 70000
    given_ = [memoryview(bytearray(buffer)) for buffer in buffers]
    arrived = messages.decode(kind, body, given_)
    assert arrived[1] is arrived[3]
    arrived[1][0] = 7
    assert np.frombuffer(given_[0])[0] == 7


def test_buffers_are_not_kept():
    """An encoded message no longer holds the array once its buffers are let go."""
    message = bytearray(100_000)
    _, _, buffers, _ = messages.encode(pickle.PickleBuffer(message))
    for buffer in buffers:
        buffer.release()
    messages.encode([])
    message.append(0)


# -- values that know they travel --------------------------------------------------------------------------------------


def test_carried_values_are_reported():
    """Values that call `carry` are listed, wherever they are in the message."""
    first, second = Port(1), Port(2)
    _, _, _, carried = messages.encode({"a": [first], "b": lambda: second})
    assert list(map(id, carried)) == [id(first), id(second)]
    assert messages.encode([first])[3] == [first]
    assert messages.encode([1])[3] == []


def test_carried_values_of_typed_messages():
    """A typed message reports them as well, once each way it may be encoded."""
    port = Port(1)
    assert messages.typed_encode([port, {"x": port}])[3] == [port, port]
    assert messages.typed_encode([port, 2**70])[3] == [port]


def test_carrying_outside_of_messages():
    """A value that travels in messages only cannot be pickled or copied otherwise."""
    with pytest.raises(SendError, match="send ports travel in messages only"):
        pickle.dumps(Port(1))


def test_messages_within_messages():
    """Encoding a message while another one is encoded keeps what they carry apart."""

    class Sending:
        def __reduce__(self):
            assert messages.encode([Port(1)])[3] == [Port(1)]
            messages.carry(self)
            return Holder, ()

    outer = Sending()
    assert messages.encode([Port(2), outer, Port(3)])[3][1] is outer


def test_threads_encode_at_once():
    """Several threads encode at the same time, each its own message."""
    results = {}
    barrier = threading.Barrier(4)

    def work(number):
        barrier.wait()
        results[number] = all(messages.encode([Port(number)] * 3)[3] == [Port(number)] for _ in range(300))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


@pytest.mark.parametrize("encode", [messages.encode, messages.typed_encode], ids=["encode", "typed_encode"])
def test_failures_leave_nothing_behind(encode):
    """After a message that failed, the next one is as if nothing had been."""
    for _ in range(3):
        with pytest.raises(SendError):
            encode([Port(1), np.zeros(100_000), threading.Lock()])
        _, _, buffers, carried = encode([Port(2)])
        assert not buffers
        assert carried == [Port(2)]
        with pytest.raises(SendError, match="in messages only"):
            messages.carry(None)


@pytest.mark.parametrize("encode", [messages.encode, messages.typed_encode], ids=["encode", "typed_encode"])
def test_what_interrupts_encoding_passes(encode):
    """A KeyboardInterrupt during encoding is no matter of what is sent."""
    with pytest.raises(KeyboardInterrupt):
        encode([Interrupting()])
    with pytest.raises(SendError, match="in messages only"):
        messages.carry(None)


# -- what cannot be sent -----------------------------------------------------------------------------------------------


def generator():
    yield


async def coroutine():
    pass


LOCK = threading.Lock()


def closing_over(value):
    return lambda: value


def naming_a_global():
    return LOCK


class Locked:
    lock = LOCK


class Rebuilt:
    def __reduce__(self):
        return list, (threading.Lock(),)


def cyclic():
    parent = Holder(children=[])
    parent.children.append(Holder(parent=parent))
    parent.last = LOCK
    return parent


UNSENDABLE = {
    "message: lock objects cannot be sent": lambda: LOCK,
    "message[0]: generator objects cannot be sent": lambda: [generator()],
    "message['a']['b'][3]: lock objects cannot be sent": lambda: {"a": {"b": [1, 2, 3, LOCK, 5]}},
    "message['jobs'][3].sock: socket objects cannot be sent": lambda: {
        "jobs": [1, 2, 3, Holder(name="x", sock=SOCKET)]
    },
    "message[1] (a key): lock objects cannot be sent": lambda: [1, {LOCK: 1}],
    "message (an item): lock objects cannot be sent": lambda: {LOCK},
    "message.right: lock objects cannot be sent": lambda: OldPair(1, LOCK),
    "message.rest[0]: lock objects cannot be sent": lambda: Plain(1, [LOCK]),
    "message.y: lock objects cannot be sent": lambda: Tight(1, LOCK),
    "message.content: lock objects cannot be sent": lambda: Box(LOCK),
    "message.shown: lock objects cannot be sent": lambda: Slotted(LOCK, 1),
    "message.__hidden: lock objects cannot be sent": lambda: Slotted(1, LOCK),
    "message.args[1]: lock objects cannot be sent": lambda: ValueError("a", LOCK),
    "message.func.__closure__['value']: lock objects cannot be sent": lambda: functools.partial(closing_over(LOCK)),
    "message.args[0]: lock objects cannot be sent": lambda: functools.partial(print, LOCK),
    "message.keywords['file']: lock objects cannot be sent": lambda: functools.partial(print, file=LOCK),
    "message.__self__.lock: lock objects cannot be sent": lambda: Method(LOCK).run,
    "message.__globals__['LOCK']: lock objects cannot be sent": lambda: naming_a_global,
    "message.lock: lock objects cannot be sent": lambda: Locked,
    "message.__class__.lock: lock objects cannot be sent": lambda: Locked(),
    "message.__defaults__[0]: lock objects cannot be sent": lambda: eval("lambda x=LOCK: x", {"LOCK": LOCK}),
    "message.__kwdefaults__['x']: lock objects cannot be sent": lambda: eval("lambda *, x=LOCK: x", {"LOCK": LOCK}),
    "message.last: lock objects cannot be sent": cyclic,
    "message[0]: memoryview objects cannot be sent": lambda: [memoryview(b"abc"), 2**70],
    "message.flat[1]: lock objects cannot be sent": lambda: np.array([1, LOCK], object),
    "message: handles stay at home; send their number": Refusing,
    "message['r']: handles stay at home; send their number": lambda: {"r": Refusing()},
    "message[0]: Failing objects cannot be sent (LookupError: nothing there)": lambda: [Failing()],
    "message: Rebuilt objects cannot be sent": Rebuilt,
    "message[2]: Thread objects cannot be sent": lambda: [1, 2, threading.Thread()],
    "message: TextIOWrapper objects cannot be sent": lambda: FILE,
}
SOCKET = socket.socket()
SOCKET.close()
FILE = open(__file__)  # noqa: SIM115 - an object of its kind is all that is wanted
FILE.close()


class Method:
    def __init__(self, lock):
        self.lock = lock

    def run(self):
        pass


@pytest.mark.dart(
    "vm/send_unsupported_objects_test",
    "vm/send_unsupported_objects_deep_test",
    "lib/native_wrapper_message_test",
    "lib/illegal_msg_function_test",
)
@pytest.mark.parametrize("text", UNSENDABLE)
@pytest.mark.parametrize("encode", [messages.encode, messages.typed_encode], ids=["encode", "typed_encode"])
def test_unsendable(text, encode, elsewhere_unknown):
    """What cannot be sent is refused with the way to it, and what it is."""
    with pytest.raises(SendError) as caught:
        encode(UNSENDABLE[text]())
    assert str(caught.value) == text
    assert caught.value.__cause__ is not None


@pytest.fixture
def elsewhere_unknown(monkeypatch):
    """Make this module one that is not found on the path."""
    here = str(pathlib.Path(__file__).parent.parent)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".", here)])


@pytest.mark.parametrize("text", UNSENDABLE)
@pytest.mark.parametrize("encode", [messages.encode, messages.typed_encode], ids=["encode", "typed_encode"])
def test_what_cannot_be_sent_is_let_go(text, encode):
    """Nothing of such a message is kept when its error is gone, not even until garbage is collected."""
    beside = Holder(x=1)
    watched = weakref.ref(beside)
    gc.disable()
    try:
        try:
            encode([beside, UNSENDABLE[text]()])
        except SendError:
            pass
        del beside
        assert watched() is None
    finally:
        gc.enable()


def test_unsendable_coroutine():
    """A coroutine that was not awaited cannot be sent."""
    waiting = coroutine()
    with pytest.raises(SendError, match=r"^args\[1\]: coroutine objects cannot be sent$"):
        messages.encode((1, waiting), "args")
    waiting.close()


def test_unsendable_in_a_large_message():
    """In a large message the culprit is found without trying every item."""
    with pytest.raises(SendError, match=r"^message\[77777\]\['x'\]: lock objects cannot be sent$"):
        messages.encode([{"x": index if index != 77777 else LOCK} for index in range(100_000)])


def test_unsendable_calls():
    """What is wrong with a call is said of the function by its name, or of its arguments."""
    assert messages.decode(*messages.encode_call(math.hypot, (3, 4))[:3]) == (math.hypot, (3, 4))
    with pytest.raises(SendError, match=r"^args\[1\]\.x: lock objects cannot be sent$"):
        messages.encode_call(print, (1, Holder(x=LOCK)))
    function = closing_over(LOCK)
    with pytest.raises(SendError, match=r"<lambda>\.__closure__\['value'\]: lock objects cannot be sent$"):
        messages.encode_call(function, ())


# -- typed ports -------------------------------------------------------------------------------------------------------


class Movie(typing.TypedDict):
    title: str
    year: typing.NotRequired[int]


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Everything(msgspec.Struct):
    when: datetime.datetime
    price: decimal.Decimal
    key: uuid.UUID
    color: Color | None
    pair: Pair
    plain: Tight
    shape: Circle | Square
    boxes: list[Box[int]]
    table: dict[int, tuple[str, ...]]
    unique: frozenset[str]
    array: np.ndarray
    port: Port
    count: typing.Annotated[int, msgspec.Meta(ge=0)] = 0


class Loose(msgspec.Struct):
    payload: typing.Any
    n: int = 0


class Level(enum.Enum):
    LOW = 1


everything = Everything(
    datetime.datetime(2024, 3, 31, 1, 30, tzinfo=BERLIN),
    decimal.Decimal("1.10"),
    uuid.UUID(int=7),
    None,
    Pair(1, "x"),
    Tight(2),
    Square(2.0),
    [Box(1)],
    {1: ("a", "b")},
    frozenset({"u"}),
    np.arange(3),
    Port(5),
)


def without_color(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__ if name not in ("color", "array")}


def test_typed_round_trip():
    """A Struct of everything that msgspec knows, and of what it does not, arrives equal."""
    schema = msgspec.defstruct(
        "Schema",
        [
            (name, type_ if name != "color" else Level | None)
            for name, type_ in typing.get_type_hints(Everything, include_extras=True).items()
        ],
    )
    message = schema(**{name: getattr(everything, name) for name in everything.__struct_fields__})
    arrived = arrive_typed(message, schema)
    assert without_color(arrived) == without_color(message)
    assert arrived.when.tzinfo is BERLIN
    assert arrived.array.tolist() == [0, 1, 2]
    assert type(arrived.plain) is Tight


@pytest.mark.parametrize(
    ("message", "type_", "expected"),
    [
        (None, None, None),
        (5, int, 5),
        (5, int | None, 5),
        (5, float, 5.0),
        (True, bool, True),
        ("s", str, "s"),
        (b"b", bytes, b"b"),
        (2**80, int, 2**80),
        ([2**80, 1], list[int], [2**80, 1]),
        ("\ud800", str, "\ud800"),
        (["\ud800"], list[str], ["\ud800"]),
        ("a", typing.Literal["a", "b"], "a"),
        ([1, 2], tuple[int, ...], (1, 2)),
        ((1, 2), list[int], [1, 2]),
        ((1, 2), list, [1, 2]),
        ({"title": "t"}, Movie, {"title": "t"}),
        (Point(1, 2.0), Point, Point(1, 2.0)),
        (Circle(1), Circle | Square, Circle(1.0)),
        (Row(name="r"), Row, Row(name="r")),
        (Box(1), Box[int], Box(1)),
        (Node(1, Node(2)), Node, Node(1, Node(2))),
        (Level.LOW, Level, Level.LOW),
        ([Level.LOW], list[Level], [Level.LOW]),
        (Pair(1), Pair, Pair(1)),
        (Plain(1, [2]), Plain, Plain(1, [2])),
        (Tight(1), Tight, Tight(1)),
        (datetime.datetime(2024, 1, 1), datetime.datetime, datetime.datetime(2024, 1, 1)),
        (datetime.date(2024, 1, 1), datetime.date, datetime.date(2024, 1, 1)),
        (datetime.timedelta(1), datetime.timedelta, datetime.timedelta(1)),
        (decimal.Decimal("1.0"), decimal.Decimal, decimal.Decimal("1.0")),
        (uuid.UUID(int=1), uuid.UUID, uuid.UUID(int=1)),
        (range(3), range, range(3)),
        ([1j], list[complex], [1j]),
        (Port(1), Port, Port(1)),
        ({"p": Port(1)}, dict[str, Port], {"p": Port(1)}),
        (Loose((1, {2})), Loose, Loose((1, {2}))),
        (np.float64(1.5), np.float64, np.float64(1.5)),
    ],
    ids=lambda value: str(value)[:40],
)
def test_typed_values(message, type_, expected):
    """A typed port gives values of its type, strictly converted where need be."""
    for encode in (messages.typed_encode, messages.encode):
        if encode is messages.typed_encode and not messages.Decoder(type_).packs:
            continue
        kind, body, buffers, _ = encode(message)
        arrived = messages.Decoder(type_).decode(kind, memoryview(body), buffers)
        assert type(arrived) is type(expected)
        assert arrived == expected


@pytest.mark.parametrize(
    ("message", "type_", "text"),
    [
        ("5", int, r"Expected `int`, got `str`"),
        (1.5, int, r"Expected `int`, got `float`"),
        (-1, typing.Annotated[int, msgspec.Meta(ge=0)], r"Expected `int` >= 0"),
        ([1, "x"], list[int], r"Expected `int`, got `str` - at `\$\[1\]`"),
        ([2**80, "x"], list[int], r"Expected `int`, got `str` - at `\$\[1\]`"),
        (Point("x"), Point, r"Expected `int`, got `str` - at `\$\.x`"),
        ([Loose(1, "x")], list[Loose], r"Expected `int`, got `str` - at `\$\[0\]\.n`"),
        (Plain("x"), Plain, r"Expected `int`, got `str` - at `\$\.x`"),
        ({"a": range(3)}, dict[str, complex], r"Expected `complex`, got `range` - at `\$\[\.\.\.\]`"),
        (Port(1), Holder, r"Expected `Holder`, got `Port`"),
        (range(3), int, r"Expected `int`, got `\w+`"),
        (Circle(1), Point, r"Invalid value 'Circle' - at `\$\.type`"),
        ({}, Movie, r"Object missing required field `title`"),
        (None, int, r"Expected `int`, got `null`|Expected `int`, got `None`"),
    ],
    ids=str,
)
def test_messages_of_the_wrong_type(message, type_, text):
    """A message of the wrong type is refused with msgspec's words, and the decoder goes on."""
    decoder = messages.Decoder(type_)
    with pytest.raises(MessageTypeError, match=text):
        decoder.decode(*messages.typed_encode(message)[:3])


def test_typed_arrays():
    """A large array travels beside the message, a small one inside it; both arrive as arrays."""

    class Frame(msgspec.Struct):
        pixels: np.ndarray
        n: int

    for size, kind in ((10, protocol.MSGPACK), (100_000, protocol.PICKLE)):
        message = Frame(np.arange(size), 1)
        assert messages.typed_encode(message)[0] == kind
        arrived = arrive_typed(message, Frame)
        assert arrived.pixels.sum() == message.pixels.sum()
        assert arrived.pixels.flags.writeable
    with pytest.raises(MessageTypeError, match=r"Expected `int`, got `str` - at `\$\.n`"):
        arrive_typed(Frame(np.arange(100_000), "x"), Frame)


def test_typed_cycles():
    """A cyclic Struct of the port's type arrives with its cycle."""
    node = Node(1)
    node.next = node
    arrived = arrive_typed(node, Node)
    assert arrived.next is arrived


@pytest.mark.parametrize(
    ("type_", "packs"),
    [(int, True), (Everything, False), (dict, False), (list[Point], True), (Loose, False), (typing.Any, False)],
)
def test_which_types_pack(type_, packs):
    """A decoder says whether MessagePack would keep everything of its type."""
    if type_ is not Everything:
        assert messages.Decoder(type_).packs is packs


@pytest.mark.parametrize("type_", [1, "int", list[1], list[int] | tuple[int], Point | Row | Circle | Box], ids=str)
def test_types_that_cannot_be_decoded(type_):
    """A type that msgspec refuses is a TypeError at once."""
    with pytest.raises(TypeError):
        messages.Decoder(type_)


def test_unresolvable_types():
    """An annotation that names nothing is a TypeError as well."""
    struct = msgspec.defstruct("Unresolvable", [("x", "Nowhere")])
    with pytest.raises(TypeError, match="Nowhere"):
        messages.Decoder(struct)


def test_plain_decoding_of_typed_messages():
    """What was encoded for a typed port can be decoded without a type, as far as MessagePack tells."""
    kind, body, buffers, _ = messages.typed_encode({"a": [1, Port(2)]})
    assert kind == protocol.MSGPACK
    assert messages.decode(kind, body, buffers) == {"a": [1, Port(2)]}
