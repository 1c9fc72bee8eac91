"""Streams: what a generator yields in an isolate arrives as it is made.

The items go through a bounded port; how the generator has ended is the result of the future of its work. Both come from
one isolate, so that the future is done only when every item has arrived. There is one sender, so it takes the port's
free places by the dozen: neither side makes a system call for each item.
"""

import functools
from time import monotonic

from subiso._kernel import attendant as attendants
from subiso._kernel import node as nodes
from subiso._kernel import semaphore, waiting
from subiso._kernel.interrupt import unwind
from subiso.errors import PortClosedError, PortEmpty, SendError
from subiso.ports import ReceivePort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType
    from typing import Any, Self

    from subiso.futures import IsolateFuture
    from subiso.sending import SendPort

MAXSIZE = 1000
_BATCHES = 8  # into how many parts free places are given back
_GRACE = 0.05  # seconds that a generator whose stream was closed is given to end by itself


class Stream[T]:
    """What a generator in an isolate yields, item by item, for ``for`` and ``async for``.

    What the generator raises is raised after the items that it has yielded before. Closing the stream, which ``with``,
    ``async with`` and dropping it do too, ends the work.
    """

    __subiso_unsendable__ = "Stream objects cannot be sent; send what they yield"

    def __init__(self, port: "ReceivePort[T]", future: "IsolateFuture[Any]") -> None:
        self._port = port
        self._future = future
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    def __iter__(self) -> "Iterator[T]":
        return self

    def __next__(self) -> T:
        port = self._port
        if not port._inbox.messages and not self._closed:
            node = port._node
            node.mailbox.wait([port._inbox, self._future._done], lambda: self._is_ready() or node.killed)
            if node.killed:
                raise unwind()
        if self._closed or not self._has_item():
            raise StopIteration
        return port._take()

    def __aiter__(self) -> "AsyncIterator[T]":
        return self

    async def __anext__(self) -> T:
        port = self._port
        await waiting.checkpoint()
        while not self._closed:
            if not port._inbox.messages:
                await waiting.wait(port._node.mailbox, [port._inbox, self._future._done], self._is_ready)
            if not self._has_item():
                break
            try:
                return port._take()
            except PortEmpty:  # another task was quicker
                continue
        raise StopAsyncIteration

    def _is_ready(self) -> bool:
        return bool(self._port._inbox.messages) or self._closed or self._future.done()

    def _has_item(self) -> bool:
        """Return whether an item is there; if the generator has ended, end too, or raise what it has raised."""
        inbox, future = self._port._inbox, self._future
        over = future.done()
        if inbox.messages:  # looked at after the future: what was sent before the end is there by then
            return True
        if not over or self._closed:
            return False
        self.close()
        future.result(0)
        return False

    def close(self) -> None:
        """Want no more items. Does not wait.

        The generator is closed when it next yields; if that takes longer than 50 ms, its isolate is killed.
        """
        if self._closed:
            return
        self._closed = True
        self._port.close()
        future = self._future
        if not future.done():
            attendants.of(self._port._node).call_at(monotonic() + _GRACE, functools.partial(_cancel, future))

    async def aclose(self) -> None:
        """Want no more items; as `close`."""
        self.close()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __reduce__(self) -> "tuple[Any, ...]":
        raise SendError(self.__subiso_unsendable__)


def _cancel(future: "IsolateFuture[Any]") -> None:
    future.cancel()


def open_stream(
    start: "Callable[..., IsolateFuture[Any]]",
    generator_function: "Callable[..., Any]",
    args: "tuple[Any, ...]",
    maxsize: int,
) -> "Stream[Any]":
    """Have ``start`` run a generator in an isolate, and return its stream.

    Raises:
        TypeError: it is not callable; ``maxsize`` is not an int.
        ValueError: ``maxsize`` is less than 1.
        SendError: the function or an argument cannot be sent.
    """
    if not callable(generator_function):
        raise TypeError(f"a stream needs a generator function, not {generator_function!r}")
    if not isinstance(maxsize, int):
        raise TypeError(f"maxsize must be an int, not {maxsize!r}")
    if maxsize < 1:
        raise ValueError(f"maxsize must be at least 1, not {maxsize}: a stream is bounded")
    port: ReceivePort[Any] = ReceivePort()
    try:
        port._bound(maxsize, batch=max(maxsize // _BATCHES, 1))
        future = start(produce, port.send_port, generator_function, args)
    except BaseException:
        port.close()
        raise
    return Stream(port, future)


class _Outlet:
    """The producer's end: sends an item when the reader has room for it."""

    def __init__(self, port: "SendPort") -> None:
        self._node = nodes.current()
        self._port = port
        self._send = port.send
        self._room = 0

    def send(self, item: object) -> None:
        while not self._room:
            self._make_room()
        self._send(item)
        self._room -= 1

    def _make_room(self) -> None:
        """Take every place that is free; if there is none, wait until there may be."""
        port, node = self._port, self._node
        port._check_open(node)
        self._room = semaphore.take(port._semaphore(node))
        if not self._room:
            semaphore.wait(node, port._semaphore(node), None)
            if node.killed:
                raise unwind()

    async def asend(self, item: object) -> None:
        port, node = self._port, self._node
        while not self._room:
            port._check_open(node)
            self._room = semaphore.take(port._semaphore(node))
            if not self._room:
                await waiting.wait_readable(port._semaphore(node))
        self.send(item)


def produce(port: "SendPort", generator_function: "Callable[..., Any]", args: "tuple[Any, ...]") -> "Any":
    """Send what a generator yields. Runs in the isolate."""
    generator = generator_function(*args)
    if hasattr(generator, "__aiter__"):
        return _produce_async(port, generator)  # which is run by asyncio
    if not hasattr(generator, "__iter__"):
        raise TypeError(f"{getattr(generator_function, '__qualname__', generator_function)} is no generator function")
    send = _Outlet(port).send
    try:
        for item in generator:
            try:
                send(item)
            except PortClosedError:  # nobody wants any more
                break
    finally:
        if hasattr(generator, "close"):
            generator.close()


async def _produce_async(port: "SendPort", generator: "Any") -> None:
    outlet = _Outlet(port)
    try:
        async for item in generator:
            try:
                await outlet.asend(item)
            except PortClosedError:
                break
    finally:
        if hasattr(generator, "aclose"):
            await generator.aclose()
