"""Ports: a `ReceivePort` takes messages in, its `SendPort` travels to whoever may send them.

The vocabulary and most of the semantics are Dart's (``dart:isolate``); bounds, types, time-outs and event loops are
ours.
"""

import os
from itertools import count
from time import monotonic

from subiso import messages
from subiso._kernel import attendant as attendants
from subiso._kernel import doorbell, parcels, protocol, semaphore, waiting
from subiso._kernel import node as nodes
from subiso._kernel.interrupt import unwind
from subiso._typing import Generic, T_co, overload
from subiso.errors import MessageTypeError, NoSendersError, PortClosedError, PortEmpty, SendError
from subiso.sending import BOUNDED, TYPED, SendPort, check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Any, Self

    from subiso._kernel.waitables import Inbox
    from subiso.listening import Subscription


class ReceivePort(Generic[T_co]):  # noqa: UP046 - as `_typing` says
    """Take in the messages that are sent to `send_port`.

    Iterating takes message after message, and ends when every isolate that was given the send port has ended and
    nothing is queued, or when the port is closed. Only the isolate that made a port can receive from it.
    (Dart: ``ReceivePort``.)

    Args:
        type: what the messages must be: any type that msgspec can decode. Messages are converted to it, strictly.
            ``Any``: whatever was sent arrives.
        maxsize: how many messages may wait; a sender then blocks. 0: any number.
        name: for people.
        end_with_senders: whether iteration and `receive` end when all senders have ended.

    Raises:
        TypeError: msgspec cannot decode that type.
        ValueError: ``maxsize`` is negative.
    """

    __subiso_unsendable__ = "ReceivePort objects cannot be sent; send their send_port"

    @overload
    def __init__(
        self: "ReceivePort[Any]",
        *,
        maxsize: int = 0,
        name: str | None = None,
        end_with_senders: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self,
        type: "type[T_co]",
        *,
        maxsize: int = 0,
        name: str | None = None,
        end_with_senders: bool = True,
    ) -> None: ...
    @overload
    def __init__(
        self: "ReceivePort[Any]",
        type: "Any",
        *,
        maxsize: int = 0,
        name: str | None = None,
        end_with_senders: bool = True,
    ) -> None: ...
    def __init__(
        self,
        type: "type[T_co] | Any" = object,
        *,
        maxsize: int = 0,
        name: str | None = None,
        end_with_senders: bool = True,
    ) -> None:
        if not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be an int, not {maxsize!r}")
        if maxsize < 0:
            raise ValueError(f"maxsize must be 0 or more, not {maxsize}")
        decoder: Any = messages if type is object or _is_any(type) else messages.Decoder(type)
        self._decode: Any = decoder.decode
        self._direct_kind, self._direct, self._misfit = decoder.direct
        self._node = node = nodes.current()
        self.name = name
        self.maxsize = maxsize
        self._end_with_senders = end_with_senders
        self._descriptor: tuple[int, int] | None = None
        self._subscription: Subscription | None = None
        self._inbox = node.mailbox.open()
        if maxsize:
            self._bound(maxsize)
        flags = (TYPED if decoder.packs else 0) | (BOUNDED if maxsize else 0)
        self._send_port = SendPort._of(self._inbox.address, flags)

    def _decode_by(self, decode: "Callable[[int, bytes | memoryview, Sequence[memoryview]], Any]") -> None:
        """Have whatever arrives decoded by a function of one's own."""
        self._decode, self._direct_kind = decode, 0

    def _bound(self, maxsize: int, batch: int = 1) -> None:
        """Let only so many messages wait. Senders, or one, learn of ``batch`` free places at a time."""
        self._batch, self._taken = batch, count(1)
        try:
            self._inbox.semaphore = semaphore.open(self._node, self._inbox.address, maxsize, one_by_one=batch == 1)
        except BaseException:
            self.close()
            raise

    @property
    def send_port(self) -> SendPort:
        """The port that sends here; give it to whoever may send."""
        return self._send_port

    @property
    def closed(self) -> bool:
        """Whether the port has been closed, or its isolate has ended."""
        return self._inbox.closed

    # -- receiving -----------------------------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> "T_co":
        """Take the next message, waiting for it if need be.

        Args:
            timeout: seconds to wait; None: for ever; 0: not at all.

        Raises:
            PortEmpty: no message came in ``timeout`` seconds. It is a `TimeoutError` and a `queue.Empty`.
            NoSendersError: every isolate that was given the send port has ended, and nothing is queued.
            PortClosedError: the port is closed.
            MessageTypeError: the message is not of the port's type. It is consumed; the port goes on.
            RuntimeError: the port is being listened to.
            ValueError: ``timeout`` is negative.
        """
        deadline = None if timeout is None else monotonic() + check_timeout(timeout)  # type: ignore[operator]
        node, messages = self._node, self._inbox.messages
        if not messages:
            if self._inbox.closed or self._subscription is not None:
                self._check_receivable()
            if timeout != 0:
                node.mailbox.spin(messages.__len__)
        remaining = timeout
        while True:
            if (node.gate.shut or not messages) and not node.mailbox.block([self._inbox], self._ready, remaining):
                raise PortEmpty("no message arrived in time" if timeout else "no message is waiting")
            try:
                return self._take()
            except PortEmpty:  # another thread was quicker, or a sender that has ended has handed the port on before
                remaining = None if deadline is None else max(deadline - monotonic(), 0)
                if self._inbox.closed or self._subscription is not None:
                    self._check_receivable()

    def receive_nowait(self) -> "T_co":
        """Take the next message if one is waiting.

        Raises:
            PortEmpty: none is waiting.
            NoSendersError, PortClosedError, MessageTypeError, RuntimeError: as for `receive`.
        """
        return self.receive(0)

    async def areceive(self) -> "T_co":
        """Take the next message, waiting for it in the running event loop (asyncio or trio); raises as `receive`."""
        self._check_receivable()
        while True:
            await waiting.wait(self._node.mailbox, [self._inbox, self._node.gate.changed], self._ready)
            try:
                return self._take()
            except PortEmpty:  # another task was quicker
                continue

    def _check_receivable(self) -> None:
        if self._inbox.closed:
            if self._node.pid != os.getpid():
                raise PortClosedError("the port belongs to the process that this one was forked from")
            raise PortClosedError("the port is closed")
        if self._subscription is not None:
            raise RuntimeError("the port is being listened to")

    def _ready(self) -> bool:
        node = self._node
        if node.gate.shut and not node.gate.opens():
            return node.killed
        return self._inbox.messages or self._is_over() or node.killed  # type: ignore[return-value]

    def _is_over(self) -> bool:
        inbox = self._inbox
        return inbox.closed or (
            self._end_with_senders and bool(inbox.holders) and not self._node.mailbox.has_senders(inbox)
        )

    def _take(self) -> "T_co":
        inbox = self._inbox
        if self._node.killed:
            raise unwind()
        try:
            kind, payload = inbox.messages.popleft()
        except IndexError:
            kind, payload = self._take_last()
        if inbox.semaphore and not next(self._taken) % self._batch:
            semaphore.give(inbox.semaphore, self._batch)
        if self._descriptor is not None:
            self._rearm()
        if kind == self._direct_kind:
            try:
                return self._direct(payload)  # type: ignore[no-any-return]
            except self._misfit as error:
                raise MessageTypeError(str(error)) from None
        if kind != protocol.LARGE:
            return self._decode(kind, payload, ())  # type: ignore[no-any-return]
        return self._decode(*parcels.unpack(kind, payload))  # type: ignore[no-any-return]

    def _take_last(self) -> tuple[int, bytes]:
        """Take the message that was sent last by isolates that have ended; they were seen to end before it was seen."""
        inbox = self._inbox
        ended = inbox.holders if self._is_over() else None
        if not inbox.closed:
            self._node.mailbox.settle()
        try:
            return inbox.messages.popleft()
        except IndexError:
            if inbox.closed:
                raise PortClosedError("the port is closed") from None
            if inbox.holders is ended:  # else one of them has handed the port on
                raise NoSendersError("every isolate that was given the send port has ended") from None
            raise PortEmpty("no message is waiting") from None

    def __iter__(self) -> "Iterator[T_co]":
        return self

    def __next__(self) -> "T_co":
        try:
            return self.receive()
        except (NoSendersError, PortClosedError):
            raise StopIteration from None

    def __aiter__(self) -> "AsyncIterator[T_co]":
        return self

    async def __anext__(self) -> "T_co":
        try:
            return await self.areceive()
        except (NoSendersError, PortClosedError):
            raise StopAsyncIteration from None

    # -- listening -----------------------------------------------------------------------------------------------------

    def listen(self, handler: "Callable[[T_co], object]") -> "Subscription":
        """Have ``handler`` called with each message, one at a time and in order.

        It is called on the running event loop if there is one (a coroutine function is awaited); else, in an isolate,
        on its own thread once a synchronous entry function has returned; else on one thread of main that serves all
        listening ports. The port keeps its isolate (in main: the program) alive until it is closed, the subscription is
        cancelled, or all its senders have ended. What the handler raises is an uncaught error of the isolate.

        Raises:
            TypeError: ``handler`` is not callable.
            PortClosedError: the port is closed.
            RuntimeError: the port is being listened to already.
        """
        from subiso import listening

        if not callable(handler):
            raise TypeError(f"the handler must be callable, not {handler!r}")
        self._check_receivable()
        self._subscription = listening.subscribe(self, handler)
        return self._subscription

    def fileno(self) -> int:
        """Return a descriptor that is readable while a message waits, or nothing more will come, for any event loop.

        It is made at the first call and belongs to the port. Do not read from it: receive until `PortEmpty`.
        """
        self._check_receivable()
        if self._descriptor is None:
            self._descriptor = doorbell.create()
            attendants.of(self._node)
            self._inbox.on_event = self._rearm
            self._node.mailbox.pump()
            self._rearm()
        return self._descriptor[0]

    def _rearm(self) -> None:
        """Make the descriptor's state that of the port."""
        if self._descriptor is None:
            return
        reader, writer = self._descriptor
        if not self._inbox.messages and not self._is_over():
            doorbell.silence(reader)
        if self._inbox.messages or self._is_over():  # asked again: a message may have arrived meanwhile
            doorbell.ring(writer)

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the port. What is queued is dropped; senders get `PortClosedError`. Closing twice does nothing."""
        self._close(self._node.mailbox.close)

    def _close(self, close_inbox: "Callable[[Inbox], None]") -> None:
        if self._inbox.closed:
            return
        if self._subscription is not None:
            self._subscription.cancel()
        close_inbox(self._inbox)
        if self._descriptor is not None:
            descriptors, self._descriptor = self._descriptor, None
            doorbell.close(*descriptors)

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
        # A port that was merely forgotten is closed: nobody can receive from it any more.
        try:
            self._close(self._node.mailbox.forget)
        except Exception:  # it was never opened, or the interpreter is ending
            pass

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        return f"<ReceivePort{name}{' closed' if self.closed else ''}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        raise SendError(self.__subiso_unsendable__)


def _is_any(kind: object) -> bool:
    return getattr(kind, "__module__", "") == "typing" and getattr(kind, "__name__", "") == "Any"


def _check_ports(ports: "tuple[ReceivePort[Any], ...]") -> None:
    if not ports:
        raise ValueError("select needs at least one port")
    for port in ports:
        if not isinstance(port, ReceivePort):
            raise TypeError(f"select takes receive ports, not {port!r}")
        port._check_receivable()


def _first_ready(ports: "tuple[ReceivePort[Any], ...]") -> "ReceivePort[Any] | None":
    gate = ports[0]._node.gate
    if gate.shut and not gate.opens():
        return None
    for port in ports:
        if port._inbox.messages:
            return port
    for port in ports:
        if port._is_over():
            return port
    return None


def select(*ports: "ReceivePort[Any]", timeout: float | None = None) -> "ReceivePort[Any]":
    """Wait until a port has a message, and return that port; `ReceivePort.receive` then gives the message at once.

    A port whose senders have all ended counts as ready: receiving from it raises `NoSendersError`.

    Args:
        ports: receive ports of this isolate; of several that are ready the one named first is returned.
        timeout: seconds to wait; None: for ever.

    Raises:
        PortEmpty: no port got a message in ``timeout`` seconds.
        PortClosedError: one of them is closed.
    """
    _check_ports(ports)
    node = ports[0]._node
    node.mailbox.pump()  # else what has come for one port would hide what comes for another
    inboxes = [port._inbox for port in ports]
    found: list[ReceivePort[Any]] = []

    def look() -> bool:
        if not node.killed and (first := _first_ready(ports)) is not None:
            found.append(first)
        return node.killed or bool(found)

    node.mailbox.wait(inboxes, look, check_timeout(timeout))
    if node.killed:
        raise unwind()
    if not found:
        raise PortEmpty("no message arrived in time")
    return found[-1]


async def aselect(*ports: "ReceivePort[Any]") -> "ReceivePort[Any]":
    """Wait in the running event loop until a port has a message, and return that port; as `select`."""
    _check_ports(ports)
    ports[0]._node.mailbox.pump()
    node = ports[0]._node
    waitables = [*(port._inbox for port in ports), node.gate.changed]
    while True:
        await waiting.wait(node.mailbox, waitables, lambda: node.killed or _first_ready(ports))
        if node.killed:
            raise unwind()
        if (first := _first_ready(ports)) is not None:
            return first
