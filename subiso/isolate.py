"""Isolates: functions that run in an interpreter of their own."""

from subiso import messages, sending, starting
from subiso._kernel import control, protocol, waiting
from subiso._kernel import node as nodes
from subiso._kernel.arena import ABANDONED, Arena, serial_of, slot_of
from subiso._kernel.extensions import check_policy
from subiso._kernel.insisting import insist
from subiso._kernel.interrupt import unwind
from subiso._kernel.waitables import Waitable
from subiso._typing import overload
from subiso.capabilities import Capability
from subiso.errors import SendError
from subiso.sending import SendPort, check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Never, NoReturn, Self, TypedDict, Unpack

    from subiso._kernel.node import Node
    from subiso.futures import IsolateFuture
    from subiso.streams import Stream
    from subiso.uncaught import UncaughtErrors

    class SpawnOptions(TypedDict, total=False):
        """The options of `Isolate.spawn`."""

        paused: bool
        name: str | None
        on_exit: SendPort | None
        on_error: SendPort | None
        errors_are_fatal: bool
        fresh: bool
        extensions: str | None


_RESPONSE = 3000  # bytes: control messages are short


class Isolate:
    """A handle on an isolate: a function that runs in an interpreter, with a GIL, memory and thread, of its own.

    `Isolate.run` calls one function and gives its result; `Isolate.spawn` starts a long-lived isolate, with which one
    talks through ports. A handle can be sent to other isolates, and is equal to every other handle on the same isolate.
    As a context manager it kills the isolate at the end of the block and waits until it has ended. (Dart: ``Isolate``.)
    """

    IMMEDIATE = control.IMMEDIATE
    """The priority of what is done as soon as possible, whatever the isolate does. (Dart: ``Isolate.immediate``.)"""

    BEFORE_NEXT_EVENT = control.BEFORE_NEXT_EVENT
    """The priority of what waits until the isolate asks for its next message, or its entry function returns.
    (Dart: ``Isolate.beforeNextEvent``.)"""

    __slots__ = ("__weakref__", "_name", "_number", "_pause", "_slot", "_terminate")
    _name: str
    _number: int
    _slot: int
    _pause: bytes | None
    _terminate: bytes | None

    def __init__(
        self,
        control_port: SendPort,
        *,
        pause_capability: Capability | None = None,
        terminate_capability: Capability | None = None,
        name: str | None = None,
    ) -> None:
        """Make a handle on the isolate that has this control port; see `spawn` and `run` for starting one.

        Without a capability the handle cannot do what needs it: such calls have no effect, as in Dart.

        Args:
            control_port: another handle's `control_port`.
            pause_capability: another handle's `pause_capability`.
            terminate_capability: another handle's `terminate_capability`, for `kill` and `set_errors_fatal`.
            name: for people.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: that is not the control port of an isolate.
        """
        if not isinstance(control_port, SendPort):
            raise TypeError(f"control_port must be a SendPort, not {control_port!r}; Isolate.spawn starts an isolate")
        if not nodes.is_control_port(control_port._address):
            raise ValueError(f"{control_port!r} is not the control port of an isolate")
        for option, value in (("pause_capability", pause_capability), ("terminate_capability", terminate_capability)):
            if value is not None:
                _check_capability(option, value)
        self._slot, self._number = slot_of(control_port._address), serial_of(control_port._address)
        self._name = name or f"isolate-{self._number}"
        self._pause = pause_capability._token if pause_capability else None
        self._terminate = terminate_capability._token if terminate_capability else None

    @classmethod
    def _of(
        cls, slot: int, number: int, name: str, pause: bytes | None = None, terminate: bytes | None = None
    ) -> "Isolate":
        isolate = object.__new__(cls)
        isolate._slot, isolate._number, isolate._name = slot, number, name
        isolate._pause, isolate._terminate = pause, terminate
        return isolate

    # -- starting ------------------------------------------------------------------------------------------------------

    @staticmethod
    def spawn[*Ts](
        entry: "Callable[[*Ts], object]",
        /,
        *args: *Ts,
        paused: bool = False,
        name: str | None = None,
        on_exit: SendPort | None = None,
        on_error: SendPort | None = None,
        errors_are_fatal: bool = True,
        fresh: bool = False,
        extensions: str | None = None,
        **unknown: "Never",
    ) -> "Isolate":
        """Start an isolate and return its handle at once, without waiting for the start.

        The isolate lives while ``entry``, a port that it listens to, or a thread that it has started is active. It may
        outlive the isolate that spawned it. (Dart: ``Isolate.spawn``.)

        Args:
            entry: a function, or a coroutine function, which is then run by asyncio inside the isolate.
            args: its arguments. For keywords, use `functools.partial`.
            paused: whether the isolate waits, before its first line, for `resume` with its `pause_capability`.
            name: for people; made up if not given.
            on_exit: is sent None when the isolate has ended, after everything else.
            on_error: is sent the text and the traceback of each uncaught error, as a list of two.
            errors_are_fatal: whether an uncaught error ends the isolate. If not, it goes on with the ports that it
                listens to.
            fresh: whether to use an interpreter in which no isolate has run before.
            extensions: what becomes of packages with compiled code in this isolate, and those that it starts, as for
                `configure`; the interpreter is then a fresh one. None: as in this isolate.

        Raises:
            TypeError: ``entry`` is not callable, or does not take these arguments.
            ValueError: there is no such policy for packages with compiled code.
            SendError: the function or an argument cannot be sent.
            IsolateSpawnError: there are too many isolates, or the program is ending.
        """
        group = unknown.pop("_group", 0)  # given by IsolateGroup.spawn
        carrying = unknown.pop("_carrying", True)  # False: it will do the work of many, each with its own context
        _refuse_options("spawn", unknown)
        for option, port in (("on_exit", on_exit), ("on_error", on_error)):
            if port is not None:
                _check_port(option, port)
        check_policy(extensions)
        node = nodes.current()
        call = starting.encode_call(entry, args, bool(carrying))
        slot, number, name = starting.lease(node, name, fresh or extensions is not None)
        try:
            isolate = Isolate._of(slot, number, name, *node.arena.capabilities(slot))
            prepared = paused or not errors_are_fatal or on_exit is not None or on_error is not None
            if prepared:
                isolate._prepare(paused, on_exit, on_error, errors_are_fatal)
            given = [port for port in (on_exit, on_error) if port]
            told = {"on_exit": on_exit, "on_error": on_error, "group": group, "extensions": extensions}
            starting.start(node, slot, number, call, given, name=name, prepared=prepared, **told)
        except BaseException:
            node.withdraw(slot, number)
            raise
        return isolate

    def _prepare(self, paused: bool, on_exit: SendPort | None, on_error: SendPort | None, fatal: bool) -> None:
        """Have put in force, before the first line runs, what was asked for with the start."""
        if on_exit is not None:
            self._ask(control.ADD_EXIT, *_flat(on_exit), protocol.NONE, b"")
        if on_error is not None:
            self._ask(control.ADD_ERROR, *_flat(on_error))
        if not fatal:
            self.set_errors_fatal(False)
        if paused:
            self._ask(control.PAUSE, self._pause, self._pause)
        self._ask(control.BEGIN)

    @staticmethod
    def spawn_path(
        path: "str | os.PathLike[str]",
        argv: "Sequence[str]" = (),
        message: object = None,
        **options: "Unpack[SpawnOptions]",
    ) -> "Isolate":
        """Start another program, a file, in an isolate: call its function ``main`` there.

        The file is loaded as a module of its own name, so that what is guarded by ``__main__`` does not run;
        ``sys.argv`` and ``sys.path`` are as for a script. Then ``main()``, ``main(argv)`` or ``main(argv, message)`` is
        called, whichever it takes; it may be a coroutine function. A file that cannot be loaded, or has no such
        function, is an uncaught `IsolateSpawnError` of the isolate. (Dart: ``Isolate.spawnUri``.)

        Args:
            path: of the file.
            argv: strings; in ``sys.argv`` the path precedes them.
            message: whatever can be sent.
            options: as for `spawn`.

        Raises:
            IsolateSpawnError: the file cannot be read, or has a syntax error; or as for `spawn`.
            TypeError: ``argv`` is not a list of strings, or there is no such option.
            SendError: the message cannot be sent.
        """
        from subiso import programs

        return programs.spawn_path(path, argv, message, options)

    @staticmethod
    def spawn_module(
        name: str, /, argv: "Sequence[str]" = (), message: object = None, **options: "Unpack[SpawnOptions]"
    ) -> "Isolate":
        """Start another program, a module, in an isolate: import it there and call its function ``main``.

        As `spawn_path`; the module is found on ``sys.path``, and is imported under its full name, so that it can import
        its neighbours. Of a package this is the package itself; its ``__main__`` is the module ``"package.__main__"``.

        Raises:
            IsolateSpawnError: there is no such module, or it has a syntax error; or as for `spawn`.
            TypeError, SendError: as for `spawn_path`.
        """
        from subiso import programs

        return programs.spawn_module(name, argv, message, options)

    @overload
    @staticmethod
    def run[R, *Ts](
        fn: "Callable[[*Ts], Coroutine[Any, Any, R]]",
        /,
        *args: *Ts,
        name: str | None = None,
        timeout: float | None = None,
    ) -> "IsolateFuture[R]": ...
    @overload
    @staticmethod
    def run[R, *Ts](
        fn: "Callable[[*Ts], R]", /, *args: *Ts, name: str | None = None, timeout: float | None = None
    ) -> "IsolateFuture[R]": ...
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
        call = starting.encode_call(fn, args)
        slot, number, name = starting.lease(node, name, fresh=False)
        future: IsolateFuture[Any] | None = None
        try:
            from subiso import futures  # only now: the first import takes as long as to make an interpreter, meanwhile

            future = futures.IsolateFuture(node, name)
            starting.start(node, slot, number, call, [], name=name, reply_to=future._inbox.address)
        except BaseException:
            node.withdraw(slot, number)
            if future is not None:
                future.cancel()
            raise
        try:
            future._attach(slot, number, timeout)
        except BaseException:
            future._slot, future._number = slot, number
            future.cancel()
            raise
        return future

    @staticmethod
    def stream[T, *Ts](
        generator_function: "Callable[[*Ts], Iterable[T] | AsyncIterable[T]]",
        /,
        *args: *Ts,
        name: str | None = None,
        maxsize: int = 1000,
    ) -> "Stream[T]":
        """Run a generator in an isolate, and return what it yields as it is made: an iterator, for `async for` too.

        What the generator raises is raised after the items before it. Closing the stream ends the isolate.

        Args:
            generator_function: a generator function or an asynchronous one; or what returns an iterable.
            args: its arguments. For keywords, use `functools.partial`.
            name: for people; made up if not given.
            maxsize: how many items may wait to be taken; the generator then waits.

        Raises:
            TypeError, ValueError: an argument is not what it should be.
            SendError: the function or an argument cannot be sent.
            IsolateSpawnError: there are too many isolates, or the program is ending.
        """
        from subiso import streams

        return streams.open_stream(
            lambda *call: Isolate.run(*call, name=name),
            generator_function,
            args,
            maxsize,
        )

    @staticmethod
    def current() -> "Isolate":
        """Return the handle on the isolate that runs this code; main is one too. (Dart: ``Isolate.current``.)"""
        node = nodes.current()
        return Isolate._of(node.slot, node.number, node.name, *node.arena.capabilities(node.slot))

    @staticmethod
    def exit(port: SendPort | None = None, message: object = None) -> "NoReturn":
        """End the isolate that runs this code, there and then, with a final message.

        The calling code is unwound as by `kill`: unlike in Dart its ``finally`` blocks run. The message is sent after
        everything else, but for what exit listeners are sent.

        Args:
            port: where to send ``message``; None: nowhere.
            message: whatever can be sent.

        Raises:
            SendError: the message holds something that cannot be sent; the isolate goes on.
            PortClosedError: ``port`` is closed; the isolate goes on.
            RuntimeError: this is main, which ends as programs do.
        """
        node = nodes.current()
        if node.slot == nodes.MAIN:
            raise RuntimeError("main is not ended by Isolate.exit; use sys.exit")
        if port is None and message is not None:
            raise TypeError("a final message needs a port")
        node.locals["final"] = None
        if port is not None:
            _check_port("port", port)
            node.locals["final"] = port, port._encode(node, message)
        node.killed = True
        node.kill(node.slot, node.number, node.terminate_capability)
        raise unwind()

    # -- the handle ----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The isolate's name, for people."""
        return self._name

    @property
    def is_alive(self) -> bool:
        """Whether the isolate has not ended."""
        return nodes.current().mailbox.is_alive(self._slot, self._number)

    @property
    def is_abandoned(self) -> bool:
        """Whether the isolate was killed, but given up, because a call into C does not return.

        It counts as ended. If the call ever returns, what is left of it unwinds.
        """
        words, home = nodes.current().arena.words, Arena.home(self._slot)
        return words[home + ABANDONED] == self._number

    @property
    def control_port(self) -> SendPort:
        """What a handle on this isolate can be made of in another place. (Dart: ``Isolate.controlPort``.)"""
        return SendPort._of(nodes.control_port(self._slot, self._number), 0)

    @property
    def pause_capability(self) -> Capability | None:
        """What allows to pause the isolate, and resumes one that was spawned paused; None: this handle cannot."""
        return None if self._pause is None else Capability._of(self._pause)

    @property
    def terminate_capability(self) -> Capability | None:
        """What allows to kill the isolate and to say whether errors are fatal; None: this handle cannot."""
        return None if self._terminate is None else Capability._of(self._terminate)

    # -- control -------------------------------------------------------------------------------------------------------
    # Control messages are handled in the order in which they were sent, whatever the isolate does meanwhile. What is
    # asked of an isolate that has ended, or without the capability for it, has no effect, as in Dart.

    def _ask(self, operation: str, *facts: object) -> None:
        node = nodes.current()
        if node.mailbox.is_alive(self._slot, self._number):
            node.tell(self._slot, operation, self._number, *facts)

    def pause(self, capability: Capability | None = None) -> Capability:
        """Have the isolate handle no more events, and return the capability that resumes it.

        It stops at its next wait for a message or, in a coroutine, at its event loop, timers included; running code
        goes on until then. Messages queue. An isolate that was paused with several capabilities must be resumed with
        each; pausing twice with the same one counts once. A paused isolate can be killed, and answers `ping`, whose
        answer tells that a pause asked for before is in force; until then messages are handled. (Dart:
        ``Isolate.pause``.)

        Args:
            capability: what is to resume the isolate; made if not given.

        Raises:
            TypeError: ``capability`` is not a `Capability`.
        """
        capability = Capability() if capability is None else capability
        _check_capability("capability", capability)
        if self._pause is not None:
            self._ask(control.PAUSE, self._pause, capability._token)
        return capability

    def resume(self, capability: "Capability | None") -> None:
        """Take back the pause with that capability. (Dart: ``Isolate.resume``.)

        Raises:
            TypeError: ``capability`` is not a `Capability`.
        """
        _check_capability("capability", capability)
        self._ask(control.RESUME, capability._token)  # type: ignore[union-attr]

    def kill(self, priority: int = control.IMMEDIATE) -> None:
        """End the isolate. (Dart: ``Isolate.kill``, whose default is ``beforeNextEvent``.)

        With `IMMEDIATE`, running Python code is unwound by an `IsolateKilled` exception, so that ``finally`` blocks
        run; code that goes on nevertheless for 20 ms of its own processor time gets it at every line from then on. A
        call into C that does not return cannot be stopped: after a second or so the isolate is abandoned, see
        `is_abandoned`. With `BEFORE_NEXT_EVENT`, the isolate ends when it asks for its next message, or its entry
        function returns; one that is paused ends when it is resumed.

        Raises:
            ValueError: this is main, which cannot be killed, or there is no such priority.
        """
        if self._slot == nodes.MAIN:
            raise ValueError("the main isolate cannot be killed")
        _check_priority(priority)
        node = nodes.current()
        if self._terminate is not None and node.mailbox.is_alive(self._slot, self._number):
            node.kill(self._slot, self._number, self._terminate, priority)
            if priority == control.IMMEDIATE and (self._slot, self._number) == (node.slot, node.number):
                node.killed = True
                raise unwind()

    def ping(self, port: SendPort, response: object = None, priority: int = control.IMMEDIATE) -> None:
        """Have the isolate send ``response`` to ``port``. One that has ended never answers. (Dart: ``Isolate.ping``.)

        Args:
            port: where to.
            response: a small value: what fits 3,000 bytes, without send ports.
            priority: `IMMEDIATE`: as soon as what was asked before has been done, even if the isolate is paused or
                busy; `BEFORE_NEXT_EVENT`: before it handles its next event.

        Raises:
            TypeError: ``port`` is not a SendPort.
            SendError: ``response`` cannot be sent, or not in so few bytes.
            ValueError: there is no such priority.
        """
        _check_port("port", port)
        _check_priority(priority)
        self._grant(port)
        self._ask(control.PING, *_flat(port), *_encode_response(response), priority)

    def add_on_exit_listener(self, port: SendPort, response: object = None) -> None:
        """Have ``response`` sent to ``port`` when the isolate has ended, after everything else.

        A port is told once; the response given last counts. If the isolate has ended already, nothing is sent.
        (Dart: ``Isolate.addOnExitListener``.)

        Raises:
            TypeError: ``port`` is not a SendPort.
            SendError: ``response`` cannot be sent, or not in 3,000 bytes.
        """
        _check_port("port", port)
        encoded = _encode_response(response)
        self._grant(port)
        self._ask(control.ADD_EXIT, *_flat(port), *encoded)

    def remove_on_exit_listener(self, port: SendPort) -> None:
        """Take back `add_on_exit_listener`, or the ``on_exit`` of `spawn`.

        Raises:
            TypeError: ``port`` is not a SendPort.
        """
        _check_port("port", port)
        self._ask(control.REMOVE_EXIT, port._address)

    def add_error_listener(self, port: SendPort) -> None:
        """Have the text and the traceback of each uncaught error sent to ``port``, as a list of two.

        Errors that somebody listens to are not printed. (Dart: ``Isolate.addErrorListener``.)

        Raises:
            TypeError: ``port`` is not a SendPort.
        """
        _check_port("port", port)
        self._grant(port)
        self._ask(control.ADD_ERROR, *_flat(port))

    def remove_error_listener(self, port: SendPort) -> None:
        """Take back `add_error_listener`, or the ``on_error`` of `spawn`.

        Raises:
            TypeError: ``port`` is not a SendPort.
        """
        _check_port("port", port)
        self._ask(control.REMOVE_ERROR, port._address)

    def set_errors_fatal(self, errors_are_fatal: bool) -> None:
        """Say whether an uncaught error ends the isolate. (Dart: ``Isolate.setErrorsFatal``.)"""
        if self._terminate is not None:
            self._ask(control.ERRORS_ARE_FATAL, self._terminate, bool(errors_are_fatal))

    @property
    def errors(self) -> "UncaughtErrors":
        """The uncaught errors of the isolate from now on: iterable, also asynchronously, until it has ended."""
        from subiso.uncaught import UncaughtErrors

        return UncaughtErrors(self)

    def _grant(self, port: SendPort) -> None:
        node = nodes.current()
        if node.mailbox.is_alive(self._slot, self._number):
            sending.grant(node, [port], self._slot, self._number)

    # -- the end -------------------------------------------------------------------------------------------------------

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
        insist(self.kill)
        self.join()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        insist(self.kill)
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
        return Isolate._of, (self._slot, self._number, self._name, self._pause, self._terminate)


