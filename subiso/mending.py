"""What becomes of a pool when Ctrl-C, or another signal whose handler raises, comes while main works at it.

Such an exception is raised between any two instructions of main's first thread, also between those that take an
answer and those that give it to its future. What was torn cannot be known, so everything that might be is given up: the
workers are killed, and the tasks that they ran fail. Those that wait are run by new workers. The attendant does this,
in whose thread no signal's handler runs.

Where main merely waits, which is nearly always, nothing is torn and nothing of this happens.
"""

import functools
import sys
import threading
from _thread import get_ident
from time import monotonic

from subiso._kernel import attendant as attendants
from subiso._kernel import node as nodes
from subiso.errors import IsolateKilledError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Concatenate

    from subiso.crew import Crew
    from subiso.members import Member


def mended[**P, R](method: "Callable[Concatenate[Crew, P], R]") -> "Callable[Concatenate[Crew, P], R]":
    """Have the crew mended if this method of it is torn."""

    def whole(crew: "Crew", /, *args: "P.args", **kwargs: "P.kwargs") -> "R":
        try:
            return method(crew, *args, **kwargs)
        except Exception:
            raise
        except BaseException:
            in_main = crew.node.slot == nodes.MAIN and threading.current_thread() is threading.main_thread()
            if in_main and not _is_nested(whole.__code__, crew):
                unborn = [
                    member for member in [*crew.members] if member.isolate is None and member.maker == get_ident()
                ]
                attendants.of(crew.node).call_at(monotonic(), functools.partial(_mend, crew, unborn))
            raise

    functools.update_wrapper(whole, method)
    return whole


def _is_nested(wrapper: "CodeType", crew: "Crew") -> bool:
    """Return whether such a method of the crew has called this one: that is torn as well, and sees to it."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code is wrapper and frame.f_locals["crew"] is crew:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _mend(crew: "Crew", unborn: "list[Member]") -> None:
    """Begin anew.

    Args:
        crew: to be mended.
        unborn: its members that this thread was about to spawn when it was torn; others may do that just now.
    """
    with crew._lock:
        unborn = [member for member in unborn if member in crew.members]
        known = [member for member in [*crew.members, *crew._leaving] if member.isolate is not None]
        for member in known:
            member.task = None
        crew.members.difference_update(known, unborn)
        crew._leaving.update(known)  # until they have ended
        crew._idle.clear()
        crew._starting = len(crew.members)
        crew._queue.restore([*crew.maps.values(), *crew.unsettled])
        lost = [task for task in [*crew.unsettled, *crew.cut] if task.is_lost()]
    for member in unborn:
        member.turn_away(crew.node)
    for member in known:
        if member.isolate is not None:
            member.isolate.kill()
    for task in lost:
        task.fail(IsolateKilledError(f"{task._name} was given up: a signal has interrupted main's work at the pool"))
    for member in known:
        crew._on_event(member)  # it may have ended before
    crew.dispatch()
    crew.changed.notify()
