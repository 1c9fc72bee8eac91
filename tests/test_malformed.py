"""Bytes that nobody has written as they are: each decoder ends in an error that says so, soon, and without much memory.

Two things are believed, because they never come from outside of the process: a pickle, which can do whatever Python can
(only pickles that are cut off are tried here), and the address of a region of memory.
"""

import contextlib
import datetime
import os
import pickle
import resource
import struct
import uuid
from time import monotonic_ns as now
from unittest import mock

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from subiso import messages, typed
from subiso._kernel import links, node, parcels, protocol
from subiso._kernel.arena import Arena, address_of, memory_file
from subiso._kernel.links import DamagedError, Reader, Writer
from subiso._kernel.mailbox import Mailbox
from subiso._kernel.waitables import Inbox

SENDER, RECEIVER = 3, 5
ADDRESS = address_of(RECEIVER, 1, 20)
MOST = 64 << 20  # bytes that a test may take; the lengths that lie are much larger

DEPTHS = pytest.mark.parametrize("deep", [False, pytest.param(True, marks=pytest.mark.stress)], ids=["some", "many"])


def effort(deep, some, many):
    """Return Hypothesis' settings: how many examples are tried."""
    calm = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=many if deep else some,
        derandomize=not deep,
        database=None,
        deadline=None,
        suppress_health_check=calm,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],  # explaining wants a tool id that subiso uses
    )


