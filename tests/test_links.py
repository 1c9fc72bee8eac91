"""Streams of records between two slots: nothing is lost, doubled, torn or out of order, whatever the two sides do."""

import contextlib
import os
import random
import threading
from time import monotonic_ns as now

import pytest

from subiso._kernel import protocol
from subiso._kernel.arena import Arena, address_of, memory_file
from subiso._kernel.links import Reader, Writer
from subiso._kernel.waitables import Inbox

LONG = 20  # seconds: the bound of a wait that should be over at once
SENDER, RECEIVER = 3, 5


@pytest.fixture
def arena():
    """The shared memory, as its maker sees it."""
    shared = Arena.create()
    yield shared
    shared.close()
    os.close(shared.descriptor)


@pytest.fixture
def other(arena):
    """The same memory, as another interpreter sees it."""
    view = Arena(arena.descriptor)
    yield view
    view.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


class Receiver:
    """The receiving side, with one open port."""

    def __init__(self, arena):
        self.arena = arena
        self.inbox = Inbox(address_of(RECEIVER, 1, 20))
        self.reader = Reader(arena, SENDER, RECEIVER)

    def read(self):
        """Return what has come since the last call, as kinds and payloads."""
        assert not self.reader.read({self.inbox.address: self.inbox}, [], now())
        messages = list(self.inbox.messages)
        self.inbox.messages.clear()
        return messages

    def replace(self):
        """Leave the stream to the next interpreter in this slot."""
        self.reader.park()
        self.reader = Reader(self.arena, SENDER, RECEIVER)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [(0, 200), (0, 9000), (0, 300_000), (4000, 8100)])
def test_random_streams(arena, other, seed, sizes):
    """Whatever is written is read, in order, as both sides are replaced again and again.

    When all is read the stream comes home to its ring, and has no descriptor left.
    """
    choose = random.Random(seed)
    before = descriptors()
    writer, receiver = Writer(arena, SENDER, RECEIVER), Receiver(other)
    written, read, lag = [], [], choose.choice([0.1, 0.5, 0.9])
    for _ in range(1500):
        if choose.random() < 0.6:
            for _ in range(300 if choose.random() < 0.02 else 1):
                size = choose.choice([0, 1, 7, 8, choose.randrange(*sizes) if choose.random() < 0.05 else 16])
                kind, payload = choose.choice([protocol.PICKLE, protocol.TEXT]), choose.randbytes(size)
                writer.write(kind, receiver.inbox.address, payload)
                written.append((kind, payload))
        elif choose.random() > lag:
            read += receiver.read()
        if choose.random() < 0.02:
            writer.park()
            writer = Writer(arena, SENDER, RECEIVER)
        if choose.random() < 0.02:
            receiver.replace()
    read += receiver.read()
    assert written == read
    for _ in range(5000):  # however long the segment is that the stream is in
        writer.write(protocol.BYTES, receiver.inbox.address, bytes(3900))
        assert receiver.read() == [(protocol.BYTES, bytes(3900))]
    assert descriptors() == before


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("size", [*range(0, 64, 8), 100, 1000, 3000])
def test_a_reader_that_misses_the_wrap(arena, other, size, parked):
    """Nothing is lost where the writer is back at the ring's start and fills it before the reader has followed."""
    writer, receiver = Writer(arena, SENDER, RECEIVER), Receiver(other)
    written, read = [], []

    def write():
        record = protocol.BYTES, b"%-8d" % len(written) + bytes(size)
        writer.write(record[0], receiver.inbox.address, record[1])
        written.append(record)

    for lap in range(3):
        entered = writer._entered
        while True:  # the reader keeps up, but for the first record of the next lap
            write()
            if writer._entered != entered:
                break
            read += receiver.read()
        if parked:
            writer.park()
            writer = Writer(arena, SENDER, RECEIVER)
        for _ in range(600 * lap):
            write()
        read += receiver.read()
        assert read == written


def test_both_sides_at_once(arena, other):
    """A reader that reads while a writer writes sees every record whole and in order."""
    n, seen = 20_000, []
    receiver = Receiver(other)

    def write():
        writer = Writer(arena, SENDER, RECEIVER)
        for i in range(n):
            writer.write(protocol.BYTES, receiver.inbox.address, b"%d " % i * (i % 40))

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        seen += receiver.read()
    seen += receiver.read()
    assert seen == [(protocol.BYTES, b"%d " % i * (i % 40)) for i in range(n)]


def test_several_threads_write(arena, other):
    """Threads that write to one stream at once keep each its own order."""
    receiver = Receiver(other)
    writer = Writer(arena, SENDER, RECEIVER)

    def write(name):
        for i in range(2000):
            writer.write(protocol.BYTES, receiver.inbox.address, b"%d %d" % (name, i))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    seen = [tuple(map(int, payload.split())) for _, payload in receiver.read()]
    assert len(seen) == 8000
    assert sorted(seen, key=lambda entry: entry[0]) == [(name, i) for name in range(4) for i in range(2000)]


def test_a_stream_outlives_its_writer(arena, other):
    """What was written is read after the writer has left for good, even what lies in segments."""
    receiver = Receiver(other)
    payloads = [os.urandom(size) for size in (10, 5000, 100_000, 250_000, 20)]
    writer = Writer(arena, SENDER, RECEIVER)
    for payload in payloads:
        writer.write(protocol.BYTES, receiver.inbox.address, payload)
    writer.park()
    assert [payload for _, payload in receiver.read()] == payloads


