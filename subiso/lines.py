"""The way to an actor: calls wait here until there is somebody to take them."""

import functools
import inspect
import logging
from collections import deque

from subiso import acting, carriers, failures, messages
from subiso._kernel import locks, parcels, protocol
from subiso._kernel import node as nodes
from subiso._kernel.insisting import insist
from subiso._kernel.interrupt import unwind
from subiso._kernel.waitables import Inbox, Waitable
from subiso.errors import IsolateKilledError, SendError
from subiso.futures import IsolateFuture
from subiso.isolate import Isolate
from subiso.sending import SendPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from subiso._kernel.node import Node
    from subiso.messages import Encoded

log: logging.Logger = logging.getLogger("subiso.actors")


class ActorFuture[R](IsolateFuture[R]):
    """What a method of an actor will return.

    Cancelling it takes back a call that has not begun, and cancels an asynchronous method; a synchronous one goes on.
    """

    def __init__(self, node: "Node", name: str, line: "Line") -> None:
        super().__init__(node, name)
        self._line = line

    def _kill(self) -> None:
        self._line.take_back(self)

    def fail(self, error: BaseException) -> None:
        """End with an error, unless the call has ended already."""
        self._fail(error)

    def _on_event(self) -> None:
        node = self._node
        if self._slot >= 0 and not self.done() and not node.mailbox.is_alive(self._slot, self._number):
            node.mailbox.settle()
            error = self._line.last_words()
            if error is not None and not self._inbox.messages:
                self._fail(error)
                return
        super()._on_event()


class Recipe:
    """How the object of an actor is made."""

    def __init__(self, cls: "Callable[..., Any]", args: "tuple[Any, ...]", kwargs: "dict[str, Any]") -> None:
        if not callable(cls):
            raise TypeError(f"an actor needs a class, not {cls!r}")
        try:
            inspect.signature(cls).bind(*args, **kwargs)
        except ValueError:  # a class of C that does not say what it takes
            pass
        self.parts: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] = cls, args, kwargs
        self.name: str = getattr(cls, "__qualname__", "actor")
        self.methods: frozenset[str] = frozenset(
            name
            for name in dir(cls)
            if not (name.startswith("__") and name.endswith("__")) and callable(getattr(cls, name, None))
        )


