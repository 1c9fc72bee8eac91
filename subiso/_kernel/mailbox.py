"""How an interpreter's threads wait for its post.

A mailbox has no thread. Whoever waits does the work: it *pumps*, moving what has arrived from the rings into the
inboxes of the ports, first in a short bounded spin, then each time the doorbell rings. Only one blocked thread at a
time listens to the doorbell, the *sentinel*; the others sleep on a lock of their own until something came for them or
the sentinel leaves. Event loops listen beside it (waiting.py).

The race, and what closes it
    A sender publishes, then looks whether the receiver sleeps; the receiver says that it sleeps, then looks for
    messages. Each has a fence in between, so at least one of them sees the other.
"""

from time import monotonic
from time import monotonic_ns as now

from subiso._kernel import doorbell
from subiso._kernel.arena import DOORBELL, SLEEPING, Arena
from subiso._kernel.post import Post
from subiso._kernel.waitables import ThreadWaiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from subiso._kernel.waitables import Inbox, Waitable

# Looks before a waiting thread blocks: some 100 microseconds, about what it costs to wake it and whoever it waits for.
# Shorter, an answer that takes longer than that is never waited for again once both sides have begun to block.
SPIN = 600
NAP = 0.002  # seconds without a thread in a hurry, after which the others look after the doorbell again
_TRIAL = 64  # spins in vain, one after the other, after which a long one is tried again
_SPINS = [*(range(max(SPIN >> misses, 4)) for misses in range(_TRIAL)), range(SPIN)]
_SHORT = 8  # the first of the shortest of these
_AT_ONCE = 8  # looks; what has come by then would have come without a spin
_FOREVER = 1e9  # seconds; a longer time-out is none


