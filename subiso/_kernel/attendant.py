"""A thread that pumps the mailbox where nobody waits, for futures, descriptors and deadlines; made when needed."""

import functools
import itertools
import threading
from _heapq import heappop, heappush
from time import monotonic, sleep

from subiso._kernel import locks
from subiso._kernel.insisting import report
from subiso._kernel.naming import name_thread
from subiso._kernel.node import Node
from subiso._kernel.threads import start_thread
from subiso._kernel.waitables import Waitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


_PAUSE = 0.05  # seconds after which what has failed is tried again


class Attendant:
    """The attendant of one node; in main a daemon thread, in an isolate one that ends with the isolate."""

    def __init__(self, node: Node, daemon: bool) -> None:
        self._node = node
        self._event = Waitable()
        self._stopped = False
        self._deadlines: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._lock = locks.Lock()
        self._thread = threading.Thread(target=self._attend, name="subiso-attendant", daemon=daemon)
        start_thread(self._thread)

    def call_at(self, deadline: float, function: "Callable[[], None]") -> None:
        """Call ``function``, which must not block, when the monotonic clock reaches ``deadline``."""
        with self._lock:
            heappush(self._deadlines, (deadline, next(self._order), function))
        self._event.notify()

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._event.notify()
        self._thread.join()

    def _attend(self) -> None:
        name_thread("subiso-attendant")
        while not self._stopped:
            try:
                self._attend_once()
            except Exception as error:  # of taking in what has come, which is there yet
                report(error)
                sleep(_PAUSE)

    def _attend_once(self) -> None:
        first = self._deadlines[0][0] if self._deadlines else None
        self._node.mailbox.attend([self._event], functools.partial(self._has_changed, first), first)
        while self._deadlines and self._deadlines[0][0] <= monotonic():
            with self._lock:
                _, _, function = heappop(self._deadlines)
            function()

    def _has_changed(self, first: float | None) -> bool:
        return self._stopped or (bool(self._deadlines) and self._deadlines[0][0] != first)


def of(node: Node) -> Attendant:
    """Return the node's attendant, made at the first call."""
    attendant: Attendant | None = node.locals.get("attendant")
    if attendant is None:
        with node.lock:
            attendant = node.locals.get("attendant")
            if attendant is None:
                attendant = node.locals["attendant"] = Attendant(node, daemon=node.slot == 0)
    return attendant