def held() -> int:
    """Return how many bytes all segments of this process take."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "subiso-segment" in os.readlink(f"/proc/self/fd/{name}"):
                total += os.stat(f"/proc/self/fd/{name}").st_blocks * 512
    return total


@pytest.mark.parametrize("size", [9_000, 64_000, 1_000_000])
def test_long_records_one_after_the_other(arena, other, size):
    """A segment is used again and again, as long as the reader keeps up; short records then bring the stream home."""
    before = descriptors()
    writer, receiver = Writer(arena, SENDER, RECEIVER), Receiver(other)
    seen, taken = set(), set()
    for number in range(100):
        record = protocol.BYTES, number.to_bytes(4) * (size // 4)
        writer.write(record[0], receiver.inbox.address, record[1])
        assert receiver.read() == [record]
        seen.add(writer._segment.descriptor)
        taken.add(descriptors())
    assert (len(seen), len(taken)) == (1, 1)
    for _ in range(size // 1000 + 300):
        writer.write(protocol.BYTES, receiver.inbox.address, bytes(1000))
        assert receiver.read() == [(protocol.BYTES, bytes(1000))]
    assert descriptors() == before


@pytest.mark.parametrize("parked", ["", "writer", "reader", "both"])
@pytest.mark.parametrize("size", [9_000, 64_000, 100_000])
def test_a_reader_that_misses_the_way_back(arena, other, size, parked):
    """Nothing is lost where the writer is back at a segment's start and fills it before the reader has followed."""
    writer, receiver = Writer(arena, SENDER, RECEIVER), Receiver(other)
    written, read = [], []

    def write(nbytes=size):
        record = protocol.BYTES, len(written).to_bytes(8) + os.urandom(nbytes)
        writer.write(record[0], receiver.inbox.address, record[1])
        written.append(record)

    for lap in range(12):
        write()
        read += receiver.read()
        entered = writer._entered
        while writer._entered == entered:  # the reader keeps up, but for the first record of the next lap
            read += receiver.read()
            write()
        if parked in ("writer", "both"):
            writer.park()
            writer = Writer(arena, SENDER, RECEIVER)
        if parked in ("reader", "both"):
            receiver.replace()
        for number in range(lap):
            write(number % 3 * size)
        read += receiver.read()
        assert read == written


def test_a_reader_that_lags_takes_no_memory_for_what_it_has_read(arena, other):
    """Long segments shrink as they are read, and are not used again."""
    before = held()
    writer, receiver = Writer(arena, SENDER, RECEIVER), Receiver(other)
    for _ in range(3):
        for _ in range(400):
            writer.write(protocol.BYTES, receiver.inbox.address, bytes(60_000))
        assert held() > before + 20_000_000
        assert receiver.read() == [(protocol.BYTES, bytes(60_000))] * 400
        assert held() < before + 4_000_000


def test_rest(arena, other):
    """A writer that rests is home at once if all is read, and the reader when it next looks; nothing is left."""
    before = descriptors()
    writer, receiver = Writer(arena, SENDER, RECEIVER), Receiver(other)
    writer.rest()
    assert not arena.memory[writer._dirty]
    writer.write(protocol.BYTES, receiver.inbox.address, bytes(100_000))
    writer.rest()
    assert writer._segment is not None
    assert receiver.read() == [(protocol.BYTES, bytes(100_000))]
    arena.memory[writer._dirty] = 0
    writer.rest()
    writer.rest()
    assert writer._segment is None
    assert arena.memory[writer._dirty]
    writer.write(protocol.BYTES, receiver.inbox.address, b"after")
    assert receiver.read() == [(protocol.BYTES, b"after")]
    assert descriptors() == before


def test_records_without_a_port_are_given_back(arena, other):
    """Records for ports that are not open come back to the caller, and the others are delivered."""
    receiver = Receiver(other)
    writer = Writer(arena, SENDER, RECEIVER)
    writer.write(protocol.BYTES, 12345, b"lost")
    writer.write(protocol.BYTES, receiver.inbox.address, b"found")
    writer.write(protocol.GRANT, receiver.inbox.address, bytes(16))
    others = receiver.reader.read({receiver.inbox.address: receiver.inbox}, [], now())
    assert others == [
        (protocol.BYTES, 12345, b"lost"),
        (protocol.GRANT, receiver.inbox.address, bytes(16)),
    ]
    assert list(receiver.inbox.messages) == [(protocol.BYTES, b"found")]


def test_streams_of_different_pairs_are_apart(arena, other):
    """Each pair of slots has a stream of its own."""
    writers = {pair: Writer(arena, *pair) for pair in [(1, 2), (2, 1), (1, 3), (3, 1)]}
    address = address_of(2, 1, 20)
    for pair, writer in writers.items():
        writer.write(protocol.BYTES, address, b"%d to %d" % pair)
    for pair in writers:
        inbox = Inbox(address)
        assert not Reader(other, *pair).read({address: inbox}, [], now())
        assert list(inbox.messages) == [(protocol.BYTES, b"%d to %d" % pair)]


def test_memory_files_are_zero():
    """A new memory file has the size that was asked for, and nothing in it."""
    descriptor = memory_file("test", 10_000)
    try:
        assert os.read(descriptor, 20_000) == bytes(10_000)
    finally:
        os.close(descriptor)
