"""The inside of an isolate, above the kernel: decode the job, run the function, answer.

worker.py calls `host` in the isolate; `refuse` is called in main in place of an isolate that could not be started.
"""

import _pickle
import sys

from subiso import messages
from subiso._kernel import node as nodes
from subiso._kernel import output, protocol, setting
from subiso._kernel.arena import slot_of
from subiso._kernel.interrupt import IsolateKilled, unwind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    errors_are_fatal: bool = True,
    forward: bool = False,
) -> bytes:
    """Return the body of a job: everything that an isolate must know."""
    options = (name, reply_to, _flat(on_exit), _flat(on_error), errors_are_fatal, forward)
    return _pickle.dumps((MODULE, (setting.capture(), options, call)), 5)


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
    if options[5]:
        output.forward(node)
    return (_OneShot if options[1] else _LongLived)(node, options, call, buffers)


class Body:
    """What an isolate does with its life."""

    def __init__(
        self, node: "Node", options: "tuple[Any, ...]", call: tuple[int, bytes], buffers: list[memoryview]
    ) -> None:
        self._node = node
        self._name, self._reply_to, on_exit, on_error, self._errors_are_fatal, _ = options
        self._on_exit, self._on_error = _port(on_exit), _port(on_error)
        self._call = call
        self._buffers = buffers
        node.locals["uncaught"] = self.uncaught

    def run(self) -> None:
        """Live."""
        raise NotImplementedError

    def last_words(self) -> None:
        """Send what is sent last."""
        if self._on_exit is not None:
            _try_to_send(self._on_exit, None)

    def uncaught(self, error: BaseException) -> None:
        """Report an error of a handler, which nobody could catch; if errors are fatal, end the isolate."""
        self.report(error)
        if self._errors_are_fatal:
            self._node.give_up()

    def report(self, error: BaseException) -> None:
        """Tell whom it concerns that an error was not caught."""
        raise NotImplementedError

    def execute(self) -> "Any":
        """Decode the function and its arguments, and call it."""
        function, args = messages.decode(*self._call, self._buffers)
        self._buffers = []  # so that what a large argument holds is free when the function is done with it
        self._call = (protocol.NONE, b"")
        if self._node.killed:
            raise unwind()
        result = function(*args)
        if "asyncio" in sys.modules or _is_coroutine(result):
            import inspect

            if inspect.iscoroutine(result):
                result = self._run_coroutine(result)
        if "subiso.listening" in sys.modules:
            sys.modules["subiso.listening"].serve(self._node)
        return result

    def _run_coroutine(self, coroutine: "Any") -> "Any":
        import asyncio

        node = self._node

        async def main() -> "Any":
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None

            def wake() -> None:
                loop.call_soon_threadsafe(task.cancel)

            with node.lock:
                node.wakers.append(wake)
            try:
                if node.killed:
                    raise unwind()
                result = await coroutine
                if "subiso.listening" in sys.modules:
                    await sys.modules["subiso.listening"].wait_for_all(node)
            finally:
                with node.lock:
                    node.wakers.remove(wake)
            return result

        return asyncio.run(main())


def _is_coroutine(value: object) -> bool:
    return type(value).__name__ == "coroutine"


class _OneShot(Body):
    """`Isolate.run`: the result, sent last, goes to the address for the reply."""

    _reply: "tuple[int, bytes, list[memoryview], list[Any]] | None" = None

    def run(self) -> None:
        try:
            self._reply = messages.encode(self.execute(), "result")
        except IsolateKilled:
            if not self._node.killed:
                raise
        except BaseException as error:
            if not self._node.killed:
                self.report(error)

    def report(self, error: BaseException) -> None:
        from subiso import failures

        self._reply = (protocol.FAILURE, *messages.encode(failures.pack(error))[1:])

    def last_words(self) -> None:
        if self._reply is not None:
            kind, body, buffers, carried = self._reply
            slot = slot_of(self._reply_to)
            if carried:
                from subiso import sending

                sending.grant(self._node, carried, slot, self._node.mailbox.number_in(slot))
            self._node.mailbox.send_message(self._reply_to, kind, body, buffers)


class _LongLived(Body):
    """`Isolate.spawn`: errors go to the error port or to stderr, the end to the exit port."""

    def run(self) -> None:
        try:
            self.execute()
        except SystemExit:  # a way to end, as in a thread
            pass
        except IsolateKilled:
            pass
        except BaseException as error:
            if not self._node.killed:
                self.report(error)

    def report(self, error: BaseException) -> None:
        """Send an error to the error port, as Dart does: its text and its traceback; without a port, print it."""
        from subiso import failures

        _, type_name, text, traceback = failures.pack(error)
        described = f"{type_name.removeprefix('builtins.')}: {text}" if text else type_name
        if self._on_error is None or not _try_to_send(self._on_error, [described, traceback]):
            sys.stderr.write(f"Uncaught error in isolate {self._name!r}:\n{traceback}")


def _try_to_send(port: "SendPort", message: object) -> bool:
    from subiso.errors import PortClosedError, PortFull

    try:
        port.send_nowait(message)
    except (PortClosedError, PortFull):
        return False
    return True


def refuse(data: "tuple[Any, ...]", reason: str) -> None:
    """Answer a job in place of the isolate that could not be started."""
    from subiso import failures
    from subiso.errors import IsolateSpawnError

    _, options, _ = data
    name, reply_to, on_exit, on_error, _, _ = options
    error = IsolateSpawnError(f"{name}: {reason}")
    if reply_to:
        _, body, buffers, _ = messages.encode(failures.pack(error))
        nodes.current().mailbox.send_message(reply_to, protocol.FAILURE, body, buffers)
    elif on_error is None or not _try_to_send(_port(on_error), [f"IsolateSpawnError: {error}", None]):  # type: ignore[arg-type]
        sys.stderr.write(f"subiso: IsolateSpawnError: {error}\n")
    if on_exit is not None:
        _try_to_send(_port(on_exit), None)  # type: ignore[arg-type]
