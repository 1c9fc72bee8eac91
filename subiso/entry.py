"""The inside of an isolate, above the kernel: decode the job, run the function, answer.

worker.py calls `host` in the isolate; `refuse` is called in main in place of an isolate that could not be started.
"""

import _pickle
import sys

from subiso import messages, reports
from subiso._kernel import node as nodes
from subiso._kernel import protocol, setting
from subiso._kernel.arena import slot_of
from subiso._kernel.control import tell_errors
from subiso._kernel.interrupt import IsolateKilled, unwind
from subiso._kernel.naming import name_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from subiso import failures
    from subiso._kernel.node import Node
    from subiso.sending import SendPort

MODULE = "subiso.entry"


def pack(
    call: "tuple[int, bytes]",
    *,
    name: str,
    reply_to: int = 0,
    on_exit: "SendPort | None" = None,
    on_error: "SendPort | None" = None,
    prepared: bool = False,
    forward: bool = False,
    group: int = 0,
    extensions: str | None = None,
) -> bytes:
    """Return the body of a job: everything that an isolate must know.

    Args:
        call: the encoded function and its arguments.
        name: of the isolate.
        reply_to: the address for the result; 0: there is none.
        on_exit: who is told, by `refuse` only, of the end.
        on_error: who is told, by `refuse` only, of an error.
        prepared: whether control messages, the last of them BEGIN, say what must be in force before the first line.
        forward: whether main prints for the isolate.
        group: the address where its group is sent the error that ends it; 0: there is none.
        extensions: its policy for extension modules; None: that of its creator.
    """
    options = (name, reply_to, _flat(on_exit), _flat(on_error), prepared, forward, group, reports.capture())
    return _pickle.dumps((MODULE, (setting.capture(extensions), options, call)), 5)


def _flat(port: "SendPort | None") -> tuple[int, int] | None:
    return None if port is None else (port._address, port._flags)


def _port(flat: tuple[int, int] | None) -> "SendPort | None":
    if flat is None:
        return None
    from subiso.sending import SendPort

    return SendPort._of(*flat)


def host(data: "tuple[Any, ...]", buffers: list[memoryview]) -> "Body":
    """Return the isolate that a job describes."""
    inherited, options, call = data
    setting.apply(inherited)
    node = nodes.current()
    node.name = options[0]
    name_thread(node.name)
    if options[5]:
        from subiso._kernel import output

        output.forward(node)
    reports.install(options[7])
    return (_OneShot if options[1] else _LongLived)(node, options, call, buffers)


