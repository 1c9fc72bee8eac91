"""The little of the ELF format that copying a shared object needs: its layout, and what it asks of the linker."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SEGMENT, _TAG = 56, 16  # bytes of a header, in the 64-bit format
_LOAD, _DYNAMIC, _RELRO = 1, 2, 0x6474E552  # types of segments
_NEEDED, _STRTAB, _SYMTAB, _STRSZ, _SONAME, _RPATH, _TEXTREL, _RUNPATH, _FLAGS = (
    1,
    5,
    6,
    10,
    14,
    15,
    22,
    29,
    30,
)  # dynamic tags
_RELOCATIONS = ((7, 8), (23, 2))  # dynamic tags: address and size of a table of relocations
_RELATIVE_COUNT = 0x6FFFFFF9  # dynamic tag: how many relocations at the first table's beginning have no symbol
_RELOCATION, _SYMBOL = 24, 24  # bytes of an entry
_FLAG_TEXTREL = 4


class Segment:
    """A part of the file, and where it is loaded, in bytes; `flags` are 1 to execute, 2 to write and 4 to read."""

    __slots__ = ("address", "flags", "loaded", "offset", "size", "type")

    def __init__(self, header: bytes) -> None:
        self.type, self.flags = _number(header, 0, 4), _number(header, 4, 4)
        self.offset, self.address = _number(header, 8), _number(header, 16)
        self.size, self.loaded = _number(header, 32), _number(header, 40)

    def holds(self, offset: int) -> bool:
        """Return whether the byte at the offset in the file is part of the segment."""
        return self.offset <= offset < self.offset + self.size


class Image:
    """What the dynamic linker does with a shared object.

    Attributes:
        segments: the parts of the file that are loaded.
        strings: offset in the file and size of its names, of libraries and of symbols.
        needed: the libraries that it asks for, by name.
        soname: the name by which other libraries ask for it, or an empty one.
        protected: the parts that the linker makes read-only once it is done.
        tags: the dynamic section.
        paths: where its libraries are looked for first; ``$ORIGIN`` is where the file lies.
        needs_origin: whether libraries are looked for relative to where the file lies.
        is_position_independent: whether loading leaves the parts as they are in the file that are not writable.
    """

    __slots__ = (
        "is_position_independent",
        "needed",
        "needs_origin",
        "paths",
        "protected",
        "segments",
        "soname",
        "strings",
        "tags",
    )

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = segments
        self.protected: list[Segment] = []
        self.tags: dict[int, int] = {}
        self.strings = 0, 0
        self.needed: list[bytes] = []
        self.soname = b""
        self.paths: list[bytes] = []
        self.needs_origin = True
        self.is_position_independent = False


def read(fd: int) -> Image:
    """Read the file's headers. Nothing is known of files in other formats than 64-bit little-endian ELF."""
    head = os.pread(fd, 4096, 0)
    start, size, count = _number(head, 32), _number(head, 54, 2), _number(head, 56, 2)
    if head[:6] != b"\x7fELF\x02\x01" or size != _SEGMENT or start + size * count > len(head):
        return Image([])
    headers = [Segment(head[at : at + size]) for at in range(start, start + size * count, size)]
    image = Image([header for header in headers if header.type == _LOAD])
    tags = [tag for header in headers if header.type == _DYNAMIC for tag in _read_tags(fd, header)]
    values = image.tags = dict(tags)
    image.protected = [header for header in headers if header.type == _RELRO]
    image.strings = strings, _ = _offset(image.segments, values.get(_STRTAB, 0)), values.get(_STRSZ, 0)
    image.needed = [_string(fd, strings + value) for tag, value in tags if tag == _NEEDED]
    image.soname = _string(fd, strings + values[_SONAME]) if _SONAME in values else b""
    paths = [_string(fd, strings + value) for tag, value in tags if tag in (_RPATH, _RUNPATH)]
    image.paths = [path for joined in paths for path in joined.split(b":") if path]
    image.needs_origin = any(b"ORIGIN" in path for path in paths)
    image.is_position_independent = _TEXTREL not in values and not values.get(_FLAGS, 0) & _FLAG_TEXTREL
    return image


def calls_python(fd: int, image: Image) -> bool:
    """Return whether the library names functions of Python's C API."""
    offset, size = image.strings
    strings = os.pread(fd, size, offset)
    return b"\0Py" in strings or b"\0_Py" in strings


def names(fd: int, image: Image, symbol: bytes) -> bool:
    """Return whether the library names the symbol."""
    offset, size = image.strings
    return b"\0" + symbol + b"\0" in os.pread(fd, size, offset)


def slots_of(fd: int, image: Image, symbol: bytes) -> "Iterator[int]":
    """Yield where, relative to its base, the loaded library has the address of a symbol that it asks for."""
    offset, size = image.strings
    strings = os.pread(fd, size, offset)
    symbols = _offset(image.segments, image.tags.get(_SYMTAB, 0))
    skipped = image.tags.get(_RELATIVE_COUNT, 0) * _RELOCATION
    for address, length in _RELOCATIONS:
        if address in image.tags and length in image.tags:
            start = _offset(image.segments, image.tags[address])
            table = os.pread(fd, image.tags[length] - skipped, start + skipped)
            for at in range(0, len(table), _RELOCATION):
                if index := _number(table, at + 12, 4):
                    name = _number(os.pread(fd, 4, symbols + index * _SYMBOL), 0, 4)
                    if strings.startswith(symbol + b"\0", name):
                        yield _number(table, at)
        skipped = 0


def rename(fd: int, image: Image, names: "Iterable[tuple[bytes, bytes]]") -> None:
    """Change names of libraries in the open file: its own, and those that it asks for.

    Args:
        fd: of the file, open for reading and writing.
        image: its layout.
        names: the old and the new ones, each new one as long as the old one.
    """
    offset, size = image.strings
    strings = before = os.pread(fd, size, offset)
    for old, new in names:
        strings = strings.replace(b"\0" + old + b"\0", b"\0" + new + b"\0")
    if strings != before:
        os.pwrite(fd, strings, offset)


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
