"""Isolates that end together: a group's block ends when all its isolates have ended, and one failure kills the rest.

Who does what: failures arrive in the group's inbox and, from `run`, in futures; ends are watched by that inbox.
Whichever thread pumps then calls `_on_event` or `_on_run_done`, so the rest is killed at once even if the block's body
is busy. Where the body runs in an event loop it is cancelled, too (`_AsyncioBody`, `_TrioBody`).
"""

import concurrent.futures
import sys
from _thread import get_ident

from subiso import failures, messages
from subiso._kernel import attendant as attendants
from subiso._kernel import locks, parcels, protocol, waiting
from subiso._kernel import node as nodes
from subiso._kernel.interrupt import IsolateKilled, unwind
from subiso._kernel.waitables import Waitable
from subiso._typing import overload
from subiso.errors import SendError
from subiso.isolate import Isolate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any, Self, Unpack

    from subiso._kernel.waitables import Inbox
    from subiso.futures import IsolateFuture
    from subiso.isolate import SpawnOptions

_AS_THEMSELVES = KeyboardInterrupt, SystemExit, IsolateKilled  # never wrapped into a group of exceptions


class IsolateGroup:
    """Isolates whose lives lie within a block: ``with IsolateGroup() as group:``, or ``async with`` (asyncio, trio).

    The block ends when all isolates of the group have ended. The first failure kills the rest: an uncaught error of an
    isolate that was spawned, a run that fails, or what the body of the block raises. When all have ended, the failures,
    as themselves, are raised in an `ExceptionGroup`. In ``async with`` the body is cancelled at a failure; in ``with``
    it goes on, but can start nothing more. Isolates that the user kills, and runs that the user cancels, have not
    failed. (As `asyncio.TaskGroup` and Trio's nurseries.)

    Args:
        name: for people.
    """

    __subiso_unsendable__ = "IsolateGroup objects cannot be sent"

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        self.name = name
        self._node = nodes.current()
        self._inbox: Inbox
        self._lock = locks.RLock()  # reentrant: building an error runs its class's code
        self._changed = Waitable()
        self._starting: list[int] = []  # the threads that start something just now
        self._living: dict[tuple[int, int], Callable[[], object]] = {}  # by slot and number: how to stop it
        self._runs: set[IsolateFuture[Any]] = set()  # that are not done
        self._failures: list[BaseException] = []
        self._refusal: RuntimeError | None = None
        self._state = "not entered"  # then: open, failing, ended
        self._body: _AsyncioBody | _TrioBody | None = None

    # -- starting ------------------------------------------------------------------------------------------------------

    def spawn[*Ts](self, entry: "Callable[[*Ts], object]", /, *args: *Ts, **options: "Unpack[SpawnOptions]") -> Isolate:
        """Start an isolate of the group; as `Isolate.spawn`, with the same options.

        An error that it does not catch is sent to ``on_error``, if that is given, and fails the group.

        Raises:
            RuntimeError: the group was not entered, has ended, or is ending because of a failure.
            TypeError, SendError, IsolateSpawnError: as for `Isolate.spawn`.
        """
        self._begin_to_start()
        isolate: Isolate | None = None
        try:
            isolate = Isolate.spawn(entry, *args, _group=self._inbox.address, **options)  # type: ignore[arg-type]
            self._adopt(isolate._slot, isolate._number, isolate.kill)
        except BaseException:
            if isolate is not None:
                isolate.kill()
            raise
        finally:
            self._have_started()
        return isolate

    @overload
    def run[R, *Ts](
        self,
        fn: "Callable[[*Ts], Coroutine[Any, Any, R]]",
        /,
        *args: *Ts,
        name: str | None = None,
        timeout: float | None = None,
    ) -> "IsolateFuture[R]": ...
    @overload
    def run[R, *Ts](
        self, fn: "Callable[[*Ts], R]", /, *args: *Ts, name: str | None = None, timeout: float | None = None
    ) -> "IsolateFuture[R]": ...
    def run(  # type: ignore[misc]  # mypy does not match *Ts with *args: Any
        self, fn: "Callable[..., Any]", /, *args: "Any", **options: "Any"
    ) -> "IsolateFuture[Any]":
        """Call a function in an isolate of the group; as `Isolate.run`, with the same options.

        What it raises is raised by the future, and fails the group.

        Raises:
            RuntimeError: the group was not entered, has ended, or is ending because of a failure.
            TypeError, ValueError, SendError, IsolateSpawnError: as for `Isolate.run`.
        """
        self._begin_to_start()
        future: IsolateFuture[Any] | None = None
        try:
            future = Isolate.run(fn, *args, **options)
            with self._lock:
                self._runs.add(future)
            self._adopt(future._slot, future._number, future.cancel)
            future.add_done_callback(self._on_run_done)
        except BaseException:
            if future is not None:
                future.cancel()
            raise
        finally:
            self._have_started()
        return future

    def _begin_to_start(self) -> None:
        with self._lock:
            if self._state == "open":
                self._starting.append(get_ident())
                return
        reason = {
            "not entered": "the group must be entered first: with IsolateGroup() as group",
            "failing": "the group is ending because of a failure",
            "ended": "the group has ended",
        }[self._state]
        error = RuntimeError(reason)
        if self._state == "failing":
            self._refusal = error
        raise error

    def _adopt(self, slot: int, number: int, stop: "Callable[[], object]") -> None:
        with self._lock:
            self._living[slot, number] = stop
            failing = self._state == "failing"
        self._node.mailbox.watch(slot, number, self._inbox)
        if failing:
            stop()

    def _have_started(self) -> None:
        with self._lock:
            self._starting.remove(get_ident())
        self._on_event()  # it may have ended already

    # -- failures and ends ---------------------------------------------------------------------------------------------

    def _on_event(self) -> None:
        """Take in what has arrived and who has ended. Called by any thread that pumps."""
        mailbox, inbox = self._node.mailbox, self._inbox
        ended = [one for one in tuple(self._living) if not mailbox.is_alive(*one)]
        if ended:
            mailbox.settle()  # what they sent last was sent before they ended
        with self._lock:  # who sees that an isolate has ended also sees that it has failed
            while inbox.messages:
                _, body, buffers = parcels.unpack(*inbox.messages.popleft())
                self._failures.append(failures.unpack(messages.decode(protocol.PICKLE, body, buffers)))
            for one in ended:
                self._living.pop(one, None)
        self._react()

    def _on_run_done(self, future: "concurrent.futures.Future[Any]") -> None:
        with self._lock:
            if not future.cancelled() and (error := future.exception()) is not None:
                self._failures.append(error)
            self._runs.discard(future)
        self._react()

    def _react(self) -> None:
        if self._failures:
            self._stop()
        self._changed.notify()

    def _stop(self) -> None:
        """Kill everything that lives, once."""
        with self._lock:
            if self._state != "open":
                return
            self._state = "failing"
            stops = list(self._living.values())
        for stop in stops:
            stop()
        if self._body is not None:
            self._body.cancel()

    def _mend(self) -> None:
        """Find out anew what lives: Ctrl-C may have torn this thread's work at the group."""
        with self._lock:
            own = get_ident()
            self._starting = [thread for thread in self._starting if thread != own]
            living, runs = [*self._living], [*self._runs]
        for slot, number in living:
            self._node.mailbox.watch(slot, number, self._inbox)
        for future in runs:
            future.add_done_callback(self._on_run_done)
        self._on_event()

    # -- the block -----------------------------------------------------------------------------------------------------

    def _enter(self) -> None:
        with self._lock:
            if self._state != "not entered":
                raise RuntimeError("a group can be entered only once")
            self._state = "open"
        attendants.of(self._node)  # somebody must notice failures while the body is busy
        self._inbox = self._node.mailbox.open()
        self._inbox.on_event = self._on_event

    def _is_over(self) -> bool:
        """Return whether nothing lives any more; if so, nothing can be started either."""
        with self._lock:
            over = not (self._living or self._runs or self._starting)
            if over:
                self._state = "ended"
        return over or self._node.killed

    def _leave(self, error: BaseException | None) -> BaseException | None:
        """End the block, in which ``error`` was raised; return what it is to raise."""
        with self._lock:
            self._state = "ended"
            left = list(self._living)
        for slot, number in left:  # only if this isolate is being killed, or Ctrl-C was pressed twice
            self._node.mailbox.unwatch(slot, number, self._inbox)
        self._node.mailbox.close(self._inbox)
        if isinstance(error, _AS_THEMSELVES):
            return error
        errors = {id(failure): failure for failure in self._failures}
        for failure in errors.values():
            if isinstance(failure, _AS_THEMSELVES):
                return failure
        if isinstance(error, Exception) and not self._is_consequence(error):
            errors[id(error)] = error  # once, if the body was given one of the failures
        if not errors:
            return error
        name = "a group" if self.name is None else f"the group {self.name!r}"
        group = BaseExceptionGroup(f"failures in {name} of isolates", list(errors.values()))
        group.__suppress_context__ = True
        return group

    def _is_consequence(self, error: Exception) -> bool:
        """Return whether all that the body has met is that the group was ending."""
        if not self._failures:
            return False
        return error is self._refusal or isinstance(error, concurrent.futures.CancelledError)

    def __enter__(self) -> "Self":
        self._enter()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> bool:
        found = error
        if error is not None:
            self._give_up(error)
        try:
            self._wait()
        except BaseException as interruption:  # Ctrl-C, or this isolate is being killed; after a second one, no waiting
            found = interruption
            self._give_up(interruption)
            self._wait()
        return self._raise(self._leave(found), error)

    async def __aenter__(self) -> "Self":
        loop = waiting.running_loop()
        if loop is None:
            raise RuntimeError("no running event loop: only asyncio and trio are supported")
        self._enter()
        self._body = _TrioBody() if loop == "trio" else _AsyncioBody()
        return self

    async def __aexit__(
        self, kind: "type[BaseException] | None", error: BaseException | None, trace: "TracebackType | None"
    ) -> bool:
        assert self._body is not None
        found = self._body.leave(error)
        if found is not None:
            self._give_up(found)
        interruption = await self._body.wait(self)
        outcome = self._leave(found or interruption)
        if outcome is not found and outcome is not interruption:
            self._body.remain_cancelled()
        return self._raise(outcome, error)

    def _give_up(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            self._mend()
        self._stop()

    def _raise(self, outcome: BaseException | None, error: BaseException | None) -> bool:
        """Raise the outcome of the block, in which ``error`` was raised, as ``__exit__`` is to do that."""
        self._failures.clear()  # an error that is raised here must not lead back to itself
        self._living.clear()
        if outcome is None or outcome is error:
            return outcome is None
        try:
            raise outcome
        finally:
            del outcome, error

    def _wait(self) -> None:
        self._node.mailbox.wait([self._changed], self._is_over)
        if self._node.killed:
            raise unwind()

    def __repr__(self) -> str:
        return f"<IsolateGroup{'' if self.name is None else f' {self.name!r}'} {self._state}>"

    def __reduce__(self) -> "tuple[Any, ...]":
        raise SendError(self.__subiso_unsendable__)


class _AsyncioBody:
    """The body of a group's block in an asyncio task."""

    def __init__(self) -> None:
        asyncio = sys.modules["asyncio"]
        self._cancelled_error: type[BaseException] = asyncio.CancelledError
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._inside = True
        self._requested = False

    def cancel(self) -> None:
        """Cancel the body; any thread may call this."""
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:  # the loop was closed
            pass

    def _cancel(self) -> None:
        if self._inside:
            self._requested = True
            self._task.cancel()

    def leave(self, error: BaseException | None) -> BaseException | None:
        """Return what the body has raised, unless that is the cancellation that was asked for here."""
        self._inside = False
        outer = self._requested and self._task.uncancel()
        return None if self._requested and not outer and isinstance(error, self._cancelled_error) else error

    async def wait(self, group: IsolateGroup) -> BaseException | None:
        """Wait for the group's end, also if the task is cancelled meanwhile: then the error is returned."""
        interruption: BaseException | None = None
        while True:
            try:
                await waiting.wait(group._node.mailbox, [group._changed], group._is_over)
                return interruption
            except self._cancelled_error as error:
                if self._task.cancelling():  # if not, it is a late effect of what was asked for here
                    interruption = error
                    group._stop()

    def remain_cancelled(self) -> None:
        """Have the task cancelled at its next wait if it is still to be cancelled: other errors went first."""
        if self._task.cancelling():
            self._task.uncancel()
            self._task.cancel()


class _TrioBody:
    """The body of a group's block in a trio task: a cancel scope."""

    def __init__(self) -> None:
        self._trio: Any = sys.modules["trio"]
        self._token = self._trio.lowlevel.current_trio_token()
        self._scope = self._trio.CancelScope()
        self._scope.__enter__()

    def cancel(self) -> None:
        """Cancel the body; any thread may call this."""
        try:
            self._token.run_sync_soon(self._scope.cancel)
        except self._trio.RunFinishedError:
            pass

    def leave(self, error: BaseException | None) -> BaseException | None:
        """Return what the body has raised, but for the cancellation that was asked for here."""
        try:
            caught = self._scope.__exit__(type(error), error, error and error.__traceback__)
        except BaseException as rest:
            return rest
        return None if caught else error

    async def wait(self, group: IsolateGroup) -> BaseException | None:
        """Wait for the group's end, also if the task is cancelled meanwhile: then the error is returned."""
        try:
            await waiting.wait(group._node.mailbox, [group._changed], group._is_over)
        except BaseException as error:
            group._stop()
            with self._trio.CancelScope(shield=True):
                await waiting.wait(group._node.mailbox, [group._changed], group._is_over)
            return error
        return None

    def remain_cancelled(self) -> None:
        """Do nothing: a scope stays cancelled."""
