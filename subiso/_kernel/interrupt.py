"""Stopping Python code that runs: exceptions raised by `sys.monitoring` callbacks.

A hack on CPython's insides, and why it is sound
    A monitoring callback runs between two instructions of the code that it is told about, and an exception that it
    raises is that code's exception, documented since 3.12. Events can be switched on by another thread of the same
    interpreter, and take effect at the next function call, line or backward jump; until then they cost nothing. Unlike
    an asynchronous exception it can be kept away from code that must not be torn: nothing is ever raised in subiso's
    own files, and at first nothing in the standard library, whose locks would stay held.

What it cannot stop: one call into C that does not return (a sleep, a socket read, a regular expression that
backtracks). What it relies on is tested in tests/test_interrupt.py.
"""

import os
import sys
from _thread import get_ident
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_SITE = ("site-packages", "dist-packages")

ONCE, ALWAYS, EVERYWHERE = 1, 2, 3
AFTER = {ONCE: 0.02, ALWAYS: 0.2}  # seconds until the next stage


class IsolateKilled(BaseException):
    """Raised in the code of an isolate that is killed, so that ``finally`` and ``with`` blocks run."""


_unwinding: set[int] = set()  # the threads that have been given the one exception of the first stage


def unwind() -> IsolateKilled:
    """Return the exception for a thread that waits in subiso while its isolate is killed: it counts as the first."""
    _unwinding.add(get_ident())
    return IsolateKilled("the isolate is being killed")


class Interrupter:
    """Unwinds the user's code in this interpreter, more insistently stage by stage.

    `ONCE` raises one exception in each thread, so that ``finally`` blocks run; `ALWAYS` raises at every line of the
    user's and of installed packages' code; `EVERYWHERE` in the standard library's too, after which the interpreter may
    have locks that nobody will release: it is not to be used again.
    """

    def __init__(self) -> None:
        self.stage = 0
        self.tainted = False
        self._next = 0.0
        self._tool: int | None = None
        self._kernel = get_ident()  # the thread that makes this object; nothing is raised in it

    def start(self) -> None:
        """Begin to raise."""
        if self.stage:
            return
        monitoring = sys.monitoring
        for tool in (4, 3, 2, 1, 0):
            if monitoring.get_tool(tool) is None:
                monitoring.use_tool_id(tool, "subiso")
                break
        else:  # every tool is taken: take over the one that nobody names
            tool = 4
            monitoring.free_tool_id(tool)
            monitoring.use_tool_id(tool, "subiso")
        self._tool = tool
        self._enter(ONCE)
        events = monitoring.events
        chosen = events.LINE | events.PY_START | events.PY_RESUME | events.JUMP
        for event in (events.LINE, events.PY_START, events.PY_RESUME, events.JUMP):
            monitoring.register_callback(tool, event, self._on_event)
        monitoring.set_events(tool, chosen)

    def stop(self) -> None:
        """Raise no more."""
        if self._tool is not None:
            sys.monitoring.set_events(self._tool, 0)
            sys.monitoring.free_tool_id(self._tool)
            self._tool = None
        self.stage = 0
        _unwinding.clear()

    def patience(self) -> float | None:
        """Return the seconds until `escalate` is due, or None."""
        return max(self._next - monotonic(), 0) if self.stage in AFTER else None

    def escalate(self) -> None:
        """Go to the next stage if it is due."""
        if self.stage in AFTER and monotonic() >= self._next:
            self._enter(self.stage + 1)

    def _enter(self, stage: int) -> None:
        self._next = monotonic() + AFTER.get(stage, 0)
        self.tainted = self.tainted or stage == EVERYWHERE
        self.stage = stage

    def _on_event(self, code: "CodeType", *_: object) -> None:
        name = code.co_filename
        if name.startswith((_OURS, "<frozen importlib")) or get_ident() == self._kernel:
            return
        if self.stage == ONCE:
            if get_ident() in _unwinding or _is_stdlib(name) or _is_being_cancelled():
                return
        elif _is_stdlib(name) and (self.stage == ALWAYS or not _is_called_by_user(sys._getframe(1))):
            return
        raise unwind()


def _is_called_by_user(frame: "FrameType | None") -> bool:
    """Return whether the user's code called this code: not so where a thread begins or ends, or subiso waits."""
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) and not _is_stdlib(name):
            return True
        frame = frame.f_back
    return False


def _is_being_cancelled() -> bool:
    """Return whether the code is unwinding already, because its asyncio task was cancelled."""
    return type(sys.exception()).__name__ == "CancelledError"


def _is_stdlib(name: str) -> bool:
    return name.startswith("<frozen") or (name.startswith(_STDLIB) and not any(part in name for part in _SITE))
