"""Regions: memory of the process that one interpreter owns at a time, and that is handed over without being copied.

A region is mapped without a file and without an owner that CPython knows. Whoever has the `Region` may look at it, by
views that keep it alive; when nobody has it any more it is unmapped. Handing it over makes the address part of a record
(parcels.py), and the reader makes a `Region` of it again.

A race, and what closes it
    A thread that makes a view counts it, then looks whether the region has left; one that hands it over says that it
    has left, then looks whether there are views. So they cannot both succeed.
"""

import mmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PROTECTION = mmap.PROT_READ | mmap.PROT_WRITE
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_FAILED = (1 << 64) - 1  # what mmap(2) returns in place of an address
_WRITABLE = 0x200  # PyBUF_WRITE
_HUGE = 1 << 22  # bytes; a huge page has half of that
_USE_HUGE_PAGES, _MAKE_PAGES = 14, 23  # MADV_HUGEPAGE, MADV_POPULATE_WRITE: advice, which a system may not know
_SENT = "the memory has been handed over"


class _Functions:
    """The C functions, once they are needed."""

    __slots__ = ("advise", "map", "unmap", "view")

    def __init__(self) -> None:
        from subiso._kernel import capi

        address, size, number = capi.Address, capi.Size, capi.Int
        self.map: Any = capi.returning_address("mmap", address, size, number, number, number, size)
        self.unmap: Any = capi.returning_address("munmap", address, size)
        self.advise: Any = capi.returning_address("madvise", address, size, number)
        self.view: Any = capi.returning_object("PyMemoryView_FromMemory", address, size, number)


_functions: _Functions | None = None


def _c() -> _Functions:
    global _functions
    if _functions is None:
        _functions = _Functions()
    return _functions


class Region:
    """Memory that belongs to this interpreter.

    Attributes:
        nbytes: how much.
        has_left: whether it has been handed over.
    """

    __slots__ = ("_address", "_c", "_views", "has_left", "nbytes")

    def __init__(self, address: int, nbytes: int) -> None:
        self._c = _c()  # here, for a finalizer may run when the module is gone
        self._address = address
        self._views = 0
        self.nbytes = nbytes
        self.has_left = False

    @classmethod
    def create(cls, nbytes: int, to_be_filled: bool = False) -> "Region":
        """Return new memory, all zero; if told that it will be filled at once, with its pages there already.

        The system makes pages one by one as they are touched, which takes longer than filling them. Huge pages, and
        all at once, are several times as fast.

        Raises:
            MemoryError: there is not so much.
        """
        c = _c()
        address = c.map(None, max(nbytes, 1), _PROTECTION, _FLAGS, -1, 0)
        if address in (None, _FAILED):
            raise MemoryError(f"there is no room for {nbytes} bytes")
        if nbytes >= _HUGE:
            c.advise(address, nbytes, _USE_HUGE_PAGES)
        if to_be_filled:
            c.advise(address, nbytes, _MAKE_PAGES)
        return cls(address, nbytes)

    def __buffer__(self, flags: int) -> memoryview:
        self._views += 1
        if self.has_left:
            self._views -= 1
            raise BufferError(_SENT)
        view: memoryview = self._c.view(self._address, self.nbytes, _WRITABLE)
        return view

    def __release_buffer__(self, view: memoryview) -> None:
        self._views -= 1  # first, for what Ctrl-C raises here is dropped; and the view is let go of in any case
        view.release()

    def check(self) -> None:
        """Raise what `leave` would raise."""
        if self.has_left:
            raise BufferError(_SENT)
        if self._views:
            raise BufferError("views of the memory exist: release them, and what was made of them, before it is sent")

    def leave(self) -> int:
        """Belong to this interpreter no more; return the address.

        Raises:
            BufferError: it has left already, or there are views of it.
        """
        self.check()
        self.has_left = True
        if self._views:
            self.has_left = False
            self.check()
        return self._address

    def come_back(self) -> None:
        """Belong to this interpreter after all: it could not be sent."""
        self.has_left = False

    def __del__(self) -> None:
        if not getattr(self, "has_left", True):  # else Ctrl-C came before it was anything
            self._c.unmap(self._address, max(self.nbytes, 1))


def free(address: int, nbytes: int) -> None:
    """Let go of memory that was handed over to nobody."""
    _c().unmap(address, max(nbytes, 1))