@overload
def compute[M, R](
    fn: "Callable[[M], Coroutine[Any, Any, R]]", message: M, *, name: str | None = None
) -> "IsolateFuture[R]": ...
@overload
def compute[M, R](fn: "Callable[[M], R]", message: M, *, name: str | None = None) -> "IsolateFuture[R]": ...
def compute(fn: "Callable[[Any], Any]", message: "Any", *, name: str | None = None) -> "IsolateFuture[Any]":
    """Call ``fn(message)`` in an isolate: Flutter's name for `Isolate.run`."""
    return Isolate.run(fn, message, name=name)


def _check_port(option: str, port: object) -> None:
    if not isinstance(port, SendPort):
        raise TypeError(f"{option} must be a SendPort, not {port!r}")


def _check_capability(option: str, capability: object) -> None:
    if not isinstance(capability, Capability):
        raise TypeError(f"{option} must be a Capability, not {capability!r}")


def _check_priority(priority: object) -> None:
    if priority not in (control.IMMEDIATE, control.BEFORE_NEXT_EVENT):
        raise ValueError(f"a priority is Isolate.IMMEDIATE or Isolate.BEFORE_NEXT_EVENT, not {priority!r}")


def _flat(port: SendPort) -> tuple[int, bool]:
    return port._address, bool(port._flags & sending.BOUNDED)


def _encode_response(response: object) -> tuple[int, bytes]:
    kind, body, buffers, carried = messages.encode(response, "response")
    if buffers or carried or len(body) > _RESPONSE:
        raise SendError(f"a response must be a small value: at most {_RESPONSE} bytes, without send ports")
    return kind, body


def _refuse_options(call: str, unknown: "Mapping[str, object]") -> None:
    if unknown:
        raise TypeError(
            f"Isolate.{call} has no option {', '.join(map(repr, unknown))}; give a function its keyword arguments "
            "with functools.partial"
        )
