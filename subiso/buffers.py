"""Memory that is handed over from isolate to isolate without being copied: `Buffer`, and Dart's `Transferable`."""

from subiso._kernel.regions import Region
from subiso._pickling import functions
from subiso.errors import SendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Buffer as AnyBuffer
    from collections.abc import Iterable
    from typing import Any, SupportsIndex


class Buffer:
    """Hold memory that is handed over when it is sent: it arrives at once, whatever its size, and is gone here.

    It is filled and read through views: ``memoryview(buffer)``, ``numpy.frombuffer(buffer)``. While views exist, it
    cannot be sent; a send that fails leaves it as it was. Its memory is freed when neither it nor a view of it is left.

    Args:
        nbytes: how many bytes, all zero at first.

    Raises:
        TypeError: ``nbytes`` is not an integer.
        ValueError: it is negative.
        MemoryError: there is not so much memory.
    """

    __slots__ = ("__weakref__", "_region")
    __subiso_unsendable__ = None  # it says itself why, where it cannot be sent
    _region: Region

    def __init__(self, nbytes: "SupportsIndex") -> None:
        if not hasattr(nbytes, "__index__"):
            raise TypeError(f"the size of a Buffer must be an int, not {nbytes!r}")
        size = nbytes.__index__()
        if size < 0:
            raise ValueError(f"a Buffer cannot have {size} bytes")
        self._region = Region.create(size)

    @classmethod
    def _of(cls, region: Region) -> "Buffer":
        buffer = object.__new__(cls)
        buffer._region = region
        return buffer

    @property
    def nbytes(self) -> int:
        """How many bytes it has, or had before it was sent."""
        return self._region.nbytes

    def __len__(self) -> int:
        return self._region.nbytes

    def __buffer__(self, flags: int) -> memoryview:
        return self._region.__buffer__(flags)

    def __release_buffer__(self, view: memoryview) -> None:  # numpy holds views of what has this method only
        self._region.__release_buffer__(view)

    def __repr__(self) -> str:
        return f"<Buffer of {self.nbytes:,} bytes{_state(self._region)}>"

    def __reduce_ex__(self, protocol: "SupportsIndex") -> "tuple[Any, ...]":
        return Buffer._of, (_take_along(self, self._region),)


class Transferable:
    """Copy data once, to send it at once, however much it is.

    The copy is handed over as a `Buffer` is. Wherever it has got to, it is taken out, once, by `materialize`.
    (Dart: ``TransferableTypedData``.)

    Args:
        data: what has the buffer protocol (bytes, an array), or several such, which then follow each other.

    Raises:
        TypeError: it has no buffer.
        MemoryError: there is not so much memory.
    """

    __slots__ = ("__weakref__", "_region")
    __subiso_unsendable__ = None
    _region: Region | None

    def __init__(self, data: "AnyBuffer | Iterable[AnyBuffer]") -> None:
        views = [_bytes_of(one) for one in _parts_of(data)]
        self._region = Region.create(sum(view.nbytes for view in views), to_be_filled=True)
        with memoryview(self._region) as memory:
            start = 0
            for view in views:
                memory[start : start + view.nbytes] = view
                start += view.nbytes

    @classmethod
    def _of(cls, region: Region) -> "Transferable":
        transferable = object.__new__(cls)
        transferable._region = region
        return transferable

    def materialize(self) -> Buffer:
        """Return the data as a `Buffer`; once, and not where it was sent from.

        Raises:
            ValueError: it was materialized before, or has been sent.
        """
        region = self._region
        if region is None or region.has_left:
            raise ValueError("the data was materialized before" if region is None else "the data has been sent")
        self._region = None
        return Buffer._of(region)

    def __repr__(self) -> str:
        if self._region is None:
            return "<Transferable, materialized>"
        return f"<Transferable of {self._region.nbytes:,} bytes{_state(self._region)}>"

    def __reduce_ex__(self, protocol: "SupportsIndex") -> "tuple[Any, ...]":
        if self._region is None:
            raise SendError("the data was materialized here; send the Buffer that this gave")
        return Transferable._of, (_take_along(self, self._region),)


def _state(region: Region) -> str:
    return ", sent" if region.has_left else ""


def _take_along(thing: object, region: Region) -> "Any":
    pickler = functions.running()
    if pickler is None:
        raise SendError(f"a {type(thing).__name__} travels in messages only; it cannot be pickled or copied")
    return pickler.take_along(region)


def _parts_of(data: "Any") -> "Iterable[Any]":
    try:
        memoryview(data).release()
    except TypeError:
        if isinstance(data, str) or not hasattr(data, "__iter__"):
            raise TypeError(f"a Transferable takes what has the buffer protocol, not {type(data).__name__}") from None
        return list(data)
    return [data]


def _bytes_of(data: "Any") -> memoryview:
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
