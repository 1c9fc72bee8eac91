"""The future of work that runs in an isolate."""

import concurrent.futures
import threading
import weakref
from concurrent.futures import Future
from time import monotonic

from subiso import failures, messages, reports
from subiso._kernel import attendant as attendants
from subiso._kernel import parcels, protocol, waiting
from subiso._kernel.insisting import insist
from subiso._kernel.interrupt import IsolateKilled, unwind
from subiso._kernel.waitables import Waitable
from subiso._typing import R
from subiso.errors import IsolateKilledError, IsolateTimeoutError, SendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from subiso._kernel.node import Node

_CANCELLED, _FINISHED = "CANCELLED_AND_NOTIFIED", "FINISHED"


def _is_interruption(error: BaseException) -> bool:
    """Return whether an error is for whoever runs here: a signal's handler has raised it, or a kill.

    It may come while a thread that waits for one future takes the result of another.
    """
    if isinstance(error, Exception):
        return False
    return isinstance(error, IsolateKilled) or threading.current_thread() is threading.main_thread()


def _lost(name: str) -> IsolateKilledError:
    """Return the outcome of work whose result was interrupted as it arrived."""
    return IsolateKilledError(f"the result of {name} was lost: a signal came as it arrived")


class IsolateFuture(Future[R]):
    """What an isolate will return: a `concurrent.futures.Future` that can also be awaited, on asyncio and trio.

    Awaiting it in a task that is cancelled cancels the work.
    """

    __subiso_unsendable__ = "IsolateFuture objects cannot be sent; send their results"

    def __init__(self, node: "Node", name: str) -> None:
        super().__init__()
        self._node = node
        self._name = name
        self._done = Waitable()
        attendants.of(node)  # first: there may be no thread to be had
        self._slot, self._number = -1, 0
        self._taken = False
        self._inbox = node.mailbox.open_reply()
        self.set_running_or_notify_cancel()
        self._inbox.on_event = self._on_event  # last: Ctrl-C may come before, and what is half made must not be told

    # -- the isolate's side of it --------------------------------------------------------------------------------------

    def _attach(self, slot: int, number: int, timeout: float | None) -> None:
        """Expect the result from that isolate, within ``timeout`` seconds."""
        self._slot, self._number = slot, number
        self._node.mailbox.watch(slot, number, self._inbox)
        self._on_event()  # it may have ended already
        if self.done():  # before it was known which isolate that is
            self._forget()
        if timeout is not None:
            # Weakly, so that a long time-out does not keep the result; until there is one, the inbox keeps the future.
            time_out = weakref.WeakMethod(self._time_out)
            attendants.of(self._node).call_at(monotonic() + timeout, lambda: (method := time_out()) and method())

    def _time_out(self) -> None:
        if not self.done():
            # The outcome first: once it is killed, another thread may find that there will be no result.
            self._fail(IsolateTimeoutError(f"{self._name} took longer than it was allowed to, and was killed"))
            insist(self._kill)

    def _kill(self) -> None:
        if self._slot >= 0 and self._node.mailbox.is_alive(self._slot, self._number):
            self._node.kill(self._slot, self._number, self._node.arena.capabilities(self._slot)[1])

    def _on_event(self) -> None:
        """Take the result if it has come, or notice that it will not. Called by any thread that pumps."""
        inbox, mailbox = self._inbox, self._node.mailbox
        if self.done():
            return
        if not inbox.messages:
            if self._slot < 0 or mailbox.is_alive(self._slot, self._number):
                return
            mailbox.settle()  # its last message was sent before it ended
            if not inbox.messages and not self._taken:
                self._fail(IsolateKilledError(f"{self._name} was killed, or ended without giving a result"))
                return
        self._taken = True  # before the message is taken out: whoever finds none knows that somebody has it
        try:
            message = inbox.messages.popleft()
        except IndexError:  # another thread was quicker
            return
        except BaseException:  # Ctrl-C, perhaps with the message in hand
            if not inbox.messages:
                self._fail(_lost(self._name))
            raise
        result: Any = None
        error: BaseException | None = None
        interruption: BaseException | None = None
        try:
            kind, body, buffers = parcels.unpack(*message)
            if kind == protocol.FAILURE:
                error = failures.unpack(messages.decode(protocol.PICKLE, body, buffers))
            else:
                result = messages.decode(kind, body, buffers)
        except BaseException as failure:
            error = failure
            if _is_interruption(failure):
                error, interruption = _lost(self._name), failure
        try:
            self._settle(result, error)
        except BaseException:  # Ctrl-C
            self._settle(result, error)
            raise
        if interruption is not None:
            raise interruption

    def _fail(self, error: BaseException) -> None:
        self._settle(None, error)

    def _fail_to_take(self, error: BaseException) -> None:
        """End with what was raised as the result was taken; raise it if it is for whoever runs here."""
        if _is_interruption(error):
            self._fail(_lost(self._name))
            raise error
        self._fail(error)

    def _settle(self, result: "Any", error: BaseException | None) -> None:
        """Give the future its outcome, once: cancelling, killing and the result itself may race."""
        try:
            self._set(result, error)
            self._tell()
        except concurrent.futures.InvalidStateError:
            return
        except Exception:  # of telling: who was called is not called again
            raise
        except BaseException:  # Ctrl-C, perhaps before everybody was told
            try:
                self._set(result, error)
            except concurrent.futures.InvalidStateError:
                self._invoke_callbacks()  # type: ignore[attr-defined]
            self._tell()
            raise

    def _set(self, result: "Any", error: BaseException | None) -> None:
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)

    def _tell(self) -> None:
        self._done.notify()
        self._forget()

    def _forget(self) -> None:
        insist(self._node.mailbox.close, self._inbox)
        if self._slot >= 0:
            self._node.mailbox.unwatch(self._slot, self._number, self._inbox)

    # -- the caller's side ---------------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Stop the work, running or not, and return True; False if it has ended already.

        Returns at once: whoever waits gets a `CancelledError`, and the isolate is killed.
        """
        with self._condition:
            if self._state == _FINISHED:
                return False
            if self._state == _CANCELLED:
                return True
            self._state = _CANCELLED
            for waiter in self._waiters:
                waiter.add_cancelled(self)
            self._condition.notify_all()
        try:
            insist(self._kill)
        finally:
            self._invoke_callbacks()  # type: ignore[attr-defined]
            self._tell()
        return True

    def result(self, timeout: float | None = None) -> "R":
        """Return what the function returned, waiting for it if need be.

        Args:
            timeout: seconds to wait; None: for ever. When they are over only the waiting ends, not the work.

        Raises:
            TimeoutError: the result was not there in time.
            CancelledError: the future was cancelled.
            IsolateKilledError: the isolate was killed.
            BaseException: what the function raised, as itself.
        """
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the function raised, or None; waits, and raises, as `result` does."""
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout: float | None) -> None:
        node = self._node
        if not self.done():
            node.mailbox.wait([self._done], lambda: self.done() or node.killed, timeout and max(timeout, 0))
            if node.killed:
                raise unwind()
        reports.settle(node)

    def __reduce__(self) -> "tuple[Any, ...]":
        raise SendError(self.__subiso_unsendable__)

    def __await__(self) -> "Generator[Any, Any, R]":
        return self._await().__await__()

    async def _await(self) -> "R":
        try:
            await waiting.wait(self._node.mailbox, [self._done], self.done)
        except BaseException:
            self.cancel()
            raise
        if self.cancelled() and waiting.running_loop() == "asyncio":
            import asyncio

            raise asyncio.CancelledError
        return super().result(0)
