"""The sending side of ports."""

from time import monotonic

from subiso import messages
from subiso._kernel import node as nodes
from subiso._kernel import parcels, semaphore, waiting
from subiso._kernel.arena import NOBODY, Arena, slot_of
from subiso._kernel.interrupt import unwind
from subiso.errors import PortClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from subiso._kernel.node import Node

TYPED, BOUNDED = 1, 2  # flags of a send port: what its receive port wants


class SendPort:
    """Send messages to the `ReceivePort` that it belongs to.

    A send port is a value: it can be sent anywhere inside a message, and it is equal to, and has the hash of, every
    other send port of the same receive port, in whatever isolate. (Dart: ``SendPort``.)
    """

    __slots__ = ("__weakref__", "_address", "_flags", "_place", "_write")
    _address: int
    _flags: int
    _place: int
    _write: "Callable[[int, int, bytes], None] | None"

    def __init__(self) -> None:
        raise TypeError("a SendPort comes from ReceivePort.send_port")

    @classmethod
    def _of(cls, address: int, flags: int) -> "SendPort":
        port = object.__new__(cls)
        port._address, port._flags, port._place, port._write = address, flags, Arena.port(address), None
        return port

    def send(self, message: object, timeout: float | None = None) -> None:
        """Send a message: a deep copy of it arrives, after everything that was sent before it.

        That holds for what other isolates sent, too, as far as this one can know that they had sent it. Never blocks
        unless the port is bounded and full.

        Args:
            message: whatever can be sent.
            timeout: seconds to wait for room in a bounded port; None: for ever.

        Raises:
            SendError: the message holds something that cannot be sent; nothing was sent.
            PortClosedError: the receive port is closed, or its isolate has ended.
            PortFull: a bounded port had no room for ``timeout`` seconds.
        """
        node = nodes._node or nodes.current()
        if node.arena.words[self._place] != self._address:
            raise PortClosedError("the port is closed")
        encode = messages.typed_encode if self._flags & TYPED else messages.encode
        kind, body, buffers, carried = encode(message)
        if timeout is not None:
            check_timeout(timeout)
        if self._flags & BOUNDED:
            self._reserve(node, timeout)
        if carried or buffers or len(body) >= parcels.LARGE:
            self._post(node, kind, body, buffers, carried)
        elif self._write is not None:
            self._write(kind, self._address, body)
        else:
            self._write = node.mailbox.writer(slot_of(self._address)).write
            self._write(kind, self._address, body)

    def send_nowait(self, message: object) -> None:
        """Send a message without ever blocking.

        Raises:
            PortFull: the port is bounded and full.
            SendError, PortClosedError: as for `send`.
        """
        self.send(message, 0)

    async def asend(self, message: object) -> None:
        """Send a message; where the port is bounded and full, wait in the running event loop (asyncio or trio)."""
        await waiting.checkpoint()
        node = nodes.current()
        if self._flags & BOUNDED:
            encoded = self._encode(node, message)
            while not semaphore.take(self._semaphore(node)):
                await waiting.wait_readable(self._semaphore(node))
                self._check_open(node)
            self._post(node, *encoded)
        else:
            self.send(message)

    def request(self, message: object, timeout: float | None = None) -> "Any":
        """Send a message as a `Request`, wait for the answer, and return it.

        The port must have no type. Whoever receives there gets a `Request` with the message in it, and calls its
        `~Request.reply` or `~Request.fail`.

        Args:
            message: whatever can be sent.
            timeout: seconds to wait for the answer; None: for ever. When they are over only the waiting ends.

        Raises:
            PortEmpty: no answer came in ``timeout`` seconds. It is a `TimeoutError`.
            NoSendersError: the isolate that was asked has ended without answering.
            BaseException: what the request failed with, as itself, with its traceback over there as its cause.
            SendError, PortClosedError, PortFull: as for `send`.
            TypeError: the port has a type.
        """
        from subiso import requests

        return requests.request(self, message, timeout)

    async def arequest(self, message: object) -> "Any":
        """Send a message as a `Request`, and wait in the running event loop for the answer; as `request`."""
        from subiso import requests

        return await requests.arequest(self, message)

    def _encode(self, node: "Node", message: object) -> "tuple[int, bytes, Sequence[memoryview], Sequence[Any]]":
        self._check_open(node)
        return messages.typed_encode(message) if self._flags & TYPED else messages.encode(message)

    def _check_open(self, node: "Node") -> None:
        if node.arena.words[self._place] != self._address:
            raise PortClosedError("the port is closed")

    def _semaphore(self, node: "Node") -> int:
        return node.arena.words[self._place + 1]

    def _reserve(self, node: "Node", timeout: float | None) -> None:
        """Take one of the places of a bounded port."""
        descriptor = self._semaphore(node)
        deadline = None if timeout is None else monotonic() + timeout
        while not semaphore.take(descriptor):
            remaining = None if deadline is None else deadline - monotonic()
            if remaining is not None and remaining <= 0:
                from subiso.errors import PortFull

                raise PortFull("the port is full")
            semaphore.wait(node, descriptor, remaining)
            if node.killed:
                raise unwind()
            self._check_open(node)
        if node.arena.words[self._place] != self._address:  # what was taken belongs to another port by now
            semaphore.give(descriptor)
            raise PortClosedError("the port is closed")

    def _post(
        self, node: "Node", kind: int, body: bytes, buffers: "Sequence[memoryview]", carried: "Sequence[Any]"
    ) -> None:
        address = self._address
        if carried:
            # In this order: an isolate closes its ports before it ends, so the number is that of the port's owner. If
            # it has ended meanwhile the message will be dropped, and what is in it was given to nobody who lives.
            receiver = slot_of(address), node.mailbox.number_in(slot_of(address))
            is_open = node.arena.words[self._place] == address
            grant(node, carried, *(receiver if is_open else NOBODY))
        node.mailbox.send_message(address, kind, body, buffers)

    def __eq__(self, other: object) -> bool:
        return self._address == other._address if isinstance(other, SendPort) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._address)

    def __repr__(self) -> str:
        return f"<SendPort {self._address:#x}>"

    def __copy__(self) -> "SendPort":
        return self

    def __deepcopy__(self, memo: object) -> "SendPort":
        return self

    def __reduce__(self) -> "tuple[Any, ...]":
        messages.carry(self)
        return SendPort._of, (self._address, self._flags)


def grant(node: "Node", carried: "Iterable[Any]", slot: int, number: int) -> None:
    """Tell the owners of the send ports in a message which isolate is about to be given them."""
    for port in carried:
        if isinstance(port, SendPort):
            node.mailbox.grant(port._address, slot, number)


def check_timeout(timeout: float | None) -> float | None:
    """Return ``timeout`` if it is a time-out.

    Raises:
        ValueError: it is negative or not a number.
    """
    if timeout is not None and not timeout >= 0:  # NaN too
        raise ValueError(f"timeout must be None or a number of seconds that is not negative, not {timeout!r}")
    return timeout
