"""What can be waited for, and who waits: threads here, tasks of event loops in waiting.py."""

from _thread import allocate_lock, get_ident
from collections import deque

from subiso._kernel import doorbell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Waiter:
    """One thread, or one task of an event loop, that waits for something to happen."""

    __slots__ = ()

    def wake(self) -> None:
        """Make the waiter look again. Any thread of the interpreter may call this, any number of times."""
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """A blocked thread.

    Attributes:
        doorbell: the number to ring while the thread listens to the doorbell.
        thread: its identifier.
    """

    __slots__ = ("_lock", "doorbell", "thread")

    def __init__(self) -> None:
        self.thread = get_ident()
        self.doorbell: int | None = None
        self._lock = allocate_lock()
        self._lock.acquire()

    def wake(self) -> None:
        bell = self.doorbell
        if bell is not None:
            doorbell.ring(bell)
        if self._lock.locked():
            try:
                self._lock.release()
            except RuntimeError:  # another thread was quicker
                pass

    def sleep(self, timeout: float | None) -> None:
        self._lock.acquire(timeout=-1 if timeout is None else min(max(timeout, 0), 1e6))


class Waitable:
    """Something that can happen.

    Attributes:
        waiters: who waits for it now.
        on_event: called each time by the thread that noticed, outside of any lock.
    """

    __slots__ = ("on_event", "waiters")

    def __init__(self, on_event: "Callable[[], None] | None" = None) -> None:
        self.waiters: list[Waiter] = []
        self.on_event = on_event

    def notify(self) -> None:
        """Wake everybody who waits for this."""
        for waiter in self.waiters[:]:
            waiter.wake()
        if self.on_event is not None:
            self.on_event()


class Inbox(Waitable):
    """What has arrived for one port, still encoded.

    Attributes:
        messages: kind and payload of each, oldest first.
        holders: the isolates that were given the port's send port, as slot and number.
        closed: whether nothing can be received any more.
        semaphore: the descriptor that counts the free places, if the port is bounded; else 0.
    """

    __slots__ = ("address", "closed", "holders", "messages", "semaphore")

    def __init__(self, address: int) -> None:
        super().__init__()
        self.address = address
        self.messages: deque[tuple[int, bytes]] = deque()
        self.holders: set[tuple[int, int]] = set()
        self.closed = False
        self.semaphore = 0
