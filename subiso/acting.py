"""The inside of an actor's isolate: make the object, and call its methods as messages come.

A call is the address for its reply, eight bytes, and then ``(method's name, args, keywords, *what is carried)``. An
address alone takes that call back. An empty message ends the actor when everything before it is done. The first reply
of all says where calls are to be sent, or why the object could not be made, and the very last one that the end was an
orderly one; the others are what `IsolateFuture` expects.

Calls are done in order, until a method returns a coroutine: from then on the actor runs an event loop, in which calls
begin in order, and coroutines interleave.
"""

import sys
from collections import deque

from subiso import carriers, coroutines, messages, sending
from subiso._kernel import node as nodes
from subiso._kernel import protocol
from subiso._kernel.arena import slot_of
from subiso._kernel.interrupt import IsolateKilled
from subiso.errors import NoSendersError, PortClosedError, PortEmpty
from subiso.ports import ReceivePort

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from subiso.messages import Encoded
    from subiso.sending import SendPort

    Raw = tuple[int, bytes | memoryview, Sequence[memoryview]]

_CLOSE = "close"  # the method that is called last, if the object has one


def pack_address(address: int) -> bytes:
    """Return what a call, or what takes it back, begins with."""
    return address.to_bytes(8, "little")


def serve(hello: "SendPort", cls: "Callable[..., Any]", args: "tuple[Any, ...]", keywords: "dict[str, Any]") -> None:
    """Be an actor, and say so to ``hello``."""
    node = nodes.current()
    try:
        target = cls(*args, **keywords)
    except BaseException as error:
        if not (isinstance(error, IsolateKilled) and node.killed):
            hello._post(node, *_failure(error))
        return
    with ReceivePort[tuple[int, bytes, list[memoryview]]]() as port:
        port._decode_by(lambda kind, body, buffers: (kind, body, buffers))  # what fails there must fail the call
        hello.send(port.send_port)
        _Stage(target, port).run()
        close = getattr(target, _CLOSE, None)
        if callable(close):
            result = close()
            if coroutines.is_coroutine(result):
                coroutines.run(node, result)
        hello.send(None)


def _failure(error: BaseException) -> "Encoded":
    from subiso import failures

    return protocol.FAILURE, *messages.encode(failures.pack(error))[1:]


class _Stage:
    """Where an actor's calls come in and are done."""

    def __init__(self, target: "Any", port: "ReceivePort[Raw]") -> None:
        self._node = nodes.current()
        self._target = target
        self._port = port
        self._calls: deque[tuple[int, list[Raw]]] = deque()  # in order; the list holds one
        self._ending = False  # whether no more calls come after those
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the address for the reply

    def run(self) -> None:
        """Do what comes until the end."""
        while True:
            while not self._ending and (self._port._inbox.messages or not self._calls):
                try:
                    self._sort(self._port.receive(0 if self._calls else None))
                except PortEmpty:
                    break
                except (NoSendersError, PortClosedError):  # nobody knows the actor any more
                    self._ending = True
            if not self._calls:
                return
            address, raw = self._calls.popleft()
            coroutine = self._begin(address, raw)
            if coroutine is not None:
                coroutines.run(self._node, self._interleave(address, coroutine))
                return

    def _sort(self, raw: "Raw") -> None:
        """Queue a call, take one back, or notice the end."""
        kind, body, buffers = raw
        address = int.from_bytes(body[:8], "little")
        if kind != protocol.NONE:
            self._calls.append((address, [(kind, body[8:], buffers)]))
        elif not address:
            self._ending = True
        elif address in self._tasks:
            self._tasks[address].cancel()
        else:
            self._calls = deque(call for call in self._calls if call[0] != address)

    def _begin(self, address: int, raw: "list[Raw]") -> "Coroutine[Any, Any, Any] | None":
        """Do one call, or return the coroutine that is to do it."""
        try:
            name, args, keywords, *carried = messages.decode(*raw.pop())
            method = getattr(self._target, name)
            result = (carriers.Loaded(method, carried) if carried else method)(*args, **keywords)
            if coroutines.is_coroutine(result):
                return result
            encoded = messages.encode(result, "result")
        except BaseException as error:
            encoded = self._failure_of(error)
        self._reply(address, encoded)
        return None

    def _failure_of(self, error: BaseException) -> "Encoded":
        if isinstance(error, IsolateKilled) and self._node.killed:
            raise error
        return _failure(error)

    def _reply(self, address: int, encoded: "Encoded") -> None:
        kind, body, buffers, carried = encoded
        node, slot = self._node, slot_of(address)
        _flush()
        sending.grant(node, carried, slot, node.mailbox.number_in(slot))
        node.mailbox.send_message(address, kind, body, buffers)

    # -- with an event loop --------------------------------------------------------------------------------------------

    async def _interleave(self, address: int, coroutine: "Coroutine[Any, Any, Any]") -> None:
        """Do the rest in an event loop, beginning with a call that has returned a coroutine."""
        import asyncio

        self._start(address, coroutine)
        await asyncio.sleep(0)  # so that it begins before the next call does
        while True:
            while self._calls:
                following, raw = self._calls.popleft()
                another = self._begin(following, raw)
                if another is not None:
                    self._start(following, another)
                    await asyncio.sleep(0)
            if self._ending:
                break
            try:
                self._sort(await self._port.areceive())
            except (NoSendersError, PortClosedError):
                self._ending = True
        if self._tasks:
            await asyncio.wait([*self._tasks.values()])

    def _start(self, address: int, coroutine: "Coroutine[Any, Any, Any]") -> None:
        import asyncio

        self._tasks[address] = asyncio.get_running_loop().create_task(self._finish(address, coroutine))

    async def _finish(self, address: int, coroutine: "Coroutine[Any, Any, Any]") -> None:
        try:
            encoded = messages.encode(await coroutine, "result")
        except BaseException as error:
            encoded = self._failure_of(error)
        finally:
            del self._tasks[address]
        self._reply(address, encoded)


def _flush() -> None:
    """What a method prints is there when its result is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # replaced, closed, or nobody reads any more
            pass
