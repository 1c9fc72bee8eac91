"""Whatever is sent arrives as it was; ports, isolates and pools behave as a simple model of them does.

Examples are drawn by Hypothesis: some, always the same, in the ordinary run; with `-m stress` many, new ones each time.
"""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import typing
import uuid

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, rule, run_state_machine_as_test

from subiso import (
    Isolate,
    IsolateKilledError,
    IsolatePool,
    MessageTypeError,
    NoSendersError,
    PortClosedError,
    PortEmpty,
    PortFull,
    ReceivePort,
    SendPort,
    messages,
)

LONG = 20  # seconds: the bound of a wait that should be over at once

DEPTHS = pytest.mark.parametrize("deep", [False, pytest.param(True, marks=pytest.mark.stress)], ids=["some", "many"])


def effort(deep, some, many, **options):
    """Return Hypothesis' settings: how many examples are tried."""
    count = many if deep else some
    calm = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    options |= {"database": None, "deadline": None, "suppress_health_check": calm}
    # Not Phase.explain, which wants a tool id of sys.monitoring that subiso uses.
    options["phases"] = [Phase.explicit, Phase.generate, Phase.shrink]
    return settings(max_examples=count, derandomize=not deep, **options)


class Color(enum.Enum):
    RED = 1
    GREEN = "green"


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Permission(enum.IntFlag):
    READ = 1
    WRITE = 2


class Pair(typing.NamedTuple):
    left: object
    right: object = None


class Point(msgspec.Struct):
    x: int
    y: float = 0.0
    label: str | None = None


class Tagged(msgspec.Struct, frozen=True, tag=True, array_like=True):
    value: object


@dataclasses.dataclass
class Node:
    name: str = ""
    child: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    value: object


class Plain:
    """An object with attributes."""


class MyList(list):
    """A list that is more than one."""


# -- messages ----------------------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 300), 1 << 300)
    | st.sampled_from([(1 << 63) - 1, 1 << 63, -(1 << 63), -(1 << 63) - 1, (1 << 64) - 1, 1 << 64])
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.text(st.characters(categories=["Cs", "L"]))  # lone surrogates
    | st.binary()
    | st.sampled_from([*Color, *Permission, Permission(3), ..., NotImplemented, int, Point, len])
    | st.decimals()
    | st.fractions()
    | st.dates()
    | st.datetimes()
    | st.datetimes(timezones=st.just(datetime.UTC))
    | st.timedeltas()
    | st.uuids()
    | st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3))
    | st.builds(Point, st.integers(), st.floats(), st.none() | st.text())
)
keys = st.integers() | st.text() | st.binary() | st.booleans() | st.none() | st.sampled_from([*Color, 0.5, (1, "a")])
arrays = of_numpy.arrays(
    of_numpy.boolean_dtypes()
    | of_numpy.integer_dtypes()
    | of_numpy.floating_dtypes()
    | of_numpy.complex_number_dtypes()
    | of_numpy.datetime64_dtypes(endianness="=")  # of others numpy itself forgets the order of bytes
    | of_numpy.unicode_string_dtypes(max_len=5)
    | of_numpy.array_dtypes(),
    of_numpy.array_shapes(min_dims=0, min_side=0, max_side=5),
)
large = st.builds(lambda n, dtype: np.arange(n).astype(dtype), st.integers(5000, 60_000), st.sampled_from("iqfd"))
mutable = st.sampled_from([list, dict, collections.deque, Node, Plain, MyList])
immutable = st.sampled_from([tuple, frozenset, set, Pair, Frozen, Tagged])


@st.composite
def graphs(draw, leaves):
    """Draw objects that contain each other, in cycles and repeatedly, and leaves; return the first one."""
    kinds = draw(st.lists(mutable, min_size=1, max_size=6))
    made = [kind() for kind in kinds]
    parts = st.sampled_from(made) | leaves
    for one in made:
        held = [_wrap(draw, part) for part in draw(st.lists(parts, max_size=4))]
        if isinstance(one, dict):
            one.update(zip(draw(st.lists(keys, min_size=len(held), max_size=len(held))), held, strict=True))
        elif isinstance(one, Node):
            one.child = held
        elif isinstance(one, Plain):
            vars(one).update((f"a{number}", value) for number, value in enumerate(held))
        else:
            one.extend(held)
            if isinstance(one, MyList):
                one.attribute = held
    return made[0]


def _wrap(draw, part):
    """Sometimes, put a part into what cannot be changed."""
    if draw(st.integers(0, 4)):
        return part
    kind = draw(immutable)
    if kind in (set, frozenset):
        return kind(draw(st.lists(keys, max_size=3)))
    return kind((part, part)) if kind is tuple else kind(part, part) if kind is Pair else kind(part)


