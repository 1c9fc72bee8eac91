"""Parcels: what lies beside the stream arrives whole, and nothing is held for long."""

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from subiso._kernel import parcels, protocol


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def address_space() -> int:
    """Return how much is mapped, in kB."""
    return int(Path("/proc/self/status").read_text().partition("VmSize:")[2].split()[0])


@pytest.mark.parametrize(
    ("sizes", "files"),
    [
        ((0,), 0),
        ((1,), 0),
        ((100, 1000, 63), 0),
        ((parcels.LARGE,), 1),
        ((1 << 23,), 0),
        ((100, 1 << 23, 1 << 20), 0),
        ((parcels.LARGE, 0, 63, 64, 65, 1 << 20), 1),
    ],
)
def test_large_messages(sizes, files):
    """A message beside the stream comes out with its body and buffers, wherever they were; then nothing is held."""
    before = descriptors()
    body, *buffers = (os.urandom(size) for size in sizes)
    payload = parcels.pack(protocol.PICKLE, body, [memoryview(buffer) for buffer in buffers])
    assert descriptors() == before + files
    kind, read, parts = parcels.unpack(protocol.LARGE, payload)
    assert (kind, bytes(read), [bytes(part) for part in parts]) == (protocol.PICKLE, body, buffers)
    if parts:
        parts[-1][:1] = b"!"  # the receiver's own memory
    del read, parts
    assert descriptors() == before


@pytest.mark.parametrize("sizes", [(0,), (parcels.LARGE,), (parcels.LARGE, 0, 63, 1 << 20)])
def test_large_messages_that_cannot_be_mapped(sizes, monkeypatch):
    """Where there is no descriptor for a mapping, a large message is copied; it can be written to all the same."""

    def refuse(descriptor, size):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def read_little(descriptor, buffers, offset):
        return preadv(descriptor, [buffers[0][:100_000]], offset)

    before, preadv = descriptors(), os.preadv
    body, *buffers = (os.urandom(size) for size in sizes)
    payload = parcels.pack(protocol.PICKLE, body, [memoryview(buffer) for buffer in buffers])
    monkeypatch.setattr(parcels, "map_file", refuse)
    monkeypatch.setattr(os, "preadv", read_little)  # as with more than 2 GiB
    kind, read, parts = parcels.unpack(protocol.LARGE, payload)
    assert (kind, bytes(read), [bytes(part) for part in parts]) == (protocol.PICKLE, body, buffers)
    if parts:
        parts[-1][:1] = b"!"
    assert descriptors() == before


@pytest.mark.parametrize(
    "let_go",
    [partial(parcels.discard, protocol.LARGE), partial(parcels.take_back, buffers=[])],
    ids=["discard", "take_back"],
)
def test_large_messages_that_nobody_reads(let_go):
    """A large message that is dropped, or could not be sent, takes its descriptor and its memory with it."""
    body, buffer = bytes(parcels.LARGE), memoryview(bytearray(1 << 28))
    parcels.unpack(protocol.LARGE, parcels.pack(protocol.BYTES, body, [buffer]))  # whatever is made but once
    files, mapped = descriptors(), address_space()
    for _ in range(5):
        let_go(parcels.pack(protocol.BYTES, body, [buffer]))
    parcels.discard(protocol.BYTES, b"small")
    assert descriptors() == files
    assert address_space() < mapped + (1 << 18)


def test_large_messages_that_fail_half_way(monkeypatch):
    """Where there is no memory for the last part of a message, nothing is kept of the others."""
    buffer = memoryview(bytearray(1 << 28))
    parcels.unpack(protocol.LARGE, parcels.pack(protocol.BYTES, b"", [buffer]))
    files, mapped = descriptors(), address_space()

    def refuse(name, size):
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr(parcels, "memory_file", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.ENFILE)):
        parcels.pack(protocol.BYTES, bytes(parcels.LARGE), [buffer])
    assert descriptors() == files
    assert address_space() < mapped + (1 << 18)
