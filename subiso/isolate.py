"""Isolates: functions that run in an interpreter of their own."""

import _pickle
import itertools

from subiso import entry, messages, sending
from subiso._kernel import node as nodes
from subiso._kernel import output, protocol, waiting
from subiso._kernel.interrupt import unwind
from subiso._kernel.waitables import Waitable
from subiso.errors import IsolateSpawnError
from subiso.futures import IsolateFuture
from subiso.sending import SendPort, check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any, Self, overload

    from subiso._kernel.node import Node
else:

    def overload(function):
        return function


_requests = itertools.count(1)


class Isolate:
    """A handle on an isolate: a function that runs in an interpreter, with a GIL, memory and thread, of its own.

    `Isolate.run` calls one function and gives its result; `Isolate.spawn` starts a long-lived isolate, with which one
    talks through ports. A handle can be sent to other isolates, and is equal to every other handle on the same isolate.
    As a context manager it kills the isolate at the end of the block and waits until it has ended. (Dart: ``Isolate``.)
    """

    __slots__ = ("__weakref__", "_name", "_number", "_slot")
    _name: str
    _number: int
    _slot: int

    def __init__(self) -> None:
        raise TypeError("isolates are started with Isolate.spawn or Isolate.run")

    @classmethod
    def _of(cls, slot: int, number: int, name: str) -> "Isolate":
        isolate = object.__new__(cls)
        isolate._slot, isolate._number, isolate._name = slot, number, name
        return isolate

    # -- starting ------------------------------------------------------------------------------------------------------

    @staticmethod
    def spawn[*Ts](
        entry: "Callable[[*Ts], object]",
        /,
        *args: *Ts,
        name: str | None = None,
        on_exit: SendPort | None = None,
        on_error: SendPort | None = None,
        errors_are_fatal: bool = True,
        fresh: bool = False,
        **unknown: object,
    ) -> "Isolate":
        """Start an isolate and return its handle at once, without waiting for the start.

        The isolate lives while ``entry``, a port that it listens to, or a thread that it has started is active. It may
        outlive the isolate that spawned it. (Dart: ``Isolate.spawn``.)

        Args:
            entry: a function, or a coroutine function, which is then run by asyncio inside the isolate.
            args: its arguments. For keywords, use `functools.partial`.
            name: for people; made up if not given.
            on_exit: is sent None when the isolate has ended, after everything else.
            on_error: is sent the text and the traceback of each uncaught error, as a list of two.
            errors_are_fatal: whether an error in a handler of a listening port ends the isolate.
            fresh: whether to use an interpreter in which no isolate has run before.

        Raises:
            TypeError: ``entry`` is not callable, or does not take these arguments.
            SendError: the function or an argument cannot be sent.
            IsolateSpawnError: there are too many isolates, or the program is ending.
        """
        _refuse_options("spawn", unknown)
        for option, port in (("on_exit", on_exit), ("on_error", on_error)):
            if port is not None and not isinstance(port, SendPort):
                raise TypeError(f"{option} must be a SendPort, not {port!r}")
        options = {"on_exit": on_exit, "on_error": on_error, "errors_are_fatal": errors_are_fatal}
        node = nodes.current()
        call = _encode_call(entry, args)
        slot, number, name = _lease(node, name, fresh)
        _start(node, slot, number, call, [port for port in (on_exit, on_error) if port], name=name, **options)
        return Isolate._of(slot, number, name)

    @overload
    @staticmethod
    def run[R, *Ts](
        fn: "Callable[[*Ts], Coroutine[Any, Any, R]]",
        /,
        *args: *Ts,
        name: str | None = None,
        timeout: float | None = None,
    ) -> IsolateFuture[R]: ...
    @overload
    @staticmethod
    def run[R, *Ts](
        fn: "Callable[[*Ts], R]", /, *args: *Ts, name: str | None = None, timeout: float | None = None
    ) -> IsolateFuture[R]: ...
    @staticmethod  # type: ignore[misc]  # mypy does not match *Ts with *args: Any
    def run(
        fn: "Callable[..., Any]",
        /,
        *args: "Any",
        name: str | None = None,
        timeout: float | None = None,
        **unknown: "Any",
    ) -> "IsolateFuture[Any]":
        """Call ``fn(*args)`` in an isolate and return the future of its result.

        What the function raises is raised by the future as itself, with the isolate's traceback as its cause.
        (Dart: ``Isolate.run``.)

        Args:
            fn: a function or a coroutine function.
            args: its arguments. For keywords, use `functools.partial`.
            name: for people; made up if not given.
            timeout: seconds after which the work is killed and the future raises `IsolateTimeoutError`.

        Raises:
            TypeError: ``fn`` is not callable, or does not take these arguments.
            SendError: the function or an argument cannot be sent.
            IsolateSpawnError: there are too many isolates, or the program is ending.
            ValueError: ``timeout`` is negative.
        """
        _refuse_options("run", unknown)
        check_timeout(timeout)
        node = nodes.current()
        call = _encode_call(fn, args)
        slot, number, name = _lease(node, name, fresh=False)
        future: IsolateFuture[Any] = IsolateFuture(node, name)
        try:
            _start(node, slot, number, call, [], name=name, reply_to=future._inbox.address)
        except BaseException:
            future.cancel()
            raise
        future._attach(slot, number, timeout)
        return future

    @staticmethod
    def current() -> "Isolate":
        """Return the handle on the isolate that runs this code; main is one too. (Dart: ``Isolate.current``.)"""
        node = nodes.current()
        return Isolate._of(node.slot, node.number, node.name)

    # -- the handle ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The isolate's name, for people."""
        return self._name

    @property
    def is_alive(self) -> bool:
        """Whether the isolate has not ended."""
        return nodes.current().mailbox.is_alive(self._slot, self._number)

    def kill(self) -> None:
        """End the isolate as soon as possible.

        Running Python code is unwound by an `IsolateKilled` exception, so that ``finally`` blocks run; code that goes
        on nevertheless for 20 ms of its own processor time gets it at every line from then on. A call into C that does
        not return cannot be stopped. Killing an isolate that has ended does nothing. (Dart: ``Isolate.kill``.)

        Raises:
            ValueError: this is main, which cannot be killed.
        """
        if self._slot == nodes.MAIN:
            raise ValueError("the main isolate cannot be killed")
        node = nodes.current()
        if node.mailbox.is_alive(self._slot, self._number):
            node.tell(self._slot, nodes.KILL, self._number)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the isolate has ended, and return whether it has.

        Args:
            timeout: seconds to wait; None: for ever.

        Raises:
            RuntimeError: an isolate cannot wait for its own end.
        """
        node, waitable = self._prepare_join(), Waitable()
        node.mailbox.watch(self._slot, self._number, waitable)
        try:
            node.mailbox.wait([waitable], lambda: node.killed or not self.is_alive, check_timeout(timeout))
        finally:
            node.mailbox.unwatch(self._slot, self._number, waitable)
        if node.killed:
            raise unwind()
        return not self.is_alive

    async def ajoin(self) -> None:
        """Wait in the running event loop (asyncio or trio) until the isolate has ended."""
        node, waitable = self._prepare_join(), Waitable()
        node.mailbox.watch(self._slot, self._number, waitable)
        try:
            await waiting.wait(node.mailbox, [waitable], lambda: not self.is_alive)
        finally:
            node.mailbox.unwatch(self._slot, self._number, waitable)

    def _prepare_join(self) -> "Node":
        node = nodes.current()
        if (self._slot, self._number) == (node.slot, node.number):
            raise RuntimeError("an isolate cannot wait for its own end")
        return node

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.kill()
        self.join()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.kill()
        await self.ajoin()

    def __eq__(self, other: object) -> bool:
        return (
            (self._slot, self._number) == (other._slot, other._number) if isinstance(other, Isolate) else NotImplemented
        )

    def __hash__(self) -> int:
        return hash((self._slot, self._number))

    def __repr__(self) -> str:
        return f"<Isolate {self._name!r}{'' if self.is_alive else ' ended'}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        return Isolate._of, (self._slot, self._number, self._name)


def compute[M, R](fn: "Callable[[M], R]", message: M, *, name: str | None = None) -> IsolateFuture[R]:
    """Call ``fn(message)`` in an isolate: Flutter's name for `Isolate.run`."""
    return Isolate.run(fn, message, name=name)


