"""Where an isolate's events stop: while it is paused, and for what is to be done before the next one.

The kernel's thread shuts the gate. Whoever is about to handle an event, a wait for messages or an event loop, asks it
first; running code is not interrupted.
"""

from collections import deque

from subiso._kernel.waitables import Waitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Gate:
    """The gate of one isolate.

    Attributes:
        shut: whether `opens` must be asked before the next event.
        begun: whether everything is in force that was asked for with the start of the isolate.
        changed: notified whenever the gate has been shut or opened.
        stoppers: called when the gate is shut, to stop event loops that handle more than messages.
    """

    __slots__ = ("_actions", "_pauses", "begun", "changed", "shut", "stoppers")

    def __init__(self) -> None:
        self.shut = False
        self.begun = False
        self.changed = Waitable()
        self.stoppers: list[Callable[[], None]] = []
        self._pauses: set[bytes] = set()
        self._actions: deque[Callable[[], object]] = deque()

    def begin(self) -> None:
        """Say that everything is in force."""
        self.begun = True
        self.changed.notify()

    def pause(self, capability: bytes) -> None:
        """Let no event pass until `resume` has been called for each capability that this was called with."""
        self._pauses.add(capability)
        self._shut()

    def resume(self, capability: bytes) -> None:
        """Take back a pause; what was never paused with that capability is not resumed."""
        self._pauses.discard(capability)
        self.changed.notify()

    def before_next_event(self, action: "Callable[[], object]") -> None:
        """Have ``action`` called by the thread that is about to handle the next event, before it does."""
        self._actions.append(action)
        self._shut()

    def _shut(self) -> None:
        self.shut = True
        self.changed.notify()
        for stop in self.stoppers[:]:
            stop()

    def opens(self) -> bool:
        """Do what is to be done before the next event, and return whether that may be handled now."""
        while not self._pauses:
            try:
                action = self._actions.popleft()
            except IndexError:
                self.shut = False
                if not (self._pauses or self._actions):  # looked at again: both may have come meanwhile
                    return True
                self.shut = True
            else:
                action()
        return False
