"""Waiting in an event loop: asyncio and trio behind one function. Neither is imported unless its loop runs.

Beside the tasks that wait, each loop has one *watch*, which listens to the mailbox's doorbell and pumps when it rings.
"""

import os
import sys
from _thread import get_ident
from weakref import WeakKeyDictionary

from subiso._kernel.mailbox import Mailbox
from subiso._kernel.waitables import Waitable, Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from typing import Any


def running_loop() -> str | None:
    """Return which event loop runs in this thread: "asyncio", "trio" or None."""
    if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_run():
        return "trio"
    if "asyncio" in sys.modules and sys.modules["asyncio"]._get_running_loop() is not None:
        return "asyncio"
    return None


async def checkpoint() -> None:
    """Let other tasks run, and a cancellation in, where even what need not wait is to do so: on trio."""
    if running_loop() == "trio":
        await sys.modules["trio"].lowlevel.checkpoint()


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
    """One event loop's ear at the doorbell. Used in that loop's thread only.

    It stays with the loop when no task waits any more, for the next one will: until it hears a ring that is for others.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self._ear = mailbox.ear_of_loops()
        self._listens = False
        self._tasks = 0

    def enter(self) -> None:
        self._tasks += 1
        if self._tasks == 1:
            self.mailbox.fall_asleep()
        if not self._listens:
            self._listen()
            self._listens = True
        self.mailbox.pump()

    def leave(self) -> None:
        self._tasks -= 1
        if self._tasks == 0:
            self.mailbox.awake()

    def _hear(self) -> bool:
        """Take in a ring; return whether to go on listening."""
        self._ear.wait(0)
        self.mailbox.pump()  # for whichever loop has waited for it: they share the ear
        self._listens = self._tasks > 0
        return self._listens

    def _listen(self) -> None:
        raise NotImplementedError


class _AsyncioWatch(_Watch):
    def _listen(self) -> None:
        loop = sys.modules["asyncio"].get_running_loop()
        loop.add_reader(self._ear.fileno(), self._on_ring)

    def _on_ring(self) -> None:
        if not self._hear():
            sys.modules["asyncio"].get_running_loop().remove_reader(self._ear.fileno())


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
    def _listen(self) -> None:
        sys.modules["trio"].lowlevel.spawn_system_task(self._look)

    async def _look(self) -> None:
        while True:
            await sys.modules["trio"].lowlevel.wait_readable(self._ear.fileno())
            if not self._hear():
                return


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
    if watch is None or watch.mailbox is not mailbox:
        watch = _watches[loop] = kind(mailbox)
    return watch