class Line:
    """The way to an actor: calls go through it, and wait here until there is somebody to take them.

    Attributes:
        isolate: where the actor lives; None if it has not been started.
        name: of the isolate.
        methods: what can be called.
        finished: whether the actor has ended because it was told to.
    """

    def __init__(self, recipe: Recipe | None, name: str | None = None, supervised: bool = False) -> None:
        self._recipe = recipe
        self.node: Node = nodes.current()
        self.methods: frozenset[str] = recipe.methods if recipe else frozenset()
        self.changed: Waitable = Waitable()
        self.isolate: Isolate | None = None
        self._port: SendPort | None = None
        self._waiting: deque[tuple[ActorFuture[Any] | None, Encoded]] = deque()
        self._lock = locks.RLock()
        self._error: BaseException | None = None  # why there is nobody, for good
        self._hello: Callable[[], None] | None = None  # takes in what the present isolate says of itself
        self._number = 0  # of starts
        self.name: str = name or ""
        self.finished: bool = False
        self._supervised = supervised  # whether it is started again when it has ended

    # -- starting ------------------------------------------------------------------------------------------------------

    def start(self) -> Isolate:
        """Start the actor's isolate, and return it; also again, after it has ended."""
        assert self._recipe is not None
        mailbox = self.node.mailbox
        hello = mailbox.open()
        isolate: Isolate | None = None
        try:
            port = SendPort._of(hello.address, 0)
            isolate = Isolate.spawn(
                acting.serve,
                port,
                *self._recipe.parts,
                name=self.name or None,
                _carrying=False,  # type: ignore[arg-type]
            )
            with self._lock:
                self._number += 1
                self._error = None
                self._waiting = deque(entry for entry in self._waiting if entry[0])  # none that stops it
                self._port, self.isolate, self.name, self.finished = None, isolate, isolate.name, False
            self._attend(isolate, hello, self._number)
        except BaseException:
            if isolate is not None:
                insist(isolate.kill)
            mailbox.close(hello)
            raise
        return isolate

    def _attend(self, isolate: Isolate, hello: Inbox, number: int) -> None:
        """Listen to what an isolate says of itself, until it ends."""
        mailbox = self.node.mailbox

        def on_event() -> None:
            ended = not isolate.is_alive
            if ended:
                mailbox.settle()  # its last message was sent before it ended
            self._listen(hello, number)
            if ended:
                mailbox.close(hello)
                self._hang_up(number)

        self._hello = lambda: self._listen(hello, number)
        hello.on_event = on_event
        mailbox.watch(isolate._slot, isolate._number, hello)
        on_event()  # it may have said something already

    def last_words(self) -> BaseException | None:
        """Return why the actor could not be made, if that is so, whichever thread is about to notice it."""
        if self._hello is not None:
            self._hello()
        return self._error

    def _listen(self, hello: Inbox, number: int) -> None:
        todo: list[Callable[[], None]] = []
        try:
            with self._lock:  # so that who finds nothing here finds what another thread has learnt from it
                while hello.messages:
                    try:
                        message = hello.messages.popleft()
                    except IndexError:  # another thread was quicker
                        break
                    try:
                        todo.append(self._take(number, *parcels.unpack(*message)))
                    except Exception as error:  # no memory, no descriptor
                        todo += self._lose(number, error)
            for act in todo:
                act()
        except Exception:
            raise
        except BaseException:  # Ctrl-C, perhaps with a message in hand; what is done may be done again
            reason = f"actor {self.name} was given up: a signal has interrupted main's work at it"
            for act in [*todo, *self._lose(number, IsolateKilledError(reason))]:
                act()
            raise

    def _lose(self, number: int, error: BaseException) -> "list[Callable[[], None]]":
        """Return what is to be done when what the actor has said of itself is lost."""
        with self._lock:
            todo = [self.changed.notify if self._supervised else self._be_given_up(error)]
            if number == self._number and self.isolate is not None:
                todo.append(functools.partial(insist, self.isolate.kill))
        return todo

    def _take(
        self, number: int, kind: int, body: bytes | memoryview, buffers: "Sequence[memoryview]"
    ) -> "Callable[[], None]":
        """Take what the actor says of itself: where it takes calls, why it could not be made, that it has ended.

        Returns:
            What is still to be done, without the lock.
        """
        if kind == protocol.NONE:
            self.finished = True
            return self.changed.notify
        if kind == protocol.FAILURE:
            error = failures.unpack(messages.decode(protocol.PICKLE, body, buffers))
            if self._supervised:
                return lambda: log.error("%s could not be made", self.name, exc_info=error)
            return self._be_given_up(error)
        port = messages.decode(kind, body, buffers)
        isolate = self.isolate
        if number != self._number or isolate is None:
            return self.changed.notify
        sent: list[ActorFuture[Any] | None] = []
        failed: list[tuple[ActorFuture[Any] | None, BaseException]] = []
        try:
            while self._waiting:
                future, encoded = self._waiting.popleft()
                sent.append(future)
                try:
                    port._post(self.node, *encoded)
                except Exception as error:  # no memory, no descriptor: that call fails
                    failed.append((future, error))
        except BaseException:  # Ctrl-C: the isolate will be killed
            self._attach(sent, isolate)
            raise
        self._port = port

        def tell() -> None:
            for future, error in failed:
                if future is not None:
                    future.fail(error)
                else:  # it was to be stopped
                    isolate.kill()
            self._attach(sent, isolate)
            self.changed.notify()

        return tell

    def _attach(self, futures: "list[ActorFuture[Any] | None]", isolate: Isolate) -> None:
        for future in futures if self._supervised else ():  # else they know their isolate already
            if future is not None:
                future._attach(isolate._slot, isolate._number, None)

    def _hang_up(self, number: int) -> None:
        """Keep what comes from now on for the next isolate, if there will be one."""
        with self._lock:
            if self._supervised and number == self._number:
                self._port = None

    def give_up(self, error: BaseException) -> None:
        """Have every call fail, those that wait and those to come."""
        with self._lock:
            tell = self._be_given_up(error)
        tell()

    def _be_given_up(self, error: BaseException) -> "Callable[[], None]":
        self._error = error
        waiting = [future for future, _ in self._waiting if future is not None]
        self._waiting.clear()

        def tell() -> None:
            for future in waiting:
                future.fail(error)
            self.changed.notify()

        return tell

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
                try:
                    self._send(future, encoded)
                except BaseException:
                    future._forget()
                    raise
        if error is not None:
            future.fail(error)
        elif isolate is not None and not waits_for_the_next:
            try:
                future._attach(isolate._slot, isolate._number, None)
            except BaseException:
                future.cancel()
                raise
        return future

    def _encode(
        self, future: "ActorFuture[Any]", name: str, args: "tuple[Any, ...]", keywords: "dict[str, Any]"
    ) -> "Encoded":
        try:
            kind, body, buffers, carried = messages.encode((name, args, keywords, *carriers.pick_up()))
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
