"""The little of the ELF format that copying a shared object needs: its layout, and what it asks of the linker."""

import os

_SEGMENT, _TAG = 56, 16  # bytes of a header, in the 64-bit format
_LOAD, _DYNAMIC = 1, 2  # types of segments
_STRTAB, _RPATH, _TEXTREL, _RUNPATH, _FLAGS = 5, 15, 22, 29, 30  # tags of the dynamic section
_FLAG_TEXTREL = 4


class Segment:
    """A part of the file, and where it is loaded, in bytes; `flags` are 1 to execute, 2 to write and 4 to read."""

    __slots__ = ("address", "flags", "loaded", "offset", "size", "type")

    def __init__(self, header: bytes) -> None:
        self.type, self.flags = _number(header, 0, 4), _number(header, 4, 4)
        self.offset, self.address = _number(header, 8), _number(header, 16)
        self.size, self.loaded = _number(header, 32), _number(header, 40)


class Image:
    """What the dynamic linker does with a shared object.

    Attributes:
        segments: the parts of the file that are loaded.
        needs_origin: whether it looks for libraries relative to where the file lies (``$ORIGIN``).
        is_position_independent: whether loading leaves the parts as they are in the file that are not writable.
    """

    __slots__ = ("is_position_independent", "needs_origin", "segments")

    def __init__(self, segments: list[Segment], needs_origin: bool, is_position_independent: bool) -> None:
        self.segments = segments
        self.needs_origin = needs_origin
        self.is_position_independent = is_position_independent


def read(fd: int) -> Image:
    """Read the file's headers. Nothing is known of files in other formats than 64-bit little-endian ELF."""
    head = os.pread(fd, 4096, 0)
    start, size, count = _number(head, 32), _number(head, 54, 2), _number(head, 56, 2)
    if head[:6] != b"\x7fELF\x02\x01" or size != _SEGMENT or start + size * count > len(head):
        return Image([], needs_origin=True, is_position_independent=False)
    headers = [Segment(head[at : at + size]) for at in range(start, start + size * count, size)]
    segments = [header for header in headers if header.type == _LOAD]
    tags = [tag for header in headers if header.type == _DYNAMIC for tag in _read_tags(fd, header)]
    strings = next((_offset(segments, value) for tag, value in tags if tag == _STRTAB), 0)
    paths = [_string(fd, strings + value) for tag, value in tags if tag in (_RPATH, _RUNPATH)]
    relocated = any(tag == _TEXTREL or (tag == _FLAGS and value & _FLAG_TEXTREL) for tag, value in tags)
    return Image(segments, any(b"ORIGIN" in path for path in paths), not relocated)


def _read_tags(fd: int, segment: Segment) -> list[tuple[int, int]]:
    data = os.pread(fd, segment.size, segment.offset)
    return [(_number(data, at), _number(data, at + 8)) for at in range(0, len(data), _TAG)]


def _offset(segments: list[Segment], address: int) -> int:
    """Return where in the file the byte lies that is loaded at the address."""
    for segment in segments:
        if segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    return 0


def _string(fd: int, offset: int) -> bytes:
    return os.pread(fd, 4096, offset).partition(b"\0")[0]


def _number(data: bytes, at: int, size: int = 8) -> int:
    return int.from_bytes(data[at : at + size], "little")
