"""The little of the ELF format that copying a shared object needs: what it asks the dynamic linker for, and where."""

import os

_HEADER, _PROGRAM_HEADER, _DYNAMIC_ENTRY = 64, 56, 16  # bytes, of the 64-bit format
_LOAD, _DYNAMIC = 1, 2  # types of program headers
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29  # tags of the dynamic section


def needs_origin(fd: int) -> bool:
    """Tell whether the shared object looks for libraries relative to where it lies (``$ORIGIN``).

    What is not a 64-bit little-endian ELF file is taken to do so.
    """
    head = os.pread(fd, 4096, 0)
    if head[:6] != b"\x7fELF\x02\x01":
        return True
    table, size, count = _number(head, 32, 8), _number(head, 54, 2), _number(head, 56, 2)
    if size != _PROGRAM_HEADER or table + size * count > len(head):
        return True
    segments = [head[at : at + size] for at in range(table, table + size * count, size)]
    for segment in segments:
        if _number(segment, 0, 4) == _DYNAMIC:
            entries = os.pread(fd, _number(segment, 32, 8), _number(segment, 8, 8))
            return _path_has_origin(fd, segments, entries)
    return False


def _path_has_origin(fd: int, segments: list[bytes], entries: bytes) -> bool:
    tags = [(_number(entries, at, 8), _number(entries, at + 8, 8)) for at in range(0, len(entries), _DYNAMIC_ENTRY)]
    paths = [value for tag, value in tags if tag in (_RPATH, _RUNPATH)]
    strings = next((value for tag, value in tags if tag == _STRTAB), 0)
    return any(b"$ORIGIN" in _string(fd, _offset(segments, strings) + path) for path in paths)


def _offset(segments: list[bytes], address: int) -> int:
    """Return where in the file the byte lies that is loaded at the address."""
    for segment in segments:
        start = _number(segment, 16, 8)
        if _number(segment, 0, 4) == _LOAD and start <= address < start + _number(segment, 32, 8):
            return address - start + _number(segment, 8, 8)
    return 0


def _string(fd: int, offset: int) -> bytes:
    return os.pread(fd, 4096, offset).partition(b"\0")[0]


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