def whole_messages(*more):
    """Return the strategy of messages; ``more`` are further leaves."""
    leaves = st.one_of(scalars, arrays, *more)
    return st.one_of(leaves, graphs(leaves), large)


def alike(one, other, seen):
    """Return whether two messages have equal parts of equal types, each as often and in the same places.

    Args:
        one: what was sent.
        other: what has arrived.
        seen: by the identity of what was sent: what it has become.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, type) or callable(one) or one is ... or one is NotImplemented:
        return one is other
    if isinstance(one, (int, str, bytes, enum.Enum, *_VALUES)):
        return one == other
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (one != one and other != other)
    if isinstance(one, complex):
        return alike(one.real, other.real, {}) and alike(one.imag, other.imag, {})
    if isinstance(one, decimal.Decimal):
        return str(one) == str(other)
    if isinstance(one, (set, frozenset)):
        return sorted(map(_named, one)) == sorted(map(_named, other))
    if id(one) in seen:
        return seen[id(one)] is other
    if any(known is other for known in seen.values()):
        return False
    seen[id(one)] = other
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return _parts_alike(one, other, seen)


_VALUES = (
    fractions.Fraction,
    datetime.date,
    datetime.timedelta,
    uuid.UUID,
    range,
    SendPort,
    type(None),
)


def _named(value):
    return type(value).__name__, repr(value)


def _parts_alike(one, other, seen):
    if isinstance(one, dict):
        parts = [([*each], [*each.values()]) for each in (one, other)]
        same_keys = [*map(_named, parts[0][0])] == [*map(_named, parts[1][0])]
        return same_keys and _all_alike(parts[0][1], parts[1][1], seen)
    parts = []
    for each in (one, other):
        held = [*each] if isinstance(each, (list, tuple, collections.deque)) else []
        names = getattr(type(each), "__struct_fields__", None) or getattr(type(each), "__dataclass_fields__", ())
        held += [getattr(each, name) for name in names]
        held += [value for name, value in getattr(each, "__dict__", {}).items() if name not in names]
        parts.append(held)
    return _all_alike(*parts, seen)


def _all_alike(ones, others, seen):
    return len(ones) == len(others) and all(alike(*pair, seen) for pair in zip(ones, others, strict=True))


def arrive(encoded, decode=messages.decode):
    """Return a message as it arrives."""
    kind, body, buffers, _ = encoded
    return decode(kind, memoryview(body), [memoryview(bytearray(buffer)) for buffer in buffers])


@DEPTHS
def test_what_is_sent_is_what_arrives(deep):
    """Any message arrives with its types, values, cycles and shared parts, whether or not it goes to a typed port."""

    @effort(deep, 250, 20_000)
    @given(whole_messages())
    def check(message):
        assert alike(message, arrive(messages.encode(message)), {})
        assert alike(message, arrive(messages.typed_encode(message)), {}) or not _survives_packing(message)

    check()


def _survives_packing(message):
    """Return whether MessagePack keeps a message as it is, without a type that says what it was."""
    return messages.typed_encode(message)[0] != messages.MSGPACK


@DEPTHS
def test_messages_through_an_isolate(deep):
    """Any message, send ports in it too, comes back from an isolate as it went."""

    def echo(out):
        with ReceivePort(end_with_senders=False) as mine:
            out.send(mine.send_port)
            for message in mine:
                if message == "the end":
                    break
                out.send([message])

    with ReceivePort() as port:
        isolate = Isolate.spawn(echo, port.send_port)
        peer = port.receive(LONG)

        @effort(deep, 60, 3000)
        @given(whole_messages(st.just(port.send_port), st.just(peer)))
        def check(message):
            peer.send([message])
            assert alike([[message]], port.receive(LONG), {})

        check()
        peer.send("the end")
        assert isolate.join(LONG)


# -- typed ports -------------------------------------------------------------------------------------------------------

plain_types = {
    int: st.integers(-(1 << 63), (1 << 64) - 1) | st.integers(),
    float: st.floats(),
    str: st.text() | st.text(st.characters(categories=["Cs", "L"])),
    bytes: st.binary(),
    bool: st.booleans(),
    None: st.none(),
    datetime.datetime: st.datetimes() | st.datetimes(timezones=st.just(datetime.UTC)),
    datetime.date: st.dates(),
    uuid.UUID: st.uuids(),
    decimal.Decimal: st.decimals(allow_nan=False),
    Level: st.sampled_from([*Level]),
    Point: st.builds(Point, st.integers(-(1 << 63), 1 << 63), st.floats(), st.none() | st.text()),
    set[int]: st.sets(st.integers(0, 9)),
    frozenset[str]: st.frozensets(st.text(max_size=2)),
}


def _containers(inner):
    def of(pair):
        type_, values = pair
        return st.sampled_from(
            [
                (list[type_], st.lists(values, max_size=4)),
                (tuple[type_, ...], st.lists(values, max_size=4).map(tuple)),
                (tuple[type_, int], st.tuples(values, st.integers(-9, 9))),
                (dict[str, type_], st.dictionaries(st.text(max_size=3), values, max_size=4)),
                (dict[int, type_], st.dictionaries(st.integers(-9, 9), values, max_size=4)),
                (typing.Optional[type_], st.none() | values),  # noqa: UP045 - of a type that is drawn
            ]
        )

    return inner.flatmap(of)


types = st.recursive(st.sampled_from([*plain_types.items()]), _containers, max_leaves=3)


@DEPTHS
def test_typed_messages(deep):
    """A message of the port's type arrives as it was, however it had to be encoded."""

    @effort(deep, 100, 5000)
    @given(st.data(), types)
    def check(data, pair):
        type_, values = pair
        message = data.draw(values)
        decoder = messages.Decoder(type_)
        for encode in (messages.typed_encode, messages.encode):
            assert alike([message], [arrive(encode(message), decoder.decode)], {})

    check()


