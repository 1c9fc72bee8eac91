"""Parcels: messages too large for the stream, and those with buffers, whose record says where their parts lie.

A message is copied once on its way out of its interpreter, into memory of the process, and not at all on its way in:
what arrives looks at the memory that the sender has filled, and owns it from then on.

A descriptor, or a region's address, in a record belongs to whoever reads the record. Sizes are checked, so that a
record which was overwritten ends in a `DamagedError`; addresses of regions are believed.
"""

import os
import struct

from subiso._kernel import protocol
from subiso._kernel.arena import DamagedError, map_file, memory_file
from subiso._kernel.interpreters import MAP_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from mmap import mmap
    from typing import Any

    from subiso._kernel.regions import Region

LARGE = 1 << 18  # bytes; a message of this size or more, or with buffers, does not lie in the stream itself
_REGION = 1 << 20  # bytes; so big a part of it gets memory of its own
_INLINE = 4096  # bytes; what is no larger lies in the stream nevertheless
_ALIGNMENT = 64  # of buffers
_COPIED = 1 << 63  # added to a length: the region was made for the message, and whoever reads it does not know


def pack(kind: int, body: bytes, buffers: "Sequence[memoryview | Region]") -> bytes:
    """Copy a message once, out of this interpreter, and return the payload of the record that carries it.

    Big parts are copied to regions of their own, the others to one memory file, or if they are small to the end of the
    payload. Regions among its buffers are not copied: they leave this interpreter.

    Raises:
        OSError, MemoryError: there is no memory or descriptor for it.
        BufferError: a region has left already, or there are views of it.
    """
    left: list[Region] = []
    places: list[int] = []
    rest: list[bytes | memoryview] = []
    descriptor, tail = -1, b""
    try:
        for part in (body, *buffers):
            length = _length(part)
            if not isinstance(part, (bytes, memoryview)):
                places += length, part.leave()
                left.append(part)
            elif length >= _REGION:
                copy = _copied(part)
                places += length | _COPIED, copy.leave()
                left.append(copy)
            else:
                places += length, 0
                rest.append(part)
        size = sum(_padded(_length(part)) for part in rest)
        if size > _INLINE:
            descriptor = memory_file("subiso-message", size)
            memory = map_file(descriptor, size)
            _lay_out(rest, memory)
            memory.close()
        else:
            laid_out = bytearray(size)
            _lay_out(rest, laid_out)
            tail = bytes(laid_out)
    except BaseException:
        _give_back(descriptor, left)
        raise
    return struct.pack(f"{4 + len(places)}Q", descriptor + 1, size, kind, len(places) // 2, *places) + tail


def _copied(part: bytes | memoryview) -> "Region":
    from subiso._kernel.regions import Region

    region = Region.create(_length(part), to_be_filled=True)
    with memoryview(region) as memory:
        memory[:] = part
    return region


def _padded(length: int) -> int:
    return length + _ALIGNMENT - 1 & -_ALIGNMENT


def _lay_out(parts: "list[bytes | memoryview]", memory: "Any") -> None:
    start = 0
    for part in parts:
        memory[start : start + _length(part)] = part
        start += _padded(_length(part))


def _give_back(descriptor: int, regions: "Iterable[Region]") -> None:
    for region in regions:
        region.come_back()
    if descriptor >= 0:
        os.close(descriptor)


def take_back(payload: bytes, buffers: "Sequence[memoryview | Region]") -> None:
    """Undo a `pack`: the record could not be sent."""
    descriptor, _, _, places, _ = _open(payload)
    _give_back(descriptor, (buffer for buffer in buffers if not isinstance(buffer, memoryview)))
    for length, address in places:
        if length & _COPIED:
            _free(address, length ^ _COPIED)


def _open(payload: bytes) -> "tuple[int, int, int, list[tuple[int, int]], memoryview]":
    """Return what `pack` has put into a payload: descriptor or -1, size, kind, places, and what follows."""
    words = memoryview(payload)
    descriptor, size, kind, count = words[:32].cast("Q")
    end = 32 + 16 * count
    if end > len(payload):
        if descriptor:
            os.close(descriptor - 1)
        raise DamagedError("a message has fewer parts than it says: something has written over shared memory")
    places = words[32:end].cast("Q").tolist()
    return descriptor - 1, size, kind, list(zip(places[::2], places[1::2], strict=True)), words[end:]


def _free(address: int, nbytes: int) -> None:
    from subiso._kernel import regions

    regions.free(address, nbytes)


def _length(part: "bytes | memoryview | Region") -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes


def unpack(kind: int, payload: bytes) -> "tuple[int, bytes | memoryview, list[Any]]":
    """Open a record: the message's kind, its body and its buffers. A large message's own its memory from now on.

    Regions that were handed over stand among the buffers as what they are; whoever reads the pickle knows which.
    """
    if kind != protocol.LARGE:
        return kind, payload, []
    descriptor, size, kind, places, tail = _open(payload)
    parts: list[Any] = []
    start = 0
    try:
        for length, address in places:
            if address:  # before anything can fail, so that nothing leaks
                from subiso._kernel.regions import Region

                region = Region(address, length & ~_COPIED)
                parts.append(memoryview(region) if length & _COPIED else region)
            else:
                parts.append((start, start + length))
                start += _padded(length)
        whole = memoryview(bytearray(tail) if descriptor < 0 else _take(descriptor, size))
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    parts = [whole[slice(*part)] if type(part) is tuple else part for part in parts]
    return kind, parts[0], parts[1:]


def _take(descriptor: int, size: int) -> "mmap | bytearray":
    """Return what is in a memory file: the file itself, or a copy where descriptors are short.

    On 3.12 a mapping keeps a descriptor. There, once half of them are taken, what arrives is copied, so that a receiver
    that keeps what it gets leaves enough for those who send.
    """
    if os.fstat(descriptor).st_size < size:
        raise DamagedError("a message is shorter than it says: something has written over shared memory")
    try:
        if not _are_descriptors_short(descriptor):
            return map_file(descriptor, max(size, 1))
    except OSError:  # no descriptor or address space is left: what has arrived is not to be lost
        pass
    whole = bytearray(size)
    place = 0
    with memoryview(whole) as rest:
        while place < size:  # one call reads 2 GiB at most
            place += os.preadv(descriptor, [rest[place:]], place)
    return whole


def _are_descriptors_short(descriptor: int) -> bool:
    """Return whether mappings keep descriptors, and half of them are taken: the system gives the lowest free number."""
    if MAP_OPTIONS:
        return False
    lowest = os.dup(descriptor)
    os.close(lowest)
    return lowest > os.sysconf("SC_OPEN_MAX") // 2


def discard(kind: int, payload: bytes) -> None:
    """Let go of what a record holds that nobody will read."""
    if kind == protocol.LARGE:
        descriptor, _, _, places, _ = _open(payload)
        if descriptor >= 0:
            os.close(descriptor)
        for length, address in places:
            if address:
                _free(address, length & ~_COPIED)
