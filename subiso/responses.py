"""Ports for one response: opened for one message, and closed as soon as it has come, or will not."""

import contextlib
import inspect
import weakref
from time import monotonic

from subiso._kernel import attendant as attendants
from subiso._kernel import locks
from subiso._kernel import node as nodes
from subiso._typing import overload
from subiso.errors import NoSendersError, PortClosedError, PortEmpty, SendError
from subiso.ports import ReceivePort
from subiso.sending import SendPort, check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType
    from typing import Any, Self


@overload
def single_response[T](
    action: "Callable[[SendPort], object]", *, timeout: float | None = None, type: "type[T]"
) -> T: ...
@overload
def single_response(
    action: "Callable[[SendPort], object]", *, timeout: float | None = None, type: "Any" = object
) -> "Any": ...
def single_response(
    action: "Callable[[SendPort], object]", *, timeout: float | None = None, type: "Any" = object
) -> "Any":
    """Call ``action`` with a new send port, and return the first message that is sent to it.

    The port is closed afterwards, whatever happens. (Dart's package:isolate: ``singleResponseFuture``.)

    Args:
        action: sends the port to whoever is to respond. What it raises is raised here; what it returns is ignored.
        timeout: seconds to wait for the message, from the end of the action on; None: for ever.
        type: what the message must be, as for `ReceivePort`.

    Raises:
        PortEmpty: no message came in ``timeout`` seconds. It is a `TimeoutError`.
        NoSendersError: every isolate that was given the port has ended without sending anything.
        MessageTypeError: the message is not of that type.
        TypeError: ``action`` is not callable, or is a coroutine function.
    """
    _check_callable(action)
    check_timeout(timeout)
    port: ReceivePort[Any] = ReceivePort(type)
    with port:
        result = action(port.send_port)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError("single_response takes a function; for a coroutine function, await asingle_response")
        return _first(port, timeout)


@overload
async def asingle_response[T](action: "Callable[[SendPort], object]", *, type: "type[T]") -> T: ...
@overload
async def asingle_response(action: "Callable[[SendPort], object]", *, type: "Any" = object) -> "Any": ...
async def asingle_response(action: "Callable[[SendPort], object]", *, type: "Any" = object) -> "Any":
    """Call ``action`` with a new send port, and wait in the running event loop for the first message sent to it.

    As `single_response`; ``action`` may also be a coroutine function. For a limit of time use that of the event loop
    (`asyncio.timeout`, ``trio.fail_after``).
    """
    _check_callable(action)
    port: ReceivePort[Any] = ReceivePort(type)
    with port:
        result = action(port.send_port)
        if inspect.isawaitable(result):
            await result
        return await port.areceive()


class SingleResponseChannel[T]:
    """A send port for one message, and the result that the message is; this side, too, can give the result.

    What comes first is the result and closes the port: a message, `interrupt`, or the end of the time. The result can
    be asked for any number of times, by any thread, and awaited. As a context manager the channel closes its port at
    the end of the block. (Dart's package:isolate: ``SingleResponseChannel``.)

    Args:
        type: what the message must be, as for `ReceivePort`.
        timeout: seconds from now on in which the message must come; None: any number.

    Raises:
        TypeError: msgspec cannot decode that type.
        ValueError: ``timeout`` is negative.
    """

    __subiso_unsendable__ = "SingleResponseChannel objects cannot be sent; send their send_port"

    @overload
    def __init__(self: "SingleResponseChannel[Any]", *, timeout: float | None = None) -> None: ...
    @overload
    def __init__(self, type: "type[T]", *, timeout: float | None = None) -> None: ...
    @overload
    def __init__(self: "SingleResponseChannel[Any]", type: "Any", *, timeout: float | None = None) -> None: ...
    def __init__(self, type: "type[T] | Any" = object, *, timeout: float | None = None) -> None:
        check_timeout(timeout)
        self._port: ReceivePort[T] = ReceivePort(type)
        self._lock = locks.Lock()
        self._outcome: tuple[Any, BaseException | None] | None = None
        if timeout is not None:
            time_out = weakref.WeakMethod(self._time_out)  # a long limit does not keep the channel
            attendant = attendants.of(nodes.current())
            attendant.call_at(monotonic() + timeout, lambda: (method := time_out()) and method())

    @property
    def send_port(self) -> SendPort:
        """The port to give away."""
        return self._port.send_port

    def interrupt(self, result: "Any" = None) -> bool:
        """Make ``result`` the result; return False if there is one, or a message has come, already."""
        return not self._has_come() and self._settle(result, None)

    def close(self) -> None:
        """Close the port; if there is no result yet, there will be none."""
        self._settle(None, PortClosedError("the channel was closed before there was a result"))

    def result(self, timeout: float | None = None) -> T:
        """Return the result, waiting for it if need be.

        Args:
            timeout: seconds to wait at most; None: as long as the channel may take.

        Raises:
            PortEmpty: there is no result in ``timeout`` seconds, or none came in the channel's time. It is a
                `TimeoutError`.
            NoSendersError: every isolate that was given the port has ended without sending anything.
            MessageTypeError: the message is not of the channel's type.
            PortClosedError: the channel was closed before there was a result.
        """
        check_timeout(timeout)
        if self._outcome is None:
            with self._taking():
                self._settle(self._port.receive(timeout), None)
        return self._opened()

    def __await__(self) -> "Generator[Any, Any, T]":
        return self._await().__await__()

    async def _await(self) -> T:
        if self._outcome is None:
            with self._taking():
                self._settle(await self._port.areceive(), None)
        return self._opened()

    @contextlib.contextmanager
    def _taking(self) -> "Iterator[None]":
        """Make the errors of taking the message the result, unless none was taken."""
        try:
            yield
        except PortClosedError:  # there is a result: another thread was given it, or this side has
            pass
        except (PortEmpty, NoSendersError):
            raise
        except Exception as error:
            self._settle(None, error)

    def _settle(self, result: "Any", error: BaseException | None) -> bool:
        with self._lock:
            first = self._outcome is None
            if first:
                self._outcome = result, error  # before the port is closed, which is what others wait for
        self._port.close()
        return first

    def _opened(self) -> T:
        assert self._outcome is not None
        result, error = self._outcome
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _has_come(self) -> bool:
        self._port._node.mailbox.settle()
        return bool(self._port._inbox.messages)

    def _time_out(self) -> None:
        if not self._has_come():
            self._settle(None, PortEmpty("no message came in the channel's time"))

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

    def __repr__(self) -> str:
        return f"<SingleResponseChannel{'' if self._outcome is None else ' settled'}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        raise SendError(self.__subiso_unsendable__)


def _check_callable(action: object) -> None:
    if not callable(action):
        raise TypeError(f"the action must be callable with a send port, not {action!r}")


def _first[T](port: "ReceivePort[T]", timeout: float | None) -> T:
    try:
        return port.receive(timeout)
    except PortEmpty:
        raise PortEmpty("no response came in time") from None
