"""Doing in this thread what an isolate would do; what goes in and comes out is encoded and decoded all the same."""

import functools
import sys
import threading
from contextvars import Context, copy_context

from subiso import coroutines, failures, messages
from subiso._kernel import node as nodes
from subiso._kernel import waiting
from subiso._kernel.waitables import Waitable
from subiso.futures import IsolateFuture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any


class InlineWaitError(RuntimeError):
    """Code that is run inline would wait for ever, for a message or room in a port that only others could give."""


class Exited(BaseException):
    """Unwinds code that has called `Isolate.exit`."""


class _Depth(threading.local):
    value = 0


_depth = _Depth()


def is_going_on() -> bool:
    """Return whether this thread is doing an isolate's work."""
    return _depth.value > 0


class InlineFuture[R](IsolateFuture[R]):
    """The future of work that is done already."""

    def __init__(self) -> None:
        super(IsolateFuture, self).__init__()
        self._node = nodes.current()
        self._done = Waitable()

    def _forget(self) -> None:
        pass

    def _kill(self) -> None:
        pass

    async def _await(self) -> R:
        return self.result(0)


def copy(value: "Any", root: str = "message") -> "Any":
    """Return what arrives where ``value`` is sent.

    Raises:
        SendError: it cannot be sent.
    """
    kind, body, buffers, _ = messages.encode(value, root)
    return messages.decode(kind, body, [memoryview(bytearray(one)) for one in buffers])


def as_arrived(error: BaseException) -> BaseException:
    """Return an error as it comes back from an isolate."""
    return failures.unpack(copy(failures.pack(error)))


def do(function: "Callable[[], Any]", context: Context | None = None) -> "Any":
    """Call a function as the body of an isolate does: with no context variables set, coroutines run to their end.

    Args:
        function: what to call.
        context: where variables may be set already.
    """

    def call() -> "Any":
        result = function()
        return _finish(result) if coroutines.is_coroutine(result) else result

    _depth.value += 1
    try:
        return (context or Context()).run(call)
    finally:
        _depth.value -= 1


def _finish(coroutine: "Coroutine[Any, Any, Any]") -> "Any":
    """Run a coroutine in an event loop of its own; beside a loop that runs in this thread, on another one meanwhile."""
    import asyncio

    if waiting.running_loop() is None:
        return asyncio.run(coroutine)
    outcome: list[Any] = []
    context = copy_context()

    def run() -> None:
        _depth.value += 1
        try:
            outcome.append((asyncio.run(coroutine), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=context.run, args=(run,))
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def settle(function: "Callable[[], Any]") -> "InlineFuture[Any]":
    """Call a function as `do`, and return the future of what comes back.

    Raises:
        KeyboardInterrupt, InlineWaitError: these are the test's, not the isolate's.
    """
    future: InlineFuture[Any] = InlineFuture()
    future.set_running_or_notify_cancel()
    try:
        future._settle(copy(do(function), "result"), None)
    except (KeyboardInterrupt, InlineWaitError):
        raise
    except BaseException as error:
        future._settle(None, as_arrived(error))
    return future


def call_of(kind: int, body: bytes, buffers: "Sequence[memoryview]") -> "Callable[[], Any]":
    """Return the call that a job describes. It is decoded where it is called, as in an isolate."""

    def call() -> "Any":
        function, args = messages.decode(kind, body, [memoryview(bytearray(one)) for one in buffers])
        return function(*args)

    return call


def tell(name: str, error: BaseException) -> "list[str | None]":
    """Describe an uncaught error as error listeners are told of it."""
    _, type_name, text, traceback = failures.pack(error)
    type_name = type_name.removeprefix("builtins.").removeprefix("subiso.errors.")
    return [f"{type_name}: {text}" if text else type_name, traceback]


def partial(function: "Callable[..., Any]", *args: "Any") -> "Callable[[], Any]":
    """Shorthand for a call without arguments."""
    return functools.partial(function, *args)


def report(name: str, described: "list[str | None]") -> None:
    """Print an uncaught error that nobody listens to."""
    sys.stderr.write(f"Uncaught error in isolate {name!r}:\n{described[1]}")
