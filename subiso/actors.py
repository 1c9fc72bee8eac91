"""Actors: objects that live in an isolate of their own, and whose methods are called from elsewhere."""

import inspect
import logging
import threading
from collections import deque

from subiso import acting, failures, messages
from subiso._kernel import links, protocol
from subiso._kernel import node as nodes
from subiso._kernel.interrupt import unwind
from subiso._kernel.waitables import Waitable
from subiso.errors import IsolateKilledError, SendError
from subiso.futures import IsolateFuture
from subiso.isolate import Isolate
from subiso.sending import SendPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Concatenate, Self

    from subiso._kernel.node import Node
    from subiso.messages import Encoded

log = logging.getLogger("subiso.actors")


class ActorFuture[R](IsolateFuture[R]):
    """What a method of an actor will return.

    Cancelling it takes back a call that has not begun, and cancels an asynchronous method; a synchronous one goes on.
    """

    def __init__(self, node: "Node", name: str, line: "_Line") -> None:
        super().__init__(node, name)
        self._line = line

    def _kill(self) -> None:
        self._line.take_back(self)

    def fail(self, error: BaseException) -> None:
        """End with an error, unless the call has ended already."""
        self._fail(error)


class Actor[T]:
    """An object that lives in an isolate of its own, as seen from elsewhere.

    Its methods are called as those of the object are, and return futures: ``actor.add(3).result()`` or
    ``await actor.add(3)``. Calls of one caller begin in their order. If the class has asynchronous methods, those
    interleave. An actor can be sent to other isolates, which then call it directly; it ends when it is told to, when
    its isolate is killed, or when all isolates that know it have ended. As a context manager it is stopped at the end
    of the block.

    What an actor itself is called like (``name``, ``stop``, ``kill``, ``join``, ``call``) hides methods of its object
    of that name; `call` reaches those.
    """

    def __init__(self) -> None:
        raise TypeError("actors are started with Actor.spawn")

    _line: "_Line"

    @classmethod
    def _of(cls, line: "_Line") -> "Actor[Any]":
        actor: Actor[Any] = object.__new__(cls)
        object.__setattr__(actor, "_line", line)
        return actor

    @staticmethod
    def spawn[**P, I](cls: "Callable[P, I]", /, *args: "P.args", **kwargs: "P.kwargs") -> "Actor[I]":
        """Start an isolate, make an object in it, and return the actor at once.

        Args:
            cls: the class, or whatever makes the object.
            args: the arguments for it.
            kwargs: likewise.

        Raises:
            TypeError: ``cls`` is not callable, or does not take these arguments.
            SendError: it or an argument cannot be sent.
            IsolateSpawnError: there are too many isolates, or the program is ending.
        """
        line = _Line(_Recipe(cls, args, kwargs))
        line.start()
        return Actor._of(line)

    def __getattr__(self, name: str) -> "Callable[..., IsolateFuture[Any]]":
        if name.startswith("__"):
            raise AttributeError(name)
        line = self._line
        if name not in line.methods:
            raise AttributeError(f"actor {line.name!r} has no method {name!r}")

        def method(*args: "Any", **keywords: "Any") -> "IsolateFuture[Any]":
            return line.call(name, args, keywords)

        method.__name__ = name
        return method

    def call[**P, R](
        self, method: "Callable[Concatenate[T, P], R]", /, *args: "P.args", **kwargs: "P.kwargs"
    ) -> "IsolateFuture[R]":
        """Call a method, given as the function in the class, so that type checkers know what it takes and returns.

        ``actor.call(Counter.add, 3)`` is ``actor.add(3)``.

        Raises:
            TypeError: it is no method.
            AttributeError: the object has no such method.
            SendError: an argument cannot be sent.
        """
        name = getattr(method, "__name__", None)
        if not isinstance(name, str):
            raise TypeError(f"call takes a method of the class, not {method!r}")
        if name not in self._line.methods:
            raise AttributeError(f"actor {self._line.name!r} has no method {name!r}")
        return self._line.call(name, args, kwargs)

    @property
    def name(self) -> str:
        """The name of its isolate, for people."""
        return self._line.name

    @property
    def isolate(self) -> Isolate:
        """The isolate that it lives in; of a supervised actor, the present one.

        Raises:
            RuntimeError: its supervisor has not started it yet.
        """
        isolate = self._line.isolate
        if isolate is None:
            raise RuntimeError(f"actor {self.name!r} has not been started yet")
        return isolate

    @property
    def is_alive(self) -> bool:
        """Whether its isolate has not ended."""
        return self._line.isolate is not None and self._line.isolate.is_alive

    def stop(self) -> None:
        """End it when every call before this one is done. Its ``close`` method, if it has one, is called then."""
        self._line.stop()

    def kill(self) -> None:
        """End it as soon as possible; calls that are not done raise `IsolateKilledError`."""
        self.isolate.kill()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, and return whether it has, as `Isolate.join`."""
        return self.isolate.join(timeout)

    async def ajoin(self) -> None:
        """Wait until it has ended, in the running event loop."""
        await self.isolate.ajoin()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._leave(kind)
        self.join()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._leave(kind)
        await self.ajoin()

    def _leave(self, kind: "type[BaseException] | None") -> None:
        if kind is None:
            self.stop()
        else:
            self.kill()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Actor):
            return NotImplemented
        mine, theirs = self._line, other._line
        return mine is theirs or (mine.isolate is not None and mine.isolate == theirs.isolate)

    def __hash__(self) -> int:
        return hash(self._line.name)

    def __repr__(self) -> str:
        return f"<Actor {self._line.name!r}{'' if self.is_alive else ' ended'}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        return _rebuild, self._line.address()


class _Recipe:
    """How the object of an actor is made."""

    def __init__(self, cls: "Callable[..., Any]", args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> None:
        if not callable(cls):
            raise TypeError(f"an actor needs a class, not {cls!r}")
        try:
            inspect.signature(cls).bind(*args, **kwargs)
        except ValueError:  # a class of C that does not say what it takes
            pass
        self.parts = cls, args, kwargs
        self.name = getattr(cls, "__qualname__", "actor")
        self.methods = frozenset(
            name
            for name in dir(cls)
            if not (name.startswith("__") and name.endswith("__")) and callable(getattr(cls, name, None))
        )


class _Line:
    """The way to an actor: calls go through it, and wait here until there is somebody to take them.

    Attributes:
        isolate: where the actor lives; None if it has not been started.
        name: of the isolate.
        methods: what can be called.
        finished: whether the actor has ended because it was told to.
    """

    def __init__(self, recipe: _Recipe | None, name: str | None = None, supervised: bool = False) -> None:
        self._recipe = recipe
        self.node = nodes.current()
        self.methods: frozenset[str] = recipe.methods if recipe else frozenset()
        self.changed = Waitable()
        self.isolate: Isolate | None = None
        self._port: SendPort | None = None
        self._waiting: deque[tuple[ActorFuture[Any] | None, Encoded]] = deque()
        self._lock = threading.RLock()
        self._error: BaseException | None = None  # why there is nobody, for good
        self._number = 0  # of starts
        self.name = name or ""
        self.finished = False
        self._supervised = supervised  # whether it is started again when it has ended

    # -- starting ------------------------------------------------------------------------------------------------------

    def start(self) -> Isolate:
        """Start the actor's isolate, and return it; also again, after it has ended."""
        assert self._recipe is not None
        mailbox = self.node.mailbox
        hello = mailbox.open()
        try:
            port = SendPort._of(hello.address, 0)
            isolate = Isolate.spawn(acting.serve, port, *self._recipe.parts, name=self.name or None)
        except BaseException:
            mailbox.close(hello)
            raise
        with self._lock:
            self._number += 1
            self._error = None
            self._waiting = deque(entry for entry in self._waiting if entry[0])  # none that stops it
            self._port, self.isolate, self.name, self.finished = None, isolate, isolate.name, False
            number = self._number

        def on_event() -> None:
            ended = not isolate.is_alive
            if ended:
                mailbox.settle()  # its last message was sent before it ended
            while hello.messages:
                try:
                    message = hello.messages.popleft()
                except IndexError:  # another thread was quicker
                    break
                self._take(number, *links.unpack(*message))
            if ended:
                mailbox.close(hello)
                self._hang_up(number)

        hello.on_event = on_event
        mailbox.watch(isolate._slot, isolate._number, hello)
        on_event()  # it may have said something already
        return isolate

    def _take(self, number: int, kind: int, body: "Any", buffers: "Any") -> None:
        """Take what the actor says of itself: where it takes calls, why it could not be made, that it has ended."""
        if kind == protocol.NONE:
            self.finished = True
            return
        if kind == protocol.FAILURE:
            error = failures.unpack(messages.decode(protocol.PICKLE, body, buffers))
            if self._supervised:
                log.error("%s could not be made", self.name, exc_info=error)
            else:
                self.give_up(error, number)
            return
        port = messages.decode(kind, body, buffers)
        with self._lock:
            if number != self._number:
                return
            waiting = [*self._waiting]
            self._waiting.clear()
            for _, encoded in waiting:
                port._post(self.node, *encoded)
            self._port, isolate = port, self.isolate
        if self._supervised and isolate is not None:
            for future, _ in waiting:
                if future is not None:
                    future._attach(isolate._slot, isolate._number, None)
        self.changed.notify()

    def _hang_up(self, number: int) -> None:
        """Keep what comes from now on for the next isolate, if there will be one."""
        with self._lock:
            if self._supervised and number == self._number:
                self._port = None

    def give_up(self, error: BaseException, number: int | None = None) -> None:
        """Have every call fail, those that wait and those to come."""
        with self._lock:
            if number not in (None, self._number):
                return
            self._error = error
            waiting = [future for future, _ in self._waiting if future is not None]
            self._waiting.clear()
        for future in waiting:
            future.fail(error)
        self.changed.notify()

    # -- calling -------------------------------------------------------------------------------------------------------

    def call(self, name: str, args: "tuple[Any, ...]", keywords: "dict[str, Any]") -> "IsolateFuture[Any]":
        """Send a call, and return the future of its reply."""
        node = self.node
        future: ActorFuture[Any] = ActorFuture(node, f"{self.name}.{name}", self)
        try:
            encoded = self._encode(future, name, args, keywords)
        except BaseException:
            future._forget()
            raise
        with self._lock:
            error, isolate = self._error, self.isolate
            waits_for_the_next = self._supervised and self._port is None
            if error is None:
                self._send(future, encoded)
        if error is not None:
            future.fail(error)
        elif isolate is not None and not waits_for_the_next:
            future._attach(isolate._slot, isolate._number, None)
        return future

    def _encode(
        self, future: "ActorFuture[Any]", name: str, args: "tuple[Any, ...]", keywords: "dict[str, Any]"
    ) -> "Encoded":
        try:
            kind, body, buffers, carried = messages.encode((name, args, keywords))
        except SendError:
            messages.encode(args, "args")  # says it better
            messages.encode(keywords, "keywords")
            raise
        return kind, acting.pack_address(future._inbox.address) + body, buffers, carried

    def _send(self, future: "ActorFuture[Any] | None", encoded: "Encoded") -> None:
        if self._port is None:
            self._waiting.append((future, encoded))
        else:
            self._port._post(self.node, *encoded)

    def take_back(self, future: "ActorFuture[Any]") -> None:
        """Ask for a call not to be done, or not to be gone on with."""
        with self._lock:
            for entry in self._waiting:
                if entry[0] is future:
                    self._waiting.remove(entry)
                    return
            if self._port is not None:
                self._port._post(self.node, protocol.NONE, acting.pack_address(future._inbox.address), [], [])

    def stop(self) -> None:
        """End the actor after the calls before this."""
        with self._lock:
            self._send(None, (protocol.NONE, b"", [], []))

    def address(self) -> "tuple[SendPort, Isolate, frozenset[str]]":
        """Return what another isolate must know, waiting for the actor's start."""
        node = self.node
        node.mailbox.wait([self.changed], self._has_started, 60)
        if node.killed:
            raise unwind()
        if self._port is None:
            raise IsolateKilledError(f"actor {self.name} has ended before it could be sent")
        assert self.isolate is not None
        return self._port, self.isolate, self.methods

    def _has_started(self) -> bool:
        if self._port is not None or self._error is not None or self.node.killed:
            return True
        return not self._supervised and self.isolate is not None and not self.isolate.is_alive


def _rebuild(port: SendPort, isolate: Isolate, methods: frozenset[str]) -> "Actor[Any]":
    line = _Line(None, isolate.name)
    line._port, line.isolate, line.methods = port, isolate, methods
    return Actor._of(line)
