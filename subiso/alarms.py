"""One alarm for many deadlines."""

from math import inf
from weakref import WeakMethod

from subiso._kernel import attendant as attendants
from subiso._kernel import locks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from subiso._kernel.node import Node


class Alarm:
    """Calls a method, on the attendant's thread, when the earliest of its owner's deadlines has come.

    The owner keeps the deadlines; the method returns the earliest that is left, or infinity. So however many deadlines
    there were, the attendant has only one or two to remember.
    """

    def __init__(self, node: "Node", method: "Callable[[], float]") -> None:
        self._node = node
        self._method = WeakMethod(method)
        self._next = inf
        self._lock = locks.Lock()

    def set(self, deadline: float) -> None:
        """See that the alarm goes off at a time of the monotonic clock, or before."""
        if deadline >= self._next:  # a stale look at it: at worst the other alarm is on its way, and will ask
            return
        with self._lock:
            if deadline >= self._next:
                return
            self._next = deadline
        attendants.of(self._node).call_at(deadline, lambda: self._go_off(deadline))

    def _go_off(self, deadline: float) -> None:
        with self._lock:
            if self._next != deadline:  # an earlier one has been set meanwhile
                return
            self._next = inf  # before the deadlines are looked at: one that comes later sets the alarm itself
        method = self._method()
        if method is not None and (following := method()) < inf:
            self.set(following)
