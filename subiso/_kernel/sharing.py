"""Giving back the memory of a loaded copy that is the same in every copy.

Code and constants, which are most of a library, do not change when it is loaded. Once the copy is loaded, they are
mapped from the original instead, so that all isolates and main use the same pages of memory; then they are cut out of
the copy's file. Only what the library writes to stays private, and that is what the copy is for.

Nobody can notice: the kernel exchanges a mapping in one step, and the bytes are the same.
"""

import os

from subiso._kernel import capi
from subiso._kernel.capi import Address, Int, Size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subiso._kernel.elf import Image

_EXECUTABLE, _WRITABLE = 1, 2  # flags of a segment
_PROT_READ, _PROT_EXEC = 1, 4
_MAP_PRIVATE_FIXED = 0x02 | 0x10
_FALLOC_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02
_RTLD_DI_LINKMAP = 2
FAILED = (1 << 64) - 1  # what mmap(2) returns in place of an address

_dlinfo = capi.returning_address("dlinfo", Address, Int, Address)
mmap = capi.returning_address("mmap", Address, Size, Int, Int, Int, Size)
_fallocate = capi.returning_address("fallocate", Int, Int, Size, Size)


def share(handle: int, image: "Image", source: int, copy: str, names_differ: bool = False) -> None:
    """Map what is never written from the original, and free the copy of it.

    Args:
        handle: of the loaded copy, as the dynamic linker gave it.
        image: the file's layout.
        source: descriptor of the original.
        copy: path of the copy.
        names_differ: whether names of libraries are others in the copy.
    """
    if not image.is_position_independent:
        return
    target = os.open(copy, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _share(handle, image, source, target, image.strings[0] if names_differ else -1)
    finally:
        os.close(target)


def _share(handle: int, image: "Image", source: int, copy: int, differing: int) -> None:
    base, page = base_of(handle), os.sysconf("SC_PAGE_SIZE")
    for segment in image.segments:
        if segment.flags & _WRITABLE or segment.size != segment.loaded or segment.holds(differing):
            continue
        before = segment.address % page  # bytes of its first page that lie before it, in memory as in the file
        address, offset, size = base + segment.address - before, segment.offset - before, segment.size + before
        protection = _PROT_READ | (_PROT_EXEC if segment.flags & _EXECUTABLE else 0)
        if mmap(address, size, protection, _MAP_PRIVATE_FIXED, source, offset) != address:
            return  # nothing is lost but the memory
        start, end = -(-segment.offset // page) * page, (segment.offset + segment.size) // page * page
        if start < end:  # pages at the edges may hold something of a writable segment too
            _fallocate(copy, _FALLOC_KEEP_SIZE_PUNCH_HOLE, start, end - start)


def base_of(handle: int) -> int:
    """Return the difference between where the library lies in memory and the addresses in its file."""
    link_map = Address()
    _dlinfo(handle, _RTLD_DI_LINKMAP, capi.address_of(link_map))
    return Address.from_address(link_map.value or 0).value or 0  # its first member