class Body:
    """What an isolate does with its life."""

    def __init__(
        self, node: "Node", options: "tuple[Any, ...]", call: tuple[int, bytes], buffers: list[memoryview]
    ) -> None:
        self._node = node
        self._name, self._reply_to, _, _, self._prepared, _, self._group, _ = options
        self._call = call
        self._buffers = buffers
        node.locals["uncaught"] = self.uncaught

    def run(self) -> None:
        """Live."""
        raise NotImplementedError

    def last_words(self) -> None:
        """Send what is sent before the end is announced."""
        final = self._node.locals.get("final")
        if final is not None:
            port, encoded = final
            port._post(self._node, *encoded)

    def uncaught(self, error: BaseException) -> None:
        """Report an error that nobody could catch; if errors are fatal, end the isolate."""
        node = self._node
        fatal = node.listeners.fatal is not False
        self.report(error, fatal)
        if fatal:
            node.give_up()
            node.kill(node.slot, node.number, node.terminate_capability)

    def report(self, error: BaseException, fatal: bool = True) -> None:
        """Tell whom it concerns that an error was not caught, and whether it ends the isolate."""
        raise NotImplementedError

    def call(self) -> "Any":
        """Decode the function and its arguments, and call it when the isolate is not paused."""
        node = self._node
        if self._prepared:
            node.await_begin()
        self.pass_gate()
        function, args = messages.decode(*self._call, self._buffers)
        self._buffers = []  # so that what a large argument holds is free when the function is done with it
        self._call = (protocol.NONE, b"")
        self.pass_gate()
        result = function(*args)
        if "asyncio" in sys.modules or _is_coroutine(result):
            import inspect

            if inspect.iscoroutine(result):
                result = self._run_coroutine(result)
        return result

    def serve(self) -> None:
        """Be the isolate's event loop, until no port is listened to."""
        self.pass_gate()
        if "subiso.listening" in sys.modules:
            sys.modules["subiso.listening"].serve(self._node)
            self.pass_gate()

    def pass_gate(self) -> None:
        """Wait while the isolate is paused, and do what was to be done before the next event."""
        self._node.await_events()
        if self._node.killed:
            raise unwind()

    def _run_coroutine(self, coroutine: "Coroutine[Any, Any, Any]") -> "Any":
        import asyncio

        node = self._node

        async def main() -> "Any":
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            loop.set_exception_handler(self._on_loop_error)

            def wake() -> None:
                loop.call_soon_threadsafe(task.cancel)

            def stop() -> None:  # the loop and its timers stand still as long as this callback does
                try:
                    loop.call_soon_threadsafe(node.await_events)
                except RuntimeError:  # the loop was closed while the kernel's thread was about to call this
                    pass

            with node.lock:
                node.wakers.append(wake)
            node.gate.stoppers.append(stop)
            if node.gate.shut:
                stop()
            try:
                if node.killed:
                    raise unwind()
                result = await coroutine
                if "subiso.listening" in sys.modules:
                    await sys.modules["subiso.listening"].wait_for_all(node)
            finally:
                node.gate.stoppers.remove(stop)
                with node.lock:
                    node.wakers.remove(wake)
            return result

        return asyncio.run(main())

    def _on_loop_error(self, loop: "asyncio.AbstractEventLoop", context: "dict[str, Any]") -> None:
        """An error in a callback, a timer, or a task that nobody awaits."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self.uncaught(error)
        elif not isinstance(error, IsolateKilled):
            loop.default_exception_handler(context)


def _is_coroutine(value: object) -> bool:
    return type(value).__name__ == "coroutine"


class _OneShot(Body):
    """`Isolate.run`: the result, sent last, goes to the address for the reply."""

    _reply: "tuple[int, bytes, Sequence[memoryview], Sequence[Any]] | None" = None

    def run(self) -> None:
        try:
            result = self.call()
            self.serve()
            self._reply = messages.encode(result, "result")
        except IsolateKilled:
            if not self._node.killed:
                raise
        except BaseException as error:
            if not self._node.killed:
                self.report(error)

    def report(self, error: BaseException, fatal: bool = True) -> None:
        from subiso import failures

        self._reply = (protocol.FAILURE, *messages.encode(failures.pack(error))[1:])

    def last_words(self) -> None:
        super().last_words()
        if self._reply is None and "final" in self._node.locals:
            from subiso.errors import RemoteError

            self.report(RemoteError("subiso.Isolate.exit", f"{self._name} ended without a result"))
        if self._reply is not None:
            try:
                self._send_reply(*self._reply)
            except Exception as error:  # there is no memory for it, or no descriptor
                self.report(error)
                self._send_reply(*self._reply)

    def _send_reply(self, kind: int, body: bytes, buffers: "Sequence[memoryview]", carried: "Sequence[Any]") -> None:
        slot = slot_of(self._reply_to)
        if carried:
            from subiso import sending

            sending.grant(self._node, carried, slot, self._node.mailbox.number_in(slot))
        self._node.mailbox.send_message(self._reply_to, kind, body, buffers)


class _LongLived(Body):
    """`Isolate.spawn`: errors go to the error listeners or to stderr."""

    def run(self) -> None:
        try:
            self._live()
        except (SystemExit, IsolateKilled):  # SystemExit: a way to end, as in a thread
            pass
        except BaseException as error:
            if not self._node.killed:
                self.report(error)

    def _live(self) -> None:
        try:
            self.call()
        except Exception as error:
            if self._node.killed or self._node.listeners.fatal is not False:
                raise
            self.report(error, fatal=False)
        self.serve()

    def report(self, error: BaseException, fatal: bool = True) -> None:
        """Send an error to the error listeners, as Dart does: its text and its traceback; without one, print it.

        The one that ends the isolate is sent to its group, too, which will raise it.
        """
        from subiso import failures

        packed = failures.pack(error)
        _, type_name, text, traceback = packed
        type_name = type_name.removeprefix("builtins.").removeprefix("subiso.errors.")
        described = f"{type_name}: {text}" if text else type_name
        kind, body, _, _ = messages.encode([described, traceback])
        told = fatal and _try_to_fail(self._group, packed)
        if not (tell_errors(self._node, kind, body) or told):
            sys.stderr.write(f"Uncaught error in isolate {self._name!r}:\n{traceback}")


def _try_to_send(port: "SendPort", message: object) -> bool:
    from subiso.errors import PortClosedError, PortFull

    try:
        port.send_nowait(message)
    except (PortClosedError, PortFull):
        return False
    return True


def _try_to_fail(group: int, packed: "failures.Packed") -> bool:
    """Send an error to the port of a group, if there is one."""
    mailbox = nodes.current().mailbox
    if not group or not mailbox.is_open(group):
        return False
    _, body, buffers, _ = messages.encode(packed)
    mailbox.send_message(group, protocol.FAILURE, body, buffers)
    return True


def refuse(data: "tuple[Any, ...]", reason: str, ends: bool = True) -> None:
    """Answer a job in place of the isolate that could not be started; tell of its end, too, if nobody else will."""
    from subiso import failures
    from subiso.errors import IsolateSpawnError

    _, options, _ = data
    name, reply_to, on_exit, on_error, _, _, group, _ = options
    error = IsolateSpawnError(f"{name}: {reason}")
    if reply_to:
        _, body, buffers, _ = messages.encode(failures.pack(error))
        nodes.current().mailbox.send_message(reply_to, protocol.FAILURE, body, buffers)
    else:
        told = _try_to_fail(group, failures.pack(error))
        if on_error is not None:
            told = _try_to_send(_port(on_error), [f"IsolateSpawnError: {error}", None]) or told  # type: ignore[arg-type]
        if not told:
            sys.stderr.write(f"subiso: IsolateSpawnError: {error}\n")
    if on_exit is not None and ends:
        _try_to_send(_port(on_exit), None)  # type: ignore[arg-type]
