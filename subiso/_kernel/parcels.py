"""Parcels: messages too large for the stream, and those with buffers, whose record says where their parts lie.

A message is copied once on its way out of its interpreter, into memory of the process, and not at all on its way in:
what arrives looks at the memory that the sender has filled, and owns it from then on. (What is small follows in the
record itself.)

The payload of the record is ``[check] [number of parts] [kind] [size and address of the memory that parts share]
[length and address of each part, 0 for one that is in the shared memory] [the shared memory, if it has no address]``.
Addresses cannot be tried out, so the check is a hash of these words: a record that was written over is a
`DamagedError`.
"""

import _struct

from subiso._kernel import protocol
from subiso._kernel.arena import DamagedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from subiso._kernel.regions import Region

    Part = bytes | memoryview | Region

LARGE = 1 << 20  # bytes; a message of this size or more does not lie in the stream itself
_OWN = 1 << 20  # bytes; so big a part gets memory of its own, which is free when nobody has that part any more
_INLINE = 4096  # bytes; what is no larger lies in the record nevertheless
_ALIGNMENT = 64  # of buffers
_COPIED = 1 << 63  # added to a length: the region was made for the message, and whoever reads it does not know
_HEAD = 40  # bytes before the places of parts


def pack(kind: int, body: bytes, buffers: "Sequence[memoryview | Region]") -> bytes:
    """Copy a message once, out of this interpreter, and return the payload of the record that carries it.

    Regions among its buffers are not copied: they leave this interpreter.

    Raises:
        MemoryError: there is no memory for it.
        BufferError: a region has left already, or there are views of it.
    """
    left: list[Region] = []
    places: list[int] = []
    rest: list[bytes | memoryview] = []
    address, tail = 0, b""
    try:
        for part in (body, *buffers):
            length = _length(part)
            if not isinstance(part, (bytes, memoryview)):
                places += length, part.leave()
                left.append(part)
            elif length >= _OWN:
                region = _filled([part], length)
                places += length | _COPIED, region.leave()
                left.append(region)
            else:
                places += length, 0
                rest.append(part)
        size = sum(_padded(_length(part)) for part in rest)
        if size > _INLINE:
            region = _filled(rest, size)
            address = region.leave()
            left.append(region)
        else:
            laid_out = bytearray(size)
            _lay_out(rest, laid_out)
            tail = bytes(laid_out)
        words = _struct.pack(f"{4 + len(places)}Q", len(places) // 2, kind, size, address, *places)
        return _struct.pack("q", hash(words)) + words + tail
    except BaseException:
        for region in left:
            region.come_back()
        raise


def _filled(parts: "list[bytes | memoryview]", size: int) -> "Region":
    from subiso._kernel.regions import Region

    region = Region.create(size, to_be_filled=True)
    with memoryview(region) as memory:
        _lay_out(parts, memory)
    return region


def _lay_out(parts: "list[bytes | memoryview]", memory: "Any") -> None:
    start = 0
    for part in parts:
        length = _length(part)
        memory[start : start + length] = part
        start += _padded(length)


def _length(part: "Part") -> int:
    return len(part) if isinstance(part, bytes) else part.nbytes


def _padded(length: int) -> int:
    return length + _ALIGNMENT - 1 & -_ALIGNMENT


def _open(payload: bytes) -> "tuple[int, int, int, list[tuple[int, int]], memoryview]":
    """Return what `pack` has put into a payload: kind, size and address of the shared memory, places, and the tail."""
    words = memoryview(payload)
    end = _HEAD + 16 * words[8:16].cast("Q")[0] if len(payload) >= _HEAD else 0
    if not _HEAD <= end <= len(payload) or hash(payload[8:end]) != words[:8].cast("q")[0]:
        raise DamagedError("a large message is damaged: something has written over shared memory")
    kind, size, address, *places = words[16:end].cast("Q").tolist()
    return kind, size, address, list(zip(places[::2], places[1::2], strict=True)), words[end:]


def unpack(kind: int, payload: bytes) -> "tuple[int, bytes | memoryview, list[Any]]":
    """Open a record: the message's kind, its body and its buffers. A parcel's own its memory from now on.

    Regions that were handed over stand among the buffers as what they are; whoever reads the pickle knows which.
    """
    if kind != protocol.LARGE:
        return kind, payload, []
    from subiso._kernel.regions import Region

    kind, size, address, places, tail = _open(payload)
    whole = Region(address, size) if address else bytearray(tail)
    owned = [Region(place, length & ~_COPIED) if place else None for length, place in places]
    body, *buffers = _parts(whole, [length for length, _ in places], owned)
    return kind, body, buffers


def _parts(whole: "Region | bytearray", lengths: list[int], owned: "list[Region | None]") -> "list[Any]":
    memory, start = memoryview(whole), 0
    parts: list[Any] = []
    for length, region in zip(lengths, owned, strict=True):
        if region is None:
            parts.append(memory[start : start + length])
            start += _padded(length)
        else:
            parts.append(memoryview(region) if length & _COPIED else region)
    return parts


def take_back(payload: bytes, buffers: "Sequence[memoryview | Region]") -> None:
    """Undo a `pack`: the record could not be sent."""
    for buffer in buffers:
        if not isinstance(buffer, memoryview):
            buffer.come_back()
    _free(payload, only_copies=True)


def discard(kind: int, payload: bytes) -> None:
    """Let go of what a record holds that nobody will read."""
    if kind == protocol.LARGE:
        _free(payload, only_copies=False)


def _free(payload: bytes, only_copies: bool) -> None:
    from subiso._kernel.regions import free

    _, size, address, places, _ = _open(payload)
    for length, place in ((size | _COPIED, address), *places):
        if place and (length & _COPIED or not only_copies):
            free(place, length & ~_COPIED)