def _refuse_options(call: str, unknown: "dict[str, object]") -> None:
    if unknown:
        raise TypeError(
            f"Isolate.{call} has no option {', '.join(map(repr, unknown))}; give a function its keyword arguments "
            "with functools.partial"
        )


def _encode_call(
    function: "Callable[..., Any]", args: "tuple[Any, ...]"
) -> "tuple[int, bytes, list[memoryview], list[Any]]":
    """Encode what is to be called, and check it as far as that can be done here.

    Raises:
        TypeError: it cannot be called, or not with so many arguments.
        SendError: something in it cannot be sent.
    """
    if not callable(function):
        raise TypeError(f"an isolate runs a function, not {function!r}")
    code = getattr(function, "__code__", None)
    if code is not None and (code.co_argcount != len(args) or code.co_kwonlyargcount or code.co_flags & 0x0C):
        import inspect

        inspect.signature(function).bind(*args)
    return messages.encode_call(function, args)


def _lease(node: "Node", name: str | None, fresh: bool) -> tuple[int, int, str]:
    """Have an interpreter lent to a new isolate: its slot, the isolate's number and name."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a str, not {name!r}")
    try:
        if node.slot == nodes.MAIN:
            from subiso._kernel import nursery

            slot, number = nursery.lease(name, fresh)
        else:
            slot, number = _lease_from_main(node, name, fresh)
    except (RuntimeError, OSError) as error:
        raise IsolateSpawnError(f"the isolate cannot be started: {error}") from None
    return slot, number, name or f"isolate-{number}"


def _lease_from_main(node: "Node", name: str | None, fresh: bool) -> tuple[int, int]:
    """Ask main's broker. It answers even while main's own code is busy."""
    inbox = node.mailbox.open_reply()
    try:
        node.tell(nodes.MAIN, nodes.LEASE, 0, inbox.address, name, fresh)
        node.mailbox.wait([inbox], lambda: inbox.messages)
        answer = _pickle.loads(inbox.messages.popleft()[1])
    finally:
        node.mailbox.close(inbox)
    if isinstance(answer, tuple):
        return answer
    raise RuntimeError(answer)


def _start(
    node: "Node",
    slot: int,
    number: int,
    call: "tuple[int, bytes, list[memoryview], list[Any]]",
    given: list[SendPort],
    *,
    name: str,
    **options: "Any",
) -> None:
    """Send the job to the interpreter that was lent."""
    kind, body, buffers, carried = call
    sending.grant(node, [*carried, *given], slot, number)
    job = entry.pack((kind, body), name=name, forward=output.is_wanted(node), **options)
    node.mailbox.send_message(nodes.jobs_of(slot), protocol.PICKLE, job, buffers)