@DEPTHS
def test_messages_of_any_type_at_a_typed_port(deep):
    """Whatever comes to a typed port is of its type afterwards, or a MessageTypeError."""

    @effort(deep, 100, 5000)
    @given(whole_messages(), types)
    def check(message, pair):
        decoder = messages.Decoder(pair[0])
        for encode in (messages.typed_encode, messages.encode):
            try:
                arrived = arrive(encode(message), decoder.decode)
            except MessageTypeError:
                continue
            again = arrive(encode(arrived), decoder.decode)
            assert alike([arrived], [again], {})

    check()


# -- ports, isolates and pools, and a model of them --------------------------------------------------------------------


def obey(out):
    """Do what is told: send something somewhere, and say how that went; or echo."""
    with ReceivePort(end_with_senders=False) as mine:
        out.send(mine.send_port)
        for order, *facts in mine:
            if order == "send":
                try:
                    facts[0].send_nowait(facts[1])
                    out.send("sent")
                except PortClosedError:
                    out.send("closed")
                except PortFull:
                    out.send("full")
            elif order == "echo":
                out.send(facts[0])
            elif order == "exit":
                Isolate.exit(out, facts[0])
            elif order == "raise":
                raise ValueError(facts[0])
            else:
                return


def task(kind, value):
    if kind == "raise":
        raise ValueError(value)
    if kind == "die":
        Isolate.current().kill()
        ReceivePort(end_with_senders=False).receive()
    return value


class _Port:
    def __init__(self, maxsize):
        self.real = ReceivePort(maxsize=maxsize)
        self.maxsize = maxsize
        self.queue = collections.deque()
        self.holders = []

    def outcome_of_send(self):
        if self.real.closed:
            return "closed"
        return "full" if self.maxsize and len(self.queue) >= self.maxsize else "sent"

    def outcome_of_receive(self):
        """Return what an empty port raises."""
        if self.real.closed:
            return PortClosedError
        if self.holders and not any(holder.alive for holder in self.holders):
            return NoSendersError
        return PortEmpty


class _Isolate:
    def __init__(self):
        self.out = ReceivePort(end_with_senders=False)
        self.ends = ReceivePort(end_with_senders=False)
        self.real = Isolate.spawn(obey, self.out.send_port, on_exit=self.ends.send_port, on_error=self.ends.send_port)
        self.peer = self.out.receive(LONG)
        self.alive = True
        self.pauses = []
        self.pending = []

    def end(self):
        """Take note that it has ended."""
        assert self.real.join(LONG)
        assert not self.real.is_alive
        self.alive = False

    def settle(self):
        """Receive what it was told to echo while it was paused."""
        for expected in self.pending:
            assert self.out.receive(LONG) == expected
        self.pending = []