class Mailbox(Post):
    """The post of the interpreter that lives in ``slot``, and the threads that wait for it."""

    def __init__(self, shared: Arena, slot: int, doorbell_reader: int) -> None:
        super().__init__(shared, slot, doorbell_reader)
        self._ear: doorbell.Ear | None = None  # the sentinel's
        self._loops_ear: doorbell.Ear | None = None
        self._misses = 0  # how many spins were in vain, one after the other
        self._sentinel: dict[None, ThreadWaiter] = {}  # who watches the doorbell: taken in one step, known to Ctrl-C
        self._followers: list[ThreadWaiter] = []  # who blocks
        self._patient: list[ThreadWaiter] = []  # who blocks without being in a hurry
        self._napping = 0  # how many of those are waiting for a pause
        self._quiet_from = 0.0  # when the next pause begins, if nobody waits until then
        self._sleepers = 0
        self._sleeping = Arena.home(slot) + SLEEPING
        self._bell = Arena.home(slot) + DOORBELL

    def wait(
        self, waitables: "Iterable[Waitable]", ready: "Callable[[], object]", timeout: float | None = None
    ) -> bool:
        """Block this thread until ``ready()``, for ``timeout`` seconds at most; return whether it is ready.

        Whatever makes ``ready()`` true must notify one of ``waitables``.
        """
        return bool(ready()) or (timeout != 0 and self.spin(ready)) or self.block(waitables, ready, timeout)

    def block(
        self, waitables: "Iterable[Waitable]", ready: "Callable[[], object]", timeout: float | None = None
    ) -> bool:
        """Like `wait`, after a `spin` that was in vain; a time-out of 0 takes in what has arrived, and no more."""
        if timeout == 0:
            self.pump()
            return bool(ready())
        deadline = None if timeout is None or timeout > _FOREVER else monotonic() + timeout
        return self._block(waitables, ready, deadline, self._followers)

    def attend(self, waitables: "Iterable[Waitable]", ready: "Callable[[], object]", deadline: float | None) -> bool:
        """Like `wait`, until a time of the monotonic clock, for a thread that is in no hurry: it does not spin."""
        return bool(ready()) or self._block(waitables, ready, deadline, self._patient)

    def _block(
        self,
        waitables: "Iterable[Waitable]",
        ready: "Callable[[], object]",
        deadline: float | None,
        row: "list[ThreadWaiter]",
    ) -> bool:
        waiter = ThreadWaiter()
        patient = row is self._patient
        try:
            for waitable in waitables:
                waitable.waiters.append(waiter)
            row.append(waiter)
            while not ready():
                remaining = None if deadline is None else deadline - monotonic()
                if remaining is not None and remaining <= 0:
                    return False
                if patient and self._gives_way(waiter, remaining):
                    continue
                watcher = self._sentinel.setdefault(None, waiter)
                if watcher is waiter:
                    self._watch_doorbell(waiter, ready, deadline, patient)
                    if patient:
                        del self._sentinel[None]
                        self._promote()
                elif watcher.thread == waiter.thread:  # it has called a callback, which waits in its turn
                    self._watch_doorbell(waiter, ready, deadline, False)
                else:
                    waiter.sleep(remaining)
            return True
        finally:
            try:
                self._leave(waiter, waitables, row)
            except BaseException:  # Ctrl-C
                self._leave(waiter, waitables, row)
                raise

    def _leave(self, waiter: ThreadWaiter, waitables: "Iterable[Waitable]", row: "list[ThreadWaiter]") -> None:
        """Take a waiter out of everything that it is still in, and let another one have the doorbell."""
        for waitable in waitables:
            if waiter in waitable.waiters:
                waitable.waiters.remove(waiter)
        if waiter in row:
            row.remove(waiter)
        if self._sentinel.get(None) is waiter:
            del self._sentinel[None]
        if row is not self._patient:
            self._quiet_from = monotonic() + NAP
        self._promote()

    def _gives_way(self, waiter: ThreadWaiter, remaining: float | None) -> bool:
        """Sleep, and return True, while threads in a hurry wait, or have just waited and may do so again at once.

        A thread that waits for itself is woken by the doorbell, and not by another thread that is. So those without a
        hurry leave it the doorbell, and take it back when nobody has been in a hurry for a short while.
        """
        if self._followers:
            waiter.sleep(remaining)  # the last of them wakes this thread
            return True
        pause = self._quiet_from - monotonic()
        if pause <= 0:
            return False
        self._napping += 1
        try:
            waiter.sleep(pause if remaining is None else min(pause, remaining))
        finally:
            self._napping -= 1
        return True

    def _promote(self) -> None:
        """Let another blocked thread take over the doorbell, if nobody has it."""
        if not self._sentinel:
            for follower in self._followers[:1] or self._patient[self._napping : self._napping + 1]:
                follower.wake()

    def _watch_doorbell(
        self, waiter: ThreadWaiter, ready: "Callable[[], object]", deadline: float | None, patient: bool
    ) -> None:
        """Pump at each ring, until ``ready()`` or the deadline; if patient, until somebody in a hurry waits too."""
        while True:
            # Before the last look: who wants to wake this thread after it must ring.
            waiter.doorbell = self.arena.words[self._bell]
            self.fall_asleep()
            try:
                self.pump()
                remaining = None if deadline is None else deadline - monotonic()
                if ready() or (remaining is not None and remaining <= 0):
                    return
                (self._ear or self._listen()).wait(None if remaining is None else min(remaining, 1e6))
            finally:
                waiter.doorbell = None  # and this thread need not ring for itself
                self.awake()
            self.pump()
            if ready() or (patient and self._followers):
                return

    def _listen(self) -> "doorbell.Ear | doorbell.Deaf":
        try:
            self._ear = doorbell.Ear(self.doorbell)
        except OSError:  # no descriptor, for the moment
            return doorbell.Deaf()
        return self._ear

    def spin(self, ready: "Callable[[], object]") -> bool:
        """Look for a short while, during which senders need not ring; return whether it is ready.

        How long depends on what it was good for the last times. One that was in vain halves the next, and one that was
        not doubles it, so that where others need the processor, and answers come late, little of it is taken. Now and
        then one is long nevertheless; if that one was not in vain, all are again. What is there at once says nothing
        about what a longer spin is good for.
        """
        misses = self._misses
        pump_from, find, dirty, end = self.pump_from, self._find, self._dirty, self._dirty_end
        if self._sleepers:
            self.arena.words[self._sleeping] = 0
        try:
            for look in _SPINS[misses]:
                pumped, until = self.pumped, now()
                flag = find(b"\1", dirty, end)
                if flag >= 0:
                    pump_from(flag, until, pumped)
                    if ready():
                        if misses and look >= _AT_ONCE:
                            self._misses = misses - 1 if misses < _TRIAL else 0
                        return True
            self._misses = misses + 1 if misses < _TRIAL else _SHORT
            return False
        finally:
            if self._sleepers:  # others sleep: from now on they must be woken again
                self.arena.words[self._sleeping] = 1
                self.arena.fence()
                self.pump()

    def park(self, unread: "Inbox | None" = None) -> None:
        """Leave every stream to the next interpreter in this slot, and hear nothing more.

        The ears' descriptors are the process's: an interpreter's end may not give them back.
        """
        super().park(unread)
        for ear in (self._ear, self._loops_ear):
            if ear is not None:
                ear.close()

    def ear_of_loops(self) -> doorbell.Ear:
        """Return the ear that the event loops listen with; whichever hears a ring must `pump`."""
        with self._lock:
            if self._loops_ear is None:
                self._loops_ear = doorbell.Ear(self.doorbell)
            return self._loops_ear

    def fall_asleep(self) -> None:
        """Ask senders to ring the doorbell from now on; look for messages after this, and only then sleep."""
        with self._lock:
            self._sleepers += 1
            self.arena.words[self._sleeping] = 1
        self.arena.fence()

    def awake(self) -> None:
        """Take back one `fall_asleep`."""
        with self._lock:
            self._sleepers -= 1
            if not self._sleepers:
                self.arena.words[self._sleeping] = 0

    def stop_waits(self) -> None:
        """Make every blocked thread look again: something has changed for all of them."""
        for follower in [*self._followers, *self._patient]:
            follower.wake()
