"""Waiting in an event loop: asyncio and trio behind one function. Neither is imported unless its loop runs.

Beside the tasks that wait, each loop has one *watch*, which watches the mailbox's doorbell as long as any of its tasks
waits, and pumps when it rings.
"""

import os
import sys
from _thread import get_ident
from weakref import WeakKeyDictionary

from subiso._kernel import doorbell
from subiso._kernel.mailbox import Mailbox
from subiso._kernel.waitables import Waitable, Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from typing import Any

    import trio


def running_loop() -> str | None:
    """Return which event loop runs in this thread: "asyncio", "trio" or None."""
    if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_run():
        return "trio"
    if "asyncio" in sys.modules and sys.modules["asyncio"]._get_running_loop() is not None:
        return "asyncio"
    return None


async def wait(mailbox: Mailbox, waitables: "Iterable[Waitable]", ready: "Callable[[], object]") -> None:
    """Wait in the running event loop until ``ready()``. What makes it true must notify one of ``waitables``.

    Raises:
        RuntimeError: no event loop that is known runs.
    """
    loop = running_loop()
    if loop is None:
        raise RuntimeError("no running event loop: only asyncio and trio are supported")
    if loop == "trio":
        await sys.modules["trio"].lowlevel.checkpoint()
    if ready() or (mailbox.pump() and ready()):
        return
    waiter: _AsyncioWaiter | _TrioWaiter = _AsyncioWaiter(mailbox) if loop == "asyncio" else _TrioWaiter(mailbox)
    for waitable in waitables:
        waitable.waiters.append(waiter)
    try:
        waiter.watch.enter()
        while not ready():
            await waiter.sleep()
    finally:
        waiter.watch.leave()
        for waitable in waitables:
            waitable.waiters.remove(waiter)


async def wait_readable(descriptor: int) -> None:
    """Wait in the running event loop until a descriptor is readable; any number of tasks may wait for one."""
    own = os.dup(descriptor)
    try:
        if running_loop() == "trio":
            await sys.modules["trio"].lowlevel.wait_readable(own)
            return
        loop: asyncio.AbstractEventLoop = sys.modules["asyncio"].get_running_loop()
        readable = loop.create_future()

        def on_readable() -> None:
            if not readable.done():
                readable.set_result(None)

        loop.add_reader(own, on_readable)
        try:
            await readable
        finally:
            loop.remove_reader(own)
    finally:
        os.close(own)


class _Watch:
    """One event loop's eye on the doorbell. Used in that loop's thread only."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._tasks = 0

    def enter(self) -> None:
        self._tasks += 1
        if self._tasks == 1:
            self._mailbox.fall_asleep()
            self.open()
        self._mailbox.pump()

    def leave(self) -> None:
        self._tasks -= 1
        if self._tasks == 0:
            self.shut()
            self._mailbox.awake()

    def on_ring(self) -> None:
        if not self._mailbox.listening:  # else that thread wakes up too, and silences it
            doorbell.silence(self._mailbox.doorbell)
        self._mailbox.pump()

    def open(self) -> None:
        raise NotImplementedError

    def shut(self) -> None:
        raise NotImplementedError


class _AsyncioWatch(_Watch):
    _loop: "asyncio.AbstractEventLoop"

    def open(self) -> None:
        self._loop = sys.modules["asyncio"].get_running_loop()
        self._loop.add_reader(self._mailbox.doorbell, self.on_ring)

    def shut(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._mailbox.doorbell)
        del self._loop  # else the table of watches would keep the loop for ever


class _AsyncioWaiter(Waiter):
    __slots__ = ("_future", "_loop", "_thread", "watch")

    def __init__(self, mailbox: Mailbox) -> None:
        self._loop: asyncio.AbstractEventLoop = sys.modules["asyncio"].get_running_loop()
        self._thread = get_ident()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self.watch = _watch_of(self._loop, mailbox, _AsyncioWatch)

    def wake(self) -> None:
        if get_ident() == self._thread:
            self._set()
            return
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:  # the loop was closed while its task still waited
            pass

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def sleep(self) -> None:
        await self._future
        self._future = self._loop.create_future()


class _TrioWatch(_Watch):
    _scope: "trio.CancelScope"

    def open(self) -> None:
        trio = sys.modules["trio"]
        self._scope = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._look, self._scope)

    def shut(self) -> None:
        self._scope.cancel()

    async def _look(self, scope: "trio.CancelScope") -> None:
        # A descriptor of its own: the task before this one may not have left the doorbell yet.
        descriptor = os.dup(self._mailbox.doorbell)
        try:
            with scope:
                while True:
                    await sys.modules["trio"].lowlevel.wait_readable(descriptor)
                    self.on_ring()
        finally:
            os.close(descriptor)


class _TrioWaiter(Waiter):
    __slots__ = ("_event", "_thread", "_token", "_trio", "watch")

    def __init__(self, mailbox: Mailbox) -> None:
        self._trio: Any = sys.modules["trio"]
        self._token = self._trio.lowlevel.current_trio_token()
        self._thread = get_ident()
        self._event = self._trio.Event()
        self.watch = _watch_of(self._token, mailbox, _TrioWatch)

    def wake(self) -> None:
        if get_ident() == self._thread:
            self._event.set()
            return
        try:
            self._token.run_sync_soon(lambda: self._event.set())
        except self._trio.RunFinishedError:
            pass

    async def sleep(self) -> None:
        await self._event.wait()
        self._event = self._trio.Event()


_watches: "WeakKeyDictionary[Any, _Watch]" = WeakKeyDictionary()


def _watch_of(loop: object, mailbox: Mailbox, kind: type[_Watch]) -> _Watch:
    watch = _watches.get(loop)
    if watch is None or watch._mailbox is not mailbox:
        watch = _watches[loop] = kind(mailbox)
    return watch
