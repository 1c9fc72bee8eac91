"""Buffers and transferables: memory that is handed over without being copied."""

import copy
import gc
import os
import pickle
import threading

import pytest

from subiso import (
    Buffer,
    BufferSendError,
    Isolate,
    IsolatePool,
    PortClosedError,
    PortFull,
    ReceivePort,
    SendError,
    Transferable,
)
from subiso._kernel import regions

LONG = 20  # seconds: the bound of a wait that should be over at once


def echo(out):
    """Send back what comes, until None does."""
    with ReceivePort(end_with_senders=False) as port:
        out.send(port.send_port)
        for message in iter(port.receive, None):
            out.send(message)


def fill(buffer, byte):
    """Fill a buffer and give it back."""
    with memoryview(buffer) as memory:
        memory[:] = byte * len(buffer)
    return buffer


def text_of(transferable):
    return bytes(transferable.materialize())


@pytest.fixture
def round_trip():
    """Send to an isolate that sends everything back."""
    with ReceivePort() as port:
        isolate = Isolate.spawn(echo, port.send_port)
        theirs = port.receive(LONG)

        def go(message):
            theirs.send(message)
            return port.receive(LONG)

        yield go
        theirs.send(None)
        assert isolate.join(LONG)


@pytest.fixture
def mapped(monkeypatch):
    """What is mapped now, by address, as this interpreter knows it."""
    addresses = {}
    functions = regions._c()

    class Counted:
        view = functions.view

        @staticmethod
        def map(*args):
            address = functions.map(*args)
            addresses[address] = args[1]
            return address

        @staticmethod
        def unmap(address, size):
            assert addresses.pop(address) == size
            return functions.unmap(address, size)

    monkeypatch.setattr(regions, "_functions", Counted)
    return addresses


# -- buffers -----------------------------------------------------------------------------------------------------------


def test_a_buffer_is_memory():
    """It is zero at first, and filled through views."""
    buffer = Buffer(10)
    assert bytes(buffer) == bytes(10)
    with memoryview(buffer) as memory:
        assert (memory.format, memory.readonly, memory.nbytes) == ("B", False, 10)
        memory[2:5] = b"abc"
    assert bytes(buffer) == b"\0\0abc\0\0\0\0\0"
    assert len(buffer) == buffer.nbytes == 10
    assert repr(buffer) == "<Buffer of 10 bytes>"
    assert bytes(Buffer(0)) == b""


@pytest.mark.parametrize(
    ("size", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (None, TypeError), (1 << 62, MemoryError)]
)
def test_sizes_that_mean_nothing(size, error):
    """Refused at once."""
    with pytest.raises(error):
        Buffer(size)


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20])
def test_a_buffer_is_handed_over(round_trip, size):
    """It arrives with what is in it, and is gone here."""
    buffer = fill(Buffer(size), b"x")
    arrived = round_trip({"it": [buffer]})["it"][0]
    assert isinstance(arrived, Buffer)
    assert bytes(arrived) == b"x" * size
    with pytest.raises(BufferError, match="handed over"):
        memoryview(buffer)
    assert (len(buffer), repr(buffer)) == (size, f"<Buffer of {size:,} bytes, sent>")


def test_the_memory_itself_is_handed_over(round_trip):
    """There and back it lies where it lay."""
    buffer = Buffer(1 << 16)
    address = buffer._region._address
    assert round_trip(buffer)._region._address == address


def test_two_names_for_one_buffer(round_trip):
    """A buffer that a message holds twice is one buffer in the message that arrives."""
    buffer, other = fill(Buffer(3), b"a"), fill(Buffer(4), b"b")
    first, second, third = round_trip([buffer, other, buffer])
    assert first is third
    assert (bytes(first), bytes(second)) == (b"aaa", b"bbbb")


