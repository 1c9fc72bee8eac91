"""Parcels: what lies beside the stream arrives whole, and nothing is held for long."""

import gc
import os
from functools import partial
from pathlib import Path

import pytest

from subiso._kernel import parcels, protocol
from subiso._kernel.arena import DamagedError
from subiso._kernel.regions import Region

HUGE = 1 << 28  # bytes: what is left of so much is seen among all that is mapped


def address_space() -> int:
    """Return how much is mapped, in kB."""
    return int(Path("/proc/self/status").read_text().partition("VmSize:")[2].split()[0])


SIZES = [
    (0,),
    (1,),
    (100, 1000, 63),
    (4096,),
    (4097,),
    (parcels.LARGE,),
    (parcels.LARGE - 1, 0, 63, 64, 65, 1 << 20),
    (1 << 23,),
    (100, 1 << 23, 5000, 0, 1 << 20),
]


@pytest.mark.parametrize("sizes", SIZES)
def test_round_trip(sizes):
    """A message beside the stream comes out with its body and buffers, which are the receiver's own memory."""
    body, *buffers = (os.urandom(size) for size in sizes)
    payload = parcels.pack(protocol.PICKLE, body, [memoryview(buffer) for buffer in buffers])
    assert len(payload) < 4096 + 200
    kind, read, parts = parcels.unpack(protocol.LARGE, payload)
    assert (kind, bytes(read), [bytes(part) for part in parts]) == (protocol.PICKLE, body, buffers)
    for part in parts:
        if part.nbytes:
            part[:1] = b"!"
    assert [bytes(part)[1:] for part in parts] == [buffer[1:] for buffer in buffers]


@pytest.mark.parametrize("nbytes", [0, 1, 1 << 23])
def test_regions_are_handed_over(nbytes):
    """A region among the buffers arrives as the same memory, and has left where it was."""
    region = Region.create(nbytes)
    with memoryview(region) as memory:
        memory[:1] = b"!"[:nbytes]
    kind, body, parts = parcels.unpack(protocol.LARGE, parcels.pack(protocol.PICKLE, b"body", [region]))
    assert (kind, bytes(body), region.has_left) == (protocol.PICKLE, b"body", True)
    assert isinstance(parts[0], Region)
    assert (parts[0].nbytes, bytes(memoryview(parts[0])[:1])) == (nbytes, b"!"[:nbytes])


@pytest.mark.parametrize(
    "let_go",
    [
        lambda payload: parcels.unpack(protocol.LARGE, payload),
        partial(parcels.discard, protocol.LARGE),
        partial(parcels.take_back, buffers=[]),
    ],
    ids=["unpack", "discard", "take_back"],
)
def test_memory_is_let_go(let_go):
    """A message that is read, is dropped, or could not be sent, takes its memory with it."""
    body, buffers = bytes(parcels.LARGE - 1), [memoryview(bytearray(HUGE)), memoryview(bytearray(parcels.LARGE - 1))]
    mapped = address_space()
    for _ in range(5):
        let_go(parcels.pack(protocol.BYTES, body, buffers))
    gc.collect()
    assert address_space() < mapped + (HUGE >> 10)


@pytest.mark.parametrize("nbytes", [0, HUGE])
def test_handed_over_memory_is_let_go(nbytes):
    """A region that nobody reads goes with its message; one that could not be sent comes back."""
    mapped = address_space()
    for _ in range(5):
        parcels.discard(protocol.LARGE, parcels.pack(protocol.BYTES, b"", [Region.create(nbytes)]))
    assert address_space() < mapped + (HUGE >> 10)
    region = Region.create(nbytes)
    payload = parcels.pack(protocol.BYTES, b"", [region])
    parcels.take_back(payload, [region])
    assert not region.has_left
    assert memoryview(region).nbytes == nbytes


def test_what_is_small_is_not_a_parcel():
    """A record that is no parcel is its own body, and there is nothing to be let go of."""
    assert parcels.unpack(protocol.BYTES, b"small") == (protocol.BYTES, b"small", [])
    parcels.discard(protocol.BYTES, b"small")


def test_failing_half_way(monkeypatch):
    """Where there is no memory for the last part of a message, nothing is kept of the others."""
    buffer = memoryview(bytearray(HUGE))
    mapped, create = address_space(), Region.create
    region = Region.create(1)

    def refuse(nbytes, **options):
        if nbytes < HUGE:
            raise MemoryError("no")
        return create(nbytes, **options)

    monkeypatch.setattr(Region, "create", refuse)
    with pytest.raises(MemoryError, match="no"):
        parcels.pack(protocol.BYTES, bytes(parcels.LARGE - 1), [region, buffer])
    assert address_space() < mapped + (HUGE >> 10)
    assert not region.has_left
    with memoryview(region), pytest.raises(BufferError, match="views"):
        parcels.pack(protocol.BYTES, b"", [buffer, region])
    assert address_space() < mapped + (HUGE >> 10)


@pytest.mark.parametrize("place", [*range(0, 72, 8), "short", "empty"])
def test_damaged_records(place):
    """A record in which any word was written over is an error, and no address in it is tried."""
    payload = bytearray(parcels.pack(protocol.BYTES, bytes(10_000), [memoryview(bytes(1 << 20))]))
    intact = bytes(payload)
    if place == "short":
        del payload[-8:]
    elif place == "empty":
        payload.clear()
    else:
        payload[place] ^= 1
    for use in (parcels.unpack, parcels.discard):
        with pytest.raises(DamagedError):
            use(protocol.LARGE, bytes(payload))
    parcels.discard(protocol.LARGE, intact)
