"""Requests: a message that is answered, by a value or by an error. Callers use `SendPort.request` and `arequest`."""

from time import monotonic

from subiso import failures, messages
from subiso._kernel import node as nodes
from subiso._kernel import protocol
from subiso.errors import NoSendersError, PortClosedError, PortEmpty, SendError
from subiso.ports import ReceivePort
from subiso.sending import TYPED, SendPort, check_timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Request:
    """What arrives at a port when somebody calls `SendPort.request`: a message, and the way back to who asked.

    It is answered once, with `reply` or `fail`. It can be sent on, for another isolate to answer.

    Attributes:
        message: what was asked.
    """

    __slots__ = ("_answered", "_port", "message")
    message: "Any"
    _port: SendPort
    _answered: bool

    def __init__(self) -> None:
        raise TypeError("a Request comes from SendPort.request")

    @classmethod
    def _of(cls, message: "Any", port: SendPort) -> "Request":
        request = object.__new__(cls)
        request.message, request._port, request._answered = message, port, False
        return request

    def reply(self, value: object = None) -> bool:
        """Answer with a value, which `SendPort.request` returns to who asked.

        Returns:
            Whether the asker still waits. Nothing is wrong if not: it may have run out of time.

        Raises:
            SendError: the value cannot be sent. The request can still be answered.
            RuntimeError: the request has been answered already.
        """
        return self._answer(None, value)

    def fail(self, error: BaseException) -> bool:
        """Answer with an error, which `SendPort.request` raises at who asked: as itself, its traceback as the cause.

        Returns:
            Whether the asker still waits.

        Raises:
            TypeError: ``error`` is not an exception.
            RuntimeError: the request has been answered already.
        """
        if not isinstance(error, BaseException):
            raise TypeError(f"a request fails with an exception, not {error!r}")
        return self._answer(protocol.FAILURE, failures.pack(error))

    def _answer(self, as_kind: int | None, value: object) -> bool:
        if self._answered:
            raise RuntimeError("the request has been answered already")
        kind, body, buffers, carried = messages.encode(value, "value")
        self._answered = True
        node = nodes.current()
        try:
            self._port._check_open(node)
            self._port._post(node, as_kind or kind, body, buffers, carried)
        except PortClosedError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<Request {self.message!r}{' answered' if self._answered else ''}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        return Request._of, (self.message, self._port)


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _decode(kind: int, body: "Any", buffers: "Any") -> "Any":
    if kind == protocol.FAILURE:
        return _Failure(failures.unpack(messages.decode(protocol.PICKLE, body, buffers)))
    return messages.decode(kind, body, buffers)


class _ReplyPort(ReceivePort["Any"]):
    """Where one answer arrives. It is not raised or returned in here: it may be any of the errors of ports."""

    def __init__(self) -> None:
        super().__init__()
        self._decode_by(_decode)

    def wait(self, timeout: float | None) -> "Any":
        try:
            return self.receive(timeout)
        except NoSendersError:
            raise _unanswered() from None
        except PortEmpty:
            raise PortEmpty("no reply came in time") from None

    async def await_(self) -> "Any":
        try:
            return await self.areceive()
        except NoSendersError:
            raise _unanswered() from None


def _unanswered() -> NoSendersError:
    return NoSendersError("the isolate that was asked has ended without a reply")


def _opened(answer: "Any") -> "Any":
    if isinstance(answer, _Failure):
        raise answer.error
    return answer


def request(port: SendPort, message: object, timeout: float | None) -> "Any":
    """Ask, and wait for the answer; see `SendPort.request`."""
    _check_untyped(port)
    deadline = None if check_timeout(timeout) is None else monotonic() + timeout  # type: ignore[operator]
    with _ReplyPort() as reply:
        try:
            port.send(Request._of(message, reply.send_port), timeout)
        except SendError as error:
            raise _in_callers_words(error) from error.__cause__
        answer = reply.wait(None if deadline is None else max(deadline - monotonic(), 0))
    return _opened(answer)


async def arequest(port: SendPort, message: object) -> "Any":
    """Ask, and wait for the answer in the running event loop; see `SendPort.arequest`."""
    _check_untyped(port)
    with _ReplyPort() as reply:
        try:
            await port.asend(Request._of(message, reply.send_port))
        except SendError as error:
            raise _in_callers_words(error) from error.__cause__
        answer = await reply.await_()
    return _opened(answer)


def _in_callers_words(error: SendError) -> SendError:
    return SendError(str(error).replace("message.message", "message", 1))


def _check_untyped(port: SendPort) -> None:
    if port._flags & TYPED:  # its owner would drop the request as a message of the wrong type, and nobody would answer
        raise TypeError("requests need a port without a type, made by ReceivePort(): what arrives is a Request")