class Machine(RuleBasedStateMachine):
    """Ports, isolates and a pool; what each operation is to do is known beforehand."""

    ports = Bundle("ports")
    isolates = Bundle("isolates")
    futures = Bundle("futures")
    values = st.integers() | st.text(max_size=5) | st.lists(st.floats(allow_nan=False), max_size=3)

    def __init__(self):
        super().__init__()
        self.made = []
        self.pool = None

    @initialize()
    def begin(self):
        self.pool = IsolatePool(2)

    # -- ports

    @rule(target=ports, maxsize=st.sampled_from([0, 0, 1, 3]))
    def open(self, maxsize):
        port = _Port(maxsize)
        self.made.append(port.real)
        return port

    @rule(port=ports, value=values)
    def send(self, port, value):
        expected = port.outcome_of_send()
        if expected == "sent":
            port.real.send_port.send_nowait(value)
            port.queue.append(value)
        else:
            with pytest.raises({"closed": PortClosedError, "full": PortFull}[expected]):
                port.real.send_port.send_nowait(value)

    @rule(port=ports)
    def receive(self, port):
        if port.queue and not port.real.closed:
            assert port.real.receive(LONG) == port.queue.popleft()
        else:
            with pytest.raises(port.outcome_of_receive()):
                port.real.receive_nowait()

    @rule(port=ports)
    def close(self, port):
        port.real.close()
        port.queue.clear()

    # -- isolates

    @rule(target=isolates)
    def spawn(self):
        isolate = _Isolate()
        self.made += [isolate.out, isolate.ends]
        return isolate

    @rule(isolate=isolates, value=values)
    def echo(self, isolate, value):
        if not isolate.alive:
            with pytest.raises(PortClosedError):
                isolate.peer.send(("echo", value))
            return
        isolate.peer.send(("echo", value))
        isolate.pending.append(value)
        if not isolate.pauses:
            isolate.settle()

    @rule(isolate=isolates, port=ports, value=values)
    def send_from(self, isolate, port, value):
        if not isolate.alive or isolate.pauses:
            return
        isolate.peer.send(("send", port.real.send_port, value))
        port.holders.append(isolate)
        expected = port.outcome_of_send()
        assert isolate.out.receive(LONG) == expected
        if expected == "sent":
            port.queue.append(value)

    @rule(isolate=isolates)
    def pause(self, isolate):
        if isolate.alive:
            isolate.pauses.append(isolate.real.pause())
            self.ping(isolate)  # answered when the pause is in force

    @rule(isolate=isolates)
    def resume(self, isolate):
        if isolate.alive and isolate.pauses:
            isolate.real.resume(isolate.pauses.pop())
            if not isolate.pauses:
                isolate.settle()

    @rule(isolate=isolates)
    def ping(self, isolate):
        if isolate.alive:
            with ReceivePort() as port:
                isolate.real.ping(port.send_port, "pong")
                assert port.receive(LONG) == "pong"

    @rule(isolate=isolates, how=st.sampled_from(["kill", "exit", "raise", "return"]), value=values)
    def end(self, isolate, how, value):
        if not isolate.alive:
            isolate.real.kill()  # which does nothing
            return
        if how == "kill" or isolate.pauses:
            isolate.real.kill()
            isolate.end()
            with pytest.raises(PortEmpty):  # what was told to a paused one was not done
                isolate.out.receive_nowait()
        else:
            isolate.peer.send((how, value))
            isolate.end()
            if how == "exit":
                assert isolate.out.receive(LONG) == value
            if how == "raise":
                assert isolate.ends.receive(LONG)[0] == f"ValueError: {value}"
        assert isolate.ends.receive(LONG) is None
        with pytest.raises(PortEmpty):
            isolate.ends.receive_nowait()

    # -- a pool

    @rule(target=futures, kind=st.sampled_from(["value", "value", "raise", "die"]), value=values)
    def submit(self, kind, value):
        return self.pool.submit(task, kind, value), kind, value

    @rule(future=consumes(futures))
    def result(self, future):
        future, kind, value = future
        if kind == "value":
            assert future.result(LONG) == value
        else:
            with pytest.raises({"raise": ValueError, "die": IsolateKilledError}[kind]) as caught:
                future.result(LONG)
            assert kind == "die" or caught.value.args == (value,)

    @rule(future=consumes(futures))
    def cancel(self, future):
        future, kind, value = future
        assert future.cancel() or future.done()
        assert future.cancelled() or kind != "value" or future.result(LONG) == value

    @rule(values=st.lists(st.integers(), max_size=20))
    def map(self, values):
        assert list(self.pool.map(task, ["value"] * len(values), values)) == values

    def teardown(self):
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
        for port in self.made:
            port.close()
        for isolate in self.bundles.get("isolates", ()):
            real = self.names_to_values[isolate.name].real
            real.kill()
            assert real.join(LONG)


@DEPTHS
def test_a_model_of_ports_isolates_and_pools(deep):
    """Whatever is done with ports, isolates and a pool, in whatever order, has the outcome that a model says."""
    run_state_machine_as_test(Machine, settings=effort(deep, 6, 300, stateful_step_count=20))