@contextlib.contextmanager
def little_memory():
    """Fail if much memory is used meanwhile: the largest size of the process is what counts."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST


class Point(msgspec.Struct):
    x: int
    y: "list[Point] | None" = None


DECODERS = [messages.decode, messages.Decoder(Point).decode, messages.Decoder(dict[str, list[int]]).decode]
DECODERS += [messages.Decoder(type_).decode for type_ in (int, str, bytes, float, datetime.datetime, uuid.UUID | None)]
KINDS = st.integers(0, 300).filter(lambda kind: kind != protocol.PICKLE)

VALID = [
    messages.typed_encode(message)
    for message in (Point(1, [Point(2), Point(3)]), {"a": [1, 2, 3], "b": []}, [1.5, "text", b"bytes", None, {}])
]
MARKS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\x91" * 9,
]


def _mutate(body, changes):
    """Return bytes with others in their place, or between them, or cut off."""
    body = bytearray(body)
    for place, how, new in changes:
        place %= len(body) + 1
        if how == "cut":
            del body[place:]
        else:
            body[place : place + (len(new) if how == "over" else 0)] = new
    return bytes(body)


news = st.binary(min_size=1, max_size=9) | st.sampled_from(MARKS)
changes = st.lists(
    st.tuples(st.integers(0, 100), st.sampled_from(["over", "into", "cut"]), news), min_size=1, max_size=4
)
bodies = st.binary(max_size=60) | st.builds(_mutate, st.sampled_from([body for _, body, _, _ in VALID]), changes)


@DEPTHS
def test_malformed_messages(deep):
    """Random and changed bytes of every kind are a value or an ordinary error, for every decoder."""
    believed = mock.patch.object(typed, "_pickle", mock.Mock(loads=lambda data: ("a pickle", bytes(data))))

    @effort(deep, 300, 50_000)
    @given(st.sampled_from(DECODERS), KINDS | st.just(protocol.MSGPACK), bodies)
    def check(decode, kind, body):
        with contextlib.suppress(Exception):
            decode(kind, memoryview(body))

    with believed, little_memory():
        check()


@pytest.mark.parametrize("decode", DECODERS[:3], ids=["untyped", "struct", "dict"])
@pytest.mark.parametrize("mark", MARKS)
def test_lengths_that_lie(decode, mark):
    """A length that the bytes do not have is an error at once, and nothing is made ready for so much."""
    with little_memory(), pytest.raises(Exception, match=r"truncated|Expected|expected|malformed|nested"):
        decode(protocol.MSGPACK, memoryview(mark))


def test_messages_that_are_too_deep():
    """MessagePack that is nested a million times is an error."""
    with pytest.raises((RecursionError, msgspec.DecodeError)):
        messages.decode(protocol.MSGPACK, b"\x91" * 1_000_000 + b"\x01")


@pytest.mark.parametrize(
    "message", [[1, "two", {3: (4.0, b"five")}], Point(1), ValueError("x"), {"a": lambda: 1}, 1 << 500]
)
def test_pickles_that_are_cut_off(message):
    """A pickle that is not whole is an error, wherever it was cut off."""
    kind, body, _, _ = messages.encode(message)
    assert kind == protocol.PICKLE
    for end in range(len(body)):
        with little_memory(), pytest.raises((pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError)):
            messages.decode(kind, memoryview(body[:end]))


def test_buffers_that_are_missing():
    """A pickle whose buffers did not come is an error."""
    kind, body, buffers, _ = messages.encode([pickle.PickleBuffer(bytearray(100_000))])
    assert buffers
    with pytest.raises(pickle.UnpicklingError):
        messages.decode(kind, body, [])


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def arena():
    """The shared memory."""
    shared = Arena.create()
    yield shared
    shared.close()
    os.close(shared.descriptor)


def read(reader):
    """Read everything; return how many bytes that were, or raise."""
    inbox = Inbox(ADDRESS)
    others = reader.read({ADDRESS: inbox}, [], now()) or []
    return sum(len(payload) for *_, payload in [*inbox.messages, *others])


def ring_words():
    """Return the indices of the words of the ring."""
    first = Arena.ring(SENDER, RECEIVER) >> 3
    return range(first, first + (links._CONTROL + links._ROOM + links._RESERVE) // 8)


words = (
    st.integers(0, (1 << 64) - 1)
    | st.integers(0, 1 << 20)
    | st.builds(lambda length, kind: length << 8 | kind, st.integers(0, 1 << 40), st.integers(0, 40))
)


@DEPTHS
@pytest.mark.parametrize("part", ["control", "records"])
def test_a_damaged_ring(deep, part, arena):
    """A word that was written over, anywhere in a ring, costs messages, or is a DamagedError; nothing else."""
    places = ring_words()[:11] if part == "control" else ring_words()[16:60]  # but for the descriptors of segments

    @effort(deep, 100, 20_000)
    @given(st.sampled_from(places), words, st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(0, 3))
    def check(place, word, sizes, already):
        start = ring_words().start * 8
        arena.memory[start : ring_words().stop * 8] = bytes(ring_words().stop * 8 - start)
        writer, reader = Writer(arena, SENDER, RECEIVER), Reader(arena, SENDER, RECEIVER)
        for number, size in enumerate(sizes):
            if number == already:
                read(reader)
            writer.write(protocol.BYTES, ADDRESS, b"\xff" * size)  # which is no descriptor
        assume(place - ring_words().start not in (2, 10))
        arena.words[place] = word
        for _ in range(3):
            with contextlib.suppress(DamagedError, OSError):
                assert read(reader) <= 8192
            with contextlib.suppress(DamagedError, OSError):
                reader.next()

    with little_memory():
        check()


def write_record(arena, kind, first, second):
    """Put one record with a payload of two words into the ring, as its writer would."""
    writer = Writer(arena, SENDER, RECEIVER)
    writer.write(protocol.BYTES, ADDRESS, struct.pack("2Q", first, second))
    start = ring_words().start + links._CONTROL // 8
    arena.words[start] = 16 << 8 | kind


@pytest.mark.parametrize("size", [0, 7, 8, 4096, 4104, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("descriptor", ["short", "pipe", "closed", 1 << 31, (1 << 64) - 1])
@pytest.mark.parametrize("way", ["read", "next"])
def test_a_segment_that_is_none(arena, descriptor, size, way):
    """A way out of the ring that leads nowhere is an error, each time it is tried."""
    opened = [memory_file("test", 4096), *os.pipe()]
    number = {"short": opened[0], "pipe": opened[1], "closed": 1000}.get(descriptor, descriptor)
    write_record(arena, protocol.JUMP, number, size)
    reader = Reader(arena, SENDER, RECEIVER)
    attempt = (lambda: read(reader)) if way == "read" else reader.next
    if descriptor == "short" and size in (0, 8, 4096):  # it is one, and the stream has not gone on in it
        assert not attempt()
        opened.pop(0)
        reader._segment.unmap()
        os.close(reader._segment.descriptor)
    else:
        for _ in range(2):
            with pytest.raises((DamagedError, OSError)):
                attempt()
    for one in opened:
        os.close(one)


@pytest.mark.parametrize("kind", [0, protocol.BACK, protocol.HOME])
def test_a_way_home_that_is_none(arena, kind):
    """Records that lead about in a circle, or are none, end."""
    write_record(arena, kind, 0, 0)
    arena.words[ring_words().start] = 1 << 50  # the tail
    reader = Reader(arena, SENDER, RECEIVER)
    with pytest.raises(DamagedError):
        read(reader)
    with pytest.raises(DamagedError):
        for _ in range(10_000):
            reader.next()


# -- large messages, notes about ports, control messages ---------------------------------------------------------------


@DEPTHS
def test_large_messages_of_random_words(deep):
    """A record about a large message of random length and words is an error; no address in it is tried."""

    @effort(deep, 100, 5000)
    @given(st.binary(max_size=120), st.lists(words, max_size=16))
    def check(rest, some):
        for payload in (rest, struct.pack(f"{len(some)}Q", *some) + rest):
            with pytest.raises(DamagedError):
                parcels.unpack(protocol.LARGE, payload)

    with little_memory():
        check()


@pytest.mark.parametrize("payload", [b"", b"1234567", bytes(16), struct.pack("3Q", 1 << 40, 1, 1), bytes(32)])
def test_damaged_notes_about_ports(arena, payload):
    """A note about who holds a port that names no slot, or is none, is an error, and changes nothing."""
    descriptors = os.pipe()
    mailbox = Mailbox(arena, RECEIVER, descriptors[0])
    inbox = mailbox.open()
    Writer(arena, SENDER, RECEIVER).write(protocol.GRANT, inbox.address, payload)
    with pytest.raises(DamagedError):
        mailbox.pump()
    assert not inbox.holders
    mailbox.pump()
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("length", [4093, 70_000, (1 << 32) - 1])
def test_control_messages_that_are_too_long(length):
    """A control message that says it is longer than any can be is an error; those after it are read."""
    reader, writer = os.pipe()
    pipe = node.ControlPipe(reader)
    good = pickle.dumps(("ping", 1))
    framed = len(good).to_bytes(4, "little") + good
    os.write(writer, framed[:3])
    assert pipe.read() == []
    os.write(writer, framed[3:])
    assert pipe.read() == [("ping", 1)]
    os.write(writer, length.to_bytes(4, "little") + bytes(5000))
    with pytest.raises(ValueError, match="damaged"):
        pipe.read()
    os.write(writer, framed)
    assert pipe.read() == [("ping", 1)]
    os.close(reader)
    os.close(writer)