def test_a_buffer_beside_large_data(round_trip):
    """Buffers, large buffers that are copied, and small ones keep their places."""
    numpy = pytest.importorskip("numpy")
    message = [numpy.arange(50_000), fill(Buffer(7), b"7"), bytes(300_000), numpy.ones(3), fill(Buffer(70_000), b"8")]
    arrived = round_trip(message)
    assert (arrived[0] == numpy.arange(50_000)).all()
    assert (arrived[3] == 1).all()
    assert (bytes(arrived[1]), arrived[2], bytes(arrived[4])) == (b"7" * 7, bytes(300_000), b"8" * 70_000)


def test_an_array_in_a_buffer(round_trip):
    """Arrays are views of a buffer."""
    numpy = pytest.importorskip("numpy")
    buffer = Buffer(8000)
    array = numpy.frombuffer(buffer)
    array[:] = range(1000)
    with pytest.raises(BufferSendError, match="views of the memory exist"):
        round_trip(buffer)
    del array
    assert numpy.frombuffer(round_trip(buffer)).sum() == 499_500


def test_a_buffer_with_views_stays(round_trip):
    """It cannot be sent, the error says where it is, and it stays usable."""
    buffer = fill(Buffer(5), b"x")
    view = memoryview(buffer)
    with pytest.raises(BufferSendError, match=r"^message\['a'\]\[1\]: views of the memory exist") as caught:
        round_trip({"a": [1, buffer]})
    assert isinstance(caught.value, SendError)
    assert isinstance(caught.value, BufferError)
    part = view[2:]
    view.release()
    with pytest.raises(BufferSendError):
        round_trip(buffer)
    part.release()
    assert bytes(round_trip(buffer)) == b"xxxxx"


def test_a_buffer_is_sent_once(round_trip):
    """Afterwards it cannot be sent from here."""
    buffer = Buffer(5)
    round_trip(buffer)
    with pytest.raises(BufferSendError, match=r"^message: the memory has been handed over"):
        round_trip(buffer)


@pytest.mark.parametrize("kind", [Buffer, Transferable])
def test_other_ways_are_refused(kind):
    """It cannot be pickled or copied."""
    thing = kind(5) if kind is Buffer else kind(b"12345")
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(SendError, match=f"a {kind.__name__} travels in messages only"):
            way(thing)


def test_arguments_and_results():
    """Calls, tasks and generators take and give buffers."""
    assert bytes(Isolate.run(fill, Buffer(4), b"r").result(LONG)) == b"rrrr"
    with IsolatePool(2) as pool:
        assert bytes(pool.submit(fill, Buffer(4), b"s").result(LONG)) == b"ssss"
        several = pool.map(fill, [Buffer(i) for i in range(5)], [b"m"] * 5)
        assert [bytes(one) for one in several] == [b"m" * i for i in range(5)]
        assert [bytes(one) for one in pool.stream(stream_of_buffers, 3)] == [b"", b"\1", b"\2\2"]


def stream_of_buffers(count):
    for i in range(count):
        yield fill(Buffer(i), bytes([i]))


# -- transferables -----------------------------------------------------------------------------------------------------


@pytest.mark.dart("lib/transferable_test")
def test_a_transferable_is_moved(round_trip):
    """It is a copy of what it was made of, is moved when it is sent, and materializes once, where it is."""
    data = bytearray(b"hello")
    transferable = Transferable(data)
    data[:] = b"-----"
    arrived = round_trip([transferable])[0]
    assert isinstance(arrived, Transferable)
    assert bytes(arrived.materialize()) == b"hello"
    with pytest.raises(ValueError, match="materialized before"):
        arrived.materialize()
    with pytest.raises(ValueError, match="has been sent"):
        transferable.materialize()
    with pytest.raises(SendError, match="materialized here; send the Buffer"):
        round_trip(arrived)
    with pytest.raises(BufferSendError, match="handed over"):
        round_trip(transferable)
    assert Isolate.run(text_of, Transferable(b"there")).result(LONG) == b"there"


