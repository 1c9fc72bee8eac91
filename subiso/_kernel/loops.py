"""How the tasks of an event loop are woken. Imported when the first one waits, so the loop is there already.

Beside the tasks that wait, each loop has one *watch*, which listens to the mailbox's doorbell and pumps when it rings.
"""

import sys
from _thread import get_ident
from weakref import WeakKeyDictionary

from subiso._kernel.mailbox import Mailbox
from subiso._kernel.waitables import Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any


def waiter(loop: str, mailbox: Mailbox) -> "_AsyncioWaiter | _TrioWaiter":
    """Return what wakes the task that calls this.

    Args:
        loop: the kind of loop that runs, as `waiting.running_loop` names it.
        mailbox: whose doorbell it listens to.
    """
    return _AsyncioWaiter(mailbox) if loop == "asyncio" else _TrioWaiter(mailbox)


class _Watch:
    """One event loop's ear at the doorbell. Used in that loop's thread only.

    It stays with the loop when no task waits any more, for the next one will: until it hears a ring that is for others.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self.waiters: set[Waiter] = set()  # of the tasks that wait
        self._ear = mailbox.ear_of_loops()
        self._listens = False
        self._sleeps = False

    def enter(self, waiter: Waiter) -> None:
        """Have a task woken. What Ctrl-C tears here may be done once too often, but not too seldom."""
        self.waiters.add(waiter)
        if not self._sleeps:
            self.mailbox.fall_asleep()
            self._sleeps = True
        if not self._listens:
            self._listen()
            self._listens = True
        self.mailbox.pump()

    def leave(self, waiter: Waiter) -> None:
        """Take back `enter`, however far it came."""
        self.waiters.discard(waiter)
        if self._sleeps and not self.waiters:
            self._sleeps = False
            self.mailbox.awake()

    def _hear(self) -> bool:
        """Take in a ring; return whether to go on listening."""
        self._ear.wait(0)
        self.mailbox.pump()  # for whichever loop has waited for it: they share the ear
        self._listens = bool(self.waiters)
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
    _looks = False

    def _listen(self) -> None:
        sys.modules["trio"].lowlevel.spawn_system_task(self._look)

    async def _look(self) -> None:
        if self._looks:  # Ctrl-C came before it was noted that there is this task
            return
        self._looks = True
        try:
            while True:
                await sys.modules["trio"].lowlevel.wait_readable(self._ear.fileno())
                if not self._hear():
                    return
        finally:
            self._looks = False


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
