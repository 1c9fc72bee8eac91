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
from time import monotonic, thread_time

from subiso._kernel.interpreters import JUMPS_CAN_RAISE, UNGUARDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_SITE = ("site-packages", "dist-packages")

GRACE = 0.02  # seconds of its own processor time in which a thread's ``finally`` blocks run undisturbed
_PATIENCE = 0.5  # seconds of the clock after which that time is over in any case
_INSISTENCE = 10  # so many times longer the standard library is spared
_LOOK = 0.025  # seconds until what was spared is looked at again, and the pauses grow by half
_REMINDER = 0.2  # seconds until waits are ended again: twice as long each time
_LONGEST = 1.0  # seconds: what both grow to

_DISABLE = sys.monitoring.DISABLE  # says that this place is spared until the next look: code in its grace stays fast
_RAISE = object()


class IsolateKilled(BaseException):
    """Raised in the code of an isolate that is killed, so that ``finally`` and ``with`` blocks run."""


_unwinding: dict[int, tuple[float | None, float]] = {}
"""By thread: its processor time when its own code first ran again after its first exception, and the clock."""


def unwind() -> IsolateKilled:
    """Return the exception for a thread that waits in subiso while its isolate is killed: it counts as its first."""
    claim(get_ident())
    return IsolateKilled("the isolate is being killed")


def claim(thread: int) -> bool:
    """Return whether who asks may raise in a thread: it had no exception yet, and now gets none else, or long ago."""
    mark = None, monotonic()
    known = _unwinding.setdefault(thread, mark)
    return known is mark or mark[1] - known[1] > _PATIENCE


class Interrupter:
    """Unwinds the user's code in this interpreter, each thread more insistently as its time passes.

    At first one exception is raised in each thread, so that ``finally`` blocks run. When a thread has used up its
    grace, it gets one at every line of the user's and of installed packages' code, and later in the standard library's
    too, after which the interpreter may have locks that nobody will release: it is not to be used again.

    Attributes:
        tainted: whether that has happened.
    """

    def __init__(self) -> None:
        self.tainted = False
        self._active = False
        self._began = 0.0
        self._look = self._reminder = (0.0, 0.0)  # when, and how long after the one before
        self._tool: int | None = None
        self._places: dict[int, tuple[CodeType, int]] = {}  # by thread: its last instruction
        self._kernel = get_ident()  # the thread that makes this object; nothing is raised in it

    def start(self) -> None:
        """Begin to raise."""
        if self._tool is not None:
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
        self._began = now = monotonic()
        self._look, self._reminder = (now + _LOOK, _LOOK), (now + _REMINDER, _REMINDER)
        events = monitoring.events
        for event in (events.LINE, events.PY_START, events.PY_RESUME):
            monitoring.register_callback(tool, event, self._on_event)
        if JUMPS_CAN_RAISE:
            loops = events.JUMP
            monitoring.register_callback(tool, loops, self._on_jump)
        else:
            loops = events.INSTRUCTION
            monitoring.register_callback(tool, loops, self._on_instruction)
        monitoring.set_events(tool, events.LINE | events.PY_START | events.PY_RESUME | loops)
        self._tool = tool  # now: if something fails, the next call begins anew
        monitoring.restart_events()  # what the last kill spared may be silent still

    def stop(self) -> None:
        """Raise no more."""
        if self._tool is not None:
            sys.monitoring.set_events(self._tool, 0)
            sys.monitoring.free_tool_id(self._tool)
            self._tool = None
        _unwinding.clear()
        self._places.clear()

    def patience(self) -> float | None:
        """Return the seconds until `insist` is due, or None."""
        return None if self._tool is None else max(self._look[0] - monotonic(), 0)

    def insist(self) -> bool:
        """Look again at what was spared; return whether waits must be ended again, too: some may be new."""
        now = monotonic()
        if self._tool is None or now < self._look[0]:
            return False
        pause = min(self._look[1] * 1.5, _LONGEST)
        self._look = now + pause, pause
        sys.monitoring.restart_events()
        if now < self._reminder[0]:
            return False
        pause = min(self._reminder[1] * 2, _LONGEST)
        self._reminder = now + pause, pause
        return True

    @property
    def is_active(self) -> bool:
        """Whether code is being unwound."""
        return self._tool is not None

    def take_activity(self) -> bool:
        """Return whether code of the isolate was seen to run since the last call."""
        active, self._active = self._active, False
        return active

    def _on_event(self, code: "CodeType", *_: object) -> object:
        """A line begins, or a function begins or goes on.

        The first exception is not raised before what, in the compiler's eyes, can raise nothing: it does not care for
        handlers there. It may be the only place outside of them, where code that swallows exceptions can be unwound.
        """
        verdict = self._judge(code)
        if verdict is not _RAISE:
            return verdict
        if get_ident() not in _unwinding and code.co_code[sys._getframe(1).f_lasti] in UNGUARDED:
            return None
        raise unwind()

    def _on_jump(self, code: "CodeType", *_: object) -> object:
        verdict = self._judge(code)
        if verdict is not _RAISE:
            return verdict
        raise unwind()

    def _on_instruction(self, code: "CodeType", offset: int) -> object:
        """In place of a jump: an instruction that stands before the last one, so that there is a loop."""
        last = self._places.get(get_ident())
        if last is None or last[0] is not code or offset > last[1]:
            self._places[get_ident()] = code, offset
        elif offset == last[1] or get_ident() in _unwinding or code.co_code[offset] not in UNGUARDED:
            return self._on_jump(code)
        return None

    def _judge(self, code: "CodeType") -> object:
        """Return whether code of that function is to be unwound now: `_RAISE`, None, or `_DISABLE`."""
        name, thread = code.co_filename, get_ident()
        if name.startswith((_OURS, "<frozen importlib")) or thread == self._kernel:
            return _DISABLE
        self._active = True
        first = _unwinding.get(thread)
        if first is None:
            if _is_being_cancelled():
                return None
            used, passed = 0.0, monotonic() - self._began
        else:
            began, clock = first
            if began is None:  # what C code had to clear away does not count
                began, clock = _unwinding[thread] = thread_time(), monotonic()
            used, passed = thread_time() - began, monotonic() - clock
            if used < GRACE and passed < _PATIENCE:
                return _DISABLE
        if "trio" in sys.modules and _is_installed(name):  # an error inside of its loop would lose its tasks
            return _DISABLE if used < GRACE * _INSISTENCE and passed < 2 * _PATIENCE else _RAISE
        if _is_stdlib(name):
            if used < GRACE * _INSISTENCE and passed < _PATIENCE:
                return _DISABLE
            if not _is_called_by_user(sys._getframe(2)):
                return None
            self.tainted = True
        return _RAISE


def _is_called_by_user(frame: "FrameType | None") -> bool:
    """Return whether the user's code called this code: not so where a thread begins or ends, or subiso waits."""
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) and not _is_stdlib(name):
            return True
        frame = frame.f_back
    return False


def _is_being_cancelled() -> bool:
    """Return whether the code is unwinding already, because its task was cancelled."""
    return type(sys.exception()).__name__ in ("CancelledError", "Cancelled")  # asyncio's, trio's


def _is_installed(name: str) -> bool:
    return name.startswith("<attrs generated") or any(part in name for part in _SITE)


def _is_stdlib(name: str) -> bool:
    return name.startswith("<frozen") or (name.startswith(_STDLIB) and not _is_installed(name))