@pytest.mark.dart("lib/transferable_test")
def test_what_a_transferable_is_made_of():
    """Anything with the buffer protocol, or several such, one after the other."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(6, dtype="u1").reshape(2, 3)
    for data, expected in [
        (b"", b""),
        (b"abc", b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        ([b"ab", bytearray(b"c"), memoryview(b"de")], b"abcde"),
        ([], b""),
        (array, b"\0\1\2\3\4\5"),
        (array.T, b"\0\3\1\4\2\5"),
        (numpy.zeros((0, 3)), b""),
        (iter([b"x", array[0]]), b"x\0\1\2"),
    ]:
        assert text_of(Transferable(data)) == expected
    for wrong in (5, "text", None, [b"a", "b"]):
        with pytest.raises(TypeError):
            Transferable(wrong)


@pytest.mark.dart("lib/transferable_failed_to_send_test")
def test_a_failed_send_leaves_a_transferable(round_trip):
    """It can be sent, or materialized, afterwards."""
    transferable, buffer = Transferable(b"still there"), fill(Buffer(3), b"x")
    with pytest.raises(SendError, match=r"\[2\]: lock objects cannot be sent"):
        round_trip([transferable, buffer, threading.Lock()])
    port = ReceivePort(maxsize=1)
    port.send_port.send(1)
    with pytest.raises(PortFull):
        port.send_port.send([transferable, buffer], timeout=0)
    port.close()
    with pytest.raises(PortClosedError):
        port.send_port.send([transferable, buffer])
    arrived = round_trip([transferable, buffer])
    assert bytes(arrived[0].materialize()) == b"still there"
    assert bytes(arrived[1]) == b"xxx"


def test_all_or_none_leave(round_trip):
    """Where one buffer of a message cannot leave, the others stay."""
    buffers = [Buffer(3) for _ in range(3)]
    with memoryview(buffers[2]), pytest.raises(BufferSendError, match=r"\[2\]"):
        round_trip(buffers)
    assert [bytes(one) for one in round_trip(buffers)] == [bytes(3)] * 3


def test_a_view_that_is_made_meanwhile(round_trip, monkeypatch):
    """A view that appears between the encoding and the sending keeps all of a message's buffers here."""
    first, second = Buffer(1), Buffer(2)
    views = []
    leave = regions.Region.leave

    def late(region):
        if region is second._region and not views:
            views.append(memoryview(second))
        return leave(region)

    monkeypatch.setattr(regions.Region, "leave", late)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BufferError, match="views of the memory exist"):
        round_trip([first, second])
    assert len(os.listdir("/proc/self/fd")) == descriptors
    views[0].release()
    assert [len(one) for one in round_trip([first, second])] == [1, 2]


# -- nothing leaks -----------------------------------------------------------------------------------------------------


def test_memory_is_freed_with_its_last_view(mapped):
    """Not before, and by whoever has it."""
    buffer = Buffer(5000)
    assert list(mapped.values()) == [5000]
    view = memoryview(buffer)[10:]
    del buffer
    assert mapped
    view[0] = 1
    view.release()
    gc.collect()
    assert not mapped


def test_messages_that_nobody_reads_are_freed(mapped):
    """What waits in a port that is closed, or arrives too late, is freed."""
    port = ReceivePort()
    sender = port.send_port
    sender.send([Buffer(10), Buffer(20)])
    port._node.mailbox.pump()
    sender.send(Buffer(30))
    assert sorted(mapped.values()) == [10, 20, 30]
    port.close()
    port._node.mailbox.pump()
    assert not mapped


def test_a_buffer_outlives_its_isolate():
    """What was sent before an isolate's end is there after it."""

    def give(out):
        buffer = Buffer(1 << 20)
        with memoryview(buffer) as memory:
            memory[-3:] = b"end"
        out.send(buffer)

    with ReceivePort() as port:
        assert Isolate.spawn(give, port.send_port).join(LONG)
        assert bytes(port.receive(LONG))[-3:] == b"end"
